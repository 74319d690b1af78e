"""One DATA while its bytes come in: bounded in size, memory and time, and put together at its end.

Must not know: verbs, replies beyond the refusals of a message, or who asked for it.
"""

from typing import Final

from server.smtp import replies
from server.smtp.eod import CRLF, EndOfData, has_bare_newline, normalise, unstuff
from server.smtp.shared import IN_FLIGHT_MAX, RATE_GRACE, Shared

_END_SLACK: Final = 4  # the part of CR LF . CR LF that may stand in the buffer before the end is certain


class Incoming:
    """The buffer stays the session's: it begins with the message's first byte and grows at its end.

    ``refusal`` is set as soon as the message cannot be taken; the rest is then thrown away as it comes, up to another
    message's size (``exhausted``), so that a sender hears why before it is dropped.
    """

    __slots__ = ("_dropped", "_eod", "_held", "_shared", "_since", "refusal")

    def __init__(self, shared: Shared, now: float) -> None:
        self._shared, self._since = shared, now
        self._eod = EndOfData()
        self._held = self._dropped = 0
        self.refusal = b""

    def find_end(self, buffer: bytearray) -> int:
        """The index of the end's dot or -1; what has come is counted, and dropped where it is too much."""
        dot = self._eod.find(buffer)
        if dot < 0:
            self._hold(buffer)
        return dot

    def _hold(self, buffer: bytearray) -> None:
        size = len(buffer)
        self._account(size)
        limit = self._shared.size
        if not self.refusal:
            if size > limit + (limit // 3 if self._eod.stuffed else 0) + _END_SLACK:
                self.refusal = replies.TOO_BIG
            elif self._shared.in_flight > IN_FLIGHT_MAX:
                self.refusal = replies.NO_ROOM
        if self.refusal:
            self._dropped += self._eod.drop(buffer)
            self._account(len(buffer))

    def _account(self, size: int) -> None:
        self._shared.in_flight += size - self._held
        self._held = size

    @property
    def exhausted(self) -> bool:
        """More came after the refusal than anyone need listen to."""
        return self._dropped > 2 * self._shared.size

    def too_slow(self, now: float, buffered: int) -> bool:
        elapsed = now - self._since
        return elapsed > RATE_GRACE and self._dropped + buffered < elapsed * self._shared.min_rate

    def release(self) -> None:
        """The message left the buffer, or the session did."""
        self._account(0)

    def message(self, buffer: bytearray, dot: int, head: tuple[bytes, ...]) -> bytes:
        """``head`` and the message: unstuffed, with no newline but CR LF. Empty, and ``refusal`` says why, if
        refused.
        """
        if self.refusal:
            return b""
        bare = has_bare_newline(buffer, dot)
        if bare and not self._shared.normalise:
            self.refusal = replies.BARE_NEWLINES
            return b""
        with memoryview(buffer) as view, view[:dot] as wire:
            if not bare and not self._eod.stuffed and dot <= self._shared.size:
                return b"".join((*head, wire))
            body = unstuff(bytes(wire))
        return self._rewritten(normalise(body) if bare else body, head)

    def _rewritten(self, body: bytes, head: tuple[bytes, ...]) -> bytes:
        if len(body) > self._shared.size:
            self.refusal = replies.TOO_BIG
            return b""
        return b"".join((*head, body if not body or body.endswith(CRLF) else body + CRLF))
