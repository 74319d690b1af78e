"""Messages of a mailbox: listed, searched, opened, taken apart, injected, marked, deleted."""

import asyncio
import re
from functools import partial
from typing import Final

from msgspec import UNSET

from server.model import ids
from server.model.errors import Refused
from server.model.filenames import content_disposition, safe_content_type
from server.services.contracts import SearchQuery
from server.web import requests
from server.web.compose import Injection, check_size, compose, envelope_sender, is_large
from server.web.description import describe
from server.web.objects import Message, MessageList, SearchResult, Summary
from server.web.query import Cursor, Flag, Moment, Number, Text
from server.web.requests import Call
from server.web.responses import NO_CONTENT, Headers, Reply, created, etag, ok

INJECTION_MAX: Final = 15 << 20  # bytes of JSON around a message of 10 MiB
_PART: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){0,99}")  # RFC 3501 section 6.4.5
# bytes that came from a stranger are never a page of ours, whatever they claim to be
_FOREIGN: Final = ("Content-Security-Policy", "sandbox; default-src 'none'")

_LIMIT: Final = Number("limit", "Messages on one page.", 50, 1, 100)
_OFFSET: Final = Number("offset", "Messages to leave out, counted from the newest.", 0, 0, 1_000_000)
_CURSOR: Final = Cursor("cursor", "`nextCursor` of the page before; steadier than `offset` while mail arrives.")
_Q: Final = Text(
    "q",
    'Words that all stand in the subject, the text or an address; "several words" in quotes; - in front for what is '
    "not to be there; and from: to: subject: before: after: larger: smaller: (5000, 10K, 1M) has:attachment is:read "
    "is:unread tag: dmarc: (none, pass, fail, temperror, permerror).",
)
_FROM: Final = Text("from", "Part of the sender.")
_SUBJECT: Final = Text("subject", "Part of the subject.")
_START: Final = Moment("startDate", "Received at this time or later; a day counts from its first moment in UTC.")
_END: Final = Moment("endDate", "Received at this time or earlier; a day counts to its last moment in UTC.", end=True)
_IS_READ: Final = Flag("isRead", "Only what is read, or only what is not.")
_HAS_ATTACHMENT: Final = Flag("hasAttachment", "Only what has attachments, or only what has none.")
_PAGE: Final = Number("page", "Which page, from 1.", 1, 1, 10_000)
_PAGE_SIZE: Final = Number("pageSize", "Messages on one page.", 20, 1, 100)
_RAW: Final = Flag("raw", "HTML exactly as it came, for whoever shows it behind a boundary of their own.")


def _message_id(call: Call) -> str:
    message_id = call.segments[1]
    if not ids.valid(message_id):
        raise Refused("message_not_found")
    return message_id


@describe(
    "List the messages of a mailbox",
    detail="Newest first, without text and HTML. Page with `cursor`, or with `offset`.",
    gives=MessageList,
    query=(_LIMIT, _OFFSET, _CURSOR),
)
async def page(call: Call) -> Reply:
    limit, offset, before = _LIMIT.of(call), _OFFSET.of(call), _CURSOR.of(call)
    if before is not None and offset:
        raise Refused("field_invalid", "cursor or offset, not both", field="offset")
    stored, total = await call.parts.messages.page(call.mailbox, limit, offset, before)
    more = len(stored) == limit and (before is not None or offset + limit < total)
    following = requests.write_cursor(stored[-1].seq) if more else UNSET
    return ok(call.language, MessageList([Summary.of(one) for one in stored], total, following))


@describe(
    "Search a mailbox",
    detail="Every parameter narrows the result; newest first.",
    gives=SearchResult,
    query=(_Q, _FROM, _SUBJECT, _START, _END, _IS_READ, _HAS_ATTACHMENT, _PAGE, _PAGE_SIZE),
)
async def search(call: Call) -> Reply:
    query = SearchQuery(
        q=_Q.of(call),
        sender=_FROM.of(call),
        subject=_SUBJECT.of(call),
        start=_START.of(call),
        end=_END.of(call),
        is_read=_IS_READ.of(call),
        has_attachment=_HAS_ATTACHMENT.of(call),
        page=_PAGE.of(call),
        page_size=_PAGE_SIZE.of(call),
    )
    user_id = call.principal.user.id if call.principal else None
    place = call.parts.limits.searching(call.mailbox.id)
    try:
        found, total = await call.parts.messages.search(call.mailbox, query, user_id)
    finally:
        call.parts.limits.leave(place)
    pages = -(-total // query.page_size)
    result = SearchResult([Summary.of(one) for one in found], total, query.page, query.page_size, pages)
    reply = ok(call.language, result)
    return reply._replace(etag="") if "tag:" in query.q.lower() else reply  # a tag's name may change at any time


@describe(
    "Put a message into a mailbox",
    detail="It takes the way of mail that came by SMTP: numbered, counted, pushed. `raw` is a whole message (RFC 5322);"
    " without it one is made of the other fields, and `from` is required.",
    gives=Message,
    status=201,
    body=Injection,
    example={"from": "alice@example.org", "subject": "Hello", "text": "Your code is 482193"},
    refuses=("mailbox_full", "message_too_big"),
)
async def inject(call: Call) -> Reply:
    """Store a message as if SMTP had brought it; the answer is the message as a reader will find it."""
    injection = await requests.body(call.request, Injection, limit=INJECTION_MAX)
    sender = envelope_sender(injection)
    check_size(injection, call.parts.settings.current.smtp_max_message_bytes)
    composing = partial(compose, injection, call.mailbox.address, call.parts.config.smtp_domain)
    raw = await asyncio.to_thread(composing) if is_large(injection) else composing()
    stored = await call.parts.messages.inject(call.mailbox, raw, sender, is_read=injection.is_read)
    content = await call.parts.messages.read(call.mailbox, stored.id)
    return created(call.language, Message.opened(content, untouched=False))


@describe(
    "Open a message",
    detail="With text, sanitised HTML and headers. Reading does not mark it as read.",
    gives=Message,
    query=(_RAW,),
    refuses=("message_not_found",),
)
async def show(call: Call) -> Reply:
    """One message; ``?raw=1`` leaves its HTML as it came, for whoever shows it behind a boundary of their own."""
    untouched = _RAW.of(call) or False
    content = await call.parts.messages.read(call.mailbox, _message_id(call), sanitised=not untouched)
    return ok(call.language, Message.opened(content, untouched=untouched))


@describe("Mark a message as read", detail="Again is no error.", status=204, refuses=("message_not_found",))
async def mark_read(call: Call) -> Reply:
    await call.parts.messages.mark_read(call.mailbox, _message_id(call))
    return NO_CONTENT


@describe("Delete a message", status=204, refuses=("message_not_found",))
async def delete(call: Call) -> Reply:
    await call.parts.messages.delete(call.mailbox, _message_id(call))
    return NO_CONTENT


@describe("Delete all messages of a mailbox", status=204)
async def delete_all(call: Call) -> Reply:
    await call.parts.messages.delete_all(call.mailbox)
    return NO_CONTENT


@describe("Download a message as it was received", media="message/rfc822", refuses=("message_not_found",))
async def raw(call: Call) -> Reply:
    """The message's own bytes, as they were received."""
    message_id = _message_id(call)
    content = await call.parts.messages.raw(call.mailbox, message_id)
    return _download(content, "message/rfc822", f"{message_id}.eml")


@describe(
    "Download an attachment",
    detail="Its `id` stands in the message's `attachments`. Types that a browser would run come as octet-stream.",
    media="*/*",
    refuses=("message_not_found", "attachment_not_found"),
)
async def attachment(call: Call) -> Reply:
    message_id, number = _message_id(call), call.segments[2]
    if not _PART.fullmatch(number):
        raise Refused("attachment_not_found")
    file = await call.parts.messages.attachment(call.mailbox, message_id, number)
    return _download(file.content, safe_content_type(file.content_type), file.filename)


def _download(content: bytes, content_type: str, filename: str) -> Reply:
    headers: Headers = (
        ("Content-Type", content_type),
        ("Content-Disposition", content_disposition(filename)),
        _FOREIGN,
    )
    return Reply(200, content, etag(content), headers)
