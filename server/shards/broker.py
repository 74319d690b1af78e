"""A worker's ends of the queue, built and wired: what SMTP gives mail to, and what brings queued mail to Ingest.

Must not know: any other part of the worker.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

from server import clock
from server.bus.rabbit import BODY_MAX, Consumer, Publisher
from server.config.settings import Config
from server.model.errors import Unavailable
from server.services.contracts import MailSink
from server.services.mail_in.decisions import Decisions
from server.services.mail_in.queue_consumer import QueueConsumer
from server.services.mail_in.queue_publisher import QueuePublisher
from server.shards.roles import Parts
from server.store import queued_ids
from server.store.pools import Database

_PROBE_EVERY: Final = 1.0  # s between looks whether the database is back


class Broker:
    """Nothing, in direct mode. ``delivery`` is what SMTP gives mail to. ``first`` is true in one worker of the node;
    ``storing`` is the way to the commit, and ``drained`` returns when nothing is on it."""

    def __init__(
        self,
        config: Config,
        does: Parts,
        first: bool,
        storing: MailSink,
        drained: Callable[[], Awaitable[None]],
        database: Database,
        clock: Callable[[], datetime],
        decisions: Decisions,
    ) -> None:
        self._drained, self._database, self._clock = drained, database, clock
        self._publisher = Publisher(config, measures=first and not does.consume) if does.relay else None
        self._consumer = Consumer(config, self._storable, measures=first) if does.consume else None
        self.delivery: MailSink = (
            QueuePublisher(storing, self._publisher.publish, BODY_MAX) if self._publisher else storing
        )
        self._intake = QueueConsumer(storing, queued_ids.MEMORY, self._forget, clock, decisions)

    async def _storable(self) -> None:
        """Messages are taken only when they can be stored: each time one is handed out in vain counts against it."""
        while True:
            try:
                await self._database.fetchrow("SELECT 1")
                return
            except Unavailable:
                await asyncio.sleep(_PROBE_EVERY)

    async def _forget(self) -> None:
        if clock.agrees():
            await queued_ids.forget(self._database, self._clock())

    async def start(self) -> None:
        """Connect; without a broker it returns all the same, and mail is told to come again until there is one."""
        if self._consumer:
            self._intake.start()
            self._consumer.deliver = self._intake.take
        await asyncio.gather(*(link.start() for link in (self._publisher, self._consumer) if link))

    def readiness(self) -> dict[str, str]:
        """ "ok" or what is wrong, for whatever end of the queue this worker holds."""
        links = [link for link in (self._publisher, self._consumer) if link]
        wrong = [link.reason for link in links if not link.healthy]
        return {"broker": wrong[0] if wrong else "ok"} if links else {}

    async def drain(self) -> None:
        """Take no more from the queue and settle what was taken."""
        if self._consumer:
            await self._consumer.stop()
            await self._drained()

    async def close(self) -> None:
        await self._intake.close()
        for link in (self._consumer, self._publisher):
            if link:
                await link.close()
