"""Compressed RTF ([MS-OXRTFCP]) and the text of RTF: the form in which Outlook keeps a message in winmail.dat.

Pure functions, bounded in what they unpack and in the marks they read. Nothing here knows containers or parts.
"""

import re
import struct

MAX_UNPACKED = 65_536
_MAX_TOKENS = 30_000
_MAX_DEPTH = 200
_HEADER = struct.Struct("<II4s4s")
# Section 2.1.2.1: what the dictionary begins with.
_DICTIONARY = (
    b"{\\rtf1\\ansi\\mac\\deff0\\deftab720{\\fonttbl;}{\\f0\\fnil \\froman \\fswiss \\fmodern \\fscript \\fdecor "
    b"MS Sans SerifSymbolArialTimes New RomanCourier{\\colortbl\\red0\\green0\\blue0\r\n\\par "
    b"\\pard\\plain\\f0\\fs20\\b\\i\\u\\tab\\tx"
)
_SIZE = 4_096
_TOKEN = re.compile(
    rb"\\([A-Za-z]{1,32})(-?[0-9]{1,9})? ?|\\'([0-9A-Fa-f]{2})|\\([^A-Za-z'])|([{}])|[\r\n]+|([^\\{}\r\n]+)", re.DOTALL
)
_SPOKEN = {
    **dict.fromkeys((b"par", b"line", b"row", b"sect", b"page"), "\n"),
    **dict.fromkeys((b"tab", b"cell"), "\t"),
    b"emdash": "—",
    b"endash": "–",
    b"bullet": "•",
    b"lquote": "‘",
    b"rquote": "’",
    b"ldblquote": "“",
    b"rdblquote": "”",
}
_SYMBOLS = {b"~": "\u00a0", b"\\": "\\", b"{": "{", b"}": "}", b"_": "-", b"\n": "\n", b"\r": "\n"}
# Groups that hold no text.
_SILENT = frozenset(
    (
        b"fonttbl",
        b"colortbl",
        b"stylesheet",
        b"info",
        b"pict",
        b"object",
        b"header",
        b"footer",
        b"themedata",
        b"listtable",
    )
)


def unpacked(data: bytes) -> bytes:
    """The RTF in a compressed stream, at most 64 KiB of it; b"" if it is none."""
    if len(data) < _HEADER.size:
        return b""
    _, size, kind, _ = _HEADER.unpack_from(data)
    packed = data[_HEADER.size :]
    if kind == b"MELA":
        return packed[: min(size, MAX_UNPACKED)]
    return _decompressed(packed, min(size, MAX_UNPACKED)) if kind == b"LZFu" else b""


def _decompressed(packed: bytes, size: int) -> bytes:
    out = bytearray(_DICTIONARY)
    start = len(out)
    position, end = 0, len(packed)
    while position < end and len(out) - start < size:
        control = packed[position]
        position += 1
        for bit in range(8):
            if not control >> bit & 1:
                out += packed[position : position + 1]
                position += 1
                continue
            if position + 2 > end:
                return bytes(out[start : start + size])
            reference = packed[position] << 8 | packed[position + 1]
            position += 2
            # The dictionary is the last 4,096 bytes; what is written at its own place is the end.
            back = (len(out) - (reference >> 4)) % _SIZE
            if back == 0:
                return bytes(out[start : start + size])
            _copy(out, back, (reference & 15) + 2)
    return bytes(out[start : start + size])


def _copy(out: bytearray, back: int, length: int) -> None:
    if back > len(out):
        # A part of the dictionary that was not written yet.
        out += bytes(length)
        return
    piece = out[len(out) - back :][:length]
    while len(piece) < length:
        piece += piece[: length - len(piece)]
    out += piece


def text(data: bytes) -> str:
    """The text of RTF, without pictures, tables of fonts and the marks of HTML that it may be made from."""
    out: list[str] = []
    codec = "cp1252"
    # (whether the group is silent, characters to leave out behind \\u) of each open group.
    groups: list[tuple[bool, int]] = []
    silent, leave_out, left, hidden = False, 1, 0, False
    for count, match in enumerate(_TOKEN.finditer(data)):
        word, number, byte, symbol, brace, plain = match.groups()
        if count == _MAX_TOKENS:
            break
        if brace == b"{":
            if len(groups) >= _MAX_DEPTH:
                break
            groups.append((silent, leave_out))
        elif brace == b"}":
            silent, leave_out = groups.pop() if groups else (False, 1)
            left = 0
        elif word == b"htmlrtf":
            hidden = number != b"0"
        elif symbol == b"*" or word in _SILENT:
            silent = True
        elif word == b"ansicpg" and number and 0 < int(number) < 100_000:
            codec = _codec(int(number))
        elif word == b"uc":
            leave_out = min(int(number or 1), 10)
        elif not silent and not hidden:
            if left and (byte or plain):
                skipped = min(left, len(plain)) if plain else 1
                plain = plain[skipped:] if plain else None
                byte = None
                left -= skipped
            if word == b"u" and number:
                out.append(chr(int(number) % 65_536))
                left = leave_out
            elif byte:
                out.append(_Byte(bytes.fromhex(byte.decode())))
            else:
                out.append(_SPOKEN.get(word or b"", "") + _SYMBOLS.get(symbol or b"", ""))
                out.append((plain or b"").decode("latin-1"))
    return _joined(out, codec)


class _Byte(str):
    """One byte in the code page of the text; several of them may be one character."""

    __slots__ = ()

    def __new__(cls, data: bytes) -> "_Byte":
        return super().__new__(cls, data.decode("latin-1"))


def _joined(pieces: list[str], codec: str) -> str:
    out: list[str] = []
    pending = bytearray()
    for piece in pieces:
        if isinstance(piece, _Byte):
            pending += piece.encode("latin-1")
        elif piece:
            if pending:
                out.append(pending.decode(codec, "replace"))
                pending.clear()
            out.append(piece)
    out.append(pending.decode(codec, "replace"))
    return "".join(out).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace("\0", "\ufffd")


def _codec(page: int) -> str:
    name = f"cp{page}"
    pages = (437, 850, 852, 866, 874, 932, 936, 949, 950, *range(1250, 1259))
    return name if page in pages else "utf-8" if page == 65_001 else "cp1252"
