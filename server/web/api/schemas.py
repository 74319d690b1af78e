"""The API's nouns as clients see them: field names, order and formats of mailboxes and messages.

Lives here: the structs an answer is encoded from, and how the product's own values become them.
Must not know: requests, statuses, or where the values come from.
"""

from datetime import UTC, datetime
from typing import Self

import msgspec
from msgspec import UNSET, UnsetType

from server.model.codes import Code
from server.model.message import Mailbox, Stored, StoredAttachment
from server.model.mime.invites import Invite
from server.services.contracts import Content


def rfc3339(moment: datetime) -> str:
    """``moment`` (aware) as RFC 3339 in UTC with milliseconds: ``2024-05-01T12:00:00.000Z``."""
    if moment.tzinfo is not UTC:
        try:
            moment = moment.astimezone(UTC)
        except OverflowError:  # the first or last hours of the calendar, where an offset leads out of it
            moment = moment.replace(tzinfo=UTC)
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


class MailboxObject(msgspec.Struct, rename="camel"):
    """A mailbox; ``token`` only where it was just made, ``expires_at`` only where it expires, ``disabled``
    only where the administrators have disabled it: it takes no mail then."""

    id: str
    address: str
    local_part: str
    domain: str
    created_at: str
    unread: int
    total: int
    token: str | UnsetType = UNSET
    expires_at: str | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET

    @classmethod
    def of(cls, mailbox: Mailbox, unread: int, total: int, token: str | UnsetType = UNSET) -> Self:
        return cls(
            id=mailbox.id,
            address=mailbox.address,
            local_part=mailbox.local_part,
            domain=mailbox.domain,
            created_at=rfc3339(mailbox.created_at),
            unread=unread,
            total=total,
            token=token,
            expires_at=UNSET if mailbox.expires_at is None else rfc3339(mailbox.expires_at),
            disabled=mailbox.disabled or UNSET,
        )


class Authentication(msgspec.Struct):
    """What is known of where a message came from: results of SPF, DKIM and DMARC in the words of RFC 8601 section 2.7,
    "none" too until they are known (moments after the message) and where checking is switched off.
    """

    spf: str
    dkim: str
    dmarc: str
    tls: bool


_DEFECTS = {
    "header bytes": "Its header is longer than 100 kB, or that of a part than 16 KiB; the rest of it is not read.",
    "header count": "It has more than 1,000 header fields, or its parts more than 10,000; the rest is not shown.",
    "depth": "Its parts are nested too deeply; the innermost are not shown.",
    "parts": "It has more than 1,000 parts or 200 attachments; the rest is not listed.",
    "boundaries": "Too many of its lines look like the border of a part; parts behind them are not told apart.",
    "text bytes": "Its text is longer than 1 MiB; the rest is not shown.",
    "html bytes": "Its HTML is longer than 2 MiB; the rest is not shown.",
}
_UNREAD = "It could not be read within bounds; it is complete as it was received."


class Header(msgspec.Struct):
    """One header field of a message, in the order it came; names repeat."""

    name: str
    value: str


class Extracted(msgspec.Struct):
    """What was found in a message, the likeliest first: each code, how sure it is (0 to 1) and whether it stands in the
    subject, the text or the HTML. Empty for mail of earlier releases.
    """

    codes: tuple[Code, ...]


class Summary(msgspec.Struct, rename="camel"):
    """A message in a list: everything but its text. ``has_attachments`` does not count what the HTML itself shows.
    ``invite`` is the first event of a calendar it brings. ``defect`` says why it is incomplete here.
    ``to`` is what its header says; ``delivered_to`` the addresses of
    this mailbox that its sender used (an alias, a plus tag), in lower case, and empty for mail of earlier releases.
    """

    id: str
    mailbox_id: str
    seq: int
    sender: str = msgspec.field(name="from")
    to: str
    delivered_to: tuple[str, ...]
    subject: str
    is_read: bool
    created_at: str
    received_at: str
    envelope_from: str
    cc: str
    reply_to: str
    date: str | None
    message_id: str
    preview: str
    size: int
    has_attachments: bool
    codes: tuple[str, ...]
    extracted: Extracted
    links: tuple[str, ...]
    auth: Authentication
    attachments: tuple[StoredAttachment, ...] | UnsetType = UNSET
    invite: Invite | UnsetType = UNSET
    defect: str | UnsetType = UNSET

    @classmethod
    def of(cls, stored: Stored) -> Self:
        received, details = rfc3339(stored.received_at), stored.details
        return cls(
            id=stored.id,
            mailbox_id=stored.mailbox_id,
            seq=stored.seq,
            sender=stored.sender,
            to=stored.to,
            delivered_to=details.delivered_to,
            subject=stored.subject,
            is_read=stored.is_read,
            created_at=received,
            received_at=received,
            envelope_from=stored.envelope_from,
            cc=details.cc,
            reply_to=details.reply_to,
            date=None if details.date is None else rfc3339(details.date),
            message_id=details.message_id,
            preview=stored.preview,
            size=stored.size,
            has_attachments=details.has_attachments,
            codes=details.codes,
            extracted=Extracted(details.extracted),
            links=details.links,
            auth=Authentication(details.spf, details.dkim, details.dmarc, details.tls),
            attachments=details.attachments or UNSET,
            invite=details.invite or UNSET,
            defect=UNSET if details.defect is None else _DEFECTS.get(details.defect, _UNREAD),
        )


class Message(Summary, rename="camel"):
    """A message opened."""

    text: str = ""
    html: str = ""
    headers: list[Header] = []

    @classmethod
    def opened(cls, content: Content, *, untouched: bool) -> Self:
        """``content`` with its HTML sanitised, or as it came where ``untouched``."""
        message = cls.of(content.stored)
        message.text = content.text
        message.html = content.html if untouched else content.safe_html
        message.headers = [Header(name, value) for name, value in content.headers]
        return message


class MessageList(msgspec.Struct, rename="camel"):
    """A page of a mailbox, newest first; ``count`` is of the whole mailbox, ``next_cursor`` absent on the last page."""

    items: list[Summary]
    count: int
    next_cursor: str | UnsetType = UNSET


class SearchResult(msgspec.Struct, rename="camel"):
    """A page of what a search found, newest first; ``total`` is of all pages."""

    messages: list[Summary]
    total: int
    page: int
    page_size: int
    total_pages: int
