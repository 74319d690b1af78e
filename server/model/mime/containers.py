"""What wraps the content of a mail in a form of its own: TNEF (winmail.dat) and opaque S/MIME (smime.p7m).

Bounded readers of the few fields that are shown: each byte is looked at a fixed number of times, and nothing is
decompressed, decrypted or verified. Pure functions; nothing here knows parts or headers.
"""

import struct
from collections.abc import Iterator

import msgspec

_MAX_ATTRIBUTES = 4_000
_MAX_PROPERTIES = 10_000
_MAX_FILES = 200
_MAX_NESTED = 3

# [MS-OXTNEF] section 2.1.3: signature, and names of attributes.
_SIGNATURE = 0x223E9F78
_BODY, _TITLE, _DATA = 0x800C, 0x8010, 0x800F
_RENDERING, _MESSAGE_PROPERTIES, _ATTACHMENT, _CODE_PAGE = 0x9002, 0x9003, 0x9005, 0x9007
_ATTRIBUTE = struct.Struct("<BHHI")
_COUNT = struct.Struct("<I")
_TAG = struct.Struct("<HH")
# [MS-OXCDATA] section 2.11.1: bytes that a value takes, padded to four; the rest brings its length.
_FIXED = {2: 4, 3: 4, 4: 4, 5: 8, 6: 8, 7: 8, 10: 4, 11: 4, 20: 8, 64: 8, 72: 16}
_VARIABLE = frozenset((0x0D, 0x1E, 0x1F, 0x102))
_UNICODE = 0x1F
_MULTIPLE = 0x1000
_NAMED = 0x8000
# [MS-OXPROPS]: tags of properties.
_PLAIN, _RTF, _HTML, _INTERNET_CODE_PAGE = 0x1000, 0x1009, 0x1013, 0x3FDE
_LONG_NAME, _SHORT_NAME, _DISPLAY_NAME, _MIME_TAG, _CONTENT_ID, _OBJECT = 0x3707, 0x3704, 0x3001, 0x370E, 0x3712, 0x3701

# RFC 5652 sections 3 to 5: id-signedData and id-data, whole.
_SIGNED = bytes.fromhex("06092a864886f70d010702")
_PLAIN_DATA = bytes.fromhex("06092a864886f70d010701")
_SEQUENCE, _SET, _INTEGER, _EXPLICIT, _OCTETS, _PIECES = 0x30, 0x31, 0x02, 0xA0, 0x04, 0x24
_MAX_ELEMENTS = 20_000


class Text(msgspec.Struct, frozen=True):
    """Encoded text and the label of its charset."""

    data: bytes
    charset: str


class File(msgspec.Struct):
    """One file in a container."""

    name: Text
    content_type: str = ""
    content_id: str = ""
    data: bytes = b""


class Tnef(msgspec.Struct):
    """What a winmail.dat holds. The bodies are None where it has none; `rtf` is compressed."""

    text: Text | None
    html: Text | None
    files: list[File]
    rtf: bytes = b""


class _Cursor:
    """How much may still be read of one container, nested ones included."""

    def __init__(self) -> None:
        self.attributes, self.properties = _MAX_ATTRIBUTES, _MAX_PROPERTIES


def tnef(data: bytes) -> Tnef | None:
    """The content of a TNEF stream, as far as it goes; None if it is none."""
    return _tnef(data, _Cursor(), 0)


def _tnef(data: bytes, left: _Cursor, depth: int) -> Tnef | None:
    if len(data) < 6 or _COUNT.unpack_from(data)[0] != _SIGNATURE or depth > _MAX_NESTED:
        return None
    found = Tnef(None, None, [])
    charset = "windows-1252"
    nested: list[bytes] = []
    for name, value in _attributes(data, left):
        if name == _CODE_PAGE and len(value) >= 4:
            charset = _code_page(_COUNT.unpack_from(value)[0])
        elif name == _BODY:
            found.text = found.text or Text(value.rstrip(b"\0"), charset)
        elif name == _MESSAGE_PROPERTIES:
            _message(found, dict(_properties(value, left)), charset)
        elif name == _RENDERING and len(found.files) < _MAX_FILES:
            found.files.append(File(Text(b"", charset)))
        elif found.files and name in (_TITLE, _DATA, _ATTACHMENT):
            _file(found.files[-1], name, value, charset, left, nested)
    for inner in nested:
        opened = _tnef(inner, left, depth + 1)
        found.files += opened.files[: _MAX_FILES - len(found.files)] if opened else []
    found.files = [file for file in found.files if file.data]
    return found


def _attributes(data: bytes, left: _Cursor) -> Iterator[tuple[int, bytes]]:
    position = 6
    while position + _ATTRIBUTE.size <= len(data) and left.attributes > 0:
        left.attributes -= 1
        _, name, _, size = _ATTRIBUTE.unpack_from(data, position)
        position += _ATTRIBUTE.size
        yield name, data[position : position + size]
        position += size + 2


def _message(found: Tnef, properties: dict[int, Text], charset: str) -> None:
    page = properties.get(_INTERNET_CODE_PAGE)
    declared = _code_page(_COUNT.unpack_from(page.data)[0]) if page and len(page.data) >= 4 else charset
    rtf = properties.get(_RTF)
    found.rtf = rtf.data if rtf else found.rtf
    for tag in (_PLAIN, _HTML):
        value = properties.get(tag)
        if value and value.data.strip(b"\0"):
            text = value if value.charset else Text(value.data.rstrip(b"\0"), declared)
            if tag == _PLAIN:
                found.text = text
            else:
                found.html = text


def _file(file: File, name: int, value: bytes, charset: str, left: _Cursor, nested: list[bytes]) -> None:
    if name == _TITLE:
        file.name = file.name if file.name.data else Text(value.rstrip(b"\0"), charset)
    elif name == _DATA:
        file.data = value
    else:
        properties = dict(_properties(value, left))
        for tag in (_LONG_NAME, _SHORT_NAME, _DISPLAY_NAME):
            found = properties.get(tag)
            if found and found.data.strip(b"\0"):
                file.name = found if found.charset else Text(found.data.rstrip(b"\0"), charset)
                break
        file.content_type = _ascii(properties.get(_MIME_TAG)).lower()
        file.content_id = _ascii(properties.get(_CONTENT_ID)).strip(" <>")
        embedded = properties.get(_OBJECT)
        if embedded and not file.data:
            # The identifier of an interface stands in front.
            inner = embedded.data[16:]
            if inner[:4] == _COUNT.pack(_SIGNATURE):
                nested.append(inner)
            else:
                file.data = inner


def _ascii(value: Text | None) -> str:
    if value is None:
        return ""
    return value.data.decode("utf-16-le" if value.charset else "ascii", "ignore").rstrip("\0")[:500]


def _properties(data: bytes, left: _Cursor) -> Iterator[tuple[int, Text]]:
    """(tag, first value) of each property; a value's charset is "" unless it is in Unicode."""
    position = 4
    try:
        while position + 8 <= len(data) and left.properties > 0:
            left.properties -= 1
            kind, tag = _TAG.unpack_from(data, position)
            position += 4
            if tag >= _NAMED:
                position = _behind_name(data, position + 16)
            value, position = _value(data, position, kind, left)
            if kind & ~_MULTIPLE == _UNICODE:
                yield tag, Text(value[:-2] if value.endswith(b"\0\0") else value, "utf-16le")
            else:
                yield tag, Text(value, "")
    except (struct.error, KeyError):
        # What is cut off, or of a type that is on no list, ends the list.
        return


def _behind_name(data: bytes, position: int) -> int:
    (named,) = _COUNT.unpack_from(data, position)
    (size,) = _COUNT.unpack_from(data, position + 4)
    return position + 8 + ((size + 3) & ~3 if named else 0)


def _value(data: bytes, position: int, kind: int, left: _Cursor) -> tuple[bytes, int]:
    """(the first of the values at `position`, where they end)."""
    many, kind = kind & _MULTIPLE, kind & ~_MULTIPLE
    count = 1
    if many or kind in _VARIABLE:
        (count,) = _COUNT.unpack_from(data, position)
        position += 4
    if kind not in _VARIABLE:
        size = _FIXED[kind]
        return data[position : position + size], position + size * count
    first = b""
    for number in range(count):
        left.properties -= 1
        if left.properties < 0:
            raise struct.error("too many values")
        (size,) = _COUNT.unpack_from(data, position)
        if not number:
            first = data[position + 4 : position + 4 + size]
        position += 4 + ((size + 3) & ~3)
    return first, position


def _code_page(number: int) -> str:
    names = {
        20127: "us-ascii",
        28591: "iso-8859-1",
        65001: "utf-8",
        50220: "iso-2022-jp",
        51949: "euc-kr",
        51932: "euc-jp",
    }
    return names.get(number) or (f"iso-8859-{number - 28590}" if 28591 < number <= 28606 else f"cp{number}")


def signed_content(data: bytes) -> bytes | None:
    """The entity that a CMS SignedData holds (RFC 8551 section 3.5.2), its signature aside; None if it holds none."""
    try:
        position, _ = _inside(data, 0, _SEQUENCE)
        if not data.startswith(_SIGNED, position):
            return None
        position, _ = _inside(data, position + len(_SIGNED), _EXPLICIT)
        position, _ = _inside(data, position, _SEQUENCE)
        for tag in (_INTEGER, _SET):
            if data[position] != tag:
                return None
            position = _behind(data, position)
        position, end = _inside(data, position, _SEQUENCE)
        if not data.startswith(_PLAIN_DATA, position) or (end >= 0 and position + len(_PLAIN_DATA) >= end):
            return None
        position, _ = _inside(data, position + len(_PLAIN_DATA), _EXPLICIT)
        return _octets(data, position) or None
    except (IndexError, ValueError):
        return None


def _header(data: bytes, position: int) -> tuple[int, int]:
    """(start of the content, its length or -1 where an end mark ends it) of the element at `position`."""
    if data[position] & 0x1F == 0x1F:
        raise ValueError("tag of several bytes")
    size = data[position + 1]
    position += 2
    if size < 0x80:
        return position, size
    if size == 0x80:
        return position, -1
    width = size & 0x7F
    if width > 4:
        raise ValueError("length of more than four bytes")
    return position + width, int.from_bytes(data[position : position + width], "big")


def _inside(data: bytes, position: int, tag: int) -> tuple[int, int]:
    """(start, end or -1) of the content of the element of this tag."""
    if data[position] != tag:
        raise ValueError("another tag")
    start, size = _header(data, position)
    return start, -1 if size < 0 else start + size


def _behind(data: bytes, position: int) -> int:
    """The end of the element at `position`."""
    depth = 0
    for _ in range(_MAX_ELEMENTS):
        if depth and data[position : position + 2] == b"\0\0":
            depth -= 1
            position += 2
        else:
            start, size = _header(data, position)
            depth += size < 0
            position = start if size < 0 else start + size
        if not depth:
            return position
    raise ValueError("too many elements")


def _octets(data: bytes, position: int) -> bytes:
    """An octet string, in one piece or in several, which BER allows."""
    if data[position] == _OCTETS:
        start, end = _inside(data, position, _OCTETS)
        return data[start:end]
    position, end = _inside(data, position, _PIECES)
    out: list[bytes] = []
    ends = [end]
    for _ in range(_MAX_ELEMENTS):
        while ends and (position >= len(data) or (ends[-1] >= 0 and position >= ends[-1])):
            ends.pop()
        if not ends:
            break
        if ends[-1] < 0 and data[position : position + 2] == b"\0\0":
            ends.pop()
            position += 2
        elif data[position] == _PIECES:
            position, end = _inside(data, position, _PIECES)
            ends.append(end)
        else:
            start, end = _inside(data, position, _OCTETS)
            if end < 0:
                raise ValueError("octets without an end")
            out.append(data[start:end])
            position = end
    return b"".join(out)
