"""Buckets: rate limits that are exact across all workers of a host, in shared memory mapped before the fork.

Lives here: GCRA (the generic cell rate algorithm, ITU-T I.371 annex A): per client one number, the theoretical arrival
time (TAT), the moment at which its bucket is full again. A request moves it one emission interval on; it is refused if
that would put it more than a whole burst ahead of now.
Must not know: who the clients are or what they ask for.

The first byte of a key is its kind, and each kind has a table of its own (``SIZES``): guests whose day is spent take no
room from logins. A table is 8-way set-associative: a key's hash picks a set of eight entries (fingerprint, TAT), 128
bytes, and the whole 64-bit hash is the fingerprint, so two clients do not share an entry. Hashes are salted at each
start, so that a client cannot choose its set. A set with no entry to spare is one of eight clients that all owe
something: then the newcomer takes the place of the one that owes least and its debt too, but for one request. So
whoever fills a table gets no budget back by it, and an honest newcomer is not refused its first request.

The lock is a POSIX record lock on the set's first byte of a memfd: the kernel drops it when its owner dies, however it
dies. It excludes processes, not threads: one thread of a process takes. A worker that is stopped while it holds the
lock must not stop the others: after 0.1 s, far longer than a busy machine keeps a holder from its core, they go on
without it, at worst admitting one request more.
"""

import fcntl
import mmap
import os
import time
from typing import Final, NamedTuple

SIZES: Final = {"m": 1 << 19} | dict.fromkeys("alhnpr", 1 << 17) | dict.fromkeys("kuwx", 1 << 16) | {"": 1 << 16}
"""Entries of each kind's table, 16 bytes each; "" is for all other kinds. Only pages that are used take memory."""

_WAYS: Final = 8
_SET: Final = _WAYS * 16  # bytes: fingerprints and TATs of one set, two cache lines
_NS: Final = 1_000_000_000
_LOCK_PATIENCE: Final = 0.1
_LOCK_RETRY: Final = 50e-6


class Verdict(NamedTuple):
    """The answer to one ``take``; times in seconds from now."""

    allowed: bool
    limit: int
    remaining: int
    reset: float  # until the bucket is full again
    retry_after: float  # until the same take would be allowed; 0 if it was


class Buckets:
    """The tables. Make it before the fork. ``slots``: entries of each table instead of SIZES; ValueError if that is not
    a power of two of at least 8.
    """

    __slots__ = ("_fd", "_map", "_tables", "_words")

    def __init__(self, slots: int | None = None) -> None:
        if slots is not None and (slots < _WAYS or slots & (slots - 1)):
            raise ValueError(f"{slots} slots: must be a power of two, at least {_WAYS}")
        end = 0
        tables: dict[str, tuple[int, int]] = {}  # where a kind's table begins, and the mask that picks a set
        for kind, size in SIZES.items():
            tables[kind] = end, (slots or size) // _WAYS - 1
            end += (slots or size) // _WAYS * _SET
        self._tables = [tables.get(chr(kind), tables[""]) for kind in range(256)]  # by a key's first byte
        self._fd = os.memfd_create("tempmail-buckets")
        os.ftruncate(self._fd, end)
        self._map = mmap.mmap(self._fd, end)
        self._words = memoryview(self._map).cast("q")

    def take(self, key: bytes, *, limit: int, period: float, now: float | None = None, cost: int = 1) -> Verdict:
        """Take ``cost`` tokens from the bucket of ``key``: at most ``limit`` at once, refilled over ``period`` seconds.

        ``now`` is CLOCK_MONOTONIC in seconds, one clock for all processes of a host. A refused take costs nothing; a
        cost of 0 only looks, one of -1 gives a token back; a cost over ``limit`` is never allowed.
        """
        emission = int(period * _NS) // limit
        burst = emission * limit
        fingerprint = hash(key) or 1
        table, mask = self._tables[key[0]]
        start = table + (fingerprint & mask) * _SET
        moment = time.monotonic_ns() if now is None else int(now * _NS)
        locked = self._lock(start)
        try:
            tat = self._advance(start >> 3, fingerprint, moment, emission * cost, burst, emission)
        finally:
            if locked:
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, start)
        debt = tat + emission * cost - moment
        if debt > burst:
            return Verdict(False, limit, (burst - tat + moment) // emission, (tat - moment) / _NS, (debt - burst) / _NS)
        return Verdict(True, limit, (burst - debt) // emission, debt / _NS, 0.0)

    def _advance(self, first: int, fingerprint: int, now: int, increment: int, burst: int, one: int) -> int:
        """Move the client's TAT on if the take fits, and return the TAT as it was, within [now, now + burst]. ``one``
        is the increment of a single request.
        """
        words = self._words
        entries = words[first : first + 2 * _WAYS].tolist()
        fingerprints = entries[:_WAYS]
        known = fingerprint in fingerprints
        if known:
            way = fingerprints.index(fingerprint)
            tat = min(max(entries[_WAYS + way], now), now + burst)
        elif increment < 0:
            return now  # what it took has been forgotten
        else:
            least = min(entries[_WAYS:])
            way, tat = entries.index(least, _WAYS) - _WAYS, now
            if least > now:  # its debt comes with its place
                tat = max(now, min(least, now + burst - (increment or one)))
        if increment and tat + increment - now <= burst:
            # TAT first: a death between the two leaves the client that gives way with one request of another
            words[first + _WAYS + way] = tat + increment
            if not known:
                words[first + way] = fingerprint
        return tat

    def _lock(self, start: int) -> bool:
        """Lock the set; False if its holder did not let go in time."""
        give_up = 0.0
        while True:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, start)
            except (BlockingIOError, PermissionError):  # POSIX lets the kernel say EAGAIN or EACCES
                current = time.monotonic()
                give_up = give_up or current + _LOCK_PATIENCE
                if current > give_up:
                    return False
                time.sleep(_LOCK_RETRY)  # not a spin: the holder may be waiting for this very core
            else:
                return True
