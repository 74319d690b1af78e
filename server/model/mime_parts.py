"""The structure of a message: header blocks, boundaries, leaves and their bytes, within bounds.

Pure functions over one `bytes`; parts are ranges into it and nothing is copied until a part is decoded. Nothing here
knows which part is shown as what (`mime`). A message/rfc822 part is a leaf: its inner message is an attachment.
"""

import binascii
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

import msgspec

from server.model import mime_text

MAX_DEPTH = 100
MAX_HEADER_BYTES = 100_000
MAX_HEADERS = 1_000
MAX_PARTS = 1_000
# Of all inner parts together; a part's own block is looked at up to MAX_PART_HEADER bytes.
MAX_PART_HEADERS = 10_000
MAX_PART_HEADER = 16_384
# Content-Transfer-Encodings that change the bytes; any other leaves them as they are (RFC 2045 section 6.4).
ENCODINGS = frozenset(("base64", "quoted-printable"))
# Lines that begin like a boundary without being one, over the whole message.
_MAX_FALSE_BOUNDARIES = 4_000
_MAX_VALUE = 32_768
_MAX_STRUCTURED = 8_192

# Most values of Content-Type up to this length are few and come again; longer ones hold a boundary or a file name.
_REPEATED_VALUE = 64
# The fields that `mime` and `leaves` look at, folds and all (RFC 5322 section 2.2.3). First letters stand apart because
# the engine passes over an alternative by its first letter at no cost, but not where case is ignored.
_FIELD = re.compile(
    rb"\n([Ss](?i:ubject)|[Ff](?i:rom)|[Tt](?i:o)|[Dd](?i:ate)|[Mm](?i:essage-id)|[Rr](?i:eply-to)|"
    rb"[Cc](?i:ontent-(?:type|transfer-encoding|disposition)|c))"
    rb"(?:[ \t\r\v\f]|\n[ \t])*:([^\n]*(?:\n[ \t][^\n]*)*)"
)


class Budget:
    """What a message may still cost to read, and the first bound it broke (`broken`)."""

    __slots__ = ("broken", "false_boundaries", "header_lines", "parts", "scan")

    def __init__(self, size: int) -> None:
        self.parts = MAX_PARTS
        self.header_lines = MAX_PART_HEADERS
        self.false_boundaries = _MAX_FALSE_BOUNDARIES
        # Each level of nesting searches its whole range again, so deep nesting of a large message is bounded by bytes.
        self.scan = 4 * size + 1_048_576
        self.broken: str | None = None

    def exceed(self, bound: str) -> None:
        """Notes the first broken bound."""
        self.broken = self.broken or bound


class Leaf(msgspec.Struct, frozen=True):
    """One part that is no multipart. `start` and `end` bound its encoded body; `first` is true of a first sibling."""

    number: str
    content_type: str
    parameters: Mapping[str, str]
    disposition: str
    filename: str
    encoding: str
    container: str
    first: bool
    start: int
    end: int


class _Node(msgspec.Struct):
    number: str
    start: int
    end: int
    depth: int
    container: str
    first: bool


def header_end(raw: bytes, start: int, end: int, limit: int) -> tuple[int, int] | None:
    """(end of the header block, start of the body) of the entity in raw[start:end], None if the block is over `limit`.

    A block that opens with an empty line is empty; one whose first line is no field belongs to the body.
    """
    if raw.startswith((b"\r\n", b"\n"), start, end):
        return start, raw.index(b"\n", start) + 1
    stop = min(end, start + limit)
    crlf = raw.find(b"\n\r\n", start, stop)
    lf = raw.find(b"\n\n", start, stop if crlf < 0 else crlf)
    if lf >= 0:
        return lf + 1, lf + 2
    if crlf >= 0:
        return crlf + 1, crlf + 3
    colon = raw.find(b":", start, min(stop, start + 1000))
    space = raw.find(b"\n", start, stop)
    if colon < 0 or (0 <= space < colon and not raw.startswith(b"From ", start)):
        return start, start
    return (end, end) if stop == end else None


def fields(block: bytes) -> dict[bytes, bytes]:
    """The first raw value of each field by lower-case name, unfolded, at most 32,768 bytes of it.

    Only the fields that are shown or tell the structure: Subject, From, To, Cc, Reply-To, Date, Message-ID,
    Content-Type, Content-Transfer-Encoding and Content-Disposition.
    """
    found: dict[bytes, bytes] = {name.lower(): value for name, value in reversed(_FIELD.findall(b"\n" + block))}
    for name, value in found.items():
        if b"\n" in value or len(value) > _MAX_VALUE:
            found[name] = mime_text.unfold(value)[:_MAX_VALUE]
    return found


def leaves(raw: bytes, head: dict[bytes, bytes], body: int, budget: Budget) -> Iterator[Leaf]:
    """The leaves of the message whose fields are `head` and whose body starts at `body`, in order.

    Broken bounds are noted in `budget`; what lies beyond them is passed over.
    """
    root = _Node(number="", start=body, end=len(raw), depth=0, container="", first=True)
    stack: list[_Node] = []
    yield from _visit(raw, head, root, stack, budget)
    while stack:
        node = stack.pop()
        found = header_end(raw, node.start, node.end, MAX_PART_HEADER)
        if found is None:
            budget.exceed("header bytes")
            found = node.start, node.start
        block = raw[node.start : found[0]]
        node.start = found[1]
        yield from _visit(raw, _part_fields(block, budget), node, stack, budget)


def _part_fields(block: bytes, budget: Budget) -> dict[bytes, bytes]:
    budget.header_lines -= block.count(b"\n")
    if budget.header_lines < 0:
        budget.exceed("header count")
        return {}
    return fields(block)


def _visit(raw: bytes, head: dict[bytes, bytes], node: _Node, stack: list[_Node], budget: Budget) -> Iterator[Leaf]:
    content_type, parameters = media_type(head.get(b"content-type"), node.container)
    if content_type.startswith("multipart/") and "boundary" in parameters:
        if node.depth >= MAX_DEPTH:
            budget.exceed("depth")
            return
        ranges = _split(raw, node.start, node.end, parameters["boundary"], budget)
        if ranges:
            stack.extend(reversed(_children(node, content_type, ranges)))
            return
    if content_type.startswith("multipart/"):
        content_type = "text/plain"
    yield _leaf(head, node, content_type, parameters)


def _children(node: _Node, container: str, ranges: list[tuple[int, int]]) -> list[_Node]:
    prefix = node.number + "." if node.number else ""
    return [
        _Node(f"{prefix}{index}", start, end, node.depth + 1, container, index == 1)
        for index, (start, end) in enumerate(ranges, 1)
    ]


def _leaf(head: dict[bytes, bytes], node: _Node, content_type: str, parameters: Mapping[str, str]) -> Leaf:
    disposition = ""
    disposition_parameters: Mapping[str, str] = {}
    if b"content-disposition" in head:
        disposition, disposition_parameters = _structured(head[b"content-disposition"])
    return Leaf(
        number=node.number or "1",
        content_type=content_type,
        parameters=parameters,
        disposition=disposition,
        filename=disposition_parameters.get("filename") or parameters.get("name", ""),
        encoding=transfer_encoding(head),
        container=node.container,
        first=node.first,
        start=node.start,
        end=node.end,
    )


def transfer_encoding(head: dict[bytes, bytes]) -> str:
    """The lower-case Content-Transfer-Encoding of the entity with these fields, "" if it has none."""
    value = head.get(b"content-transfer-encoding")
    if not value:
        return ""
    return value[:100].strip().lower().decode("ascii", "replace").partition(";")[0].partition(" ")[0]


def _structured(value: bytes) -> tuple[str, Mapping[str, str]]:
    text = mime_text.decode(value[:_MAX_STRUCTURED]).strip()
    return mime_text.parameters(mime_text.decode_words(text) if "=?" in text else text)


def media_type(value: bytes | None, container: str = "") -> tuple[str, Mapping[str, str]]:
    """(type/subtype, parameters), RFC 2045 section 5.2 where the field is missing or wrong."""
    default = "message/rfc822" if container == "multipart/digest" else "text/plain"
    if value is None:
        return default, {}
    return _repeated_media_type(value) if len(value) <= _REPEATED_VALUE else _media_type(value)


def _media_type(value: bytes) -> tuple[str, Mapping[str, str]]:
    content_type, parameters = _structured(value)
    main, slash, _ = content_type.partition("/")
    if slash and main and len(content_type) <= 200 and content_type.isascii() and content_type.isprintable():
        return content_type.replace(" ", ""), parameters
    return "text/plain", parameters


_repeated_media_type = lru_cache(maxsize=256)(_media_type)


def _split(raw: bytes, start: int, end: int, boundary: str, budget: Budget) -> list[tuple[int, int]]:
    """The ranges between the delimiter lines of a multipart body (RFC 2046 section 5.1.1)."""
    budget.scan -= end - start
    if budget.scan < 0:
        budget.exceed("depth")
        return []
    delimiter = b"\n--" + boundary.rstrip().encode("utf-8", "replace")
    ranges: list[tuple[int, int]] = []
    opened = -1
    # The body's first line has its line feed before the body.
    position = max(start - 1, 0)
    while (hit := raw.find(delimiter, position, end)) >= 0 and budget.parts > 0:
        position = hit + len(delimiter)
        closing, after = _delimiter_line(raw, position, end)
        if after < 0:
            budget.false_boundaries -= 1
            if budget.false_boundaries < 0:
                budget.exceed("boundaries")
                break
            continue
        if opened >= 0:
            ranges.append((opened, max(opened, hit - 1 if raw[hit - 1 : hit] == b"\r" else hit)))
        if closing:
            return ranges
        budget.parts -= 1
        opened = after
        position = max(position, after - 1)
    if budget.parts <= 0:
        budget.exceed("parts")
    elif opened >= 0:
        ranges.append((opened, end))
    return ranges


def _delimiter_line(raw: bytes, position: int, end: int) -> tuple[bool, int]:
    """(whether it closes, start of what follows) of the line whose delimiter ends at `position`; -1 if it is none."""
    if raw.startswith(b"--", position, end):
        return True, position
    line_end = raw.find(b"\n", position, min(end, position + 200))
    stop = end if line_end < 0 else line_end
    if stop - position > 200 or raw[position:stop].strip():
        return False, -1
    return False, min(stop + 1, end)


def body(raw: bytes, leaf: Leaf, limit: int | None = None) -> bytes:
    """The decoded bytes of a leaf, at most `limit` of them when given."""
    end = leaf.end
    if limit is not None:
        # Three encoded bytes for one is the most that base64 or quoted-printable take, but for soft line breaks.
        end = min(end, leaf.start + (3 * limit if leaf.encoding in ENCODINGS else limit))
    data = raw[leaf.start : end]
    if leaf.encoding == "base64":
        data = mime_text.base64_bytes(data)
    elif leaf.encoding == "quoted-printable":
        data = binascii.a2b_qp(data)
    return data[:limit]


def decoded_size(raw: bytes, leaf: Leaf) -> int:
    """Bytes of the decoded body: exact, but for base64 with foreign characters, where it is the nearest estimate."""
    start, end = leaf.start, leaf.end
    if leaf.encoding == "quoted-printable":
        return len(body(raw, leaf))
    if leaf.encoding != "base64":
        return end - start
    symbols = end - start - raw.count(b"\n", start, end) - raw.count(b"\r", start, end)
    symbols -= raw.count(b"=", max(start, end - 80), end)
    return symbols * 3 // 4
