"""Mailboxes of accounts: listed, limited, opened by their owner's token and keys, and never by anybody else's."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.contract.people import Person, api_key, fresh_login, own_box, person
from tests.contract.promised import ROWS
from tests.contract.test_api_mailboxes import moment
from tests.contract.transcript import ask, inject
from tests.running import Box, Server

UNKNOWN = "01890000-0000-7000-8000-000000000000"


async def test_a_list_shows_ones_own_mailboxes_and_no_token(server: Server) -> None:
    owner, other = await person(server), await person(server)
    boxes = [await own_box(server, owner) for _ in range(3)]
    await own_box(server, other)
    await inject(server, boxes[1])
    listed = (await ask(server, "GET", "/v1/mailboxes", headers=owner.auth)).data
    assert [item["id"] for item in listed["items"]] == [box.id for box in reversed(boxes)]
    assert listed["count"] == 3
    assert "nextCursor" not in listed
    assert [(item["unread"], item["total"]) for item in listed["items"]] == [(0, 0), (1, 1), (0, 0)]
    assert not any("token" in item for item in listed["items"])
    first = (await ask(server, "GET", "/v1/mailboxes?limit=2", headers=owner.auth)).data
    assert (len(first["items"]), first["count"]) == (2, 3)
    rest = (await ask(server, "GET", f"/v1/mailboxes?limit=2&cursor={first['nextCursor']}", headers=owner.auth)).data
    assert first["items"] + rest["items"] == listed["items"]
    for query in ("limit=0", "limit=x", "cursor=x"):
        assert (await ask(server, "GET", f"/v1/mailboxes?{query}", headers=owner.auth)).status == 400


async def test_a_tier_limits_mailboxes_however_many_are_asked_for_at_once(server: Server) -> None:
    owner = await person(server)
    answers = await asyncio.gather(*(ask(server, "POST", "/v1/mailboxes", headers=owner.auth) for _ in range(12)))
    assert sorted(answer.status for answer in answers) == [201] * 3 + [403] * 9
    assert {answer.error for answer in answers if answer.status == 403} == {"quota_reached"}
    box = next(answer.data for answer in answers if answer.status == 201)
    assert (await ask(server, "DELETE", f"/v1/mailboxes/{box['id']}", headers=owner.auth)).status == 204
    assert (await ask(server, "POST", "/v1/mailboxes", headers=owner.auth)).status == 201


async def test_a_tier_limits_the_messages_of_a_mailbox(server: Server) -> None:
    box = await own_box(server, await person(server))
    for _ in range(30):
        await inject(server, box)
    full = await ask(server, "POST", f"/v1/mailboxes/{box.id}/messages", box, json={"from": "a@example.org"})
    assert (full.status, full.error) == (409, "mailbox_full")


async def test_an_account_keeps_mailboxes_longer_or_for_ever(server: Server) -> None:
    owner = await person(server)
    kept = (await ask(server, "POST", "/v1/mailboxes", headers=owner.auth, json={"expiresIn": "30d"})).data
    assert moment(kept["expiresAt"]) - moment(kept["createdAt"]) == timedelta(days=30)
    for text in ("0", "never"):
        made = (await ask(server, "POST", "/v1/mailboxes", headers=owner.auth, json={"expiresIn": text})).data
        assert "expiresAt" not in made
        shown = (await ask(server, "GET", f"/v1/mailboxes/{made['id']}", headers=owner.auth)).data
        assert "expiresAt" not in shown
        await inject(server, Box(made["id"], made["address"], made["token"]), subject="kept for ever")
        found = (await ask(server, "GET", f"/v1/mailboxes/{made['id']}/messages", headers=owner.auth)).data
        assert [item["subject"] for item in found["items"]] == ["kept for ever"]
    other = await person(server)
    for headers, text in (({}, "never"), ({}, "0"), ({}, "48h"), (other.auth, "31d"), (other.auth, "1s")):
        answer = await ask(server, "POST", "/v1/mailboxes", headers=headers, json={"expiresIn": text})
        assert (answer.status, answer.error) == (400, "duration_invalid"), (headers, text)
    path = f"/v1/mailboxes/{(await own_box(server, other)).id}"
    longer = await ask(server, "PATCH", path, headers=other.auth, json={"expiresIn": "20d"})
    assert (moment(longer.data["expiresAt"]) - moment(longer.data["createdAt"])).days >= 19
    assert (await ask(server, "PATCH", path, headers=other.auth, json={"expiresIn": "31d"})).status == 400


async def test_a_bad_login_makes_no_guests_mailbox(server: Server) -> None:
    for headers in ({"Authorization": "Bearer a.b.c"}, {"X-API-Key": "tm_x"}, {"Cookie": "access_token=x"}):
        headers = headers | {"Sec-Fetch-Site": "same-origin"}
        assert (await ask(server, "POST", "/v1/mailboxes", headers=headers)).status == 401
    refused = await ask(server, "POST", "/v1/mailboxes", headers=(await server.mailbox()).auth)
    assert refused.status == 401, "a mailbox's token is no account's either: a guest sends none"


async def test_a_guests_mailbox_belongs_to_nobody(server: Server) -> None:
    box, someone = await server.mailbox(), await person(server)
    assert (await ask(server, "GET", f"/v1/mailboxes/{box.id}", headers=someone.auth)).status == 404


async def test_owners_token_key_and_mailbox_token_open_the_same(server: Server) -> None:
    owner = await person(server)
    box = await own_box(server, owner)
    key = await api_key(server, owner)
    message = await inject(server, box)
    for tail in ("", "/messages", f"/messages/{message['id']}", f"/messages/{message['id']}/raw"):
        bodies = set()
        for _ in range(4):
            for headers in (box.auth, owner.auth, {"X-API-Key": key}, {"Cookie": f"access_token={owner.access}"}):
                answer = await ask(server, "GET", f"/v1/mailboxes/{box.id}{tail}", headers=headers)
                assert answer.status == 200
                bodies.add(answer.body)
        assert len(bodies) == 1, tail


@dataclass(frozen=True)
class Side:
    """One of the two who must not meet: an account, its mailbox with a message, its key."""

    owner: Person
    box: Box
    message: str
    key: str

    @property
    def credentials(self) -> list[dict[str, str]]:
        return [
            self.owner.auth,
            {"X-API-Key": self.key},
            {"Cookie": f"access_token={self.owner.access}", "Sec-Fetch-Site": "same-origin"},
            self.box.auth,
        ]


async def side(server: Server) -> Side:
    owner = await person(server)
    box = await own_box(server, owner)
    message = await inject(server, box, subject="private")
    return Side(owner, box, message["id"], await api_key(server, owner))


def mailbox_routes() -> list[tuple[str, str]]:
    """Every route that is opened by a mailbox, from the contract's table: none can be forgotten here."""
    return [row.operation for row in ROWS if row.who == "mailbox"]


def filled(path: str, mailbox: str, message: str) -> str:
    return path.replace("{id}", mailbox).replace("{mid}", message).replace("{", "").replace("}", "")


def escaped(text: str) -> str:
    return "".join(f"%{ord(char):02x}" for char in text)


@pytest.mark.parametrize(("method", "path"), mailbox_routes())
async def test_everything_of_somebody_else_looks_like_nothing(server: Server, method: str, path: str) -> None:
    mine, theirs = await asyncio.gather(side(server), side(server))
    for credential in mine.credentials:
        unknown = await ask(server, method, filled(path, UNKNOWN, theirs.message), headers=credential, json={})
        assert unknown.status == 404
        assert method == "HEAD" or unknown.error == "mailbox_not_found"
        foreign = (theirs.box.id, escaped(theirs.box.id), theirs.box.id.upper(), theirs.box.id + "%00")
        for other in foreign:
            for extra in ({}, {"If-None-Match": "*"}, {"Range": "bytes=0-1"}, {"If-None-Match": '"x"', "Range": "x"}):
                headers = credential | extra
                answer = await ask(server, method, filled(path, other, theirs.message), headers=headers, json={})
                assert (answer.status, answer.body) == (404, unknown.body), (other, credential, extra)
                assert set(answer.headers) == set(unknown.headers)
        if method == "GET":
            head = await ask(server, "HEAD", filled(path, theirs.box.id, theirs.message), headers=credential)
            assert (head.status, head.body) in ((404, b""), (405, b""))
    shown = (await ask(server, "GET", f"/v1/mailboxes/{theirs.box.id}/messages", headers=theirs.owner.auth)).data
    assert (shown["count"], shown["items"][0]["isRead"]) == (1, False)


@pytest.mark.parametrize(("method", "path"), [route for route in mailbox_routes() if "{mid}" in route[1]])
async def test_a_foreign_message_is_not_found_through_ones_own_mailbox(server: Server, method: str, path: str) -> None:
    mine, theirs = await asyncio.gather(side(server), side(server))
    tag = await ask(server, "POST", "/v1/tags", headers=mine.owner.auth, json={"name": "t", "color": "red"})
    body = {"tagId": tag.data["id"]}
    for credential in mine.credentials[:2]:
        unknown = await ask(server, method, filled(path, mine.box.id, UNKNOWN), headers=credential, json=body)
        answer = await ask(server, method, filled(path, mine.box.id, theirs.message), headers=credential, json=body)
        assert (answer.status, answer.body) == (unknown.status, unknown.body)
        assert answer.status in (403, 404)


async def test_segments_after_the_end_of_a_path_lead_nowhere(server: Server) -> None:
    mine, theirs = await asyncio.gather(side(server), side(server))
    for tail in ("/", "/x", "/messages/", "/messages/search/x", "/messages;a", ";a", ".css", "/%2e%2e"):
        for box in (mine.box.id, theirs.box.id, UNKNOWN):
            answer = await ask(server, "GET", f"/v1/mailboxes/{box}{tail}", headers=mine.owner.auth)
            assert answer.status == 404, (box, tail)


async def test_kept_answers_are_not_found_with_somebody_elses_credential(server: Server) -> None:
    mine, theirs = await asyncio.gather(side(server), side(server))
    path = f"/v1/mailboxes/{theirs.box.id}/messages"
    for _ in range(10):
        for credential in theirs.credentials:
            assert (await ask(server, "GET", path, headers=credential)).status == 200
    for _ in range(10):
        for credential in mine.credentials:
            assert (await ask(server, "GET", path, headers=credential)).status == 404
        swapped = {"X-API-Key": theirs.owner.access}, {"Authorization": f"Bearer {theirs.key}"}
        assert [(await ask(server, "GET", path, headers=headers)).status for headers in swapped] == [401, 404]


async def say(ws: Any, **frame: Any) -> None:
    await ws.send(json.dumps(frame))


async def heard(ws: Any, *kinds: str) -> Any:
    async with asyncio.timeout(30):
        while True:
            frame = json.loads(await ws.recv())
            if frame["type"] in kinds:
                return frame


async def test_an_access_token_subscribes_to_its_owners_mailboxes_and_no_others(server: Server) -> None:
    mine, theirs = await asyncio.gather(side(server), side(server))
    url = server.http.replace("http", "ws") + "/v1/ws"
    async with connect(url, additional_headers=mine.owner.auth) as ws:
        for box, kind in ((mine.box.id, "subscribed"), (theirs.box.id, "error"), (UNKNOWN, "error")):
            await say(ws, type="subscribe", mailboxId=box)
            frame = await heard(ws, "subscribed", "error")
            assert (frame["type"], frame["mailboxId"]) == (kind, box)
            assert frame.get("error", "mailbox_not_found") == "mailbox_not_found"
        await inject(server, mine.box, subject="pushed")
        assert (await heard(ws, "new_mail"))["data"]["subject"] == "pushed"
        assert (await ask(server, "POST", "/v1/auth/logout", headers=mine.owner.auth)).status == 204
        frame = await heard(ws, "unsubscribed", "new_mail")
        assert (frame["type"], frame["mailboxId"]) == ("unsubscribed", mine.box.id)
        await say(ws, type="subscribe", mailboxId=mine.box.id)
        assert (await heard(ws, "subscribed", "error"))["error"] == "token_invalid"


async def test_a_subscription_ends_with_the_token_it_was_opened_with(own_server: Callable[..., Server]) -> None:
    server = own_server(JWT_ACCESS_EXPIRY="5s", WORKERS="1")
    someone = await person(server)
    box = await own_box(server, someone)
    async with connect(server.http.replace("http", "ws") + "/v1/ws") as ws:
        began: dict[str, Any] = {}
        while began.get("type") != "subscribed":  # on a busy machine the token's time may be over by then
            owner = await fresh_login(server, someone)
            await say(ws, type="subscribe", mailboxId=box.id, token=owner.token)
            began = await heard(ws, "subscribed", "error")
        frame = await heard(ws, "unsubscribed", "mailbox_expired")
        assert (frame["type"], frame["error"]) == ("unsubscribed", "token_expired")
    answer = await owner.ask("GET", "/v1/auth/me")
    assert (answer.status, answer.error) == (401, "token_expired")
