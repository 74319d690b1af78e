"""Memory that connections and transfers left behind, given back to the system.

glibc gives memory back by itself only from the end of its heap, where something nearly always lies, so a worker that
held many connections or large bodies once would keep their room for ever. What Python's own arenas keep stays, and is
where the next connections go. Reference cycles wait for the collector, which looks at the oldest generation only when
objects have grown by a quarter: a few cycles that hold much would wait for days. Must not know: what connections are.
"""

import ctypes
import gc
import os
import time
from collections.abc import Callable
from typing import Final

from server.metrics import Counter

GONE: Final = 200  # connections fewer than there were; a look at the heap takes 2 ms
GROWN: Final = 32 << 20  # bytes that a worker may grow by before the collector runs and freed memory is given back
WORTH: Final = 4 << 20  # bytes given back at once that make it worth looking again soon
SOONEST: Final = 5.0  # s between two looks at the heap of a worker that stays large
LONGEST: Final = 60.0
SHARE: Final = 50  # of its own time that the collector leaves to the worker: it may run for one in so many seconds

TRIMS = Counter("tempmail_memory_trims_total", "Times freed memory was given back to the system.")
COLLECTIONS = Counter("tempmail_memory_collections_total", "Times the collector ran because a worker had grown.")

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE


def _trimming() -> Callable[[int], int] | None:
    """malloc_trim(3), which is glibc's alone."""
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return found


class Leftovers:
    """``look`` is told now and then how many connections there are, and looks at the process's size itself."""

    def __init__(self, size: Callable[[], int] = resident, now: Callable[[], float] = time.monotonic) -> None:
        self._size, self._now = size, now
        self._trim = _trimming()
        self._most = 0  # connections since the last time
        self._least = self._last = size()  # bytes: ever, and after the last time
        self._collect_at = self._trim_at = 0.0
        self._pause = SOONEST

    def look(self, connections: float) -> int:
        """The process's size in bytes, after what was to be done."""
        self._most = max(self._most, int(connections))
        size, now = self._size(), self._now()
        self._least, self._last = min(self._least, size), min(self._last, size)
        if size - self._last >= GROWN and now >= self._collect_at:
            self._collect(now)
            return self._give_back(size, now)
        gone, large = self._most - connections >= GONE, size - self._least >= GROWN
        if gone:
            self._most = int(connections)
        return self._give_back(size, now) if gone or (large and now >= self._trim_at) else size

    def _collect(self, now: float) -> None:
        gc.collect()
        COLLECTIONS.add()
        self._collect_at = now + SHARE * (self._now() - now)

    def _give_back(self, before: int, now: float) -> int:
        """What was in use when the worker grew is free only later, so a large one is looked at again."""
        if self._trim is not None:
            self._trim(0)
            TRIMS.add()
        self._last = size = self._size()
        self._pause = SOONEST if before - size >= WORTH else min(2 * self._pause, LONGEST)
        self._trim_at = now + self._pause
        return size
