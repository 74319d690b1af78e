"""Kinds of text to the text that is shown: format=flowed, enriched text, broken addresses, files in uuencode.

Pure functions over bounded text. Nothing here knows charsets, parts or HTML.
"""

import re
from collections.abc import Mapping

import msgspec

from server.model.mime import transfer_encoding

# RFC 3986 appendix C: white space between the angle brackets round an address is no part of it.
_BROKEN_URL = re.compile(
    r"<(?:URL:)?[ \t]*(https?://[^\s<>\"]{1,1000}+(?:[ \t]*\n[> \t]*[^\s<>\"]{1,1000}+){1,10})\s*>", re.IGNORECASE
)
_URL_BREAK = re.compile(r"[ \t]*\n[> \t]*")
_QUOTES = re.compile(r">*")
_SIGNATURE = "-- "
_MAX_LINES = 20_000
# Characters in which marks and broken addresses are looked for.
_MAX_MARKED = 131_072
_MAX_URL_TEXT = 65_536

# RFC 1896 section 2 and, for richtext, RFC 1341 section 7.1.3.
_MARK = re.compile(r"<<|<(/?)([A-Za-z0-9-]{1,60})>")
_ONE_LINE_END = re.compile(r"(?<!\n)\n(?!\n)")
_LINE_ENDS = re.compile(r"(?<!\n)\n(\n+)")
_HIDDEN = frozenset(("param", "comment"))
_MAX_MARKS = 5_000

_BEGIN = re.compile(rb"begin [0-7]{3,4} ([^\r\n]{1,255})\r?\n(?=[!-`])")
_END = re.compile(rb"\nend[ \t]*(?:\r?\n|$)")
_MAX_BEGINS = 30


class File(msgspec.Struct, frozen=True):
    """A file that was found in a text: its name in raw bytes, its uuencoded lines."""

    name: bytes
    lines: bytes


def shown(text: str, subtype: str, parameters: Mapping[str, str]) -> str:
    """``text`` (line ends are LF) of a part of type text/``subtype`` as it is to be read."""
    if subtype == "enriched" or subtype == "richtext":
        text = enriched(text) if subtype == "enriched" else richtext(text)
    elif "format" in parameters and parameters["format"].strip().lower() == "flowed":
        text = flowed(text, delsp=parameters.get("delsp", "").strip().lower() == "yes")
    return whole_urls(text)


def whole_urls(text: str) -> str:
    """``text`` with each ``<address>`` that was broken over lines on one line."""
    # One character is found at many times the speed of five.
    if "<" not in text or not any(map(text.__contains__, ("<http", "<URL:", "<HTTP"))):
        return text
    start = _BROKEN_URL.sub(lambda match: f"<{_URL_BREAK.sub('', match[1])}>", text[:_MAX_URL_TEXT])
    return start + text[_MAX_URL_TEXT:]


def flowed(text: str, *, delsp: bool = False) -> str:
    """Text of format=flowed (RFC 3676) with each paragraph on one line; quoted lines keep one ">" a level."""
    out: list[str] = []
    pending: list[str] = []
    depth = 0
    lines = text.split("\n", _MAX_LINES)
    for line in lines[:_MAX_LINES]:
        level = 0
        if line.startswith(">"):
            marks = _QUOTES.match(line)
            level = marks.end() if marks else 0
            line = line[level:]
        line = line.removeprefix(" ")
        if pending and (level != depth or line == _SIGNATURE):
            # A paragraph that ends as if it went on (section 4.5).
            out.append(_quoted("".join(pending), depth))
            pending = []
        if line.endswith(" ") and line != _SIGNATURE:
            pending.append(line[:-1] if delsp else line)
            depth = level
        else:
            out.append(_quoted("".join((*pending, line)) if pending else line, level))
            pending = []
    if pending:
        out.append(_quoted("".join(pending), depth))
    return "\n".join(out + lines[_MAX_LINES:])


def _quoted(line: str, depth: int) -> str:
    return f"{'>' * depth} {line}" if depth else line


def enriched(text: str) -> str:
    """Text of text/enriched (RFC 1896) without its marks; one line end is a space, more of them are one less."""
    joined = _LINE_ENDS.sub(r"\1", _ONE_LINE_END.sub(" ", text[:_MAX_MARKED]))
    return _unmarked(joined, {}) + text[_MAX_MARKED:]


def richtext(text: str) -> str:
    """Text of text/richtext (RFC 1341 section 7.1.3) without its marks."""
    marks = {"lt": "<", "nl": "\n", "np": "\n\n", "paragraph": "\n"}
    return _unmarked(text[:_MAX_MARKED].replace("\n", " "), marks) + text[_MAX_MARKED:]


def _unmarked(text: str, marks: Mapping[str, str]) -> str:
    out: list[str] = []
    position = 0
    hidden = ""
    for count, match in enumerate(_MARK.finditer(text)):
        if count == _MAX_MARKS:
            break
        if not hidden:
            out.append(text[position : match.start()])
        position = match.end()
        name = (match[2] or "").lower()
        if match[0] == "<<":
            out.append("" if hidden else "<")
        elif hidden:
            hidden = "" if match[1] and name == hidden else hidden
        elif name in _HIDDEN and not match[1]:
            hidden = name
        else:
            out.append("" if match[1] and name != "paragraph" else marks.get(name, ""))
    if not hidden:
        out.append(text[position:])
    return "".join(out)


def _end(data: bytes, start: int) -> re.Match[bytes] | None:
    """The line "end" behind `start`."""
    found = data.find(b"\nend", start)
    while found >= 0:
        match = _END.match(data, found)
        if match:
            return match
        found = data.find(b"\nend", found + 1)
    return None


def split_files(data: bytes) -> tuple[bytes, tuple[File, ...]]:
    """(the text without them, the files) of a text that holds uuencoded files, at most 30."""
    if b"begin " not in data:
        return data, ()
    kept: list[bytes] = []
    files: list[File] = []
    position = 0
    start = position
    for _ in range(_MAX_BEGINS):
        start = data.find(b"begin ", start)
        if start < 0:
            break
        begin = _BEGIN.match(data, start) if start == 0 or data[start - 1 : start] == b"\n" else None
        end = _end(data, begin.end()) if begin else None
        if begin and end is None:
            break
        lines = data[begin.end() : end.start() + 1] if begin and end else b""
        if begin and end and transfer_encoding.are_uuencoded(lines):
            kept.append(data[position:start])
            files.append(File(begin[1].strip(), lines))
            start = position = end.end()
        else:
            start += 1
    kept.append(data[position:])
    return (b"".join(kept), tuple(files)) if files else (data, ())
