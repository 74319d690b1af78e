"""A worker's finished answers: a bounded LRU of bytes, each valid only while its mailbox's generation stands.

Lives here: the LRU and the reading rule. Must not know: what the bytes are, or who may see them (the token is part of
the key, so an answer can only be found by a request that carries the token it was made for).

The rule: take a ``ticket`` before the database is read, hand it back with the bytes. A later look-up compares the
ticket with the shared table, so a write by any worker of the host, begun or done, turns the entry into a miss at once.
"""

import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

from server.cache.generations import Generations
from server.metrics import Counter, Gauge

HITS = Counter("tempmail_cache_hits_total", "Answers found ready.", ("layer",))
MISSES = Counter("tempmail_cache_misses_total", "Answers that had to be made.", ("layer",))
BYTES = Gauge("tempmail_cache_bytes", "Bytes of ready answers held.", ("layer",))

_ENTRY_OVERHEAD = 300  # bytes of Python objects around one entry, measured; counted so that the bound is about memory


class Ticket(NamedTuple):
    """Where a generation stood, and when (time.monotonic), before something was read."""

    slot: int
    snapshot: bytes
    taken: float


class _Entry(NamedTuple):
    ticket: Ticket
    expires: float
    value: "Ready"


class Ready(NamedTuple):
    """A finished answer: its body and its strong ETag (RFC 9110 section 8.8.3), quotes included."""

    body: bytes
    etag: str


class Local:
    """``max_bytes`` bounds the whole; the least recently used go first. ``ttl``, in s, bounds every entry's life."""

    def __init__(self, generations: Generations, max_bytes: int, ttl: float) -> None:
        self._generations, self._max, self._ttl = generations, max_bytes, ttl
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
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
        slot = self._generations.slot(key)
        return Ticket(slot, self._generations.snapshot(slot), time.monotonic())

    def stands(self, ticket: Ticket) -> bool:
        """Whether nothing has been written since ``ticket`` was taken, nor is being written."""
        return self._generations.snapshot(ticket.slot) == ticket.snapshot

    def settled(self, ticket: Ticket) -> bool:
        """Whether no write was in flight when ``ticket`` was taken; only then may what was read be kept."""
        return self._generations.settled(ticket.snapshot)

    def get(self, key: Hashable) -> Ready | None:
        entry = self._entries.get(key)
        if entry is not None:
            if entry.expires > time.monotonic() and self.current(entry.ticket):
                self._entries.move_to_end(key)
                HITS.add(("local",))
                return entry.value
            self._drop(key)
        MISSES.add(("local",))
        return None

    def put(self, key: Hashable, ticket: Ticket, value: Ready, lifetime: float | None = None) -> None:
        """Keep ``value`` for ``lifetime`` seconds at most, unless a write was in flight when the ticket was taken."""
        size = len(value.body) + _ENTRY_OVERHEAD
        if not self.settled(ticket) or size > self._max // 8:
            return
        if key in self._entries:
            self._drop(key)
        expires = ticket.taken + self._ttl if lifetime is None else time.monotonic() + lifetime
        self._entries[key] = _Entry(ticket, expires, value)
        self._bytes += size
        while self._bytes > self._max:
            self._drop(next(iter(self._entries)))
        BYTES.set(self._bytes, ("local",))

    def _drop(self, key: Hashable) -> None:
        self._bytes -= len(self._entries.pop(key).value.body) + _ENTRY_OVERHEAD
