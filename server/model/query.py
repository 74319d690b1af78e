"""What a search asks for: the little language of ``q``, read into terms that the store can put to the database.

Lives here: the operators, their values, and what is said about a wrong one. Must not know: SQL, or who asks.

A query is words, all of which must match. ``"several words"`` in quotes match as they stand; ``-`` in front of anything
turns it round; ``name:value`` narrows. A word with a colon whose name is no operator (``12:30``, an address) is a word.

    from:  to:  subject:        part of the field, folded (model/folding.py); to: looks at Cc as well
    before:  after:             2024-05-01 (midnight UTC) or 2024-05-01T12:00:00Z
    larger:  smaller:           bytes, or 10K, 1M, 1G (powers of 1024)
    has:attachment  is:unread  is:read
    tag:name                    a tag of the one who asks
    dmarc:pass                  none, pass, fail, temperror, permerror
"""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal, TypeVar

import msgspec

from server.model import dates
from server.model.errors import Refused

TERMS_MAX: Final = 20
DMARC: Final = ("none", "pass", "fail", "temperror", "permerror")

Bound = TypeVar("Bound", datetime, int)
Kind = Literal["text", "from", "to", "subject", "attachment", "read", "tag", "dmarc"]


class Term(msgspec.Struct, frozen=True):
    """One condition: ``value`` is looked for where ``kind`` says; ``negated`` ones must not hold."""

    kind: Kind
    value: str = ""
    negated: bool = False


class Query(msgspec.Struct, frozen=True):
    """Every term and every bound holds: received in [after, before), and size in [least, most] bytes."""

    terms: tuple[Term, ...] = ()
    after: datetime | None = None
    before: datetime | None = None
    least: int | None = None
    most: int | None = None

    def texts(self) -> tuple[Term, ...]:
        """The terms that the text of a message may answer, in order."""
        return tuple(term for term in self.terms if term.kind == "text")

    def tags(self) -> frozenset[str]:
        """The names of tags asked for, in lower case."""
        return frozenset(term.value for term in self.terms if term.kind == "tag")


def both(one: Query, other: Query) -> Query:
    """What both ask for."""
    return Query(
        one.terms + other.terms,
        _tighter(max, one.after, other.after),
        _tighter(min, one.before, other.before),
        _tighter(max, one.least, other.least),
        _tighter(min, one.most, other.most),
    )


def _tighter(choose: Callable[[Bound, Bound], Bound], one: Bound | None, other: Bound | None) -> Bound | None:
    if one is None or other is None:
        return other if one is None else one
    return choose(one, other)


_PIECE: Final = re.compile(r'(-?)(?:([A-Za-z]+):)?(?:"([^"]*)"?|(\S*))\s*')
_SIZE: Final = re.compile(r"([0-9]{1,9})([kmg]?)b?", re.I)
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def parse(text: str) -> Query:
    """Read ``q``. Refused field_invalid (field ``q``), naming the operator and what would be right; nothing else."""
    pieces = [piece for piece in _PIECE.findall(text.strip()) if any(piece)]
    if len(pieces) > TERMS_MAX:
        raise Refused("field_invalid", f"at most {TERMS_MAX} words and operators", field="q")
    found = Query()
    for dash, name, quoted, bare in pieces:
        found = both(found, _read(dash, name, quoted or bare))
    return found


def _read(dash: str, name: str, value: str) -> Query:
    if name.lower() in _OPERATORS:
        read, wanted = _OPERATORS[name.lower()]
        asked = read(value, bool(dash)) if value else None
        if asked is None:
            raise Refused("field_invalid", f"{name.lower()}: wants {wanted}", field="q")
        return asked
    word = f"{name}:{value}" if name else value
    return _only("text", word, bool(dash)) if word else _only("text", dash, negated=False)  # a dash alone is a word


def _only(kind: Kind, value: str, negated: bool) -> Query:
    return Query((Term(kind, value, negated),))


Reader = Callable[[str, bool], Query | None]
"""An operator's value and whether it is negated → what it asks for, None when the value is not one."""


def _text(kind: Kind) -> Reader:
    return lambda value, negated: _only(kind, value, negated)


def _tag(value: str, negated: bool) -> Query:
    return _only("tag", value.lower(), negated)


def _word(words: dict[str, tuple[Kind, bool]]) -> Reader:
    """One of a few words, each a kind of term and whether the word itself says the opposite of it."""

    def read(value: str, negated: bool) -> Query | None:
        found = words.get(value.lower())
        return found and _only(found[0], "", negated is not found[1])

    return read


def _dmarc(value: str, negated: bool) -> Query | None:
    return _only("dmarc", value.lower(), negated) if value.lower() in DMARC else None


def _date(*, before: bool) -> Reader:
    def read(value: str, negated: bool) -> Query | None:
        try:
            moment = dates.parse(value)
        except ValueError:
            return None
        return Query(before=moment) if before is not negated else Query(after=moment)

    return read


def _size(*, larger: bool) -> Reader:
    def read(value: str, negated: bool) -> Query | None:
        match = _SIZE.fullmatch(value)
        if match is None:
            return None
        size = int(match[1]) * _UNITS[match[2].lower()]
        if larger:
            return Query(most=size) if negated else Query(least=size + 1)
        return Query(least=size) if negated else Query(most=size - 1)

    return read


_SIZES: Final = "a number of bytes such as 5000, 10K or 1M"
_OPERATORS: Final[dict[str, tuple[Reader, str]]] = {
    "from": (_text("from"), "part of a sender, such as from:alice@example.org"),
    "to": (_text("to"), "part of a recipient, such as to:shop@temp.mail"),
    "subject": (_text("subject"), 'part of a subject, such as subject:invoice or subject:"your order"'),
    "before": (_date(before=True), dates.EXAMPLE),
    "after": (_date(before=False), dates.EXAMPLE),
    "larger": (_size(larger=True), _SIZES),
    "smaller": (_size(larger=False), _SIZES),
    "has": (_word({"attachment": ("attachment", False)}), "attachment"),
    "is": (_word({"read": ("read", False), "unread": ("read", True)}), "unread or read"),
    "tag": (_tag, "the name of a tag"),
    "dmarc": (_dmarc, f"one of {', '.join(DMARC)}"),
}
