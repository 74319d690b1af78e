"""A connection's heads are known for theirs only while every request said that it was finished."""

import asyncio
from typing import Any, cast

import pytest

from server.cache import keys
from server.cache.generations import Generations, Writer
from server.cache.responses import CachedResponse, ResponseCache
from server.metrics import Tally
from server.services.transfers import Transfers
from server.web import fastpath
from server.web.fastpath import HELD_BYTES, FastPath, FastPathProtocol, KnownRequest
from server.web.malformed import Connection


class Inner:
    """Stands for aiohttp's protocol: takes what is passed on."""

    def __init__(self) -> None:
        self.got = b""

    def data_received(self, data: bytes) -> None:
        self.got += data

    def waiting(self) -> int:
        return 0

    def is_busy(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class Transport:
    def __init__(self) -> None:
        self.sent = b""
        self.closing = self.reading_paused = False

    def pause_reading(self) -> None:
        self.reading_paused = True

    def resume_reading(self) -> None:
        self.reading_paused = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return 1 << 16

    def get_extra_info(self, _: str) -> None:
        return None

    def is_closing(self) -> bool:
        return self.closing


class Line:
    def __init__(self) -> None:
        self.made = asyncio.Event()
        self.generations = Generations(1)
        self.local = ResponseCache(self.generations, 1 << 20, 60)
        self.hot = FastPath(self.local, lambda _: b"", Transfers(1 << 30, 1 << 30, 0, lambda _: True))
        self.inner, self.transport = Inner(), Transport()
        self.front = FastPathProtocol(cast(Connection, self.inner), self.hot)
        self.front.connection_made(cast(Any, self.transport))
        self.front.asked, self.front.client = True, "192.0.2.1"

    def know(self, head: bytes, body: bytes) -> None:
        key = (head.decode(), None, None)
        self.local.put(key, self.local.ticket(keys.mailbox("box")), CachedResponse(body, '"tag"'))
        self.hot.learn(
            head,
            KnownRequest(key, "192.0.2.1", Tally(lambda _: None), lambda _: (b"HTTP/1.1 200 OK\r\n", True), self.make),
        )

    async def make(self, known: KnownRequest, client: str) -> bytes:
        await self.made.wait()
        return f"anew for {client}".encode()

    def write(self) -> None:
        """Something has changed: nothing kept is valid any more."""
        Writer(self.generations, 0).bump([self.generations.slot(keys.mailbox("box"))])

    def pass_one(self, head: bytes) -> None:
        """A request that aiohttp answers."""
        self.front.data_received(head)
        self.front.started()
        self.front.finished()


def head(name: str) -> bytes:
    return f"GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def test_known_heads_are_answered_once_a_request_is_finished() -> None:
    line = Line()
    line.know(head("a"), b"answer a")
    line.front.data_received(head("b"))
    line.front.data_received(head("a"))  # while one is in progress
    assert line.inner.got == head("b") + head("a")
    for expected in (head("b"), head("a")):
        line.front.started()
        assert line.front.heads[0] == expected
        line.front.finished()
    line.front.data_received(head("a") + head("a"))
    assert line.transport.sent.count(b"answer a") == 2
    assert line.inner.got == head("b") + head("a")


def test_request_that_never_said_it_was_finished_ends_the_knowing() -> None:
    line = Line()
    line.know(head("a"), b"answer a")
    line.pass_one(head("b"))
    line.front.data_received(head("stream"))
    line.front.started()  # it ends without a word, and the next comes
    line.front.data_received(head("c"))
    line.front.started()
    assert line.front.heads == []  # nothing may be learnt under the stream's head
    line.front.finished()
    line.pass_one(head("d"))
    line.front.data_received(head("a"))
    assert line.transport.sent == b""
    assert line.front.heads == []


@pytest.mark.parametrize(
    "strange",
    [
        b"GET /a HTTP/1.1\r\nHost: x\n\nGET /b HTTP/1.1\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        b"GET /a HTTP/1.1\r\nContent-Length: 3\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b",
        b"POST /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
        b"\r\n\r\n",
    ],
)
def test_what_may_hold_another_request_ends_the_knowing(strange: bytes) -> None:
    line = Line()
    line.know(head("a"), b"answer a")
    line.pass_one(head("b"))
    line.front.data_received(strange)
    line.front.started()
    line.front.finished()
    line.front.data_received(head("a"))
    assert line.transport.sent == b""


async def test_client_that_takes_nothing_is_left_to_aiohttp_until_it_does() -> None:
    line = Line()
    line.know(head("a"), b"answer a")
    line.pass_one(head("b"))
    line.front.pause_writing()
    line.front.data_received(head("a"))
    line.front.started()
    line.front.finished()
    assert line.transport.sent == b""
    line.front.resume_writing()
    line.front.data_received(head("a"))
    assert line.transport.sent.count(b"answer a") == 1


def test_answer_to_a_client_that_has_gone_is_an_error_of_the_connection() -> None:
    line = Line()
    line.transport.closing = True
    with pytest.raises(ConnectionError):
        line.front.write(b"x")


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_comes_while_an_answer_is_made_anew_is_answered_after_it() -> None:
    line = Line()
    line.know(head("a"), b"answer a")
    line.pass_one(head("b"))
    line.write()
    line.front.data_received(head("a"))
    line.know(head("c"), b"answer c")
    line.front.data_received(head("c"))
    line.front.data_received(head("d"))
    await _turns()
    assert (line.transport.sent, line.inner.got) == (b"", head("b"))
    line.made.set()
    await _turns()
    assert line.transport.sent.startswith(b"anew for 192.0.2.1HTTP/1.1 200 OK")
    assert line.transport.sent.endswith(b"answer c")
    assert line.inner.got == head("b") + head("d")


async def test_client_that_goes_on_sending_while_an_answer_is_made_anew_is_not_read() -> None:
    line = Line()
    line.know(head("a"), b"answer a")
    line.pass_one(head("b"))
    line.write()
    line.front.data_received(head("a"))
    line.front.data_received(b"x" * (HELD_BYTES + 1))
    assert line.transport.reading_paused
    line.made.set()
    await _turns()
    assert not line.transport.reading_paused
    assert line.inner.got.endswith(b"x")
    line.front.data_received(head("a"))  # after what was no head nothing is known for one any more
    assert line.transport.sent == b"anew for 192.0.2.1"


async def test_client_that_has_gone_gets_no_answer_made_anew() -> None:
    line = Line()
    line.know(head("a"), b"answer a")
    line.pass_one(head("b"))
    line.write()
    line.front.data_received(head("a"))
    line.transport.closing = True
    line.front.connection_lost(None)
    line.made.set()
    await _turns()
    assert line.transport.sent == b""


async def test_answers_made_anew_are_waited_for_at_the_end_and_no_new_ones_begun() -> None:
    line = Line()
    line.know(head("a"), b"answer a")
    line.pass_one(head("b"))
    line.write()
    line.front.data_received(head("a"))
    draining = asyncio.create_task(line.hot.drain(10))
    await _turns()
    assert not draining.done()
    line.made.set()
    await draining
    assert line.transport.sent == b"anew for 192.0.2.1"
    line.front.data_received(head("a"))
    assert line.inner.got == head("b") + head("a")


async def test_who_has_just_come_is_heard_out_while_we_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a roll of the workers loses the request of a client whose connection was accepted a moment before."""
    monkeypatch.setattr(fastpath, "FIRST_REQUEST", 3600.0)
    line = Line()
    draining = asyncio.create_task(line.hot.drain(10))
    await asyncio.sleep(0.1)
    assert not draining.done()
    line.front.data_received(head("a"))
    await asyncio.wait_for(draining, 30)
    assert line.inner.got == head("a")


@pytest.mark.parametrize("gone", [False, True])
async def test_who_never_says_anything_does_not_keep_us(monkeypatch: pytest.MonkeyPatch, gone: bool) -> None:
    monkeypatch.setattr(fastpath, "FIRST_REQUEST", 3600.0 if gone else 0.1)
    line = Line()
    draining = asyncio.create_task(line.hot.drain(10))
    await asyncio.sleep(0)
    if gone:
        line.front.connection_lost(None)
    await asyncio.wait_for(draining, 30)
