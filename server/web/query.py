"""Parameters of query strings, each said once: how it is read and how it is described.

Lives here: one class for each kind of value. A handler's module holds its parameters as constants; the handler reads
them with ``NAME.of(call)`` and names them in ``describe``. Must not know: what the values are for.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from server.config import parsing
from server.model import dates, ids
from server.model.domain import to_ascii
from server.model.errors import Refused
from server.services.contracts import NOW
from server.web import requests
from server.web.requests import TEXT_MAX, Call

_SEQ_MAX: Final = 999_999_999
_DURATION_MAX: Final = 32  # characters
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENT_CURSOR: Final = re.compile(r"([0-9]{1,16})-([0-9]{1,18})").fullmatch


class Parameter(Protocol):
    """What the description needs of any of them: ``schema`` is a JSON Schema of the text that is sent."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    def schema(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Text:
    """Free text, "" where absent."""

    name: str
    description: str

    def of(self, call: Call) -> str:
        return requests.text(call.asked, self.name)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": TEXT_MAX}


@dataclass(frozen=True, slots=True)
class Number:
    """A decimal number within [least, most]."""

    name: str
    description: str
    default: int
    least: int
    most: int

    def of(self, call: Call) -> int:
        return requests.number(call.asked, self.name, self.default, self.least, self.most)

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.least, "maximum": self.most, "default": self.default}


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false, None where absent."""

    name: str
    description: str

    def of(self, call: Call) -> bool | None:
        return requests.boolean(call.asked, self.name)

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Moment:
    """A date or a time, None where absent; ``end``: a date means its last moment."""

    name: str
    description: str
    end: bool = False

    def of(self, call: Call) -> datetime | None:
        return requests.moment(call.asked, self.name, end=self.end)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "anyOf": [{"format": "date-time"}, {"format": "date"}]}


@dataclass(frozen=True, slots=True)
class Since:
    """A date, a time, or how long ago (``90s``, ``2h``), None where absent."""

    name: str
    description: str

    def of(self, call: Call) -> datetime | None:
        text = requests.text(call.asked, self.name)
        try:
            return dates.ago(text, datetime.now(UTC)) if text else None
        except ValueError as error:
            raise Refused("field_invalid", f"{dates.EXAMPLE}, or how long ago, such as 2h", field=self.name) from error

    def schema(self) -> dict[str, Any]:
        ago = {"pattern": r"^[0-9]{1,6}(ms|s|m|h|d)$"}
        return {"type": "string", "anyOf": [{"format": "date-time"}, {"format": "date"}, ago]}


@dataclass(frozen=True, slots=True)
class Address:
    """An address as mail is sent to it, "" where absent."""

    name: str
    description: str

    def of(self, call: Call) -> str:
        local, at, domain = requests.text(call.asked, self.name).rpartition("@")
        return f"{local.lower()}{at}{to_ascii(domain)}"

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": TEXT_MAX}


@dataclass(frozen=True, slots=True)
class MomentCursor:
    """The place in a list by time that an earlier page named: a moment and a number within it, None where absent."""

    name: str
    description: str

    def of(self, call: Call) -> tuple[datetime, int] | None:
        text = requests.text(call.asked, self.name)
        if not text:
            return None
        found = _MOMENT_CURSOR(text)
        if found is None:
            raise Refused("field_invalid", "the nextCursor of an earlier page", field=self.name)
        return _EPOCH + timedelta(microseconds=int(found[1])), int(found[2])

    @staticmethod
    def write(place: tuple[datetime, int]) -> str:
        return f"{(place[0] - _EPOCH) // timedelta(microseconds=1)}-{place[1]}"

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^[0-9]{1,16}-[0-9]{1,18}$"}


@dataclass(frozen=True, slots=True)
class Cursor:
    """The place in a list of messages that an earlier page named, None where absent."""

    name: str
    description: str

    def of(self, call: Call) -> int | None:
        return requests.cursor(call.asked, self.name)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^[A-Za-z0-9_-]{11}$"}


@dataclass(frozen=True, slots=True)
class IdCursor:
    """The place after one of ours in a list that spans mailboxes, "" where absent."""

    name: str
    description: str

    def of(self, call: Call) -> str:
        value = requests.text(call.asked, self.name)
        if value and not ids.valid(value):
            raise Refused("field_invalid", "the nextCursor of an earlier page", field=self.name)
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "format": "uuid"}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words, None where absent."""

    name: str
    description: str
    words: Sequence[str]

    def of(self, call: Call) -> str | None:
        word = requests.text(call.asked, self.name)
        if word and word not in self.words:
            raise Refused("field_invalid", f"one of {', '.join(self.words)}", field=self.name)
        return word or None

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Seq:
    """A message's number in its mailbox, 0 for before the first; None where absent."""

    name: str
    description: str

    def of(self, call: Call) -> int | None:
        number = requests.number(call.asked, self.name, -1, 0, _SEQ_MAX)
        return None if number < 0 else number

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": 0, "maximum": _SEQ_MAX}


@dataclass(frozen=True, slots=True)
class SeqOrNow(Seq):
    """The same, or ``now``, which is NOW."""

    def of(self, call: Call) -> int | None:
        return NOW if requests.text(call.asked, self.name) == "now" else Seq.of(self, call)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [Seq.schema(self), {"const": "now"}]}


@dataclass(frozen=True, slots=True)
class Duration:
    """A time span in seconds within [least, most], written ``90``, ``90s`` or ``2m``."""

    name: str
    description: str
    default: float
    least: float
    most: float

    def of(self, call: Call) -> float:
        text = requests.text(call.asked, self.name)
        try:
            seconds = parsing.duration(text[:_DURATION_MAX]) if text else self.default
        except ValueError:
            seconds = -1.0
        if not self.least <= seconds <= self.most:
            raise Refused("field_invalid", f"from {self.least:g} to {self.most:g} seconds", field=self.name)
        return seconds

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)?$", "default": f"{self.default:g}s"}
