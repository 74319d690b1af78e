"""New mail, whole, and the ends of rights to the other workers of this host, over socket pairs made before the fork.

Lives here: the pairs, one for each column, a table of what each worker's readers watch, and one worker's hand on them.
Must not know: who reads the mail.

A worker marks a mailbox before it asks the store where the mailbox stands, and mail is told after its commit: so what
is not told, because the mark was not there yet, is found in the store. Where telling fails (a full socket, a row too
big) the teller knows, and the hint on the bus makes it good; whoever was told finds nothing lacking in it. One socket
brings a worker all it is told, in the order in which it happened: the end of a right comes before mail sent after it.
"""

import asyncio
import mmap
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

import msgspec

from server.metrics import Counter
from server.model.event import Hint, Kind, Step
from server.model.message import Stored

RECORD_MAX: Final = 32 * 1024  # bytes sent at once; a row that takes more is left to its hint
_HINTS: Final = 200  # in one record
_RIGHTS: Final = (Kind.EXPIRED, Kind.ADDRESS, Kind.ACCOUNT)
_READS: Final = 64  # records taken in one turn of the loop
_SLOTS: Final = 1 << 18  # of mailboxes, by hash; two in one slot cost a record that nobody there wants
_MANY: Final = 255  # a slot that counted so far stays marked

TOLD = Counter("tempmail_neighbours_told_total", "Records of new mail sent to other workers of the host.")
LOST = Counter(
    "tempmail_neighbours_lost_total", "Records that a worker's socket had no room for; hints made them good."
)

_T = TypeVar("_T", Stored, Step)

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[list[Stored], list[Hint], list[Step]]).decode


class SocketPairs:
    """The socket pairs of all columns, and who listens to what: for each slot a count of each column's mailboxes, for
    each column whether it has any. Make it before the fork, after which all workers hash alike.
    """

    def __init__(self, columns: int) -> None:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(columns)]
        self.ends = tuple(near for near, _ in pairs)
        self.ways = tuple(far for _, far in pairs)
        for sock in self.ends + self.ways:
            sock.setblocking(False)
        self.columns = columns
        self.listening = mmap.mmap(-1, columns)
        self.marks = mmap.mmap(-1, columns * _SLOTS)


class LocalBus:
    """The hand of the worker that owns ``column``: ``fed`` gets what other workers have committed, ``followed`` how
    that changed what is kept here, ``hinted`` what else they tell.
    """

    def __init__(
        self,
        lines: SocketPairs,
        column: int,
        fed: Callable[[Sequence[Stored]], None],
        hinted: Callable[[Sequence[Hint]], None],
        followed: Callable[[Sequence[Step]], None],
    ) -> None:
        self._lines, self._column, self._fed, self._hinted = lines, column, fed, hinted
        self._followed = followed
        self._end = lines.ends[column]
        self._space = bytearray(2 * RECORD_MAX)
        self._watching = 0
        self._forget_all()  # a predecessor's marks may still stand

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._end, self._hear)

    def _forget_all(self) -> None:
        self._lines.listening[self._column] = False
        self._lines.marks[self._column :: self._lines.columns] = bytes(_SLOTS)

    def attend(self, mailbox_id: str, wanted: bool) -> None:
        """This worker has readers of the mailbox from now on, or none any more; only ever said when that changes."""
        cell = hash(mailbox_id) % _SLOTS * self._lines.columns + self._column
        count = self._lines.marks[cell]
        if count < _MANY:
            self._lines.marks[cell] = count + (1 if wanted else -1)
        self._watching += 1 if wanted else -1
        self._lines.listening[self._column] = self._watching > 0

    def watched(self, mailbox_id: str) -> bool:
        """Whether another worker has readers of it, perhaps."""
        return bool(self._readers(mailbox_id))

    def _readers(self, mailbox_id: str) -> list[int]:
        start = hash(mailbox_id) % _SLOTS * self._lines.columns
        cells = self._lines.marks[start : start + self._lines.columns]
        return [n for n, count in enumerate(cells) if count and n != self._column]

    def _others(self) -> list[int]:
        return [n for n, heard in enumerate(self._lines.listening[:]) if heard and n != self._column]

    def feed(self, rows: Sequence[Stored]) -> bool:
        """Send each of ``rows`` to every other worker that has readers of it; False unless all could be told. Returns
        at once and never fails.
        """
        groups: dict[tuple[int, ...], list[Stored]] = {}
        for row in rows:
            groups.setdefault(tuple(self._readers(row.mailbox_id)), []).append(row)
        groups.pop((), None)
        lost = LOST.values[()]
        for columns, wanted in groups.items():
            for record in _records(wanted, lambda some: (some, (), ())):
                self._send(record, columns)
        return LOST.values[()] == lost

    def tell(self, hints: Sequence[Hint]) -> None:
        """The same for hints that a right may have ended; all others can wait for the bus."""
        telling = [hint for hint in hints if hint.kind in _RIGHTS]
        others = self._others() if telling else ()
        if others:
            for start in range(0, len(telling), _HINTS):
                self._send(_encode(((), telling[start : start + _HINTS], ())), others)

    def follow(self, column: int, steps: Sequence[Step]) -> None:
        """Send ``steps`` to one other worker. Returns at once and never fails; who is not told reads again."""
        for record in _records(steps, lambda some: ((), (), some)):
            self._send(record, (column,))

    def _send(self, record: bytes, columns: Sequence[int]) -> None:
        for column in columns:
            try:
                self._lines.ways[column].send(record)
                TOLD.add()
            except OSError:  # full, or its worker is on its way out
                LOST.add()

    def _hear(self) -> None:
        for _ in range(_READS):
            try:
                size = self._end.recv_into(self._space)
            except OSError:  # all is read
                return
            rows, hints, steps = _decode(memoryview(self._space)[:size])
            if steps:
                self._followed(steps)
            if rows:
                self._fed(rows)
            if hints:
                self._hinted(hints)

    def close(self) -> None:
        self._forget_all()
        asyncio.get_running_loop().remove_reader(self._end)


def _records(told: Sequence[_T], framed: Callable[[Sequence[_T]], object]) -> Iterator[bytes]:
    """What is told in as few records as its size allows, in its order."""
    record = _encode(framed(told))
    if len(record) <= RECORD_MAX:
        yield record
    elif len(told) > 1:
        middle = len(told) // 2
        yield from _records(told[:middle], framed)
        yield from _records(told[middle:], framed)
    else:
        LOST.add()
