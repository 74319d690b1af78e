"""Buckets: rate limits that are exact across all workers of a host, in shared memory mapped before the fork.

Lives here: GCRA (the generic cell rate algorithm, ITU-T I.371 annex A): per client one number, the theoretical arrival
time (TAT), the moment at which its bucket is full again. A request moves it one emission interval on; it is refused if
that would put it more than a whole burst ahead of now.
Must not know: who the clients are or what they ask for.

The table is 4-way set-associative: a key's hash picks a set of four entries (fingerprint, TAT), 64 bytes, and the whole
64-bit hash is the fingerprint, so two clients do not share an entry. When a set is full the entry with the oldest TAT
gives way: mostly one in the past, whose bucket is full again and who loses nothing; if all four are busy, the one that
owes least is forgiven.

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

_WAYS: Final = 4
_SET: Final = _WAYS * 16  # bytes: fingerprints and TATs of one set, one cache line
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
    """The table. Make it before the fork. ValueError if ``slots`` is not a power of two of at least 4."""

    __slots__ = ("_fd", "_map", "_set_mask", "_words")

    def __init__(self, slots: int = 1 << 16) -> None:
        if slots < _WAYS or slots & (slots - 1):
            raise ValueError(f"{slots} slots: must be a power of two, at least {_WAYS}")
        sets = slots // _WAYS
        self._set_mask = sets - 1
        self._fd = os.memfd_create("tempmail-buckets")
        os.ftruncate(self._fd, sets * _SET)
        self._map = mmap.mmap(self._fd, sets * _SET)
        self._words = memoryview(self._map).cast("q")

    def take(self, key: bytes, *, limit: int, period: float, now: float | None = None, cost: int = 1) -> Verdict:
        """Take ``cost`` tokens from the bucket of ``key``: at most ``limit`` at once, refilled over ``period`` seconds.

        ``now`` is CLOCK_MONOTONIC in seconds, one clock for all processes of a host. A refused take costs nothing; a
        cost of 0 only looks, one of -1 gives a token back; a cost over ``limit`` is never allowed.
        """
        emission = int(period * _NS) // limit
        burst = emission * limit
        fingerprint = hash(key) or 1
        start = (fingerprint & self._set_mask) * _SET
        moment = time.monotonic_ns() if now is None else int(now * _NS)
        locked = self._lock(start)
        try:
            tat = self._advance(start >> 3, fingerprint, moment, emission * cost, burst)
        finally:
            if locked:
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, start)
        debt = tat + emission * cost - moment
        if debt > burst:
            return Verdict(False, limit, (burst - tat + moment) // emission, (tat - moment) / _NS, (debt - burst) / _NS)
        return Verdict(True, limit, (burst - debt) // emission, debt / _NS, 0.0)

    def _advance(self, first: int, fingerprint: int, now: int, increment: int, burst: int) -> int:
        """Move the client's TAT on if the take fits, and return the TAT as it was, within [now, now + burst]."""
        words = self._words
        entries = words[first : first + 2 * _WAYS].tolist()
        fingerprints = entries[:_WAYS]
        known = fingerprint in fingerprints
        if known:
            way = fingerprints.index(fingerprint)
            tat = min(max(entries[_WAYS + way], now), now + burst)
        else:
            way, tat = entries.index(min(entries[_WAYS:]), _WAYS) - _WAYS, now
        if increment and tat + increment - now <= burst:
            # TAT first: a death between the two leaves the evicted client, who owed least, with one request of another
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
