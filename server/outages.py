"""What a node depends on, and whether it answers: one line when it is lost and one when it is back, for all workers.

Lives here: what is said of an outage, and the memory in which a node's workers agree on it. Must not know: what the
dependencies are for, or how they are asked.

Failures while something is away are counted, and told of once a minute at most.
"""

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Final

from server.log import event

SUMMARY_EVERY: Final = 60.0  # s
_ROW: Final = 512  # bytes of an outage: its head, then a cell for each part of each worker
_HEAD: Final = struct.Struct("=?7xdQd")  # whether it was said to be lost; since when; failures; when to tell of them
_CELLS: Final = 64
_PARTS: Final = 2
_ROWS: Final = 8

_file: Final = os.memfd_create("tempmail-outages", os.MFD_CLOEXEC)  # made before the fork: workers share it
os.ftruncate(_file, _ROW * _ROWS)
_shared: Final = mmap.mmap(_file, _ROW * _ROWS)
_column = 0


def begin(column: int) -> None:
    """This process is the worker with that column; what its predecessor there had lost is forgotten."""
    global _column
    _column = column
    forget(column)


def forget(column: int) -> None:
    """The worker with that column has ended: what it had lost no longer keeps an outage from being over."""
    for outage in _known:
        for part in range(_PARTS):
            _shared[outage.cell(part, column)] = 0


@contextmanager
def _alone() -> Iterator[None]:
    """The kernel gives the lock back when a process dies."""
    fcntl.lockf(_file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.lockf(_file, fcntl.LOCK_UN)


class Outage:
    """One dependency. ``lost`` after a use that failed, ``back`` after one that did not; neither raises or waits.

    ``doubted`` spares the common case a call: ``if outage.doubted: outage.back()``.
    """

    def __init__(self, name: str, meanwhile: str, *, common: bool = False) -> None:
        self._common = common  # what one worker finds back is back for all: no worker has a link of its own to it
        self._name, self._meanwhile, self._at = name, meanwhile, len(_known) * _ROW
        self.doubted = True  # a worker that begins may be the one to find it back
        self._row = 0  # failures in a row
        self._found = 0.0  # when this process last found it back
        _known.append(self)

    def cell(self, part: int, column: int | None = None) -> int:
        """Where a worker marks that it has lost this part; without ``column`` it is this process."""
        return self._at + _CELLS + _PARTS * (_column if column is None else column) + part

    @property
    def said(self) -> bool:
        """Whether the node knows that it is away."""
        return bool(_shared[self._at])

    def lost(self, cause: str, part: int = 0, after: int = 1, asked: float = inf) -> None:
        """It failed. Believed after so many failures in a row. A question that was ``asked`` before this process found
        it back says nothing new: its time has run out only now."""
        if asked < self._found:
            return
        self.doubted = True
        self._row += 1
        if self._row < after:
            return
        now = time.monotonic()
        with _alone():
            said, since, failures, due = _HEAD.unpack_from(_shared, self._at)
            _shared[self.cell(part)] = 1
            tell = said and now >= due
            if not said:
                since, failures, due = now, 0, now + SUMMARY_EVERY
            _HEAD.pack_into(_shared, self._at, True, since, failures + 1, now + SUMMARY_EVERY if tell else due)
        if not said:
            event("warning", f"{self._name} lost; {self._meanwhile}", reason=cause)
        elif tell:
            event("warning", f"{self._name} is still away", reason=cause, seconds=round(now - since), failures=failures)

    def back(self, part: int = 0) -> None:
        """It answered."""
        self.doubted, self._row = False, 0
        if not self.said:
            return
        self._found = time.monotonic()
        with _alone():
            said, since, failures, _ = _HEAD.unpack_from(_shared, self._at)
            if self._common:
                _shared[self._at + _CELLS : self._at + _ROW] = bytes(_ROW - _CELLS)
            _shared[self.cell(part)] = 0
            away = any(_shared[self._at + _CELLS : self._at + _ROW])
            if said and not away:
                _HEAD.pack_into(_shared, self._at, False, 0.0, 0, 0.0)
        if said and not away:
            seconds = round(time.monotonic() - since, 1)
            event("warning", f"{self._name} is back", seconds=seconds, failures=failures)


def explained() -> bool:
    """Whether the log has the reason why something is unavailable: then what fails for it says nothing new."""
    return DATABASE.said or RABBITMQ.said or STORAGE.said


def put_off(what: str, error: Exception) -> None:
    """Work that waits for the database. Of an outage that was told of this says nothing new."""
    event("debug" if DATABASE.said else "warning", what, reason=str(error))


_known: Final[list[Outage]] = []
DATABASE: Final = Outage("database", "mail is answered 451, requests 503")
STORAGE: Final = Outage("storage", "the database answers and stores nothing: mail is answered 451", common=True)
REDIS: Final = Outage("Redis", "readers poll until it is back")
EVENTS: Final = Outage("LISTEN", "readers poll until it is back")
RABBITMQ: Final = Outage("RabbitMQ", "queued mail waits, and new mail is answered 451 where it is queued")
DNS: Final = Outage("DNS", "domains cannot be proved, mail is not authenticated, webhooks wait")
