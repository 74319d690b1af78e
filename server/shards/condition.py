"""What the workers of a node know of each other's condition, in memory shared before the fork.

Lives here: which slots are served, how commits and probes of each worker ended, and the newest findings about the
database. Must not know: how findings are made (readiness.py), or SQL.

Each worker writes its own row, and the supervisor the slots. A reader may meet a row that is half written: it shows a
wrong reason for a second at worst. Findings are written by any worker and have a checksum: a half written page counts
as none.
"""

import mmap
import struct
import time
import zlib
from collections.abc import Mapping
from math import inf
from typing import Final, NamedTuple

import orjson

_ROW: Final = struct.Struct("=ddqddd80s")
_REASON_MAX: Final = 80
_ANSWERED: Final = struct.Struct("=d")
_PAGE: Final = struct.Struct("=IIdd")  # checksum of what follows; length of the JSON; asked, found
_PAGE_SIZE: Final = 4096  # bytes
_FINDING_MAX: Final = 400  # characters of one finding


class Outcomes(NamedTuple):
    """One worker's row. Times are seconds of ``time.monotonic()``; 0 stands for never.

    ``succeeded``, ``failed``: its last commit of mail of either kind. ``failures``: commits in a row that failed.
    ``asked``, ``answered``: its last probe. ``sound``: the answer to the last probe that was committed. ``reason``: of
    the last failure of either kind.
    """

    succeeded: float = 0.0
    failed: float = 0.0
    failures: int = 0
    asked: float = 0.0
    answered: float = 0.0
    sound: float = 0.0
    reason: str = ""


class Findings(NamedTuple):
    """What one worker found for all of the node. Times are seconds of ``time.monotonic()``."""

    asked: float
    found: float
    checks: dict[str, str]


class Condition:
    """Make it before the fork: children share its memory. ``columns``: as of the generations."""

    def __init__(self, slots: int, columns: int) -> None:
        self._vacant = memoryview(mmap.mmap(-1, slots * 8)).cast("d")
        for slot in range(slots):
            self._vacant[slot] = -inf
        self._rows = mmap.mmap(-1, columns * _ROW.size)
        self._columns = columns
        self._database = mmap.mmap(-1, _ANSWERED.size)
        self._page = mmap.mmap(-1, _PAGE_SIZE)

    def serve(self, slot: int, served: bool, now: float) -> None:
        """The supervisor's word on a slot, as often as it looks."""
        if served:
            self._vacant[slot] = 0.0
        elif self._vacant[slot] == 0.0:
            self._vacant[slot] = now

    def vacancies(self, now: float) -> list[float]:
        """For each slot, since how many seconds no worker serves it: 0 where one does, inf where none ever did."""
        return [max(now - since, 0.001) if since else 0.0 for since in self._vacant]

    def begin(self, column: int) -> None:
        """A new worker has the row; its predecessor's last words are no longer of interest."""
        self._write(column, Outcomes())

    def settled(self, column: int, reason: str) -> None:
        """A commit of mail has just ended: well, or for ``reason`` not."""
        if reason:
            self.failed(column, time.monotonic(), reason)
        else:
            self.committed(column, time.monotonic())

    def committed(self, column: int, now: float) -> None:
        """Mail was committed. Called for each batch: 24 bytes are written."""
        struct.pack_into("=ddq", self._rows, column * _ROW.size, now, 0.0, 0)

    def failed(self, column: int, now: float, reason: str) -> None:
        row = self._read(column)
        self._write(column, row._replace(failed=now, failures=row.failures + 1, reason=reason))

    def probed(self, column: int, asked: float, now: float, reason: str) -> None:
        """``reason`` is empty when the probe was committed."""
        row = self._read(column)
        row = row._replace(asked=asked, answered=now)
        self._write(column, row._replace(reason=reason) if reason else row._replace(sound=now))

    def outcomes(self) -> list[Outcomes]:
        return [self._read(column) for column in range(self._columns)]

    @property
    def answered(self) -> float:
        """When the servers that mail needs last answered any worker; 0 for never."""
        moment: float = _ANSWERED.unpack_from(self._database)[0]
        return moment

    def answer(self, now: float) -> None:
        """All servers that mail needs have just answered."""
        _ANSWERED.pack_into(self._database, 0, now)

    def publish(self, asked: float, found: float, checks: Mapping[str, str]) -> None:
        """Share findings with all workers, unless newer ones are there."""
        known = self.findings()
        if known and known.asked > asked:
            return
        text = orjson.dumps({name: finding[:_FINDING_MAX] for name, finding in checks.items()})
        page = _PAGE.pack(0, len(text), asked, found) + text
        if len(page) <= _PAGE_SIZE:
            self._page[: len(page)] = struct.pack("=I", zlib.crc32(page[4:])) + page[4:]

    def findings(self) -> Findings | None:
        """The newest findings of any worker; None where there are none, or a worker is writing them now."""
        page = self._page[:]
        checksum, length, asked, found = _PAGE.unpack_from(page)
        end = _PAGE.size + length
        if not length or end > _PAGE_SIZE or zlib.crc32(page[4:end]) != checksum:
            return None
        return Findings(asked, found, orjson.loads(page[_PAGE.size : end]))

    def _read(self, column: int) -> Outcomes:
        *numbers, reason = _ROW.unpack_from(self._rows, column * _ROW.size)
        return Outcomes._make([*numbers, reason.rstrip(b"\0").decode("utf-8", "replace")])

    def _write(self, column: int, row: Outcomes) -> None:
        _ROW.pack_into(self._rows, column * _ROW.size, *row[:-1], row.reason.encode()[:_REASON_MAX])
