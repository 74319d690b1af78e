"""Answers as bytes: the envelope around every ``/v1`` answer, and what a handler gives back.

Lives here: ``Reply``, the constructors handlers use, and ETag rules (RFC 9110 sections 8.8.3 and 13.1.2).
Must not know: requests, the services, or which headers every answer carries.
"""

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final, NamedTuple, Protocol, Self

import msgspec

from server.cache.responses import Updater
from server.model.errors import Refused
from server.web.translations import ADVICE, CREATED, FAILURES, OK, Failure, Language, Phrase

Headers = tuple[tuple[str, str], ...]

JSON: Final = "application/json; charset=utf-8"

_encoder: Final = msgspec.json.Encoder()
_UNSAID: Final = frozenset({"mailbox_not_found"})  # refused for several reasons that must look the same to the byte


class Reply(NamedTuple):
    """A finished answer. With an ``etag`` it can be revalidated; ``headers`` go over the usual ones. ``growth``: how
    it changes when mail comes."""

    status: int
    body: bytes
    etag: str = ""
    headers: Headers = ()
    growth: Updater | None = None


NO_CONTENT: Final = Reply(204, b"")


def encode(value: Any) -> bytes:
    """``value`` as JSON. Text with lone surrogates, which JSON cannot carry, is shown with ``?`` in their place."""
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        return _encoder.encode(_scrubbed(msgspec.to_builtins(value)))


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_scrubbed(name): _scrubbed(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_scrubbed(item) for item in value]
    return value


def etag(body: bytes) -> str:
    """A strong entity tag of ``body``, quotes included."""
    return f'"{blake2b(body, digest_size=16).hexdigest()}"'


_ENTITY_TAG: Final = re.compile(r'(?:W/)?("[^"]*")')


def matches(condition: str, tag: str) -> bool:
    """Whether an If-None-Match header names ``tag``, by weak comparison; ``*`` names any."""
    return condition == tag or condition.strip() == "*" or tag in _ENTITY_TAG.findall(condition)


def _envelopes(phrase: Phrase) -> dict[Language, bytes]:
    languages: tuple[Language, Language] = ("en", "zh")
    return {
        language: b'{"code":%d,"msg":%b,"data":' % (phrase.status, _encoder.encode(phrase.text(language)))
        for language in languages
    }


_OPENINGS: Final = {phrase.status: _envelopes(phrase) for phrase in (OK, CREATED)}


def ok(language: Language, data: Any) -> Reply:
    """200 with ``data`` in the envelope, and its ETag."""
    body = _OPENINGS[200][language] + encode(data) + b"}"
    return Reply(200, body, etag(body))


def created(language: Language, data: Any) -> Reply:
    """201 with ``data`` in the envelope."""
    return Reply(201, _OPENINGS[201][language] + encode(data) + b"}")


def bare(data: Any, status: int = 200) -> Reply:
    """``data`` as JSON without the envelope."""
    return Reply(status, encode(data))


class FailureBody(Protocol):
    """A struct that a failure is written as: its fields are what the clients of one kind of API look for."""

    @classmethod
    def of(cls, language: Language, word: Failure, field: str, detail: str) -> Self: ...


class Failed(msgspec.Struct, omit_defaults=True):
    """A failure: ``error`` is a stable word for programs, ``msg`` a sentence for people; ``field`` names the input at
    fault and ``detail`` says what would be right, where there is such a thing.
    """

    code: int
    msg: str
    data: None
    error: str
    field: str = ""
    detail: str = ""

    @classmethod
    def of(cls, language: Language, word: Failure, field: str, detail: str) -> Self:
        phrase = FAILURES[word]
        return cls(phrase.status, phrase.text(language), None, word, field, detail)


def failure(
    language: Language,
    word: Failure,
    headers: Iterable[tuple[str, str]] = (),
    shape: type[FailureBody] = Failed,
) -> Reply:
    """The answer for a failure that needs no explaining beyond its word."""
    return Reply(FAILURES[word].status, encode(shape.of(language, word, "", "")), headers=tuple(headers))


def refusal(language: Language, refused: Refused, shape: type[FailureBody] = Failed) -> Reply:
    """The answer for ``refused``: status by its word, the field at fault, what would be right, Retry-After."""
    headers: list[tuple[str, str]] = []
    if refused.retry_after > 0:
        headers.append(("Retry-After", str(max(1, round(refused.retry_after + 0.5)))))
    if FAILURES[refused.word].status == 401:
        headers.append(("WWW-Authenticate", "Bearer"))  # RFC 9110 section 11.6.1: a 401 names its scheme
    detail = refused.detail or ADVICE.get(refused.word, "")
    if refused.word in _UNSAID or not (refused.field or detail):
        return failure(language, refused.word, headers, shape)
    failed = shape.of(language, refused.word, refused.field, detail)
    return Reply(FAILURES[refused.word].status, encode(failed), headers=tuple(headers))
