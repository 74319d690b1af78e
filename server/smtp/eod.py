"""Where a DATA ends and what its bytes mean (RFC 5321 sections 4.1.1.4 and 4.5.2).

Lives here: the end-of-data finder, dot-unstuffing and the treatment of bare newlines. Must not know: sessions, replies.

The end is exactly CR LF . CR LF and nothing that resembles it: whoever takes ``LF . LF`` for an end lets the body of
one message smuggle in another. Every search is one pass in C over bytes not seen before, so no body makes it dear.
"""

import io
from typing import Final

CRLF: Final = b"\r\n"
END: Final = b"\r\n.\r\n"

_LINE_DOT: Final = b"\r\n."
_CLEAN: Final = (None, "\r\n")


class EndOfData:
    """Finds the dot that ends one DATA in a buffer that grows at its end; the buffer's first byte begins the message.

    ``stuffed`` tells, once the end is found, whether any line began with a dot.
    """

    __slots__ = ("_at", "stuffed")

    def __init__(self) -> None:
        self._at = 0  # nothing before this can be the end's dot
        self.stuffed = False

    def find(self, buffer: bytes | bytearray) -> int:
        """The index of the end's dot, or -1 as long as it has not come.

        The message is ``buffer[:dot]`` (its last line's CR LF included); what the client sent next begins at ``dot +
        3``.
        """
        if self.stuffed:
            return self._search(buffer)
        at = self._at
        dot = buffer.find(b".", at)  # memchr: many a packet, most of base64, has none
        if dot > 0:
            line = buffer.find(_LINE_DOT, at - 2 if at > 2 else 0)
            dot = line + 2 if line >= 0 else -1
        if dot < 0:
            self._at = len(buffer)
            return -1
        return self._judge(buffer, dot)

    def drop(self, buffer: bytearray) -> int:
        """Throw away what has come so far, all but a possible beginning of the end; returns how many bytes."""
        dropped = max(0, len(buffer) - len(END) + 1)
        if not dropped:
            return 0
        del buffer[:dropped]
        self._at, self.stuffed = 0, True  # the buffer no longer begins at a line: only the whole mark may match
        return dropped

    def _judge(self, buffer: bytes | bytearray, dot: int) -> int:
        """A line begins with this dot: it is the end, or it is stuffed, or the bytes that tell have not come."""
        following = buffer[dot + 1 : dot + 3]
        if following == CRLF:
            return dot
        if len(following) < 2 and CRLF.startswith(following):
            self._at = dot
            return -1
        self._at, self.stuffed = dot + 1, True
        return self._search(buffer)

    def _search(self, buffer: bytes | bytearray) -> int:
        found = buffer.find(END, self._at)
        if found < 0:
            self._at = max(self._at, len(buffer) - len(END) + 1)
            return -1
        return found + 2


def unstuff(body: bytes) -> bytes:
    """Take one dot from each line that begins with one (RFC 5321 section 4.5.2). Only CR LF begins a line."""
    if body.startswith(b"."):
        body = body[1:]
    return body.replace(b"\r\n.", b"\r\n")


def has_bare_newline(body: bytes | bytearray) -> bool:
    """Whether a CR without its LF, or an LF without its CR, stands in ``body``.

    The standard library's newline decoder notes which kinds it saw in one pass in C: a third of the cost of counting.
    """
    decoder = io.IncrementalNewlineDecoder(None, translate=False)
    decoder.decode(str(body, "latin-1"), final=True)
    return decoder.newlines not in _CLEAN


def normalise(body: bytes) -> bytes:
    """Make every bare CR and bare LF a CR LF, so that no later reader can see other lines than we did."""
    return body.replace(CRLF, b"\n").replace(b"\r", b"\n").replace(b"\n", CRLF)
