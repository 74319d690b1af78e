"""The clockwork: ends mailboxes in time, makes partitions ahead and drops those that are over.

Every worker runs it. SKIP LOCKED and advisory locks let them work side by side, so none is special and any may die.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from server import clock
from server.config.settings import Config
from server.services.mailboxes.mailboxes import MailboxService
from server.services.periodic import every
from server.store.abuse import AbuseStore
from server.store.messages import MessageStore
from server.store.partitions import Partitions

SWEEP_EVERY: Final = 1.0  # s
SWEEP_BATCH: Final = 500  # mailboxes in one statement
UPKEEP_EVERY: Final = 30.0  # s, for partitions and orphans
_FORGOTTEN: Final = 1000  # makers of mailboxes in one statement
_ORPHAN_AGE: Final = timedelta(minutes=5)  # past its end; the sweep of its mailbox has surely been by


class Retention:
    def __init__(
        self,
        config: Config,
        mailboxes: MailboxService,
        messages: MessageStore,
        partitions: Partitions,
        clock: Callable[[], datetime],
        abuse: AbuseStore | None = None,
    ) -> None:
        self._abuse = abuse
        self._config, self._mailboxes, self._messages = config, mailboxes, messages
        self._partitions, self._clock = partitions, clock
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(every(SWEEP_EVERY, self.sweep)),
            asyncio.create_task(every(UPKEEP_EVERY, self.upkeep)),
        ]

    async def sweep(self) -> None:
        """End every mailbox whose time is over, where this node may judge that."""
        while clock.agrees() and await self._mailboxes.sweep(SWEEP_BATCH) == SWEEP_BATCH:
            await asyncio.sleep(0)

    async def upkeep(self) -> None:
        """Partitions ahead and past, inboxes whose mailbox never came to be, and who made mailboxes long ago."""
        now = self._clock()
        await self._partitions.ahead(now, self._config.mailbox_max_ttl)
        if clock.agrees():
            await self._messages.delete_orphans(now - _ORPHAN_AGE, SWEEP_BATCH)
            await self._partitions.drop_expired(now)
        if self._abuse is not None:
            while await self._abuse.forget_creators(self._config.creator_retention, _FORGOTTEN) == _FORGOTTEN:
                await asyncio.sleep(0)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
