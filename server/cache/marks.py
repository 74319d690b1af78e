"""Marks: the highest number that was given for each key, in memory that the workers of a host share.

Lives here: a table of numbers that may be forgotten. Must not know: what is numbered.

The table is 8-way set-associative with a hash for each key, as in cache/buckets, but takes no lock: of two that write
one set at once a mark may be lost, or stand under the wrong key until it is written again. Whoever asks must be right,
if slower, with any answer.
"""

import mmap
from typing import Final

_WAYS: Final = 8


class Marks:
    """Make it before the fork. ValueError if ``slots`` is not a power of two of at least 8."""

    __slots__ = ("_map", "_set_mask", "_words")

    def __init__(self, slots: int = 1 << 16) -> None:
        if slots < _WAYS or slots & (slots - 1):
            raise ValueError(f"{slots} slots: must be a power of two, at least {_WAYS}")
        self._set_mask = slots // _WAYS - 1
        self._map = mmap.mmap(-1, slots * 16)
        self._words = memoryview(self._map).cast("q")

    def get(self, key: bytes) -> int:
        """The number last put for ``key``; 0 for one that is not known, or no longer."""
        first, fingerprint = self._place(key)
        known = self._words[first : first + _WAYS].tolist()
        return self._words[first + _WAYS + known.index(fingerprint)] if fingerprint in known else 0

    def put(self, key: bytes, number: int) -> None:
        """``number`` was given; a lower one than before changes nothing. In a full set any other key gives way."""
        first, fingerprint = self._place(key)
        known = self._words[first : first + _WAYS].tolist()
        if fingerprint in known:
            place = first + _WAYS + known.index(fingerprint)
            self._words[place] = max(self._words[place], number)
            return
        way = known.index(0) if 0 in known else (fingerprint >> 48) % _WAYS
        self._words[first + _WAYS + way] = 0  # between the two nobody finds another's number
        self._words[first + way] = fingerprint
        self._words[first + _WAYS + way] = number

    def _place(self, key: bytes) -> tuple[int, int]:
        """Where the key's set begins, and the hash that stands for it there."""
        fingerprint = hash(key) or 1
        return (fingerprint & self._set_mask) * 2 * _WAYS, fingerprint
