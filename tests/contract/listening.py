"""A listener in the test's own process, with a Delivery the test commands: for faults no outside server shows."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from server.config import settings as config
from server.model.errors import Refused
from server.model.message import Envelope, Recipient
from server.services.mail_in.decisions import Decisions
from server.smtp.listener import Listener

ENVELOPE = b"EHLO client.example\r\nMAIL FROM:<s@example.com>\r\nRCPT TO:<known@temp.mail>\r\n"
MAIL = b"DATA\r\nSubject: x\r\n\r\nbody\r\n.\r\n"


class Commanded:
    """Takes mail for the names it knows; raises ``trouble`` where it is set; answers nothing while ``pending``."""

    def __init__(self) -> None:
        self.known = {"known@temp.mail": "box-1", "second@temp.mail": "box-2", "alias@temp.mail": "box-1"}
        self.remembered: set[str] = set()
        self.envelopes: list[Envelope] = []
        self.futures: list[asyncio.Future[Any]] = []
        self.trouble: dict[str, Exception] = {}
        self.pending = False
        self.submitted = asyncio.Event()

    def route(self, address: str) -> Recipient | None:
        if "route" in self.trouble:
            raise self.trouble["route"]
        return Recipient(address, self.known[address]) if address in self.remembered else None

    async def resolve(self, address: str) -> Recipient:
        await asyncio.sleep(0)
        if "resolve" in self.trouble:
            raise self.trouble["resolve"]
        if address not in self.known:
            raise Refused("mailbox_not_found" if address.endswith("@temp.mail") else "domain_not_allowed")
        return Recipient(address, self.known[address])

    def submit(self, envelope: Envelope, *, is_read: bool = False) -> "asyncio.Future[Any]":
        if "submit" in self.trouble:
            raise self.trouble["submit"]
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.envelopes.append(envelope)
        self.futures.append(future)
        if "commit" in self.trouble:
            future.set_exception(self.trouble["commit"])
        elif not self.pending:
            future.set_result([])
        self.submitted.set()
        return future


class Listening:
    """The listener, its delivery, and clients."""

    def __init__(self, listener: Listener, delivery: Commanded, address: tuple[str, int], decisions: Decisions) -> None:
        self.listener, self.delivery, self.address = listener, delivery, address
        self.decisions = decisions

    async def client(self, **options: Any) -> "Client":
        reader, writer = await asyncio.open_connection(*self.address, **options)
        return Client(reader, writer)

    def later(self, seconds: float) -> None:
        """Let the listener look at its sessions as if so much time had gone by."""
        self.listener.sweep(asyncio.get_running_loop().time() + seconds)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self) -> str:
        """The last line of the next reply; empty when the server has closed."""
        while True:
            line = await asyncio.wait_for(self.reader.readline(), 30)
            if line[3:4] != b"-":
                return line.decode().rstrip("\r\n")

    async def replies(self, count: int) -> list[str]:
        return [await self.reply() for _ in range(count)]

    async def gone(self) -> bool:
        """Whether the server ends the connection without a word (closed or reset)."""
        try:
            return await self.reply() == ""
        except ConnectionResetError:
            return True

    async def rest(self) -> list[str]:
        """All replies until the server closes."""
        lines = []
        while line := await self.reply():
            lines.append(line)
        return lines


@asynccontextmanager
async def listening(folder: Path, *, lmtp: bool = False, **settings: str) -> AsyncIterator[Listening]:
    """Settings are public names without their prefix, such as SMTP_READ_TIMEOUT="30s"."""
    defaults = {"DATA_DIR": str(folder), "WORKERS": "1", "MAILBOX_ALLOWED_DOMAINS": "temp.mail"}
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    delivery, decisions = Commanded(), Decisions()
    listener = Listener(config.load({}, defaults | settings), delivery, sock, lmtp=lmtp, decisions=decisions)
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
    await listener.start()
    try:
        yield Listening(listener, delivery, sock.getsockname(), decisions)
    finally:
        listener.close()
    for _ in range(3):  # connections tell the loop that they are lost
        await asyncio.sleep(0)
    assert failures == []
