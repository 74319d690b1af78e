"""All WebSockets of one worker: who is let in, the visits that time calls for, the checks of rights, the end.

Lives here: the handler of ``GET /v1/ws`` and what the sessions share, so that none needs a timer of its own.
Must not know: routes, and how errors become responses: refusals before the handshake are raised for ``web`` to answer.

Rights are checked at the subscription, again when the mailbox's record changed (Kind.ADDRESS: extended, token rotated),
when its known end has come, and every RECHECK_INTERVAL. A token rotated meanwhile ends its subscriptions with
``unsubscribed`` and the word; while rights cannot be checked, mail of a mailbox whose end has come is held back.
"""

import asyncio
import time
from collections import deque
from typing import Final

from aiohttp import web

from server.config import Config
from server.metrics import Gauge
from server.model.errors import Refused, Unavailable
from server.services import frames
from server.services.watching import Subscription, Watching
from server.ws.handshake import origin_allowed, token_of
from server.ws.session import FRAME_MAX, Authorise, Owner, Session, expiry

VISIT_INTERVAL: Final = 5.0
_TICK: Final = 1.0
_CLOSE_REPLY: Final = 5.0  # seconds a client has to answer our close frame
_WRITE_UNIT: Final = 16 * 1024  # bytes written between two looks at whether the client keeps up

ACTIVE = Gauge("websocket_connections_active", "WebSocket connections open now.")


class Sessions:
    """Every open connection. Starts nothing until the first one comes, and nothing is left running after the last."""

    def __init__(self, config: Config, hub: Watching, authorise: Authorise) -> None:
        self._config, self._hub, self._authorise = config, hub, authorise
        self._owner = Owner(hub, authorise, self.recheck)
        self._sessions: set[Session] = set()
        self._admitted = 0
        self._visits: deque[tuple[float, Session]] = deque()
        self._doubted: dict[Subscription, None] = {}
        self._visitor: asyncio.Task[None] | None = None
        self._checker: asyncio.Task[None] | None = None
        self._draining = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The route's handler. Before the upgrade: Refused origin_not_allowed, field_invalid (no WebSocket handshake);
        Unavailable when the worker is full or stopping."""
        self._admit(request)
        ws = web.WebSocketResponse(
            timeout=_CLOSE_REPLY,
            autoping=False,
            compress=False,
            max_msg_size=FRAME_MAX,
            writer_limit=_WRITE_UNIT,
        )
        if not ws.can_prepare(request):
            raise Refused("field_invalid", "a WebSocket handshake (RFC 6455 section 4.1)", field="Upgrade")
        self._count(1)
        try:
            await ws.prepare(request)
            if request.transport is not None:  # None: gone while we answered
                token = token_of(request, query=self._config.query_token)
                await self._serve(Session(self._owner, ws, request.transport, token))
        finally:
            self._count(-1)
        return ws

    async def drain(self, deadline: float) -> None:
        """Let nobody in any more and close everyone with 1012; who is left after ``deadline`` seconds is cut off."""
        self._draining = True
        sessions = list(self._sessions)
        for session in sessions:
            session.end("restart")
        closing = [session.closing for session in sessions if session.closing is not None]
        if closing:
            await asyncio.wait(closing, timeout=deadline)
        for session in sessions:
            if session.closing is not None and not session.closing.done():
                session.abort()
        for task in (self._visitor, self._checker):
            if task is not None:
                task.cancel()

    def recheck(self, subscription: Subscription) -> None:
        """Ask soon whether the subscription's token still opens its mailbox. They are asked one at a time."""
        self._doubted[subscription] = None
        if self._checker is None or self._checker.done():
            self._checker = asyncio.get_running_loop().create_task(self._check_doubted())

    def _admit(self, request: web.Request) -> None:
        origins = self._config.cors_origins
        if not origin_allowed(request.headers.get("Origin"), request.headers.get("Host", ""), origins):
            raise Refused("origin_not_allowed", "this page's origin may not connect", field="Origin")
        if self._draining or self._admitted >= self._config.websocket_max:
            raise Unavailable("no room for another WebSocket")

    def _count(self, change: int) -> None:
        self._admitted += change
        ACTIVE.set(self._admitted)

    async def _serve(self, session: Session) -> None:
        self._sessions.add(session)
        self._visits.append((time.monotonic() + VISIT_INTERVAL, session))
        if self._visitor is None or self._visitor.done():
            self._visitor = asyncio.get_running_loop().create_task(self._visit())
        if self._draining:  # it began while the handshake was on its way
            session.end("restart")
        try:
            await session.run()
        finally:
            self._sessions.discard(session)

    async def _visit(self) -> None:
        """Call on every session each VISIT_INTERVAL in the order they came, so the work is spread as they were."""
        while self._sessions:
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            while self._visits and self._visits[0][0] <= now:
                _, session = self._visits.popleft()
                if session in self._sessions and session.visit(now):
                    self._visits.append((now + VISIT_INTERVAL, session))

    async def _check_doubted(self) -> None:
        while self._doubted:
            subscription = next(iter(self._doubted))
            del self._doubted[subscription]
            if subscription.live:
                await self._check(subscription)

    async def _check(self, subscription: Subscription) -> None:
        checked_at = time.time()
        try:
            mailbox, _ = await self._authorise(subscription.mailbox_id, subscription.token)
        except Refused as refusal:
            if subscription.live:
                self._revoke(subscription, refusal.word)
        except Unavailable:  # counted where it happened; held mail stays held, and the next visit asks again
            subscription.checked_at = 0.0
        else:
            subscription.checked_at, subscription.expires_at = checked_at, expiry(mailbox)
            self._hub.release([subscription])

    def _revoke(self, subscription: Subscription, word: str) -> None:
        mailbox_id = subscription.mailbox_id
        over = subscription.expires_at <= time.time()
        subscription.outlet.tell(frames.mailbox_expired(mailbox_id) if over else frames.unsubscribed(mailbox_id, word))
        self._hub.unsubscribe(subscription)
        subscription.outlet.ended(subscription)
