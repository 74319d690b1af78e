"""The HTTP application: the route table made into a tree of paths, and served on a socket.

Lives here: finding a request's endpoint, and serving. Must not know: any resource, or who wires the parts.
"""

import asyncio
import logging
import socket
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final
from urllib.parse import unquote

from aiohttp import web
from aiohttp.http import HttpProcessingError

from server import log
from server.model.errors import Refused
from server.web.api.routes import ROUTES
from server.web.caller import Addresses, Origins
from server.web.dispatch import Endpoint, limit_lines
from server.web.fastpath import Admit, FastPath, FastPathServer
from server.web.requests import INJECTION_MAX, Call
from server.web.responses import Failed, FailureBody, Reply, failure
from server.web.route import Handler, Route
from server.web.services import Services

__all__ = ["Api", "Services", "Serving", "build", "serve"]

_KEEPALIVE: Final = 75.0  # seconds: longer than a proxy keeps an idle upstream connection
_BACKLOG: Final = 4096
_STALLED_MS: Final = 60_000  # a client that takes nothing of its answer for so long is cut off
_UNSENT: Final = 64 << 10  # bytes the kernel takes ahead of the network: it would hold 4 MB for who does not read


class _Place:
    """A node of the tree of paths: what follows, by segment, and what answers here, by method."""

    __slots__ = ("endpoints", "literal", "otherwise", "variable")

    def __init__(self) -> None:
        self.literal: dict[str, _Place] = {}
        self.variable: _Place | None = None
        self.endpoints: dict[str, Endpoint] = {}
        self.otherwise: Endpoint | None = None


class Api:
    """The application: a handler for aiohttp's low-level server, which finds a request's endpoint.

    aiohttp's own router would take longer to do that (5 µs) than a kept answer takes to be found and sent.
    """

    def __init__(self, parts: Services) -> None:
        self._root = _Place()
        self._parts, self._origins = parts, Origins(parts.config)
        self.hot = FastPath(parts.local, _admission(parts), parts.transfers)
        self._addresses = Addresses(parts.config.trusted_proxies)
        self._elsewhere: dict[str, Endpoint] = {}
        self._nowhere = self._unmatched(Failed)
        for path, routes in _by_path(route for route in ROUTES if route.part in parts.served).items():
            self._add(path, routes)
            for prefix in _prefixes(path):
                self._elsewhere.setdefault(prefix, self._unmatched(routes[0].failed))

    def __call__(self, request: web.BaseRequest) -> Coroutine[None, None, web.StreamResponse]:
        assert isinstance(request, web.Request)
        place, segments = self._root, []
        for segment in request.rel_url.raw_path.split("/"):
            if "%" in segment:
                segment = unquote(segment)
            following = place.literal.get(segment)
            if following is None:
                following = place.variable
                if following is None or not segment:
                    return self._lost(request)
                segments.append(segment)
            place = following
        endpoint = place.endpoints.get(request.method) or place.otherwise
        return endpoint.answer(request, segments) if endpoint else self._lost(request)

    def _lost(self, request: web.Request) -> Coroutine[None, None, web.StreamResponse]:
        """There is nothing at this path: said as the API that shares two segments with it, or one, says such things."""
        known = (self._elsewhere.get(prefix) for prefix in _prefixes(request.rel_url.raw_path))
        return next((one for one in known if one is not None), self._nowhere).answer(request, ())

    def _unmatched(self, failed: type[FailureBody]) -> Endpoint:
        return self._endpoint(Route("*", "unmatched", _unmatched, "none", limit=True, failed=failed))

    def _endpoint(self, route: Route) -> Endpoint:
        return Endpoint(route, self._parts, self._addresses, self._origins, self.hot)

    def _add(self, path: str, routes: Sequence[Route]) -> None:
        place, failed = self._place(path), routes[0].failed
        for route in routes:
            place.endpoints[route.method] = self._endpoint(route)
            if route.method == "GET" and route.deadline is not None:
                place.endpoints["HEAD"] = place.endpoints["GET"]
        allow = ", ".join(sorted({*place.endpoints, "OPTIONS"}))
        place.endpoints["OPTIONS"] = self._endpoint(Route("OPTIONS", path, _options(allow), "none", limit=False))
        place.otherwise = self._endpoint(Route("*", path, _wrong_method(allow, failed), "none", limit=True))

    def _place(self, path: str) -> _Place:
        place = self._root
        for segment in path.split("/"):
            if segment.startswith("{"):
                place.variable = place = place.variable or _Place()
            else:
                place = place.literal.setdefault(segment, _Place())
        return place


def _admission(parts: Services) -> Admit:
    """What counts a request that is answered before it is parsed: its limit's header lines, None where it may not pass
    or where settings that may concern it are to be read anew."""
    stale, count = parts.settings.stale, parts.limits.request

    def admit(client: str) -> bytes | None:
        if stale():
            return None
        verdict = count(client)
        if verdict is None:
            return b""
        return limit_lines(verdict) if verdict.allowed else None

    return admit


def build(parts: Services) -> Api:
    """The application of those ``ROUTES`` that this node serves: HEAD goes with GET, OPTIONS with every path; else 405,
    and 404 elsewhere."""
    return Api(parts)


def _prefixes(path: str) -> Iterable[str]:
    """A path's first two segments, and its first."""
    segments = path.split("/", 3)[1:3] or [""]  # OPTIONS * has no path at all
    return "/".join(segments), segments[0]


def _by_path(routes: Iterable[Route]) -> dict[str, list[Route]]:
    paths: dict[str, list[Route]] = {}
    for route in routes:
        paths.setdefault(route.path, []).append(route)
    return paths


def _options(allow: str) -> Handler:
    async def options(_: Call) -> Reply:
        return Reply(204, b"", headers=(("Allow", allow),))

    return options


def _wrong_method(allow: str, failed: type[FailureBody]) -> Handler:
    async def wrong_method(call: Call) -> Reply:
        return failure(call.language, "method_not_allowed", (("Allow", allow),), failed)

    return wrong_method


async def _unmatched(_: Call) -> Reply:
    raise Refused("route_not_found")


class _Kinds(logging.Handler):
    """Takes what aiohttp logs of its own. It quotes request lines, which may hold tokens: only kinds are passed on."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        level = "debug" if isinstance(error, HttpProcessingError) else record.levelname.lower()
        log.event(level, "http protocol error", kind=type(error).__name__)


def _logger() -> logging.Logger:
    logger = logging.Logger("http")  # not in logging's tree: no root handler prints what it is told
    logger.addHandler(_Kinds())
    return logger


class Serving:
    """A running HTTP server. ``port`` is 0 on a unix socket."""

    def __init__(self, runner: web.ServerRunner, site: web.BaseSite, port: int, hot: FastPath, drain: float) -> None:
        self._runner, self._site, self.port, self._hot, self._drain = runner, site, port, hot, drain

    async def close(self) -> None:
        """Stop accepting, let requests in progress finish until the drain deadline, close every connection."""
        await self._site.stop()
        await self._hot.drain(self._drain)
        await self._runner.cleanup()


def _server(api: Api) -> web.Server:
    loop = asyncio.get_running_loop()

    def request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.Request:
        return web.Request(message, payload, protocol, writer, task, loop, client_max_size=INJECTION_MAX)

    return FastPathServer(
        api,
        api.hot,
        request_factory=request,
        access_log=None,
        logger=_logger(),
        keepalive_timeout=_KEEPALIVE,
        tcp_keepalive=False,  # the listening socket has it already
        auto_decompress=False,  # a compressed body is 400, not a bomb
    )


def _inherited(sock: socket.socket) -> None:
    """What each accepted connection has from its listening socket: free then, where asking costs it an object."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALLED_MS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)


async def serve(api: Api, sock: socket.socket, drain: float) -> Serving:
    """Serve ``api`` on a bound socket; ``drain`` seconds are what ``close`` gives requests in progress."""
    runner = web.ServerRunner(_server(api), handle_signals=False, shutdown_timeout=drain)
    await runner.setup()
    port = 0
    if sock.family != socket.AF_UNIX:
        port = sock.getsockname()[1]
        _inherited(sock)
    site = web.SockSite(runner, sock, backlog=_BACKLOG)
    await site.start()
    return Serving(runner, site, port, api.hot, drain)
