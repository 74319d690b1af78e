"""Header values and texts of mail: encoded words, parameters, line ends, clean strings.

Pure functions with no I/O. Nothing here knows the structure of a message (`parts`) or what a message is
shown as (`mime`). Every function is total: it returns a string for any input, and that string holds no NUL and no
lone surrogate, so it can be encoded as UTF-8, put into JSON and stored.
"""

import io
import re

from server.model.mime import transfer_encoding
from server.model.mime.charsets import Guess, codec_of, decode, is_stateful

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\ufeff]+")
_FOLD = re.compile(rb"\r?\n(?=[ \t])")
_WORD_LIMIT = 500
_MAX_WORD = 2_000
# RFC 2047 section 2. The text of a word is looked for behind this: it may hold what it must not.
_WORD = re.compile(r"=\?([^?\s]{1,60})\?([bBqQ])\?")
_ESCAPE = re.compile(r"[0-9A-Fa-f]{2}")
_SPACE = re.compile(r"\s")
_PHRASE_SPECIALS = re.compile(r'[,<>@;:"\\()\[\]]')
# RFC 2045 section 5.1, white space allowed for a missing semicolon.
_PARAMETER = re.compile(r"(?:;|(?<![;\s])\s)\s*+([^\s=;\"]{1,64}+)\s*+=\s*+")
_QUOTED = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*)"', re.DOTALL)
# What a value ends at: nothing more, or another parameter. A quote or a semicolon alone may be a part of a name.
_BEHIND_QUOTE = r"(?=\s*+(?:\([^()]{0,200}\)\s*+)?(?:;\s*+$|$|;?\s*+[^\s=;\"]{1,64}+\s*+=))"
_NEXT_BEHIND_QUOTE = re.compile(_BEHIND_QUOTE)
_CLOSING = re.compile('"' + _BEHIND_QUOTE)
_NEXT = re.compile(
    r"(?<!\s);?\s*+$|;\s++[^\s=;\"]{1,64}+\s*+=|"
    r"(?:;|(?<![;\s])\s)\s*+(?:name|filename|charset|boundary|format|delsp|type|start|method|size|[a-z]+-date)"
    r"(?:\*[0-9]{0,3}\*?)?\s*+=",
    re.IGNORECASE,
)
_WORDS_BARE = re.compile(r"(?:=\?[^?\s;]{1,60}\?[bBqQ]\?[^?]{0,2000}+\?=\s*+)+")
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_PARAMETER_LIMIT = 100
_UNESCAPE = re.compile(r'\\(["\\])')


def decode_lines(data: bytes, label: str = "", *, crlf: bool = False, guess: Guess | None = None) -> str:
    """``newlines(decode(data, label))``; sooner where the bytes are ASCII and CR stands before LF alone, which ``crlf``
    promises: to make sure of it costs more than all else here.
    """
    if data.isascii() and not is_stateful(label) and b"\x1b" not in data and b"\0" not in data:
        unix = data.replace(b"\r", b"")
        if crlf or len(data) - len(unix) == data.count(b"\r\n"):
            return unix.decode("ascii")
    return newlines(decode(data, label, guess))


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


def decode_header(
    value: bytes, limit: int, charset: str = "", *, addresses: bool = False, guess: Guess | None = None
) -> str:
    """A header value as one line of text of at most `limit` characters.

    Encoded words (RFC 2047) are decoded, at most 500; raw 8-bit text is UTF-8, or else `charset`, or else guessed.
    With `addresses`, a decoded phrase that holds address punctuation is quoted, so that it cannot pass for an address.
    """
    text = value.decode("ascii") if value.isascii() else _raw_text(value, charset, guess)
    if "=?" in text:
        text = decode_words(text, addresses=addresses, guess=guess)
    text = " ".join(text.split())
    if text.isprintable():
        return text[:limit]
    if "\x1b" in text and value.isascii():
        # ISO-2022 as it is, whose escapes are the one thing that ASCII is looked through for.
        text = decode_words(decode(value, charset, guess), addresses=addresses, guess=guess)
    return one_line(text, limit)


def _raw_text(value: bytes, charset: str, guess: Guess | None) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return decode(value, charset, guess)


def decode_words(text: str, *, addresses: bool = False, guess: Guess | None = None) -> str:
    """`text` with its encoded words decoded; adjacent words of one charset are joined before they are decoded."""
    out: list[str] = []
    pending: list[tuple[str, str]] = []
    charset = ""
    end = position = 0
    for _ in range(_WORD_LIMIT):
        match = _WORD.search(text, position)
        if match is None:
            break
        stop, position = _end_of_word(text, match)
        if stop < 0:
            continue
        gap = text[end : match.start()]
        label = match[1].partition("*")[0].lower()
        if pending and (label != charset or (not gap.isspace() and gap)):
            out.append(_decoded_phrase(pending, charset, out, addresses, guess))
            pending = []
            out.append("" if gap.isspace() else gap)
        elif not pending:
            out.append(gap)
        charset = label
        pending.append((match[2].lower(), text[match.end() : stop]))
        end = position
    if pending:
        out.append(_decoded_phrase(pending, charset, out, addresses, guess))
    out.append(text[end:])
    return "".join(out)


def _end_of_word(text: str, match: re.Match[str]) -> tuple[int, int]:
    """(end of the text of the word that `match` opens, where to go on); the end is -1 if it is no word.

    A question mark before "=41" is text where the word goes on, and the end of the whole value may be cut off.
    """
    start = match.end()
    stop = text.find("?=", start, start + _MAX_WORD + 2)
    while stop >= 0 and match[2] in "qQ" and _ESCAPE.match(text, stop + 2):
        later = text.find("?=", stop + 2, start + _MAX_WORD + 2)
        if later < 0 or _WORD.search(text, stop, later):
            break
        stop = later
    inner = _WORD.search(text, start, stop if stop >= 0 else start + _MAX_WORD)
    if inner:
        return -1, inner.start()
    if stop >= 0:
        return stop, stop + 2
    end = len(text.rstrip())
    if start < end <= start + _MAX_WORD and not _SPACE.search(text, start, end):
        return len(text[:end].rstrip("?")), end
    return -1, start


def _decoded_phrase(
    pending: list[tuple[str, str]], charset: str, before: list[str], addresses: bool, guess: Guess | None
) -> str:
    text = decode(_words_bytes(pending, charset), charset, guess)
    if not addresses or not _PHRASE_SPECIALS.search(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    inside_quotes = "".join(before[-2:]).endswith('"')
    return escaped if inside_quotes else f'"{escaped}"'


def _words_bytes(pending: list[tuple[str, str]], charset: str) -> bytes:
    """The bytes of adjacent words, which senders cut anywhere: within a character, an escape or four base64 digits."""
    out: list[bytes] = []
    position = 0
    while position < len(pending):
        encoding = pending[position][0]
        payloads: list[str] = []
        while position < len(pending) and pending[position][0] == encoding:
            payloads.append(pending[position][1])
            position += 1
        if encoding == "b" and len("".join(payloads)) % 4:
            out += [transfer_encoding.base64_bytes(_raw(payload, charset)) for payload in payloads]
            continue
        data = _raw("".join(payloads), charset)
        out.append(transfer_encoding.base64_bytes(data) if encoding == "b" else transfer_encoding.q_word(data))
    return b"".join(out)


def _raw(payload: str, charset: str) -> bytes:
    """What stood in the header; letters that a word must not hold are meant in its charset."""
    if payload.isascii():
        return payload.encode("ascii")
    codec = codec_of(charset) or "utf-8"
    return payload.encode("utf-8" if is_stateful(charset) else codec, "replace")


def unfold(head: bytes) -> bytes:
    """A header block with each folded field (RFC 5322 section 2.2.3) on one line."""
    if b"\n " in head or b"\n\t" in head:
        return _FOLD.sub(b"", head)
    return head


def parameters(value: str, guess: Guess | None = None) -> tuple[str, dict[str, str]]:
    """A structured field value such as Content-Type as (lower-case token, parameters by lower-case name).

    The first of equal parameters counts. RFC 2231 continuations and charsets are resolved first, and encoded words
    afterwards: they may be cut over continuations. Nothing is cut at a quote or a semicolon inside a value.
    """
    token = value.partition(";")[0].strip().partition(" ")[0].partition("\t")[0]
    plain: dict[str, str] = {}
    if "=" in value:
        position = value.find(token) + len(token)
        for _ in range(_PARAMETER_LIMIT):
            match = _PARAMETER.search(value, position)
            if match is None:
                break
            found, position = _parameter(value, match.end())
            plain.setdefault(match[1].lower(), found)
    if any("*" in name for name in plain):
        plain = _resolve_rfc2231(plain, guess)
    for name, found in plain.items():
        if "=?" in found:
            plain[name] = decode_words(found, guess=guess)
    return token.strip('"').lower(), plain


def _parameter(value: str, start: int) -> tuple[str, int]:
    """(the parameter value that begins at `start`, where it ends)."""
    quoted = _QUOTED.match(value, start)
    if quoted and _NEXT_BEHIND_QUOTE.match(value, quoted.end()):
        # A backslash before anything else is a path of an old client, not an escape.
        return _UNESCAPE.sub(r"\1", quoted[1]), quoted.end()
    if quoted or value.startswith('"', start):
        return _badly_quoted(value, start + 1)
    words = _WORDS_BARE.match(value, start)
    after = words.end() if words else start
    following = _NEXT.search(value, after)
    end = following.start() if following else len(value)
    bare = value[start:end].strip().strip('"')
    return bare[1:-1] if len(bare) > 1 and bare[0] == bare[-1] == "'" else bare, end


def _badly_quoted(value: str, start: int) -> tuple[str, int]:
    """The same behind a quote, where quotes stand inside of it or the last one is missing."""
    closing = _CLOSING.search(value, start)
    if closing:
        return _UNESCAPE.sub(r"\1", value[start : closing.start()]), closing.end()
    following = _NEXT.search(value, start)
    end = following.start() if following else len(value)
    return value[start:end].strip(), end


def _resolve_rfc2231(plain: dict[str, str], guess: Guess | None) -> dict[str, str]:
    result = {name: value for name, value in plain.items() if "*" not in name}
    pieces: dict[str, dict[int, tuple[bool, str]]] = {}
    for name, value in plain.items():
        base, star, rest = name.partition("*")
        index = rest.rstrip("*") or "0"
        if star and index.isascii() and index.isdigit() and len(index) <= 3:
            pieces.setdefault(base, {})[int(index)] = (name.endswith("*"), value)
    for base, numbered in pieces.items():
        joined = _join_rfc2231([numbered[index] for index in sorted(numbered)], guess)
        result[base] = joined or result.get(base, "")
    return result


def _join_rfc2231(segments: list[tuple[bool, str]], guess: Guess | None) -> str:
    charset = ""
    data: list[bytes] = []
    for position, (extended, value) in enumerate(segments):
        if extended and position == 0 and value.count("'") >= 2:
            charset, _, value = value.split("'", 2)
        raw = value.encode("utf-8", "replace")
        data.append(_PERCENT.sub(lambda match: bytes.fromhex(match[1].decode()), raw) if extended else raw)
    return decode(b"".join(data), charset, guess)
