"""What has come on a connection ahead of its turn: heads that are not whole, requests that wait.

Lives here: how much of that one connection may have, and that it counts as bytes in flight: the parser keeps all of it
for as long as its client, or the request in front, takes. Must not know: what a head says.
"""

import asyncio
from typing import Final

from server.model.errors import Crowded, Refused
from server.services.transfers import Transfer, Transfers
from server.web.malformed import TOO_LARGE, Connection

HEAD_MAX: Final = 1 << 16  # bytes of one head, to within a piece
PIECE: Final = 1 << 14  # bytes given to the parser at once: what came of a head is known to within so many
_KEPT: Final = 2  # times: as they came, and as fields


class Ahead:
    """Of one connection, whose bytes all pass through it to the parser.

    A head that is not whole is judged by its rate, like a body. Whole requests that wait for the one in front are not:
    their client is not slow. Bytes after the end of a head or body are not counted within the same piece.
    """

    __slots__ = ("_connection", "_head", "_size", "_total", "_transfers", "_transport", "_waiting")

    def __init__(self, connection: Connection, transport: asyncio.Transport, transfers: Transfers) -> None:
        self._connection, self._transport, self._transfers = connection, transport, transfers
        self._head: Transfer | None = None  # the head that is not whole
        self._waiting: Transfer | None = None  # requests that wait for the one in front
        self._size = self._total = 0  # bytes of that head; of all heads that came in several pieces

    def feed(self, data: bytes) -> None:
        """Give ``data`` to the parser. Cuts the connection where its client has no room for it."""
        connection, size = self._connection, len(data)
        for start in range(0, size, PIECE):
            piece = data if size <= PIECE else data[start : start + PIECE]
            ahead, before = connection.is_ahead(), connection.waiting()
            connection.data_received(piece)
            came = connection.waiting() > before
            try:
                self._count(len(piece), grows=ahead and not came and connection.is_ahead(), came=came)
            except (Refused, Crowded):
                self._transport.abort()
            if self._transport.is_closing():
                return

    def _count(self, size: int, *, grows: bool, came: bool) -> None:
        waits = self._connection.waiting() + self._connection.is_busy() > 1
        whole = size + self._size
        if not grows:
            self._end_head()
        elif not self._connection.is_full():
            self._grow_head(size)
        if waits and (came or self._connection.is_full()):
            if self._waiting is None:
                self._waiting = self._transfers.begin(self._peer(), "in", _nothing, self._transport.abort)
                self._waiting.arrived()
            self._waiting.grow(_KEPT * whole)

    def _grow_head(self, size: int) -> None:
        self._size += size
        self._total += size
        if self._size > HEAD_MAX:
            self._refuse()
            return
        if self._head is None:
            self._head = self._transfers.begin(self._peer(), "in", self._moved, self._transport.abort)
        self._head.grow(_KEPT * size)

    def _refuse(self) -> None:
        """Answer 431. With a request in progress the client would take 431 for its answer: cut the connection."""
        if self._connection.waiting() or self._connection.is_busy():
            self._transport.abort()
        else:
            self._transport.write(TOO_LARGE)
            self._transport.close()

    def begun(self) -> None:
        """A request has begun. The requests that still wait hold the rest, in equal parts."""
        if self._waiting is not None:
            left = self._connection.waiting()
            if left:
                self._waiting.hold(-(self._waiting.held // (left + 1)))
            else:
                self._waiting.done()
                self._waiting = None

    def end(self) -> None:
        """The connection is gone, or another's."""
        self._end_head()
        if self._waiting is not None:
            self._waiting.done()
            self._waiting = None

    def _end_head(self) -> None:
        self._size = 0
        if self._head is not None:
            self._head.done()
            self._head = None

    def _moved(self) -> int:
        return self._total

    def _peer(self) -> str:
        """A proxy's connections count as its own: proxies pass a head on when it is whole."""
        peer = self._transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else ""


def _nothing() -> int:
    return 0
