"""Senders: Postfix's smtp-source as processes, and an SMTP client of our own that knows when each answer came.

Must not know: what stands behind the socket. Figures of the two are labelled apart: smtp-source is C, sends one command
at a time and measures no latency; ours pipelines where EHLO offers it (RFC 2920) and times every message.
"""

import asyncio
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from bench.tools.launch import require_program
from bench.tools.target import Endpoint

SENDER = "a@src.test"
_BARE_LF = re.compile(rb"(?<!\r)\n")
_LINE_DOT = re.compile(rb"^\.", re.MULTILINE)
_REPLY_LIMIT = 1 << 16


class SmtpError(Exception):
    """The server answered something else than was hoped for, or not at all; ``code`` is 0 without an answer."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}" if code else text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Burst:
    """What smtp-source did: ``acknowledged`` messages in ``seconds``."""

    acknowledged: int
    seconds: float


def burst(
    smtp: Endpoint,
    recipients: Sequence[str],
    *,
    messages: int,
    sessions: int,
    size: int,
    keep_open: bool,
    deadline: float,
) -> Burst:
    """Send with one smtp-source per recipient, sessions and messages split among them.

    ``size`` is the body in bytes. smtp-source ends with an error at the first answer that is not 2xx or 3xx, so that a
    clean end means every message was acknowledged. SmtpError otherwise, or after ``deadline`` seconds.
    """
    program = require_program("smtp-source", "postfix")
    count = len(recipients)
    commands = []
    for number, recipient in enumerate(recipients):
        share = messages // count + (number < messages % count)
        own = max(sessions // count, 1)
        command = [program, "-s", str(own), "-l", str(size), "-m", str(share), "-f", SENDER, "-t", recipient]
        commands.append([*command, "-M", "src.test", *(["-d"] if keep_open else []), str(smtp)])
    started = time.perf_counter()
    children = [
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for command in commands
    ]
    try:
        for child in children:
            complaint = child.communicate(timeout=max(deadline - (time.perf_counter() - started), 0.1))[1]
            if child.returncode:
                raise SmtpError(0, f"smtp-source: {complaint.strip()[:500]}")
    except subprocess.TimeoutExpired as error:
        raise SmtpError(0, f"smtp-source was not done after {deadline:.0f} s") from error
    finally:
        for child in children:
            child.kill()
            child.wait()
    return Burst(messages, time.perf_counter() - started)


def wire_form(message: bytes) -> bytes:
    """A message as DATA carries it: CRLF line ends, dots doubled at line starts, ends with CRLF (RFC 5321, 4.5.2)."""
    lines = _BARE_LF.sub(b"\r\n", message)
    if not lines.endswith(b"\r\n"):
        lines += b"\r\n"
    return _LINE_DOT.sub(b"..", lines)


@dataclass(frozen=True, slots=True)
class Delivery:
    """Times of one accepted message on ``time.perf_counter()``: its bytes handed over, 250 read."""

    sent: float
    answered: float


class SmtpConnection:
    """One SMTP session. Not for concurrent use."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout: float) -> None:
        self._reader = reader
        self._writer = writer
        self._timeout = timeout
        self.extensions: frozenset[str] = frozenset()

    @classmethod
    async def open(cls, smtp: Endpoint, timeout: float = 30.0) -> Self:
        """Connect and say EHLO. SmtpError when refused, OSError or TimeoutError when unreachable."""
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(smtp.host, smtp.port, limit=_REPLY_LIMIT)
        connection = cls(reader, writer, timeout)
        await connection._expect(220)
        answer = await connection._command(b"EHLO src.test\r\n", 250)
        connection.extensions = frozenset(line.split()[0].upper() for line in answer[1:] if line.split())
        return connection

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Say QUIT without waiting for the answer, and hang up."""
        if not self._writer.is_closing():
            self._writer.write(b"QUIT\r\n")
            self._writer.close()

    async def send(self, recipients: Sequence[str], wire: bytes) -> Delivery:
        """Send one message that is already in wire form; SmtpError unless every recipient and the message got 2xx."""
        commands = [b"MAIL FROM:<%s>\r\n" % SENDER.encode()]
        commands += [b"RCPT TO:<%s>\r\n" % recipient.encode() for recipient in recipients]
        if "PIPELINING" in self.extensions:
            self._writer.write(b"".join(commands) + b"DATA\r\n")
            await self._envelope_answers(len(commands))
        else:
            for command in commands:
                await self._command(command, 250)
            await self._command(b"DATA\r\n", 354)
        sent = time.perf_counter()
        self._writer.write(wire + b".\r\n")
        await self._expect(250)
        return Delivery(sent, time.perf_counter())

    async def _envelope_answers(self, count: int) -> None:
        """Read every answer of a pipelined envelope before judging, so that the session stays in step."""
        answers = [await self._reply() for _ in range(count + 1)]
        for number, (code, lines) in enumerate(answers):
            if code != (354 if number == count else 250):
                if answers[-1][0] == 354:
                    self._writer.close()  # the server waits for a message that will not come
                raise SmtpError(code, lines[0])

    async def _command(self, line: bytes, expected: int) -> list[str]:
        self._writer.write(line)
        return await self._expect(expected)

    async def _expect(self, expected: int) -> list[str]:
        code, lines = await self._reply()
        if code != expected:
            raise SmtpError(code, lines[0])
        return lines

    async def _reply(self) -> tuple[int, list[str]]:
        """One reply, its lines without the code (RFC 5321, 4.2.1)."""
        lines: list[str] = []
        async with asyncio.timeout(self._timeout):
            while True:
                line = await self._reader.readline()
                if len(line) < 4 or not line[:3].isdigit():
                    raise SmtpError(0, f"not a reply: {line[:80]!r}" if line else "the server hung up")
                lines.append(line[4:].decode("utf-8", "replace").rstrip("\r\n"))
                if line[3:4] != b"-":
                    return int(line[:3]), lines


def sample_message(subject: str, size: int) -> bytes:
    """A plain message in wire form whose body has about ``size`` bytes of words."""
    head = (
        f"From: Bench <{SENDER}>\r\nTo: box\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n\r\n"
    )
    line = "Every line of this body is made of ordinary words, so that it packs like a letter.\r\n"
    return (head + line * max(size // len(line), 1)).encode()
