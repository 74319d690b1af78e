"""The API that clients of MoeMail and its relatives speak: an API key, bare JSON, addresses called emails.

Lives here: its whole shape: what it calls things, how its failures look, its rows. The services are those of ``/v1``.
A field that one family of clients calls differently from another stands under both names.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, Self

import msgspec
from msgspec import UNSET, UnsetType

from server.model import ids
from server.model.account import Principal
from server.model.errors import Refused
from server.model.message import Mailbox, Stored
from server.services.contracts import Content
from server.web import description, requests
from server.web.api.schemas import rfc3339
from server.web.query import Cursor, Number, Text
from server.web.requests import Call
from server.web.responses import Reply, bare
from server.web.route import Route
from server.web.translations import FAILURES, Failure, Language

_NEVER: Final = "9999-01-01T00:00:00.000Z"  # what these clients take for "does not expire"; null they read as 1970
_LIFE_MAX: Final = 100 * 365 * 86_400_000  # ms
_describe: Final = partial(description.describe, bare=True)

_LIMIT: Final = Number("limit", "How many on one page.", 20, 1, 100)
_PLACE: Final = Text("cursor", "`nextCursor` of the page before.")
_CURSOR: Final = Cursor("cursor", "`nextCursor` of the page before.")


class BareFailure(msgspec.Struct):
    """A failure: a sentence for people."""

    error: str

    @classmethod
    def of(cls, language: Language, word: Failure, field: str, detail: str) -> Self:
        explained = ": ".join(part for part in (field, detail) if part)
        text = FAILURES[word].text(language)
        return cls(f"{text} ({explained})" if explained else text)


class Done(msgspec.Struct):
    success: bool = True


class Configuration(msgspec.Struct, rename="camel"):
    """What this server offers; ``emailDomains`` is ``domains`` with commas, ``maxEmails`` a number as text."""

    domains: Sequence[str]
    email_domains: str
    default_role: str
    max_emails: str


class Generation(msgspec.Struct, rename="camel"):
    """``name`` is random where it is empty; ``expiryTime`` in milliseconds from now, 0 for ever."""

    name: str = ""
    expiry_time: int | float | None = None
    domain: str = ""


class Email(msgspec.Struct, rename="camel"):
    """An address. One without an end expires in the year 9999."""

    id: str
    email_id: str
    address: str
    email: str
    name: str
    domain: str
    created_at: str
    expires_at: str

    @classmethod
    def of(cls, mailbox: Mailbox, **more: Any) -> Self:
        return cls(
            id=mailbox.id,
            email_id=mailbox.id,
            address=mailbox.address,
            email=mailbox.address,
            name=mailbox.local_part,
            domain=mailbox.domain,
            created_at=rfc3339(mailbox.created_at),
            expires_at=_NEVER if mailbox.expires_at is None else rfc3339(mailbox.expires_at),
            **more,
        )


class NewEmail(Email, rename="camel", kw_only=True):
    """An address just made, with the token that opens it under ``/v1`` unless the key lacks a scope."""

    token: str | UnsetType = UNSET


class EmailList(msgspec.Struct, rename="camel"):
    emails: list[Email]
    next_cursor: str | None
    total: int


class Letter(msgspec.Struct):
    """A message in a list. Times are RFC 3339 in ``createdAt``, milliseconds since 1970 in ``received_at``."""

    id: str
    message_id: str = msgspec.field(name="messageId")
    sender: str = msgspec.field(name="from")
    from_address: str
    to_address: str
    subject: str
    created_at: str = msgspec.field(name="createdAt")
    received_at: int
    is_read: bool = msgspec.field(name="isRead")
    has_attachment: bool = msgspec.field(name="hasAttachment")

    @classmethod
    def of(cls, stored: Stored, **more: Any) -> Self:
        return cls(
            id=stored.id,
            message_id=stored.id,
            sender=stored.sender,
            from_address=stored.sender,
            to_address=stored.to,
            subject=stored.subject,
            created_at=rfc3339(stored.received_at),
            received_at=_milliseconds(stored.received_at),
            is_read=stored.is_read,
            has_attachment=stored.details.has_attachments,
            **more,
        )


class LetterList(msgspec.Struct, rename="camel"):
    messages: list[Letter]
    next_cursor: str | None
    total: int


class Opened(Letter, kw_only=True):
    """A message with its text (``content`` and ``text``) and its sanitised HTML."""

    content: str
    text: str
    html: str
    sent_at: int
    type: str = "received"


class OpenedTwice(Opened, kw_only=True):
    """The same once more under ``message``, where other clients look for it."""

    message: Opened


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


@_describe("Show what this server offers", response=Configuration)
async def config(call: Call) -> Reply:
    served = (await call.services.domains.served()).public
    most = call.user.quota.max_mailboxes
    return bare(Configuration(served, ",".join(served), "user", str(most)))


@_describe(
    "Make an address",
    detail="`expiryTime` counts milliseconds from now; 0 is for ever.",
    response=NewEmail,
    body=Generation,
    example={"name": "", "expiryTime": 3600000, "domain": ""},
    refuses=(
        *("client_banned", "prefix_invalid", "domain_not_allowed", "duration_invalid", "mailbox_exists"),
        "quota_reached",
    ),
)
async def generate(call: Call) -> Reply:
    wanted = await requests.body(call, Generation)
    life = _life(wanted.expiry_time)
    made = await call.services.mailboxes.create(
        wanted.name or None, wanted.domain or None, life, call.client, call.user
    )
    return bare(NewEmail.of(made.mailbox, token=made.token if _acts(call).may_open() else UNSET))


def _life(milliseconds: float | None) -> float | None:
    """``expiryTime`` in seconds: None for the server's own choice, infinity for ever."""
    if milliseconds is None:
        return None
    if not 0 <= milliseconds <= _LIFE_MAX:
        raise Refused("duration_invalid", "milliseconds from now, 0 for ever", field="expiryTime")
    return milliseconds / 1000 or math.inf


@_describe("List one's addresses", response=EmailList, query=(_LIMIT, _PLACE))
async def emails(call: Call) -> Reply:
    limit, after = _LIMIT.of(call), _PLACE.of(call)
    if after and not ids.valid(after):
        raise Refused("field_invalid", "the nextCursor of an earlier page", field="cursor")
    boxes, total = await call.services.mailboxes.page(call.user, limit, after or None)
    following = boxes[-1].id if len(boxes) == limit else None
    return bare(EmailList([Email.of(box) for box in boxes], following, total))


def _acts(call: Call) -> Principal:
    """Who acts: here always an API key."""
    assert call.principal is not None
    return call.principal


async def _opened(call: Call) -> Mailbox:
    return await call.services.mailboxes.owned(call.segments[0], call.user)


@_describe(
    "List the messages of an address", response=LetterList, query=(_LIMIT, _CURSOR), refuses=("mailbox_not_found",)
)
async def letters(call: Call) -> Reply:
    limit, before = _LIMIT.of(call), _CURSOR.of(call)
    stored, total = await call.services.messages.page(await _opened(call), limit, 0, before)
    following = requests.write_cursor(stored[-1].seq) if len(stored) == limit else None
    return bare(LetterList([Letter.of(one) for one in stored], following, total))


@_describe("Delete an address and its mail", response=Done, refuses=("mailbox_not_found",))
async def delete(call: Call) -> Reply:
    await call.services.mailboxes.delete(await _opened(call))
    return bare(Done())


def _message_id(call: Call) -> str:
    if not ids.valid(call.segments[1]):
        raise Refused("message_not_found")
    return call.segments[1]


@_describe(
    "Open a message, which marks it as read",
    detail="A key without the scope mail:write leaves it unread.",
    response=OpenedTwice,
    refuses=("mailbox_not_found", "message_not_found"),
)
async def letter(call: Call) -> Reply:
    mailbox = await _opened(call)
    shares = call.services.limits.shares(call.client, call.user.id)
    content = await call.services.messages.read(mailbox, _message_id(call), shares)
    await call.turn(content.size())
    stored, fields = content.stored, _fields(content)
    if not stored.is_read and "mail:write" in _acts(call).scopes:
        await call.services.messages.mark_read(mailbox, stored.id)
        stored = msgspec.structs.replace(stored, is_read=True)
    return bare(OpenedTwice.of(stored, **fields, message=Opened.of(stored, **fields)))


def _fields(content: Content) -> dict[str, Any]:
    sent = _milliseconds(content.stored.received_at)
    return {"content": content.text, "text": content.text, "html": content.safe_html, "sent_at": sent}


@_describe("Delete a message", response=Done, refuses=("mailbox_not_found", "message_not_found"))
async def delete_letter(call: Call) -> Reply:
    await call.services.messages.delete(await _opened(call), _message_id(call))
    return bare(Done())


_row: Final = partial(Route, auth="key", limit=True, failed=BareFailure)
_EMAIL: Final = "/api/emails/{id}"

ROUTES: Final = (
    _row("GET", "/api/config", config, scope="mailbox:read"),
    _row("POST", "/api/emails/generate", generate, scope="mailbox:write"),
    _row("GET", "/api/emails", emails, scope="mailbox:read"),
    _row("GET", _EMAIL, letters, scope="mail:read"),
    _row("DELETE", _EMAIL, delete, scope="mailbox:write"),
    _row("GET", _EMAIL + "/{mid}", letter, scope="mail:read", bulky=True),
    _row("DELETE", _EMAIL + "/{mid}", delete_letter, scope="mail:write"),
)
