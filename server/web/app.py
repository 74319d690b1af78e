"""The HTTP application: the route table made into an aiohttp application, and served on a socket.

Lives here: building and serving. Must not know: any resource, or who wires the parts.
"""

import logging
import socket
from collections.abc import Iterable
from typing import Final

from aiohttp import web
from aiohttp.http import HttpProcessingError

from server import log
from server.web.caller import Addresses, Origins
from server.web.dispatch import Endpoint
from server.web.messages import INJECTION_MAX
from server.web.parts import WebParts
from server.web.requests import Call
from server.web.responses import Reply, failure
from server.web.routes import ROUTES, Handler, Route

__all__ = ["Serving", "WebParts", "build", "serve"]

_KEEPALIVE: Final = 75.0  # seconds: longer than a proxy keeps an idle upstream connection
_BACKLOG: Final = 4096
_STALLED_MS: Final = 60_000  # a client that takes nothing of its answer for so long is cut off
_ELSEWHERE: Final = "/{unmatched:.*}"


def build(parts: WebParts) -> web.Application:
    """The application of ``ROUTES``: HEAD goes with GET, OPTIONS with every path; else 405, and 404 elsewhere."""
    addresses, origins = Addresses(parts.config.trusted_proxies), Origins(parts.config)
    app = web.Application(client_max_size=INJECTION_MAX)

    def add(resource: web.Resource, route: Route, method: str) -> None:
        resource.add_route(method, Endpoint(route, parts, addresses, origins).answer)

    for path, routes in _by_path(ROUTES).items():
        resource = app.router.add_resource(path)
        for route in routes:
            add(resource, route, route.method)
            if route.method == "GET" and route.deadline is not None:
                add(resource, route, "HEAD")
        allow = ", ".join(sorted({route.method for route in resource} | {"OPTIONS"}))
        add(resource, Route("OPTIONS", path, _options(allow), "none", limit=False), "OPTIONS")
        add(resource, Route("*", path, _wrong_method(allow), "none", limit=True), "*")
    add(app.router.add_resource(_ELSEWHERE), Route("*", "unmatched", _unmatched, "none", limit=True), "*")
    return app


def _by_path(routes: Iterable[Route]) -> dict[str, list[Route]]:
    paths: dict[str, list[Route]] = {}
    for route in routes:
        paths.setdefault(route.path, []).append(route)
    return paths


def _options(allow: str) -> Handler:
    async def options(_: Call) -> Reply:
        return Reply(204, b"", headers=(("Allow", allow),))

    return options


def _wrong_method(allow: str) -> Handler:
    async def wrong_method(call: Call) -> Reply:
        return failure(call.language, "method_not_allowed", (("Allow", allow),))

    return wrong_method


async def _unmatched(call: Call) -> Reply:
    return failure(call.language, "route_not_found")


class Serving:
    """A running HTTP server. ``port`` is 0 on a unix socket."""

    def __init__(self, runner: web.AppRunner, port: int) -> None:
        self._runner, self.port = runner, port

    async def close(self) -> None:
        """Stop accepting, let requests in progress finish until the drain deadline, close every connection."""
        await self._runner.cleanup()


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


async def serve(app: web.Application, sock: socket.socket, drain: float) -> Serving:
    """Serve ``app`` on a bound socket; ``drain`` seconds are what ``close`` gives requests in progress."""
    runner = web.AppRunner(
        app,
        handle_signals=False,
        access_log=None,
        logger=_logger(),
        keepalive_timeout=_KEEPALIVE,
        shutdown_timeout=drain,
        auto_decompress=False,  # a compressed body is 400, not a bomb
    )
    await runner.setup()
    port = 0
    if sock.family != socket.AF_UNIX:
        port = sock.getsockname()[1]
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALLED_MS)  # accepted sockets inherit it
    await web.SockSite(runner, sock, backlog=_BACKLOG).start()
    return Serving(runner, port)
