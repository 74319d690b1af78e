"""Pages for people: the description of the API, searchable and ready to try, from files of our own.

Lives here: which files there are and the headers they go out with. Must not know: what stands in them. Everything works
under ``default-src 'self'``: no script, style, font or picture of anybody else's.

A file is served under its own name and under one that holds a hash of its content (``docs.5d41402abc4b2a76.css``);
pages name the latter, which caches may keep for ever.
"""

import re
from collections.abc import Mapping
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from server.model.errors import Refused
from server.web.description import describe
from server.web.requests import Call
from server.web.responses import Reply, encode, etag

_FOLDER: Final = Path(__file__).parents[1] / "static"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY: Final = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_FOREVER: Final = ("Cache-Control", "public, max-age=31536000, immutable")  # RFC 8246
_OURS: Final = re.compile(rb'((?:href|src|content)=")/(?=["\w])')  # what a page says of this server
_NAMED: Final = re.compile(rb'(?<=["\'(]/static/)[\w.-]+(?=["\')])')


def _page(kind: str, content: bytes) -> Reply:
    headers = ("Content-Type", _TYPES[kind]), ("Content-Security-Policy", _POLICY)
    return Reply(200, content, etag(content), headers)


def _hashed(path: Path) -> str:
    return f"{path.stem}.{blake2b(path.read_bytes(), digest_size=8).hexdigest()}{path.suffix}"


def _linked(page: bytes, names: Mapping[str, str]) -> bytes:
    """``page`` with the files that it names named by their content."""
    return _NAMED.sub(lambda found: names.get(found[0].decode(), found[0].decode()).encode(), page)


def _files() -> dict[str, Reply]:
    """Every file by its names. Only pages name others: a script that imported one would have to be hashed after it."""
    paths = [path for path in sorted(_FOLDER.iterdir()) if path.suffix in _TYPES]
    names = {path.name: _hashed(path) for path in paths if path.suffix != ".html"}
    files = {path.name: _page(path.suffix, _linked(path.read_bytes(), names)) for path in paths}
    lasting = {names[name]: files[name] for name in names}
    return files | {name: reply._replace(headers=(*reply.headers, _FOREVER)) for name, reply in lasting.items()}


_FILES: Final = _files()  # read once: what is asked for is looked up among these and never on the disk


def document(described: dict[str, Any]) -> Reply:
    """The description for programs, made ready once."""
    body = encode(described)
    return Reply(200, body, etag(body))


@describe(
    "This description as a page",
    detail="Operations by family, searchable, each with a curl line and a form to try it with a token of yours.",
    media="text/html",
)
async def docs(call: Call) -> Reply:
    return _under(urlsplit(call.services.config.public_url).path)


@cache
def _under(prefix: str) -> Reply:
    """The page, with what it names of this server under ``prefix``: the path of PUBLIC_URL."""
    plain = _FILES["docs.html"]
    body = _OURS.sub(b"\\1" + prefix.encode() + b"/", plain.body)
    return plain._replace(body=body, etag=etag(body))


@describe("A file of the pages", media="*/*", refuses=("route_not_found",))
async def static(call: Call) -> Reply:
    found = _FILES.get(call.segments[0])
    if found is None:
        raise Refused("route_not_found")
    return found
