"""A small WebSocket client (RFC 6455) for one subscription each, light enough to hold thousands in one process.

Must not know: what the events mean to a scenario; it hands each one over with the moment it arrived.
"""

import asyncio
import base64
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import orjson

from bench.client_api import Mailbox
from bench.target import Endpoint

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_CONTINUATION, _TEXT, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x8, 0x9, 0xA
_FIN = 0x80
_FRAME_LIMIT = 1 << 20
_PER_SOURCE = 6000  # client ports of one source address; loopback has many addresses
_OPENERS = 64

OnEvent = Callable[[dict[str, Any], float], None]


class WebSocketError(Exception):
    """The handshake or the subscription was refused, or the server broke the protocol."""


def _masked(opcode: int, payload: bytes) -> bytes:
    """A client's frame: masked, final, shorter than 64 KiB (RFC 6455, 5.2 and 5.3)."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    mask = os.urandom(4)
    pad = (mask * (size // 4 + 1))[:size]
    covered = (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")
    return bytes((_FIN | opcode,)) + length + mask + covered


class Subscriber(asyncio.Protocol):
    """One connection that subscribes to one mailbox; ``ready`` is done once the server has said so."""

    __slots__ = ("_buffer", "_closing", "_key", "_mailbox", "_on_event", "_open", "_request", "ready", "transport")

    def __init__(self, http: Endpoint, mailbox: Mailbox, on_event: OnEvent) -> None:
        key = base64.b64encode(os.urandom(16))
        self._request = (
            b"GET /v1/ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n" % (str(http).encode(), key)
        )
        self._key = key
        self._mailbox = mailbox
        self._on_event = on_event
        self._buffer = b""
        self._open = False
        self._closing = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but inheritance
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        arrived = time.perf_counter()
        self._buffer += data
        try:
            if self._open or self._handshake():
                while self._frame(arrived):
                    pass
        except WebSocketError as error:
            self._fail(error)

    def _handshake(self) -> bool:
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return False
        accept = base64.b64encode(hashlib.sha1(self._key + _GUID, usedforsecurity=False).digest())
        if not head.startswith(b"HTTP/1.1 101 ") or accept not in head:
            raise WebSocketError(f"handshake refused: {head[:200]!r}")
        self._open, self._buffer = True, rest
        self._say({"type": "subscribe", "mailboxId": self._mailbox.id, "token": self._mailbox.token})
        return True

    def _frame(self, arrived: float) -> bool:
        """Take one whole frame off the buffer; false when there is none."""
        data = self._buffer
        if len(data) < 2:
            return False
        size, start = data[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            if len(data) < start:
                return False
            size = int.from_bytes(data[2:start], "big")
        if size > _FRAME_LIMIT:
            raise WebSocketError("a masked or huge frame from the server")
        if len(data) < start + size:
            return False
        self._buffer = data[start + size :]
        self._take(data[0], data[start : start + size], arrived)
        return True

    def _take(self, first: int, payload: bytes, arrived: float) -> None:
        opcode = first & 0x0F
        if opcode == _PING:
            self.transport.write(_masked(_PONG, payload))
        elif opcode == _CLOSE:
            raise WebSocketError(f"closed by the server: {payload!r}")
        elif first == _FIN | _TEXT:
            self._event(orjson.loads(payload), arrived)
        elif opcode != _PONG:
            raise WebSocketError(f"unexpected frame {first:#x}")

    def _event(self, event: dict[str, Any], arrived: float) -> None:
        kind = event.get("type")
        if kind == "ping":
            self._say({"type": "pong"})
        elif kind == "subscribed":
            if not self.ready.done():
                self.ready.set_result(None)
        elif kind == "error":
            raise WebSocketError(f"error event: {event.get('error')}")
        else:
            self._on_event(event, arrived)

    def _say(self, event: dict[str, str]) -> None:
        self.transport.write(_masked(_TEXT, orjson.dumps(event)))

    def _fail(self, error: Exception) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
        elif not self._closing:
            self._on_event({"type": "lost", "error": str(error)}, time.perf_counter())
        self.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._closing:
            self._fail(error or WebSocketError("the server hung up"))

    def close(self) -> None:
        """Hang up."""
        self._closing = True
        self.transport.abort()


async def subscribe(
    http: Endpoint, mailbox: Mailbox, on_event: OnEvent, *, timeout: float, source: tuple[str, int] | None = None
) -> Subscriber:
    """Connect and subscribe; WebSocketError when refused, OSError or TimeoutError when unreachable."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout):
        _transport, subscriber = await loop.create_connection(
            lambda: Subscriber(http, mailbox, on_event), http.host, http.port, local_addr=source
        )
        await subscriber.ready
    return subscriber


async def subscribe_all(
    http: Endpoint, mailboxes: Sequence[Mailbox], on_event: OnEvent, advance: Callable[[int], None]
) -> list[Subscriber]:
    """One subscriber per mailbox, some opened at a time; many of them come from several loopback addresses."""
    numbered = iter(enumerate(mailboxes))
    made: list[Subscriber] = []
    spread = len(mailboxes) > _PER_SOURCE and http.host.startswith("127.")

    async def opener() -> None:
        for number, mailbox in numbered:
            source = (f"127.0.0.{2 + number // _PER_SOURCE}", 0) if spread else None
            made.append(await subscribe(http, mailbox, on_event, timeout=30, source=source))
            advance(1)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(_OPENERS, len(mailboxes))):
            group.create_task(opener())
    return made
