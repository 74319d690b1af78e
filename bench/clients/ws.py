"""A small WebSocket client (RFC 6455) for one subscription, and the pieces of the protocol that the fleet uses too.

Must not know: what the events mean to a scenario; it hands each one over with the moment it arrived.
"""

import asyncio
import base64
import hashlib
import os
import time
from collections.abc import Callable
from typing import Any, cast

import orjson

from bench.clients.api import Mailbox
from bench.tools.target import Endpoint

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_TEXT, _CLOSE = 0x1, 0x8
_FIN = 0x80
_FRAME_LIMIT = 1 << 20

OnEvent = Callable[[dict[str, Any], float], None]


class WebSocketError(Exception):
    """The handshake or the subscription was refused, or the server broke the protocol."""


def masked(payload: bytes) -> bytes:
    """A client's text frame: masked, final, shorter than 64 KiB (RFC 6455, 5.2 and 5.3)."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    mask = os.urandom(4)
    pad = (mask * (size // 4 + 1))[:size]
    covered = (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")
    return bytes((_FIN | _TEXT,)) + length + mask + covered


PONG = masked(b'{"type":"pong"}')
_KEY = base64.b64encode(os.urandom(16))  # one for all: nothing between us and the server keeps answers
_ACCEPT = base64.b64encode(hashlib.sha1(_KEY + _GUID, usedforsecurity=False).digest())


def handshake(http: Endpoint) -> bytes:
    """The request that makes a connection a WebSocket."""
    return (
        b"GET /v1/ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n" % (str(http).encode(), _KEY)
    )


def accepts(head: bytes) -> None:
    """WebSocketError unless ``head`` is the right answer to ``handshake``."""
    if not head.startswith(b"HTTP/1.1 101 ") or _ACCEPT not in head:
        raise WebSocketError(f"handshake refused: {head[:200]!r}")


def frame_of(data: bytes, at: int) -> tuple[bytes, int] | None:
    """The payload of the whole frame at ``at`` and where it ends; None when it is not whole yet.

    WebSocketError for the server's close frame and for anything but text, of which alone our server's frames are.
    """
    if len(data) < at + 2:
        return None
    size, start = data[at + 1], at + 2
    if size >= 126:
        start += 2 if size == 126 else 8
        if len(data) < start:
            return None
        size = int.from_bytes(data[at + 2 : start], "big")
    if size > _FRAME_LIMIT:
        raise WebSocketError("a masked or huge frame from the server")
    if len(data) < start + size:
        return None
    payload = data[start : start + size]
    if data[at] & 0x0F == _CLOSE:
        code, why = int.from_bytes(payload[:2], "big"), payload[2:].decode("utf-8", "replace")
        raise WebSocketError(f"closed by the server with {code}: {why}")
    if data[at] != _FIN | _TEXT:
        raise WebSocketError(f"unexpected frame {data[at]:#x}")
    return payload, start + size


class Subscriber(asyncio.Protocol):
    """One connection that subscribes to one mailbox; ``ready`` is done once the server has said so."""

    __slots__ = ("_buffer", "_closing", "_http", "_mailbox", "_on_event", "_open", "ready", "transport")

    def __init__(self, http: Endpoint, mailbox: Mailbox, on_event: OnEvent) -> None:
        self._http = http
        self._mailbox = mailbox
        self._on_event = on_event
        self._buffer = b""
        self._open = False
        self._closing = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but inheritance
        self.transport.write(handshake(self._http))

    def data_received(self, data: bytes) -> None:
        arrived = time.perf_counter()
        self._buffer += data
        try:
            if self._open or self._handshake():
                while (frame := frame_of(self._buffer, 0)) is not None:
                    self._buffer = self._buffer[frame[1] :]
                    self._event(orjson.loads(frame[0]), arrived)
        except WebSocketError as error:
            self._fail(error)

    def _handshake(self) -> bool:
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return False
        accepts(head)
        self._open, self._buffer = True, rest
        self._say({"type": "subscribe", "mailboxId": self._mailbox.id, "token": self._mailbox.token})
        return True

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
        self.transport.write(masked(orjson.dumps(event)))

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


async def subscribe(http: Endpoint, mailbox: Mailbox, on_event: OnEvent, *, timeout: float) -> Subscriber:
    """Connect and subscribe; WebSocketError when refused, OSError or TimeoutError when unreachable."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout):
        _transport, subscriber = await loop.create_connection(
            lambda: Subscriber(http, mailbox, on_event), http.host, http.port
        )
        await subscriber.ready
    return subscriber
