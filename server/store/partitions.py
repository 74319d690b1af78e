"""Partitions of messages, bodies and tags: made ahead and on demand, dropped whole when their time is over.

Lives here: which range a moment lies in, and the statements that attach and detach. Must not know: what a message is.

Expiring mail lies in ranges of ``drop_after`` that are one interval wide, or a day wide when made more than a week
ahead (only mail of a mailbox without an end but with a retention is dated so far): one DETACH and DROP removes an
interval's mail, however much it is. Mail kept for ever lies under the range that begins at infinity, by month of
receipt.

A table is created apart and then attached, because ATTACH takes a lock that lets readers and writers pass, which CREATE
TABLE ... PARTITION OF does not.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
import msgspec

from server.log import event
from server.model.message import FOREVER
from server.store.pools import Connection, Database, translated

PARENTS: Final = ("messages", "bodies", "message_tags")
GRACE: Final = timedelta(seconds=30)  # past a range's end before it goes: a commit under way may still land in it
_LOCK: Final = 0x70617274  # pg_advisory_lock key: one maker or dropper of partitions at a time
_DAY: Final = timedelta(days=1)
_FAR: Final = timedelta(days=7)
_DETACH_TIMEOUT: Final = 60  # s; a detach waits for the readers and writers that were there before it
_NAME: Final = re.compile(r"(\d{14})_(\d+)|forever_(\d{6})")
_LEAF: Final = re.compile(rf"({'|'.join(PARENTS)})_({_NAME.pattern})")


class Range(msgspec.Struct, frozen=True, order=True):
    """A partition's bounds, start included and end not; ``forever`` ones are bounds of received_at instead."""

    start: datetime
    end: datetime
    forever: bool = False

    @property
    def suffix(self) -> str:
        if self.forever:
            return f"forever_{self.start:%Y%m}"
        return f"{self.start:%Y%m%d%H%M%S}_{round((self.end - self.start).total_seconds())}"


def aligned(moment: datetime, width: timedelta) -> Range:
    """The range of that width, counted from midnight UTC, in which ``moment`` lies."""
    midnight = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start = midnight + (moment - midnight) // width * width
    return Range(start, start + width)


def month(received: datetime) -> Range:
    start = received.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return Range(start, (start + timedelta(days=32)).replace(day=1), forever=True)


def parse(suffix: str) -> Range | None:
    """The range a table with this suffix is named for; None when it is not one of ours."""
    match = _NAME.fullmatch(suffix)
    if match is None:
        return None
    if match[3]:
        return month(datetime.strptime(match[3] + "+0000", "%Y%m%z"))
    start = datetime.strptime(match[1] + "+0000", "%Y%m%d%H%M%S%z")
    return Range(start, start + timedelta(seconds=int(match[2])))


class Partitions:
    """What is known to be attached, and the ways to change it. One for each worker; the database arbitrates."""

    def __init__(self, database: Database, interval: float) -> None:
        self._database = database
        self._interval = timedelta(seconds=interval)
        self._known: set[Range] = set()

    def count(self) -> int:
        """How many there are as far as this worker knows."""
        return len(self._known)

    def covered(self, drop_after: datetime, received: datetime) -> bool:
        """Whether a row with these times has a partition as far as this worker knows."""
        if drop_after == FOREVER:
            return month(received) in self._known
        return aligned(drop_after, self._interval) in self._known or aligned(drop_after, _DAY) in self._known

    async def ensure(self, rows: Iterable[tuple[datetime, datetime]]) -> None:
        """Make the partitions that (drop_after, received) rows need. Raises Unavailable."""
        with translated():
            async with self._database.connection() as connection, connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
                leaves = await _leaves(connection)
                self._known = _whole(leaves)
                made = []
                for drop_after, received in rows:
                    if not self.covered(drop_after, received):
                        made.append(self._wanted(drop_after, received))
                        await self._make(connection, made[-1], leaves)
        if made:
            event("info", "partitions made", count=len(made), first=made[0].suffix, last=made[-1].suffix)

    def _wanted(self, drop_after: datetime, received: datetime) -> Range:
        if drop_after == FOREVER:
            return month(received)
        near = aligned(drop_after, self._interval)
        day = aligned(drop_after, _DAY)
        far = drop_after - received > _FAR
        return day if far and not any(day.start <= r.start < day.end for r in self._known if not r.forever) else near

    async def _make(self, connection: Connection, wanted: Range, leaves: set[tuple[str, Range]]) -> None:
        """What of the range is not there yet: a crash, or a release that knew fewer tables, may have left a part."""
        for parent in PARENTS:
            if (parent, wanted) in leaves:
                continue
            over = f"messages.{parent}_forever" if wanted.forever else f"messages.{parent}"
            name = f"messages.{parent}_{wanted.suffix}"
            await connection.execute(f"CREATE TABLE {name} (LIKE messages.{parent} INCLUDING ALL)")
            await connection.execute(
                f"ALTER TABLE {over} ATTACH PARTITION {name} FOR VALUES FROM ('{wanted.start:%Y-%m-%d %H:%M:%S+00}')"
                f" TO ('{wanted.end:%Y-%m-%d %H:%M:%S+00}')"
            )
        self._known.add(wanted)

    async def ahead(self, now: datetime, horizon: float) -> None:
        """Make those of the next ``horizon`` seconds (48 at most) and of this month and the next."""
        count = min(48, int(timedelta(seconds=horizon) / self._interval) + 2)
        rows = [(now + self._interval * i, now) for i in range(count)]
        rows += [(FOREVER, now), (FOREVER, month(now).end)]
        if not all(self.covered(*row) for row in rows):
            await self.ensure(rows)

    async def drop_expired(self, now: datetime) -> list[str]:
        """Remove every range that ended before ``now`` less a grace; nothing when another process is at it.

        DETACH CONCURRENTLY lets readers and writers pass. What a crash left half done (a pending detach, a table
        detached and not dropped, one parent's part gone and another's not) is finished here too. Returns the tables'
        names.
        """
        with translated():
            async with self._database.connection() as connection:
                if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
                    return []
                try:
                    await connection.execute(f"SET statement_timeout = {_DETACH_TIMEOUT * 1000}")
                    return await self._drop_all(connection, now)
                finally:  # both are the session's, and the pool hands it on as it is
                    await connection.execute("RESET statement_timeout; SELECT pg_advisory_unlock_all()")

    async def _drop_all(self, connection: Connection, now: datetime) -> list[str]:
        await _finish_detached(connection)
        over = sorted(
            (parent, old) for parent, old in await _leaves(connection) if not old.forever and old.end + GRACE <= now
        )
        for parent, old in over:
            await _drop(connection, parent, old)
            self._known.discard(old)
        return [f"{parent}_{old.suffix}" for parent, old in over]


async def _leaves(connection: Connection) -> set[tuple[str, Range]]:
    """Each attached table of ours: its parent and its range."""
    rows = await connection.fetch(
        "SELECT c.relname FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'messages' AND c.relkind = 'r' AND NOT i.inhdetachpending"
    )
    named = [match for row in rows if (match := _LEAF.fullmatch(row["relname"]))]
    return {(match[1], found) for match in named if (found := parse(match[2])) is not None}


async def attached(connection: Connection) -> set[Range]:
    """The ranges that all parents have attached now."""
    return _whole(await _leaves(connection))


def _whole(leaves: set[tuple[str, Range]]) -> set[Range]:
    return {found for _, found in leaves if all((parent, found) in leaves for parent in PARENTS)}


async def _drop(connection: Connection, parent: str, old: Range) -> None:
    name = f"messages.{parent}_{old.suffix}"
    detach = f"ALTER TABLE messages.{parent} DETACH PARTITION {name} CONCURRENTLY"
    await connection.execute(detach, timeout=_DETACH_TIMEOUT)
    await connection.execute(f"DROP TABLE {name}", timeout=_DETACH_TIMEOUT)
    event("info", "partition dropped", partition=f"{parent}_{old.suffix}")


async def _finish_detached(connection: Connection) -> None:
    rows = await connection.fetch(
        "SELECT c.relname, i.inhparent::regclass::text AS parent FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid"
        " WHERE n.nspname = 'messages' AND c.relkind = 'r' AND c.relname ~ $1"
        " AND (i.inhrelid IS NULL OR i.inhdetachpending)",
        f"^({'|'.join(PARENTS)})_[0-9]{{14}}_[0-9]+$",
    )
    for row in rows:
        if row["parent"]:
            with suppress(asyncpg.UndefinedTableError):  # a detach whose sender had gone was still at it, and has ended
                await connection.execute(
                    f"ALTER TABLE {row['parent']} DETACH PARTITION messages.{row['relname']} FINALIZE"
                )
        await connection.execute(f"DROP TABLE messages.{row['relname']}")
