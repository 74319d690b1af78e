"""Names and types of attachments as HTTP may carry them: attacker's text in, safe header values out. Pure functions.

Nothing here knows messages or responses.
"""

import re
import unicodedata
from urllib.parse import quote

_MAX_BYTES = 200
_MAX_EXTENSION = 16
# C0 and C1 controls, zero-width and bidirectional marks, embeddings, overrides and isolates, line separators, the byte
# order mark, lone surrogates. U+202E makes "gpj.exe" read "exe.jpg".
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]+")
_RESERVED = re.compile(r'[<>:"|?*]')
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|$)", re.IGNORECASE)
_NOT_TOKEN = re.compile(r"[^A-Za-z0-9!#$&+.^_`|~ ()\[\]{},=@-]")
# RFC 8187 section 3.2.1, attr-char.
_ATTR_CHAR = "!#$&+-.^_`|~"
_SAFE_TYPES = frozenset(
    (
        "application/pdf",
        "application/zip",
        "audio/mpeg",
        "audio/ogg",
        "image/gif",
        "image/jpeg",
        "image/png",
        "image/webp",
        "text/plain",
        "video/mp4",
    )
)


def clean_filename(name: str) -> str:
    """The last path component of `name`, without controls, bidi overrides and characters that file systems reserve.

    At most 200 bytes of UTF-8; a cut name keeps its extension. Empty when nothing is left.
    """
    name = unicodedata.normalize("NFC", _HIDDEN.sub("", name[:4096]))
    name = name.replace("\\", "/").rstrip("/ ").rpartition("/")[2]
    name = _RESERVED.sub("_", name).strip(" .") if name.strip(" .") else ""
    if _DEVICE.match(name):
        name = "_" + name
    return _cut(name)


def _cut(name: str) -> str:
    if len(name.encode()) <= _MAX_BYTES:
        return name
    stem, dot, extension = name.rpartition(".")
    if not dot or len(extension.encode()) > _MAX_EXTENSION:
        stem, dot, extension = name, "", ""
    room = _MAX_BYTES - len((dot + extension).encode())
    return stem.encode()[:room].decode("utf-8", "ignore").rstrip(" .") + dot + extension


def content_disposition(filename: str, inline: bool = False) -> str:
    """A Content-Disposition value (RFC 6266 section 4) for any file name; printable ASCII whatever the name holds.

    A name that is not plain ASCII is sent twice: as `filename*` in UTF-8 (RFC 8187) and, for old clients, with
    underscores as `filename`.
    """
    kind = "inline" if inline else "attachment"
    name = clean_filename(filename)
    if not name:
        return kind
    fallback = _NOT_TOKEN.sub("_", name)
    if fallback == name:
        return f'{kind}; filename="{name}"'
    return f"{kind}; filename=\"{fallback}\"; filename*=UTF-8''{quote(name, safe=_ATTR_CHAR)}"


def safe_content_type(content_type: str) -> str:
    """`content_type` if a browser may be told it, else application/octet-stream.

    On the list stands only what no browser runs scripts from; send it with `nosniff` and a sandboxing policy all the
    same. Parameters are dropped, and text gets UTF-8.
    """
    token = content_type[:200].partition(";")[0].strip().lower()
    if token == "text/plain":
        return "text/plain; charset=utf-8"
    return token if token in _SAFE_TYPES else "application/octet-stream"
