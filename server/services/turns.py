"""Turns of the event loop for work that is large: one piece between two looks at the sockets.

Lives here: who is next. Must not know: what the pieces are. A piece is one answer made, one body decoded, or one
part of an answer written. It holds up the loop for some milliseconds at most. Without turns the loop does the pieces
of all ready connections before it looks at a small request: 80 readers of 2.6 MB held up a kept answer for 1.4 s.
"""

import asyncio
from collections import deque


class Turns:
    """Those of one worker. A turn that is free costs no wait. The queue is bounded by the requests under way."""

    __slots__ = ("_taken", "_waiting")

    def __init__(self) -> None:
        self._taken = False  # whether a piece of work has begun since the loop looked last
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Return when the caller may do one piece of large work, without an await in it."""
        loop = asyncio.get_running_loop()
        if not self._taken:
            self._taken = True
            loop.call_soon(self._go_on)
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _go_on(self) -> None:
        """The loop has looked at its sockets: the next may work."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # its caller has not gone
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._go_on)
                return
        self._taken = False
