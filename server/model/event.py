"""What the bus carries: that something changed, never the change itself.

A hint names a mailbox and, for mail, the sequence number it reached. Whoever has a reader for that mailbox fetches what
is missing from the store, by the same query that serves a reader who comes back: so no hint can be wrong, only late,
and losing one costs time and nothing else. 25 bytes each keep a batch's hints in one NOTIFY (8,000 bytes at most).

Nodes of two releases share one bus during an upgrade. This is format 1: hints of 25 bytes, however many kinds there
will be. A kind that is not known makes whatever is kept of its id old, as any hint does, and nothing else. Another
format needs another channel, and is published there beside this one for a release.
"""

import struct
import uuid
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Final

import msgspec

from server.model.message import Stored

_HINT = struct.Struct(">B16sQ")


class Kind(IntEnum):
    UNKNOWN = 0  # of a newer release; never sent
    MAIL = 1  # seq: the newest message's number
    UPDATE = 2  # read or deleted: counters moved
    EXPIRED = 3  # the mailbox is gone, by time or by hand
    ADDRESS = 4  # a mailbox was made or extended: what was known of its record is old
    ACCOUNT = 5  # an account, its logins or its keys; its id stands in the place of a mailbox's
    DOMAINS = 6  # the set of served domains; no mailbox is meant
    SETTINGS = 7  # what administrators set; no mailbox is meant
    LOST = 8  # hints of the sender were lost, nobody knows which: what was kept of anything may be old
    PULSE = 9  # the sender is there and has nothing to say; no mailbox is meant
    LEAVE = 10  # the sender ends, and its silence from here on means nothing


_KINDS: Final = {int(kind): kind for kind in Kind}


class Step(msgspec.Struct, frozen=True):
    """All that happened to a mailbox between two rows of its generation (cache/generations.py): these messages came."""

    mailbox_id: str
    slot: int
    before: bytes
    after: bytes
    rows: list[Stored]


NOBODY = str(uuid.UUID(int=0))


class Hint(msgspec.Struct, frozen=True):
    """One change of one mailbox."""

    kind: Kind
    mailbox_id: str
    seq: int = 0


def pack(hints: Iterable[Hint]) -> bytes:
    """The wire form: 25 bytes a hint."""
    return b"".join(_HINT.pack(hint.kind, uuid.UUID(hint.mailbox_id).bytes, hint.seq) for hint in hints)


def unpack(payload: bytes) -> Iterator[Hint]:
    """The hints of ``payload``; ValueError when it has not the format."""
    if len(payload) % _HINT.size:
        raise ValueError("not a list of hints")
    for kind, mailbox, seq in _HINT.iter_unpack(payload):
        yield Hint(_KINDS.get(kind, Kind.UNKNOWN), str(uuid.UUID(bytes=mailbox)), seq)
