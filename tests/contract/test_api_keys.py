"""API keys as clients of the contract use them: made, listed, scoped, revoked, and never seen whole again."""

import re
from typing import Any

import pytest

from tests.contract.people import api_key, own_box, person
from tests.contract.test_api_mailboxes import UUID7, moment
from tests.contract.transcript import ask, inject
from tests.running import Server

SHOWN = re.compile(r"tm_.{5}\*{4}.{4}")
UNKNOWN = "01890000-0000-7000-8000-000000000000"


async def test_a_key_is_whole_once_and_then_only_its_ends(server: Server) -> None:
    owner = await person(server)
    answer = await ask(server, "POST", "/v1/api-keys", headers=owner.auth, json={"name": "  ci  ", "expiresIn": "720h"})
    assert (answer.status, answer.json["code"]) == (201, 201)
    made = answer.data
    assert UUID7.fullmatch(made["id"])
    assert (made["name"], made["isActive"]) == ("ci", True)
    assert re.fullmatch(r"tm_[\w-]{43}", made["key"])
    assert (moment(made["expiresAt"]) - moment(made["createdAt"])).days == 30
    assert "lastUsedAt" not in made
    listed = (await ask(server, "GET", "/v1/api-keys", headers=owner.auth)).data
    assert listed["count"] == 1
    one = (await ask(server, "GET", f"/v1/api-keys/{made['id']}", headers=owner.auth)).data
    assert listed["items"] == [one]
    assert one == made | {"key": f"{made['key'][:8]}****{made['key'][-4:]}"}
    assert SHOWN.fullmatch(one["key"])


async def test_keys_are_listed_newest_first(server: Server) -> None:
    owner = await person(server)
    for name in ("one", "two", "three"):
        await api_key(server, owner, name=name)
    listed = (await ask(server, "GET", "/v1/api-keys", headers=owner.auth)).data
    assert [item["name"] for item in listed["items"]] == ["three", "two", "one"]


@pytest.mark.parametrize(
    ("body", "error", "field"),
    [
        ({}, "field_invalid", "name"),
        ({"name": ""}, "field_invalid", "name"),
        ({"name": "x" * 65}, "field_invalid", "name"),
        ({"name": "two\nlines"}, "field_invalid", "name"),
        ({"name": 7}, "field_invalid", "name"),
        ({"name": "x", "expiresIn": "soon"}, "duration_invalid", "expiresIn"),
        ({"name": "x", "scopes": ["mail:all"]}, "field_invalid", "scopes[0]"),
        ({"name": "x", "scopes": "mail:read"}, "field_invalid", "scopes"),
    ],
)
async def test_what_cannot_be_names_the_field(server: Server, body: Any, error: str, field: str) -> None:
    owner = await person(server)
    answer = await ask(server, "POST", "/v1/api-keys", headers=owner.auth, json=body)
    assert (answer.status, answer.error, answer.json["field"]) == (400, error, field)


async def test_a_key_opens_its_owners_mailboxes_within_its_scopes(server: Server) -> None:
    owner = await person(server)
    box = await own_box(server, owner)
    message = await inject(server, box)
    path = f"/v1/mailboxes/{box.id}"
    needs = [
        ("GET", "/v1/mailboxes", "mailbox:read"),
        ("GET", path, "mailbox:read"),
        ("PATCH", path, "mailbox:write"),
        ("GET", f"{path}/messages", "mail:read"),
        ("GET", f"{path}/messages/search?q=x", "mail:read"),
        ("GET", f"{path}/messages/{message['id']}", "mail:read"),
        ("GET", f"{path}/messages/{message['id']}/raw", "mail:read"),
        ("POST", f"{path}/messages", "mail:write"),
        ("POST", f"{path}/messages/{message['id']}/read", "mail:write"),
        ("DELETE", f"{path}/messages/{message['id']}", "mail:write"),
        ("POST", "/v1/mailboxes", "mailbox:write"),
        ("DELETE", path, "mailbox:write"),
    ]
    scopes = ["mailbox:read", "mailbox:write", "mail:read", "mail:write"]
    for method, asked, needed in needs:
        lacking = await api_key(server, owner, scopes=[scope for scope in scopes if scope != needed])
        for _ in range(2):
            answer = await ask(server, method, asked, headers={"X-API-Key": lacking}, json={})
            assert (answer.status, answer.error) == (403, "permission_denied"), (method, asked)
        enough = await api_key(server, owner, scopes=[needed])
        answer = await ask(server, method, asked, headers={"X-API-Key": enough}, json={})
        assert answer.status in (200, 201, 204, 400), (method, asked, answer.body)


async def test_a_key_is_no_login(server: Server) -> None:
    owner = await person(server)
    key = await api_key(server, owner)
    for method, path in (
        ("GET", "/v1/auth/me"),
        ("POST", "/v1/auth/logout"),
        ("GET", "/v1/api-keys"),
        ("POST", "/v1/api-keys"),
        ("GET", "/v1/admin/users"),
    ):
        answer = await ask(server, method, path, headers={"X-API-Key": key})
        assert (answer.status, answer.error) == (403, "permission_denied"), path
    for wrong in ("tm_" + "x" * 43, "x", "é", owner.access):
        answer = await ask(server, "GET", "/v1/mailboxes", headers={"X-API-Key": wrong})
        assert (answer.status, answer.error) == (401, "token_invalid")
    answer = await ask(server, "GET", "/v1/mailboxes", headers={"Authorization": f"Bearer {key}"})
    assert (answer.status, answer.error) == (401, "token_invalid")


async def test_a_revoked_key_opens_nothing_on_any_worker_nor_from_memory(server: Server) -> None:
    owner = await person(server)
    box = await own_box(server, owner)
    made = (await ask(server, "POST", "/v1/api-keys", headers=owner.auth, json={"name": "x"})).data
    key, path = {"X-API-Key": made["key"]}, f"/v1/mailboxes/{box.id}/messages"
    for _ in range(20):
        assert (await ask(server, "GET", path, headers=key)).status == 200
    gone = await ask(server, "DELETE", f"/v1/api-keys/{made['id']}", headers=owner.auth)
    assert (gone.status, gone.body) == (204, b"")
    for _ in range(20):
        answer = await ask(server, "GET", path, headers=key | {"If-None-Match": "*"})
        assert (answer.status, answer.error) == (401, "token_invalid")
    again = await ask(server, "DELETE", f"/v1/api-keys/{made['id']}", headers=owner.auth)
    assert (again.status, again.error) == (404, "api_key_not_found")


async def test_foreign_and_unknown_keys_look_alike(server: Server) -> None:
    mine, theirs = await person(server), await person(server)
    key = (await ask(server, "POST", "/v1/api-keys", headers=theirs.auth, json={"name": "x"})).data
    for method in ("GET", "HEAD", "DELETE"):
        unknown = await ask(server, method, f"/v1/api-keys/{UNKNOWN}", headers=mine.auth)
        assert unknown.status == 404
        for other in (key["id"], key["id"].upper(), key["id"] + "%00", "x", f"..%2f{key['id']}"):
            for headers in ({}, {"If-None-Match": "*"}, {"Range": "bytes=0-1"}):
                answer = await ask(server, method, f"/v1/api-keys/{other}", headers=mine.auth | headers)
                assert (answer.status, answer.body) == (404, unknown.body)
    assert (await ask(server, "GET", "/v1/api-keys", headers=mine.auth)).data == {"items": [], "count": 0}
    assert (await ask(server, "GET", f"/v1/api-keys/{key['id']}", headers=theirs.auth)).status == 200


async def test_no_key_comes_into_the_log(server: Server) -> None:
    owner = await person(server)
    key = await api_key(server, owner)
    await ask(server, "GET", "/v1/mailboxes", headers={"X-API-Key": key})
    assert key not in server.log
