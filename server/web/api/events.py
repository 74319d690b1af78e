"""What happens in a mailbox, as it happens: an event stream (the HTML standard, section 9.2), and the wait for one
message.

Lives here: one event stream's queue and its bounds, and both handlers. Must not know: how mail is found; the hub does.

Going out, frames wait in a queue that the stream's own task empties. Mail stops being queued when the queue is full,
and is read from the store once it is empty again; a client that does not take one piece for WRITE_STALL seconds is cut
off. An event's id is its sequence number, so a client that comes back with Last-Event-ID gets what it missed, or a
``gap``.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from math import inf
from typing import Final, NamedTuple

import msgspec
from aiohttp import web

from server import clock
from server.metrics import Counter
from server.model.errors import Refused, Unavailable
from server.model.message import Mailbox, Stored
from server.services.contracts import Wanted
from server.services.push import frames
from server.services.push.subscription import RECHECK_INTERVAL, Subscription, Watching, observe_push
from server.web.api.schemas import Message
from server.web.description import describe
from server.web.query import Choice, Duration, Seq, SeqOrNow, Text
from server.web.requests import Call
from server.web.responses import NO_CONTENT, Headers, Reply, ok

QUEUE_FRAMES: Final = 256
QUEUE_BYTES: Final = 128 * 1024
WORDS_MAX: Final = 2 * QUEUE_FRAMES  # frames queued, mail and words together
HEARTBEAT: Final = 15.0  # s of silence after which a comment shows proxies and clients that the stream lives
WRITE_STALL: Final = 20.0  # s
WAIT_MAX: Final = 300.0  # s
_LOOK: Final = 5.0  # s between two looks at whether a waiting client is still there
_RETRY: Final = b"retry: 2000\n\n"  # ms before a client that lost us asks again
_COMMENT: Final = b":\n\n"
_HEADERS: Final[Headers] = (
    ("Content-Type", "text/event-stream; charset=utf-8"),
    ("X-Accel-Buffering", "no"),  # nginx would keep events back until a buffer is full
)

DROPPED = Counter("tempmail_streams_dropped_total", "Event streams ended by us, by reason.", ("reason",))


class _Head(msgspec.Struct):
    """What of a frame an event's own fields say again."""

    type: str
    seq: int | None = None


_head: Final = msgspec.json.Decoder(_Head).decode
_NUMBERED: Final = ("new_mail", "gap")  # whoever has seen these has seen everything up to their number


def event(frame: bytes) -> bytes:
    """A frame as an event: its type, where it moves the reader on its number as the id, and the frame as the data."""
    head = _head(frame)
    number = b"id: %d\n" % head.seq if head.type in _NUMBERED and head.seq is not None else b""
    return b"%bevent: %b\ndata: %b\n\n" % (number, head.type.encode(), frame)


class _Queued(NamedTuple):
    event: bytes
    received_at: datetime | None


class EventStream:
    """One open stream of one mailbox, the hub's ``Outlet``. ``reopen`` opens the mailbox with the same right again,
    which ends by itself at ``until`` (POSIX s, or infinity).
    """

    def __init__(
        self,
        hub: Watching,
        reopen: Callable[[], Awaitable[Mailbox]],
        mailbox: Mailbox,
        after: int | None,
        until: float,
    ) -> None:
        self._hub, self._reopen = hub, reopen
        right = _end(mailbox), clock.wall(), until, mailbox.user_id
        self._watch = Subscription(mailbox.id, "", self, after, *right)
        self._queue: deque[_Queued] = deque()
        self._queued_bytes = 0
        self._starved = self._ended = False
        self._watch.doubted = True  # the right may have ended since it was checked, and of that nobody was told here
        self._doubted = True
        self._something = asyncio.Event()

    def push(self, frame: bytes, received_at: datetime | None) -> bool:
        if len(self._queue) >= QUEUE_FRAMES or self._queued_bytes >= QUEUE_BYTES:
            self._starved = True
            return False
        self._put(frame, received_at)
        return True

    def tell(self, frame: bytes) -> None:
        if len(self._queue) < WORDS_MAX:
            self._put(frame, None)
        else:
            DROPPED.add(("slow",))
            self._queue.clear()
            self._leave()

    def doubt(self, subscription: Subscription) -> None:
        self._doubted = True
        self._something.set()

    def ended(self, subscription: Subscription) -> None:
        self._ended = True
        self._something.set()

    def _leave(self) -> None:
        self._hub.unsubscribe(self._watch)
        self.ended(self._watch)

    def _put(self, frame: bytes, received_at: datetime | None) -> None:
        queued = _Queued(event(frame), received_at)
        self._queue.append(queued)
        self._queued_bytes += len(queued.event)
        self._something.set()

    async def run(self, response: web.StreamResponse, transport: asyncio.Transport) -> None:
        """Write until the mailbox, the right or the client goes. ``response`` is prepared."""
        self._hub.subscribe(self._watch)
        try:
            await response.write(_RETRY)
            while self._queue or not self._ended:
                await self._turn(response)
        except ConnectionError:  # the client has gone
            return
        except TimeoutError:  # it takes nothing
            DROPPED.add(("slow",))
            transport.abort()
        finally:
            self._hub.unsubscribe(self._watch)
            del self._watch  # it leads back here, and this stream to its whole request

    async def _turn(self, response: web.StreamResponse) -> None:
        if not self._ended and (self._doubted or self._is_stale()):
            await self._check()
        if self._queue:
            await self._write_one(response)
        elif self._starved:
            self._starved = False
            self._hub.release([self._watch])
        elif not self._ended:
            await self._pause(response)

    async def _pause(self, response: web.StreamResponse) -> None:
        self._something.clear()
        try:
            async with asyncio.timeout(HEARTBEAT):
                await self._something.wait()
        except TimeoutError:
            await self._write(response, _COMMENT)

    async def _write_one(self, response: web.StreamResponse) -> None:
        queued = self._queue.popleft()
        self._queued_bytes -= len(queued.event)
        await self._write(response, queued.event)
        observe_push(queued.received_at)

    async def _write(self, response: web.StreamResponse, piece: bytes) -> None:
        async with asyncio.timeout(WRITE_STALL):
            await response.write(piece)

    def _is_stale(self) -> bool:
        now = clock.wall()
        return self._watch.over(now) or now - self._watch.checked_at >= RECHECK_INTERVAL

    async def _check(self) -> None:
        """Ask again whether the stream may go on. While that cannot be answered, mail after the mailbox's end waits."""
        self._doubted, now = False, clock.wall()
        try:
            mailbox = await self._reopen()
        except Refused as refused:
            if self._ended:  # the hub has said why, meanwhile
                return
            mailbox_id, over = self._watch.mailbox_id, self._watch.expires_at <= now
            self.tell(frames.mailbox_expired(mailbox_id) if over else frames.unsubscribed(mailbox_id, refused.word))
            self._leave()
        except Unavailable:  # counted where it happened; asked again with the next event or heartbeat
            self._watch.checked_at = 0.0
        else:
            self._watch.checked_at, self._watch.expires_at = now, _end(mailbox)
            self._watch.doubted = self._doubted
            self._hub.release([self._watch])


def _end(mailbox: Mailbox) -> float:
    return float("inf") if mailbox.expires_at is None else mailbox.expires_at.timestamp()


AFTER: Final = Seq("after", "the number of the last message seen; only later ones are told")
TIMEOUT: Final = Duration("timeout", "how long to wait", 60.0, 0.0, WAIT_MAX)
SENDER: Final = Text("from", "part of the sender's name or address")
SUBJECT: Final = Text("subject", "part of the subject")
EXTRACT: Final = Choice("extract", "only a message with such a thing, which is given beside it", ("code", "link"))


@describe(
    "What happens in the mailbox, as it happens",
    detail="Server-sent events `subscribed`, `new_mail`, `mailbox_update`, `gap`, `unsubscribed`, `mailbox_expired`; "
    "their data are the frames of the WebSocket. A client that comes back with Last-Event-ID gets what it missed.",
    response=str,
    bare=True,
    media="text/event-stream",
    query=(AFTER,),
)
async def events(call: Call) -> web.StreamResponse:
    """Last-Event-ID is what browsers send when they come back; ``after`` serves a first visit and other clients."""
    after = _seen(call)
    newest = (await call.services.mailboxes.counts(call.mailbox)).next_seq - 1
    if after is None:
        after = newest  # the client counts from our head on, and the hub looks only after it
    elif after > newest:
        raise Refused("field_invalid", f"the mailbox has reached {newest}", field="Last-Event-ID")
    response, transport = None, call.request.transport
    try:
        async with call.services.streams.place(call.client):
            response = await call.begin(_HEADERS)
            if transport is not None:  # None: gone while we answered
                stream = EventStream(call.services.hub, call.reopen, _watched(call), after, _until(call))
                await stream.run(response, transport)
    except Unavailable:
        if response is None:
            raise
    return response  # one cut short because the worker stops ends like any other: the client comes back


def _watched(call: Call) -> Mailbox:
    """The mailbox as the hub is to watch it: under the account that acts, whose changes put the right in doubt."""
    if call.principal is None:
        return call.mailbox
    return msgspec.structs.replace(call.mailbox, user_id=call.user.id)


def _until(call: Call) -> float:
    """When what the mailbox was opened with ends by itself."""
    ends = call.principal.expires_at if call.principal else None
    return inf if ends is None else ends.timestamp()


def _seen(call: Call) -> int | None:
    last = call.request.headers.get("Last-Event-ID", "").strip()
    if not last:
        return AFTER.of(call)
    if not (last.isascii() and last.isdigit() and len(last) < 10):
        raise Refused("field_invalid", "the id of an event of this stream", field="Last-Event-ID")
    return int(last)


WAIT_AFTER: Final = SeqOrNow("after", "the number of the last message seen, or `now`; only later ones count")


class WaitResult(msgspec.Struct, omit_defaults=True):
    """The message that came, and what was asked to be taken out of it."""

    message: Message
    code: str = ""
    link: str = ""


@describe(
    "Wait for a message",
    detail="Answers as soon as a message matches. Trigger a mail and then wait, as often as you like: without `after` "
    "the newest message that is there counts if it is new, that is no older than five minutes, unread, and not the "
    "answer to the same question before; else the next to come, and the newest that is there once time is up. "
    "`after=now` takes only what comes after this call has begun: begin it first, then trigger the mail. A number "
    "takes the oldest later message, so that who goes on from each answer's `seq` misses none.",
    response=WaitResult,
    also_status={204: "no message matched in time"},
    query=(TIMEOUT, WAIT_AFTER, SENDER, SUBJECT, EXTRACT),
)
async def wait(call: Call) -> Reply:
    """One call for a test suite."""
    extract = EXTRACT.of(call)
    wanted = Wanted(SENDER.of(call), SUBJECT.of(call), "code" if extract == "code" else "link" if extract else None)
    after, timeout = WAIT_AFTER.of(call), TIMEOUT.of(call)
    async with call.services.streams.place(call.client):
        coming = call.services.waiting.first(_watched(call), wanted, after, timeout, call.reopen, _until(call))
        stored = await _while_there(call.request, coming)
    if stored is None:
        return NO_CONTENT
    content = await call.services.messages.read(call.mailbox, stored.id, call.shares)
    await call.turn(content.size())
    found = WaitResult(Message.opened(content, untouched=False))
    if wanted.extract is not None:
        setattr(found, wanted.extract, wanted.extracted(stored))
    return ok(call.language, found)


async def _while_there(request: web.Request, work: Coroutine[None, None, Stored | None]) -> Stored | None:
    """The outcome of ``work``, which is given up once the client has gone: nothing else would tell it."""
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait({task}, timeout=_LOOK))[0]:
            if request.transport is None or request.transport.is_closing():
                raise ConnectionResetError
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
