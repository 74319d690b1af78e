"""Content-Transfer-Encodings (RFC 2045 section 6) and uuencode: encoded bytes to decoded bytes, and how many they are.

Pure functions with no I/O. Nothing here knows headers, parts or charsets. Broken input gives what it still holds.
"""

import binascii
import codecs
import re
from functools import lru_cache

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NOT_BASE64 = bytes(set(range(256)) - set(_ALPHABET))
_NOT_BASE64_OR_PADDING = bytes(set(range(256)) - set(_ALPHABET + b"="))
_PADDING = re.compile(rb"=+")
# Pieces of base64 that each end in padding; what comes behind so many is read as one.
_MAX_PADDED = 2_000
# A line behind padding that was never encoded, such as the footer of a mailing list.
_WORDS = re.compile(rb"\n[^\n]*[^A-Za-z0-9+/=\s][^\n]*|\n[^\n=]*[^\s=] +[^\s=]")
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x1b")) + b"\x7f"
_LOOKED_AT = 256
# Words have white space and punctuation, base64 does not; as many symbols to one of them at most.
_SYMBOLS_IN_A_WORD = 20
_SHORT = 40
# Uuencoded lines hold 45 bytes each; so many more may be shorter.
_MAX_SHORT_LINES = 2_000

_NAMES = {
    "base64": "base64",
    "b64": "base64",
    "quotedprintable": "quoted-printable",
    "qp": "quoted-printable",
    "uuencode": "uuencode",
    "xuuencode": "uuencode",
    "uue": "uuencode",
    "xuue": "uuencode",
    "xunixuuencode": "uuencode",
}
# Bytes of the field that are looked at; few values are in use, so they are remembered.
_FIELD = 100
_TOKEN = re.compile(r"(?:\([^()]*\)|[\s\"';=])*([a-z0-9_-]+(?: [0-9]+)?)")
_NOT_LETTERS = re.compile(r"[^a-z0-9]")


def encoding_of(value: bytes | None) -> str:
    """base64, quoted-printable or uuencode as a Content-Transfer-Encoding field names it, however it is spelt; "" for
    all that leave the bytes as they are (RFC 2045 section 6.4).
    """
    return _encoding_of(value[:_FIELD]) if value else ""


@lru_cache(maxsize=256)
def _encoding_of(value: bytes) -> str:
    match = _TOKEN.match(value.strip().lower().decode("ascii", "replace"))
    return _NAMES.get(_NOT_LETTERS.sub("", match[1]), "") if match else ""


def decoded(data: bytes, encoding: str) -> bytes:
    """The bytes behind ``encoding``, as `encoding_of` names it."""
    if encoding == "base64":
        return base64_bytes(data)
    if encoding == "quoted-printable":
        return quoted_printable(data)
    return uuencoded(data) if encoding == "uuencode" else data


def decoded_text(data: bytes, encoding: str) -> bytes:
    """The same for a part that is read as text: plain words with a label of base64 stay as they are."""
    plain = decoded(data, encoding)
    return data if encoding == "base64" and _are_words(data, plain) else plain


def decoded_size(data: bytes, encoding: str) -> int:
    """``len(decoded(data, encoding))``, counted where that is cheaper than decoding."""
    if encoding != "base64":
        return len(decoded(data, encoding))
    others = data.translate(None, _ALPHABET)
    if b"=" in others and data[data.find(b"=") :].translate(None, _NOT_BASE64):
        return len(base64_bytes(data))
    return (len(data) - len(others)) * 3 // 4


def base64_bytes(data: bytes) -> bytes:
    """Decoded base64 (RFC 2045 section 6.8); what a broken one still holds. Behind padding it goes on."""
    first = data.find(b"=")
    if first < 0 or not data[first:].translate(None, _NOT_BASE64):
        return _quanta(data)
    words = _WORDS.search(data, first)
    if words:
        data = data[: words.start()]
    pieces = _PADDING.split(data.translate(None, _NOT_BASE64_OR_PADDING), _MAX_PADDED)
    pieces[-1] = pieces[-1].translate(None, b"=")
    return b"".join(map(_quanta, pieces))


def _quanta(data: bytes) -> bytes:
    try:
        return binascii.a2b_base64(data)
    except binascii.Error:
        alphabet = data.translate(None, _NOT_BASE64)
        rest = alphabet[len(alphabet) & ~3 :]
        last = rest + b"=" * (4 - len(rest)) if len(rest) >= 2 else b""
        return binascii.a2b_base64(alphabet[: len(alphabet) & ~3] + last)


def _are_words(data: bytes, plain: bytes) -> bool:
    """Whether text that is called base64 was never encoded: it is not of base64's form, reads as text as it stands, and
    does not when it is decoded.
    """
    symbols = data.translate(None, b"\r\n\t ")
    marks = len(symbols.translate(None, _ALPHABET + b"=")) + data.strip().count(b" ")
    if marks * _SYMBOLS_IN_A_WORD < len(symbols) and (len(symbols) % 4 == 0 or len(symbols) > _SHORT):
        return False
    # Letters beyond ASCII, of whatever charset, are never base64.
    readable = not _controls(data[:_LOOKED_AT]) if not data.isascii() else _reads(data[:_LOOKED_AT])
    return bool(symbols) and readable and not _reads(plain[:_LOOKED_AT])


def _controls(sample: bytes) -> bool:
    return len(sample) != len(sample.translate(None, _CONTROLS))


def _reads(sample: bytes) -> bool:
    if _controls(sample):
        return False
    try:
        # The last character may be cut.
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def quoted_printable(data: bytes) -> bytes:
    """Decoded quoted-printable (RFC 2045 section 6.7)."""
    return binascii.a2b_qp(_undoubled(data) if b"==" in data else data)


def _undoubled(data: bytes) -> bytes:
    """ "==41" is an equals sign that was not encoded, and an "A" that was; the library takes it for one of two."""
    return data.replace(b"==", b"=3D=")


def q_word(data: bytes) -> bytes:
    """The bytes of an encoded word of encoding Q (RFC 2047 section 4.2), also where it holds what it must not."""
    return binascii.a2b_qp(_undoubled(data) if b"==" in data else data, header=True)


def uuencoded(data: bytes) -> bytes:
    """The bytes of the uuencoded lines in ``data``, from its "begin" (if it has one) to its "end"."""
    out: list[bytes] = []
    lines = data.split(b"\n", _MAX_SHORT_LINES + len(data) // 45)
    start = next((number + 1 for number, line in enumerate(lines[:200]) if line.startswith(b"begin ")), 0)
    for line in lines[start:]:
        line = line.rstrip(b"\r")
        if line == b"end" or not line:
            if line == b"end":
                break
            continue
        out.append(_uu_line(line))
    return b"".join(out)


def _uu_line(line: bytes) -> bytes:
    try:
        return binascii.a2b_uu(line)
    except binascii.Error:
        # Encoders count the last line differently (as the library's own uu did).
        size = (line[0] - 32) & 63
        try:
            return binascii.a2b_uu(line[: 1 + (size * 4 + 5) // 3])
        except binascii.Error:
            return b""


def are_uuencoded(lines: bytes) -> bool:
    """Whether the first lines are as long as their first character says."""
    looked_at = [line.rstrip() for line in lines.split(b"\n", 5)[:5] if line.strip()]
    return bool(looked_at) and all(
        32 <= line[0] <= 96 and abs(len(line) - 1 - (((line[0] - 32) & 63) + 2) // 3 * 4) <= 4 for line in looked_at
    )
