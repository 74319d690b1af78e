"""The structure of a message: header blocks, boundaries, leaves and their bytes, within bounds.

Pure functions over one `bytes`; parts are ranges into it and nothing is copied until a part is decoded. Nothing here
knows which part is shown as what (`mime`). A message/rfc822 part is a leaf: its inner message is an attachment.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

import msgspec

from server.model.mime import containers, transfer_encoding
from server.model.mime import text as mime_text
from server.model.mime.charsets import Guess, decode

MAX_DEPTH = 100
MAX_HEADER_BYTES = 100_000
MAX_HEADERS = 1_000
MAX_PARTS = 1_000
# Of all inner parts together; a part's own block is looked at up to MAX_PART_HEADER bytes.
MAX_PART_HEADERS = 10_000
MAX_PART_HEADER = 16_384
# Lines that begin like a boundary without being one, over the whole message.
_MAX_FALSE_BOUNDARIES = 4_000
_MAX_VALUE = 32_768
_MAX_IDENTIFIER = 500
# Parts of a multipart/related among which its root is looked for.
_ROOT_SOUGHT = 50
_MAX_CONTAINERS = 5
_SIGNED = frozenset(("application/pkcs7-mime", "application/x-pkcs7-mime"))
_TNEF = frozenset(("application/ms-tnef", "application/vnd.ms-tnef"))
_CONTAINER_NAMES = ("winmail.dat", "win.dat", ".p7m")
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,90}/[a-z0-9!#$&^_.+-]{1,90}")
# The container of the text that TNEF brings; it is shown where the message has no other.
TNEF_BODY = "tnef"
# It is compressed there.
TNEF_RTF = "text/rtf"
SECOND_TYPE = b"content-type, second"
_MAX_STRUCTURED = 4_096
# The same of all parts together; of those behind so many only a short beginning is read.
_MAX_ALL_STRUCTURED = 131_072
_STRUCTURED_BEHIND = 400

# Most values of Content-Type up to this length are few and come again; longer ones hold a boundary or a file name.
_REPEATED_VALUE = 64
# The fields that `mime` and `leaves` look at, folds and all (RFC 5322 section 2.2.3). First letters stand apart because
# the engine passes over an alternative by its first letter at no cost, but not where case is ignored.
_FIELD = re.compile(
    rb"\n([Ss](?i:ubject)|[Ff](?i:rom)|[Tt](?i:o)|[Dd](?i:ate)|[Mm](?i:essage-id)|[Rr](?i:eply-to)|"
    rb"[Cc](?i:ontent-(?:type|transfer-encoding|disposition|id|location)|c))"
    rb"(?:[ \t\r\v\f]|\n[ \t])*:([^\n]*(?:\n[ \t][^\n]*)*)"
)
# A line that neither is a field nor goes on with one (RFC 5322 section 2.2), nor is the first line of an mbox.
_NO_FIELD = re.compile(rb"\n[!-9;-\xff]++(?![ \t]*+:)(?<!\nFrom)(?<!\n>From)")
_FIRST_LINE = re.compile(rb"[!-9;-\xff]++(?:[ \t]*:|(?<=From) )|[ \t]|\Z")
_USUAL_PREAMBLE = re.compile(rb"\bMIME\b|multi-?part", re.IGNORECASE)
_FIRST_DELIMITER = re.compile(rb"\s*--([!-~]{1,200}?)[ \t]*\r?\n")
_TORN = re.compile(rb"[A-Za-z*0-9-]{1,40}=")
_TORN_OFF = re.compile(rb";[ \t\r]*\n(?=[A-Za-z*0-9-]{1,40}=)")
# Fields behind such a line tell that it is a broken line of the header block and not the beginning of the body.
_SURELY_FIELD = re.compile(
    rb"\n(from|to|cc|bcc|sender|subject|date|message-id|mime-version|received|return-path|reply-to|delivered-to|in-reply-to|"
    rb"references|user-agent|importance|precedence|auto-submitted|feedback-id|errors-to|dkim-signature|"
    rb"authentication-results|(?:x|list|arc|thread|resent)-[a-z0-9-]+|content-(?:type|transfer-encoding|disposition|id))"
    rb"[ \t]*:",
    re.IGNORECASE,
)


class Budget:
    """What a message may still cost to read, and the first bound it broke (`broken`)."""

    __slots__ = ("broken", "containers", "false_boundaries", "header_lines", "parts", "scan", "structured")

    def __init__(self, size: int) -> None:
        self.parts = MAX_PARTS
        self.containers = _MAX_CONTAINERS
        self.header_lines = MAX_PART_HEADERS
        self.structured = _MAX_ALL_STRUCTURED
        self.false_boundaries = _MAX_FALSE_BOUNDARIES
        # Each level of nesting searches its whole range again, so deep nesting of a large message is bounded by bytes.
        self.scan = 4 * size + 1_048_576
        self.broken: str | None = None

    def exceed(self, bound: str) -> None:
        """Notes the first broken bound."""
        self.broken = self.broken or bound


class Multipart(msgspec.Struct, frozen=True):
    """What is around a part."""

    number: str
    subtype: str


class Leaf(msgspec.Struct, frozen=True):
    """One part that is no multipart. `start` and `end` bound its encoded body in `raw`; `first` is true of the sibling
    that its multipart begins with (of a multipart/related: its root). `path` is of the multiparts around it, the
    outermost first. `opened`: it is a container, and what it holds are leaves of their own.
    """

    number: str
    content_type: str
    parameters: Mapping[str, str]
    disposition: str
    filename: str
    encoding: str
    container: str
    first: bool
    path: tuple[Multipart, ...]
    content_id: str
    location: str
    raw: bytes
    start: int
    end: int
    opened: bool = False


class _Node(msgspec.Struct):
    number: str
    raw: bytes
    start: int
    end: int
    container: str
    first: bool
    path: tuple[Multipart, ...]


class Head(msgspec.Struct, frozen=True):
    """A header block: raw[start:end], with the body behind it. `over`: it goes on beyond what was to be looked at.
    `torn`: a parameter is at the beginning of a line.
    """

    end: int
    body: int
    over: bool
    torn: bool = False


def header_end(raw: bytes, start: int, end: int, limit: int) -> Head:
    """The header block of the entity in raw[start:end], at most `limit` bytes of it.

    A block that opens with an empty line is empty. It ends before a line that is no field, unless more of the fields of
    mail stand behind that: then the line is broken.
    """
    if raw.startswith((b"\r\n", b"\n"), start, end):
        return Head(start, raw.index(b"\n", start) + 1, False)
    stop = min(end, start + limit)
    block, body = _empty_line(raw, start, stop)
    if block < 0:
        block, body = (stop, _empty_line(raw, stop, end)[1]) if stop < end else (end, end)
    torn = False
    odd = start if not _FIRST_LINE.match(raw, start, block) else -1
    if odd < 0 and (match := _NO_FIELD.search(raw, start, block)):
        odd = match.start() + 1
        if _TORN.match(raw, odd) and raw[start:odd].rstrip().endswith(b";"):
            torn = True
            match = _NO_FIELD.search(raw, odd, block)
            odd = match.start() + 1 if match else -1
    if odd >= 0 and not _goes_on(raw, start, odd, block):
        return Head(odd, odd, False, torn)
    return Head(block, end if body < 0 else body, stop < end and block == stop, torn)


def header_fields(raw: bytes, start: int, found: Head) -> dict[bytes, bytes]:
    """The fields of a header block, also of one that has lost the space in front of a parameter."""
    block = raw[start : found.end]
    return fields(_TORN_OFF.sub(b";\n ", block) if found.torn else block)


def _empty_line(raw: bytes, start: int, stop: int) -> tuple[int, int]:
    """(its start, the start of what follows) of the first empty line; -1 if there is none."""
    crlf = raw.find(b"\n\r\n", start, stop)
    lf = raw.find(b"\n\n", start, stop if crlf < 0 else crlf)
    if lf >= 0:
        return lf + 1, lf + 2
    return (crlf + 1, crlf + 3) if crlf >= 0 else (-1, -1)


def _goes_on(raw: bytes, start: int, odd: int, end: int) -> bool:
    """Whether the block goes on behind the line at `odd`, which is no field: with a field of mail that was not there
    yet, or with nothing but fields.
    """
    if raw.startswith(b"--", odd):
        # The border of a part.
        return False
    behind = {match[1].lower() for match in _SURELY_FIELD.finditer(raw, odd, end)}
    if not behind:
        return False
    before = {match[1].lower() for match in _SURELY_FIELD.finditer(b"\n" + raw[start:odd])}
    return not behind <= before or not _NO_FIELD.search(raw, odd, end)


def fields(block: bytes) -> dict[bytes, bytes]:
    """The first raw value of each field by lower-case name, unfolded, at most 32,768 bytes of it.

    Only the fields that are shown or tell the structure: Subject, From, To, Cc, Reply-To, Date, Message-ID and
    Content-*. A second Content-Type is under `SECOND_TYPE`.
    """
    found = _FIELD.findall(b"\n" + block)
    first: dict[bytes, bytes] = {name.lower(): value for name, value in reversed(found)}
    if len(first) != len(found):
        types = [value for name, value in found if name.lower() == b"content-type"]
        if len(types) > 1:
            first[SECOND_TYPE] = types[1]
    # One look at all of them is enough for most mail.
    values = b"".join(first.values())
    if b"\n" in values or len(values) > _MAX_VALUE:
        for name, value in first.items():
            if b"\n" in value or len(value) > _MAX_VALUE:
                first[name] = mime_text.unfold(value)[:_MAX_VALUE]
    return first


def content_type(
    raw: bytes, head: Mapping[bytes, bytes], start: int, end: int, container: str = "", guess: Guess | None = None
) -> tuple[str, Mapping[str, str]]:
    """(type/subtype, parameters) of the entity whose body is raw[start:end].

    Of two Content-Types the first counts, as in most mail programs, unless the body is a multipart by the second alone
    and there is no text in front of its first part.
    """
    found = media_type(head.get(b"content-type"), container, guess)
    if SECOND_TYPE not in head or _preamble(raw, start, end, found[1]) is not None:
        return found
    second = media_type(head[SECOND_TYPE], container, guess)
    preamble = _preamble(raw, start, end, second[1]) if second[0].startswith("multipart/") else None
    if preamble is not None and (not preamble or _USUAL_PREAMBLE.search(preamble)):
        return second
    return second if found[0].startswith("multipart/") else found


def _preamble(raw: bytes, start: int, end: int, parameters: Mapping[str, str]) -> bytes | None:
    """What is in front of the first delimiter, at most 200 bytes of it; None if there is no delimiter."""
    boundary = parameters.get("boundary")
    first = raw.find(_delimiter(boundary), max(start - 1, 0), end) if boundary else -1
    return raw[start : max(start, first)].strip()[:200] if first >= 0 else None


def leaves(
    raw: bytes, head: Mapping[bytes, bytes], body: int, budget: Budget, guess: Guess | None = None
) -> Iterator[Leaf]:
    """The leaves of the message whose fields are `head` and whose body starts at `body`, in order.

    Broken bounds are noted in `budget`; what lies beyond them is passed over.
    """
    root = _Node(number="", raw=raw, start=body, end=len(raw), container="", first=True, path=())
    stack: list[_Node] = []
    yield from _visit(head, root, stack, budget, guess)
    while stack:
        node = stack.pop()
        yield from _visit(_part_fields(node, budget), node, stack, budget, guess)


def _part_fields(node: _Node, budget: Budget) -> Mapping[bytes, bytes]:
    """The fields of a part; afterwards the node begins at its body."""
    start = node.start
    found = header_end(node.raw, start, node.end, MAX_PART_HEADER)
    if found.over:
        budget.exceed("header bytes")
    block = node.raw[node.start : found.end]
    node.start = found.body
    budget.header_lines -= block.count(b"\n")
    if budget.header_lines < 0:
        budget.exceed("header count")
        return {}
    head = header_fields(node.raw, start, found)
    for name in (b"content-type", b"content-disposition"):
        value = head.get(name, b"")
        if len(value) > _STRUCTURED_BEHIND:
            budget.structured -= len(value)
            if budget.structured < 0:
                head[name] = value[:_STRUCTURED_BEHIND]
    return head


def _visit(
    head: Mapping[bytes, bytes], node: _Node, stack: list[_Node], budget: Budget, guess: Guess | None
) -> Iterator[Leaf]:
    kind, parameters = content_type(node.raw, head, node.start, node.end, node.container, guess)
    if kind.startswith("multipart/") and (boundary := _boundary(node, parameters)):
        if len(node.path) >= MAX_DEPTH:
            budget.exceed("depth")
            return
        ranges = _split(node.raw, node.start, node.end, boundary, budget)
        if not ranges and boundary.endswith(")"):
            # RFC 2045 section 5.1 allows a comment there.
            ranges = _split(node.raw, node.start, node.end, boundary.rpartition("(")[0], budget)
        if ranges:
            stack.extend(reversed(_children(node, kind, parameters, ranges)))
            return
    leaf = _leaf(head, node, "text/plain" if kind.startswith("multipart/") else kind, parameters, guess)
    inner = _opened(leaf, node, stack, budget) if _is_container(leaf) and budget.containers > 0 else None
    if inner is None:
        yield leaf
        return
    budget.containers -= 1
    yield msgspec.structs.replace(leaf, opened=True)
    yield from inner


def _boundary(node: _Node, parameters: Mapping[str, str]) -> str:
    """The boundary of a multipart; where its field has lost it, what its body begins with."""
    boundary = parameters.get("boundary", "")
    if boundary:
        return boundary
    first = _FIRST_DELIMITER.match(node.raw, node.start, min(node.end, node.start + 300))
    return first[1].decode("utf-8", "replace") if first else ""


def _is_container(leaf: Leaf) -> bool:
    if leaf.content_type in _SIGNED or leaf.content_type in _TNEF:
        return True
    return leaf.content_type == "application/octet-stream" and leaf.filename.lower().endswith(_CONTAINER_NAMES)


def _opened(leaf: Leaf, node: _Node, stack: list[_Node], budget: Budget) -> list[Leaf] | None:
    """What a container holds, None if it cannot be opened; an entity of its own is left to the stack."""
    data = body(leaf)
    budget.scan -= len(data)
    if budget.scan < 0:
        return None
    content = containers.signed_content(data)
    if content is not None:
        stack.append(_Node(f"{leaf.number}.1", content, 0, len(content), node.container, node.first, node.path))
        return []
    found = containers.tnef(data)
    if found is None or not (found.files or found.text or found.html or found.rtf):
        return None
    parts = [
        _tnef_leaf(leaf, nth, file.data, file.content_type, file.name, file.content_id)
        for nth, file in enumerate(found.files, 1)
    ]
    rtf = containers.Text(found.rtf, "") if found.rtf else None
    for kind, text in (("text/plain", found.text), ("text/html", found.html), (TNEF_RTF, rtf)):
        if text is not None:
            body_leaf = _tnef_leaf(leaf, len(parts) + 1, text.data, kind, None, "")
            parameters = {"charset": text.charset}
            parts.append(msgspec.structs.replace(body_leaf, parameters=parameters, disposition="", container=TNEF_BODY))
    return parts


def _tnef_leaf(leaf: Leaf, nth: int, data: bytes, kind: str, name: containers.Text | None, content_id: str) -> Leaf:
    filename = mime_text.decode_header(decode(name.data, name.charset).encode(), 1_000, "utf-8") if name else ""
    return Leaf(
        number=f"{leaf.number}.{nth}",
        content_type=kind if _MEDIA_TYPE.fullmatch(kind) else "application/octet-stream",
        parameters={},
        disposition="attachment",
        filename=filename,
        encoding="",
        container="multipart/mixed",
        first=False,
        path=leaf.path,
        content_id=content_id,
        location="",
        raw=data,
        start=0,
        end=len(data),
    )


def _children(node: _Node, container: str, parameters: Mapping[str, str], ranges: list[tuple[int, int]]) -> list[_Node]:
    prefix = node.number + "." if node.number else ""
    path = (*node.path, Multipart(node.number, container.partition("/")[2]))
    root = _root(node.raw, parameters, ranges) if container == "multipart/related" else 1
    return [
        _Node(f"{prefix}{index}", node.raw, start, end, container, index == root, path)
        for index, (start, end) in enumerate(ranges, 1)
    ]


def _root(raw: bytes, parameters: Mapping[str, str], ranges: list[tuple[int, int]]) -> int:
    """Which part of a multipart/related it is about, from 1: the one that `start` names, else the first of the type
    that `type` names (RFC 2387 section 3), else the first that is text.
    """
    wanted, kind = parameters.get("start", "").strip(" <>"), parameters.get("type", "").strip().lower()
    types: list[str] = []
    for index, (start, end) in enumerate(ranges[:_ROOT_SOUGHT], 1):
        head = fields(raw[start : header_end(raw, start, end, MAX_PART_HEADER).end])
        types.append(media_type(head.get(b"content-type"))[0])
        if wanted and _identifier(head.get(b"content-id")) == wanted:
            return index
        if not wanted and (types[-1] == kind or (not kind and types[-1].startswith(("text/", "multipart/")))):
            return index
    for index, found in enumerate(types, 1):
        if found == kind or found.startswith(("text/", "multipart/")):
            return index
    return 1


def _identifier(value: bytes | None) -> str:
    """A Content-ID without its brackets."""
    if not value:
        return ""
    return mime_text.decode_header(value[:_MAX_IDENTIFIER], _MAX_IDENTIFIER).strip(" <>")


def _leaf(
    head: Mapping[bytes, bytes], node: _Node, kind: str, parameters: Mapping[str, str], guess: Guess | None
) -> Leaf:
    disposition = ""
    disposition_parameters: Mapping[str, str] = {}
    if b"content-disposition" in head:
        disposition, disposition_parameters = _structured(head[b"content-disposition"], guess)
        if disposition not in ("inline", "attachment"):
            # RFC 2183 section 2.8 takes what is unknown for an attachment; mail programs show it.
            disposition = ""
    return Leaf(
        number=node.number or "1",
        content_type=kind,
        parameters=parameters,
        disposition=disposition,
        filename=disposition_parameters.get("filename") or parameters.get("name", ""),
        encoding=transfer_encoding.encoding_of(head.get(b"content-transfer-encoding")),
        container=node.container,
        first=node.first,
        path=node.path,
        content_id=_identifier(head.get(b"content-id")),
        location=_identifier(head.get(b"content-location")),
        raw=node.raw,
        start=node.start,
        end=node.end,
    )


def _structured(value: bytes, guess: Guess | None) -> tuple[str, Mapping[str, str]]:
    return mime_text.parameters(decode(value[:_MAX_STRUCTURED], guess=guess).strip(), guess)


def media_type(value: bytes | None, container: str = "", guess: Guess | None = None) -> tuple[str, Mapping[str, str]]:
    """(type/subtype, parameters), RFC 2045 section 5.2 where the field is missing or wrong."""
    default = "message/rfc822" if container == "multipart/digest" else "text/plain"
    if value is None:
        return default, {}
    return _repeated_media_type(value) if len(value) <= _REPEATED_VALUE else _media_type(value, guess)


def _media_type(value: bytes, guess: Guess | None = None) -> tuple[str, Mapping[str, str]]:
    kind, parameters = _structured(value, guess)
    main, slash, _ = kind.partition("/")
    if slash and main and len(kind) <= 200 and kind.isascii() and kind.isprintable():
        return kind.replace(" ", ""), parameters
    return "text/plain", parameters


_repeated_media_type = lru_cache(maxsize=256)(_media_type)


def _delimiter(boundary: str) -> bytes:
    return b"\n--" + boundary.rstrip().encode("utf-8", "replace")


def _split(raw: bytes, start: int, end: int, boundary: str, budget: Budget) -> list[tuple[int, int]]:
    """The ranges between the delimiter lines of a multipart body (RFC 2046 section 5.1.1)."""
    budget.scan -= end - start
    if budget.scan < 0:
        budget.exceed("depth")
        return []
    delimiter = _delimiter(boundary)
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
    """(whether it closes, start of what follows) of the line whose delimiter ends at `position`; -1 if it is none.

    Either way it is the whole line, but for white space: "--foo--bar" is no delimiter of "foo".
    """
    closing = raw.startswith(b"--", position, end)
    rest = position + 2 if closing else position
    line_end = raw.find(b"\n", rest, min(end, rest + 200))
    stop = end if line_end < 0 else line_end
    if stop - rest > 200 or raw[rest:stop].strip():
        return False, -1
    return closing, min(stop + 1, end)


def body(leaf: Leaf, limit: int | None = None) -> bytes:
    """The decoded bytes of a leaf, at most `limit` of them when given."""
    return transfer_encoding.decoded(_encoded(leaf, limit), leaf.encoding)[:limit]


def text_body(leaf: Leaf, limit: int) -> bytes:
    """The same of a part that is read in place."""
    return transfer_encoding.decoded_text(_encoded(leaf, limit), leaf.encoding)[:limit]


def _encoded(leaf: Leaf, limit: int | None) -> bytes:
    end = leaf.end
    if limit is not None:
        # Three encoded bytes for one is the most that an encoding takes, but for soft line breaks.
        end = min(end, leaf.start + (3 * limit if leaf.encoding else limit))
    return leaf.raw[leaf.start : end]


def decoded_size(leaf: Leaf) -> int:
    """``len(body(leaf))``."""
    if not leaf.encoding:
        return leaf.end - leaf.start
    return transfer_encoding.decoded_size(leaf.raw[leaf.start : leaf.end], leaf.encoding)
