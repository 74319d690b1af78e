"""A worker's finished answers: a bounded store of bytes, each valid only while its mailbox's generation stands.

Lives here: the store and the reading rule. Must not know: what the bytes are, or who may see them (the token is part of
the key, so an answer can only be found by a request that carries the token it was made for).

The rule: take a ``ticket`` before the database is read, hand it back with the bytes. A later look-up compares the
ticket with the shared table, so a write by any worker of the host, begun or done, turns the entry into a miss at once.

An entry that came with a way to ``grow`` is brought up to date instead, where all that happened since is known (a
``Step``): it is as if it had been read right after. It lives no longer for that.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Final, NamedTuple, Protocol

from server.cache.generations import Generations
from server.metrics import Counter, Gauge
from server.model.event import Step
from server.model.message import Stored

HITS = Counter("tempmail_cache_hits_total", "Answers found ready.", ("layer",))
MISSES = Counter("tempmail_cache_misses_total", "Answers that had to be made.", ("layer",))
GROWN = Counter("tempmail_cache_grown_total", "Answers brought up to date without asking the database.")
BYTES = Gauge("tempmail_cache_bytes", "Bytes of ready answers held.", ("layer",))

LAYER: Final = ("local",)
PATIENCE: Final = 0.025  # s that a write under way is waited for, before the database is asked in the midst of it
_LOOK_EVERY: Final = 0.002  # s
UNSEEN_MAX: Final = 20  # messages an answer grows by while nobody looks; then it goes
_ENTRY_OVERHEAD = 1_150  # bytes of Python objects around one entry, measured; counted so that the bound is about memory


class Ticket(NamedTuple):
    """Where a generation stood, and when (time.monotonic), before something was read."""

    row: slice
    snapshot: bytes
    taken: float


class CachedResponse(NamedTuple):
    """A finished answer: its body and its strong ETag (RFC 9110 section 8.8.3), quotes included."""

    body: bytes
    etag: str


class Updater(Protocol):
    """How an answer about a mailbox changes when mail comes."""

    @property
    def mailbox_id(self) -> str: ...

    def grown(self, ready: CachedResponse, came: Sequence[Stored]) -> CachedResponse | None:
        """The next answer, which changes in the same way; None where it cannot be told."""
        ...


class Entry:
    """A kept answer. Ask ``ResponseCache.valid`` before each use; an entry that was dropped is never valid.

    Whoever uses one without ``find`` says so in ``used``, which keeps it longer.
    """

    __slots__ = ("expires", "growth", "ready", "row", "snapshot", "taken", "unseen", "used")

    def __init__(self, ticket: Ticket, expires: float, ready: CachedResponse, growth: Updater | None = None) -> None:
        self.row, self.snapshot, self.taken = ticket
        self.expires, self.ready, self.used = expires, ready, False
        self.growth = growth
        self.unseen: Sequence[Stored] = ()  # what came that ``ready`` does not show yet


_GONE: Final = CachedResponse(b"", "")


class ResponseCache:
    """``max_bytes`` bounds the whole; of the oldest those go that were not used since they were looked at last.
    ``ttl``, in s, bounds every entry's life. ``column`` is the worker's.
    """

    def __init__(self, generations: Generations, max_bytes: int, ttl: float, column: int = 0) -> None:
        self._generations, self._max, self._ttl, self._column = generations, max_bytes, ttl, column
        self._memory = generations.memory
        self._entries: OrderedDict[Hashable, Entry] = OrderedDict()
        self._awaited: dict[str, asyncio.Future[None]] = {}  # by mailbox
        self._growing: dict[str, tuple[Hashable, ...]] = {}  # by mailbox; most have one
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

    def valid(self, kept: Entry, now: float) -> bool:
        """Whether ``kept`` may be used at ``now`` (time.monotonic)."""
        return kept.expires > now and kept.taken >= self._horizon and self._memory[kept.row] == kept.snapshot

    def find(self, key: Hashable) -> Entry | None:
        """What is kept under ``key`` and may be used; uncounted."""
        kept = self._entries.get(key)
        if kept is None:
            return None
        if self.valid(kept, time.monotonic()) and (not kept.unseen or self._grow(key, kept)):
            kept.used = True
            return kept
        if kept.growth is None or kept.expires <= time.monotonic() or self._at_rest(kept.row):
            self._drop(key)
        return None

    def _at_rest(self, row: slice) -> bool:
        return self._generations.settled(self._memory[row])

    def coming(self, key: Hashable) -> asyncio.Future[None] | None:
        """Where a write is under way that may bring what is kept up to date: done when it is worth looking again, in
        PATIENCE at most. Meanwhile the database would be asked by everybody, and no answer could be kept.
        """
        kept = self._entries.get(key)
        if kept is None or kept.growth is None or kept.expires <= time.monotonic() or self._at_rest(kept.row):
            return None
        mailbox_id, loop = kept.growth.mailbox_id, asyncio.get_running_loop()
        future = self._awaited.get(mailbox_id)
        if future is None:
            future = self._awaited[mailbox_id] = loop.create_future()
            loop.call_later(_LOOK_EVERY, self._look, mailbox_id, kept.row, loop.time() + PATIENCE)
        return future

    def _look(self, mailbox_id: str, row: slice, until: float) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() >= until or self._at_rest(row):
            self._end_waiting(mailbox_id)
        elif mailbox_id in self._awaited:
            loop.call_later(_LOOK_EVERY, self._look, mailbox_id, row, until)

    def _end_waiting(self, mailbox_id: str) -> None:
        future = self._awaited.pop(mailbox_id, None)
        if future is not None and not future.done():
            future.set_result(None)

    def follow(self, step: Step) -> None:
        """Bring up to date what is kept of the mailbox as it was before the step; what it now shows is made when
        somebody looks."""
        held = False
        for key in self._growing.get(step.mailbox_id, ()):
            kept, now = self._entries[key], time.monotonic()
            if kept.snapshot == step.before and self._memory[kept.row] == step.after and kept.expires > now:
                if len(kept.unseen) + len(step.rows) <= UNSEEN_MAX:
                    self._succeed(key, kept, step)
                    held = True
                    continue
            elif self.valid(kept, now):  # it was read since
                held = True
                continue
            self._drop(key)
        if not held:
            self._generations.follow(step.slot, self._column, False)
        self._end_waiting(step.mailbox_id)

    def _succeed(self, key: Hashable, kept: Entry, step: Step) -> None:
        """Another object, so that whoever holds on to the old one looks again."""
        ticket = Ticket(kept.row, step.after, kept.taken)
        successor = self._entries[key] = Entry(ticket, kept.expires, kept.ready, kept.growth)
        successor.used, successor.unseen = kept.used, (*kept.unseen, *step.rows)
        kept.expires, kept.ready = 0.0, _GONE

    def _grow(self, key: Hashable, kept: Entry) -> bool:
        """Whether what came could be joined to the answer."""
        assert kept.growth is not None
        grown = kept.growth.grown(kept.ready, kept.unseen)
        if grown is None:
            return False
        self._bytes += len(grown.body) - len(kept.ready.body)
        kept.ready, kept.unseen = grown, ()
        GROWN.add()
        return True

    def get(self, key: Hashable) -> CachedResponse | None:
        """The answer kept under ``key``, counted as a hit or a miss."""
        kept = self.find(key)
        if kept is None:
            MISSES.add(LAYER)
            return None
        HITS.add(LAYER)
        return kept.ready

    def put(
        self,
        key: Hashable,
        ticket: Ticket,
        value: CachedResponse,
        lifetime: float | None = None,
        growth: Updater | None = None,
    ) -> None:
        """Keep ``value`` for ``lifetime`` seconds at most, unless a write was in flight when the ticket was taken."""
        size = len(value.body) + _ENTRY_OVERHEAD
        if not self.settled(ticket) or size > self._max // 8:
            return
        if key in self._entries:
            self._drop(key)
        expires = ticket.taken + self._ttl
        if lifetime is not None:
            expires = min(expires, time.monotonic() + lifetime)
        self._entries[key] = Entry(ticket, expires, value, growth)
        if growth is not None:
            self._growing[growth.mailbox_id] = (*self._growing.get(growth.mailbox_id, ()), key)
            self._generations.follow(self._generations.slot_of(ticket.row), self._column, True)
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
        if kept.growth is not None:
            others = tuple([other for other in self._growing.pop(kept.growth.mailbox_id) if other != key])
            if others:
                self._growing[kept.growth.mailbox_id] = others
        kept.expires, kept.ready = 0.0, _GONE  # also for whoever holds on to it
