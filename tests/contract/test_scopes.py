"""What an API key may do: every route, by the contract's table (routes.txt), and no step from a few scopes to all.

What an answer holds counts: one that gives what opens a mailbox (a token, a link) needs every scope, or a key could
widen itself.
"""

import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import aiohttp
import pytest

from tests.contract.promised import ROWS, SCOPES
from tests.contract.test_isolation import BODIES
from tests.contract.world import Owner, letter, owner
from tests.running import Server

BOX_READ, BOX_WRITE, MAIL_READ, MAIL_WRITE = SCOPES
_BOX: Final = "/v1/mailboxes/{id}"
_MAIL: Final = _BOX + "/messages"

MORE_BODIES: Final[dict[tuple[str, str], Any]] = {
    ("POST", "/v1/mailboxes"): {},
    ("POST", "/api/emails/generate"): {},
    ("POST", _BOX + "/aliases"): lambda _: {"address": f"also-{secrets.token_hex(6)}@temp.mail"},
    ("POST", _MAIL): {"from": "a@example.org", "subject": "written by a key"},
}
NEEDS: Final = {row.operation: row.scopes for row in ROWS}
SCOPED: Final = [operation for operation, needs in NEEDS.items() if needs]
KEYLESS: Final = [row.operation for row in ROWS if row.who != "none" and not row.scopes]
BRIEF: Final = "?timeout=1"  # a wait that finds its mail at once


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
        yield session


async def _key(client: aiohttp.ClientSession, one: Owner, scopes: list[str]) -> dict[str, str]:
    return {"X-API-Key": (await one.call(client, "POST", "/v1/api-keys", {"name": "few", "scopes": scopes}))["key"]}


def _secrets(answer: Any) -> Iterator[str]:
    """Whatever in an answer might open something."""
    if isinstance(answer, dict):
        for name, value in answer.items():
            if isinstance(value, str) and any(word in name.lower() for word in ("token", "secret", "key", "url")):
                yield name
            yield from _secrets(value)
    elif isinstance(answer, list):
        for value in answer:
            yield from _secrets(value)


async def _asked(
    client: aiohttp.ClientSession, one: Owner, operation: tuple[str, str], head: dict[str, str]
) -> tuple[int, Any]:
    method, template = operation
    wanted = (BODIES | MORE_BODIES).get(operation)
    body = wanted(one) if callable(wanted) else wanted
    path = one.path(template) + (BRIEF if template.endswith("/wait") else "")
    async with client.request(method, one.base + path, json=body, headers=head) as response:
        if response.content_type == "application/json":
            return response.status, await response.json()
        return response.status, None


@pytest.mark.parametrize("operation", SCOPED, ids=" ".join)
async def test_a_key_needs_exactly_what_the_table_says_and_gets_nothing_that_opens_more(
    server: Server, client: aiohttp.ClientSession, operation: tuple[str, str]
) -> None:
    one = await owner(client, server.http)
    needs = NEEDS[operation]
    for scope in needs:
        lacking = await _key(client, one, [other for other in SCOPES if other != scope])
        status, _ = await _asked(client, one, operation, lacking)
        assert status == 403, scope
    enough = await _key(client, one, list(needs))
    status, answer = await _asked(client, one, operation, enough)
    assert status < 300, answer
    if set(needs) != set(SCOPES):
        assert not list(_secrets(answer)), answer


@pytest.mark.parametrize("operation", KEYLESS, ids=" ".join)
async def test_no_key_however_wide_does_what_is_for_the_account_itself(
    server: Server, client: aiohttp.ClientSession, pair: dict[str, Owner], operation: tuple[str, str]
) -> None:
    if not pair:
        pair["one"] = await owner(client, server.http)
    one = pair["one"]
    status, _ = await _asked(client, one, operation, one.head("key"))
    assert status == 403


@pytest.fixture(scope="module")
def pair() -> dict[str, Owner]:
    return {}


@pytest.mark.parametrize("path", ["/v1/mailboxes", "/api/emails/generate"])
async def test_only_a_key_with_every_scope_is_given_the_token_of_a_mailbox_it_makes(
    server: Server, client: aiohttp.ClientSession, path: str
) -> None:
    one = await owner(client, server.http)
    for scope in SCOPES:
        few = [other for other in SCOPES if other != scope or other == BOX_WRITE]
        given = await _asked(client, one, ("POST", path), await _key(client, one, few))
        assert given[0] in (200, 201)
        made = given[1].get("data", given[1])
        assert ("token" in made) == (set(few) == set(SCOPES)), few
        await one.call(client, "DELETE", f"/v1/mailboxes/{made['id']}")


async def test_a_key_that_may_only_write_mailboxes_never_comes_to_their_mail(
    server: Server, client: aiohttp.ClientSession
) -> None:
    """The attack: rotate the token, read with it, and go on after the key was revoked."""
    one = await owner(client, server.http)
    head = await _key(client, one, [BOX_WRITE])
    async with client.post(f"{server.http}{one.path(_BOX)}/token", headers=head) as response:
        refused = await response.json()
        assert response.status == 403
        assert "mailbox:read mail:read mail:write" in refused["detail"]
    async with client.get(f"{server.http}{one.path(_MAIL)}", headers=one.head("token")) as response:
        assert response.status == 200, "the owner's token stays as it was"


async def test_a_key_that_may_only_read_changes_nothing(server: Server, client: aiohttp.ClientSession) -> None:
    one = await owner(client, server.http)
    head = await _key(client, one, [MAIL_READ])
    box = f"/v1/mailboxes/{one.ids['mailbox']}"
    message = await one.call(client, "POST", f"{box}/messages", {"raw": letter("unread")})
    before = await one.call(client, "GET", f"{box}/messages")
    read = [path for (method, path), needs in NEEDS.items() if (method, needs) == ("GET", (MAIL_READ,))]
    assert len(read) > 5
    for template in read:
        if not template.endswith("/events"):
            status, _ = await _asked(client, one, ("GET", template), head)
            assert status == 200, template
    async with client.get(f"{server.http}/api/emails/{one.ids['mailbox']}/{message['id']}", headers=head) as response:
        assert not (await response.json())["isRead"]
    assert await one.call(client, "GET", f"{box}/messages") == before


MISPLACED: Final = {
    "an API key as Bearer": lambda one: {"Authorization": f"Bearer {one.key}"},
    "an API key without a scheme": lambda one: {"Authorization": one.key},
    "an API key as password": lambda _: {"Authorization": "Basic dG06eA=="},
    "an API key as a mailbox's token": lambda one: {"X-Mailbox-Token": one.key},
    "a wrong API key": lambda one: {"X-API-Key": one.key + "x"},
    "an empty API key": lambda _: {"X-API-Key": ""},
    "an empty Bearer": lambda _: {"Authorization": "Bearer "},
    "a mailbox's token": lambda one: one.head("token"),
    "an access token as API key": lambda one: {"X-API-Key": one.token},
    "a refresh token": lambda one: {"Authorization": f"Bearer {one.refresh}"},
    "a broken access token": lambda one: {"Authorization": f"Bearer {one.token}x"},
    "three empty parts": lambda _: {"Authorization": "Bearer .."},
    "a wrong cookie": lambda _: {"Cookie": "access_token=rubbish", "Sec-Fetch-Site": "same-origin"},
}


@pytest.mark.parametrize("name", MISPLACED)
async def test_a_credential_that_is_no_accounts_never_makes_a_guests_mailbox(
    server: Server, client: aiohttp.ClientSession, pair: dict[str, Owner], name: str
) -> None:
    if not pair:
        pair["one"] = await owner(client, server.http)
    head = MISPLACED[name](pair["one"])
    async with client.post(f"{server.http}/v1/mailboxes", headers=head, json={}) as response:
        answer = await response.json()
        assert (response.status, answer["data"]) == (401, None)
    if name == "an API key as Bearer":
        assert "X-API-Key" in answer["detail"]


async def test_who_sends_no_credential_is_a_guest(server: Server, client: aiohttp.ClientSession) -> None:
    for head in ({}, {"Cookie": "theme=dark"}, {"Accept-Language": "zh"}):
        async with client.post(f"{server.http}/v1/mailboxes", headers=head) as response:
            assert response.status == 201
            assert (await response.json())["data"]["token"]
    async with client.post(f"{server.http}/v1/mailboxes?token=x") as response:
        assert response.status == 401
