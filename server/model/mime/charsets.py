"""Bytes of mail to text by charset: labels, byte order marks, a detector for bytes without a label, ISO-2022.

Pure functions with no I/O. Nothing here knows headers or the structure of a message. Every function is total, and its
text holds no NUL and no lone surrogate. The labels are those of the WHATWG Encoding Standard (section 4.2, as the
library `webencodings` lists them), then those of IANA that Python knows.
"""

import codecs
import re
from collections.abc import Mapping
from encodings.aliases import aliases
from functools import cache, lru_cache

from webencodings import LABELS

try:
    from chardetng_py import EncodingDetector
except ImportError:  # pragma: no cover - platforms for which it has no wheel; pyproject.toml names them
    EncodingDetector = None


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SINGLE_BYTE = _words(
    "cp437 cp720 cp737 cp775 cp850 cp852 cp855 cp857 cp858 cp860 cp861 cp862 cp863 cp864 cp865 cp866 cp869 "
    "cp874 cp1125 cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 hp_roman8 iso8859_2 iso8859_3 "
    "iso8859_4 iso8859_5 iso8859_6 iso8859_7 iso8859_8 iso8859_10 iso8859_13 iso8859_14 iso8859_15 iso8859_16 "
    "koi8_r koi8_t koi8_u kz1048 mac_croatian mac_cyrillic mac_farsi mac_greek mac_iceland mac_latin2 "
    "mac_roman mac_romanian mac_turkish ptcp154"
)
_MULTI_BYTE = frozenset(("utf_8", "gb18030", "big5hkscs", "cp932", "euc_jp", "cp949", "johab"))
# Their bytes below 0x80 are not ASCII characters, so none of the shortcuts for ASCII may be taken.
_STATEFUL = _words("iso2022_jp iso2022_kr iso2022_cn hz utf_7 utf_16 utf_16_le utf_16_be utf_32 utf_32_le utf_32_be")
# Python's codecs by another name, and subsets that senders confuse with the larger set (Encoding Standard, section 4).
_CODECS = {
    **dict.fromkeys(("ascii", "iso8859_1", "latin_1", "windows_1252"), "cp1252"),
    **dict.fromkeys(("iso8859_9", "windows_1254"), "cp1254"),
    **dict.fromkeys(("iso8859_11", "tis_620", "windows_874"), "cp874"),
    **dict.fromkeys(("gb2312", "gbk", "cp936"), "gb18030"),
    **dict.fromkeys(("big5", "cp950"), "big5hkscs"),
    **dict.fromkeys(("shift_jis", "shift_jis_2004", "shift_jisx0213"), "cp932"),
    **dict.fromkeys(("euc_jis_2004", "euc_jisx0213"), "euc_jp"),
    "euc_kr": "cp949",
    **{f"iso2022_jp{kind}": "iso2022_jp" for kind in ("_1", "_2", "_3", "_ext", "_2004")},
    **{f"windows_{number}": f"cp{number}" for number in range(1250, 1259) if number not in (1252, 1254)},
    **{f"iso_8859_{number}": f"iso8859_{number}" for number in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)},
    "iso_8859_8_i": "iso8859_8",
    "macintosh": "mac_roman",
    "x_mac_cyrillic": "mac_cyrillic",
    "ibm866": "cp866",
    "utf8": "utf_8",
    "utf_16": "utf_16",
}
# In use, and on neither list.
_UNLISTED = {
    **dict.fromkeys(("gb180302005", "gb180302022", "xeuccn", "euccn", "cngb", "xcp936", "ms936"), "gb18030"),
    **dict.fromkeys(("cp950", "ms950", "big5eten", "xwindows950", "windows950"), "big5hkscs"),
    **dict.fromkeys(("cp932", "windows932", "xms932", "xmscp932", "cswindows31j", "windows31j"), "cp932"),
    **dict.fromkeys(("uhc", "cp949", "ms949", "ksc5601", "ksc56011992", "xwindows949"), "cp949"),
    **dict.fromkeys(("xeucjp", "ujis", "cp51932", "eucjpms", "eucjpwin"), "euc_jp"),
    **dict.fromkeys(
        (
            "cp50220",
            "cp50221",
            "cp50222",
            "iso2022jpms",
            "xwindowsiso2022jp",
            "iso2022jpesc",
            "csiso2022jpesc",
            "jis",
            "jis7",
            "jis8",
            "xiso2022jp",
            "windows50220",
            "windows50221",
        ),
        "iso2022_jp",
    ),
    **dict.fromkeys(("iso2022cn", "iso2022cnext", "csiso2022cn"), "iso2022_cn"),
    **dict.fromkeys(("iso2022kr", "csiso2022kr"), "iso2022_kr"),
    **dict.fromkeys(("hz", "hzgb2312", "hzgb"), "hz"),
    **dict.fromkeys(("unicode11utf7", "csunicode11utf7", "xunicode20utf7"), "utf_7"),
    **dict.fromkeys(("dos874", "cp874", "xwindows874"), "cp874"),
    **{f"xcp{number}": f"cp{number}" for number in range(1250, 1259)},
    **{f"win{number}": f"cp{number}" for number in range(1250, 1259)},
    "koi8": "koi8_r",
    "macroman": "mac_roman",
    "utf8mb4": "utf_8",
    "xunicode": "utf_16",
    "iso885915fdis": "iso8859_15",
    "iso88598e": "iso8859_8",
    "ansi": "cp1252",
}
# Labels of clients that did not know. What they stand for is left to the detector.
_SAYING_NOTHING = _words(
    "usascii ascii ansix341968 ansix341986 iso646us us xuserdefined xunknown unknown unknown8bit 8bit default "
    "none binary charset"
)
_PUNCTUATION = re.compile(r"[^a-z0-9]+")
_LABEL = re.compile(r"[\s\"'=]*(?:charset\s*=)?[\s\"'=]*([^\s\"';(]{1,60})", re.IGNORECASE)

# utf-7, utf-16 and ISO-2022 call back into Python for each wrong character; a broken text is decoded up to here only.
_BROKEN_LIMIT = 65_536
_SAMPLE = 4_096
_SAMPLES = 8_192
_ASCII = bytes(range(128))
_HIGH = re.compile(rb"[\x80-\xff]")
_COUNTRY = re.compile(rb"\.([A-Za-z]{2})>?\s*$")
# Answers of the detector that next to no mail is written in; isolated letters of western languages look like them.
_IMPROBABLE = frozenset(("iso8859_4", "iso8859_10", "iso8859_14", "mac_cyrillic", "mac_roman"))

_WESTERN = _ASCII + "áéíóúñüàèìòùâêîôûäëïößçãåæøÁÉÍÓÚÑÜÀÈÊÂÔÄÖÇÅØ¿¡«»°ºª·–—‘’“”€…".encode("cp1252")

_TURKISH = _ASCII + "çğıöşüÇĞİÖŞÜâîû’‘“”–—…".encode("cp1254")
_TURKISH_ALONE = (b"\xf0", b"\xfd", b"\xfe")

_ESCAPES = re.compile(rb"\x1b(?:\$[@AB]|\$\([@ABDOPQ]|\([IJ]|\$\)[ACG])")
_SWITCH = re.compile(rb"(\x1b(?:\$\(?[@ABCDOPQ]|\([BHIJT]|&@)|[\x0e\x0f])")
_DESIGNATION = re.compile(rb"\x1b\$[*+)][A-Z]")
_SHIFT = re.compile(rb"([\x0e\x0f])")
_MAX_SWITCHES = 20_000
_TO_EUC = bytes(byte | 0x80 if 0x21 <= byte <= 0x7E else byte for byte in range(256))
_PAIR = re.compile(rb"([\xa1-\xfe]{2})")
_TWO_BYTES = {
    b"\x1b$@": ("euc_jp", b""),
    b"\x1b$B": ("euc_jp", b""),
    b"\x1b$A": ("gb2312", b""),
    b"\x1b$C": ("euc_kr", b""),
    b"\x1b$D": ("euc_jp", b"\x8f"),
    b"\x1b$O": ("euc_jis_2004", b""),
    b"\x1b$Q": ("euc_jis_2004", b""),
    b"\x1b$P": ("euc_jis_2004", b"\x8f"),
}
_ROMAN = str.maketrans("\\~", "¥‾")

_MARKS = (
    (codecs.BOM_UTF8, "utf_8"),
    (codecs.BOM_UTF32_LE, "utf_32"),
    (codecs.BOM_UTF32_BE, "utf_32"),
    (codecs.BOM_UTF16_LE, "utf_16"),
    (codecs.BOM_UTF16_BE, "utf_16"),
)
_META_BYTES = 4_096
# WHATWG HTML, section 13.2.3.2: <meta charset=x> or content="text/html; charset=x". XML says it in its declaration.
_META = re.compile(
    rb"<meta\b[^>]{0,500}?\bcharset\s*=\s*[\"']?\s*([^\s\"'/>;]{1,60})|<\?xml\b[^>]{0,200}?\bencoding\s*=\s*[\"']([^\"'>]{1,60})",
    re.IGNORECASE,
)
_COMMENT = re.compile(rb"<!--.*?(?:-->|\Z)", re.DOTALL)


def _labels() -> dict[str, str]:
    """Codec by label without its punctuation; the standard's own labels count first."""
    known = _SINGLE_BYTE | _MULTI_BYTE | _STATEFUL
    table = dict(_UNLISTED)
    for label, name in [*((name, name) for name in known), *aliases.items()]:
        codec = _CODECS.get(name, name)
        if codec in known:
            table[_PUNCTUATION.sub("", label.lower())] = codec
    for label, name in LABELS.items():
        stripped = _PUNCTUATION.sub("", label)
        codec = _CODECS.get(name.replace("-", "_"), name.replace("-", "_"))
        if codec in known:
            table[stripped] = codec
    for label in ("utf16", "ucs2", "iso10646ucs2", "csunicode", "unicode", "unicodefeff", "unicodefffe"):
        table[label] = "utf_16_be" if label == "unicodefffe" else "utf_16"
    return table


_CODEC_OF = _labels()


@lru_cache(maxsize=512)
def codec_of(label: str) -> str | None:
    """The Python codec for a charset label, or None where it names no charset (zlib, rot13, idna, ... do not)."""
    match = _LABEL.match(label[:200])
    name = _PUNCTUATION.sub("", match[1].lower()) if match else ""
    return None if name in _SAYING_NOTHING else _CODEC_OF.get(name)


def is_stateful(label: str) -> bool:
    """Whether ASCII bytes may be something else in this charset."""
    return bool(label) and codec_of(label) in _STATEFUL


class Guess:
    """What the text of one message is written in where nothing says so: one answer for all of it.

    Bounded: 4 KiB of each piece and 8 KiB of all are looked at, once.
    """

    __slots__ = ("_codec", "_head", "_pieces", "_raw", "_size")

    def __init__(self, head: Mapping[bytes, bytes] | None = None, raw: bytes = b"") -> None:
        """``head``: the fields of the message. The country that From ends in tells neighbouring charsets apart.
        ``raw``: the message, which is looked at where no body was added before the first question.
        """
        self._head, self._raw = head or {}, raw
        self._pieces: list[bytes] = []
        self._size = 0
        self._codec: str | None = None

    def add(self, data: bytes) -> None:
        """Notes text without a usable label, before anything is decoded."""
        if self._size >= _SAMPLES or data.isascii():
            return
        first = _HIGH.search(data)
        start = data.rfind(b"\n", 0, first.start()) + 1 if first else 0
        piece = data[max(start, (first.start() if first else 0) - 200) :][:_SAMPLE]
        if _valid_utf8(piece):
            return
        self._pieces.append(piece)
        self._size += len(piece)

    def codec(self, data: bytes) -> str:
        """The codec for ``data``, which is not UTF-8."""
        if self._codec is None:
            bodies = b"" if self._pieces else self._raw
            for value in (data, *self._head.values(), bodies):
                self.add(value)
            sample = b"\n".join(self._pieces)[:_SAMPLES] or data[:_SAMPLE]
            self._codec = _detected(sample, self._head.get(b"from", b""))
        return self._codec


def _valid_utf8(piece: bytes) -> bool:
    try:
        # What is cut off in the middle of a character is still UTF-8.
        codecs.getincrementaldecoder("utf-8")().decode(piece)
    except UnicodeDecodeError:
        return False
    return True


def _detected(sample: bytes, sender: bytes) -> str:
    if EncodingDetector is None:
        return "cp1252"
    country = _COUNTRY.search(sender[-300:])
    detector = EncodingDetector()
    detector.feed(sample, last=True)
    name = detector.guess(tld=country[1].lower() if country else None, allow_utf8=False)
    codec = codec_of(name) or "cp1252"
    if codec in _IMPROBABLE:
        return "cp1252"
    if codec in ("cp1250", "iso8859_2", "cp1252") and country is None and _is_turkish(sample):
        return "cp1254"
    if codec in ("cp1250", "iso8859_2") and country is None and not sample.translate(None, _WESTERN):
        # Spanish looks like it by its one letter that both have.
        return "cp1252"
    return codec


def _is_turkish(sample: bytes) -> bool:
    """Whether it has two of the letters g with breve, dotless i and s with cedilla, and none that Turkish lacks."""
    return not sample.translate(None, _TURKISH) and sum(map(sample.__contains__, _TURKISH_ALONE)) > 1


def decode(data: bytes, label: str = "", guess: Guess | None = None) -> str:
    """``data`` in the charset ``label`` as text, without its byte order mark.

    A byte order mark counts more than any label. A label that says ASCII, nothing or Latin-1 is believed only when the
    bytes are not valid UTF-8. What has no label is what ``guess`` says. Bytes that the charset does not define become
    U+FFFD.
    """
    codec = codec_of(label) if label else None
    if codec not in _STATEFUL and data.isascii() and b"\0" not in data and b"\x1b" not in data:
        return data.decode("ascii")
    for mark, marked in _MARKS:
        if data.startswith(mark):
            codec = marked
            break
    if codec in _STATEFUL and codec is not None:
        return _decode_stateful(data, codec, guess)
    if codec is None and b"\0" in data and (wide := _wide(data)):
        return _decode_stateful(data, wide, guess)
    if data.isascii():
        escape = _ESCAPES.search(data) if b"\x1b" in data else None
        return _escaped(data, escape[0]) if escape else _without_nul(data.decode("ascii"))
    return _without_nul(_decode_eight_bit(data, codec, guess).removeprefix("\ufeff"))


def says_nothing(data: bytes, label: str) -> bool:
    """Whether the bytes need a guess: 8-bit and without a usable label."""
    return not data.isascii() and codec_of(label) is None


def in_html(data: bytes) -> str:
    """The label that a document of HTML or XML gives itself in its first 4,096 bytes, "" if none."""
    start = data[:_META_BYTES]
    if b"<" not in start:
        return ""
    match = _META.search(_COMMENT.sub(b"", start) if b"<!--" in start else start)
    if match is None:
        return ""
    label = (match[1] or match[2]).decode("ascii", "replace")
    codec = codec_of(label) or ""
    # It was read as ASCII, so it cannot be UTF-16 (section 13.2.3.2, step "get an encoding").
    return "utf-8" if codec.startswith(("utf_16", "utf_32")) else label


def _wide(data: bytes) -> str:
    """The codec of UTF-16 without a mark or a label: one half of its characters' bytes is NUL."""
    sample = data[:_SAMPLE]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if odd * 3 > len(sample) and even * 10 <= odd:
        return "utf_16_le"
    return "utf_16_be" if even * 3 > len(sample) and odd * 10 <= even else ""


@cache
def _table(codec: str) -> str:
    """The 256 characters of a single-byte codec. A whole table never meets an error, which is what costs time."""
    return bytes(range(256)).decode(codec, "replace")


def _decode_eight_bit(data: bytes, codec: str | None, guess: Guess | None) -> str:
    if codec in (None, "cp1252", "utf_8"):
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            if codec != "cp1252":
                codec = _not_quite_utf8(data, codec, guess)
    if codec in _STATEFUL and codec is not None:
        return _decode_stateful(data, codec, None)
    if codec is None or codec not in _MULTI_BYTE:
        return codecs.charmap_decode(data, "strict", _table(codec or "cp1252"))[0]
    return _decode_multi_byte(data, codec)


def _decode_multi_byte(data: bytes, codec: str) -> str:
    try:
        return data.decode(codec)
    except UnicodeDecodeError:
        if codec != "utf_8" and _valid_utf8(data):
            return data.decode("utf-8", "replace")
    if codec == "euc_jp":
        return data[:_BROKEN_LIMIT].decode(codec, _NEC) + data[_BROKEN_LIMIT:].decode(codec, "replace")
    return data.decode(codec, "replace")


def _not_quite_utf8(data: bytes, codec: str | None, guess: Guess | None) -> str:
    """UTF-8 with a flaw stays UTF-8; a text in which most sequences are wrong is something else."""
    first = _HIGH.search(data)
    sample = data[max(0, first.start() - 200 if first else 0) :][:_SAMPLE]
    wrong = sample.decode("utf-8", "replace").count("\ufffd")
    if wrong * (4 if codec == "utf_8" else 10) <= len(sample.translate(None, _ASCII)):
        return "utf_8"
    return (guess or Guess()).codec(data)


def _decode_stateful(data: bytes, codec: str, guess: Guess | None) -> str:
    if codec == "iso2022_jp":
        return scrub(_japanese(data, guess))
    if codec == "iso2022_cn":
        return scrub(_chinese(data))
    try:
        text = data.decode(codec)
    except UnicodeDecodeError:
        text = data[:_BROKEN_LIMIT].decode(codec, "replace")
    return scrub(text.removeprefix("\ufeff"))


def _escaped(data: bytes, escape: bytes) -> str:
    """7-bit text that switches its character set without a label that says so."""
    if escape == b"\x1b$)C":
        return _decode_stateful(data, "iso2022_kr", None)
    return _decode_stateful(data, "iso2022_cn" if escape.startswith(b"\x1b$)") else "iso2022_jp", None)


def _japanese(data: bytes, guess: Guess | None) -> str:
    """ISO-2022-JP with all that is sent under its name: the characters of NEC and IBM, half-width katakana in each of
    its three forms, JIS X 0212 and 0213, and bytes of UTF-8, Shift_JIS or EUC-JP.
    """
    if b"\x1b" not in data and b"\x0e" not in data:
        return _eight_bit_japanese(data, guess)
    pieces = _SWITCH.split(data, _MAX_SWITCHES)
    out = [_eight_bit_japanese(pieces[0], guess)]
    for switch, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        # "\x1b$(B" is the longer spelling of "\x1b$B".
        two_bytes = _TWO_BYTES.get(switch.replace(b"(", b"")) if switch.startswith(b"\x1b$") else None
        if two_bytes:
            # Each line ends in ASCII (RFC 1468), also where the sender forgot to say so.
            line, feed, rest = piece.partition(b"\n")
            out.append(_pairs(line, *two_bytes) + (feed + rest).decode("ascii", "replace"))
        elif switch in (b"\x1b(I", b"\x0e"):
            out.append(piece.translate(_TO_EUC).decode("cp932", "replace"))
        elif switch == b"\x1b(J":
            out.append(_eight_bit_japanese(piece, guess).translate(_ROMAN))
        else:
            out.append(_eight_bit_japanese(piece, guess))
    return "".join(out)


def _pairs(line: bytes, codec: str, prefix: bytes) -> str:
    euc = line.translate(_TO_EUC)
    if prefix:
        euc = _PAIR.sub(prefix + rb"\1", euc)
    try:
        return euc.decode(codec)
    except UnicodeDecodeError:
        errors = _NEC if codec == "euc_jp" else "replace"
        return euc[:_BROKEN_LIMIT].decode(codec, errors) + euc[_BROKEN_LIMIT:].decode(codec, "replace")


def _eight_bit_japanese(data: bytes, guess: Guess | None) -> str:
    if data.isascii():
        return data.decode("ascii")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    codec = (guess or Guess({b"from": b".jp"})).codec(data)
    return data.decode(codec if codec in ("euc_jp", "gb18030") else "cp932", "replace")


def _chinese(data: bytes) -> str:
    """ISO-2022-CN (RFC 1922): GB 2312 between SO and SI. CNS 11643 is no charset of Python's."""
    pieces = _SHIFT.split(_DESIGNATION.sub(b"", data), _MAX_SWITCHES)
    out = [pieces[0].decode("ascii", "replace")]
    for switch, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        out.append(
            piece.translate(_TO_EUC).decode("gb18030", "replace")
            if switch == b"\x0e"
            else piece.decode("ascii", "replace")
        )
    return "".join(out)


@lru_cache(maxsize=4096)
def _nec(pair: bytes) -> str:
    """A pair of EUC-JP that only Windows code page 932 has: rows 13 and 89 to 92."""
    if len(pair) < 2 or pair[0] < 0xA1 or pair[1] < 0xA1:
        return ""
    row, cell = pair[0] - 0xA0, pair[1] - 0xA0
    lead = (row - 1) // 2 + (0x81 if row <= 62 else 0xC1)
    trail = cell + (0x9E if row % 2 == 0 else 0x3F if cell <= 63 else 0x40)
    return bytes((lead, trail)).decode("cp932", "ignore")


def _nec_or_replacement(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    found = _nec(error.object[error.start : error.start + 2])
    return (found, error.start + 2) if found else ("\ufffd", error.start + 1)


_NEC = "tempmail.nec"
codecs.register_error(_NEC, _nec_or_replacement)


def _without_nul(text: str) -> str:
    return text.replace("\0", "\ufffd") if "\0" in text else text


def scrub(text: str) -> str:
    """`text` with U+FFFD for NUL and for lone surrogates, which neither UTF-8, JSON nor PostgreSQL can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _without_nul(text)
