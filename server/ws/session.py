"""One WebSocket: what the client says, what it is owed, and when it has to go.

Lives here: the connection's two directions and their bounds. Must not know: how mail is found (the hub does), or the
other connections; ``Owner`` is what it may ask of whoever keeps them.

Going out, frames are written to the transport at once, and what the kernel does not take waits there. Mail stops being
written when QUEUE_BYTES wait, and is read from the store once they are nearly gone; the connection is dropped when the
client takes nothing for WRITE_STALL seconds, or when words about subscriptions pile up as well.
"""

import asyncio
import traceback
from collections.abc import Callable
from datetime import datetime
from math import inf
from typing import Final, Literal, Protocol

import msgspec
from aiohttp import WSCloseCode

from server import clock, log
from server.metrics import Counter
from server.model.errors import Refused, Unavailable
from server.model.message import Mailbox
from server.services.push import frames
from server.services.push.subscription import RECHECK_INTERVAL, Subscription, Watching, observe_push
from server.ws import client_messages, wire
from server.ws.connection import Connection

SUBSCRIPTIONS_MAX: Final = 100
MESSAGES_A_SECOND: Final = 50.0
MESSAGES_BURST: Final = 100
FRAGMENTS_A_MESSAGE: Final = 16  # a fragment counts as so small a part of a message
QUEUE_BYTES: Final = 128 * 1024
WORDS_BYTES: Final = 2 * QUEUE_BYTES  # mail and words together
WRITE_STALL: Final = 20.0
PING_INTERVAL: Final = 30.0
SILENCE_MAX: Final = 60.0
_RELEASE_BYTES: Final = QUEUE_BYTES // 8

_TOKEN_WANTED: Final = "send the mailbox's token, or its account's access token, with subscribe or in Authorization"

FRAMES = Counter("tempmail_websocket_frames_total", "WebSocket messages, pongs included.", ("direction",))
DROPPED = Counter("tempmail_websocket_dropped_total", "Connections ended by us, by reason.", ("reason",))

Reason = Literal["slow", "silent", "flood", "restart", "fault"]
_CLOSINGS: Final[dict[Reason, tuple[int, str]]] = {
    "slow": (WSCloseCode.TRY_AGAIN_LATER, "reading too slowly; come back with after"),
    "silent": (WSCloseCode.GOING_AWAY, "no pong"),
    "flood": (WSCloseCode.POLICY_VIOLATION, "too many messages"),
    "fault": (WSCloseCode.INTERNAL_ERROR, "our fault; come back with after"),
    "restart": (WSCloseCode.SERVICE_RESTART, "restarting; come back with after"),
}


class Owner(Protocol):
    """What a session may ask of the whole. ``now`` is the monotonic clock, looked at a few times a second."""

    hub: Watching
    now: float

    async def authorise(self, mailbox_id: str, token: str) -> tuple[Mailbox, float]:
        """The living mailbox, and when the token ends by itself (POSIX s, or infinity). Refused alike for unknown,
        expired and wrong; else Unavailable.
        """

    def standing(self, mailbox_id: str) -> Callable[[], bool]:
        """Asked later on: is the mailbox's record still what it is now?"""

    def recheck(self, subscription: Subscription) -> None:
        """Check its right soon."""

    def stuck(self, session: "Session", is_stuck: bool) -> None:
        """More waits to be written than should, or no longer."""

    def closing(self, session: "Session") -> None:
        """It has begun to end: cut it off when that takes too long."""

    def left(self, session: "Session") -> None:
        """It is gone."""


class Session(Connection):
    """One open connection; ``token`` is for subscriptions that name none, ``client`` whose it counts as. It is the
    hub's ``Outlet``. ``turn`` is its owner's: when it is visited.
    """

    __slots__ = ("_allowance", "_heard", "_looking", "_owner", "_starved", "_subscriptions", "_token", "client", "turn")

    def __init__(self, owner: Owner, transport: asyncio.Transport, token: str, client: str, turn: int) -> None:
        super().__init__(transport)
        self._owner, self._token, self.client, self.turn = owner, token, client, turn
        self._subscriptions: tuple[Subscription, ...] = ()  # nearly always one, in less room than a dict
        self._starved = False
        self._looking: asyncio.Task[None] | None = None  # while a subscription's right is looked up
        self._heard = self._allowance = owner.now
        transport.set_write_buffer_limits(QUEUE_BYTES, _RELEASE_BYTES)

    def visit(self, now: float, ping: bytes) -> None:
        """What time asks for: a check of rights, the end, and ``ping``, if there is one and the client was not heard
        lately. ``now`` is monotonic.
        """
        if not self.open:
            return
        silence = now - self._heard
        if silence >= SILENCE_MAX:
            self.end("silent")
            return
        if ping and silence >= PING_INTERVAL / 2:
            self._write(ping)
        wall = clock.wall()
        for subscription in self._subscriptions:
            if subscription.over(wall) or wall - subscription.checked_at >= RECHECK_INTERVAL:
                self.doubt(subscription)

    def end(self, reason: Reason) -> None:
        """Close, saying why; returns at once. The first reason given stands."""
        if not self.open:
            return
        DROPPED.add((reason,))
        if reason == "flood":
            self.fail(*_CLOSINGS[reason])
        else:
            self.close(*_CLOSINGS[reason])

    def abort(self) -> None:
        """Cut the connection without a word."""
        self.transport.abort()

    def on_closing(self) -> None:
        self._leave()
        self._owner.closing(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._leave()
        self._owner.left(self)

    def _leave(self) -> None:
        for subscription in self._subscriptions:
            self._owner.hub.unsubscribe(subscription)
        self._subscriptions = ()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def on_fault(self, error: Exception) -> None:
        where = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        log.event("error", "websocket session failed", kind=type(error).__name__, where=where)
        self.end("fault")

    # In: one message after the other; a client waits for its own look-ups and for nobody else's.

    def on_frame(self, first: int) -> bool:
        """GCRA: each frame moves the theoretical arrival time on by its share of a second."""
        self._heard = now = self._owner.now
        whole = first & wire.FIN and first & wire.OPCODE
        cost = 1 / MESSAGES_A_SECOND if whole else 1 / (MESSAGES_A_SECOND * FRAGMENTS_A_MESSAGE)
        self._allowance = max(self._allowance, now) + cost
        if self._allowance - now > MESSAGES_BURST / MESSAGES_A_SECOND:
            self.end("flood")
            return False
        FRAMES.add(_IN)
        return True

    def on_overflow(self) -> None:
        self.end("flood")

    def on_message(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self.tell(frames.error("body_invalid", detail="frames are JSON text"))
            return
        try:
            said = client_messages.parse(message)
        except msgspec.ValidationError as error:
            self.tell(frames.error("field_invalid", detail=str(error), field=_field_of(error)))
        except (msgspec.DecodeError, RecursionError) as error:  # 4 KiB nest deeper than the parser goes
            self.tell(frames.error("body_invalid", detail=str(error)))
        else:
            self._obey(said)

    def _obey(self, said: client_messages.ClientMessage) -> None:
        if said.type == "subscribe":
            self._subscribe(said)
        elif said.type == "unsubscribe":
            self._unsubscribe(said.mailbox_id)
        elif said.type != "pong":
            self.tell(frames.error("field_invalid", detail="subscribe, unsubscribe or pong", field="type"))

    def _subscribe(self, said: client_messages.ClientMessage) -> None:
        """Subscribing again to the same mailbox begins anew, at the new ``after`` and with the new token."""
        token = said.token or self._token
        if not token:
            self.tell(frames.error("token_required", said.mailbox_id, _TOKEN_WANTED, "token"))
        elif self._subscribed(said.mailbox_id) is None and len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            detail = f"at most {SUBSCRIPTIONS_MAX} a connection"
            self.tell(frames.error("too_many_subscriptions", said.mailbox_id, detail))
        else:
            self.hold()
            self._looking = asyncio.get_running_loop().create_task(self._look_up(said.mailbox_id, token, said.after))

    async def _look_up(self, mailbox_id: str, token: str, after: int | None) -> None:
        checked_at, stands = clock.wall(), self._owner.standing(mailbox_id)
        try:
            mailbox, until = await self._owner.authorise(mailbox_id, token)
        except Refused as refusal:
            self.tell(frames.error(refusal.word, mailbox_id))
        except Unavailable:  # counted and logged where it happened
            self.tell(frames.error("unavailable", mailbox_id))
        except Exception as error:
            self.on_fault(error)
        else:
            right = expiry(mailbox), checked_at, until, mailbox.user_id
            self._begin(Subscription(mailbox.id, token, self, after, *right), stands)
        self._looking = None
        if self.open:
            self.go_on()

    def _subscribed(self, mailbox_id: str) -> Subscription | None:
        for subscription in self._subscriptions:
            if subscription.mailbox_id == mailbox_id:
                return subscription
        return None

    def _begin(self, subscription: Subscription, stands: Callable[[], bool]) -> None:
        self._forget(self._subscribed(subscription.mailbox_id))
        self._subscriptions += (subscription,)
        self._owner.hub.subscribe(subscription)
        if (
            subscription.right_until < inf or not stands()
        ):  # an account's may have ended, the mailbox's record has changed
            subscription.doubted = True  # while it was looked up, and of that nobody was told here
            self.doubt(subscription)

    def _unsubscribe(self, mailbox_id: str) -> None:
        self._forget(self._subscribed(mailbox_id))
        self.tell(frames.unsubscribed(mailbox_id))

    def _forget(self, subscription: Subscription | None) -> None:
        if subscription is not None:
            self._owner.hub.unsubscribe(subscription)
            self.ended(subscription)

    # Out: the hub's Outlet.

    def push(self, frame: bytes, received_at: datetime | None) -> bool:
        if not self.open:
            return True  # it is leaving, and owed nothing more
        if self.transport.get_write_buffer_size() >= QUEUE_BYTES:
            self._starved = True
            return False
        self._write(wire.framed(wire.TEXT, frame))
        observe_push(received_at)
        return True

    def tell(self, frame: bytes) -> None:
        if self.transport.get_write_buffer_size() >= WORDS_BYTES:
            self.end("slow")
        elif self.open:
            self._write(wire.framed(wire.TEXT, frame))

    def doubt(self, subscription: Subscription) -> None:
        self._owner.recheck(subscription)

    def ended(self, subscription: Subscription) -> None:
        self._subscriptions = tuple(one for one in self._subscriptions if one is not subscription)

    def _write(self, framed: bytes) -> None:
        self.transport.write(framed)
        FRAMES.add(_OUT)

    def pause_writing(self) -> None:
        self._owner.stuck(self, True)

    def resume_writing(self) -> None:
        self._owner.stuck(self, False)
        if self._starved:
            self._starved = False
            self._owner.hub.release(self._subscriptions)


_IN: Final = ("in",)
_OUT: Final = ("out",)


def expiry(mailbox: Mailbox) -> float:
    """When the mailbox ends, POSIX seconds; infinity for one that is kept."""
    return float("inf") if mailbox.expires_at is None else mailbox.expires_at.timestamp()


def _field_of(error: msgspec.ValidationError) -> str:
    """The field msgspec names at the end of its text (``... - at `$.after` ``); without one it missed the type."""
    _, found, path = str(error).rpartition("$.")
    return path.rstrip("`") if found else "type"
