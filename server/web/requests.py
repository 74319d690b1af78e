"""What a request says, checked: its body as a struct, its query as typed values; what is wrong is named.

Lives here: ``Call``, which is what a handler is given, and the parsing of bodies and query strings.
Must not know: what the values are for, or how an answer looks. Raises Refused body_invalid, field_invalid,
duration_invalid and message_too_big, and nothing else on purpose.
"""

import asyncio
import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, TypeVar

import msgspec
from aiohttp import StreamReader, web
from yarl import URL

from server.cache.buckets import Verdict
from server.config import parsing
from server.model import dates
from server.model.account import Principal, User
from server.model.errors import Refused
from server.model.message import Mailbox
from server.services.contracts import Shares
from server.services.transfers import Transfer
from server.web.services import Services
from server.web.translations import Language

Body = TypeVar("Body", bound=msgspec.Struct)

INJECTION_MAX: Final = 15 << 20  # bytes of JSON around a message of 10 MiB
BODY_MAX: Final = 64 << 10  # bytes; no request but an injected message has reason to be longer
LARGE: Final = 64 << 10  # bytes beyond which work on them takes a turn of the loop
TEXT_MAX: Final = 500  # characters of one query parameter


@dataclass(frozen=True, slots=True)
class LongLived:
    """Behind ``Call.begin`` and ``Call.reopen``. They are given the call, for one that held it would hold itself, and
    all of its request, until the collector comes.
    """

    begin: Callable[["Call", Sequence[tuple[str, str]]], Awaitable[web.StreamResponse]]
    reopen: Callable[["Call"], Awaitable[Mailbox]]


class RequestTarget(Protocol):
    """What a request's target says: a whole request, or its ``Target`` alone where it was not parsed anew."""

    @property
    def raw_path(self) -> str: ...

    @property
    def query(self) -> Mapping[str, str]: ...


class Target:
    """A request's target (RFC 9112 section 3.2), read as aiohttp reads it; ``path`` lacks the query."""

    __slots__ = ("path", "query", "raw_path")

    def __init__(self, raw_path: str) -> None:
        url = URL(raw_path, encoded=True)
        self.raw_path, self.path = raw_path, url.raw_path
        self.query: Mapping[str, str] = url.query


@dataclass(slots=True)
class Call:
    """One request on its way through a handler; ``segments`` are the variable ones of its path, decoded, in order."""

    asked: RequestTarget
    services: Services
    client: str
    language: Language
    segments: Sequence[str]
    opened: Mailbox | None = None
    principal: Principal | None = None
    verdict: Verdict | None = None  # of the budget the request was counted against
    staying: LongLived | None = None
    deadline: asyncio.Timeout | None = None
    body: Transfer | None = None  # what has come of the request's body, once it is read

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The request's deadline does not run while its body arrives; all of it is there afterwards."""
        deadline = self.deadline
        if deadline is None or (ends := deadline.when()) is None:
            yield
            return
        now = asyncio.get_running_loop().time
        left = ends - now()
        deadline.reschedule(None)
        yield
        deadline.reschedule(now() + left)

    async def turn(self, size: int) -> None:
        """Before ``size`` bytes are read or made into an answer: where they are many, wait for a turn of the loop."""
        if size > LARGE:
            await self.services.transfers.turns.take()

    @property
    def request(self) -> web.Request:
        """The whole request. A handler whose answer is cached must do without: see ``RequestTarget``."""
        if not isinstance(self.asked, web.Request):
            raise LookupError("of this request only the target is known")
        return self.asked

    @property
    def mailbox(self) -> Mailbox:
        """The mailbox the caller's token opened; only a route with auth="mailbox" has one."""
        if self.opened is None:
            raise LookupError("this route asks for no mailbox token")
        return self.opened

    async def begin(self, headers: Sequence[tuple[str, str]]) -> web.StreamResponse:
        """Send 200 with the usual headers and these. Only a route without a deadline may."""
        return await self._stays.begin(self, headers)

    async def reopen(self) -> Mailbox:
        """The mailbox, opened once more with the request's own credential; Refused when that no longer may. Only for a
        route without a deadline."""
        return await self._stays.reopen(self)

    @property
    def _stays(self) -> LongLived:
        if self.staying is None:
            raise LookupError("this route's answer does not stay open")
        return self.staying

    @property
    def shares(self) -> Shares:
        """The keys whose shares of shared workers this request uses: its client's, and the mailbox's or its owner's."""
        mailbox = self.mailbox
        return self.services.limits.shares(self.client, mailbox.user_id or mailbox.id)

    @property
    def user(self) -> User:
        """Who acts; only a route with auth "user", "admin", "super" or "key" surely has one."""
        if self.principal is None:
            raise LookupError("this route asks for no account")
        return self.principal.user


async def read(call: Call, limit: int) -> bytes | bytearray:
    """The request's body. Refused message_too_big once it is known to be longer than ``limit`` bytes.

    While it arrives it counts as bytes in flight, until the call is answered: Refused rate_limited, Crowded. How fast
    it has to come is the transfers' rule, not the deadline's.
    """
    request = call.request
    length = request.content_length or 0
    if length > limit:
        raise Refused("message_too_big", f"at most {limit} bytes")
    if not request.can_read_body:
        return b""
    call.services.transfers.admit(call.client, length)
    if request.headers.get("Expect", "").lower() == "100-continue":  # RFC 9110 section 10.1.1
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # what counts from here is the answer
    try:
        return await _received(call, request.content, limit)
    except (web.RequestPayloadError, ConnectionError) as error:
        error.__traceback__ = None  # the stream keeps its error, and through these frames itself and all that came
        raise Refused("body_invalid", "the body broke off") from None


async def _received(call: Call, content: StreamReader, limit: int) -> bytearray:
    whole = bytearray()
    transport = call.request.transport
    if transport is None:
        raise ConnectionResetError
    call.body = body = call.services.transfers.begin(call.client, "in", whole.__len__, transport.abort)
    with call.reading():
        async for piece in content.iter_any():
            if len(whole) + len(piece) > limit:
                raise Refused("message_too_big", f"at most {limit} bytes")
            body.grow(len(piece))
            whole += piece
    body.arrived()
    return whole


async def body(call: Call, kind: type[Body], *, limit: int = BODY_MAX, empty: bool = False) -> Body:
    """The JSON body as ``kind``; fields it does not know are ignored. ``empty``: no body at all means no fields."""
    text = await read(call, limit)
    await call.turn(len(text))
    return decode(b"{}" if empty and not text.strip() else text, kind)


_NAMES: Final = {"str": "string", "int": "integer", "bool": "boolean", "float": "number", "array": "array"}
_PLACE: Final = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING: Final = re.compile(r"missing required field `([^`]*)`")


def decode(text: bytes | bytearray, kind: type[Body]) -> Body:
    """``text`` as JSON of ``kind``. Refused body_invalid (not JSON), field_invalid (naming field and expected type)."""
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("body_invalid", "the body must be a JSON object in UTF-8") from error


def _misfit(explanation: str) -> Refused:
    missing = _MISSING.search(explanation)
    if missing:
        return Refused("field_invalid", "required", field=missing[1])
    place = _PLACE.search(explanation)
    detail = re.sub(
        r"^Invalid enum value (.*)$", r"\1 is not one of the words that /docs lists", _PLACE.sub("", explanation)
    )
    detail = re.sub(r"`(\w+)", lambda m: "`" + _NAMES.get(m[1], m[1]), detail).replace("`", "").lower()
    if not place or not place[1]:
        return Refused("body_invalid", detail)
    return Refused("field_invalid", detail, field=place[1])


_LIFE_MAX: Final = 100 * 365 * 86400  # seconds; beyond it dates leave the calendar


def lifetime(text: str) -> float:
    """``expiresIn`` such as ``48h`` in seconds. Refused duration_invalid; how long is too long the services know."""
    try:
        seconds = parsing.duration(text) if len(text) <= 32 else 0.0
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= _LIFE_MAX:
        raise Refused("duration_invalid", "a duration such as 90s, 15m, 48h or 7d", field="expiresIn")
    return seconds


def _given(asked: RequestTarget, name: str) -> str:
    """A query parameter's first value, "" where absent. Refused field_invalid for text no store can hold."""
    value = asked.query.get(name, "")
    if len(value) > TEXT_MAX or "\0" in value or not _encodable(value):
        raise Refused("field_invalid", f"at most {TEXT_MAX} characters of text", field=name)
    return value


def _encodable(value: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in value) if not value.isascii() else True


def text(asked: RequestTarget, name: str) -> str:
    """A text parameter, "" where absent."""
    return _given(asked, name).strip()


def number(asked: RequestTarget, name: str, default: int, least: int, most: int) -> int:
    """A decimal parameter within [least, most]."""
    value = _given(asked, name)
    if not value:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", value) or not least <= int(value) <= most:
        raise Refused("field_invalid", f"a whole number from {least} to {most}", field=name)
    return int(value)


def within(value: int, least: int, most: int, field: str) -> None:
    """Refused field_invalid unless a number out of a body is within [least, most]."""
    if not least <= value <= most:
        raise Refused("field_invalid", f"a whole number from {least} to {most}", field=field)


_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}


def boolean(asked: RequestTarget, name: str) -> bool | None:
    """A true/false parameter, None where absent."""
    value = _given(asked, name)
    if not value:
        return None
    if value.lower() not in _BOOLEANS:
        raise Refused("field_invalid", "true or false", field=name)
    return _BOOLEANS[value.lower()]


def moment(asked: RequestTarget, name: str, *, end: bool = False) -> datetime | None:
    """A date parameter, None where absent: RFC 3339, or a day in UTC: its first moment, or where ``end`` its last."""
    value = _given(asked, name)
    if not value:
        return None
    try:
        return dates.parse(value, end=end)
    except ValueError as error:
        raise Refused("field_invalid", dates.EXAMPLE, field=name) from error


def write_cursor(seq: int) -> str:
    """An opaque cursor: the place in a list after the message numbered ``seq``."""
    return base64.urlsafe_b64encode(seq.to_bytes(8, "big")).decode().rstrip("=")


def cursor(asked: RequestTarget, name: str = "cursor") -> int | None:
    """The message number inside a cursor parameter, None where absent."""
    value = _given(asked, name)
    if not value:
        return None
    try:
        packed = base64.b64decode(value.encode("ascii") + b"=", altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        packed = b""
    seq = int.from_bytes(packed, "big")
    if len(packed) != 8 or not 0 < seq < 1 << 32:
        raise Refused("field_invalid", "the nextCursor of an earlier page", field=name)
    return seq
