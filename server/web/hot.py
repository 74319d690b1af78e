"""Repeated requests answered before they are parsed.

A client that polls sends the same head, byte for byte, again and again: the token is part of it, so an answer found by
the whole head belongs to whoever sends it. ``Hot`` remembers which kept answer (cache/local.py) a head led to.
``Front`` owns a connection's transport, answers what ``Hot`` knows, and passes all else to aiohttp's protocol.

Lives here: those two. Must not know: how a request is answered otherwise, or what the answers are. Nothing is kept
twice: the bytes and their validity are the local cache's, and every hit is counted and limited as any request is.

Only public parts of aiohttp are used: its protocol's callbacks, and ``write_eof`` of a response, which says when a
request is over.
"""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from email.utils import formatdate
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from server.cache.local import Local, Ready
from server.metrics import Counter

HITS: Final = Counter("tempmail_hot_answers_total", "Requests answered before they were parsed.")

HEADS_MAX: Final = 50_000  # remembered by a worker; at 400 bytes each, 20 MB
HEAD_BYTES: Final = 2_048  # longer ones are not remembered
PASS_EVERY: Final = 30.0  # s; then one request goes to aiohttp, whose keep-alive clock would otherwise run out

# Whatever could make bytes after the head part of the request, change the connection, or ask for less than the whole.
_UNFIT: Final = re.compile(rb"\n(content-length|transfer-encoding|expect|upgrade|connection|origin|range)\s*:", re.I)


class Known:
    """What a head led to: the kept answer's key, who asked, how it is counted, and how its head is written.

    ``rendered`` gives the head's lines but for Date, limits and the empty one, and the body that goes with them.
    """

    __slots__ = ("body", "client", "count", "key", "lines", "ready", "rendered")

    def __init__(
        self, key: Hashable, client: str, count: Callable[[], None], rendered: Callable[[Ready], tuple[bytes, bytes]]
    ) -> None:
        self.key, self.client, self.count, self.rendered = key, client, count, rendered
        self.ready: Ready | None = None
        self.lines = self.body = b""


Admit = Callable[[str], bytes | None]
"""Counts a client's request against its limit; answers the limit's header lines, None where it may not pass."""


class Hot:
    """The heads one worker knows."""

    def __init__(self, local: Local, admit: Admit) -> None:
        self._local, self._admit = local, admit
        self._heads: OrderedDict[bytes, Known] = OrderedDict()
        self._second, self._date = 0, b""

    def answer(self, head: bytes, client: str | None) -> bytes | None:
        """The whole answer to ``head`` if it is known, valid and allowed. ``client`` None: the head itself says who."""
        known = self._heads.get(head)
        if known is None:
            return None
        ready = self._local.get(known.key)
        if ready is None:
            del self._heads[head]
            return None
        limits = self._admit(known.client if client is None else client)
        if limits is None:
            return None
        if known.ready is not ready:
            known.ready = ready
            known.lines, known.body = known.rendered(ready)
        known.count()
        HITS.add()
        return b"%b%b%b\r\n%b" % (known.lines, self._date_line(), limits, known.body)

    def _date_line(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second, self._date = second, b"Date: %b\r\n" % formatdate(second, usegmt=True).encode()
        return self._date

    def learn(self, head: bytes, known: Known) -> None:
        self._heads[head] = known
        if len(self._heads) > HEADS_MAX:
            self._heads.popitem(last=False)


class Front(asyncio.Protocol):
    """One connection. ``head`` is the request in progress, where that is all there is: one whole head without a body.

    While a request is in progress nothing is answered here, and once anything else has come (a body, a piece of a head,
    two requests at once) never again on this connection: only aiohttp's parser knows where the next request begins.
    """

    __slots__ = ("_hot", "_inner", "_loop", "_passed", "_state", "_transport", "asked", "client", "head")

    def __init__(self, inner: RequestHandler, hot: Hot, loop: asyncio.AbstractEventLoop) -> None:
        self._inner, self._hot, self._loop = inner, hot, loop
        self._transport: asyncio.Transport | None = None
        self._state = _IDLE
        self._passed = 0.0  # so that a connection's first request always goes to aiohttp, which finds out whose it is
        self.head = b""
        self.asked = False  # whether it is known whose requests these are
        self.client: str | None = None  # whose requests these are; None: a proxy's, whose heads say whose

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its bases
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._state == _IDLE:
            now = self._loop.time()
            if self.asked and now - self._passed < PASS_EVERY:
                answer = self._hot.answer(data, self.client)
                if answer is not None:
                    assert self._transport is not None
                    self._transport.write(answer)
                    return
            self._passed = now
            if _is_whole(data):
                self._state, self.head = _ONE, data
            else:
                self._state = _PASSING
        else:
            self._state, self.head = _PASSING, b""
        self._inner.data_received(data)

    def finished(self) -> None:
        """The answer to the request in progress has been written."""
        if self._state == _ONE:
            self._state, self.head = _IDLE, b""

    def eof_received(self) -> bool | None:
        self._state = _PASSING
        self._inner.eof_received()
        return None

    def connection_lost(self, exc: BaseException | None) -> None:
        self._state = _PASSING
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._state = _PASSING  # a client that takes no answers gets aiohttp's back-pressure
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


_IDLE: Final = 0  # nothing in progress, and the next byte begins a request
_ONE: Final = 1  # one request without a body is in progress, and nothing came after it
_PASSING: Final = 2  # aiohttp's alone, for good


def _is_whole(data: bytes) -> bool:
    """Whether ``data`` is exactly one head of a GET without a body."""
    return (
        data[:4] == b"GET "
        and data[-4:] == b"\r\n\r\n"
        and len(data) <= HEAD_BYTES
        and data.find(b"\r\n\r\n") == len(data) - 4
        and _UNFIT.search(data) is None
    )


class Answer(web.Response):
    """A response that tells the connection's ``front``, where it has one, when it has been written."""

    front: Front | None = None

    async def write_eof(self, data: bytes = b"") -> None:
        await super().write_eof(data)
        if self.front is not None:
            self.front.finished()


def front_of(request: web.BaseRequest) -> Front | None:
    """The connection a request came over, unless it is gone."""
    transport = request.transport
    front = transport.get_protocol() if transport is not None else None
    return front if isinstance(front, Front) else None


class Fronted(web.Server):
    """aiohttp's server, each of its connections behind a ``Front``."""

    def __init__(self, handler: Any, hot: Hot, **options: Any) -> None:
        super().__init__(handler, **options)
        self._hot, self._running = hot, asyncio.get_running_loop()

    def __call__(self) -> Any:
        return Front(super().__call__(), self._hot, self._running)
