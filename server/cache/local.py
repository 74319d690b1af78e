"""A worker's finished answers: a bounded store of bytes, each valid only while its mailbox's generation stands.

Lives here: the store and the reading rule. Must not know: what the bytes are, or who may see them (the token is part of
the key, so an answer can only be found by a request that carries the token it was made for).

The rule: take a ``ticket`` before the database is read, hand it back with the bytes. A later look-up compares the
ticket with the shared table, so a write by any worker of the host, begun or done, turns the entry into a miss at once.
"""

import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, NamedTuple

from server.cache.generations import Generations
from server.metrics import Counter, Gauge

HITS = Counter("tempmail_cache_hits_total", "Answers found ready.", ("layer",))
MISSES = Counter("tempmail_cache_misses_total", "Answers that had to be made.", ("layer",))
BYTES = Gauge("tempmail_cache_bytes", "Bytes of ready answers held.", ("layer",))

LAYER: Final = ("local",)
_ENTRY_OVERHEAD = 900  # bytes of Python objects around one entry, measured; counted so that the bound is about memory


class Ticket(NamedTuple):
    """Where a generation stood, and when (time.monotonic), before something was read."""

    row: slice
    snapshot: bytes
    taken: float


class Ready(NamedTuple):
    """A finished answer: its body and its strong ETag (RFC 9110 section 8.8.3), quotes included."""

    body: bytes
    etag: str


class Kept:
    """A kept answer. Whoever holds on to one asks ``Local.valid`` before each use; one that was dropped never is.

    Whoever uses one without ``find`` says so in ``used``, which keeps it longer.
    """

    __slots__ = ("expires", "ready", "row", "snapshot", "taken", "used")

    def __init__(self, ticket: Ticket, expires: float, ready: Ready) -> None:
        self.row, self.snapshot, self.taken = ticket
        self.expires, self.ready, self.used = expires, ready, False


_GONE: Final = Ready(b"", "")


class Local:
    """``max_bytes`` bounds the whole; of the oldest those go that were not used since they were looked at last.
    ``ttl``, in s, bounds every entry's life.
    """

    def __init__(self, generations: Generations, max_bytes: int, ttl: float) -> None:
        self._generations, self._max, self._ttl = generations, max_bytes, ttl
        self._memory = generations.memory
        self._entries: OrderedDict[Hashable, Kept] = OrderedDict()
        self._bytes = 0
        self._horizon = 0.0

    def forget_older(self, seconds: float) -> None:
        """Use nothing read more than ``seconds`` ago: other hosts may have written without our hearing of it."""
        self._horizon = max(self._horizon, time.monotonic() - seconds)

    def current(self, ticket: Ticket) -> bool:
        """Whether what was read after ``ticket`` was taken may still be used: here and as far as other hosts go."""
        return max(self._horizon, time.monotonic() - self._ttl) <= ticket.taken and self.stands(ticket)

    def ticket(self, key: bytes) -> Ticket:
        """Where ``key``'s generation stands now; take it before reading the database."""
        row = self._generations.row(self._generations.slot(key))
        return Ticket(row, self._memory[row], time.monotonic())

    def stands(self, ticket: Ticket) -> bool:
        """Whether nothing has been written since ``ticket`` was taken, nor is being written."""
        return self._memory[ticket[0]] == ticket[1]

    def settled(self, ticket: Ticket) -> bool:
        """Whether no write was in flight when ``ticket`` was taken; only then may what was read be kept."""
        return self._generations.settled(ticket.snapshot)

    def valid(self, kept: Kept, now: float) -> bool:
        """Whether ``kept`` may be used at ``now`` (time.monotonic)."""
        return kept.expires > now and kept.taken >= self._horizon and self._memory[kept.row] == kept.snapshot

    def find(self, key: Hashable) -> Kept | None:
        """What is kept under ``key`` and may be used; uncounted."""
        kept = self._entries.get(key)
        if kept is None:
            return None
        if self.valid(kept, time.monotonic()):
            kept.used = True
            return kept
        self._drop(key)
        return None

    def get(self, key: Hashable) -> Ready | None:
        """The answer kept under ``key``, counted as a hit or a miss."""
        kept = self.find(key)
        if kept is None:
            MISSES.add(LAYER)
            return None
        HITS.add(LAYER)
        return kept.ready

    def put(self, key: Hashable, ticket: Ticket, value: Ready, lifetime: float | None = None) -> None:
        """Keep ``value`` for ``lifetime`` seconds at most, unless a write was in flight when the ticket was taken."""
        size = len(value.body) + _ENTRY_OVERHEAD
        if not self.settled(ticket) or size > self._max // 8:
            return
        if key in self._entries:
            self._drop(key)
        expires = ticket.taken + self._ttl
        if lifetime is not None:
            expires = min(expires, time.monotonic() + lifetime)
        self._entries[key] = Kept(ticket, expires, value)
        self._bytes += size
        while self._bytes > self._max:
            self._make_room()
        BYTES.set(self._bytes, LAYER)

    def _make_room(self) -> None:
        """Drop the oldest, unless it was used: then it counts as new, once."""
        key, kept = next(iter(self._entries.items()))
        if kept.used:
            kept.used = False
            self._entries.move_to_end(key)
        else:
            self._drop(key)

    def _drop(self, key: Hashable) -> None:
        kept = self._entries.pop(key)
        self._bytes -= len(kept.ready.body) + _ENTRY_OVERHEAD
        kept.expires, kept.ready = 0.0, _GONE  # also for whoever holds on to it
