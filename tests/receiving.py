"""An HTTP receiver in the test's own process: it writes down what it is sent, and answers, or misbehaves, as told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ssl import SSLContext


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def status(code: int, body: bytes = b"", *headers: str) -> Answer:
    """An answer with Content-Length."""

    async def answer(_: Request, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {code} Said", f"Content-Length: {len(body)}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode() + body)

    return answer


class Receiver:
    """``answer`` may be replaced at any time; ``closed`` is set whenever a connection has ended."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: Answer = status(200, b"thanks")
        self.connections = 0
        self.arrived = asyncio.Condition()
        self.closed = asyncio.Event()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            request = await self._read(reader)
            self.requests.append(request)
            async with self.arrived:
                self.arrived.notify_all()
            await self.answer(request, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away: tests look at what was received
        finally:
            writer.close()
            self.closed.set()

    async def _read(self, reader: asyncio.StreamReader) -> Request:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
        return Request(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))

    async def until(self, enough: Callable[["Receiver"], bool], timeout: float = 40) -> None:
        """Wait until so much has arrived."""
        async with asyncio.timeout(timeout), self.arrived:
            await self.arrived.wait_for(lambda: enough(self))


@asynccontextmanager
async def receiving(host: str = "127.0.0.1", port: int = 0, tls: SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, host, port, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
