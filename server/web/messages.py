"""Messages of a mailbox: listed, searched, opened, taken apart, injected, marked, deleted."""

import re
from typing import Final

from msgspec import UNSET

from server.model import ids
from server.model.errors import Refused
from server.model.filenames import content_disposition, safe_content_type
from server.services.contracts import SearchQuery
from server.web import requests
from server.web.compose import Injection, compose, envelope_sender
from server.web.objects import Message, MessageList, SearchResult, Summary
from server.web.requests import Call
from server.web.responses import NO_CONTENT, Headers, Reply, created, etag, ok

INJECTION_MAX: Final = 15 << 20  # bytes of JSON around a message of 10 MiB
_PAGE_MAX: Final = 100
_OFFSET_MAX: Final = 1_000_000
_PAGES_MAX: Final = 10_000
_PART: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){0,99}")  # RFC 3501 section 6.4.5
# bytes that came from a stranger are never a page of ours, whatever they claim to be
_FOREIGN: Final = ("Content-Security-Policy", "sandbox; default-src 'none'")


def _message_id(call: Call) -> str:
    message_id = call.segments[1]
    if not ids.valid(message_id):
        raise Refused("message_not_found")
    return message_id


async def page(call: Call) -> Reply:
    limit = requests.number(call.request, "limit", 50, 1, _PAGE_MAX)
    offset = requests.number(call.request, "offset", 0, 0, _OFFSET_MAX)
    before = requests.cursor(call.request)
    if before is not None and offset:
        raise Refused("field_invalid", "cursor or offset, not both", field="offset")
    stored, total = await call.parts.messages.page(call.mailbox, limit, offset, before)
    more = len(stored) == limit and (before is not None or offset + limit < total)
    following = requests.write_cursor(stored[-1].seq) if more else UNSET
    return ok(call.language, MessageList([Summary.of(one) for one in stored], total, following))


async def search(call: Call) -> Reply:
    asked = call.request
    query = SearchQuery(
        q=requests.text(asked, "q"),
        sender=requests.text(asked, "from"),
        subject=requests.text(asked, "subject"),
        start=requests.moment(asked, "startDate"),
        end=requests.moment(asked, "endDate", end=True),
        is_read=requests.boolean(asked, "isRead"),
        has_attachment=requests.boolean(asked, "hasAttachment"),
        page=requests.number(asked, "page", 1, 1, _PAGES_MAX),
        page_size=requests.number(asked, "pageSize", 20, 1, _PAGE_MAX),
    )
    found, total = await call.parts.messages.search(call.mailbox, query)
    pages = -(-total // query.page_size)
    result = SearchResult([Summary.of(one) for one in found], total, query.page, query.page_size, pages)
    return ok(call.language, result)


async def inject(call: Call) -> Reply:
    """Store a message as if SMTP had brought it; the answer is the message as a reader will find it."""
    injection = await requests.body(call.request, Injection, limit=INJECTION_MAX)
    sender = envelope_sender(injection)
    raw = compose(injection, call.mailbox.address, call.parts.config.smtp_domain)
    stored = await call.parts.messages.inject(call.mailbox, raw, sender, is_read=injection.is_read)
    content = await call.parts.messages.read(call.mailbox, stored.id)
    return created(call.language, Message.opened(content, untouched=False))


async def show(call: Call) -> Reply:
    """One message; ``?raw=1`` leaves its HTML as it came, for whoever shows it behind a boundary of their own."""
    untouched = requests.boolean(call.request, "raw") or False
    content = await call.parts.messages.read(call.mailbox, _message_id(call), sanitised=not untouched)
    return ok(call.language, Message.opened(content, untouched=untouched))


async def mark_read(call: Call) -> Reply:
    await call.parts.messages.mark_read(call.mailbox, _message_id(call))
    return NO_CONTENT


async def delete(call: Call) -> Reply:
    await call.parts.messages.delete(call.mailbox, _message_id(call))
    return NO_CONTENT


async def delete_all(call: Call) -> Reply:
    await call.parts.messages.delete_all(call.mailbox)
    return NO_CONTENT


async def raw(call: Call) -> Reply:
    """The message's own bytes, as they were received."""
    message_id = _message_id(call)
    content = await call.parts.messages.raw(call.mailbox, message_id)
    return _download(content, "message/rfc822", f"{message_id}.eml")


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
