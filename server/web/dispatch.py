"""Around every handler, once, in this order: who, limit, token, kept answer, handler, failure, headers, count.

Lives here: ``Endpoint``, one row of the route table at work. One function and no stack of middlewares, because each of
those costs a request about 3 µs and most of them an await.
Must not know: any resource. What a client sent is never logged: paths as templates, no token, no body, no query.
"""

import asyncio
import math
import secrets
import time
import traceback
from collections.abc import Iterable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Final, cast
from urllib.parse import unquote

from aiohttp import HttpVersion11, web
from multidict import CIMultiDict

from server import clock, log
from server.cache import keys
from server.cache.buckets import Verdict
from server.cache.responses import CachedResponse, ResponseCache
from server.metrics import LATENCY, Counter, Histogram, Labels, Tally
from server.model.account import Principal
from server.model.errors import Crowded, Refused, Unavailable
from server.model.message import Mailbox
from server.outages import explained
from server.web import caller
from server.web.answers import Answer, Open, RawResponse
from server.web.caller import Credential
from server.web.fastpath import BURST_BYTES, FastPath, FastPathProtocol, KnownRequest, front_of
from server.web.gate import Gate
from server.web.requests import Call, LongLived, Target
from server.web.responses import JSON, Headers, Reply, failure, matches, refusal
from server.web.route import Route
from server.web.services import Services
from server.web.translations import Language, language

REQUESTS: Final = Counter("http_requests_total", "Requests answered.", ("method", "endpoint", "status_code"))
DURATION: Final = Histogram("http_request_duration_seconds", "Time to make an answer.", LATENCY, ("method", "endpoint"))

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SLOW: Final = 1.0  # seconds
_ENDLESS: Final = 60.0  # seconds
_WHOLE_MAX: Final = BURST_BYTES  # bytes of a body that is written without asking whether the client takes it
_RETRY_AFTER: Final = ("Retry-After", "1")

# No shared cache may keep or mix up what belongs to one caller: nginx, for one, ignores Authorization in its keys.
_ALWAYS: Final = {
    "Server": "tempmail",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
    "Vary": "Accept-Language, Authorization, Cookie, X-API-Key, X-Mailbox-Token, Origin",
}
_SHARED_VARY: Final = "Accept-Language, Origin"
_BODILESS: Final = CIMultiDict(_ALWAYS)
_WITH_BODY: Final[dict[Language, CIMultiDict[str]]] = {
    "en": CIMultiDict(_ALWAYS | {"Content-Type": JSON, "Content-Language": "en"}),
    "zh": CIMultiDict(_ALWAYS | {"Content-Type": JSON, "Content-Language": "zh"}),
}

_Key = tuple[str, Credential, Language]


class Endpoint:
    """Answers the requests of one route."""

    def __init__(
        self, route: Route, parts: Services, addresses: caller.Addresses, origins: caller.Origins, hot: FastPath
    ) -> None:
        self._route, self._parts, self._addresses, self._origins = route, parts, addresses, origins
        self._hot = hot
        self._local: ResponseCache | None = parts.local if route.cache else None
        self._gate = Gate(route, parts)
        self._shared = _shared(route.shared)
        self._labels: dict[tuple[str, int], tuple[Labels, Labels]] = {}
        self._tallies: dict[int, Tally] = {}
        self._make = self.make  # one bound method for all heads
        self._variable = [nth for nth, segment in enumerate(route.path.split("/")) if segment.startswith("{")]

    async def answer(self, request: web.Request, segments: Sequence[str]) -> web.StreamResponse:
        """The whole of it, without an await where the answer is kept. ``segments``: the path's variable ones."""
        began = time.perf_counter()
        headers = request.headers
        accept = headers.get("Accept-Language")
        tongue = "en" if accept is None else language(accept)
        client = self._addresses.client(request)
        front = front_of(request)
        if front is not None:
            front.started()
            if not front.asked:
                front.asked, front.client = True, None if self._addresses.believes(request) else client
        if self._parts.settings.stale():
            await self._parts.settings.refresh()
        credential = self._gate.presented(request, headers)
        principal = self._gate.recall(credential)
        verdict = self._gate.count(credential, principal, client)
        reply: Reply | web.StreamResponse
        if verdict is not None and not verdict.allowed:
            reply = refusal(tongue, Refused("rate_limited", retry_after=verdict.retry_after), self._route.failed)
        else:
            ready = self._ready(request, credential, principal, tongue)
            if ready is None:
                call = Call(request, self._parts, client, tongue, segments, None, principal, verdict)
                reply = await self._made(call, credential)
                verdict = call.verdict
            else:
                reply = Reply(200, ready.body, ready.etag)
            if (
                self._local is not None
                and credential.kind == "token"
                and isinstance(reply, Reply)
                and reply.etag
                and len(reply.body) <= _WHOLE_MAX
            ):
                self._learn(front, request, (request.raw_path, credential, tongue), client)
        if isinstance(reply, Reply):
            response = self._response(front, request, self._fitting(reply, client, tongue), verdict, tongue, client)
        else:
            response = reply
        self._count(request.method, response.status, time.perf_counter() - began)
        return response

    async def make(self, known: KnownRequest, client: str) -> bytes:
        """``answer`` for a head that was answered before, of which all is known but the answer of this moment. Only for
        those that ``_learn`` taught: a mailbox's token opens what depends on mailbox and target alone.
        """
        began = time.perf_counter()
        path, credential, tongue = cast(_Key, known.key)
        if self._parts.settings.stale():
            await self._parts.settings.refresh()
        verdict = self._gate.count(credential, None, client)
        if verdict is not None and not verdict.allowed:
            reply: Reply | web.StreamResponse
            reply = refusal(tongue, Refused("rate_limited", retry_after=verdict.retry_after), self._route.failed)
        else:
            assert self._local is not None
            coming = None if self._local.find(known.key) else self._local.coming(known.key)
            if coming is not None:
                await asyncio.shield(coming)  # others wait for it too
            ready = self._local.get(known.key)
            if ready is None:
                target = Target(path)
                parts = target.path.split("/")
                segments = [unquote(parts[nth]) for nth in self._variable]
                reply = await self._made(Call(target, self._parts, client, tongue, segments), credential)
            else:
                reply = Reply(200, ready.body, ready.etag)
        assert isinstance(reply, Reply)
        status, lines, body = _written(reply, tongue, known)
        self._count("GET", status, time.perf_counter() - began)
        return lines + self._hot.tail(time.monotonic(), limit_lines(verdict) if verdict is not None else b"") + body

    def _fitting(self, reply: Reply, client: str, tongue: Language) -> Reply:
        """``reply``, or that there is no room for an answer so large. Figures are answered while a worker is full."""
        if len(reply.body) <= _WHOLE_MAX:
            return reply
        try:
            self._parts.transfers.admit(client, len(reply.body), always=self._route.part == "ops")
        except Refused as refused:
            return refusal(tongue, refused, self._route.failed)
        except Crowded as crowded:
            return self._crowded(tongue, crowded)
        return reply

    def _crowded(self, tongue: Language, crowded: Crowded) -> Reply:
        return failure(tongue, "unavailable", (("Retry-After", str(round(crowded.retry_after))),), self._route.failed)

    def _ready(
        self, request: web.Request, credential: Credential, principal: Principal | None, tongue: Language
    ) -> CachedResponse | None:
        """The kept answer. One made for an account is only looked for while memory knows that the account stands."""
        if self._local is None or not credential.secret or (principal is None and credential.kind != "token"):
            return None
        return self._local.get((request.raw_path, credential, tongue))

    async def _made(self, call: Call, credential: Credential) -> Reply | web.StreamResponse:
        """What the handler makes of it, within the deadline, or the answer for what went wrong."""
        try:
            async with asyncio.timeout(self._route.deadline) as call.deadline:
                if self._route.bulky:
                    self._parts.transfers.admit(call.client, 0)
                return await self._authorised(call, credential)
        except Refused as refused:
            return refusal(call.language, refused, self._route.failed)
        except (web.RequestPayloadError, ConnectionError):  # the client broke its body off, or its chunks are no chunks
            return failure(call.language, "body_invalid", (), self._route.failed)
        except Crowded as crowded:
            return self._crowded(call.language, crowded)
        except (Unavailable, TimeoutError) as error:
            return self._unavailable(call, error)
        except Exception as error:  # a fault of ours: the client learns that it was, the log where
            return self._fault(call, error)
        finally:
            if call.body is not None:
                call.body.done()

    async def _authorised(self, call: Call, credential: Credential) -> Reply | web.StreamResponse:
        if self._route.deadline is None:
            call.staying = LongLived(self._begun, partial(self._gate.reopen, credential=credential))
        if self._local is None:
            await self._gate.admit(call, credential)
            return await self._handled(call)
        ticket = self._local.ticket(keys.mailbox(call.segments[0]))  # before anything is read: see cache/local
        await self._gate.admit(call, credential)
        reply = await self._handled(call)
        # the right to a mailbox without an owner hangs on the account's role, which the mailbox's generation knows not
        lasting = call.principal is None or call.mailbox.user_id is not None
        if lasting and isinstance(reply, Reply) and reply.status == 200 and reply.etag:
            key = (call.asked.raw_path, credential, call.language)
            ready = CachedResponse(reply.body, reply.etag)
            self._local.put(key, ticket, ready, _time_left(call.mailbox), reply.growth)
        return reply

    async def _begun(self, call: Call, extra: Iterable[tuple[str, str]]) -> web.StreamResponse:
        """The head of an answer that stays open."""
        response = Open(front_of(call.request), _BODILESS)
        self._finish(call.request, response.headers, extra, call.verdict)
        await response.prepare(call.request)
        return response

    async def _handled(self, call: Call) -> Reply | web.StreamResponse:
        place = self._gate.enter(call)
        try:
            return await self._route.handler(call)
        finally:
            self._gate.leave(place)

    def _unavailable(self, call: Call, error: Unavailable | TimeoutError) -> Reply:
        told = isinstance(error, Unavailable) and explained()
        request_id = self._logged("debug" if told else "warning", "request failed for now", error)
        return failure(call.language, "unavailable", (_RETRY_AFTER, ("X-Request-Id", request_id)), self._route.failed)

    def _fault(self, call: Call, error: Exception) -> Reply:
        request_id = self._logged("error", "request failed", error)
        return failure(call.language, "internal_error", (("X-Request-Id", request_id),), self._route.failed)

    def _logged(self, level: str, message: str, error: Exception) -> str:
        """Log where ``error`` arose under a new request id. Not its text, which may quote what the client sent."""
        request_id = secrets.token_hex(8)
        frames = traceback.extract_tb(error.__traceback__)[-4:]
        where = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
        kind, route = type(error).__name__, self._route
        log.event(level, message, request_id=request_id, method=route.method, path=route.path, kind=kind, where=where)
        return request_id

    def _response(
        self,
        front: FastPathProtocol | None,
        request: web.Request,
        reply: Reply,
        verdict: Verdict | None,
        tongue: Language,
        client: str,
    ) -> web.StreamResponse:
        status, body, tag, extra, _ = reply
        if status == 200 and self._shared:
            extra = (*self._shared, *extra)  # what the handler says of caches goes over it
        if tag and request.method in ("GET", "HEAD"):
            condition = request.headers.get("If-None-Match")
            if condition is not None and matches(condition, tag):
                status, body, extra = 304, b"", _only_caching(extra)
        if front is not None and front.takes and not extra and len(body) <= _WHOLE_MAX and self._stays(request):
            limits = limit_lines(verdict) if verdict is not None else b""
            head = _head(status, tongue if body else None, tag, len(body))
            return RawResponse(front, status, head + self._hot.tail(time.monotonic(), limits) + body)
        response = Answer(front, request, client, status, body, _WITH_BODY[tongue] if body else _BODILESS)
        if tag:
            response.headers["ETag"] = tag
        self._finish(request, response.headers, extra, verdict)
        return response

    def _stays(self, request: web.Request) -> bool:
        """Whether the answer's head has nothing that hangs on its request, and the connection stays open."""
        plain = request.version == HttpVersion11 and request.method != "HEAD" and not self._origins.open
        return plain and request.keep_alive

    def _finish(
        self,
        request: web.Request,
        headers: CIMultiDict[str],
        extra: Iterable[tuple[str, str]],
        verdict: Verdict | None,
    ) -> None:
        """Add what a handler gave, what is left of the budget, and what lets a page read the answer."""
        for name, value in extra:
            headers[name] = value
        if verdict is not None:
            headers.extend(limit_headers(verdict))
        if self._origins.open:
            self._origins.admit(request, headers)

    def _learn(self, front: FastPathProtocol | None, request: web.Request, key: _Key, client: str) -> None:
        """Let the next request with this very head be answered before it is parsed: the answer is kept."""
        if front is None or not front.heads or request.method != "GET" or request.version != HttpVersion11:
            return
        head, (path, credential, tongue) = front.heads[0], key
        asked = f"GET {path} HTTP/1.1\r\n".encode("utf-8", "surrogateescape")
        if not head.startswith(asked) or credential.secret.encode("utf-8", "surrogateescape") not in head:
            return  # never another's, whatever went wrong
        condition = request.headers.get("If-None-Match")

        def rendered(ready: CachedResponse) -> tuple[bytes, bool]:
            if condition is not None and matches(condition, ready.etag):
                return _head(304, None, ready.etag, 0), False
            return _head(200, tongue, ready.etag, len(ready.body)), True

        tally = self._tally(200 if condition is None else 304)
        self._hot.learn(head, KnownRequest(key, client, tally, rendered, self._make))

    def _tally(self, status: int) -> Tally:
        """Counts answers to heads that are not parsed. They take no time worth measuring."""
        tally = self._tallies.get(status)
        if tally is None:
            counted, timed = self._label("GET", status)

            def fold(n: int) -> None:
                REQUESTS.add(counted, n)
                DURATION.observe(0.0, timed, n)

            tally = self._tallies[status] = Tally(fold)
        return tally

    def _count(self, method: str, status: int, seconds: float) -> None:
        labels = self._labels.get((method, status))
        if labels is None:
            labels = self._label(method, status)
        REQUESTS.add(labels[0])
        if self._route.deadline is not None:
            DURATION.observe(seconds, labels[1])
            if seconds > _SLOW:
                self._log_slow(status, seconds)

    def _label(self, method: str, status: int) -> tuple[Labels, Labels]:
        """The labels of one kind of answer, made once: a label's values must be few, and clients choose methods."""
        shown = method if method in _METHODS else "other"
        labels = (shown, self._route.path, str(status)), (shown, self._route.path)
        if shown == method:
            self._labels[method, status] = labels
        return labels

    def _log_slow(self, status: int, seconds: float) -> None:
        route = self._route
        taken = round(seconds, 3)
        log.event("warning", "slow request", method=route.method, path=route.path, status=status, seconds=taken)


def _shared(seconds: int) -> Headers:
    """What lets a shared cache keep an answer (RFC 9111) and serve it while it asks for a fresh one (RFC 5861)."""
    if not seconds:
        return ()
    control = f"public, max-age={seconds}, stale-while-revalidate={12 * seconds}"
    return ("Cache-Control", control), ("Vary", _SHARED_VARY)


def limit_headers(verdict: Verdict) -> dict[str, str]:
    """What a client is told of its limit; the reset is a Unix time."""
    return {
        "X-RateLimit-Limit": str(verdict.limit),
        "X-RateLimit-Remaining": str(verdict.remaining),
        "X-RateLimit-Reset": str(math.ceil(clock.wall() + verdict.reset)),
    }


def limit_lines(verdict: Verdict) -> bytes:
    """The same as the lines of a head."""
    reset = math.ceil(clock.wall() + verdict.reset)
    return b"X-RateLimit-Limit: %d\r\nX-RateLimit-Remaining: %d\r\nX-RateLimit-Reset: %d\r\n" % (
        verdict.limit,
        verdict.remaining,
        reset,
    )


_fixed: Final[dict[tuple[int, Language | None], bytes]] = {}


def _head(status: int, tongue: Language | None, tag: str, length: int) -> bytes:
    """The head of an answer as aiohttp would write it, but for Date, limits and the empty line. ``tongue``: its body's,
    None where there is none.
    """
    fixed = _fixed.get((status, tongue))
    if fixed is None:
        headers = _BODILESS if tongue is None else _WITH_BODY[tongue]
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        fixed = _fixed[status, tongue] = "\r\n".join(lines).encode() + b"\r\n"
    tagged = b"ETag: %b\r\n" % tag.encode() if tag else b""
    if status in (204, 304):  # which have no body and say no length (RFC 9110 section 8.6)
        return fixed + tagged
    return b"%b%bContent-Length: %d\r\n" % (fixed, tagged, length)


def _written(reply: Reply, tongue: Language, known: KnownRequest) -> tuple[int, bytes, bytes]:
    """An answer to a known head: its status, its head's lines as ``_head`` gives them, and its body."""
    status, body, tag, extra, _ = reply
    if status == 200 and tag:
        lines, whole = known.rendered(CachedResponse(body, tag))
        return (200, lines, body) if whole else (304, lines, b"")
    more = "".join([f"{name}: {value}\r\n" for name, value in extra]).encode()
    return status, _head(status, tongue if body else None, tag, len(body)) + more, body


def _only_caching(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """What of an answer's headers belongs on its 304 (RFC 9110 section 15.4.5)."""
    return tuple(header for header in headers if header[0] in ("Cache-Control", "Vary"))


def _time_left(mailbox: Mailbox) -> float:
    """How long an answer about it may be kept. Mail of a mailbox without an end may have one, which nobody tells."""
    return _ENDLESS if mailbox.expires_at is None else (mailbox.expires_at - clock.now()).total_seconds()
