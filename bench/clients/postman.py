"""A steady stream of mail on a schedule, over sessions kept open; cheap, to leave the machine to what it measures.

Lives here: the sessions (PIPELINING, one write for an envelope and one for a message) and the beat by which they send.
Must not know: what the server does with the mail, or whom its recipients tell.
"""

import asyncio
import time
from array import array
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from bench.clients.smtp import SENDER, SmtpError
from bench.tools.stats import Schedule
from bench.tools.target import Endpoint
from bench.tools.ticker import Ticker

_BEAT: Final = 0.0005  # s from one look at the schedule to the next
_GRACE: Final = 30.0  # s that the last of the mail may be late
_GREETING, _HELLO, _IDLE, _ENVELOPE, _BODY = range(5)

Letter = Callable[[int], tuple[str, bytes]]
"""A mail's number -> its recipient, and its wire form without the final dot."""


class Sent:
    """By number, moments on ``time.perf_counter``: ``due`` as the schedule said, ``began`` with the envelope, ``dot``
    when the message was handed over with its final dot, ``answered`` by 250.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.due = [schedule.time_of(number) for number in range(schedule.total)]
        self.began, self.dot, self.answered = (array("d", bytes(8 * schedule.total)) for _ in range(3))

    @property
    def rate(self) -> float:
        """Mails a second that were really offered: from the first envelope to the last."""
        return (len(self.began) - 1) / (self.began[-1] - self.began[0]) if len(self.began) > 1 else 0.0


class _Round:
    """Hands what is due to whichever session is free."""

    def __init__(self, letter: Letter, sessions: int) -> None:
        loop = asyncio.get_running_loop()
        self._letter, self._sessions = letter, sessions
        self._idle: deque[_Session] = deque()
        self._begun = self._done = 0
        self._schedule: Schedule | None = None
        self.sent: Sent
        self.ready: asyncio.Future[None] = loop.create_future()  # all sessions are open
        self.over: asyncio.Future[None] = loop.create_future()  # all mail is answered

    def begin(self, schedule: Schedule) -> None:
        self._schedule, self.sent = schedule, Sent(schedule)

    def beat(self) -> None:
        if self._schedule is None:
            return
        due = self._schedule.due_by(time.perf_counter())
        while self._begun < due and self._idle:
            number = self._begun
            self._begun += 1
            self._idle.popleft().send(number, *self._letter(number))

    def free(self, session: "_Session") -> None:
        self._idle.append(session)
        self.beat()
        if len(self._idle) == self._sessions and not self.ready.done():
            self.ready.set_result(None)

    def done(self) -> None:
        self._done += 1
        if self._done == len(self.sent.due) and not self.over.done():
            self.over.set_result(None)

    def failed(self, why: str) -> None:
        for hoped in (self.ready, self.over):
            if not hoped.done():
                hoped.set_exception(SmtpError(0, why))
                hoped.exception()  # one of them is perhaps not awaited any more


class _Session(asyncio.Protocol):
    """One SMTP session."""

    def __init__(self, whole: _Round) -> None:
        self._round = whole
        self._state, self._rest, self._awaited = _GREETING, b"", 1
        self._number, self._wire = 0, b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._round.failed("the server hung up")

    def send(self, number: int, recipient: str, wire: bytes) -> None:
        self._number, self._wire = number, wire
        self._state, self._awaited = _ENVELOPE, 3
        self._round.sent.began[number] = time.perf_counter()
        self.transport.write(f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode())

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        for line in lines:
            if line[3:4] != b"-":
                self._answer(line)

    def _answer(self, line: bytes) -> None:
        self._awaited -= 1
        wanted = b"3" if self._state == _ENVELOPE and not self._awaited else b"2"
        if line[:1] != wanted:
            self._round.failed(line.decode("utf-8", "replace"))
        elif not self._awaited:
            self._go_on()

    def _go_on(self) -> None:
        self._awaited = 1
        if self._state == _GREETING:
            self._state = _HELLO
            self.transport.write(b"EHLO src.test\r\n")
        elif self._state == _ENVELOPE:
            self._state = _BODY
            self._round.sent.dot[self._number] = time.perf_counter()
            self.transport.write(self._wire + b".\r\n")
        else:
            if self._state == _BODY:
                self._round.sent.answered[self._number] = time.perf_counter()
                self._round.done()
            self._state = _IDLE
            self._round.free(self)


async def send_steadily(smtp: Endpoint, rate: float, seconds: float, letter: Letter, *, sessions: int) -> Sent:
    """Send ``rate`` mails a second, each as soon as it is due and a session is free; no mail waits for another's answer
    while there are sessions. SmtpError at the first refusal, TimeoutError when the last is half a minute late.
    """
    loop = asyncio.get_running_loop()
    whole = _Round(letter, sessions)
    made = [await loop.create_connection(lambda: _Session(whole), smtp.host, smtp.port) for _ in range(sessions)]
    try:
        await asyncio.wait_for(whole.ready, _GRACE)
        whole.begin(Schedule(time.perf_counter(), rate, seconds))
        with Ticker(_BEAT, whole.beat):
            await asyncio.wait_for(whole.over, seconds + _GRACE)
    finally:
        for transport, _ in made:
            transport.abort()
    return whole.sent
