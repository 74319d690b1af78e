"""This machine's clock held against the database's, every few seconds; what differs is said once, and when it is over.

Must not know: what is not destroyed meanwhile (see clock.agrees).
"""

import asyncio
from typing import Final

from server import clock
from server.log import event
from server.metrics import Gauge
from server.model.errors import Unavailable
from server.services.periodic import every
from server.store.pools import Pools

OFFSET = Gauge("tempmail_clock_offset_seconds", "How far this machine's clock is ahead of the database's.")

EVERY: Final = 5.0  # s between two measurements


class Timekeeper:
    """``first`` is true in one worker of the node, which speaks for all of them: they share the machine's clock."""

    def __init__(self, pools: Pools, first: bool) -> None:
        self._pools, self._first = pools, first
        self._wrong = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._say()
        self._task = asyncio.create_task(every(EVERY, self.measure))

    async def measure(self) -> None:
        try:
            await self._pools.tell_time()
        except Unavailable:  # said by the pools; without a measurement of the last minute nothing is destroyed
            return
        self._say()

    def standing(self) -> str:
        """ "ok", or how far the machine's clock is off."""
        return "ok" if abs(clock.offset()) <= clock.TOLERANCE else f"degraded: {_described(clock.offset())}"

    def _say(self) -> None:
        off = clock.offset()
        if not self._first:
            return
        OFFSET.set(round(off, 3))
        wrong = abs(off) > clock.TOLERANCE
        if wrong and not self._wrong:
            event(
                "error",
                f"{_described(off)}: this node ends and destroys nothing until they agree; is NTP running on both?",
                offset=round(off, 3),
            )
        elif self._wrong and not wrong:
            event("warning", "the clock agrees with the database's again", offset=round(off, 3))
        self._wrong = wrong

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _described(off: float) -> str:
    return f"this machine's clock is {abs(off):,.0f} s {'ahead of' if off > 0 else 'behind'} the database's"
