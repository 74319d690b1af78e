"""The API of MoeMail's clients, as they use it: an API key, bare JSON, bare errors, one's own addresses only."""

import secrets
from typing import Any, Final

import aiohttp
import pytest

from tests.contract.transcript import Answer, ask
from tests.contract.world import UNKNOWN, Owner, owner
from tests.running import Server

HOUR: Final = 3_600_000


async def somebody(server: Server) -> Owner:
    async with aiohttp.ClientSession() as client:
        return await owner(client, server.http)


async def asked(server: Server, one: Owner, method: str, path: str, **what: Any) -> Answer:
    return await ask(server, method, path, headers=one.head("key"), **what)


async def generated(server: Server, one: Owner, **what: Any) -> Any:
    body = {"name": f"n{secrets.token_hex(5)}", "expiryTime": HOUR, "domain": "temp.mail"} | what
    answer = await asked(server, one, "POST", "/api/emails/generate", json=body)
    assert answer.status == 200, answer.body
    return answer.json


async def test_configuration_is_bare(server: Server) -> None:
    found = (await asked(server, await somebody(server), "GET", "/api/config")).json
    assert set(found) == {"domains", "emailDomains", "defaultRole", "maxEmails"}
    assert set(found["domains"]) >= {"temp.mail", "second.test"}
    assert found["emailDomains"] == ",".join(found["domains"])
    assert found["maxEmails"] == "3"


async def test_an_address_is_made_used_and_deleted(server: Server) -> None:
    one = await somebody(server)
    made = await generated(server, one, name="Moe.Mail" + secrets.token_hex(3))
    assert {"id", "emailId", "email", "name", "domain", "createdAt", "expiresAt", "token"} <= set(made)
    assert made["emailId"] == made["id"]
    assert made["email"] == f"{made['name']}@temp.mail" == made["email"].lower()
    letter = {
        "from": "Alice <alice@example.org>",
        "subject": "Hello",
        "text": "Your code is 482193",
        "html": "<p>x</p>",
    }
    path = f"/v1/mailboxes/{made['id']}/messages"
    sent = await ask(server, "POST", path, headers={"Authorization": f"Bearer {made['token']}"}, json=letter)
    assert sent.status == 201
    listed = (await asked(server, one, "GET", f"/api/emails/{made['id']}")).json
    assert (listed["total"], listed["nextCursor"]) == (1, None)
    shown = listed["messages"][0]
    assert shown["id"] == shown["messageId"]
    assert shown["from"] == shown["from_address"] == "Alice <alice@example.org>"
    assert (shown["to_address"], shown["subject"], shown["isRead"]) == (made["email"], "Hello", False)
    assert shown["hasAttachment"] is False
    opened = (await asked(server, one, "GET", f"/api/emails/{made['id']}/{shown['id']}")).json
    assert opened["content"] == opened["text"] == "Your code is 482193\n"
    assert "<p>x</p>" in opened["html"]
    assert opened["isRead"] is True
    assert opened["message"] == {name: value for name, value in opened.items() if name != "message"}
    assert (await asked(server, one, "GET", f"/api/emails/{made['id']}")).json["messages"][0]["isRead"] is True
    gone = await asked(server, one, "DELETE", f"/api/emails/{made['id']}/{shown['id']}")
    assert (gone.status, gone.json) == (200, {"success": True})
    assert (await asked(server, one, "GET", f"/api/emails/{made['id']}")).json["total"] == 0
    assert (await asked(server, one, "DELETE", f"/api/emails/{made['id']}")).json == {"success": True}
    assert (await asked(server, one, "GET", f"/api/emails/{made['id']}")).status == 404


async def test_an_address_for_ever_expires_in_the_year_these_clients_take_for_never(server: Server) -> None:
    made = await generated(server, await somebody(server), name="", expiryTime=0)
    assert made["expiresAt"] == "9999-01-01T00:00:00.000Z"
    assert made["name"]


async def test_addresses_are_listed_page_by_page_newest_first(server: Server) -> None:
    one = await somebody(server)
    made = [(await generated(server, one))["id"] for _ in range(2)]
    every = [made[1], made[0], one.ids["mailbox"]]
    found: list[str] = []
    cursor = ""
    for _ in range(4):
        page = (await asked(server, one, "GET", f"/api/emails?limit=1&cursor={cursor}")).json
        assert page["total"] == 3
        found += [email["id"] for email in page["emails"]]
        if page["nextCursor"] is None:
            break
        cursor = page["nextCursor"]
    assert found == every
    fields = {"id", "emailId", "address", "email", "name", "domain", "createdAt", "expiresAt"}
    whole = (await asked(server, one, "GET", "/api/emails")).json
    assert set(whole["emails"][0]) == fields, "never a token"
    assert whole["nextCursor"] is None


async def test_messages_are_listed_page_by_page(server: Server) -> None:
    one = await somebody(server)
    box = one.ids["mailbox"]
    for number in range(4):
        body = {"from": "a@example.org", "subject": str(number)}
        assert (
            await ask(server, "POST", f"/v1/mailboxes/{box}/messages", headers=one.head("jwt"), json=body)
        ).status == 201
    first = (await asked(server, one, "GET", f"/api/emails/{box}?limit=3")).json
    second = (await asked(server, one, "GET", f"/api/emails/{box}?limit=3&cursor={first['nextCursor']}")).json
    subjects = [message["subject"] for page in (first, second) for message in page["messages"]]
    assert subjects == ["3", "2", "1", "0", "theirs"]
    assert (first["total"], second["total"], second["nextCursor"]) == (5, 5, None)
    assert second["messages"][-1]["hasAttachment"] is True


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "-", "domain": "temp.mail", "expiryTime": HOUR}, 400),
        ({"name": "fine", "domain": "elsewhere.example", "expiryTime": HOUR}, 400),
        ({"name": "fine", "domain": "temp.mail", "expiryTime": 1}, 400),
        ({"name": "fine", "domain": "temp.mail", "expiryTime": -1}, 400),
        ({"name": "fine", "domain": "temp.mail", "expiryTime": "1h"}, 400),
        ({"name": 5}, 400),
    ],
)
async def test_what_is_wrong_is_said_in_a_bare_sentence(server: Server, body: Any, status: int) -> None:
    answer = await asked(server, await somebody(server), "POST", "/api/emails/generate", json=body)
    assert answer.status == status
    assert list(answer.json) == ["error"]
    assert isinstance(answer.json["error"], str)


async def test_an_address_that_is_taken_is_409_and_more_than_the_quota_403(server: Server) -> None:
    one, other = await somebody(server), await somebody(server)
    made = await generated(server, one)
    body = {"name": made["name"], "domain": "temp.mail", "expiryTime": HOUR}
    assert (await asked(server, other, "POST", "/api/emails/generate", json=body)).status == 409
    await generated(server, one)
    over = await asked(server, one, "POST", "/api/emails/generate", json={"name": "", "expiryTime": HOUR})
    assert (over.status, list(over.json)) == (403, ["error"])


async def test_failures_below_api_are_bare_whatever_they_are(server: Server) -> None:
    one = await somebody(server)
    answers = [
        (401, await ask(server, "GET", "/api/emails")),
        (401, await ask(server, "GET", "/api/emails", headers={"X-API-Key": "wrong"})),
        (401, await ask(server, "GET", "/api/emails", headers=one.head("jwt"))),
        (404, await asked(server, one, "GET", f"/api/emails/{UNKNOWN}")),
        (404, await asked(server, one, "GET", f"/api/emails/{one.ids['mailbox']}/{UNKNOWN}")),
        (404, await ask(server, "GET", "/api/nowhere")),
        (404, await ask(server, "GET", "/api")),
        (405, await asked(server, one, "PUT", "/api/emails")),
        (405, await asked(server, one, "GET", "/api/emails/generate")),
        (400, await asked(server, one, "GET", "/api/emails?limit=0")),
        (400, await asked(server, one, "GET", "/api/emails?cursor=x")),
    ]
    for status, answer in answers:
        assert (answer.status, list(answer.json)) == (status, ["error"]), answer.body
        assert answer.headers["Cache-Control"] == "private, no-store"
    chinese = await ask(server, "GET", "/api/emails", headers={"Accept-Language": "zh"})
    assert chinese.json["error"].startswith("需要登录认证 (send an API key")
    assert set((await ask(server, "GET", "/v1/nowhere")).json) == {"code", "msg", "data", "error"}


async def test_too_many_requests_below_api_are_bare(own_server: Any) -> None:
    server = own_server(RATE_LIMIT_EXEMPT="")
    answers = [await ask(server, "GET", "/api/nowhere") for _ in range(400)]
    limited = [answer for answer in answers if answer.status == 429]
    assert limited
    assert list(limited[0].json) == ["error"]
    assert int(limited[0].headers["Retry-After"]) > 0


async def test_a_key_does_only_what_its_scopes_say(server: Server) -> None:
    one = await somebody(server)
    body = {"name": "reads", "scopes": ["mail:read"]}
    made = (await ask(server, "POST", "/v1/api-keys", headers=one.head("jwt"), json=body)).data
    head = {"X-API-Key": made["key"]}
    assert (await ask(server, "GET", f"/api/emails/{one.ids['mailbox']}", headers=head)).status == 200
    for method, path in (("GET", "/api/emails"), ("DELETE", f"/api/emails/{one.ids['mailbox']}")):
        refused = await ask(server, method, path, headers=head)
        assert (refused.status, list(refused.json)) == (403, ["error"])
