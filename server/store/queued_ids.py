"""Which mail has come through the queue already: ids claimed in the transaction that stores it, forgotten after a day.

Lives here: the slots that the ids are kept in. Must not know: the broker, or what becomes of mail that is too old to be
known.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from server.model import ids
from server.store.pools import Connection, Database
from server.store.sql import SQL

MEMORY: Final = timedelta(hours=24)  # from the making of an id; what comes again later cannot be told from new mail
_SLOTS: Final = 32  # hours of MEMORY, one ahead for clocks that differ, and some in which to empty what is over
_HOUR: Final = timedelta(hours=1)


def slot(made: datetime) -> int:
    """Where the ids made in this hour are kept."""
    return int(made.timestamp()) // 3600 % _SLOTS


async def claim(connection: Connection, wanted: Sequence[str]) -> set[str]:
    """Those of ``wanted`` that nobody has stored, until the caller's transaction ends."""
    slots = [slot(ids.made_at(one)) for one in wanted]
    rows = await connection.fetch(SQL.arrivals_claim, slots, wanted)
    return {str(row["id"]) for row in rows}


async def forget(database: Database, now: datetime) -> int:
    """Empty the slots of hours that are past MEMORY; how many that were. Raises Unavailable."""
    kept = {slot(now + _HOUR * n) for n in range(-int(MEMORY / _HOUR) - 1, 2)}
    emptied = 0
    for one in sorted(set(range(_SLOTS)) - kept):
        found = await database.fetchrow(SQL.arrivals_any, one)
        if found and found["exists"]:
            await database.execute(f"TRUNCATE messages.arrivals_{one}")
            emptied += 1
    return emptied
