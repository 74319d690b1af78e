"""Messages of a mailbox: listed, searched, opened, taken apart, injected, marked, deleted."""

import asyncio
import re
from functools import partial
from typing import Final

from server.model import ids
from server.model.errors import Refused
from server.model.mime.filenames import content_disposition, safe_content_type
from server.web import requests
from server.web.api import search_params
from server.web.api.message_list import first_page, later_page
from server.web.api.schemas import Message, MessageList, SearchResult, Summary
from server.web.compose import Injection, check_size, compose, envelope_sender, is_large
from server.web.description import describe
from server.web.query import Cursor, Flag, Number
from server.web.requests import Call
from server.web.responses import NO_CONTENT, Headers, Reply, created, etag, ok

_PART: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){0,99}")  # RFC 3501 section 6.4.5
# bytes that came from a stranger are never a page of ours, whatever they claim to be
_FOREIGN: Final = ("Content-Security-Policy", "sandbox; default-src 'none'")

_LIMIT: Final = Number("limit", "Messages on one page.", 50, 1, 100)
_OFFSET: Final = Number("offset", "Messages to leave out, counted from the newest.", 0, 0, 1_000_000)
_CURSOR: Final = Cursor("cursor", "`nextCursor` of the page before; steadier than `offset` while mail arrives.")
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
    response=MessageList,
    query=(_LIMIT, _OFFSET, _CURSOR),
)
async def page(call: Call) -> Reply:
    limit, offset, before = _LIMIT.of(call), _OFFSET.of(call), _CURSOR.of(call)
    if before is not None and offset:
        raise Refused("field_invalid", "cursor or offset, not both", field="offset")
    stored, total = await call.services.messages.page(call.mailbox, limit, offset, before)
    if before is None and not offset:
        return first_page(call.language, call.mailbox.id, limit, stored, total)
    more = len(stored) == limit and (before is not None or offset + limit < total)
    return later_page(call.language, stored, total, more=more)


@describe(
    "Search a mailbox",
    detail="Every parameter narrows the result; newest first.",
    response=SearchResult,
    query=(*search_params.CONDITIONS, _PAGE, _PAGE_SIZE),
)
async def search(call: Call) -> Reply:
    query = search_params.asked(call, _PAGE.of(call), _PAGE_SIZE.of(call))
    user_id = call.principal.user.id if call.principal else None
    with call.services.limits.searching(call.mailbox.id, call.client):
        found, total = await call.services.messages.search(call.mailbox, query, user_id, call.shares)
    pages = -(-total // query.page_size)
    result = SearchResult([Summary.of(one) for one in found], total, query.page, query.page_size, pages)
    reply = ok(call.language, result)
    return reply._replace(etag="") if "tag:" in query.q.lower() else reply  # a tag's name may change at any time


@describe(
    "Put a message into a mailbox",
    detail="It takes the way of mail that came by SMTP: numbered, counted, pushed. `raw` is a whole message (RFC 5322);"
    " without it one is made of the other fields, and `from` is required.",
    response=Message,
    status=201,
    body=Injection,
    example={"from": "alice@example.org", "subject": "Hello", "text": "Your code is 482193"},
    refuses=("mailbox_disabled", "mailbox_full", "message_too_big"),
)
async def inject(call: Call) -> Reply:
    """Store a message as if SMTP had brought it; the answer is the message as a reader will find it."""
    if call.mailbox.disabled:
        raise Refused("mailbox_disabled")
    injection = await requests.body(call, Injection, limit=requests.INJECTION_MAX)
    sender = envelope_sender(injection)
    check_size(injection, call.services.settings.current.smtp_max_message_bytes)
    composing = partial(compose, injection, call.mailbox.address, call.services.config.smtp_domain)
    raw = await asyncio.to_thread(composing) if is_large(injection) else composing()
    stored = await call.services.messages.inject(call.mailbox, raw, sender, call.client, is_read=injection.is_read)
    content = await call.services.messages.just_stored(call.mailbox, stored, call.shares)
    await call.turn(content.size())
    return created(call.language, Message.opened(content, untouched=False))


@describe(
    "Open a message",
    detail="With text, sanitised HTML and headers. Reading does not mark it as read.",
    response=Message,
    query=(_RAW,),
    refuses=("message_not_found",),
)
async def show(call: Call) -> Reply:
    """One message; ``?raw=1`` leaves its HTML as it came, for whoever shows it behind a boundary of their own."""
    untouched = _RAW.of(call) or False
    content = await call.services.messages.read(call.mailbox, _message_id(call), call.shares, sanitised=not untouched)
    await call.turn(content.size())
    return ok(call.language, Message.opened(content, untouched=untouched))


@describe("Mark a message as read", detail="Again is no error.", status=204, refuses=("message_not_found",))
async def mark_read(call: Call) -> Reply:
    await call.services.messages.mark_read(call.mailbox, _message_id(call))
    return NO_CONTENT


@describe("Delete a message", status=204, refuses=("message_not_found",))
async def delete(call: Call) -> Reply:
    await call.services.messages.delete(call.mailbox, _message_id(call))
    return NO_CONTENT


@describe("Delete all messages of a mailbox", status=204)
async def delete_all(call: Call) -> Reply:
    await call.services.messages.delete_all(call.mailbox)
    return NO_CONTENT


@describe("Download a message as it was received", media="message/rfc822", refuses=("message_not_found",))
async def raw(call: Call) -> Reply:
    """The message's own bytes, as they were received."""
    message_id = _message_id(call)
    content = await call.services.messages.raw(call.mailbox, message_id)
    await call.turn(len(content))
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
    file = await call.services.messages.attachment(call.mailbox, message_id, number, call.shares)
    await call.turn(len(file.content))
    return _download(file.content, safe_content_type(file.content_type), file.filename)


def _download(content: bytes, content_type: str, filename: str) -> Reply:
    headers: Headers = (
        ("Content-Type", content_type),
        ("Content-Disposition", content_disposition(filename)),
        _FOREIGN,
    )
    return Reply(200, content, etag(content), headers)
