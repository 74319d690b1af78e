"""Answers that stay open: how many there may be, and how they end when the worker stops.

Must not know: what is written on them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from server.metrics import Gauge
from server.model.errors import Unavailable
from server.services.push.connection_limit import ConnectionLimit

ACTIVE: Final = Gauge("tempmail_streams_active", "Event streams and waiting requests open now.")


class Streams:
    """The open answers of one worker, at most ``most``; ``exempt`` says which clients have no cap of their own."""

    def __init__(self, most: int, exempt: Callable[[str], bool]) -> None:
        self._room = ConnectionLimit("streams", most, exempt)
        self._open: set[asyncio.Timeout] = set()

    @asynccontextmanager
    async def place(self, client: str) -> AsyncIterator[None]:
        """Hold a place while the block runs. Refused rate_limited when ``client`` holds too many; Unavailable when all
        places are taken, and out of the block itself when the worker stops.
        """
        holder = self._room.admit(client)
        scope = asyncio.timeout(None)
        self._open.add(scope)
        self._room.take(holder)
        ACTIVE.set(self._room.taken)
        try:
            async with scope:
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise Unavailable("the worker stops") from None
        finally:
            self._open.discard(scope)
            self._room.give_back(holder)
            ACTIVE.set(self._room.taken)

    def drain(self) -> None:
        """Let nobody in any more and end every open one at its next wait."""
        self._room.closed = True
        for scope in self._open:
            scope.reschedule(asyncio.get_running_loop().time())
