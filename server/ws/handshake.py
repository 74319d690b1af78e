"""What is judged before a connection becomes a WebSocket: where the page came from, and the token the request carries.

Lives here: pure rules over headers and the query. Must not know: connections, or whether a token is right.

Browsers put no same-origin policy on WebSockets, so the server must (RFC 6455 section 10.2). A client without an Origin
is no browser and carries nobody's ambient rights.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from aiohttp import web

_PORTS: Final = {"http": 80, "https": 443}
_BEARER: Final = re.compile(r"bearer +(\S+) *", re.IGNORECASE)


class Origin(NamedTuple):
    """Scheme, host and port (RFC 6454 section 4), the port always spelt out."""

    scheme: str
    host: str
    port: int


def parse_origin(text: str) -> Origin | None:
    """The origin ``text`` names; None for "null", and for anything with more than scheme, host and port in it."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or _has_more(parts, text):
        return None
    return Origin(parts.scheme, parts.hostname, _PORTS[parts.scheme] if port is None else port)


def _has_more(parts: SplitResult, text: str) -> bool:
    return bool(parts.path or parts.query or parts.fragment) or any(mark in text for mark in "@?#\\ ")


def origin_allowed(origin: str | None, host: str, allowed: Sequence[str]) -> bool:
    """Whether a page of ``origin`` may connect: it is of this ``host`` (the Host header), or listed; "*" lists all."""
    if origin is None or "*" in allowed:
        return True
    asking = parse_origin(origin)
    if asking is None:
        return False
    return asking == parse_origin(f"{asking.scheme}://{host}") or any(asking == parse_origin(a) for a in allowed)


def token_of(request: web.BaseRequest, *, query: bool) -> str:
    """The token for subscriptions that name none: ``Authorization: Bearer``, or ``?token=`` if ``query``, or empty."""
    bearer = _BEARER.fullmatch(request.headers.get("Authorization", ""))
    if bearer:
        return bearer[1]
    return request.query.get("token", "") if query else ""
