"""Places: how many requests of one account run at once, exact across all workers of a host, with no table to clean up.

Lives here: taking and giving back one of an account's places. Must not know: whose they are or how many there should
be.

A place is one byte of a memfd's address space, held as a POSIX record lock: the kernel sees who holds it, and lets go
of it when the holder dies, however it dies. Nothing is ever written, so the file stays empty. Record locks exclude
processes, so a process remembers its own. An account's places begin at an offset made of its hash; two accounts meet
there once in 2**52.
"""

import fcntl
import os
from typing import Final

MOST: Final = 1 << 10  # places of one account
_OFFSET_MASK: Final = (1 << 62) - MOST


class SharedSemaphore:
    """Make it before the fork. One thread of a process takes and gives back."""

    __slots__ = ("_fd", "_mine")

    def __init__(self) -> None:
        self._fd = os.memfd_create("tempmail-places")
        self._mine: set[int] = set()

    def take(self, key: bytes, limit: int) -> int | None:
        """A free place of ``key``'s first ``limit`` (at most MOST), or None when all are taken. Costs one system call
        for each that another process holds.
        """
        first = (hash(key) * MOST) & _OFFSET_MASK
        for place in range(first, first + min(limit, MOST)):
            if place not in self._mine and self._lock(place):
                self._mine.add(place)
                return place
        return None

    def give_back(self, place: int) -> None:
        """KeyError for a place that this process does not hold."""
        self._mine.remove(place)
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, place)

    def _lock(self, place: int) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):  # POSIX lets the kernel say EAGAIN or EACCES
            return False
        return True
