"""Raw mail bytes to the values that are stored, listed and shown; the one place that decides what a mail "is".

Pure functions, bytes in and values out, no I/O and nothing async. Knows RFC 5322 and MIME through `mime_parts` and
`mime_text`; must not know mailboxes, SMTP, storage or HTTP. `html` is what the sender wrote: `sanitise` cleans it when
it is read.

Every string in a result is bounded and holds no NUL and no lone surrogate.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_tz

import msgspec

from server.model import extract, filenames, mime_parts, mime_text
from server.model.mime_parts import Budget, Leaf
from server.model.sanitise import html_to_text

MAX_SUBJECT = 1_000
MAX_ADDRESSES = 2_000
MAX_TEXT = 1_048_576
MAX_HTML = 2_097_152
MAX_PREVIEW = 200
CHEAP_BYTES = 1_048_576
_MAX_ATTACHMENTS = 200
_EARLIEST_YEAR = 1970
_LATEST_YEAR = 2100
_DAY = timedelta(days=1)

# RFC 5322 section 3.3; obsolete forms are left to the library.
_DATE = re.compile(
    rb"(?:[A-Za-z]{3,9}\s*,\s*)?(\d{1,2})\s+([A-Za-z]{3})\s+(\d{4})\s+(\d{1,2}):(\d\d)(?::(\d\d))?\s+([+-]\d\d)(\d\d)"
)
_MONTHS = {
    month: number
    for number, month in enumerate(
        (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"), 1
    )
}
_EXTENSIONS = {
    "application/ics": ".ics",
    "application/pdf": ".pdf",
    "application/zip": ".zip",
    "image/gif": ".gif",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "message/rfc822": ".eml",
    "text/calendar": ".ics",
    "text/html": ".html",
    "text/plain": ".txt",
}


class Attachment(msgspec.Struct, frozen=True):
    """A part to download. `number` is its stable part number as in IMAP ("2", "1.3"); `size` is in decoded bytes."""

    number: str
    filename: str
    content_type: str
    size: int


class Mail(msgspec.Struct, frozen=True):
    """A parsed message.

    `sender`, `to`, `cc`, `reply_to` are header text (`Name <a@b>`). `text` is the text/plain body, or is derived from
    `html` when there is none. `links` are ranked, `codes` are in order. `defect` names the bound that the message broke
    ("header bytes", "header count", "depth", "parts", "boundaries", "text bytes", "html bytes"), None if it broke none;
    such a mail is incomplete here and is shown raw.
    """

    subject: str
    sender: str
    to: str
    cc: str
    reply_to: str
    date: datetime | None
    message_id: str
    text: str
    html: str
    attachments: tuple[Attachment, ...]
    preview: str
    codes: tuple[str, ...]
    links: tuple[str, ...]
    defect: str | None


class _Content:
    """The bodies and attachments found so far, the charset of the first part and the first bound they broke."""

    __slots__ = ("attachments", "charset", "defect", "html", "text")

    def __init__(self) -> None:
        self.text = ""
        self.html = ""
        self.attachments: list[Attachment] = []
        self.charset = ""
        self.defect: str | None = None


def is_cheap(raw: bytes) -> bool:
    """Whether `parse(raw)` takes no more than about 20 ms of CPU whatever the message holds."""
    return len(raw) <= CHEAP_BYTES


def parse(raw: bytes, *, crlf: bool = False) -> Mail:
    """The values of any bytes at all; never raises. ``crlf``: it is known that no CR or LF stands alone in them."""
    head, body, broken = _head(raw)
    text, html, charset, attachments, defect = _bodies(raw, head, body, crlf=crlf) if body is not None else _NOTHING
    decode = mime_text.decode_header
    subject = decode(head[b"subject"], MAX_SUBJECT, charset) if b"subject" in head else ""
    return Mail(
        subject=subject,
        sender=decode(head[b"from"], MAX_ADDRESSES, charset, addresses=True) if b"from" in head else "",
        to=decode(head[b"to"], MAX_ADDRESSES, charset, addresses=True) if b"to" in head else "",
        cc=decode(head[b"cc"], MAX_ADDRESSES, charset, addresses=True) if b"cc" in head else "",
        reply_to=decode(head[b"reply-to"], MAX_ADDRESSES, charset, addresses=True) if b"reply-to" in head else "",
        date=_date(head[b"date"]) if b"date" in head else None,
        message_id=decode(head[b"message-id"], MAX_SUBJECT) if b"message-id" in head else "",
        text=text,
        html=html,
        attachments=tuple(attachments),
        preview=mime_text.preview(text, MAX_PREVIEW),
        codes=extract.codes(subject, text),
        links=extract.links(text, html),
        defect=broken or defect,
    )


def text(raw: bytes) -> str:
    """The `text` of `parse(raw)` alone."""
    head, body, _ = _head(raw)
    return _bodies(raw, head, body)[0] if body is not None else ""


def headers(raw: bytes) -> list[tuple[str, str]]:
    """(name, decoded value) of the header fields in order; at most 1,000 fields, read from the first 100 kB."""
    found = mime_parts.header_end(raw, 0, len(raw), mime_parts.MAX_HEADER_BYTES)
    block = raw[: found[0] if found else mime_parts.MAX_HEADER_BYTES]
    result: list[tuple[str, str]] = []
    for line in mime_text.unfold(block).split(b"\n", mime_parts.MAX_HEADERS)[: mime_parts.MAX_HEADERS]:
        name, colon, value = line.partition(b":")
        if colon and name.strip():
            title = mime_text.one_line(name.decode("ascii", "replace"), 200)
            result.append((title, mime_text.decode_header(value, mime_parts.MAX_HEADER_BYTES)))
    return result


def attachment(raw: bytes, number: str) -> tuple[Attachment, bytes] | None:
    """The part with this number and its decoded bytes (their exact size), None if there is none."""
    head, body, _ = _head(raw)
    if body is None:
        return None
    for leaf in mime_parts.leaves(raw, head, body, Budget(len(raw))):
        if leaf.number == number:
            data = mime_parts.body(raw, leaf)
            return _attachment(leaf, len(data)), data
    return None


def _head(raw: bytes) -> tuple[dict[bytes, bytes], int | None, str | None]:
    """(first value of each shown field, start of the body, None); no start but the broken bound if there is one."""
    found = mime_parts.header_end(raw, 0, len(raw), mime_parts.MAX_HEADER_BYTES)
    if found is None:
        return mime_parts.fields(raw[: mime_parts.MAX_HEADER_BYTES]), None, "header bytes"
    end, body = found
    block = raw[:end]
    head = mime_parts.fields(block)
    if end > mime_parts.MAX_HEADERS and _field_count(block) > mime_parts.MAX_HEADERS:
        return head, None, "header count"
    return head, body, None


def _field_count(block: bytes) -> int:
    return block.count(b"\n") - block.count(b"\n ") - block.count(b"\n\t")


_Bodies = tuple[str, str, str, Sequence[Attachment], str | None]
"""(text, html, charset of the first part, attachments, the bound that was broken)."""

_NOTHING: _Bodies = ("", "", "", (), None)


def _bodies(raw: bytes, head: dict[bytes, bytes], body: int, *, crlf: bool = False) -> _Bodies:
    media_type, parameters = mime_parts.media_type(head.get(b"content-type"))
    if _is_plain(head, media_type) and len(raw) - body <= MAX_TEXT:
        charset = parameters.get("charset", "")
        return mime_text.decode_lines(raw[body:], charset, crlf=crlf)[:MAX_TEXT], "", charset, (), None
    content = _content(raw, head, body)
    text, html = content.text, content.html
    if html and (not text or text.isspace()):
        text = html_to_text(html)
    return text, html, content.charset, content.attachments, content.defect


def _is_plain(head: dict[bytes, bytes], media_type: str) -> bool:
    """Whether the message is one text part as it stands, which is most mail: its bytes are the text."""
    return (
        media_type == "text/plain"
        and b"content-disposition" not in head
        and mime_parts.transfer_encoding(head) not in mime_parts.ENCODINGS
    )


def _content(raw: bytes, head: dict[bytes, bytes], body: int) -> _Content:
    """Each leaf to the text, the html or the attachments."""
    budget = Budget(len(raw))
    content = _Content()
    for index, leaf in enumerate(mime_parts.leaves(raw, head, body, budget)):
        if index == 0:
            content.charset = leaf.parameters.get("charset", "")
        _sort_out(raw, leaf, content)
    content.defect = budget.broken or content.defect
    return content


def _sort_out(raw: bytes, leaf: Leaf, content: _Content) -> None:
    if leaf.content_type == "text/plain" and _is_body(leaf, content.text):
        content.text = _append(raw, leaf, content, content.text, MAX_TEXT, "text bytes")
    elif leaf.content_type == "text/html" and _is_body(leaf, content.html):
        content.html = _append(raw, leaf, content, content.html, MAX_HTML, "html bytes")
    elif len(content.attachments) < _MAX_ATTACHMENTS:
        content.attachments.append(_attachment(leaf, mime_parts.decoded_size(raw, leaf)))
    else:
        content.defect = content.defect or "parts"


def _is_body(leaf: Leaf, body: str) -> bool:
    """Whether a text part is read in place rather than downloaded (as RFC 8621 section 4.1.4 tells them apart)."""
    if leaf.disposition == "attachment":
        return False
    if leaf.first or leaf.container == "multipart/alternative":
        return not body or not leaf.filename
    return leaf.container != "multipart/related" and not leaf.filename


def _append(raw: bytes, leaf: Leaf, content: _Content, before: str, limit: int, bound: str) -> str:
    """`before` and the leaf's text under it, at most `limit` characters."""
    room = limit - len(before)
    data = mime_parts.body(raw, leaf, room + 1) if room > 0 else b""
    if len(data) > room or room <= 0:
        content.defect = content.defect or bound
        data = data[:room]
    text = mime_text.decode_lines(data, leaf.parameters.get("charset", ""))[:room]
    return f"{before}\n{text}"[:limit] if before else text


def _attachment(leaf: Leaf, size: int) -> Attachment:
    filename = filenames.clean_filename(leaf.filename) if leaf.filename else ""
    if not filename:
        filename = f"part-{leaf.number}{_EXTENSIONS.get(leaf.content_type, '')}"
    return Attachment(leaf.number, filename, leaf.content_type, size)


def _date(value: bytes | None) -> datetime | None:
    """A Date field in UTC; None if it is absent, wrong or outside the years 1970 to 2100."""
    if not value:
        return None
    value = value[:200].strip()
    match = _DATE.match(value)
    try:
        moment = _rfc5322(match) if match else _obsolete(value)
    except (ValueError, OverflowError, KeyError, IndexError, TypeError):
        # The library's parser lets all of these out, depending on what the field holds.
        return None
    return moment if moment and _EARLIEST_YEAR <= moment.year <= _LATEST_YEAR else None


def _rfc5322(match: re.Match[bytes]) -> datetime:
    day, month, year, hour, minute, second, zone_hours, zone_minutes = match.groups()
    local = datetime(
        int(year), _MONTHS[month.lower()], int(day), int(hour), int(minute), min(int(second or 0), 59), 0, UTC
    )
    if zone_minutes == b"00" and zone_hours == b"+00":
        return local
    offset = timedelta(hours=int(zone_hours[1:]), minutes=int(zone_minutes))
    if offset > _DAY:
        raise ValueError("zone beyond a day")
    return local + offset if zone_hours.startswith(b"-") else local - offset


def _obsolete(value: bytes) -> datetime | None:
    parsed = parsedate_tz(value.decode("ascii", "replace"))
    if parsed is None:
        return None
    zone = timezone(timedelta(seconds=parsed[9] or 0))
    return datetime(*parsed[:5], min(parsed[5], 59), tzinfo=zone).astimezone(UTC)
