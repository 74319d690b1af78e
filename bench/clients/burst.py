"""Many SMTP sessions of one process, each sending as fast as it is answered: the generator called "own".

A session is a protocol and a generator of what to say, so that the sender costs less than what it measures. Must not
know: what stands behind the socket.
"""

import asyncio
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Final, cast

from bench.clients.smtp import SENDER, Delivery, SmtpError
from bench.tools.target import Endpoint

_Step = tuple[bytes, tuple[bytes, ...]]
"""What to write, and the codes of the replies to wait for before the next step."""

_MAIL: Final = b"MAIL FROM:<%s>\r\n" % SENDER.encode()


class _Session(asyncio.Protocol):
    """One session: sends from ``letters`` until none are left; ``over`` is then done, or holds why it failed."""

    def __init__(self, letters: Iterator[tuple[str, bytes]], done: list[Delivery], *, chunks: bool) -> None:
        self._letters, self._done, self._chunks = letters, done, chunks
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._dialog = self._speak()
        self._awaited: list[bytes] = []  # codes of replies, the next one last
        self._said: list[bytes] = []  # the lines of the last reply
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but inheritance
        self._go_on()

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        for line in lines:
            self._said.append(line)
            if line[3:4] == b"-":
                continue
            expected = self._awaited.pop() if self._awaited else b""
            if not expected or not line.startswith(expected):
                self._end(SmtpError(int(line[:3]) if line[:3].isdigit() else 0, line[4:].decode("utf-8", "replace")))
                return
            if not self._awaited:
                self._go_on()
            self._said = []

    def connection_lost(self, error: Exception | None) -> None:
        self._end(SmtpError(0, "the server hung up"))

    def _end(self, error: SmtpError | None) -> None:
        if not self.over.done():
            if error is None:
                self.over.set_result(None)
            else:
                self.over.set_exception(error)
        self._transport.close()

    def _go_on(self) -> None:
        try:
            wire, awaited = next(self._dialog)
        except StopIteration:
            self._end(None)
        except SmtpError as error:
            self._end(error)
        else:
            self._awaited = [*reversed(awaited)]
            if wire:
                self._transport.write(wire)

    def _speak(self) -> Generator[_Step, None, None]:
        yield b"", (b"220",)
        yield b"EHLO src.test\r\n", (b"250",)
        offers = {line[4:].split(b" ")[0].upper() for line in self._said}
        if self._chunks and not {b"CHUNKING", b"PIPELINING"} <= offers:
            raise SmtpError(0, "the server offers no CHUNKING with PIPELINING")
        for recipient, message in self._letters:
            envelope = (_MAIL, b"RCPT TO:<%s>\r\n" % recipient.encode())
            if self._chunks:  # nothing to wait for, no dots to double (RFC 3030)
                wire = b"".join((*envelope, b"BDAT %d LAST\r\n" % len(message), message))
                sent = time.perf_counter()
                yield wire, (b"250", b"250", b"250")
            else:
                if b"PIPELINING" in offers:
                    yield b"".join((*envelope, b"DATA\r\n")), (b"250", b"250", b"354")
                else:
                    for command in envelope:
                        yield command, (b"250",)
                    yield b"DATA\r\n", (b"354",)
                sent = time.perf_counter()
                yield message + b".\r\n", (b"250",)
            self._done.append(Delivery(sent, time.perf_counter()))
        self._transport.write(b"QUIT\r\n")


async def send_all(
    smtp: Endpoint, messages: Sequence[tuple[str, bytes]], *, sessions: int, deadline: float, chunks: bool = False
) -> list[Delivery]:
    """Closed loop: ``sessions`` kept-open sessions share the ``(recipient, wire form)`` messages out, by DATA or BDAT,
    pipelined where that is offered (RFC 2920).

    SmtpError at the first refusal, OSError when nobody listens, TimeoutError after ``deadline`` seconds.
    """
    loop, letters = asyncio.get_running_loop(), iter(messages)
    done: list[Delivery] = []
    opened: list[_Session] = []
    try:
        async with asyncio.timeout(deadline):
            for _ in range(min(sessions, len(messages))):
                _, session = await loop.create_connection(
                    lambda: _Session(letters, done, chunks=chunks), smtp.host, smtp.port
                )
                opened.append(session)
            await asyncio.gather(*(session.over for session in opened))
    finally:
        for session in opened:
            session.over.cancel()
            session.connection_lost(None)
    return done
