"""What a deleted account leaves in other domains: mailboxes, domains, listeners. All of it goes, whatever crashes.

Lives here: the clockwork that any worker runs. Must not know: why an account went.

A row in users.departures is written with the deletion. Whoever takes it ends everything that names the account, and
somebody does so again every LEASE until GRACE has passed: a request that was under way when the account was deleted may
still have made a mailbox. Every step may be repeated.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from server.log import event
from server.model.errors import Unavailable
from server.model.event import Hint, Kind
from server.outages import put_off
from server.services.coherence import Coherence, domain_set
from server.store.account_cleanup import DepartureStore

EVERY: Final = 5.0  # s between two rounds, unless there is news
LEASE: Final = timedelta(seconds=15)  # until an account is taken again, by this worker or another
GRACE: Final = timedelta(seconds=60)  # longer than any request
BATCH: Final = 200  # mailboxes ended in one statement


class Departures:
    def __init__(self, store: DepartureStore, coherence: Coherence, clock: Callable[[], datetime]) -> None:
        self._store, self._coherence, self._clock = store, coherence, clock
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """An account was deleted just now."""
        self._news.set()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY * random.uniform(0.5, 1.0)):
                    await self._news.wait()
            self._news.clear()
            try:
                await self.round()
            except Unavailable as error:
                put_off("departures put off", error)
            except Exception as error:  # a fault in one round must not end the clockwork
                event("error", "departures failed", reason=repr(error))

    async def round(self) -> None:
        """Clear away after every account that has gone."""
        while taken := await self._store.take(self._clock(), self._clock() + LEASE):
            user_id, departed_at = taken
            await self._clear(user_id)
            if departed_at + GRACE < self._clock():
                await self._store.forget(user_id)

    async def _clear(self, user_id: str) -> None:
        while boxes := await self._store.mailboxes(user_id, BATCH):
            addresses = [address for held in boxes.values() for address in held]
            with self._coherence.writing(addresses=addresses, records=boxes):
                await self._store.end(list(boxes))
            self._coherence.tell([Hint(Kind.EXPIRED, mailbox_id) for mailbox_id in boxes])
        await self._store.silence(user_id)
        with self._coherence.writing(domains=True):
            gone = await self._store.end_domains(user_id)
        if gone:
            self._coherence.tell([domain_set()])

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
