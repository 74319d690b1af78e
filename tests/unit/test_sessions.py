"""WebSocket sessions over real sockets, where time, capacity and rights must be at hand: pings, drain, the slow."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import orjson
import pytest
from aiohttp import web
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server.config import Config, load
from server.model import ids
from server.model.errors import Refused, Unavailable
from server.model.event import Hint, Kind
from server.model.message import Counts, Details, Mailbox, Stored
from server.services.hub import PAGE, Hub
from server.services.watching import RECHECK_INTERVAL
from server.ws import session as session_module
from server.ws.handshake import Origin, origin_allowed, parse_origin
from server.ws.session import PING_INTERVAL, SILENCE_MAX, WRITE_STALL, Session
from server.ws.sessions import Sessions


class Place:
    """One worker's WebSocket side on a socket of its own; rows, tokens and ends are the test's to set."""

    def __init__(self, config: Config) -> None:
        self.hub = Hub(self._fetch, self._next_seqs, self._counts)
        self.sessions = Sessions(config, self.hub, self._authorise)
        self.rows: list[Stored] = []
        self.expires_at: datetime | None = None
        self.token = "right"
        self.down = False
        self.port = 0

    async def _fetch(self, asked: Sequence[tuple[str, int]]) -> Sequence[Stored]:
        return [
            row
            for box, after in asked
            for row in [r for r in self.rows if r.mailbox_id == box and r.seq > after][:PAGE]
        ]

    async def _next_seqs(self, boxes: Sequence[str]) -> Mapping[str, int]:
        return {box: 1 + sum(row.mailbox_id == box for row in self.rows) for box in boxes}

    async def _counts(self, boxes: Sequence[str]) -> Mapping[str, Counts]:
        return {box: Counts(0, 0, 1, None) for box in boxes}

    async def _authorise(self, mailbox_id: str, token: str) -> tuple[Mailbox, float]:
        if self.down:
            raise Unavailable("no database")
        if token != self.token or (self.expires_at is not None and self.expires_at <= datetime.now(UTC)):
            raise Refused("mailbox_not_found")
        return Mailbox(mailbox_id, "a", "temp.mail", b"", datetime.now(UTC), self.expires_at), inf

    def commit(self, mailbox_id: str, preview: str = "") -> Stored:
        seq = 1 + sum(row.mailbox_id == mailbox_id for row in self.rows)
        now = datetime.now(UTC)
        row = Stored(ids.new(seq), mailbox_id, seq, now, "", "", "", "", preview, 1, False, Details())
        self.rows.append(row)
        return row

    async def answer(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self.sessions.handle(request)
        except Refused as refusal:
            return web.json_response({"error": refusal.word}, status=400)
        except Unavailable:
            return web.json_response({}, status=503)

    def connect(self, **options: Any) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}/v1/ws?token=right", ping_interval=None, **options)

    def only(self) -> Session:
        (session,) = self.sessions._sessions
        return session

    async def gone(self) -> None:
        await until(lambda: not self.sessions._sessions)


async def until(done: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while True:
            if done():
                return
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def open_place(config: Config) -> AsyncIterator[Place]:
    place = Place(config)
    app = web.Application()
    app.router.add_get("/v1/ws", place.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # accepted sockets inherit it
    await web.SockSite(runner, listening).start()
    place.port = listening.getsockname()[1]
    try:
        yield place
    finally:
        await place.sessions.drain(5)
        await place.hub.close()
        await runner.cleanup()


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with open_place(
        load({"TEMPMAIL_WEBSOCKET_MAX": "2", "TEMPMAIL_CORS_ALLOWED_ORIGINS": "https://x.test"})
    ) as one:
        yield one


async def say(ws: ClientConnection, **frame: Any) -> None:
    await ws.send(orjson.dumps(frame).decode())


async def heard(ws: ClientConnection) -> dict[str, Any]:
    frame: dict[str, Any] = orjson.loads(await ws.recv())
    return frame


async def subscribe(ws: ClientConnection, mailbox_id: str, **more: Any) -> None:
    await say(ws, type="subscribe", mailboxId=mailbox_id, **more)
    assert (await heard(ws))["type"] == "subscribed"


async def ending(ws: ClientConnection) -> int | None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await ws.recv()
    return ws.close_code


async def test_a_silent_client_is_pinged_and_then_dropped(place: Place) -> None:
    async with place.connect() as ws:
        await subscribe(ws, ids.new())
        session, now = place.only(), time.monotonic()
        assert session.visit(now + PING_INTERVAL)
        assert (await heard(ws))["type"] == "ping"
        assert not session.visit(now + SILENCE_MAX)
        assert await ending(ws) == 1001
    await place.gone()
    assert place.hub.mailboxes_watched() == []


@pytest.mark.parametrize("sign", ["pong frame", "protocol ping", "protocol pong"])
async def test_any_sign_of_life_keeps_a_client(place: Place, sign: str) -> None:
    async with place.connect() as ws:
        await subscribe(ws, ids.new())
        session, before = place.only(), time.monotonic()
        if sign == "pong frame":
            await say(ws, type="pong")
        elif sign == "protocol ping":
            await (await ws.ping())
        else:
            await ws.pong()
        await subscribe(ws, ids.new())
        assert session.visit(before + SILENCE_MAX)


async def test_a_write_that_does_not_move_ends_the_connection_with_1013(place: Place) -> None:
    box, narrow = ids.new(), socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.connect(("127.0.0.1", place.port))
    for _ in range(900):
        place.commit(box, "p" * 2000)
    async with place.connect(sock=narrow, max_queue=1) as slow, place.connect() as good:
        await say(slow, type="subscribe", mailboxId=box, after=0)
        await subscribe(good, box)
        await until(lambda: any(s._writing_since is not None for s in place.sessions._sessions))
        stuck = next(s for s in place.sessions._sessions if s._writing_since is not None)
        assert stuck._queued_bytes < 2 * session_module.QUEUE_BYTES, "what does not fit is left in the store"
        place.hub.feed([place.commit(box)])
        assert (await heard(good))["seq"] == 901, "nobody else waits"
        assert not stuck.visit(time.monotonic() + WRITE_STALL)
        assert await ending(slow) in (1013, 1006)


async def test_a_slow_reader_that_reads_gets_everything_in_order(place: Place) -> None:
    box = ids.new()
    for _ in range(700):
        place.commit(box, "p" * 1500)
    async with place.connect(max_queue=1) as ws:
        await subscribe(ws, box, after=0)
        assert [(await heard(ws))["seq"] for _ in range(700)] == list(range(1, 701))
        place.hub.feed([place.commit(box)])
        assert (await heard(ws))["seq"] == 701


async def test_words_that_pile_up_end_the_connection(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "WORDS_MAX", 3)
    box = ids.new()
    async with place.connect() as ws:
        await subscribe(ws, box)
        session = place.only()
        for _ in range(5):  # without a turn of the loop in between nothing is written
            session.tell(b"{}")
        assert await ending(ws) == 1013


async def test_one_too_many_is_answered_503_and_leaving_makes_room(place: Place) -> None:
    async with place.connect(), place.connect():
        with pytest.raises(InvalidStatus) as refused:
            await place.connect().__aenter__()
        assert refused.value.response.status_code == 503
    await place.gone()
    async with place.connect() as ws:
        await subscribe(ws, ids.new())


async def test_draining_closes_with_1012_and_lets_nobody_in(place: Place) -> None:
    async with place.connect() as one, place.connect() as two:
        await subscribe(one, ids.new())
        await subscribe(two, ids.new())
        ended = [asyncio.create_task(ending(ws)) for ws in (one, two)]
        await place.sessions.drain(30)
        assert await asyncio.gather(*ended) == [1012, 1012]
    with pytest.raises(InvalidStatus) as refused:
        await place.connect().__aenter__()
    assert refused.value.response.status_code == 503


async def test_a_mailbox_whose_end_came_unannounced_is_told(place: Place) -> None:
    box = ids.new()
    place.expires_at = datetime.now(UTC) + timedelta(hours=1)
    async with place.connect() as ws:
        await subscribe(ws, box)
        place.expires_at = datetime.now(UTC)
        place.only()._subscriptions[box].expires_at = place.expires_at.timestamp()
        assert place.only().visit(time.monotonic())
        assert (await heard(ws))["type"] == "mailbox_expired"
    assert place.hub.mailboxes_watched() == []


async def test_an_extended_mailbox_goes_on_past_its_former_end(place: Place) -> None:
    box = ids.new()
    async with place.connect() as ws:
        await subscribe(ws, box)
        place.only()._subscriptions[box].expires_at = time.time()
        place.hub.feed([place.commit(box)])
        assert (await heard(ws))["seq"] == 1, "the right was checked again, then the mail was handed on"


async def test_while_rights_cannot_be_checked_mail_waits(place: Place) -> None:
    box = ids.new()
    async with place.connect() as ws:
        await subscribe(ws, box)
        subscription = place.only()._subscriptions[box]
        subscription.expires_at, place.down = time.time(), True
        place.hub.feed([place.commit(box)])
        await until(lambda: not subscription.checked_at)
        await say(ws, type="unsubscribe", mailboxId="x")
        assert (await heard(ws))["type"] == "unsubscribed", "no mail before it"
        place.down = False
        place.only().visit(time.monotonic())
        assert (await heard(ws))["seq"] == 1


@pytest.mark.parametrize("notice", ["hint", "visit"])
async def test_a_rotated_token_ends_the_subscription(place: Place, notice: str) -> None:
    box = ids.new()
    async with place.connect() as ws:
        await subscribe(ws, box)
        place.token = "other"
        if notice == "hint":
            place.hub.on_hints([Hint(Kind.ADDRESS, box)])
        else:
            place.only()._subscriptions[box].checked_at -= RECHECK_INTERVAL
            place.only().visit(time.monotonic())
        frame = await heard(ws)
        assert (frame["type"], frame["error"]) == ("unsubscribed", "mailbox_not_found")
    assert place.hub.mailboxes_watched() == []


async def test_trouble_with_the_database_is_said_and_the_connection_stays(place: Place) -> None:
    async with place.connect() as ws:
        place.down = True
        await say(ws, type="subscribe", mailboxId=ids.new())
        assert (await heard(ws))["error"] == "unavailable"
        place.down = False
        await subscribe(ws, ids.new())


async def test_a_fault_of_ours_ends_one_connection_with_1011(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    async with place.connect() as ws, place.connect() as other:

        async def broken(_: str, __: str) -> tuple[Mailbox, float]:
            raise ValueError("broken, with a secret in its text")

        session = next(iter(place.sessions._sessions))
        session._owner = session._owner._replace(authorise=broken)
        for client in (ws, other):
            await say(client, type="subscribe", mailboxId=ids.new())
        codes = {type(await first_of(client)) for client in (ws, other)}
        assert codes == {int, dict}
    logged = capfd.readouterr().err
    assert "websocket session failed" in logged
    assert "secret" not in logged


async def first_of(ws: ClientConnection) -> int | dict[str, Any] | None:
    try:
        return await heard(ws)
    except ConnectionClosed:
        assert ws.close_code == 1011
        return ws.close_code


async def test_the_hundred_and_first_subscription_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "SUBSCRIPTIONS_MAX", 2)
    boxes = [ids.new() for _ in range(3)]
    async with place.connect() as ws:
        await subscribe(ws, boxes[0])
        await subscribe(ws, boxes[1])
        await say(ws, type="subscribe", mailboxId=boxes[2])
        assert (await heard(ws))["error"] == "too_many_subscriptions"
        await subscribe(ws, boxes[1])


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "temp.mail", True),
        ("https://temp.mail", "temp.mail", True),
        ("https://TEMP.mail:443", "temp.mail", True),
        ("http://temp.mail", "temp.mail:80", True),
        ("http://temp.mail", "temp.mail:8080", False),
        ("http://[::1]:8080", "[::1]:8080", True),
        ("https://x.test", "temp.mail", True),
        ("http://x.test", "temp.mail", False),
        ("https://x.test:444", "temp.mail", False),
        ("https://sub.x.test", "temp.mail", False),
        ("https://x.test.evil.example", "temp.mail", False),
        ("https://temp.mail@evil.example", "temp.mail", False),
        ("https://evil.example/temp.mail", "temp.mail", False),
        ("https://evil.example#temp.mail", "temp.mail", False),
        ("https://temp.mail\\.evil.example", "temp.mail", False),
        ("null", "temp.mail", False),
        ("", "", False),
        ("https://", "", False),
        ("https://temp.mail:99999", "temp.mail:99999", False),
        ("https://[", "[", False),
    ],
)
def test_origins_are_compared_whole(origin: str | None, host: str, allowed: bool) -> None:
    assert origin_allowed(origin, host, ("https://x.test",)) is allowed


def test_an_origin_is_scheme_host_and_port() -> None:
    assert parse_origin("https://Temp.Mail") == Origin("https", "temp.mail", 443)
    assert origin_allowed("null", "temp.mail", ("*",))
