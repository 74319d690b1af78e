"""Identifiers: UUIDv7 (RFC 9562 section 5.7), which sort by the time they were made.

A message's id also carries its sequence number in the low 32 bits of ``rand_b`` (the RFC leaves those to the maker), so
one index over (mailbox, seq) serves look-ups by id too. 42 random bits remain beside the millisecond.
"""

import os
import re
import time
import uuid
from datetime import UTC, datetime
from typing import Final

_SHAPE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_DRAWN: Final = 4000  # random bytes asked of the system at once: the call costs more than all else here
_EACH: Final = 20  # hexadecimal digits, of which an id takes 18 and two bits
_VARIANT: Final = {
    f"{digit:x}": "89ab"[digit & 3] for digit in range(16)
}  # RFC 9562 section 4.1: the upper bits are 10


class _Pool:
    """The system's random bits, drawn in bulk. A forked child draws its own, so that no two processes share any."""

    def __init__(self) -> None:
        self._digits, self._used = "", 0
        os.register_at_fork(after_in_child=self._empty)

    def _empty(self) -> None:
        self._digits, self._used = "", 0

    def take(self) -> str:
        """80 random bits as 20 digits."""
        start = self._used
        if start >= len(self._digits):
            self._digits, start = os.urandom(_DRAWN).hex(), 0
        self._used = start + _EACH
        return self._digits[start : start + _EACH]


_random = _Pool()


def new(seq: int | None = None) -> str:
    """A UUIDv7 in canonical text form; with ``seq`` (< 2**32) its low 32 bits are that number."""
    rand, stamp = _random.take(), f"{time.time_ns() // 1_000_000:012x}"
    head = f"{stamp[:8]}-{stamp[8:]}-7{rand[:3]}-{_VARIANT[rand[3]]}{rand[4:7]}-{rand[7:11]}"
    return head + rand[11:19] if seq is None else with_seq(head, seq)


def heads(count: int) -> list[str]:
    """The first 28 characters of ids that end in sequence numbers (see ``with_seq``), made at once for less."""
    stamp = f"{time.time_ns() // 1_000_000:012x}"
    before, digits = f"{stamp[:8]}-{stamp[8:]}-7", os.urandom(6 * count).hex()
    drawn = [digits[start : start + 12] for start in range(0, 12 * count, 12)]
    return [f"{before}{rand[:3]}-{_VARIANT[rand[3]]}{rand[4:7]}-{rand[7:11]}" for rand in drawn]


def with_seq(head: str, seq: int) -> str:
    """The id that begins with ``head`` and whose low 32 bits are ``seq``."""
    return f"{head}{seq:08x}"


def floor(moment: datetime) -> str:
    """What every id made before ``moment`` is less than, and none made after it."""
    return str(uuid.UUID(int=int(moment.timestamp() * 1000) << 80))


def made_at(made: str) -> datetime:
    """When an id was made, to the millisecond."""
    return datetime.fromtimestamp(int(made[:8] + made[9:13], 16) / 1000, UTC)


def valid(text: str) -> bool:
    """Whether ``text`` could be one of ours: canonical, lower case, version 7."""
    return _SHAPE.fullmatch(text) is not None


def seq_of(message_id: str) -> int:
    """The sequence number inside a message's id (which must be ``valid``)."""
    return int(message_id[-8:], 16)
