"""Bytes of mail to text: charsets, encoded words, header values, clean strings.

Pure functions with no I/O. Nothing here knows the structure of a message (`mime_parts`) or what a message is
shown as (`mime`). Every function is total: it returns a string for any input, and that string holds no NUL and no
lone surrogate, so it can be encoded as UTF-8, put into JSON and stored.
"""

import binascii
import codecs
import io
import re
from functools import cache, lru_cache

_SINGLE_BYTE = {
    "windows1252": "cp1252",
    "windows1250": "cp1250",
    "windows1251": "cp1251",
    "windows1253": "cp1253",
    "windows1254": "cp1254",
    "windows1255": "cp1255",
    "windows1256": "cp1256",
    "windows1257": "cp1257",
    "windows1258": "cp1258",
    "windows874": "cp874",
    "koi8r": "koi8_r",
    "koi8u": "koi8_u",
    "macintosh": "mac_roman",
    "xmaccyrillic": "mac_cyrillic",
    "ibm437": "cp437",
    "ibm850": "cp850",
    "ibm852": "cp852",
    "ibm866": "cp866",
    **{f"iso8859{n}": f"iso8859_{n}" for n in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)},
}
_MULTI_BYTE = {
    "utf8": "utf_8",
    "gb18030": "gb18030",
    "big5": "big5hkscs",
    "shiftjis": "cp932",
    "eucjp": "euc_jp",
    "euckr": "cp949",
    "johab": "johab",
}
# Their bytes below 0x80 are not ASCII characters, so none of the shortcuts for ASCII may be taken.
_NOT_ASCII = {
    "iso2022jp": "iso2022_jp_ext",
    "iso2022kr": "iso2022_kr",
    "hzgb2312": "hz",
    "utf16": "utf_16",
    "utf16le": "utf_16_le",
    "utf16be": "utf_16_be",
    "utf7": "utf_7",
}
# WHATWG Encoding Standard, section 4.2, for the labels seen in mail; the label stands without its punctuation.
_ALIASES = {
    **dict.fromkeys(("usascii", "ascii", "iso88591", "latin1", "cp1252", "ansix341968", "646"), "windows1252"),
    **{f"cp125{n}": f"windows125{n}" for n in range(9) if n != 2},
    **{f"xcp125{n}": f"windows125{n}" for n in range(9)},
    **dict.fromkeys(("gb2312", "gbk", "cp936", "gb231280", "xgbk", "euccn", "gb180302005"), "gb18030"),
    **dict.fromkeys(("ksc5601", "ksc56011987", "ksc56011989", "cp949", "uhc", "windows949", "korean"), "euckr"),
    **dict.fromkeys(("sjis", "cp932", "xsjis", "mskanji", "windows31j", "ms932"), "shiftjis"),
    **dict.fromkeys(("big5hkscs", "cp950", "xxbig5", "cnbig5", "big5eten"), "big5"),
    **dict.fromkeys(("iso2022jp1", "iso2022jp2", "iso2022jp3", "iso2022jpext", "iso2022jpms", "jis"), "iso2022jp"),
    **dict.fromkeys(("tis620", "iso885911", "cp874", "dos874"), "windows874"),
    **dict.fromkeys(("iso88599", "latin5"), "windows1254"),
    **dict.fromkeys(("iso88598i", "iso88598e"), "iso88598"),
    **{f"cp{n}": f"ibm{n}" for n in (437, 850, 852, 866)},
    "iso885915": "iso885915",
    "latin2": "iso88592",
    "latin9": "iso885915",
    "xeucjp": "eucjp",
    "hz": "hzgb2312",
    "koi8": "koi8r",
    "macroman": "macintosh",
    "unicode11utf8": "utf8",
    "unicode11utf7": "utf7",
    "ucs2": "utf16le",
}
_PUNCTUATION = re.compile(r"[^a-z0-9]+")
_HIGH_RUN = re.compile(rb"[\x80-\xff]+")
_ASCII = bytes(range(128))
_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"))
_SAMPLE = 4096
# utf-7 and utf-16 call back into Python for each wrong byte, so a broken text is decoded up to here only.
_BROKEN_LIMIT = 65_536

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]+")
_FOLD = re.compile(rb"\r?\n(?=[ \t])")
_WORD_LIMIT = 500
# RFC 2047 section 2. `?` ends each of the three fields, so no input makes it backtrack.
_ENCODED_WORD = re.compile(r"=\?([^?\s]{1,60})\?([bBqQ])\?([^?]{0,2000})\?=")
_PHRASE_SPECIALS = re.compile(r'[,<>@;:"\\()\[\]]')
# RFC 2045 section 5.1, white space allowed for a missing semicolon. Two quoted strings cannot overlap, so an unclosed
# one is scanned once.
_PARAMETER = re.compile(
    r'(?:;|(?<![;\s])\s)\s*+([^\s=;"]{1,64}+)\s*+=\s*+("[^"\\]*+(?:\\.[^"\\]*+)*"|[^;]*+)', re.DOTALL
)
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_PARAMETER_LIMIT = 100
_UNESCAPE = re.compile(r'\\(["\\])')


@lru_cache(maxsize=512)
def codec_of(label: str) -> str | None:
    """The Python codec for a charset label, or None when the label is on no list (zlib, rot13, idna, ... are not)."""
    name = _PUNCTUATION.sub("", label[:60].lower())
    name = _ALIASES.get(name, name)
    return _SINGLE_BYTE.get(name) or _MULTI_BYTE.get(name) or _NOT_ASCII.get(name)


@cache
def _table(codec: str) -> str:
    """The 256 characters of a single-byte codec. A whole table never meets an error, which is what costs time."""
    return bytes(range(256)).decode(codec, "replace")


def decode(data: bytes, label: str = "") -> str:
    """`data` in the charset `label` as text.

    A label that says ASCII or Latin-1, or none, or one not known, is believed only when the bytes are not valid UTF-8.
    Bytes that the charset does not define become U+FFFD.
    """
    codec = codec_of(label) if len(label) <= 60 else None
    if codec in _NOT_ASCII.values() and codec is not None:
        return _decode_stateful(data, codec)
    if data.isascii():
        return _without_nul(data.decode("ascii"))
    return _without_nul(_decode_eight_bit(data, codec))


def _decode_eight_bit(data: bytes, codec: str | None) -> str:
    if codec in (None, "cp1252", "utf_8"):
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            codec = codec if codec == "cp1252" else _broken_utf8(data, codec)
    if codec is None or codec == "cp1252" or codec not in _MULTI_BYTE.values():
        return codecs.charmap_decode(data, "strict", _table(codec or "cp1252"))[0]
    return data.decode(codec, "replace")


def _broken_utf8(data: bytes, codec: str | None) -> str:
    """UTF-8 with a flaw stays UTF-8; a text in which most sequences are wrong is something else."""
    sample = data[:_SAMPLE]
    wrong = sample.decode("utf-8", "replace").count("\ufffd")
    if codec == "utf_8" and wrong * 4 <= len(sample.translate(None, _ASCII)):
        return codec
    return _guess(sample)


def _guess(sample: bytes) -> str:
    """A codec for text of unknown charset that is not UTF-8: scripts whose letters are all high bytes stand in runs."""
    runs = _HIGH_RUN.findall(sample)
    high = b"".join(runs)
    if not runs or len(high) < 2 * len(runs):
        return "cp1252"
    if len(high.translate(None, bytes(range(0xC0, 256)))) * 10 < len(high):
        lower = len(high.translate(None, bytes(range(0x80, 0xE0))))
        return "cp1251" if lower * 2 > len(high) else "koi8_r"
    if (high.count(b"\x82") + high.count(b"\x83")) * 3 > len(high):
        return "cp932"
    for codec in ("gb18030", "big5hkscs"):
        try:
            codecs.getincrementaldecoder(codec)().decode(sample)
        except UnicodeDecodeError:
            continue
        return codec
    return "cp1252"


def _decode_stateful(data: bytes, codec: str) -> str:
    try:
        text = data.decode(codec)
    except UnicodeDecodeError:
        text = data[:_BROKEN_LIMIT].decode(codec, "replace")
    return scrub(text)


def _without_nul(text: str) -> str:
    return text.replace("\0", "\ufffd") if "\0" in text else text


def decode_lines(data: bytes, label: str = "", *, crlf: bool = False) -> str:
    """``newlines(decode(data, label))``; sooner where the bytes are ASCII and CR stands before LF alone, which ``crlf``
    promises: to make sure of it costs more than all else here.
    """
    if data.isascii() and (not label or codec_of(label) not in _NOT_ASCII.values()):
        unix = data.replace(b"\r", b"")
        if crlf or len(data) - len(unix) == data.count(b"\r\n"):
            return _without_nul(unix.decode("ascii"))
    return newlines(decode(data, label))


def scrub(text: str) -> str:
    """`text` with U+FFFD for NUL and for lone surrogates, which neither UTF-8, JSON nor PostgreSQL can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _without_nul(text)


def newlines(text: str) -> str:
    """CR LF and lone CR as LF."""
    if "\r" not in text:
        return text
    return io.IncrementalNewlineDecoder(None, True).decode(text, True)


def one_line(text: str, limit: int) -> str:
    """Whitespace folded to single spaces, control characters removed, at most `limit` characters."""
    text = " ".join(text.split())
    if not text.isprintable():
        text = _CONTROLS.sub("", text)
    return text[:limit]


def preview(text: str, limit: int) -> str:
    """The beginning of `text` as one line of at most `limit` characters, sought in its first 20 times as many."""
    # White space other than " " is not printable, so what is printable and has no two spaces is folded already.
    start = text[: limit + 40].replace("\n\n", " ").replace("\n", " ")
    folded = start.strip(" ")[:limit] if "  " not in start and start.isprintable() else one_line(start, limit)
    if len(folded) < limit < len(text):
        folded = one_line(text[: 20 * limit], limit)
    return folded


def base64_bytes(data: bytes) -> bytes:
    """Decoded base64 (RFC 2045 section 6.8); what a broken one still holds, never an error."""
    try:
        return binascii.a2b_base64(data)
    except binascii.Error:
        alphabet = data.translate(None, _NOT_BASE64)
        return binascii.a2b_base64(alphabet[: len(alphabet) & ~3] + _last_quantum(alphabet))


def _last_quantum(alphabet: bytes) -> bytes:
    rest = alphabet[len(alphabet) & ~3 :]
    return rest + b"=" * (4 - len(rest)) if len(rest) >= 2 else b""


def decode_header(value: bytes, limit: int, charset: str = "", *, addresses: bool = False) -> str:
    """A header value as one line of text of at most `limit` characters.

    Encoded words (RFC 2047) are decoded, at most 500; raw 8-bit text is UTF-8, or else `charset`, or else guessed.
    With `addresses`, a decoded phrase that holds address punctuation is quoted, so that it cannot pass for an address.
    """
    text = value.decode("ascii") if value.isascii() else decode(value, charset)
    if "=?" in text:
        text = decode_words(text, addresses=addresses)
    text = " ".join(text.split())
    return text[:limit] if text.isprintable() else one_line(text, limit)


def decode_words(text: str, *, addresses: bool = False) -> str:
    """`text` with its encoded words decoded; adjacent words of one charset are joined before they are decoded."""
    out: list[str] = []
    pending: list[bytes] = []
    charset = ""
    end = 0
    for count, match in enumerate(_ENCODED_WORD.finditer(text)):
        if count == _WORD_LIMIT:
            break
        gap = text[end : match.start()]
        label = match[1].partition("*")[0].lower()
        if pending and (label != charset or (not gap.isspace() and gap)):
            out.append(_decoded_phrase(pending, charset, out, addresses))
            pending = []
            out.append("" if gap.isspace() else gap)
        elif not pending:
            out.append(gap)
        charset = label
        pending.append(_word_bytes(match[2], match[3]))
        end = match.end()
    if pending:
        out.append(_decoded_phrase(pending, charset, out, addresses))
    out.append(text[end:])
    return "".join(out)


def _word_bytes(encoding: str, payload: str) -> bytes:
    data = payload.encode("utf-8", "replace")
    if encoding in "bB":
        return base64_bytes(data)
    return binascii.a2b_qp(data, header=True)


def _decoded_phrase(pending: list[bytes], charset: str, before: list[str], addresses: bool) -> str:
    text = decode(b"".join(pending), charset)
    if not addresses or not _PHRASE_SPECIALS.search(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    inside_quotes = "".join(before[-2:]).endswith('"')
    return escaped if inside_quotes else f'"{escaped}"'


def unfold(head: bytes) -> bytes:
    """A header block with each folded field (RFC 5322 section 2.2.3) on one line."""
    if b"\n " in head or b"\n\t" in head:
        return _FOLD.sub(b"", head)
    return head


def parameters(value: str) -> tuple[str, dict[str, str]]:
    """A structured field value such as Content-Type as (lower-case token, parameters by lower-case name).

    The first of equal parameters counts. RFC 2231 continuations and charsets are resolved.
    """
    token = value.partition(";")[0].strip().partition(" ")[0].partition("\t")[0]
    plain: dict[str, str] = {}
    if "=" in value:
        for count, match in enumerate(_PARAMETER.finditer(value, len(token))):
            if count == _PARAMETER_LIMIT:
                break
            plain.setdefault(match[1].lower(), _unquoted(match[2]))
    if any("*" in name for name in plain):
        plain = _resolve_rfc2231(plain)
    return token.lower(), plain


def _unquoted(value: str) -> str:
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] == '"':
        # A backslash before anything else is a path of an old client, not an escape.
        return _UNESCAPE.sub(r"\1", value[1:-1])
    return value.strip('"')


def _resolve_rfc2231(plain: dict[str, str]) -> dict[str, str]:
    result = {name: value for name, value in plain.items() if "*" not in name}
    pieces: dict[str, dict[int, tuple[bool, str]]] = {}
    for name, value in plain.items():
        base, star, rest = name.partition("*")
        index = rest.rstrip("*") or "0"
        if star and index.isascii() and index.isdigit() and len(index) <= 3:
            pieces.setdefault(base, {})[int(index)] = (name.endswith("*"), value)
    for base, numbered in pieces.items():
        result[base] = _join_rfc2231([numbered[index] for index in sorted(numbered)])
    return result


def _join_rfc2231(segments: list[tuple[bool, str]]) -> str:
    charset = ""
    data: list[bytes] = []
    for position, (extended, value) in enumerate(segments):
        if extended and position == 0 and value.count("'") >= 2:
            charset, _, value = value.split("'", 2)
        raw = value.encode("utf-8", "replace")
        data.append(_PERCENT.sub(lambda match: bytes.fromhex(match[1].decode()), raw) if extended else raw)
    return decode(b"".join(data), charset)
