"""The clockwork that takes deleted mail off the disk: of mailboxes that were deleted, and of accounts that went.

Lives here: when that is done. Must not know: what a message is. Any worker runs it; the rows that a deletion leaves say
what is to be done, so nothing is forgotten when one dies.
"""

import asyncio
import contextlib
import random
from typing import Final

from server.log import event
from server.metrics import Counter
from server.model.errors import Unavailable
from server.outages import put_off
from server.store.erasures import ErasureStore
from server.store.messages import BATCH

ERASED = Counter("tempmail_messages_erased_total", "Messages of deleted mailboxes that were deleted.")

EVERY: Final = 5.0  # s between two rounds, unless there is news
LEASE: Final = 30.0  # s until a mailbox is taken again, by this worker or another
TAKEN: Final = 20  # mailboxes at a time
VACUUM_AFTER: Final = 20.0  # s from a deletion until its space is freed, for readers that were there before


class Eraser:
    def __init__(self, store: ErasureStore) -> None:
        self._store = store
        self._news = asyncio.Event()
        self._leaves: dict[str, float] = {}  # partitions with space to free, and when
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """A mailbox was deleted just now."""
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
                put_off("erasing put off", error)
            except Exception as error:  # a fault in one round must not end the clockwork
                event("error", "erasing failed", reason=repr(error))

    async def round(self) -> None:
        """Erase all that is due, and free the space of what was erased some time ago."""
        while taken := await self._store.take(TAKEN, LEASE):
            for one in taken:
                count = BATCH
                while count == BATCH:
                    count, leaves = await self._store.erase(one)
                    ERASED.add(n=count)
                    due = asyncio.get_running_loop().time() + VACUUM_AFTER
                    self._leaves |= {leaf: due for leaf in leaves if leaf not in self._leaves}
            await self._store.done(taken)
        await self._store.unquote()
        await self._vacuum()

    async def _vacuum(self) -> None:
        now = asyncio.get_running_loop().time()
        due = [leaf for leaf, at in self._leaves.items() if at <= now]
        for leaf in due:
            del self._leaves[leaf]
        if due:
            await self._store.vacuum(due)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
