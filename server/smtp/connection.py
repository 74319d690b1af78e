"""What a session is before it speaks: bytes in, replies out, holds, times, and the ways in which it ends.

Everything happens inside data_received, without a task or a future, but for what a subclass waits for: meanwhile the
connection is BUSY, input waits, and so replies keep the order of commands. Must not know: any command, or what a body
is for.

A packet is worked through where it lies, by position: the usual one holds a whole line or the whole rest of a body, and
is copied nowhere.
"""

import asyncio
from typing import Final, Protocol, cast

from server import log
from server.smtp import replies
from server.smtp.aiosmtpd_shim import Base
from server.smtp.body import BodyReader
from server.smtp.eod import CRLF
from server.smtp.listener_state import (
    CONNECTIONS,
    DROPPED,
    INPUT_MAX,
    LINE_END_MAX,
    LINE_MAX,
    LINGER,
    Shared,
)

BUSY: Final = 1  # waits for us: a recipient, a commit, a handshake
CHOKED: Final = 2  # the client does not read its replies
CLOSING: Final = 4  # said its last reply, or is gone

_BATCH: Final = 64  # replies gathered before they are written, so that output is bounded by what the client reads
_CR: Final = 13
_REFUSALS: Final = ord("4")  # what a reply that is no success begins with, or a later digit


class Member(Protocol):
    """What a listener needs of a connection it has accepted."""

    def check(self, now: float) -> None: ...
    def end_if_idle(self) -> None: ...
    def abort(self) -> None: ...


class Connection(Base):
    """The protocol of one connection. ``check`` is called each second; ``end_if_idle`` and ``abort`` are the listener's
    too.

    A subclass answers commands (``_answer``), takes what a body holds (``_finish_body``), and says whether a mail is
    begun (``_begun``).
    """

    __slots__ = (
        "_banned",
        "_body",
        "_budget",
        "_choked_at",
        "_eof",
        "_hold",
        "_last",
        "_out",
        "_paused",
        "_reading",
        "_rest",
        "_seat",
        "_sessions",
        "_shared",
        "_since",
        "_wire",
        "peer",
        "tls",
    )

    _wire: asyncio.Transport
    _seat: str | None

    def __init__(self, shared: Shared, sessions: set[Member]) -> None:
        super().__init__()
        self._shared, self._sessions = shared, sessions
        self._seat = None
        self._banned = False
        self._hold = 0
        self._rest = b""  # input that waits: half a line, or what came while the session was held
        self._out: list[bytes] = []
        self._body: BodyReader | None = None  # the message that comes in, from its DATA or first BDAT to its end
        self._reading = False  # what comes next belongs to the body
        self._budget = shared.budget
        self._since = self._last = shared.now()
        self._choked_at = 0.0
        self._eof = self._paused = self.tls = False
        self.peer = ""  # the client's IP address; empty for a unix socket

    def _answer(self, line: bytes) -> bytes:
        """The reply to one command line; empty where it comes later."""
        raise NotImplementedError

    def _finish_body(self, body: BodyReader) -> None:
        """All that was announced of ``body`` is there."""
        raise NotImplementedError

    def _begun(self) -> bool:
        """Whether a mail is under way."""
        raise NotImplementedError

    def _forget(self) -> None:
        """Drop the mail that is under way, if any."""
        self._reading = False
        if self._body is not None:
            self._body.release()
            self._body = None

    # Its beginning and its ends

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peername = transport.get_extra_info("peername")
        self.begin(cast(asyncio.Transport, transport), str(peername[0]) if isinstance(peername, tuple) else "")

    def begin(self, wire: asyncio.Transport, peer: str) -> None:
        """Greet the client at ``peer``, an IP address or empty, or send it away."""
        shared = self._shared
        self._wire, self.peer = wire, peer
        self._sessions.add(self)
        banned = shared.guard is not None and shared.guard.bans_client(peer)
        if banned and shared.banned >= shared.banned_max:
            CONNECTIONS.add(("banned",))
            self._turn_away(replies.BANNED_CLIENT)
            return
        self._seat = shared.seats.take(peer)
        if self._seat is None:
            CONNECTIONS.add(("refused",))
            self._turn_away(replies.TOO_MANY_CONNECTIONS)
        elif shared.draining:
            self._turn_away(replies.CLOSING_DOWN)
        else:
            CONNECTIONS.add(("accepted",))
            self._banned = banned
            shared.banned += banned
            if log.wants("debug"):
                log.event("debug", "smtp connection", client=peer)
            wire.write(shared.greeting)

    def _turn_away(self, reply: bytes) -> None:
        self._shared.decisions.note("connect", self.peer, "", "", "", reply)
        self._finish(reply)

    def connection_lost(self, error: Exception | None) -> None:
        """Gone, by FIN, RST or us. A message already submitted is none of this connection's business any more."""
        self._hold |= CLOSING
        self._forget()
        self._rest = b""
        self._out.clear()
        self._sessions.discard(self)
        if log.wants("debug"):
            log.event("debug", "smtp connection over", client=self.peer, error=type(error).__name__ if error else None)
        if not self._sessions:
            self._shared.empty.set()
        self._shared.banned -= self._banned
        self._banned = False
        if self._seat is not None:
            self._shared.seats.give_back(self._seat)
            self._seat = None

    def eof_received(self) -> bool:
        """The client writes no more. It may still read the reply it waits for; over TLS, which cannot half close, not.

        False lets the transport close itself, at once: from then on it must not be written to.
        """
        self._eof = True
        waits = bool(self._hold & BUSY) and not self.tls
        if not waits:
            self._hold |= CLOSING
        return waits

    def check(self, now: float) -> None:
        """End the session if one of its times is over. ``now`` is the loop's clock."""
        shared, idle = self._shared, now - self._last
        if self._hold & CLOSING:
            if idle > LINGER:
                self.abort()
        elif self._hold & CHOKED:
            if now - self._choked_at > shared.write_timeout:
                DROPPED.add(("unread",))
                self.abort()
        elif not self._hold:
            if idle > shared.read_timeout:
                self._drop("idle", replies.TIMED_OUT)
            elif now - self._since > shared.session_timeout:
                self._drop("session", replies.SESSION_TOO_LONG)
            elif self._body is not None and self._body.too_slow(now):
                self._drop("slow", replies.TOO_SLOW)

    def end_if_idle(self) -> None:
        """We are going down: say so unless a transaction is under way, whose end will say it."""
        if not self._hold & (BUSY | CLOSING) and not self._begun():
            DROPPED.add(("drain",))
            self._finish(replies.CLOSING_DOWN)

    def abort(self) -> None:
        self._hold |= CLOSING
        self._wire.abort()

    def _drop(self, reason: str, reply: bytes) -> None:
        DROPPED.add((reason,))
        self._finish(reply, linger=True)

    def _finish(self, reply: bytes, *, linger: bool = False) -> None:
        """Say ``reply`` and close. What waits goes: nothing that came after counts.

        ``linger`` closes our side only and throws away what still comes, until the client closes or LINGER is over:
        closed with input unread, TCP would reset the connection, and the client never see why.
        """
        self._hold |= CLOSING
        self._last = self._shared.now()
        self._forget()
        self._rest = b""
        self._out.append(reply)
        self._flush()
        if linger and not self._eof and self._wire.can_write_eof():
            self._wire.write_eof()
            if self._paused:
                self._wire.resume_reading()
        else:
            self._wire.close()

    # Output

    def _flush(self) -> None:
        out = self._out
        if len(out) == 1:
            self._wire.write(out.pop())
        elif out:
            self._wire.write(b"".join(out))
            out.clear()

    def pause_writing(self) -> None:
        self._hold |= CHOKED
        self._choked_at = self._shared.now()

    def resume_writing(self) -> None:
        self._hold &= ~CHOKED
        if not self._hold:
            self._last = self._shared.now()
            self._go_on()

    def _say(self, reply: bytes) -> None:
        """Queue a reply and take its price off the session's budget, which an accepted mail fills up again.

        A command costs 1, a refusal 10, an error of protocol a tenth of it all: honest senders never meet its end.
        """
        self._out.append(reply)
        if reply[0] < _REFUSALS:
            self._budget -= 1
        else:
            first = reply[:2]
            self._budget -= self._shared.budget // 10 if first == b"50" else 10 if first == b"55" else 1
        if self._budget <= 0:
            self._drop("budget", replies.TOO_MANY_ERRORS)

    # Input

    def data_received(self, data: bytes) -> None:
        if self._hold:
            self._wait(data)
            return
        self._last = self._shared.now()
        if self._rest:
            data, self._rest = self._rest + data, b""
        size = len(data)
        if self._reading or data.find(b"\n") != size - 1 or size > LINE_MAX or not data.endswith(CRLF):
            self._process(data)
            return
        reply = self._answer(data[:-2])  # the usual packet: one whole line
        if reply:
            self._say(reply)
        if self._out:
            self._flush()
        if not self._hold:
            self._settle()

    def _wait(self, data: bytes) -> None:
        """Keep what comes while the session is held, within bounds."""
        if self._hold & CLOSING:
            return
        self._last = self._shared.now()
        self._rest += data
        if len(self._rest) > INPUT_MAX and not self._paused:
            self._paused = True
            self._wire.pause_reading()

    def _go_on(self) -> None:
        """Nothing holds the session any more."""
        data, self._rest = self._rest, b""
        self._process(data)

    def _resume(self, reply: bytes) -> None:
        """What the session was BUSY with is done; ``reply`` may be several, or empty."""
        self._hold &= ~BUSY
        if self._hold & CLOSING:
            return
        self._last = self._shared.now()
        if reply:
            self._say(reply)
        if self._hold:
            self._flush()
        else:
            self._go_on()

    def _process(self, data: bytes) -> None:
        """Work through ``data`` until it is used up or the session is held; what is left waits."""
        at, size = 0, len(data)
        while at < size and not self._hold:
            if self._reading:
                at = self._take_body(data, at)
                continue
            end = data.find(b"\n", at)
            if end < 0 or data[end - 1] != _CR or end - at > LINE_MAX or end == at:
                end = self._take_odd_line(data, at, end)
                if end < 0:
                    break
            elif reply := self._answer(data[at : end - 1]):
                self._say(reply)
            at = end + 1
            if len(self._out) >= _BATCH:
                self._flush()
        if self._out:
            self._flush()
        if at < size and not self._hold & CLOSING:
            self._rest = data[at:]
        if not self._hold:
            self._settle()

    def _settle(self) -> None:
        """All that can be done now is done."""
        if self._eof:
            self._hold |= CLOSING
            self._wire.close()
        elif self._shared.draining:
            self.end_if_idle()
        if self._paused and not self._hold:
            self._paused = False
            self._wire.resume_reading()

    def _take_odd_line(self, data: bytes, at: int, end: int) -> int:
        """A line that is not whole yet, too long, or ends in no CR LF: where it ends, or -1 to wait or to stop."""
        if (len(data) if end < 0 else end) - at > LINE_END_MAX:
            self._drop("line", replies.LINE_TOO_LONG)
            return -1
        if end < 0:
            return -1
        if end == at or data[end - 1] != _CR:
            self._drop("bare_line_feed", replies.BARE_LINE_FEED)
            return -1
        self._say(replies.LINE_TOO_LONG)
        return end

    def _take_body(self, data: bytes, at: int) -> int:
        """Give the body what is its; where the rest begins."""
        body = self._body
        assert body is not None
        at = body.take(data, at)
        if body.exhausted:
            self._drop("size", body.refusal)
        elif body.complete:
            self._reading = False
            self._finish_body(body)
        return at
