"""Identifiers: UUIDv7 (RFC 9562 section 5.7), which sort by the time they were made.

A message's id also carries its sequence number in the low 32 bits of ``rand_b`` (the RFC leaves those to the maker), so
one index over (mailbox, seq) serves look-ups by id too. 42 random bits remain beside the millisecond.
"""

import os
import re
import uuid
from datetime import UTC, datetime
from typing import Final

from server import clock

_SHAPE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_AT_ONCE: Final = 200  # ids' random parts made in one go: asking the system for bits costs more than all else here
_BYTES: Final = 10  # of random bits for one id, which takes 74 of them
_VARIANT: Final = {
    f"{digit:x}": "89ab"[digit & 3] for digit in range(16)
}  # RFC 9562 section 4.1: the upper bits are 10


class _Pool:
    """Random parts of ids, made in bulk. A forked child makes its own, so that no two processes share any."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        os.register_at_fork(after_in_child=self._parts.clear)

    def take(self) -> str:
        """What follows the time in an id: version, variant and 74 random bits."""
        if not self._parts:
            digits = os.urandom(_BYTES * _AT_ONCE).hex()
            drawn = [digits[start : start + 2 * _BYTES] for start in range(0, len(digits), 2 * _BYTES)]
            self._parts += [f"-7{rand[:3]}-{_VARIANT[rand[3]]}{rand[4:7]}-{rand[7:19]}" for rand in drawn]
        return self._parts.pop()


_random = _Pool()


def new(seq: int | None = None) -> str:
    """A UUIDv7 in canonical text form; with ``seq`` (< 2**32) its low 32 bits are that number."""
    stamp, rand = f"{int(clock.wall() * 1000):012x}", _random.take()
    made = f"{stamp[:8]}-{stamp[8:]}{rand}"
    return made if seq is None else with_seq(made[:-8], seq)


def several(count: int) -> list[str]:
    """As many ids, made at once for less."""
    stamp, take = f"{int(clock.wall() * 1000):012x}", _random.take
    before = f"{stamp[:8]}-{stamp[8:]}"
    return [before + take() for _ in range(count)]


def heads(count: int) -> list[str]:
    """The first 28 characters of ids that end in sequence numbers (see ``with_seq``), made at once for less."""
    return [made[:-8] for made in several(count)]


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
