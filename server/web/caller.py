"""Who is calling: the client's address behind proxies, the credential presented, and the origin of a page.

Must not know: whether the credential opens anything, or what limits an address has.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from aiohttp import web
from multidict import CIMultiDict

from server.config.parsing import Network
from server.config.settings import Config
from server.log import Once
from server.model.client import IPAddress, parse

_HOPS_MAX: Final = 32  # addresses of X-Forwarded-For that are looked at, from the right
_REMEMBERED: Final = 4096  # peers whose classification is kept

EXPOSED: Final = "ETag, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, X-Request-Id"
ACCEPTED: Final = "Authorization, Content-Type, If-None-Match, X-API-Key, X-Mailbox-Token"

COOKIE: Final = "access_token"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 section 9.2.1, of those we serve

_IGNORED: Final = Once()
_IGNORED_TEXT: Final = (
    "X-Forwarded-For is ignored: its sender is not in TEMPMAIL_TRUSTED_PROXIES. Name it there if it is your proxy, or"
    " all of its clients share the limits of one. Told once for each start"
)


class Addresses:
    """Finds the client's address. A unix socket's peer has none and is a proxy by its nature: it is believed."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = tuple(trusted)
        self._peer = lru_cache(maxsize=_REMEMBERED)(self._classified)

    def client(self, request: web.Request) -> str:
        """The address a request is counted under, canonical; "" for a unix socket without a proxy's word."""
        address, believed = self._peer(request.remote or "")
        if "X-Forwarded-For" not in request.headers:
            return address
        if not believed:
            _IGNORED.event("warning", _IGNORED_TEXT, sender=address)
            return address
        return self._forwarded(request.headers.getall("X-Forwarded-For"), address)

    def believes(self, request: web.Request) -> bool:
        """Whether the peer is a proxy whose word on the client's address is taken."""
        return self._peer(request.remote or "")[1]

    def _classified(self, peer: str) -> tuple[str, bool]:
        address = _parsed(peer)
        if address is None:
            return "", True
        return str(address), self._is_trusted(address)

    def _forwarded(self, fields: Sequence[str], peer: str) -> str:
        """The rightmost address that no trusted proxy of ours has: everything left of it is the client's own claim."""
        client = peer
        for hop in reversed(",".join(fields).rsplit(",", _HOPS_MAX)[-_HOPS_MAX:]):
            address = _parsed(hop)
            if address is None:
                break
            client = str(address)
            if not self._is_trusted(address):
                break
        return client

    def _is_trusted(self, address: IPAddress) -> bool:
        return any(address in network for network in self._trusted)


def _parsed(text: str) -> IPAddress | None:
    """An address as proxies write it: bare, ``v4:port`` or ``[v6]:port``; IPv4 inside IPv6 comes out as IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return parse(text)
    except ValueError:
        return None


class Credential(NamedTuple):
    """What a request presents: a mailbox's token, an access token (``jwt``, or ``cookie`` where a browser added it by
    itself) or an API key. ``secret`` is "" for none.
    """

    kind: Literal["token", "jwt", "cookie", "key"]
    secret: str


NONE: Final = Credential("token", "")
MISPLACED: Final = Credential("token", "-")  # of no form that could be checked
_CREDENTIALS: Final = ("Authorization", "X-API-Key", "X-Mailbox-Token")


def mailbox_credential(request: web.Request, headers: Mapping[str, str], query: bool) -> Credential:
    """What may open a mailbox: Authorization, X-Mailbox-Token, X-API-Key, ``?token=`` if ``query``, the cookie."""
    bearer = _bearer(headers)
    if bearer is not None:
        return bearer
    presented = headers.get("X-Mailbox-Token")
    if presented is not None:
        return Credential("token", presented.strip())
    key = headers.get("X-API-Key")
    if key is not None:
        return Credential("key", key.strip())
    if query and "token=" in request.raw_path:
        return _token(request.query.get("token", ""))
    return _cookie(request, headers)


def account_credential(request: web.Request, headers: Mapping[str, str]) -> Credential:
    """Who acts: Authorization, X-API-Key, the cookie."""
    bearer = _bearer(headers)
    if bearer is not None:
        return bearer
    key = headers.get("X-API-Key")
    return _cookie(request, headers) if key is None else Credential("key", key.strip())


def optional_credential(request: web.Request, headers: Mapping[str, str], query: bool) -> Credential:
    """Who acts, where nobody need. Whatever else was presented counts as a credential too: one in the wrong place, of
    the wrong kind or empty is refused, not taken for none.
    """
    found = account_credential(request, headers)
    if found.secret:
        return found
    if any(name in headers for name in _CREDENTIALS) or (query and "token" in request.query):
        return MISPLACED
    return found


def key_credential(headers: Mapping[str, str]) -> Credential:
    return Credential("key", headers.get("X-API-Key", "").strip())


def _bearer(headers: Mapping[str, str]) -> Credential | None:
    authorization = headers.get("Authorization")
    if authorization is None or authorization[:7].lower() != "bearer ":
        return None
    return _token(authorization[7:].strip())


def _token(secret: str) -> Credential:
    """An access token has three parts, dots between them (RFC 7515 section 7.1); a mailbox's token holds no dot."""
    return Credential("jwt" if secret.count(".") == 2 else "token", secret)


def _cookie(request: web.Request, headers: Mapping[str, str]) -> Credential:
    if "Cookie" not in headers:
        return NONE
    return Credential("cookie", request.cookies.get(COOKIE, ""))


def forged(request: web.Request) -> bool:
    """Whether a request with a cookie may be the work of another site's page: a change that does not come from a page
    of this very origin. Sec-Fetch-Site is the browser's own word (Fetch Metadata), Origin that of older ones.
    """
    if request.method in _SAFE:
        return False
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site != "same-origin"
    return not _same_origin(request.headers.get("Origin", ""), request.headers.get("Host", ""))


def _same_origin(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(host) and parts.netloc.lower() == host.lower()


class Origins:
    """Which pages may read our answers (the Fetch standard's CORS protocol): origins are compared whole."""

    def __init__(self, config: Config) -> None:
        self._any = "*" in config.cors_origins
        self._allowed = frozenset(config.cors_origins)
        self.open = bool(config.cors_origins)

    def admit(self, request: web.Request, answer: CIMultiDict[str]) -> None:
        """Add to an answer's headers what lets the asking page read it, if it may."""
        origin = request.headers.get("Origin")
        if origin is None or not (self._any or origin in self._allowed):
            return
        answer["Access-Control-Allow-Origin"] = "*" if self._any else origin
        answer["Access-Control-Expose-Headers"] = EXPOSED
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            answer["Access-Control-Allow-Methods"] = answer.get("Allow", "GET")
            answer["Access-Control-Allow-Headers"] = ACCEPTED
            answer["Access-Control-Max-Age"] = "600"
