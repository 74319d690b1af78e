"""Repeated requests answered before they are parsed.

A client that polls sends the same head, byte for byte, again and again: the token is part of it, so an answer found by
the whole head belongs to its sender. ``FastPath`` remembers which kept answer (cache/responses.py) a head led to.
``FastPathProtocol`` owns a connection's transport, answers what ``FastPath`` knows, and passes all else to aiohttp's
protocol.

A known head whose kept answer is out of date needs no parsing either: whoever taught it makes the answer anew, as for
any request, and until then what follows on its connection waits.

Lives here: those two. Must not know: how a request is answered otherwise, or what the answers are. Nothing is kept
twice: the bytes and their validity are the local cache's, and every hit is counted and limited as any request is.

Only public parts of aiohttp are used: its protocol's callbacks, ``transport`` and ``set_parser``. Its protocol is not
told that the client takes no more: it would wait in a future whose exception keeps the frames that wait for it, and
with them the whole answer, until the collector comes. Answers (``web/answers.py``) wait by
``FastPathProtocol.drained``.
"""

import asyncio
import fcntl
import struct
import termios
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from typing import Any, Final, cast

from aiohttp import web

from server import clock
from server.cache import responses
from server.cache.responses import CachedResponse, Entry, ResponseCache
from server.metrics import Counter, Tally
from server.model.errors import Crowded, Refused
from server.services.transfers import Transfer, Transfers
from server.web.ahead import Ahead
from server.web.heads import heads_in, is_sound, without_tracing
from server.web.malformed import Connection

HITS: Final = Counter("tempmail_hot_answers_total", "Requests answered before they were parsed.")
REMADE: Final = Counter("tempmail_hot_remade_total", "Unparsed requests whose kept answer was out of date.")

HEADS_MAX: Final = 50_000  # remembered by a worker; at 1,100 bytes each with the head it is answered with, 55 MB
PASS_EVERY: Final = 30.0  # s; then one request goes to aiohttp, whose keep-alive clock would otherwise run out
BURST_BYTES: Final = 1 << 16  # of answers to heads that came at once; the rest waits for the client
HELD_BYTES: Final = 1 << 16  # of what came while an answer is made anew; then nothing more is read
FIRST_REQUEST: Final = 1.0  # s that a connection which has just come has for its first request while we stop
_LOOK: Final = 0.01  # s


Key = tuple[str, Any, Any]
"""What an answer is kept under: the request's target, its credential and its language."""

Make = Callable[["KnownRequest", str], Coroutine[Any, Any, bytes]]
"""Makes the whole answer to a known head anew for a client, counted and limited as any; raises nothing."""


class KnownRequest:
    """What a head led to: the kept answer's key, who asked, how it is counted, how its head is written, and who makes
    another once it is out of date.

    ``rendered`` gives the head's lines but for Date, limits and the empty one, and whether the body goes with them.
    """

    __slots__ = ("client", "kept", "key", "large", "lines", "make", "rendered", "tally", "whole")

    def __init__(
        self, key: Key, client: str, tally: Tally, rendered: Callable[[CachedResponse], tuple[bytes, bool]], make: Make
    ) -> None:
        self.key, self.client, self.tally, self.rendered, self.make = key, client, tally, rendered, make
        self.kept: Entry | None = None
        self.lines, self.whole = b"", True
        self.large = False  # whether the answer is to be written in pieces, which is not done here


Admit = Callable[[str], bytes | None]
"""Counts a client's request against its limit; answers the limit's header lines, None where it may not pass."""


class FastPath:
    """The heads one worker knows."""

    def __init__(self, kept: ResponseCache, admit: Admit, transfers: Transfers) -> None:
        self._local, self._admit, self._valid = kept, admit, kept.valid
        self.transfers = transfers
        self._heads: OrderedDict[bytes, KnownRequest] = OrderedDict()
        self._until = 0.0  # until then _date is right
        self._date = self._tail = b""
        self._hits = Tally(_hits)
        self._making: set[asyncio.Task[bytes]] = set()
        self._draining = False
        self.silent: set[FastPathProtocol] = set()  # connections that have not said anything yet

    def answer(self, head: bytes, client: str | None, now: float) -> bytes | None:
        """The whole answer to ``head`` if it is known, valid and allowed. ``client`` None: the head itself says who.
        ``now`` is time.monotonic."""
        known = self._heads.get(head) or self._heads.get(without_tracing(head))
        if known is None:
            return None
        kept = known.kept
        if kept is None or not self._valid(kept, now):
            kept = self._found(known)
            if kept is None:
                return None
        limits = self._admit(known.client if client is None else client)
        if limits is None:
            return None
        kept.used = True
        known.tally.n += 1
        self._hits.n += 1
        tail = self.tail(now, limits)
        return known.lines + tail + kept.ready.body if known.whole else known.lines + tail

    def knows(self, head: bytes) -> bool:
        """Whether ``head`` was answered before, and so is one that the parser takes."""
        return head in self._heads or without_tracing(head) in self._heads

    def make(self, head: bytes, client: str | None, made: Callable[[asyncio.Task[bytes]], None]) -> bool:
        """Have the answer to ``head`` made anew if it is known; ``made`` is called with it."""
        known = self._heads.get(head) or self._heads.get(without_tracing(head))
        if known is None or known.large or self._draining:
            return False
        task = asyncio.get_running_loop().create_task(known.make(known, known.client if client is None else client))
        REMADE.add()
        self._making.add(task)
        task.add_done_callback(self._making.discard)
        task.add_done_callback(made)
        return True

    async def drain(self, seconds: float) -> None:
        """Nobody is let in any more. Hear those out who have just come, whose first request is on its way, and let what
        is being made be answered; from now on nothing else is.
        """
        self._draining = True
        until = time.monotonic() + FIRST_REQUEST
        await asyncio.sleep(_LOOK)  # who was accepted a moment ago is not in ``silent`` yet
        while self.silent and time.monotonic() < until:
            await asyncio.sleep(_LOOK)
        if self._making:
            await asyncio.wait(self._making, timeout=seconds)

    def tail(self, now: float, limits: bytes) -> bytes:
        """The end of a head: Date, the lines of a limit, the empty line."""
        if now > self._until:
            self._set_date(now)
        return b"%b%b\r\n" % (self._date, limits) if limits else self._tail

    def _found(self, known: KnownRequest) -> Entry | None:
        """What is kept under the key now, rendered."""
        kept = self._local.find(known.key)
        known.large = kept is not None and len(kept.ready.body) > BURST_BYTES
        if known.large:
            known.kept = None
            return None
        if kept is not None:
            known.kept = kept
            known.lines, known.whole = known.rendered(kept.ready)
        return kept

    def _set_date(self, now: float) -> None:
        wall = clock.wall()
        self._until = now + 1.0 - wall % 1.0
        self._date = b"Date: %b\r\n" % formatdate(wall, usegmt=True).encode()
        self._tail = self._date + b"\r\n"

    def learn(self, head: bytes, known: KnownRequest) -> None:
        """Answer ``head`` so from now on, also where it differs in what no answer depends on."""
        plain = without_tracing(head)
        if not plain:
            return
        self._heads[plain] = known
        if len(self._heads) > HEADS_MAX:
            self._heads.popitem(last=False)


def _hits(n: int) -> None:
    HITS.add(n=n)
    responses.HITS.add(responses.LAYER, n)


class FastPathProtocol(asyncio.Protocol):
    """One connection. ``heads`` are the requests in progress, oldest first, where all there is are whole heads without
    bodies.

    While a request is in progress nothing is answered here, and once anything else has come (a body, a piece of a head)
    never again on this connection: only aiohttp's parser knows where the next request begins. While an answer is made
    anew, what comes is ``held`` and reaches neither.
    """

    __slots__ = (
        "_ahead",
        "_answer",
        "_begun",
        "_held",
        "_hot",
        "_inner",
        "_passed",
        "_passing",
        "_paused",
        "_resumed",
        "_transport",
        "_unread",
        "_until",
        "_write",
        "asked",
        "carried",
        "client",
        "heads",
    )

    def __init__(self, inner: Connection, hot: FastPath) -> None:
        self._inner, self._hot, self._answer = inner, hot, hot.answer
        self._transport: asyncio.Transport
        self._write: Callable[[bytes], None]
        self._begun = self._passing = self._paused = False
        self._resumed: asyncio.Future[None] | None = None  # done once the client takes again or is gone
        self._ahead: Ahead | None = None  # once anything but a whole head at a time has come
        self._unread: Transfer | None = None  # what waits for a client that takes no more
        self.carried = False  # whether what waits is counted by the answer itself
        self._passed = 0.0  # time.monotonic when something went to aiohttp
        self._until = 0.0  # until when heads are answered here
        self._held: bytearray | None = None  # what came while an answer is being made anew; None: none is
        self.heads: list[bytes] = []
        self.asked = False  # whether it is known whose requests these are: a connection's first one goes to aiohttp
        self.client: str | None = None  # whose requests these are; None: a proxy's, whose heads say whose

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its bases
        self._write = self._transport.write
        self._hot.silent.add(self)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if now < self._until:
            answer = self._answer(data, self.client, now)
            if answer is not None:
                self._write(answer)
                return
            data = self._answered(data, now)
            if not data or self._made_anew(data):
                return
        elif self._held is not None:
            self._hold(data)
            return
        self._pass(data, now)

    def _answered(self, data: bytes, now: float) -> bytes:
        """Answer the first of several heads that came at once; what is left for aiohttp."""
        if data.find(b"\r\n\r\n") + 4 == len(data):
            return data
        heads = heads_in(data)
        if not all(self._hot.knows(head) or is_sound(head) for head in heads):
            return data
        answers: list[bytes] = []
        size = 0
        for head in heads:
            answer = self._answer(head, self.client, now) if size < BURST_BYTES else None
            if answer is None:
                break
            answers.append(answer)
            size += len(answer)
        if not answers:
            return data
        self._write(b"".join(answers))
        return b"".join(heads[len(answers) :])

    def _made_anew(self, head: bytes) -> bool:
        if not self._hot.make(head, self.client, self._made):
            return False
        self._held, self._until = bytearray(), 0.0
        return True

    def _hold(self, data: bytes) -> None:
        assert self._held is not None
        self._held += data
        if len(self._held) > HELD_BYTES:
            self._transport.pause_reading()

    def _made(self, task: "asyncio.Task[bytes]") -> None:
        """An answer was made anew: write it, and go on with what came meanwhile."""
        held, self._held = self._held or bytearray(), None
        if self._transport.is_closing():
            return
        if task.cancelled() or task.exception() is not None:  # a fault of ours: that no answer comes is plain at least
            self._transport.abort()
            return
        self._write(task.result())
        self._reconsider()
        if len(held) > HELD_BYTES:
            self._transport.resume_reading()
        if held:
            self.data_received(bytes(held))

    def _pass(self, data: bytes, now: float) -> None:
        self._until, self._passed = 0.0, now
        self._hot.silent.discard(self)
        if not self._passing:
            heads = heads_in(data)
            self._passing = not heads
            self.heads = [*self.heads, *heads] if heads else []
        if self._ahead is None:
            if not self._passing and len(self.heads) == 1:
                self._inner.data_received(data)
                return
            self._ahead = Ahead(self._inner, self._transport, self._hot.transfers)
        self._ahead.feed(data)

    @property
    def takes(self) -> bool:
        """Whether the client reads its answers. For one that does not, they wait: see ``drained``."""
        return not self._paused

    async def drained(self) -> None:
        """Wait until the client has taken enough of what was written. ConnectionError when it has gone."""
        if self._paused:
            if self._resumed is None or self._resumed.done():
                self._resumed = asyncio.get_running_loop().create_future()
            await self._resumed
        if self._transport.is_closing():
            raise ConnectionResetError

    async def turn(self) -> None:
        """Wait until a large piece may be written, so that small answers of others do not wait for many of them."""
        await self._hot.transfers.turns.take()

    def write(self, answer: bytes) -> None:
        """Write what a handler made. ConnectionError when the client has gone."""
        if self._transport.is_closing():
            raise ConnectionResetError
        self._write(answer)

    def started(self) -> None:
        """A request has come to its handler. If the one before never said that it was finished (a stream that ended, an
        answer of aiohttp's own) it is not known any more which head is whose, and nothing more is answered here.
        """
        if self._begun:
            self._give_up()
        self._begun = True
        if self._ahead is not None:
            self._ahead.begun()

    def finished(self, *, stays: bool = True) -> None:
        """The answer to the oldest request in progress is written. Unless it ``stays`` the connection is closed."""
        self._begun = False
        if not stays:
            self._give_up()
        elif self.heads:
            del self.heads[0]
            self._reconsider()

    def _reconsider(self) -> None:
        """May the next head be answered here?"""
        free = self.asked and self._held is None and not (self._passing or self._paused or self.heads)
        self._until = self._passed + PASS_EVERY if free else 0.0

    def hand_over(self) -> tuple[asyncio.Transport, bytes] | None:
        """Give the connection away for good, from a request to upgrade it: its transport, and what came behind the
        request. None when it is gone.

        aiohttp is told that the connection is lost and forgets it; the handler answers with
        ``answers.UpgradedResponse``. Until the taker of the transport has set a protocol of its own on it, nothing may
        be awaited.
        """
        transport, self._inner.transport = self._inner.transport, None  # aiohttp would close it
        if transport is None:
            return None
        self._leave()
        behind = _Behind()
        self._inner.set_parser(cast(Any, behind))
        self._inner.connection_lost(None)
        return transport, bytes(behind.data)

    def eof_received(self) -> bool | None:
        self._give_up()
        self._inner.eof_received()
        return None

    def connection_lost(self, exc: BaseException | None) -> None:
        self._give_up()
        self._hot.silent.discard(self)
        self._inner.connection_lost(exc)
        self._leave()

    def _leave(self) -> None:
        """The connection is gone, or another's."""
        self._go_on()
        if self._ahead is not None:
            self._ahead.end()

    def _give_up(self) -> None:
        self._passing, self._until, self.heads = True, 0.0, []

    def pause_writing(self) -> None:
        self._paused, self._until = True, 0.0
        if not self.carried:
            self._count_unread()

    def _count_unread(self) -> None:
        """Answers that are not read count as bytes in flight, with one more that may wait for them."""
        transport, transfers = self._transport, self._hot.transfers
        self._unread = transfers.begin(self.client or "", "out", self._taken, self.cut)
        try:
            self._unread.grow(transport.get_write_buffer_size() + BURST_BYTES)
        except (Refused, Crowded):
            asyncio.get_running_loop().call_soon(self.cut)  # the transport is in the middle of a write

    def carry(self, client: str, moved: Callable[[], int]) -> Transfer:
        """Count an answer of its own; ``carried`` is to be unset when that is done."""
        self.carried = True
        return self._hot.transfers.begin(client, "out", moved, self.cut)

    def _taken(self) -> int:
        return -self.unsent()

    def unsent(self) -> int:
        """Bytes of what was written that wait in the transport or, not acknowledged, in the kernel."""
        transport = self._transport
        sock = transport.get_extra_info("socket")
        waiting = struct.pack("i", 0)
        if sock is not None and not transport.is_closing():
            waiting = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, waiting)
        queued: int = struct.unpack("i", waiting)[0]
        return transport.get_write_buffer_size() + queued

    def cut(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def resume_writing(self) -> None:
        self._go_on()
        self._reconsider()

    def _go_on(self) -> None:
        """The client takes again, or never will. In neither case an exception: the future would keep it."""
        self._paused = False
        if self._unread is not None:
            self._unread.done()
            self._unread = None
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)


class _Behind:
    """In the place of aiohttp's reader of frames: gets what came behind a request to upgrade."""

    def __init__(self) -> None:
        self.data = bytearray()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """The connection is lost to aiohttp; there is nothing to do."""


def front_of(request: web.BaseRequest) -> FastPathProtocol | None:
    """The connection a request came over, unless it is gone."""
    transport = request.transport
    front = transport.get_protocol() if transport is not None else None
    return front if isinstance(front, FastPathProtocol) else None


class FastPathServer(web.Server):
    """aiohttp's server, with a ``FastPathProtocol`` in front of each connection."""

    def __init__(self, handler: Any, hot: FastPath, **options: Any) -> None:
        super().__init__(handler, **options)
        self._hot, self._running = hot, asyncio.get_running_loop()
        self._options = {name: value for name, value in options.items() if name != "request_factory"}

    def __call__(self) -> Any:
        return FastPathProtocol(Connection(self, loop=self._running, **self._options), self._hot)
