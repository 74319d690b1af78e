"""All WebSockets of one worker: who is let in, the visits that time calls for, the checks of rights, the end.

Lives here: what the sessions share, so that none needs a timer or a task of its own. Must not know: HTTP beyond the
request that asks to be let in: refusals before the handshake are raised for ``web`` to answer.

Rights are checked at the subscription, again when the mailbox's record changed (Kind.ADDRESS: extended, token rotated),
when its known end has come, and every RECHECK_INTERVAL. A token rotated meanwhile ends its subscriptions with
``unsubscribed`` and the word; while rights cannot be checked, mail of a mailbox whose end has come is held back.

Time is one wheel: a session has a place in one of ``_PLACES`` sets, TICK apart, and is visited when the wheel comes
round, in VISIT_INTERVAL; in one of ``_ROUNDS`` rounds it is pinged as well. So visits and pings are spread evenly,
however the sessions came.
"""

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from functools import partial
from sys import intern
from typing import Final

from aiohttp import web

from server import clock
from server.config.settings import Config
from server.metrics import Gauge
from server.model.errors import Refused, Unavailable
from server.model.message import Mailbox
from server.services.push import frames
from server.services.push.connection_limit import ConnectionLimit
from server.services.push.subscription import Subscription, Watching
from server.ws import wire
from server.ws.handshake import origin_allowed, token_of
from server.ws.session import PING_INTERVAL, WRITE_STALL, Session, expiry

VISIT_INTERVAL: Final = 5.0
TICK: Final = 0.125
CLOSE_WAIT: Final = 5.0  # s a connection has to end once its end has begun
_PLACES: Final = round(VISIT_INTERVAL / TICK)
_ROUNDS: Final = round(PING_INTERVAL / VISIT_INTERVAL)
_LOOKS: Final = round(1.0 / TICK)  # ticks between two looks at those who do not take, and those who do not go

ACTIVE = Gauge("websocket_connections_active", "WebSocket connections open now.")

Authorise = Callable[[str, str], Awaitable[tuple[Mailbox, float]]]
"""See session.Owner.authorise."""

Standing = Callable[[str], Callable[[], bool]]
"""See session.Owner.standing."""


class Sessions:
    """Every open connection; the ``Owner`` of each. ``exempt`` says which clients have no cap of their own.

    Starts nothing until the first one comes, and nothing is left running after the last.
    """

    def __init__(
        self, config: Config, hub: Watching, authorise: Authorise, standing: Standing, exempt: Callable[[str], bool]
    ) -> None:
        self._config, self.hub, self._authorise, self._standing = config, hub, authorise, standing
        self._room = ConnectionLimit("WebSockets", _affordable(config.websocket_max), exempt)
        self.now = time.monotonic()
        self._wheel: list[set[Session]] = [set() for _ in range(_PLACES)]
        self._ticks = self._turn = 0
        self._ticking: asyncio.TimerHandle | None = None
        self._stuck: dict[Session, tuple[float, int]] = {}  # since when it takes nothing, and the bytes that wait
        self._ending: dict[Session, float] = {}  # since when
        self._doubted: dict[Subscription, None] = {}
        self._checker: asyncio.Task[None] | None = None
        self._draining: asyncio.Event | None = None

    # Coming.

    def admit(self, request: web.BaseRequest, client: str) -> Callable[[asyncio.Transport, bytes], None]:
        """What takes the connection over: the transport, and what came behind the request.

        Refused origin_not_allowed, or rate_limited when ``client`` holds too many; Unavailable when the worker is full
        or stopping. Until it has been called the place is nobody's: to be called without a wait in between.
        """
        origins = self._config.cors_origins
        if not origin_allowed(request.headers.get("Origin"), request.headers.get("Host", ""), origins):
            raise Refused("origin_not_allowed", "this page's origin may not connect", field="Origin")
        holder = self._room.admit(client)
        return partial(self._take, token_of(request, query=self._config.query_token), intern(holder))

    def _take(self, token: str, client: str, transport: asyncio.Transport, early: bytes) -> None:
        if self._ticking is None:
            self._tick()
        self._turn = (self._turn + 1) % (_PLACES * _ROUNDS)
        session = Session(self, transport, token, client, self._turn)
        self._wheel[session.turn % _PLACES].add(session)
        self._room.take(client)
        ACTIVE.set(self._room.taken)
        session.start(early)

    # What a session asks of its owner.

    async def authorise(self, mailbox_id: str, token: str) -> tuple[Mailbox, float]:
        return await self._authorise(mailbox_id, token)

    def standing(self, mailbox_id: str) -> Callable[[], bool]:
        return self._standing(mailbox_id)

    def recheck(self, subscription: Subscription) -> None:
        """Ask soon whether the subscription's token still opens its mailbox. They are asked one at a time."""
        self._doubted[subscription] = None
        if self._checker is None or self._checker.done():
            self._checker = asyncio.get_running_loop().create_task(self._check_doubted())

    def stuck(self, session: Session, is_stuck: bool) -> None:
        if is_stuck:
            self._stuck[session] = self.now, session.transport.get_write_buffer_size()
        else:
            self._stuck.pop(session, None)

    def closing(self, session: Session) -> None:
        self._ending[session] = self.now

    def left(self, session: Session) -> None:
        self._wheel[session.turn % _PLACES].discard(session)
        self._stuck.pop(session, None)
        self._ending.pop(session, None)
        self._room.give_back(session.client)
        ACTIVE.set(self._room.taken)
        if not self._room.taken and self._draining is not None:
            self._draining.set()

    # Time.

    def _tick(self) -> None:
        self.now = time.monotonic()
        if not self._room.taken and self._ticking is not None:
            self._ticking = None
            return
        self._ticking = asyncio.get_running_loop().call_later(TICK, self._tick)
        self._ticks += 1
        self.visit(self._ticks % (_PLACES * _ROUNDS))
        if self._ticks % _LOOKS == 0:
            self.look()

    def visit(self, turn: int) -> None:
        """Call on the sessions of one place of the wheel, with a ping for those whose ``turn`` it is."""
        ping = wire.framed(wire.TEXT, frames.ping())
        for session in tuple(self._wheel[turn % _PLACES]):
            session.visit(self.now, ping if session.turn == turn else b"")

    def look(self) -> None:
        """End those who have taken nothing for WRITE_STALL, cut off those whose end takes longer than CLOSE_WAIT."""
        for session, (since, before) in tuple(self._stuck.items()):
            waiting = session.transport.get_write_buffer_size()
            if waiting < before:
                since = self.now
            self._stuck[session] = since, waiting
            if self.now - since >= WRITE_STALL:
                session.end("slow")
        for session, since in tuple(self._ending.items()):
            if self.now - since >= CLOSE_WAIT:
                session.abort()

    # Rights.

    async def _check_doubted(self) -> None:
        while self._doubted:
            subscription = next(iter(self._doubted))
            del self._doubted[subscription]
            if subscription.live:
                await self._check(subscription)

    async def _check(self, subscription: Subscription) -> None:
        checked_at = clock.wall()
        try:
            mailbox, _ = await self._authorise(subscription.mailbox_id, subscription.token)
        except Refused as refusal:
            if subscription.live:
                self._revoke(subscription, refusal.word)
        except Unavailable:  # counted where it happened; held mail stays held, and the next visit asks again
            subscription.checked_at = 0.0
        else:
            subscription.checked_at, subscription.expires_at = checked_at, expiry(mailbox)
            subscription.doubted = subscription in self._doubted  # again, while it was looked up
            self.hub.release([subscription])

    def _revoke(self, subscription: Subscription, word: str) -> None:
        mailbox_id = subscription.mailbox_id
        over = subscription.expires_at <= clock.wall()
        subscription.outlet.tell(frames.mailbox_expired(mailbox_id) if over else frames.unsubscribed(mailbox_id, word))
        self.hub.unsubscribe(subscription)
        subscription.outlet.ended(subscription)

    # The end.

    def sessions(self) -> list[Session]:
        """All of them."""
        return [session for place in self._wheel for session in place]

    async def drain(self, deadline: float) -> None:
        """Let nobody in any more and close everyone with 1012; who is left after ``deadline`` seconds is cut off."""
        self._room.closed, self._draining = True, asyncio.Event()
        if self._room.taken:
            for session in self.sessions():
                session.end("restart")
            try:
                await asyncio.wait_for(self._draining.wait(), deadline)
            except TimeoutError:
                for session in self.sessions():
                    session.abort()
        if self._ticking is not None:
            self._ticking.cancel()
        if self._checker is not None:
            self._checker.cancel()


def _affordable(wanted: int) -> int:
    """As many of ``wanted`` connections as this process has descriptors for; a tenth of those is left to all else."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if limit == resource.RLIM_INFINITY else min(wanted, limit * 9 // 10)
