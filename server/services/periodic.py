"""Work that repeats for as long as the process lives.

Lives here: its rhythm, and what happens when a round fails. Must not know: the work.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable

from server.log import event
from server.model.errors import Unavailable
from server.outages import put_off


async def every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Run ``work`` for ever, spread so that workers do not act in step; trouble is logged and tried again."""
    while True:
        await asyncio.sleep(seconds * random.uniform(0.5, 1.0))
        try:
            await work()
        except Unavailable as error:
            put_off(f"upkeep put off: {work.__name__}", error)
        except Exception as error:  # a fault in one round must not end the clockwork
            event("error", "upkeep failed", work=work.__name__, reason=repr(error))
