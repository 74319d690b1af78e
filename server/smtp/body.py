"""One message while its bytes come in, by DATA or by BDAT: bounded in size, memory and time, put together at its end.

Must not know: verbs, replies beyond the refusals of a message, or who asked for it.
"""

from typing import Final

from server.smtp import replies
from server.smtp.eod import CRLF, EndOfData, has_bare_newline, normalise, unstuff
from server.smtp.listener_state import IN_FLIGHT_MAX, RATE_STEP, RATE_WINDOW, Shared

_END_SLACK: Final = 4  # the part of CR LF . CR LF that may stand in the buffer before the end is certain


class BodyReader:
    """A message whose bytes come; ``last`` once they are ``complete`` means that all of it is there.

    ``client`` is whose bytes they are, as a seat is taken. ``refusal`` is set as soon as the message cannot be taken;
    the rest is then thrown away as it comes, up to another message's size (``exhausted``), so that a sender hears why
    before it is dropped.
    """

    __slots__ = ("_buffer", "_client", "_dropped", "_held", "_notes", "_shared", "complete", "last", "refusal")

    def __init__(self, shared: Shared, client: str, refusal: bytes = b"") -> None:
        self._shared, self._client = shared, client
        self._notes = [(shared.now(), 0)]  # when, and how much had come: the first is a window old, once there is one
        self._buffer: bytes | bytearray = b""  # one packet as it came, or several one after another
        self._held = self._dropped = 0
        self.complete, self.last = False, True
        self.refusal = refusal

    def take(self, data: bytes, at: int) -> int:
        """Take what is the message's from ``data``, which begins at ``at``; returns where the rest begins."""
        raise NotImplementedError

    def message(self, head: tuple[bytes, ...]) -> bytes:
        """``head`` and the whole message, with no newline but CR LF. Empty, and ``refusal`` says why, if refused."""
        raise NotImplementedError

    def _add(self, piece: bytes) -> None:
        buffer = self._buffer
        if not buffer:
            self._buffer = piece
        elif isinstance(buffer, bytes):
            self._buffer = bytearray(buffer)
            self._buffer += piece
        else:
            buffer += piece

    def _account(self) -> bytes:
        """Count what is held; the refusal of more, or nothing."""
        self._hold_bytes(len(self._buffer))
        shared = self._shared
        if not shared.held.fits(self._client, 0):
            return replies.CLIENT_NO_ROOM
        return replies.NO_ROOM if shared.in_flight > IN_FLIGHT_MAX else b""

    def _hold_bytes(self, size: int) -> None:
        grown, self._held = size - self._held, size
        self._shared.in_flight += grown
        if grown > 0:
            self._shared.held.take(self._client, grown)
        elif grown:
            self._shared.held.give_back(self._client, -grown)

    @property
    def exhausted(self) -> bool:
        """More came after the refusal than anyone need listen to."""
        return self._dropped > 2 * self._shared.size

    def too_slow(self, now: float) -> bool:
        """Whether too little came within the last RATE_WINDOW. Called each second."""
        notes, came = self._notes, self._dropped + len(self._buffer)
        while len(notes) > 1 and notes[1][0] <= now - RATE_WINDOW:
            del notes[0]
        since, before = notes[0]
        if now - notes[-1][0] >= RATE_STEP:
            notes.append((now, came))
        elapsed = now - since
        return elapsed > RATE_WINDOW and came - before < elapsed * self._shared.min_rate

    def release(self) -> None:
        """The message is put together, or nobody waits for it."""
        self._hold_bytes(0)
        self._buffer = b""

    def _composed(self, head: tuple[bytes, ...], *, stuffed: bool) -> bytes:
        """``head`` and the buffer; in one copy unless it must be rewritten."""
        buffer = self._buffer
        size, bare = len(buffer), has_bare_newline(buffer)
        if bare and not self._shared.normalise:
            self.refusal = replies.BARE_NEWLINES
            return b""
        if not bare and not stuffed and size <= self._shared.size and (not size or buffer.endswith(CRLF)):
            return b"".join((*head, buffer))
        body = unstuff(bytes(buffer)) if stuffed else bytes(buffer)
        return self._rewritten(normalise(body) if bare else body, head)

    def _rewritten(self, body: bytes, head: tuple[bytes, ...]) -> bytes:
        if len(body) > self._shared.size:
            self.refusal = replies.TOO_BIG
            return b""
        return b"".join((*head, body if not body or body.endswith(CRLF) else body + CRLF))


class DataBody(BodyReader):
    """The bytes behind a DATA: they end at the dot."""

    __slots__ = ("_eod",)

    def __init__(self, shared: Shared, client: str) -> None:
        super().__init__(shared, client)
        self._eod = EndOfData()

    def take(self, data: bytes, at: int) -> int:
        before = len(self._buffer)
        self._add(data[at:] if at else data)
        buffer = self._buffer
        dot = self._eod.find(buffer)
        if dot < 0:
            self._hold()
            return len(data)
        self.complete = True
        if isinstance(buffer, bytes):
            self._buffer = buffer[:dot]
        else:
            del buffer[dot:]
        return at + dot + 3 - before

    def _hold(self) -> None:
        full, limit, size = self._account(), self._shared.size, len(self._buffer)
        if size <= limit and not full and not self.refusal:
            return
        if not self.refusal:
            too_big = size > limit + (limit // 3 if self._eod.stuffed else 0) + _END_SLACK
            self.refusal = replies.TOO_BIG if too_big else full
        if self.refusal:
            self._buffer = bytearray(self._buffer)
            self._dropped += self._eod.drop(self._buffer)
            self._account()

    def message(self, head: tuple[bytes, ...]) -> bytes:
        return b"" if self.refusal else self._composed(head, stuffed=self._eod.stuffed)


class BdatBody(BodyReader):
    """The chunks of BDAT (RFC 3030): their sizes are said beforehand, and their bytes mean nothing but themselves."""

    __slots__ = ("_left", "size")

    def __init__(self, shared: Shared, client: str, refusal: bytes = b"") -> None:
        super().__init__(shared, client, refusal)
        self._left = self.size = 0

    def expect(self, size: int, *, last: bool) -> None:
        """The next ``size`` bytes are a chunk. All chunks together may be as long as a message, and so their sum is
        bounded before a byte of them is kept."""
        self._left = self.size = size
        self.last, self.complete = last, not size
        if not self.refusal and len(self._buffer) + size > self._shared.size:
            self._refuse(replies.TOO_BIG)

    def take(self, data: bytes, at: int) -> int:
        end = min(at + self._left, len(data))
        self._left -= end - at
        self.complete = not self._left
        if self.refusal:
            self._dropped += end - at
            return end
        self._add(data[at:end])
        if not (self.complete and self.last):
            full = self._account()
            if full:
                self._refuse(full)
        return end

    def _refuse(self, reply: bytes) -> None:
        self.refusal = reply
        self._dropped += len(self._buffer)
        self.release()

    def message(self, head: tuple[bytes, ...]) -> bytes:
        return b"" if self.refusal else self._composed(head, stuffed=False)
