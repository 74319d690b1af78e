"""One WebSocket connection on its transport: messages out of frames, and the closing handshake (RFC 6455).

Lives here: what the protocol asks of both sides, and the bound on what is held of a client's words. Must not know: what
is said; ``Session`` is this class with a meaning given to its messages.

An idle connection is this object and its transport: no task, no future, no timer. What time asks for is done by
whoever keeps the connections, for all of them (``sessions.py``).
"""

import asyncio
from typing import Final

from server.ws import wire
from server.ws.wire import CLOSE, CONTINUATION, FIN, OPCODE, TEXT, Broken

MESSAGE_MAX: Final = 4096  # bytes of a message coming in
BACKLOG_MAX: Final = 64 * 1024  # bytes of messages waiting until one before them is dealt with

_OPEN: Final = 0
_CLOSING: Final = 1  # our close frame is sent and theirs awaited; what else they say is passed over
_DEAF: Final = 2  # nothing is read any more: both close frames were sent, or theirs cannot be told from noise


class Connection(asyncio.Protocol):
    """A connection whose handshake is done; ``start`` begins it."""

    __slots__ = ("_held", "_message", "_opcode", "_rest", "_state", "transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._state = _OPEN
        self._rest = b""  # what is not read yet: a frame's beginning, or whole frames while held
        self._held = False
        self._opcode = CONTINUATION  # of the message in progress; CONTINUATION where there is none
        self._message = b""  # of its fragments so far

    # For the subclass: what happens.

    def on_frame(self, first: int) -> bool:
        """A frame came, whatever it is; ``first`` is its first byte. False: it is one too many and was seen to."""
        raise NotImplementedError

    def on_message(self, message: str | bytes) -> None:
        """A whole message: text as str, binary as bytes."""
        raise NotImplementedError

    def on_overflow(self) -> None:
        """More came than is held while ``hold`` stands."""
        raise NotImplementedError

    def on_fault(self, error: Exception) -> None:
        """One of the above raised what it should not."""
        raise NotImplementedError

    def on_closing(self) -> None:
        """The connection has begun to end, by either side; it is to be cut when that takes too long."""
        raise NotImplementedError

    # And what may be done.

    @property
    def open(self) -> bool:
        """Whether messages still count, in both directions."""
        return self._state == _OPEN

    def start(self, early: bytes) -> None:
        """Take the transport over. ``early`` came behind the handshake."""
        self.transport.set_protocol(self)
        if early:
            self.data_received(early)

    def hold(self) -> None:
        """Read no further message until ``go_on``."""
        self._held = True
        self.transport.pause_reading()

    def go_on(self) -> None:
        """Read what came meanwhile, and on."""
        self._held = False
        rest, self._rest = self._rest, b""
        self._read(rest)
        if not self._held and not self.transport.is_closing():
            self.transport.resume_reading()

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake (section 7.1.2); their answer, or ``on_closing``'s patience, ends it."""
        if self._state == _OPEN:
            self._send_close(wire.closing(code, reason), _CLOSING)

    def fail(self, code: int, reason: str) -> None:
        """Close without heeding what they still send (section 7.1.7).

        Only our direction is shut, for what is unread when a connection is closed makes the kernel reset it, and the
        reason would be lost with it. They hang up when they have read it.
        """
        if self._state == _OPEN:
            self._send_close(wire.closing(code, reason), _DEAF)
            if not self.transport.is_closing():
                self.transport.write_eof()

    def _send_close(self, frame: bytes, state: int) -> None:
        self._state, self._rest, self._message = state, b"", b""
        if self._held:
            self._held = False
            self.transport.resume_reading()
        self.transport.write(frame)
        self.on_closing()

    # The transport's callbacks; ``eof_received`` stays as it is: the transport closes itself.

    def connection_lost(self, exc: Exception | None) -> None:
        self._state, self._rest, self._message = _DEAF, b"", b""

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data, self._rest = self._rest + data, b""
        self._read(data)

    def _read(self, data: bytes) -> None:
        at = 0
        try:
            while not self._held and self._state != _DEAF:
                frame = wire.read(data, at, MESSAGE_MAX - len(self._message))
                if frame is None:
                    break
                at = frame[2]
                if self._state == _OPEN:
                    self._take(frame[0], frame[1])
                elif frame[0] & OPCODE == CLOSE:
                    self._part()
        except Broken as broken:
            self._break(broken)
        except Exception as error:  # a fault of ours, and no HTTP response can say so once the handshake is over
            self.on_fault(error)
        if self._state != _DEAF:
            self._rest = data[at:]
            if self._held and len(self._rest) > BACKLOG_MAX:
                self.on_overflow()

    def _break(self, broken: Broken) -> None:
        if self._state == _OPEN:
            self.fail(broken.code, broken.why)
        else:  # they have our close frame; nothing better can come
            self._part()

    def _part(self) -> None:
        self._state = _DEAF
        self.transport.close()  # once what is queued has gone out

    def _take(self, first: int, payload: bytes) -> None:
        if not self.on_frame(first):
            return
        opcode = first & OPCODE
        if opcode == CLOSE:
            self._send_close(wire.answer_to_close(payload), _DEAF)
            self.transport.close()
        elif opcode == wire.PING:
            self.transport.write(wire.framed(wire.PONG, payload))
        elif opcode != wire.PONG:
            self._gather(opcode, payload, bool(first & FIN))

    def _gather(self, opcode: int, payload: bytes, final: bool) -> None:
        """Section 5.4: a message's fragments come one after the other, with nothing but control frames between."""
        if (opcode == CONTINUATION) != (self._opcode != CONTINUATION):
            raise Broken(wire.PROTOCOL_ERROR, "fragments of one message follow each other")
        if not final:
            self._opcode, self._message = self._opcode or opcode, self._message + payload
            return
        opcode, payload = self._opcode or opcode, self._message + payload
        self._opcode, self._message = CONTINUATION, b""
        self.on_message(wire.text(payload) if opcode == TEXT else payload)
