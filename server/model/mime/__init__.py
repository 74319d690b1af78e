"""Raw mail bytes to the values that are stored, listed and shown; the one place that decides what a mail "is".

Pure functions, bytes in and values out, no I/O and nothing async. Knows RFC 5322 and MIME through `parts` and
`text`; must not know mailboxes, SMTP, storage or HTTP. `html` is what the sender wrote: `sanitise` cleans it when
it is read.

Every string in a result is bounded and holds no NUL and no lone surrogate.
"""

import html as html_entities
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_tz
from functools import lru_cache
from itertools import islice
from urllib.parse import unquote

import msgspec

from server.model import codes, html_page, links
from server.model.codes import Code
from server.model.html_page import Page
from server.model.mime import charsets, filenames, invites, parts, plaintext, rtf, transfer_encoding
from server.model.mime import text as mime_text
from server.model.mime import views as mime_views
from server.model.mime.charsets import Guess
from server.model.mime.invites import Invite
from server.model.mime.parts import Budget, Leaf
from server.model.mime.plaintext import File
from server.model.mime.views import HTML_TYPES

MAX_SUBJECT = 1_000
MAX_ADDRESSES = 2_000
MAX_TEXT = 1_048_576
MAX_HTML = 2_097_152
MAX_PREVIEW = 200
CHEAP_BYTES = 1_048_576
_CHEAP_ALWAYS = 32_768
_CHEAP_HTML = 131_072
_CHEAP_TAGS = 1_500
# Types and names of what is opened, and encodings in which tags are not seen.
_CONTAINERS = (b"tnef", b"pkcs7", b"octet-stream")
_HIDING = (b"base64", b"b64", b"uue", b"utf-7", b"utf7", b"utf-16", b"utf16")
_MAX_ATTACHMENTS = 200
_EARLIEST_YEAR = 1970
_LATEST_YEAR = 2100
_DAY = timedelta(days=1)
# Bytes of a Date field that are looked at. What comes at once was sent in the same second, so fields are remembered.
_DATE_FIELD = 200

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
_OCTETS = "application/octet-stream"
_CALENDARS = frozenset(("text/calendar", "application/ics"))
# Where HTML names what it shows: attributes and CSS.
_REFERENCE = re.compile(
    r"(?:\b(?:src|srcset|background|data|poster)\s{0,5}=\s{0,5}|\burl\(\s{0,5})"
    r"(?:\"([^\"]{1,1000})\"|'([^']{1,1000})'|([^\s\"'<>)]{1,1000}))",
    re.IGNORECASE,
)
_MAX_REFERENCES = 2_000
_MAX_REFERRING = 524_288
_MAX_CALENDARS = 3
_MAX_CALENDAR = 262_144
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
    """A part to download. `number` is its stable part number as in IMAP ("2", "1.3"); what a part itself holds (a file
    in uuencode, say) counts on below it. `size` is in decoded bytes. `disposition` is "inline", "attachment" or "".
    `inline`: the html shows it.
    """

    number: str
    filename: str
    content_type: str
    size: int
    content_id: str = ""
    disposition: str = ""
    inline: bool = False


class Mail(msgspec.Struct, frozen=True):
    """A parsed message.

    `sender`, `to`, `cc`, `reply_to` are header text (`Name <a@b>`). `text` is the text/plain body, or is derived from
    `html` when there is none. `links` and `codes` are ranked, `extracted` says more of the codes. `invite` is of the
    first calendar. `defect` names the bound that the message broke ("header bytes", "header count", "depth", "parts",
    "boundaries", "text bytes", "html bytes"), None if it broke none; such a mail is incomplete here.
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
    invite: Invite | None = None
    extracted: tuple[Code, ...] = ()


class _Content:
    """The bodies and attachments found so far, the charset of the first part and the first bound they broke."""

    __slots__ = ("attachments", "charset", "defect", "html", "invite", "is_derived", "text")

    def __init__(self, text: str = "", charset: str = "") -> None:
        self.text = text
        self.html = ""
        self.attachments: list[Attachment] = []
        self.charset = charset
        self.defect: str | None = None
        self.invite: Invite | None = None
        # The text is what the html shows.
        self.is_derived = False


def is_cheap(raw: bytes) -> bool:
    """Whether `parse(raw)` takes no more than about 20 ms of CPU whatever the message holds.

    Tags are what costs: 32 KiB of anything, 128 KiB with few tags, 1 MiB without HTML and without what may hold some.
    """
    if len(raw) <= _CHEAP_ALWAYS:
        return True
    # A NUL or an escape may hide the name of a type.
    if len(raw) > CHEAP_BYTES or b"\0" in raw or b"\x1b" in raw:
        return False
    lower = raw.lower()
    if any(map(lower.__contains__, _CONTAINERS)):
        return False
    if b"html" not in lower:
        return True
    tags = raw.count(b"<") + lower.count(b"=3c")
    encoded = any(map(lower.__contains__, _HIDING))
    return len(raw) <= _CHEAP_HTML and tags <= _CHEAP_TAGS and not encoded


def parse(raw: bytes, *, crlf: bool = False) -> Mail:
    """The values of any bytes at all; never raises. ``crlf``: it is known that no CR or LF stands alone in them."""
    head, body, broken = _head(raw)
    guess = Guess(head, raw)
    content = _content(raw, head, body, guess, crlf=crlf)
    charset, text, html = content.charset, content.text, content.html
    decode = mime_text.decode_header
    subject = decode(head[b"subject"], MAX_SUBJECT, charset, guess=guess) if b"subject" in head else ""
    extracted, page = _extracted(subject, content)
    return Mail(
        subject=subject,
        sender=_addresses(head, b"from", charset, guess),
        to=_addresses(head, b"to", charset, guess),
        cc=_addresses(head, b"cc", charset, guess),
        reply_to=_addresses(head, b"reply-to", charset, guess),
        date=_date(head[b"date"]) if b"date" in head else None,
        message_id=decode(head[b"message-id"], MAX_SUBJECT) if b"message-id" in head else "",
        text=text,
        html=html,
        attachments=tuple(content.attachments),
        preview=mime_text.preview(text, MAX_PREVIEW),
        codes=tuple([code.value for code in extracted]),
        extracted=extracted,
        links=links.find(text, page.anchors),
        defect=broken or content.defect,
        invite=content.invite,
    )


def _extracted(subject: str, content: _Content) -> tuple[tuple[Code, ...], Page]:
    """The codes of the text, or of the HTML where the text has none: often it only says that there is HTML. And what
    the HTML shows, which is read only where a link or such a code may be in it.
    """
    html = content.html
    if content.is_derived:
        return codes.find(subject, content.text, "html"), html_page.read(html)
    found = codes.find(subject, content.text)
    if not html or not (html_page.may_be_clicked(html) or (not found and _may_have_code(subject, html))):
        return found, html_page.EMPTY
    page = html_page.read(html)
    return found if found or not page.text else codes.find(subject, page.text, "html"), page


def _may_have_code(subject: str, html: str) -> bool:
    text = html_page.loose_text(html)
    return text is None or codes.may_be_in(subject, text)


def _addresses(head: Mapping[bytes, bytes], name: bytes, charset: str, guess: Guess) -> str:
    if name not in head:
        return ""
    return mime_text.decode_header(head[name], MAX_ADDRESSES, charset, addresses=True, guess=guess)


def views(raw: bytes) -> tuple[str, str]:
    """The `text` and the `html` of `parse(raw)` alone."""
    head, body, _ = _head(raw)
    content = _content(raw, head, body, Guess(head, raw))
    return content.text, content.html


def headers(raw: bytes) -> list[tuple[str, str]]:
    """(name, decoded value) of the header fields in order; at most 1,000 fields, read from the first 100 kB."""
    block = raw[: parts.header_end(raw, 0, len(raw), parts.MAX_HEADER_BYTES).end]
    guess = Guess(parts.fields(block), raw)
    result: list[tuple[str, str]] = []
    for line in mime_text.unfold(block).split(b"\n", parts.MAX_HEADERS)[: parts.MAX_HEADERS]:
        name, colon, value = line.partition(b":")
        if colon and name.strip():
            title = mime_text.one_line(name.decode("ascii", "replace"), 200)
            result.append((title, mime_text.decode_header(value, parts.MAX_HEADER_BYTES, guess=guess)))
    return result


def attachment(raw: bytes, number: str) -> tuple[Attachment, bytes] | None:
    """The part with this number and its decoded bytes (their exact size), None if there is none."""
    head, body, _ = _head(raw)
    guess = Guess(head, raw)
    for leaf in parts.leaves(raw, head, body, Budget(len(raw)), guess):
        if leaf.number == number:
            data = parts.body(leaf)
            return _attachment(leaf, len(data), frozenset()), data
        if number.startswith(leaf.number + ".") and mime_views.is_text(leaf.content_type):
            files = plaintext.split_files(parts.text_body(leaf, MAX_TEXT))[1]
            for nth, file in enumerate(files, 1):
                if number == f"{leaf.number}.{nth}":
                    return _from_file(leaf, nth, file, guess)
    return None


def _head(raw: bytes) -> tuple[dict[bytes, bytes], int, str | None]:
    """(first value of each shown field, start of the body, the bound that the header block broke)."""
    found = parts.header_end(raw, 0, len(raw), parts.MAX_HEADER_BYTES)
    head = parts.header_fields(raw, 0, found)
    if found.over:
        return head, found.body, "header bytes"
    many = found.end > parts.MAX_HEADERS and _field_count(raw[: found.end]) > parts.MAX_HEADERS
    return head, found.body, "header count" if many else None


def _field_count(block: bytes) -> int:
    return block.count(b"\n") - block.count(b"\n ") - block.count(b"\n\t")


def _content(raw: bytes, head: Mapping[bytes, bytes], body: int, guess: Guess, *, crlf: bool = False) -> _Content:
    if len(raw) - body <= MAX_TEXT and _is_plain(head):
        kind, parameters = parts.content_type(raw, head, body, len(raw), guess=guess)
        data = raw[body:]
        if kind == "text/plain" and "format" not in parameters and b"begin " not in data:
            charset = parameters.get("charset", "")
            if not data.isascii() and charsets.says_nothing(data, charset):
                guess.add(data)
            text = mime_text.decode_lines(data, charset, crlf=crlf, guess=guess)[:MAX_TEXT]
            return _Content(plaintext.whole_urls(text), charset)
    return _structured(raw, head, body, guess)


def _is_plain(head: Mapping[bytes, bytes]) -> bool:
    """Whether the body is read as it stands, which is most mail."""
    return b"content-disposition" not in head and not transfer_encoding.encoding_of(
        head.get(b"content-transfer-encoding")
    )


def _structured(raw: bytes, head: Mapping[bytes, bytes], body: int, guess: Guess) -> _Content:
    """Each leaf to the text, the html or the attachments."""
    budget = Budget(len(raw))
    content = _Content()
    leaves = list(parts.leaves(raw, head, body, budget, guess))
    content.charset = leaves[0].parameters.get("charset", "") if leaves else ""
    shown = [leaf for leaf in leaves if not leaf.opened and leaf.container != parts.TNEF_BODY]
    views = mime_views.views(shown)
    if not views.text and not views.html and len(shown) < len(leaves):
        bodies = [leaf for leaf in leaves if leaf.container == parts.TNEF_BODY]
        views = mime_views.with_bodies(views, bodies)
    read = _Reading(views, content, guess)
    content.text, content.html = read.text(views.text), read.html(views.html)
    if content.html and (not content.text or content.text.isspace()):
        content.text = html_page.html_to_text(content.html)
        content.is_derived = True
    _list(views, read, content, guess)
    content.defect = budget.broken or content.defect
    return content


class _Reading:
    """The parts that are read in place: fetched at once, so that what one is written in is judged by all of them."""

    def __init__(self, views: mime_views.Views, content: _Content, guess: Guess) -> None:
        self._content, self._guess = content, guess
        self.files: dict[str, tuple[Leaf, tuple[File, ...]]] = {}
        self._data: dict[str, tuple[bytes, str]] = {}
        rooms = {"text": MAX_TEXT, "html": MAX_HTML}
        for leaf in (*views.text, *views.html):
            if leaf.number not in self._data:
                self._data[leaf.number] = self._fetched(leaf, rooms)

    def _fetched(self, leaf: Leaf, rooms: dict[str, int]) -> tuple[bytes, str]:
        """(the part's bytes, its charset's label), at most as many of each kind as there is room for."""
        kind = "html" if leaf.content_type in HTML_TYPES else "text"
        room = rooms[kind]
        data = parts.text_body(leaf, room + 1) if room > 0 else b""
        if len(data) > room or room <= 0:
            self._content.defect = self._content.defect or f"{kind} bytes"
            data = data[:room]
        rooms[kind] -= len(data)
        label = leaf.parameters.get("charset", "")
        if kind == "html" and charsets.codec_of(label) is None:
            label = charsets.in_html(data) or label
        elif kind == "text" and b"begin " in data:
            data, files = plaintext.split_files(data)
            if files:
                self.files[leaf.number] = (leaf, files)
        if charsets.says_nothing(data, label):
            self._guess.add(data)
        return data, label

    def _shown(self, leaf: Leaf) -> str:
        data, label = self._data[leaf.number]
        if leaf.content_type == parts.TNEF_RTF:
            return rtf.text(rtf.unpacked(data))
        text = mime_text.decode_lines(data, label, guess=self._guess)
        if leaf.content_type in HTML_TYPES:
            return text
        return plaintext.shown(text, leaf.content_type.partition("/")[2], leaf.parameters)

    def text(self, leaves: Sequence[Leaf]) -> str:
        """The text view: parts under each other, HTML as text."""
        if not any(leaf.content_type not in HTML_TYPES for leaf in leaves):
            return ""
        shown = [
            html_page.html_to_text(self._shown(leaf)) if leaf.content_type in HTML_TYPES else self._shown(leaf)
            for leaf in leaves
        ]
        return "\n".join(filter(None, shown))[:MAX_TEXT]

    def html(self, leaves: Sequence[Leaf]) -> str:
        """The HTML view: parts under each other, text marked up; "" where no part is HTML."""
        if not any(leaf.content_type in HTML_TYPES for leaf in leaves):
            return ""
        shown = [
            self._shown(leaf) if leaf.content_type in HTML_TYPES else _marked_up(self._shown(leaf)) for leaf in leaves
        ]
        return "\n".join(filter(None, shown))[:MAX_HTML]


def _marked_up(text: str) -> str:
    return f'<div style="white-space: pre-wrap">{html_entities.escape(text)}</div>' if text else ""


def _list(views: mime_views.Views, read: _Reading, content: _Content, guess: Guess) -> None:
    """The attachments, in the order of the parts, and the invitation."""
    references = _references(views, content.html)
    calendars = 0
    for leaf in views.attachments:
        if (
            content.invite is None
            and calendars < _MAX_CALENDARS
            and (leaf.content_type in _CALENDARS or leaf.filename.lower().endswith(".ics"))
        ):
            calendars += 1
            text = charsets.decode(parts.body(leaf, _MAX_CALENDAR), leaf.parameters.get("charset", "utf-8"))
            content.invite = invites.invite(text, leaf.parameters.get("method", ""))
        if len(content.attachments) >= _MAX_ATTACHMENTS:
            content.defect = content.defect or "parts"
            continue
        content.attachments.append(_attachment(leaf, parts.decoded_size(leaf), references))
    for leaf, files in read.files.values():
        room = _MAX_ATTACHMENTS - len(content.attachments)
        content.attachments += [_from_file(leaf, nth, file, guess)[0] for nth, file in enumerate(files[:room], 1)]


def _from_file(leaf: Leaf, nth: int, file: File, guess: Guess) -> tuple[Attachment, bytes]:
    data = transfer_encoding.uuencoded(file.lines)
    number = f"{leaf.number}.{nth}"
    filename = filenames.clean_filename(mime_text.decode_header(file.name, 255, guess=guess)) or f"part-{number}"
    return Attachment(number, filename, _OCTETS, len(data), disposition="attachment"), data


def _attachment(leaf: Leaf, size: int, references: frozenset[str]) -> Attachment:
    filename = filenames.clean_filename(leaf.filename) if leaf.filename else ""
    if not filename:
        filename = f"part-{leaf.number}{_EXTENSIONS.get(leaf.content_type, '')}"
    inline = bool(references) and (leaf.content_id in references or leaf.location in references)
    return Attachment(leaf.number, filename, leaf.content_type, size, leaf.content_id, leaf.disposition, inline)


def _references(views: mime_views.Views, html: str) -> frozenset[str]:
    """What the html shows of the message's own parts, by Content-ID (RFC 2392) or Content-Location (RFC 2557)."""
    if not html or not any(leaf.content_id or leaf.location for leaf in views.attachments):
        return frozenset()
    found = islice(_REFERENCE.finditer(html[:_MAX_REFERRING]), _MAX_REFERENCES)
    values = {html_entities.unescape(match[1] or match[2] or match[3] or "").strip() for match in found}
    # Of several in one attribute each ends at white space or a comma.
    values |= {piece for value in values if " " in value for piece in value.replace(",", " ").split()}
    shown = {value[4:] if value[:4].lower() == "cid:" else value for value in values}
    return frozenset(shown | {unquote(value) for value in shown}) - {""}


def _date(value: bytes | None) -> datetime | None:
    """A Date field in UTC; None if it is absent, wrong or outside the years 1970 to 2100."""
    return _moment(value[:_DATE_FIELD]) if value else None


@lru_cache(maxsize=256)
def _moment(value: bytes) -> datetime | None:
    value = value.strip()
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
