"""Identifiers: UUIDv7 (RFC 9562 section 5.7), which sort by the time they were made.

A message's id also carries its sequence number in the low 32 bits of ``rand_b`` (the RFC leaves those to the maker), so
one index over (mailbox, seq) serves look-ups by id too. 42 random bits remain beside the millisecond.
"""

import re
import secrets
import time
import uuid
from datetime import datetime

_SHAPE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def new(seq: int | None = None) -> str:
    """A UUIDv7 in canonical text form; with ``seq`` (< 2**32) its low 32 bits are that number."""
    rand = secrets.randbits(74)
    if seq is not None:
        rand = rand >> 32 << 32 | seq
    value = (time.time_ns() // 1_000_000) << 80 | 7 << 76 | (rand >> 62) << 64 | 2 << 62 | rand & (1 << 62) - 1
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def floor(moment: datetime) -> str:
    """What every id made before ``moment`` is less than, and none made after it."""
    return str(uuid.UUID(int=int(moment.timestamp() * 1000) << 80))


def valid(text: str) -> bool:
    """Whether ``text`` could be one of ours: canonical, lower case, version 7."""
    return _SHAPE.fullmatch(text) is not None


def seq_of(message_id: str) -> int:
    """The sequence number inside a message's id (which must be ``valid``)."""
    return int(message_id[-8:], 16)
