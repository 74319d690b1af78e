"""Finding test messages on disk, and the expected parses that lie beside them.

Two forms of expectation are read: ``<name>.expected.json`` with any of ``subject``, ``text``, ``html_contains`` and
``attachments`` (names, or objects with ``filename`` and ``contentType``), and ``<name>.json`` as the parser of Stalwart
Labs dumps its result (``parts`` with ``text_body`` and ``attachments`` as indices into them).
Must not know: servers.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

_HEADER = re.compile(rb"[!-9;-~]+[ \t]*:")  # RFC 5322, 2.2, and the obsolete space of 4.5
_MBOX_START = re.compile(rb"^From [^\n]*\n", re.MULTILINE)
_MBOX_QUOTE = re.compile(rb"^>(>*From )", re.MULTILINE)
_NOT_MESSAGES = {".json", ".xml", ".html", ".tsv", ".py", ".md", ".golden", ".out"}


@dataclass(frozen=True, slots=True)
class Expected:
    """What a parse should yield; None where the file says nothing about a field."""

    subject: str | None = None
    text: str | None = None
    html_contains: str | None = None
    attachments: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One message; ``name`` is its path below the directory, with ``#n`` for the n-th message of an mbox."""

    name: str
    content: bytes
    expected: Expected | None


def split_mbox(content: bytes) -> list[bytes]:
    """The messages of an mbox (RFC 4155), unquoted; a From_ line counts at the start and after a blank line."""
    text = content.replace(b"\r\n", b"\n")
    starts = [
        found for found in _MBOX_START.finditer(text) if found.start() == 0 or text[: found.start()].endswith(b"\n\n")
    ]
    ends = [found.start() for found in starts[1:]] + [len(text)]
    bodies = [text[found.end() : end] for found, end in zip(starts, ends, strict=True)]
    return [_MBOX_QUOTE.sub(rb"\1", body) for body in bodies]


def _attachment_name(entry: Any) -> str:
    return str(entry.get("filename") or "") if isinstance(entry, dict) else str(entry)


def _plain_expectation(document: dict[str, Any]) -> Expected:
    attachments = document.get("attachments")
    return Expected(
        subject=document.get("subject"),
        text=document.get("text"),
        html_contains=document.get("html_contains"),
        attachments=None if attachments is None else tuple(map(_attachment_name, attachments)),
    )


def _dump_header(part: dict[str, Any], name: str) -> Any:
    """Value of the last header of that name, without its type tag; None when there is none."""
    values = [header["value"] for header in part["headers"] if header["name"] == name]
    return next(iter(values[-1].values())) if values and isinstance(values[-1], dict) else None


def _dump_file_name(part: dict[str, Any]) -> str:
    for header, wanted in (("content_disposition", "filename"), ("content_type", "name")):
        value = _dump_header(part, header)
        for attribute in (value.get("attributes") or ()) if isinstance(value, dict) else ():
            if attribute["name"] == wanted:
                return str(attribute["value"])
    return ""


def _dump_expectation(document: dict[str, Any]) -> Expected:
    parts = document["parts"]
    texts = [parts[number]["body"].get("Text") for number in document["text_body"]]
    subject = _dump_header(parts[0], "subject") if parts else None
    return Expected(
        subject=subject if isinstance(subject, str) else None,
        text="\n".join(texts) if texts and all(isinstance(text, str) for text in texts) else None,
        attachments=tuple(_dump_file_name(parts[number]) for number in document["attachments"]),
    )


def expectation(path: Path) -> Expected | None:
    """The expected parse beside a message file, or None."""
    for stem in (path.with_suffix(""), path):
        beside = stem.parent / f"{stem.name}.expected.json"
        if beside.exists():
            return _plain_expectation(orjson.loads(beside.read_bytes()))
    dump = path.with_suffix(".json")
    if dump.exists() and dump != path:
        document = orjson.loads(dump.read_bytes())
        if isinstance(document, dict) and {"parts", "text_body", "attachments"} <= document.keys():
            return _dump_expectation(document)
    return None


def _kinds(index: Path) -> dict[str, str]:
    """``path`` to ``kind`` of a tab-separated table with a heading."""
    heading, *lines = index.read_text().splitlines()
    columns = heading.split("\t")
    path, kind = columns.index("path"), columns.index("kind")
    return {cells[path]: cells[kind] for cells in (line.split("\t") for line in lines)}


def _guess(path: Path) -> str:
    """``mbox``, ``message`` or nothing, from the name and the first bytes."""
    if path.suffix.lower() in _NOT_MESSAGES or not path.is_file():
        return ""
    with path.open("rb") as file:
        start = file.read(1000)
    if start.startswith(b"From "):
        return "mbox"
    return "message" if path.suffix.lower() == ".eml" or _HEADER.match(start) else ""


def samples(directory: Path, index: Path | None) -> Iterator[Sample]:
    """Every message below a directory, in the order of names.

    ``index`` is a table of ``path`` and ``kind`` that says which files are a ``message`` or an ``mbox``; without one
    the files are looked at.
    """
    known = None if index is None else _kinds(index)
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        kind = _guess(path) if known is None else known.get(name, "")
        if kind == "message":
            yield Sample(name, path.read_bytes(), expectation(path))
        elif kind == "mbox":
            messages = split_mbox(path.read_bytes())
            alone = expectation(path) if len(messages) == 1 else None
            for number, content in enumerate(messages):
                yield Sample(f"{name}#{number}", content, alone)


def _fits_undecoded(wanted: str, got: str) -> bool:
    """Whether the expectation itself holds U+FFFD, and agrees with what was found everywhere else."""
    if "\ufffd" not in wanted or "\ufffd" in got:
        return False
    pattern = ".{1,3}".join(map(re.escape, re.split("\ufffd+", wanted)))
    return re.fullmatch(pattern, got, re.DOTALL) is not None


def compare(expected: str, found: str) -> str:
    """Name the class of difference between two texts."""
    wanted, got = (text.replace("\r\n", "\n") for text in (expected, found))
    if wanted == got:
        return "equal"
    if wanted.split() == got.split():
        return "equal but for white space"
    if _fits_undecoded(wanted, got):
        return "decoded, the expectation is not"
    if "\ufffd" in got and "\ufffd" not in wanted:
        return "undecodable characters"
    if not got.strip():
        return "nothing found"
    if " ".join(wanted.split()) in " ".join(got.split()):
        return "more than expected"
    if " ".join(got.split()) in " ".join(wanted.split()):
        return "less than expected"
    return "different"


def compare_names(expected: tuple[str, ...], found: tuple[str, ...]) -> str:
    """Name the class of difference between two lists of attachments."""
    if len(expected) != len(found):
        return "fewer attachments" if len(found) < len(expected) else "more attachments"
    if expected == found:
        return "equal"
    named = [(a, b) for a, b in zip(expected, found, strict=True) if a]
    if all(a == b for a, b in named):
        return "equal where named"
    fits = all(a == b or _fits_undecoded(a, b) for a, b in named)
    return "decoded, the expectation is not" if fits else "other names"
