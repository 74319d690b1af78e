"""Event streams over the wire: each event once and in order, what was missed after coming back, who is cut off."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest

from server.services.push.hub import REPLAY_MAX
from tests.contract.accounts import register
from tests.contract.people import fresh_login, own_box, person
from tests.contract.test_delivered_to import alias_of, send
from tests.contract.test_ws import heard, session, subscribe
from tests.contract.transcript import ask, inject
from tests.running import Box, Server, lasting


class Stream:
    """An open event stream, read as the HTML standard's section 9.2.6 says."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.retry = 0
        self.comments = 0

    async def event(self, kind: str = "") -> dict[str, Any]:
        """The next event (its data with ``id`` and ``event`` beside it), or the next of a kind; {} at the end."""
        while True:
            found = await self._next()
            if not found or kind in ("", found["event"]):
                return found

    async def _next(self) -> dict[str, Any]:
        fields: dict[str, str] = {}
        while line := await self.response.content.readline():
            text = line.decode().rstrip("\n")
            if text.startswith(":"):
                self.comments += 1
            elif text.startswith("retry: "):
                self.retry = int(text[7:])
            elif text:
                name, _, value = text.partition(": ")
                fields[name] = value
            elif "data" in fields:
                data = orjson.loads(fields["data"])
                assert data["type"] == fields["event"]
                return data | {"event": fields["event"], "id": fields.get("id")}
        return {}


@contextlib.asynccontextmanager
async def stream(server: Server, box: Box, query: str = "", **headers: str) -> AsyncIterator[Stream]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(sock_read=60)) as client,
        client.get(f"{server.http}/v1/mailboxes/{box.id}/events{query}", headers=box.auth | named) as response,
    ):
        assert response.status == 200, await response.text()
        yield Stream(response)


async def metric(server: Server, name: str) -> float:
    async with aiohttp.ClientSession() as client, client.get(f"{server.http}/metrics") as response:
        lines = (await response.text()).splitlines()
        return float(next((one for one in lines if one.startswith(name + " ")), "0").rpartition(" ")[2])


async def test_new_mail_is_the_websockets_frame_with_its_number_as_the_id(server: Server) -> None:
    box = await server.mailbox()
    async with stream(server, box) as events:
        assert (await events.event())["event"] == "subscribed"
        await server.deliver(box, subject="Your code", text="Your code is 482 193\n", sender="bob@example.org")
        found = await events.event()
    assert (found["event"], found["id"], found["seq"], found["mailboxId"]) == ("new_mail", "1", 1, box.id)
    assert set(found["data"]) == {
        *("messageId", "mailboxId", "from", "to", "deliveredTo", "subject", "preview"),
        *("hasHtml", "hasText", "createdAt", "codes"),
    }
    assert (found["data"]["codes"], found["data"]["deliveredTo"]) == (["482193"], [box.address])
    assert events.retry > 0


async def test_event_tells_the_alias_or_the_tag_that_the_sender_used(server: Server) -> None:
    box = await server.mailbox()
    used = [await alias_of(server, box), box.address.replace("@", "+shop@")]
    async with stream(server, box) as events:
        assert (await events.event())["event"] == "subscribed"
        for address in used:
            await send(server, address)
            assert (await events.event())["data"]["deliveredTo"] == [address]


async def test_headers_keep_proxies_from_holding_events_back(server: Server) -> None:
    box = await server.mailbox()
    async with stream(server, box, Origin="https://page.example") as events:
        headers = events.response.headers
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["Cache-Control"] == "private, no-store"
    assert "Content-Encoding" not in headers
    assert headers["Server"] == "tempmail"


async def test_a_page_of_an_allowed_origin_may_read_the_stream(own_server: Any) -> None:
    server = own_server(WORKERS="1", CORS_ALLOWED_ORIGINS="https://page.example", RATE_LIMIT_EXEMPT="192.0.2.1")
    box = await server.mailbox()
    async with stream(server, box, Origin="https://page.example") as events:
        assert events.response.headers["Access-Control-Allow-Origin"] == "https://page.example"
        assert "X-RateLimit-Remaining" in events.response.headers


async def test_who_comes_back_gets_exactly_what_was_missed(server: Server) -> None:
    box = await server.mailbox()
    seen: list[int] = []
    last = "0"
    for turn in range(5):
        async with stream(server, box, Last_Event_ID=last) as events:
            await inject(server, box, subject=f"during {turn}")
            for _ in range(2 if turn else 1):
                found = await events.event("new_mail")
                seen.append(found["seq"])
                last = found["id"]
        await inject(server, box, subject=f"between {turn}")
    async with stream(server, box, f"?after={last}") as events:
        seen.append((await events.event("new_mail"))["seq"])
    assert seen == list(range(1, 11))


async def test_what_lies_too_far_back_is_an_explicit_gap(own_server: Any) -> None:
    big = own_server(WORKERS="1", MAILBOX_MAX_MESSAGES="0")
    box = await big.mailbox()
    async with aiohttp.ClientSession() as client:
        path, body = f"{big.http}/v1/mailboxes/{box.id}/messages", {"from": "a@example.org", "text": "x"}

        async def put(n: int) -> None:
            for _ in range(n):
                async with client.post(path, json=body, headers=box.auth) as response:
                    assert response.status == 201

        await asyncio.gather(*(put((REPLAY_MAX + 10) // 10) for _ in range(10)))
    async with stream(big, box, Last_Event_ID="4") as events:
        gap = await events.event("gap")
        assert (gap["data"], gap["id"]) == ({"from": 5, "to": 10}, "10")
        for number in range(11, 11 + REPLAY_MAX):
            assert (await events.event("new_mail"))["id"] == str(number)
    async with session(big) as ws:
        await subscribe(ws, box, after=4)
        gap = await heard(ws, "gap")
        assert (gap["data"], gap["seq"]) == ({"from": 5, "to": 10}, 10)
        for number in range(11, 11 + REPLAY_MAX):
            assert (await heard(ws, "new_mail"))["seq"] == number


async def test_reading_and_deleting_tell_the_counters_without_an_id(server: Server) -> None:
    box = await server.mailbox()
    async with stream(server, box) as events:
        message = await inject(server, box, subject="x")
        await events.event("new_mail")
        await ask(server, "POST", f"/v1/mailboxes/{box.id}/messages/{message['id']}/read", box)
        found = await events.event("mailbox_update")
        assert (found["id"], found["data"]["unreadCount"], found["data"]["totalCount"]) == (None, 0, 1)


async def test_the_stream_ends_with_its_mailbox(server: Server) -> None:
    box = await server.mailbox()
    async with stream(server, box) as events:
        await events.event("subscribed")
        await ask(server, "DELETE", f"/v1/mailboxes/{box.id}", box)
        assert (await events.event())["event"] == "mailbox_expired"
        assert await events.event() == {}
    gone = await ask(server, "GET", f"/v1/mailboxes/{box.id}/events", box)
    assert (gone.status, gone.error) == (404, "mailbox_not_found")


async def test_a_new_token_ends_streams_of_the_old_one_before_more_is_told(server: Server) -> None:
    box = await server.mailbox()
    async with stream(server, box) as events:
        await events.event("subscribed")
        assert (await ask(server, "POST", f"/v1/mailboxes/{box.id}/token", box)).status == 200
        await server.deliver(box, subject="not for the old token")
        ended = await events.event()
        assert (ended["event"], ended["error"]) == ("unsubscribed", "mailbox_not_found")
        assert await events.event() == {}


async def test_the_owner_opens_streams_and_waits_with_his_account(server: Server) -> None:
    owner, stranger = await register(server), await register(server)
    box = await owner.mailbox()
    as_owner = Box(box.id, box.address, owner.token)
    key = (await owner.ask("POST", "/v1/api-keys", json={"name": "ci"})).data["key"]
    async with stream(server, as_owner) as events:
        await events.event("subscribed")
        await server.deliver(box, subject="to an account")
        assert (await events.event())["seq"] == 1
    for path in ("wait?timeout=0", "events"):
        foreign = await stranger.ask("GET", f"/v1/mailboxes/{box.id}/{path}")
        assert (foreign.status, foreign.error) == (404, "mailbox_not_found")
    by_key = await ask(server, "GET", f"/v1/mailboxes/{box.id}/wait?timeout=0", headers={"X-API-Key": key})
    assert by_key.data["message"]["seq"] == 1


async def test_logging_out_ends_the_accounts_streams(server: Server) -> None:
    owner = await register(server)
    box = await owner.mailbox()
    async with stream(server, Box(box.id, box.address, owner.token)) as events:
        await events.event("subscribed")
        assert (await owner.ask("POST", "/v1/auth/logout")).status == 204
        ended = await events.event()
        assert (ended["event"], ended["error"]) == ("unsubscribed", "token_invalid")
        assert await events.event() == {}


async def test_a_stream_ends_with_the_access_token_that_opened_it(own_server: Any) -> None:
    server = own_server(JWT_ACCESS_EXPIRY="5s")
    someone = await person(server)
    box = await own_box(server, someone)
    async with contextlib.AsyncExitStack() as closing:
        began: dict[str, Any] = {}
        while not began:  # on a busy machine the token's time may be over before the stream begins
            owner = await fresh_login(server, someone)
            with contextlib.suppress(AssertionError):
                events = await closing.enter_async_context(stream(server, Box(box.id, box.address, owner.token)))
                began = await events.event("subscribed")
        while (await owner.ask("GET", f"/v1/mailboxes/{box.id}")).status == 200:
            await asyncio.sleep(0.2)
        await server.deliver(box, subject="too late for this token")
        ended = await events.event()
        assert (ended["event"], ended["error"]) == ("unsubscribed", "token_expired")
        assert await events.event() == {}


@pytest.mark.parametrize("last", ["x", "-1", "1" * 20, "1.5", "٣"])
async def test_a_number_that_is_none_of_the_streams_is_refused(server: Server, last: str) -> None:
    box = await server.mailbox()
    answer = await ask(server, "GET", f"/v1/mailboxes/{box.id}/events", box, headers={"Last-Event-ID": last})
    assert (answer.status, answer.error, answer.json["field"]) == (400, "field_invalid", "Last-Event-ID")


async def test_a_number_the_mailbox_has_not_reached_is_refused(server: Server) -> None:
    box = await server.mailbox()
    for headers, query in (({"Last-Event-ID": "1"}, ""), ({}, "?after=1")):
        answer = await ask(server, "GET", f"/v1/mailboxes/{box.id}/events{query}", box, headers=headers)
        assert (answer.status, answer.error) == (400, "field_invalid")


def _unread(server: Server, box: Box) -> socket.socket:
    """A stream whose reader takes nothing."""
    host, port = server.http.removeprefix("http://").split(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect((host, int(port)))
    head = f"GET /v1/mailboxes/{box.id}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {box.token}\r\n\r\n"
    sock.sendall(head.encode())
    return sock


async def test_a_reader_who_takes_nothing_harms_nobody_and_is_cut_off(own_server: Any) -> None:
    server = own_server(WORKERS="1", MAILBOX_MAX_MESSAGES="0")
    box = await server.mailbox()
    slow = _unread(server, box)
    async with stream(server, box) as events:
        await events.event("subscribed")
        body = {"from": "a@example.org", "subject": "x" * 900, "text": "y" * 300}
        deadline, sent = time.monotonic() + 100, 0
        async with aiohttp.ClientSession() as client:
            while await metric(server, "tempmail_streams_active") != 1:
                assert time.monotonic() < deadline
                for _ in range(50):
                    sent += 1
                    path = f"{server.http}/v1/mailboxes/{box.id}/messages"
                    async with client.post(path, json=body, headers=box.auth) as response:
                        assert response.status == 201
                    found = await events.event("new_mail")
                    assert found["seq"] == sent
                if sent > 6000:
                    await asyncio.sleep(0.5)
    slow.close()


async def test_a_stopping_server_ends_streams_and_the_next_start_goes_on(own_server: Any) -> None:
    server = own_server(WORKERS="1", **lasting())
    box = await server.mailbox()
    async with stream(server, box) as events:
        await inject(server, box, subject="before")
        last = (await events.event("new_mail"))["id"]
        assert await asyncio.to_thread(server.stop) == 0
        assert await events.event() == {}
    await asyncio.to_thread(server.start)
    await inject(server, box, subject="after")
    async with stream(server, box, Last_Event_ID=last) as events:
        assert (await events.event("new_mail"))["data"]["subject"] == "after"
