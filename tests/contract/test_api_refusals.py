"""A refusal for want of rights says what to send instead: on every route, whatever was sent."""

from typing import Final

import pytest

from tests.contract.people import api_key, person
from tests.contract.promised import ROWS, Row
from tests.contract.transcript import ask
from tests.contract.world import UNKNOWN
from tests.running import Server

CLOSED: Final = [row for row in ROWS if row.who not in ("none", "optional")]


@pytest.mark.parametrize("row", CLOSED, ids=[row.name for row in CLOSED])
async def test_who_sends_nothing_or_rubbish_is_told_what_to_send(server: Server, row: Row) -> None:
    for head in ({}, {"Authorization": "Bearer a.b.c", "X-API-Key": "rubbish"}):
        answer = await ask(server, row.method, row.filled(UNKNOWN), headers=head)
        assert answer.status == 401
        told = answer.json.get("detail") or answer.json["error"]
        in_head = "X-API-Key" if row.who == "key" else "Authorization: Bearer"
        assert ("send one" if head else in_head) in told


async def test_who_may_not_is_told_who_may(server: Server) -> None:
    someone = await person(server)
    box, key = await server.mailbox(), await api_key(server, someone, scopes=["mail:read"])
    for head, method, where, status, told in (
        (someone.auth, "GET", "/v1/admin/users", 403, "role admin or super"),
        (someone.auth, "PUT", "/v1/admin/config", 403, "role super"),
        (box.auth, "GET", "/v1/tags", 401, "no account's: send an access token"),
        ({"X-API-Key": key}, "GET", "/v1/tags", 403, "no API key may"),
        ({"X-API-Key": key}, "GET", "/v1/mailboxes", 403, "scope mailbox:read"),
        ({"Authorization": "Bearer " + "x" * 43}, "GET", "/v1/auth/me", 401, "POST /v1/auth/login"),
    ):
        answer = await ask(server, method, where, headers=head)
        assert (answer.status, told in answer.json["detail"]) == (status, True), (where, answer.json)
    wrong = {"email": someone.email, "password": "not it at all"}
    answer = await ask(server, "POST", "/v1/auth/login", json=wrong)
    assert (answer.status, "password" in answer.json["detail"]) == (401, True)


async def test_a_mailbox_that_is_not_the_caller_s_is_refused_without_a_word_more(server: Server) -> None:
    box, other = await server.mailbox(), await server.mailbox()
    refused = [await ask(server, "GET", f"/v1/mailboxes/{which}", other) for which in (box.id, UNKNOWN)]
    assert [answer.status for answer in refused] == [404, 404]
    assert "detail" not in refused[0].json
    assert refused[0].json == refused[1].json
