"""Mail of deleted mailboxes: found by the rows that their deletion left, and deleted a bounded number at a time.

Must not know: when, or who asked for it.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from server.store.messages import BATCH, release
from server.store.pools import Database, column, translated
from server.store.rows import moment
from server.store.sql import SQL

VACUUM_MAX: Final = 1 << 30  # bytes of a partition that is vacuumed here; PostgreSQL looks after larger ones by itself
_VACUUM_TIMEOUT: Final = 60  # s


class Erasure(NamedTuple):
    """A deleted mailbox, and the span of drop_after in which its mail lies."""

    mailbox_id: str
    least: datetime
    most: datetime


class ErasureStore:
    """Every method may be repeated and raises Unavailable in trouble."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, limit: int, lease: float) -> list[Erasure]:
        """Up to ``limit`` that are due, ours for ``lease`` seconds."""
        rows = await self._database.fetch(SQL.erasures_take, limit, lease)
        return [Erasure(str(row["mailbox_id"]), moment(row["least"]), moment(row["most"])) for row in rows]

    async def erase(self, one: Erasure) -> tuple[int, set[str]]:
        """Delete up to BATCH of its messages, with bodies that no other holds; how many, and from which partitions."""
        async with self._database.transaction() as connection:
            gone = await connection.fetch(SQL.message_delete_some, *one, BATCH)
            leaves = await release(connection, [(row["body_id"], moment(row["body_drop_after"])) for row in gone])
        return len(gone), {*leaves, *column(gone, "leaf")}

    async def done(self, erased: Sequence[Erasure]) -> None:
        await self._database.execute(SQL.erasures_done, [one.mailbox_id for one in erased])

    async def unquote(self) -> None:
        """Let deliveries that are still to be made forget deleted mail that came half a minute ago or earlier."""
        await self._database.execute(SQL.deliveries_unquote)

    async def vacuum(self, leaves: Iterable[str]) -> None:
        """Free the space that deleted rows took in these partitions, and give what is free at their ends back."""
        names = column(await self._database.fetch(SQL.leaves_small, list(leaves), VACUUM_MAX), "name")
        with translated():
            async with self._database.connection() as connection:
                await connection.execute(f"SET statement_timeout = {_VACUUM_TIMEOUT * 1000}; SET vacuum_cost_delay = 2")
                try:
                    for name in names:
                        await connection.execute(f"VACUUM (SKIP_LOCKED) {name}", timeout=_VACUUM_TIMEOUT)
                finally:  # both are the session's, and the pool hands it on as it is
                    await connection.execute("RESET statement_timeout; RESET vacuum_cost_delay")
