"""Two accounts with one of everything each, made over HTTP as a client would, and what names a thing in a path."""

import secrets
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any, Final

import aiohttp

PASSWORD: Final = "correct horse battery"
UNKNOWN: Final = "01890000-0000-7000-8000-000000000000"

KINDS: Final = {
    "mailboxes": "mailbox",
    "emails": "mailbox",
    "messages": "message",
    "attachments": "attachment",
    "aliases": "alias",
    "tags": "tag",
    "api-keys": "key",
    "webhooks": "webhook",
    "deliveries": "delivery",
    "domains": "domain",
    "users": "user",
    "bans": "ban",
    "static": "file",
}
"""What a variable segment names, by the literal one before it."""


def kind(path: str, name: str) -> str:
    """The kind of thing that ``{name}`` stands for in a route's path; KeyError for a kind that is not known here."""
    segments = path.split("/")
    before = segments[segments.index("{" + name + "}") - 1]
    return "message" if before.startswith("{") else KINDS[before]


def letter(subject: str) -> str:
    """A message with an attachment (part 2), whole."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@example.org", "b@example.org", subject
    message.set_content("Your code is 482193")
    message.add_attachment(b"\x00\x01", maintype="application", subtype="octet-stream", filename="data.bin")
    return message.as_string()


@dataclass
class Owner:
    """An account, its credentials, and the ids of what it owns by kind."""

    base: str
    token: str = ""
    key: str = ""
    box_token: str = ""
    refresh: str = ""
    email: str = ""
    ids: dict[str, str] = field(default_factory=dict)

    def head(self, credential: str) -> dict[str, str]:
        """``token``: the mailbox's, ``jwt``: the access token, ``key``: the API key."""
        if credential == "key":
            return {"X-API-Key": self.key}
        return {"Authorization": f"Bearer {self.box_token if credential == 'token' else self.token}"}

    async def call(self, client: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> Any:
        """``data`` of a call with the access token that must succeed."""
        async with client.request(method, self.base + path, json=body, headers=self.head("jwt")) as response:
            assert response.status < 300, (method, path, response.status, await response.text())
            return (await response.json())["data"] if response.status != 204 else None

    def path(self, template: str, **other: str) -> str:
        """A route's path with this owner's ids in it, except those that are given."""
        filled = template
        for segment in template.split("/"):
            if segment.startswith("{"):
                name = segment[1:-1]
                filled = filled.replace(segment, other.get(name) or self.ids[kind(template, name)])
        return filled


async def owner(client: aiohttp.ClientSession, base: str) -> Owner:
    """A new account that owns a mailbox with a tagged message, an alias, a key, a webhook with a delivery, a domain."""
    one = Owner(base, email=f"{secrets.token_hex(6)}@example.org")
    session = await one.call(client, "POST", "/v1/auth/register", {"email": one.email, "password": PASSWORD})
    one.ids["ban"] = "01890000-0000-7000-8000-0000000000ba"  # nobody owns one, and only administrators may ask
    one.token, one.refresh, one.ids["user"] = session["accessToken"], session["refreshToken"], session["user"]["id"]
    box = await one.call(client, "POST", "/v1/mailboxes", {})
    one.box_token, one.ids["mailbox"] = box["token"], box["id"]
    at = f"/v1/mailboxes/{box['id']}"
    message = await one.call(client, "POST", f"{at}/messages", {"raw": letter("theirs")})
    one.ids |= {"message": message["id"], "attachment": message["attachments"][0]["id"], "file": "docs.css"}
    alias = {"address": f"also-{secrets.token_hex(4)}@{box['domain']}"}
    one.ids["alias"] = (await one.call(client, "POST", f"{at}/aliases", alias))["id"]
    one.ids["tag"] = (await one.call(client, "POST", "/v1/tags", {"name": "theirs", "color": "#336699"}))["id"]
    await one.call(client, "POST", f"{at}/messages/{message['id']}/tags", {"tagId": one.ids["tag"]})
    key = await one.call(client, "POST", "/v1/api-keys", {"name": "theirs"})
    one.key, one.ids["key"] = key["key"], key["id"]
    domain = {"domain": f"{secrets.token_hex(4)}.example", "mode": "exclusive"}
    one.ids["domain"] = (await one.call(client, "POST", "/v1/user/domains", domain))["id"]
    await _hooked(client, one)
    return one


async def _hooked(client: aiohttp.ClientSession, one: Owner) -> None:
    hook = {"url": "https://example.org/hook", "events": ["tag.deleted"]}
    one.ids["webhook"] = (await one.call(client, "POST", "/v1/webhooks", hook))["id"]
    await one.call(client, "POST", f"/v1/webhooks/{one.ids['webhook']}/test")
    found = await one.call(client, "GET", f"/v1/webhooks/{one.ids['webhook']}/deliveries")
    one.ids["delivery"] = (found["items"] if isinstance(found, dict) else found)[0]["id"]
