"""One WebSocket: what the client says, what it is owed, and when it has to go.

Lives here: the connection's two directions and their bounds. Must not know: how mail is found (the hub does), or the
other connections; ``Owner`` is what it may ask of whoever keeps them.

Going out, frames wait in a queue that a task empties; the task exists only while there is something to write, so an
idle connection costs no timer. Mail stops being queued when the queue is full, and is read from the store once it is
empty again; the connection is dropped when one frame cannot be written for WRITE_STALL seconds, or when words about
subscriptions pile up as well.
"""

import asyncio
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, Literal, NamedTuple

import msgspec
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from server import log
from server.metrics import Counter
from server.model.errors import Refused, Unavailable
from server.model.message import Mailbox
from server.services import frames
from server.services.watching import RECHECK_INTERVAL, Subscription, Watching, observe_push
from server.ws import incoming

FRAME_MAX: Final = 4096  # bytes of a message coming in
SUBSCRIPTIONS_MAX: Final = 100
MESSAGES_A_SECOND: Final = 50.0
MESSAGES_BURST: Final = 100
QUEUE_FRAMES: Final = 256
QUEUE_BYTES: Final = 128 * 1024
WORDS_MAX: Final = 2 * QUEUE_FRAMES  # frames queued, mail and words together
WRITE_STALL: Final = 20.0
PING_INTERVAL: Final = 30.0
SILENCE_MAX: Final = 60.0
_CLOSE_WAIT: Final = 5.0

FRAMES = Counter("tempmail_websocket_frames_total", "WebSocket messages, pongs included.", ("direction",))
DROPPED = Counter("tempmail_websocket_dropped_total", "Connections ended by us, by reason.", ("reason",))

Authorise = Callable[[str, str], Awaitable[tuple[Mailbox, float]]]
"""(mailbox id, token) -> the living mailbox, and when the token ends by itself (POSIX s, or infinity). Refused alike
for unknown, expired and wrong; else Unavailable."""

Reason = Literal["slow", "silent", "flood", "restart", "fault"]
_CLOSINGS: Final[dict[Reason, tuple[int, bytes]]] = {
    "slow": (WSCloseCode.TRY_AGAIN_LATER, b"reading too slowly; come back with after"),
    "silent": (WSCloseCode.GOING_AWAY, b"no pong"),
    "flood": (WSCloseCode.POLICY_VIOLATION, b"too many messages"),
    "fault": (WSCloseCode.INTERNAL_ERROR, b"our fault; come back with after"),
    "restart": (WSCloseCode.SERVICE_RESTART, b"restarting; come back with after"),
}
_SILENT_TYPES: Final = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


class Owner(NamedTuple):
    """What a session may ask of the whole."""

    hub: Watching
    authorise: Authorise
    recheck: Callable[[Subscription], None]


class _Queued(NamedTuple):
    frame: bytes
    received_at: datetime | None


class Session:
    """One open connection; ``token`` is for subscriptions that name none. It is the hub's ``Outlet``."""

    def __init__(self, owner: Owner, ws: web.WebSocketResponse, transport: asyncio.Transport, token: str) -> None:
        self._owner, self._ws, self._transport, self._token = owner, ws, transport, token
        self._subscriptions: dict[str, Subscription] = {}
        self._queue: deque[_Queued] = deque()
        self._queued_bytes = 0
        self._starved = False
        self._flushing: asyncio.Task[None] | None = None
        self._writing_since: float | None = None
        self._heard = self._pinged = self._allowance = time.monotonic()
        self.closing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve the client until it or we close; the connection is finished with when this returns."""
        try:
            while self.closing is None and await self._receive():
                pass
        except Exception as error:  # a fault of ours, and no HTTP response can say so once the handshake is over
            where = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
            log.event("error", "websocket session failed", kind=type(error).__name__, where=where)
            self.end("fault")
        finally:
            self._leave()
            if self.closing is not None:
                await self.closing

    def visit(self, now: float) -> bool:
        """What time asks for: a ping, a check of rights, the end. ``now`` is monotonic. False: needs no more visits."""
        if self.closing is None:
            if self._writing_since is not None and now - self._writing_since >= WRITE_STALL:
                self.end("slow")
            elif now - self._heard >= SILENCE_MAX:
                self.end("silent")
            elif now - self._pinged >= PING_INTERVAL:
                self._pinged = now
                self.tell(frames.ping())
        self._doubt_stale()
        return self.closing is None

    def _doubt_stale(self) -> None:
        now = time.time()
        for subscription in self._subscriptions.values():
            if subscription.over(now) or now - subscription.checked_at >= RECHECK_INTERVAL:
                self.doubt(subscription)

    def end(self, reason: Reason) -> None:
        """Close, saying why; returns at once. The first reason given stands."""
        if self.closing is None:
            DROPPED.add((reason,))
            self.closing = asyncio.get_running_loop().create_task(self._close(*_CLOSINGS[reason]))
            self._leave()

    def abort(self) -> None:
        """Cut the connection without a word."""
        self._transport.abort()

    async def _close(self, code: int, message: bytes) -> None:
        try:
            async with asyncio.timeout(_CLOSE_WAIT):
                await self._ws.close(code=code, message=message)
        except TimeoutError:
            self._transport.abort()
        else:  # what the kernel would not take yet may still go out, but not for ever
            asyncio.get_running_loop().call_later(_CLOSE_WAIT, self._transport.abort)

    def _leave(self) -> None:
        for subscription in self._subscriptions.values():
            self._owner.hub.unsubscribe(subscription)
        self._subscriptions.clear()
        self._queue.clear()

    # In: one message after the other; a client waits for its own look-ups and for nobody else's.

    async def _receive(self) -> bool:
        message = await self._ws.receive()
        if message.type in _SILENT_TYPES:
            return False
        FRAMES.add(("in",))
        self._heard = time.monotonic()
        if not self._within_allowance(self._heard):
            self.end("flood")
            return False
        if message.type is WSMsgType.PING:
            return await self._pong(message)
        if message.type is not WSMsgType.PONG:
            await self._answer(message)
        return True

    def _within_allowance(self, now: float) -> bool:
        """GCRA: each message moves the theoretical arrival time on by its share of a second."""
        self._allowance = max(self._allowance, now) + 1 / MESSAGES_A_SECOND
        return self._allowance - now <= MESSAGES_BURST / MESSAGES_A_SECOND

    async def _pong(self, ping: WSMessage) -> bool:
        try:
            await self._ws.pong(ping.data)
        except ConnectionError:  # the client went; there is nobody to answer
            return False
        return True

    async def _answer(self, message: WSMessage) -> None:
        if message.type is not WSMsgType.TEXT:
            self.tell(frames.error("body_invalid", detail="frames are JSON text"))
            return
        try:
            said = incoming.parse(message.data)
        except msgspec.ValidationError as error:
            self.tell(frames.error("field_invalid", detail=str(error), field=_field_of(error)))
        except (msgspec.DecodeError, RecursionError) as error:  # 4 KiB nest deeper than the parser goes
            self.tell(frames.error("body_invalid", detail=str(error)))
        else:
            await self._obey(said)

    async def _obey(self, said: incoming.Incoming) -> None:
        if said.type == "subscribe":
            await self._subscribe(said)
        elif said.type == "unsubscribe":
            self._unsubscribe(said.mailbox_id)
        elif said.type != "pong":
            self.tell(frames.error("field_invalid", detail="subscribe, unsubscribe or pong", field="type"))

    async def _subscribe(self, said: incoming.Incoming) -> None:
        """Subscribing again to the same mailbox begins anew, at the new ``after`` and with the new token."""
        token = said.token or self._token
        if not token:
            self.tell(frames.error("token_required", said.mailbox_id))
            return
        if said.mailbox_id not in self._subscriptions and len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            self.tell(
                frames.error("too_many_subscriptions", said.mailbox_id, f"at most {SUBSCRIPTIONS_MAX} a connection")
            )
            return
        checked_at = time.time()
        try:
            mailbox, until = await self._owner.authorise(said.mailbox_id, token)
        except Refused as refusal:
            self.tell(frames.error(refusal.word, said.mailbox_id))
        except Unavailable:  # counted and logged where it happened
            self.tell(frames.error("unavailable", said.mailbox_id))
        else:
            right = expiry(mailbox), checked_at, until, mailbox.user_id
            self._begin(Subscription(mailbox.id, token, self, said.after, *right))

    def _begin(self, subscription: Subscription) -> None:
        if self.closing is not None:
            return
        earlier = self._subscriptions.pop(subscription.mailbox_id, None)
        if earlier is not None:
            self._owner.hub.unsubscribe(earlier)
        self._subscriptions[subscription.mailbox_id] = subscription
        self._owner.hub.subscribe(subscription)

    def _unsubscribe(self, mailbox_id: str) -> None:
        subscription = self._subscriptions.pop(mailbox_id, None)
        if subscription is not None:
            self._owner.hub.unsubscribe(subscription)
        self.tell(frames.unsubscribed(mailbox_id))

    # Out: the hub's Outlet.

    def push(self, frame: bytes, received_at: datetime | None) -> bool:
        if len(self._queue) >= QUEUE_FRAMES or self._queued_bytes >= QUEUE_BYTES:
            self._starved = True
            return False
        self._put(_Queued(frame, received_at))
        return True

    def tell(self, frame: bytes) -> None:
        if len(self._queue) >= WORDS_MAX:
            self.end("slow")
        else:
            self._put(_Queued(frame, None))

    def doubt(self, subscription: Subscription) -> None:
        self._owner.recheck(subscription)

    def ended(self, subscription: Subscription) -> None:
        if self._subscriptions.get(subscription.mailbox_id) is subscription:
            del self._subscriptions[subscription.mailbox_id]

    def _put(self, item: _Queued) -> None:
        if self.closing is not None:
            return
        self._queue.append(item)
        self._queued_bytes += len(item.frame)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> None:
        try:
            while self._queue:
                item = self._queue.popleft()
                self._queued_bytes -= len(item.frame)
                await self._write(item)
                if self._starved and not self._queue:
                    self._starved = False
                    self._owner.hub.release(list(self._subscriptions.values()))
        except ConnectionError:  # closed under us: receive() sees it too, and ends the session
            self._queue.clear()

    async def _write(self, item: _Queued) -> None:
        self._writing_since = time.monotonic()
        await self._ws.send_frame(item.frame, WSMsgType.TEXT)
        self._writing_since = None
        FRAMES.add(("out",))
        observe_push(item.received_at)


def expiry(mailbox: Mailbox) -> float:
    """When the mailbox ends, POSIX seconds; infinity for one that is kept."""
    return float("inf") if mailbox.expires_at is None else mailbox.expires_at.timestamp()


def _field_of(error: msgspec.ValidationError) -> str:
    """The field msgspec names at the end of its text (``... - at `$.after` ``); without one it missed the type."""
    _, found, path = str(error).rpartition("$.")
    return path.rstrip("`") if found else "type"
