"""Answers that stay open: how many there may be, and how they end when the worker stops.

Must not know: what is written on them.
"""

import asyncio
from collections import Counter as Tally
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from server.metrics import Gauge
from server.model.errors import Refused, Unavailable

SHARE: Final = 10  # a client address may hold one in so many of the places
_AGAIN: Final = 5.0  # seconds after which a client that holds too many may ask again

ACTIVE: Final = Gauge("tempmail_streams_active", "Event streams and waiting requests open now.")


class Streams:
    """The open answers of one worker, at most ``most``; ``exempt`` says which clients have no cap of their own."""

    def __init__(self, most: int, exempt: Callable[[str], bool]) -> None:
        self._most, self._exempt = most, exempt
        self._open: set[asyncio.Timeout] = set()
        self._held: Tally[str] = Tally()
        self._draining = False

    @asynccontextmanager
    async def place(self, client: str) -> AsyncIterator[None]:
        """Hold a place while the block runs. Refused rate_limited when ``client`` holds too many; Unavailable when all
        places are taken, and out of the block itself when the worker stops.
        """
        self._admit(client)
        scope = asyncio.timeout(None)
        self._open.add(scope)
        self._held[client] += 1
        ACTIVE.set(len(self._open))
        try:
            async with scope:
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise Unavailable("the worker stops") from None
        finally:
            self._open.discard(scope)
            self._leave(client)
            ACTIVE.set(len(self._open))

    def _admit(self, client: str) -> None:
        if self._draining or len(self._open) >= self._most:
            raise Unavailable("no room for another stream")
        if self._held[client] >= max(1, self._most // SHARE) and not self._exempt(client):
            raise Refused("rate_limited", "too many streams are open from here", retry_after=_AGAIN)

    def _leave(self, client: str) -> None:
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]

    def drain(self) -> None:
        """Let nobody in any more and end every open one at its next wait."""
        self._draining = True
        for scope in self._open:
            scope.reschedule(asyncio.get_running_loop().time())
