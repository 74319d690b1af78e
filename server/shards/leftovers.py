"""Memory that connections left behind, given back to the system.

glibc gives memory back by itself only from the end of its heap, where something nearly always lies, so a worker that
held many connections once would keep their room for ever. The greater part of a connection is malloc's (uvloop's
transports, buffers); what lies in Python's own arenas stays, and is where the next connections go. Must not know: what
connections are.
"""

import ctypes
from collections.abc import Callable
from typing import Final

from server.metrics import Counter

GONE: Final = 200  # connections fewer than there were; a look at the heap takes 2 ms

TRIMS = Counter("tempmail_memory_trims_total", "Times freed memory was given back, after many connections had gone.")


def _trimming() -> Callable[[int], int] | None:
    """malloc_trim(3), which is glibc's alone."""
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return found


class Leftovers:
    """``look`` is told now and then how many connections there are."""

    def __init__(self) -> None:
        self._trim = _trimming()
        self._most = 0  # since the last time

    def look(self, connections: float) -> None:
        self._most = max(self._most, int(connections))
        if self._most - connections >= GONE:
            self._most = int(connections)
            if self._trim is not None:
                self._trim(0)
                TRIMS.add()
