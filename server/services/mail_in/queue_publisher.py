"""The way in for mail in queue mode: nothing is parsed here, 250 follows the broker's confirmation.

Lives here: what may wait for the broker, and for how long. Must not know: the broker itself, or what a message says.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from server.metrics import LATENCY, Gauge, Histogram
from server.model import ids, queued
from server.model.errors import Refused, Unavailable
from server.model.message import Envelope, Recipient, Stored
from server.services.contracts import MailSink

MAX_WAITING: Final = 5_000  # messages of one worker without an answer; more are told to try again later
MAX_WAITING_BYTES: Final = 128 << 20
STALLED: Final = 5.0  # s without an answer to the oldest, after which no more are offered

WAITING = Gauge("tempmail_queue_unconfirmed", "Messages that the broker has not confirmed yet.")
CONFIRMED = Histogram("tempmail_queue_confirm_seconds", "From offering a message to the broker's answer.", LATENCY)


class QueuePublisher:
    """Implements contracts.MailSink; who takes mail is asked of ``direct``. ``publish`` returns once a message is safe,
    and raises Unavailable; ``most`` is the largest it takes, in bytes."""

    def __init__(self, direct: MailSink, publish: Callable[[bytes], Awaitable[None]], most: int) -> None:
        self._direct, self._publish, self._most = direct, publish, most
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[asyncio.Task[None], float] = {}  # since when, oldest first
        self._bytes = 0

    def route(self, address: str) -> Recipient | None:
        return self._direct.route(address)

    async def resolve(self, address: str) -> Recipient:
        return await self._direct.resolve(address)

    def submit(self, envelope: Envelope, *, is_read: bool = False) -> "asyncio.Future[Sequence[Stored]]":
        """Offer one message to the broker. The result has no rows: they come to be elsewhere, later."""
        future: asyncio.Future[Sequence[Stored]] = self._loop.create_future()
        now = time.monotonic()
        if len(self._waiting) >= MAX_WAITING or self._bytes >= MAX_WAITING_BYTES:
            future.set_exception(Unavailable("too many messages wait for the broker"))
        elif self._waiting and now - next(iter(self._waiting.values())) > STALLED:
            future.set_exception(Unavailable("the broker does not answer"))
        else:
            frame = queued.pack(envelope, ids.new())
            if len(frame) > self._most:
                future.set_exception(Refused("message_too_big"))
            else:
                self._offer(frame, future, now)
        return future

    def _offer(self, frame: bytes, future: "asyncio.Future[Sequence[Stored]]", now: float) -> None:
        task = self._loop.create_task(self._send(frame))
        self._waiting[task] = now
        self._bytes += len(frame)
        WAITING.add()
        task.add_done_callback(partial(self._answered, len(frame), future))

    async def _send(self, frame: bytes) -> None:
        await self._publish(frame)

    def _answered(self, size: int, future: "asyncio.Future[Sequence[Stored]]", task: "asyncio.Task[None]") -> None:
        CONFIRMED.observe(time.monotonic() - self._waiting.pop(task))
        self._bytes -= size
        WAITING.add(n=-1)
        error = Unavailable("given up") if task.cancelled() else task.exception()
        if future.done():
            return
        if error is None:
            future.set_result([])
        else:
            future.set_exception(error)
            future.exception()  # a client that has gone must not leave "exception was never retrieved" behind
