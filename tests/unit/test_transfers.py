"""Bytes in flight: how many a worker and a client may hold, and how slow a transfer may be."""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvloop
from aiohttp import web
from aiohttp.http_writer import StreamWriter
from multidict import CIMultiDict

from server.cache.generations import Generations
from server.cache.responses import ResponseCache
from server.model.errors import Crowded, Refused
from server.services.transfers import HURRY, MARK_EVERY, REFUSED, WINDOW, Transfer, Transfers
from server.web import requests
from server.web.answers import PIECE, Answer
from server.web.fastpath import FastPath, FastPathServer, front_of
from server.web.requests import Call
from tests.unit.test_turns import Rounds

MOST, SHARE, RATE = 1000, 400, 10
NEVER = 10**9
EXEMPT = {"192.0.2.99", "127.0.0.1"}


class Flow:
    """Transfers on a clock of the test's; what they moved is the test's to say."""

    def __init__(self, most: int = MOST, rate: int = RATE) -> None:
        self.time = 0.0
        self.transfers = Transfers(most, SHARE, rate, EXEMPT.__contains__, lambda: self.time)
        self.cut: list[str] = []
        self.moved: dict[str, int] = {}

    def begin(self, client: str, name: str = "") -> Transfer:
        return self.transfers.begin(client, "out", lambda: self.moved.get(name, 0), lambda: self.cut.append(name))

    def pass_time(self, seconds: float, **rates: int) -> None:
        """Seconds in which transfers move so many bytes in each."""
        for _ in range(int(seconds)):
            self.time += 1
            for name, rate in rates.items():
                self.moved[name] = self.moved.get(name, 0) + rate
            self.transfers.look()


def held(flow: Flow, client: str, amount: int) -> Transfer:
    transfer = flow.begin(client)
    transfer.grow(amount)
    return transfer


def test_client_holds_no_more_than_its_share_and_others_are_served() -> None:
    flow = Flow()
    mine = held(flow, "192.0.2.1", 399)
    with pytest.raises(Refused) as caught:
        held(flow, "192.0.2.1", 2)
    assert (caught.value.word, caught.value.retry_after > 0) == ("rate_limited", True)
    held(flow, "192.0.2.1", 1)
    held(flow, "192.0.2.2", 400)
    mine.done()
    held(flow, "192.0.2.1", 200)


def test_worker_holds_no_more_than_it_may_whoever_asks() -> None:
    flow = Flow()
    first = held(flow, "192.0.2.99", 600)
    held(flow, "192.0.2.1", 400)
    for client in ("192.0.2.99", "192.0.2.2", ""):
        with pytest.raises(Crowded):
            held(flow, client, 1)
    flow.transfers.admit("192.0.2.2", 1, always=True)
    first.done()
    first.done()
    held(flow, "", 600)
    assert flow.transfers.bytes == MOST


def test_wider_networks_of_an_ipv6_client_are_bounded() -> None:
    flow = Flow(most=10 * SHARE)
    refused = 0
    for nth in range(64):
        with contextlib.suppress(Refused):
            held(flow, f"2001:db8:0:{nth:x}00::1", SHARE)
            continue
        refused += 1
    assert (refused, flow.transfers.bytes) == (59, 5 * SHARE)


def test_one_answer_larger_than_a_share_goes_to_a_client_that_holds_nothing() -> None:
    flow = Flow()
    flow.transfers.admit("192.0.2.1", SHARE + 1)
    held(flow, "192.0.2.1", 1)
    with pytest.raises(Refused):
        flow.transfers.admit("192.0.2.1", SHARE + 1)


def test_rate_is_judged_over_the_last_window_and_not_over_a_life() -> None:
    flow = Flow()
    for name in ("steady", "stopped", "slow"):
        flow.begin("192.0.2.1", name)
    flow.pass_time(WINDOW, steady=RATE, stopped=100 * RATE, slow=RATE - 1)
    flow.pass_time(2 * MARK_EVERY, steady=RATE, slow=RATE - 1)
    assert flow.cut.count("slow") > 0
    assert set(flow.cut) == {"slow"}
    flow.pass_time(WINDOW + 2 * MARK_EVERY, steady=RATE)
    assert set(flow.cut) == {"slow", "stopped"}


def test_no_transfer_is_judged_before_its_window_or_after_its_end() -> None:
    flow = Flow()
    flow.begin("192.0.2.1", "new")
    flow.pass_time(WINDOW - 1)
    assert flow.cut == []
    flow = Flow()
    arrived, ended = flow.begin("192.0.2.1", "arrived"), flow.begin("192.0.2.1", "ended")
    arrived.grow(100)
    arrived.arrived()
    ended.done()
    flow.pass_time(3 * WINDOW)
    assert flow.cut == []
    assert flow.transfers.bytes == 100


def test_more_is_asked_for_while_a_worker_is_half_full() -> None:
    flow = Flow()
    flow.begin("192.0.2.1", "slow")
    flow.begin("192.0.2.1", "fast")
    flow.pass_time(2 * WINDOW, slow=RATE, fast=HURRY * RATE)
    assert flow.cut == []
    flow.begin("192.0.2.99").hold(MOST // 2 + 1)
    flow.pass_time(2 * MARK_EVERY, slow=RATE, fast=HURRY * RATE)
    assert set(flow.cut) == {"slow"}


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy()


@contextlib.asynccontextmanager
async def serving(
    flow: Flow, body: bytes | Callable[[web.Request], Awaitable[bytes]]
) -> AsyncIterator[tuple[str, int]]:
    async def made(request: web.BaseRequest) -> bytes:
        return body if isinstance(body, bytes) else await body(cast(web.Request, request))

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return Answer(front_of(request), request, "192.0.2.1", 200, await made(request), CIMultiDict())

    hot = FastPath(ResponseCache(Generations(1), 1 << 20, 60.0), lambda _: None, flow.transfers)
    loop = asyncio.get_running_loop()

    def request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.Request:
        return web.Request(message, payload, protocol, writer, task, loop)

    runner = web.ServerRunner(FastPathServer(answer, hot, request_factory=request))
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listening).start()
    try:
        yield listening.getsockname()[:2]
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def connected(address: tuple[str, int]) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, address)
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def until(flow: Flow, held: int) -> None:
    async with asyncio.timeout(30):
        while flow.transfers.bytes != held:
            await asyncio.sleep(0.01)


async def test_answer_that_is_not_read_is_held_as_a_whole_and_cut_after_the_window() -> None:
    flow, body = Flow(most=NEVER), b"x" * 30_000_000
    async with serving(flow, body) as address, connected(address) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(flow, len(body))
        async with asyncio.timeout(30):
            while flow.transfers.bytes:
                flow.time += 1
                flow.transfers.look()
                await asyncio.sleep(0.01)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(len(body))


async def test_answer_that_is_read_within_the_rate_comes_whole() -> None:
    flow, body = Flow(most=NEVER), b"x" * 20_000_000
    async with serving(flow, body) as address, connected(address) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        got = 0
        while got < len(body):
            got += len(await reader.read(1 << 20))
            if got % 50 == 0:
                flow.time += 0.01
                flow.transfers.look()
        assert got == len(body)
        await until(flow, 0)


async def test_small_answers_that_are_not_read_are_held_too() -> None:
    flow, body = Flow(most=NEVER), b"x" * 60_000
    async with serving(flow, body) as address, connected(address) as (_, writer):
        for _ in range(400):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(30):
            while flow.transfers.bytes < len(body):
                await asyncio.sleep(0.01)
    await until(flow, 0)


async def test_unread_answers_beyond_the_bound_end_their_connection() -> None:
    flow, body = Flow(most=30_000), b"x" * 60_000  # room for the requests that wait
    refused = REFUSED.values.get(("worker",), 0)
    async with serving(flow, body) as address, connected(address) as (reader, writer):
        for _ in range(400):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(60):
            while REFUSED.values.get(("worker",), 0) == refused:
                await asyncio.sleep(0.01)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(30):
                while await reader.read(1 << 20):
                    pass
    await until(flow, 0)


DEADLINE = 3600.0  # s


async def body_of(flow: Flow, request: web.Request, deadlines: list[asyncio.Timeout]) -> bytes:
    """Read the request's body under a deadline, which is shown to the test and has to run again afterwards."""
    call = Call(request, cast(Any, SimpleNamespace(transfers=flow.transfers)), "192.0.2.1", "en", ())
    try:
        async with asyncio.timeout(DEADLINE) as call.deadline:
            deadlines.append(call.deadline)
            got = bytes(await requests.read(call, 1 << 20))
            ends, now = call.deadline.when(), asyncio.get_running_loop().time()
            assert ends is not None
            assert now < ends <= now + DEADLINE
            assert flow.transfers.bytes == len(got)
            return got
    finally:
        if call.body is not None:
            call.body.done()


async def test_a_body_within_the_rate_may_take_longer_than_the_deadline() -> None:
    """While it comes the deadline does not run, so it may take any time."""
    flow, deadlines = Flow(most=NEVER, rate=0), list[asyncio.Timeout]()
    serve = serving(flow, lambda request: body_of(flow, request, deadlines))
    async with serve as address, connected(address) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n")
        for nth in range(10):
            await until(flow, 4 * nth)
            if nth:
                assert [deadline.when() for deadline in deadlines] == [None]
            flow.pass_time(MARK_EVERY)
            writer.write(b"abcd")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(40) == b"abcd" * 10
    await until(flow, 0)


async def test_a_body_below_the_rate_is_cut() -> None:
    flow = Flow(most=NEVER)
    async with (
        serving(flow, lambda request: body_of(flow, request, [])) as address,
        connected(address) as (reader, writer),
    ):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nab")
        await until(flow, 2)
        flow.pass_time(WINDOW + 2 * MARK_EVERY)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    await until(flow, 0)


async def test_pieces_of_many_large_answers_leave_the_loop_to_others_between_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flow, body, pieces, write = Flow(most=NEVER), b"x" * 1_000_000, Counter[int](), StreamWriter.write

    async def counted(self: StreamWriter, chunk: Any, **more: Any) -> None:
        pieces[rounds.now] += 1
        await write(self, chunk, **more)

    async def ask(address: tuple[str, int]) -> int:
        reader, writer = await asyncio.open_connection(*address, limit=1 << 22)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        try:
            return len((await reader.read()).partition(b"\r\n\r\n")[2])
        finally:
            writer.transport.abort()

    monkeypatch.setattr(StreamWriter, "write", counted)
    async with serving(flow, body) as address:
        with Rounds() as rounds:
            assert await asyncio.gather(*(ask(address) for _ in range(20))) == [len(body)] * 20
    assert pieces.total() >= 20 * (len(body) // PIECE)
    assert max(pieces.values()) <= 2  # one a round; where a round begins is not known to the piece
