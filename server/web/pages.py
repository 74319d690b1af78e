"""Pages for people: the description of the API, searchable and ready to try, from files of our own.

Lives here: which files there are and the headers they go out with. Must not know: what stands in them. Everything works
under ``default-src 'self'``: no script, style, font or picture of anybody else's.
"""

from pathlib import Path
from typing import Any, Final

from server.model.errors import Refused
from server.web.description import describe
from server.web.requests import Call
from server.web.responses import Reply, encode, etag

_FOLDER: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY: Final = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def _page(path: Path) -> Reply:
    content = path.read_bytes()
    headers = (
        ("Content-Type", _TYPES[path.suffix]),
        ("Content-Security-Policy", _POLICY),
        ("Cache-Control", "public, max-age=300"),
        ("Vary", "Accept-Encoding"),
    )
    return Reply(200, content, etag(content), headers)


# read once: what is asked for is looked up among these and never on the disk
_FILES: Final = {path.name: _page(path) for path in sorted(_FOLDER.iterdir()) if path.suffix in _TYPES}


def document(described: dict[str, Any]) -> Reply:
    """The description for programs, made ready once."""
    body = encode(described)
    return Reply(200, body, etag(body), (("Cache-Control", "public, max-age=300"), ("Vary", "Origin")))


@describe(
    "This description as a page",
    detail="Operations by family, searchable, each with a curl line and a form to try it with a token of yours.",
    media="text/html",
)
async def docs(_: Call) -> Reply:
    return _FILES["docs.html"]


@describe("A file of the pages", media="*/*", refuses=("route_not_found",))
async def static(call: Call) -> Reply:
    found = _FILES.get(call.segments[0])
    if found is None:
        raise Refused("route_not_found")
    return found
