"""Mailboxes of guests, as clients of the contract use them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.contract.transcript import ask
from tests.running import Box, Server

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def moment(text: str) -> datetime:
    assert TIME.fullmatch(text), text
    return datetime.fromisoformat(text)


async def test_an_empty_post_makes_a_mailbox(server: Server) -> None:
    for what in ({}, {"data": b""}, {"json": {}}, {"json": {"prefix": None, "domain": None, "expiresIn": None}}):
        answer = await ask(server, "POST", "/v1/mailboxes", **what)
        assert answer.status == 201
        assert {key: answer.json[key] for key in ("code", "msg")} == {"code": 201, "msg": "created"}
        made = answer.data
        assert UUID7.fullmatch(made["id"])
        assert made["address"] == f"{made['localPart']}@{made['domain']}"
        assert made["domain"] == "temp.mail"
        assert len(made["token"]) >= 43  # 256 bits in base64
        assert moment(made["expiresAt"]) - moment(made["createdAt"]) == timedelta(hours=1)
        assert (made["unread"], made["total"]) == (0, 0)


async def test_prefix_domain_and_life_are_what_was_asked_for(server: Server) -> None:
    asked = {"prefix": f"chosen.{datetime.now(UTC):%H%M%S%f}", "domain": "second.test", "expiresIn": "1h30m"}
    made = (await ask(server, "POST", "/v1/mailboxes", json=asked | {"unknown": {"old": ["client"]}})).data
    assert (made["localPart"], made["domain"]) == (asked["prefix"], "second.test")
    assert moment(made["expiresAt"]) - moment(made["createdAt"]) == timedelta(minutes=90)
    again = await ask(server, "POST", "/v1/mailboxes", json=asked)
    assert (again.status, again.error) == (409, "mailbox_exists")


@pytest.mark.parametrize(
    ("body", "status", "error", "field"),
    [
        ({"prefix": "ab"}, 400, "prefix_invalid", "prefix"),
        ({"prefix": "a..b"}, 400, "prefix_invalid", "prefix"),
        ({"prefix": "a\x00b\r\n"}, 400, "prefix_invalid", "prefix"),
        ({"prefix": "postmaster"}, 400, "prefix_invalid", "prefix"),
        ({"domain": "not-ours.example"}, 400, "domain_not_allowed", "domain"),
        ({"expiresIn": "soon"}, 400, "duration_invalid", "expiresIn"),
        ({"expiresIn": "-1h"}, 400, "duration_invalid", "expiresIn"),
        ({"expiresIn": "9" * 400}, 400, "duration_invalid", "expiresIn"),
        ({"expiresIn": "90000h"}, 400, "duration_invalid", "expiresIn"),
        ({"prefix": 7}, 400, "field_invalid", "prefix"),
        ({"expiresIn": 3600}, 400, "field_invalid", "expiresIn"),
        ({"domain": ["temp.mail"]}, 400, "field_invalid", "domain"),
    ],
)
async def test_what_cannot_be_names_the_field(
    server: Server, body: dict[str, Any], status: int, error: str, field: str
) -> None:
    answer = await ask(server, "POST", "/v1/mailboxes", json=body)
    assert (answer.status, answer.error, answer.json["field"]) == (status, error, field)
    assert answer.json["code"] == status
    assert answer.json["data"] is None


async def test_the_token_is_shown_once_and_opens_by_all_three_ways(server: Server) -> None:
    box = await server.mailbox()
    path = f"/v1/mailboxes/{box.id}"
    for headers, query in (
        ({"Authorization": f"Bearer {box.token}"}, ""),
        ({"Authorization": f"bearer {box.token}"}, ""),
        ({"X-Mailbox-Token": box.token}, ""),
        ({"Authorization": "Basic eDp5", "X-Mailbox-Token": box.token}, ""),
        ({}, f"?token={box.token}"),
    ):
        shown = (await ask(server, "GET", path + query, headers=headers)).data
        assert shown["address"] == box.address
        assert "token" not in shown


async def test_tokens_in_urls_can_be_switched_off(own_server: Any) -> None:
    server = own_server(QUERY_TOKEN="false", WORKERS="1")
    box = await server.mailbox()
    assert (await ask(server, "GET", f"/v1/mailboxes/{box.id}?token={box.token}")).status == 401
    assert (await ask(server, "GET", f"/v1/mailboxes/{box.id}", box)).status == 200


async def test_a_list_of_mailboxes_needs_an_account(server: Server) -> None:
    for headers, error in (({}, "token_required"), ((await server.mailbox()).auth, "token_invalid")):
        answer = await ask(server, "GET", "/v1/mailboxes", headers=headers)
        assert (answer.status, answer.error) == (401, error)


async def test_extending_moves_the_end_and_never_shortens(server: Server) -> None:
    box = await server.mailbox()
    path = f"/v1/mailboxes/{box.id}"
    before = moment((await ask(server, "GET", path, box)).data["expiresAt"])
    longer = moment((await ask(server, "PATCH", path, box, json={"expiresIn": "3h"})).data["expiresAt"])
    assert longer > before + timedelta(hours=1)
    shorter = moment((await ask(server, "PATCH", path, box, json={"expiresIn": "5m"})).data["expiresAt"])
    assert shorter == longer
    missing = await ask(server, "PATCH", path, box, json={})
    assert (missing.status, missing.error, missing.json["field"]) == (400, "field_invalid", "expiresIn")
    assert moment((await ask(server, "GET", path, box)).data["expiresAt"]) == longer


async def test_a_new_token_closes_the_old_one_at_once(server: Server) -> None:
    box = await server.mailbox()
    path = f"/v1/mailboxes/{box.id}"
    for _ in range(10):
        assert (await ask(server, "GET", path, box)).status == 200
    rotated = (await ask(server, "POST", path + "/token", box)).data
    assert rotated["token"] != box.token
    for _ in range(10):
        assert (await ask(server, "GET", path, box)).status == 404
        assert (await ask(server, "GET", path, Box(box.id, box.address, rotated["token"]))).status == 200


async def test_a_deleted_mailbox_is_gone_at_once(server: Server) -> None:
    box = await server.mailbox()
    path = f"/v1/mailboxes/{box.id}"
    for _ in range(10):
        assert (await ask(server, "GET", path, box)).status == 200
    deleted = await ask(server, "DELETE", path, box)
    assert (deleted.status, deleted.body) == (204, b"")
    for _ in range(10):
        assert (await ask(server, "GET", path, box)).error == "mailbox_not_found"
    assert (await ask(server, "DELETE", path, box)).status == 404
