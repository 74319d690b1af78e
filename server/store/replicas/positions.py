"""How far each replica has come, in memory that the workers of a host share: one of them measures, all choose by it.

Lives here: the table, and the lock that makes one worker its only writer. Must not know: SQL, connections, or what is
read.
"""

import fcntl
import mmap
import os
import time
from typing import Final, NamedTuple

MAX_LAG: Final = 2_000_000_000  # ns; a replica whose state is older is left out

_CELL: Final = 8
_ROW: Final = 4  # cells


class Position(NamedTuple):
    """What is known of a replica; all zero when nothing is.

    ``as_of``: what was committed before this moment (time.monotonic_ns) it shows. ``replayed``: the WAL position that
    this rests on, in bytes. ``asked``: when the replica was asked for its own. ``server``: when the server was started
    that answered, which tells it from others behind the same name.
    """

    as_of: int
    replayed: int
    asked: int
    server: int


class Positions:
    """Make it before the fork: children share its memory."""

    def __init__(self, replicas: int) -> None:
        self.replicas = replicas
        self._map = mmap.mmap(-1, max(replicas, 1) * _ROW * _CELL)
        self._cells = memoryview(self._map).cast("q")
        self._lock = os.memfd_create("standings", os.MFD_CLOEXEC)

    def take(self) -> bool:
        """Become the one process that writes, unless another is; the kernel lets go when it ends, however it ends."""
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def drop(self) -> None:
        """Let another process write."""
        fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def read(self, replica: int) -> Position:
        """``as_of`` is read first and written last: what else is read with it is as new or newer, never older."""
        start = replica * _ROW
        as_of = self._cells[start]
        return Position(as_of, self._cells[start + 1], self._cells[start + 2], self._cells[start + 3])

    def write(self, replica: int, standing: Position) -> None:
        start = replica * _ROW
        if self._cells[start + 3] != standing.server:
            self._cells[start] = 0
        self._cells[start + 3] = standing.server
        self._cells[start + 2] = standing.asked
        self._cells[start + 1] = standing.replayed
        self._cells[start] = standing.as_of

    def left_out(self) -> list[int]:
        """Those that are not to be read from, by number."""
        oldest = time.monotonic_ns() - MAX_LAG
        return [replica for replica in range(self.replicas) if self._cells[replica * _ROW] < oldest]

    def distrust(self, replica: int) -> None:
        """It is to be read from no more until it is measured again."""
        self._cells[replica * _ROW] = 0
