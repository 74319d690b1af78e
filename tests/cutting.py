"""Transfers that a client cuts off, of every kind that a server takes part in: what they leave behind is the test's to
ask.

Knows the product only from outside: SMTP, HTTP, WebSocket. ``STORMS`` has all kinds by name.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from tests.running import Box

RECEIVED: Final = 4096  # bytes that the client's kernel takes ahead of a client which does not read
PAUSE: Final = 0.05  # s in which the server comes to the middle of what is cut


@dataclass(frozen=True)
class Place:
    """Where to cut: a server's addresses, a mailbox, and the id of a large message in it."""

    http: tuple[str, int]
    smtp: tuple[str, int]
    box: Box
    message: str

    @contextlib.asynccontextmanager
    async def connection(
        self, address: tuple[str, int]
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Reset at the end, whatever is under way."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
        reader, writer = await asyncio.open_connection(sock=sock, limit=RECEIVED)
        try:
            yield reader, writer
            await asyncio.sleep(PAUSE)
        finally:
            writer.transport.abort()

    def head(self, method: str, path: str, *fields: str, right: bool = True) -> bytes:
        lines = [f"{method} /v1/mailboxes/{self.box.id}{path} HTTP/1.1", "Host: x", *fields]
        if right:
            lines.append(f"Authorization: Bearer {self.box.token}")
        return "\r\n".join([*lines, "", ""]).encode()

    async def say(self, *pieces: bytes, read: int = 0) -> None:
        """Send, read so many bytes, and cut."""
        async with self.connection(self.http) as (reader, writer):
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            if read:
                await reader.readexactly(read)

    async def say_mail(self, *commands: bytes) -> None:
        """Send the commands, each after the answer to the one before, and cut behind the last."""
        async with self.connection(self.smtp) as (reader, writer):
            for command in (b"EHLO x\r\n", b"MAIL FROM:<a@b.c>\r\n", *commands):
                while (await reader.readline())[3:4] == b"-":
                    pass
                writer.write(command)


LARGE: Final = b'{"from":"a@b.c","text":"' + b"x" * 3_000_000


async def download(place: Place) -> None:
    await place.say(place.head("GET", f"/messages/{place.message}/raw"), read=100_000)


async def unread_download(place: Place) -> None:
    await place.say(place.head("GET", f"/messages/{place.message}/raw"))


async def detail(place: Place) -> None:
    await place.say(place.head("GET", f"/messages/{place.message}"), read=50_000)


async def downloads_in_a_row(place: Place) -> None:
    await place.say(place.head("GET", f"/messages/{place.message}/raw") * 3, read=100_000)


async def lists_in_a_row(place: Place) -> None:
    await place.say(place.head("GET", "/messages") * 200)


async def upload(place: Place) -> None:
    await place.say(place.head("POST", "/messages", "Content-Length: 9000000"), LARGE)


async def chunked_upload(place: Place) -> None:
    await place.say(place.head("POST", "/messages", "Transfer-Encoding: chunked"), b"%x\r\n" % 9_000_000, LARGE)


async def broken_chunk(place: Place) -> None:
    await place.say(
        place.head("POST", "/messages", "Transfer-Encoding: chunked"), b"ffff\r\n" + b"x" * 65535, b"\r\nzzzz\r\n"
    )


async def refused_upload(place: Place) -> None:
    await place.say(place.head("POST", "/messages", "Content-Length: 9000000", right=False), LARGE)


async def too_big_upload(place: Place) -> None:
    await place.say(place.head("POST", "/messages", "Content-Length: 99000000"), LARGE)


async def expected_upload(place: Place) -> None:
    await place.say(place.head("POST", "/messages", "Content-Length: 100000", "Expect: 100-continue"), read=20)


async def no_request(place: Place) -> None:
    await place.say(b"\0\1\2 nothing that HTTP knows\r\n\r\n" + b"x" * 100_000)


async def half_a_head(place: Place) -> None:
    await place.say(b"GET / HTTP/1.1\r\nX: " + b"y" * 8000)


async def stream(place: Place) -> None:
    await place.say(place.head("GET", "/events?after=0"), read=500)


async def waiting(place: Place) -> None:
    await place.say(place.head("GET", "/wait?after=1000&timeout=2"))


async def websocket(place: Place) -> None:
    said = json.dumps({"type": "subscribe", "mailboxId": place.box.id, "token": place.box.token, "after": 0}).encode()
    await place.say(
        b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        b"\x81\xfe" + len(said).to_bytes(2, "big") + b"\0\0\0\0" + said,
        read=200,
    )


async def mail_by_data(place: Place) -> None:
    recipient = b"RCPT TO:<%b>\r\n" % place.box.address.encode()
    await place.say_mail(recipient, b"DATA\r\n", (b"y" * 998 + b"\r\n") * 3000)


async def mail_by_bdat(place: Place) -> None:
    recipient = b"RCPT TO:<%b>\r\n" % place.box.address.encode()
    await place.say_mail(recipient, b"BDAT 9000000\r\n" + b"y" * 3_000_000)


STORMS: Final[dict[str, Callable[[Place], Awaitable[None]]]] = {
    storm.__name__: storm
    for storm in (
        download,
        unread_download,
        detail,
        downloads_in_a_row,
        lists_in_a_row,
        upload,
        chunked_upload,
        broken_chunk,
        refused_upload,
        too_big_upload,
        expected_upload,
        no_request,
        half_a_head,
        stream,
        waiting,
        websocket,
        mail_by_data,
        mail_by_bdat,
    )
}
