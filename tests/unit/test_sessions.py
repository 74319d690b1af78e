"""WebSocket sessions over real sockets, where time, capacity and rights must be at hand: pings, drain, the slow."""

import asyncio
import contextlib
import gc
import resource
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server.cache.generations import Generations
from server.cache.responses import ResponseCache
from server.config.settings import Config, load
from server.model import ids
from server.model.errors import Refused, Unavailable
from server.model.event import Hint, Kind
from server.model.message import Counts, Details, Mailbox, Stored
from server.services.push.connection_limit import SHARE
from server.services.push.hub import PAGE, Hub
from server.services.push.subscription import RECHECK_INTERVAL
from server.services.transfers import Transfers
from server.web.fastpath import FastPath, FastPathServer
from server.web.upgrade import take_over
from server.ws import session as session_module
from server.ws.handshake import Origin, origin_allowed, parse_origin
from server.ws.session import PING_INTERVAL, SILENCE_MAX, WRITE_STALL, Session
from server.ws.sessions import CLOSE_WAIT, Sessions

HANDSHAKE = (
    b"GET /v1/ws?token=right HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PAST = timedelta(minutes=1)  # rights end by the database's clock, which may be behind this machine's


class Place:
    """One worker's WebSocket side on a socket of its own; rows, tokens and ends are the test's to set."""

    def __init__(self, config: Config) -> None:
        self.hub = Hub(self._fetch, self._next_seqs, self._counts)
        self.exempt = True
        self.sessions = Sessions(config, self.hub, self._authorise, self._standing, lambda _: self.exempt)
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

    def _standing(self, mailbox_id: str) -> Callable[[], bool]:
        token = self.token
        return lambda: self.token == token

    def commit(self, mailbox_id: str, preview: str = "") -> Stored:
        seq = 1 + sum(row.mailbox_id == mailbox_id for row in self.rows)
        now = datetime.now(UTC)
        row = Stored(ids.new(seq), mailbox_id, seq, now, "", "", "", "", preview, 1, False, Details())
        self.rows.append(row)
        return row

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return take_over(request, lambda: self.sessions.admit(request, "192.0.2.1"))
        except Refused as refusal:
            return web.json_response({"error": refusal.word}, status=429 if refusal.retry_after else 400)
        except Unavailable:
            return web.json_response({}, status=503)

    def connect(self, **options: Any) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}/v1/ws?token=right", ping_interval=None, **options)

    def only(self) -> Session:
        (session,) = self.sessions.sessions()
        return session

    def later(self, seconds: float) -> None:
        """Let that much time pass, as far as the sessions can tell, and do all that it asks for."""
        self.sessions.now = time.monotonic() + seconds
        for turn in {session.turn for session in self.sessions.sessions()}:
            self.sessions.visit(turn)
        self.sessions.look()

    async def gone(self) -> None:
        await until(lambda: not self.sessions.sessions())


async def until(done: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while True:
            if done():
                return
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def open_place(config: Config) -> AsyncIterator[Place]:
    place = Place(config)
    local = ResponseCache(Generations(1), 1 << 20, 60.0)
    runner = web.ServerRunner(
        FastPathServer(place.answer, FastPath(local, lambda _: None, Transfers(1 << 30, 1 << 30, 0, lambda _: True)))
    )
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


async def test_a_request_that_became_a_websocket_goes_without_the_collector(place: Place) -> None:
    gc.collect()
    gc.disable()
    try:
        async with place.connect():
            await until(place.sessions.sessions)
            requests = (web.BaseRequest, RequestHandler)
            await until(lambda: not any(isinstance(one, requests) for one in gc.get_objects()))
    finally:
        gc.enable()


async def test_a_silent_client_is_pinged_and_then_dropped(place: Place) -> None:
    async with place.connect() as ws:
        await subscribe(ws, ids.new())
        place.later(PING_INTERVAL)
        assert (await heard(ws))["type"] == "ping"
        place.later(SILENCE_MAX)
        assert await ending(ws) == 1001
    await place.gone()
    assert place.hub.mailboxes_watched() == []


@pytest.mark.parametrize("sign", ["pong frame", "protocol ping", "protocol pong"])
async def test_any_sign_of_life_keeps_a_client(place: Place, sign: str) -> None:
    async with place.connect() as ws:
        await subscribe(ws, ids.new())
        place.sessions.now = time.monotonic() + SILENCE_MAX
        if sign == "pong frame":
            await say(ws, type="pong")
        elif sign == "protocol ping":
            await (await ws.ping())
        else:
            await ws.pong()
        await say(ws, type="unsubscribe", mailboxId="x")
        assert (await heard(ws))["type"] == "unsubscribed"
        place.later(SILENCE_MAX)
        assert place.only().open


async def test_a_write_that_does_not_move_ends_the_connection_with_1013(place: Place) -> None:
    box, narrow = ids.new(), socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.connect(("127.0.0.1", place.port))
    for _ in range(900):
        place.commit(box, "p" * 2000)
    async with place.connect(sock=narrow, max_queue=1) as slow, place.connect() as good:
        await say(slow, type="subscribe", mailboxId=box, after=0)
        await subscribe(good, box)
        await until(lambda: place.sessions._stuck)
        (stuck,) = place.sessions._stuck
        waiting = stuck.transport.get_write_buffer_size()
        assert waiting < 2 * session_module.QUEUE_BYTES, "what does not fit is left in the store"
        place.hub.feed([place.commit(box)])
        assert stuck.transport.get_write_buffer_size() == waiting
        assert (await heard(good))["seq"] == 901, "nobody else waits"
        place.later(0)
        assert stuck.open
        place.later(WRITE_STALL)
        assert not stuck.open
        place.later(WRITE_STALL + CLOSE_WAIT)
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


async def test_words_that_pile_up_end_the_connection(place: Place) -> None:
    box = ids.new()
    async with place.connect() as ws:
        await subscribe(ws, box)
        session = place.only()
        for _ in range(5):  # without a turn of the loop in between nothing is read
            session.tell(b'"%b"' % (b"w" * 500_000))
        assert await ending(ws) == 1013


async def test_one_too_many_is_answered_503_and_leaving_makes_room(place: Place) -> None:
    async with place.connect(), place.connect():
        with pytest.raises(InvalidStatus) as refused:
            await place.connect().__aenter__()
        assert refused.value.response.status_code == 503
    await place.gone()
    async with place.connect() as ws:
        await subscribe(ws, ids.new())


async def test_one_client_may_hold_a_share_of_the_places_and_an_exempt_one_all() -> None:
    async with open_place(load({"TEMPMAIL_WEBSOCKET_MAX": str(2 * SHARE)})) as place:
        place.exempt = False
        async with place.connect(), place.connect():
            with pytest.raises(InvalidStatus) as refused:
                await place.connect().__aenter__()
            assert refused.value.response.status_code == 429
            place.exempt = True
            async with place.connect():
                place.exempt = False
        await place.gone()
        assert not place.sessions._room._held
        async with place.connect() as ws:
            await subscribe(ws, ids.new())


async def test_one_whose_end_takes_too_long_is_cut_off(place: Place) -> None:
    async with connect_raw(place) as (reader, _):
        place.only().end("restart")
        assert (await reader.readexactly(4))[2:] == (1012).to_bytes(2, "big")
        place.later(CLOSE_WAIT)
        await reader.read()
        await place.gone()


async def test_an_idle_connection_has_no_task_and_when_all_are_gone_nothing_runs(place: Place) -> None:
    before = asyncio.all_tasks()
    async with connect_raw(place):
        await until(lambda: asyncio.all_tasks() <= before | {asyncio.current_task()})
    await place.gone()
    await until(lambda: place.sessions._ticking is None)


@contextlib.asynccontextmanager
async def connect_raw(place: Place) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client that says nothing of its own accord."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(HANDSHAKE)
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head, "the example of RFC 6455 section 1.3"
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"Upgrade: websocket", b"Upgrade: h2c"),
        (b"Upgrade: websocket\r\n", b""),
        (b"keep-alive, Upgrade", b"keep-alive"),
        (b"Version: 13", b"Version: 8"),
        (b"Sec-WebSocket-Version: 13\r\n", b""),
        (b"Sec-WebSocket-Version: 13\r\n", b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n"),
        (b"25jZQ==", b"25jZQ="),
        (b"dGhl", b"dG!l"),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhl"),
        (b"Host: x\r\n", b"Host: x\r\nContent-Length: 5\r\n"),
    ],
)
async def test_what_is_no_handshake_is_refused_over_http(place: Place, right: bytes, wrong: bytes) -> None:
    """RFC 6455 section 4.2.1, and a body, which would be taken for frames."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(HANDSHAKE.replace(right, wrong) + b"hello" * (b"Length" in wrong))
    assert await reader.readexactly(12) == b"HTTP/1.%d 400" % (wrong != b"HTTP/1.0")
    writer.close()
    assert not place.sessions.sessions()


async def test_what_came_behind_the_handshake_is_read_as_frames(place: Place) -> None:
    said = b'{"type":"unsubscribe","mailboxId":"x"}'
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(HANDSHAKE + bytes((0x81, 0x80 | len(said))) + bytes(4) + said)
    await reader.readuntil(b"\r\n\r\n")
    assert b"unsubscribed" in await reader.readuntil(b"}")
    writer.close()


def test_a_tenth_of_the_descriptors_is_left_to_all_else() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        assert Place(load({"TEMPMAIL_WEBSOCKET_MAX": "20000"})).sessions._room.most == 180
        assert Place(load({"TEMPMAIL_WEBSOCKET_MAX": "20"})).sessions._room.most == 20
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


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
        place.expires_at = datetime.now(UTC) - PAST
        place.only()._subscriptions[0].expires_at = place.expires_at.timestamp()
        place.later(0)
        assert (await heard(ws))["type"] == "mailbox_expired"
    assert place.hub.mailboxes_watched() == []


async def test_an_extended_mailbox_goes_on_past_its_former_end(place: Place) -> None:
    box = ids.new()
    async with place.connect() as ws:
        await subscribe(ws, box)
        place.only()._subscriptions[0].expires_at = (datetime.now(UTC) - PAST).timestamp()
        place.hub.feed([place.commit(box)])
        assert (await heard(ws))["seq"] == 1, "the right was checked again, then the mail was handed on"


async def test_while_rights_cannot_be_checked_mail_waits(place: Place) -> None:
    box = ids.new()
    async with place.connect() as ws:
        await subscribe(ws, box)
        subscription = place.only()._subscriptions[0]
        subscription.expires_at, place.down = (datetime.now(UTC) - PAST).timestamp(), True
        place.hub.feed([place.commit(box)])
        await until(lambda: not subscription.checked_at)
        await say(ws, type="unsubscribe", mailboxId="x")
        assert (await heard(ws))["type"] == "unsubscribed", "no mail before it"
        place.down = False
        place.later(0)
        assert (await heard(ws))["seq"] == 1


@pytest.mark.parametrize("notice", ["hint", "visit"])
async def test_a_rotated_token_ends_the_subscription(place: Place, notice: str) -> None:
    box = ids.new()
    async with place.connect() as ws:
        await subscribe(ws, box)
        place.token = "other"
        if notice == "hint":
            place.hub.on_hints([Hint(Kind.ADDRESS, box)])
            place.hub.feed([place.commit(box)])  # not for the old token
        else:
            place.only()._subscriptions[0].checked_at -= RECHECK_INTERVAL
            place.later(0)
        frame = await heard(ws)
        assert (frame["type"], frame["error"]) == ("unsubscribed", "mailbox_not_found")
    assert place.hub.mailboxes_watched() == []


async def test_a_token_rotated_while_it_was_looked_up_is_told_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint of it came before anybody watched here."""
    box, authorise = ids.new(), place._authorise

    async def rotated(mailbox_id: str, token: str) -> tuple[Mailbox, float]:
        opened = await authorise(mailbox_id, token)
        place.token = "other"
        return opened

    monkeypatch.setattr(place.sessions, "_authorise", rotated)
    async with place.connect() as ws:
        await say(ws, type="subscribe", mailboxId=box)
        await until(lambda: bool(place.hub.mailboxes_watched()))
        place.hub.feed([place.commit(box)])
        seen = []
        while (frame := await heard(ws))["type"] != "unsubscribed":
            seen.append(frame["type"])
        assert "new_mail" not in seen


async def test_a_token_rotated_while_an_older_doubt_was_looked_up_is_told_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, authorise, looked = ids.new(), place._authorise, 0

    async def rotated(mailbox_id: str, token: str) -> tuple[Mailbox, float]:
        nonlocal looked
        if looked:  # the second look-up is slow: whatever may be handed on before it ends, is
            await asyncio.sleep(0.1)
        opened = await authorise(mailbox_id, token)
        looked += 1
        if looked == 1:  # this look-up has seen the old token; the rotation and its hint come before it answers
            place.token = "other"
            place.hub.on_hints([Hint(Kind.ADDRESS, box)])
            place.hub.feed([place.commit(box)])
        return opened

    async with place.connect() as ws:
        await subscribe(ws, box)
        await until(lambda: not place.only()._subscriptions[0].doubted)
        monkeypatch.setattr(place.sessions, "_authorise", rotated)
        place.hub.on_hints([Hint(Kind.ADDRESS, box)])
        frame = await heard(ws)
        assert (frame["type"], frame["error"]) == ("unsubscribed", "mailbox_not_found")
        assert looked == 1


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

        await subscribe(other, ids.new())
        place.sessions._authorise = broken
        await say(ws, type="subscribe", mailboxId=ids.new())
        assert await ending(ws) == 1011
        await say(other, type="unsubscribe", mailboxId="x")
        assert (await heard(other))["type"] == "unsubscribed"
    logged = capfd.readouterr().err
    assert "websocket session failed" in logged
    assert "secret" not in logged


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
