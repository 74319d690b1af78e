"""Decisions about mail as the database keeps them: written in batches, read by address, dropped by the hour.

Lives here: the statements' arguments, and the tables of hours, which are made ahead. Must not know: SMTP, or who may
read what.

All moments are the database's: the clock of a node that is off is put right as its decisions are written, and what is
too old is decided by ``now()`` there.
"""

import math
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg

from server.model.message import Alias, Mailbox
from server.model.trace import RCPT_TAKEN, Decision, Page, Question, Row, candidates
from server.store.batch import lacks_partition
from server.store.pools import Connection, Database, translated
from server.store.rows import scrubbed
from server.store.sql import SQL

_HOUR: Final = timedelta(hours=1)
_AGE_MAX: Final = 3600.0  # s; the tables of this hour and the one before are there
_CLOSE: Final = 1.0  # s that two clocks may differ and count as the same
_LOCK: Final = 0x74726163  # pg_advisory_lock key: one maker or dropper of hours at a time
_DETACH_TIMEOUT: Final = 60  # s
_LIKE: Final[dict[str, str]] = {"accepted": "2%", "deferred": "4%", "refused": "5%", "dropped": "dropped%"}
_LONGEST: Final = 320  # characters of a text


class TraceStore:
    """``retention`` in seconds; ``node`` names this worker; ``administrator`` is the address of the administrators'
    mailbox; ``room`` in bytes bounds the hours that are over."""

    def __init__(
        self, database: Database, retention: float, node: str, administrator: str, room: float = math.inf
    ) -> None:
        self._database, self._node, self._administrator = database, node, administrator
        self._retention = timedelta(seconds=retention)
        self._room = room
        self._next = random.getrandbits(59)  # ids of two workers hardly meet, and may

    async def write(self, rows: Sequence[Row]) -> None:
        """Raises Unavailable; then none is there."""
        first, self._next = self._next, (self._next + len(rows)) % (1 << 59)
        with translated():
            async with self._database.connection() as connection:
                ours, theirs = time.time(), (await connection.fetchval(SQL.trace_clock)).timestamp()
                arguments = [self._node, *_columns(rows, theirs, _off(ours, theirs), first)]
                try:
                    await connection.execute(SQL.trace_write, *arguments)
                except asyncpg.CheckViolationError as error:
                    if not lacks_partition(error):
                        raise
                    await self._make(connection)
                    await connection.execute(SQL.trace_write, *arguments)

    async def upkeep(self) -> list[str]:
        """Make the tables of the next hours and drop those that are over; the names of the dropped. Raises Unavailable.

        Nothing when another process is at it.
        """
        with translated():
            async with self._database.connection() as connection:
                await self._make(connection)
                if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
                    return []
                try:
                    await connection.execute(f"SET statement_timeout = {_DETACH_TIMEOUT * 1000}")
                    return await self._drop(connection)
                finally:  # both are the session's, and the pool hands it on as it is
                    await connection.execute("RESET statement_timeout; SELECT pg_advisory_unlock_all()")

    async def _make(self, connection: Connection) -> None:
        now = (await connection.fetchval("SELECT now()")).astimezone(UTC)
        hours = [now.replace(minute=0, second=0, microsecond=0) + _HOUR * n for n in (-1, 0, 1)]
        there = {row["relname"] for row in await connection.fetch(SQL.trace_hours) if row["attached"]}
        if all(_name(hour) in there for hour in hours):
            return
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            there = {row["relname"] for row in await connection.fetch(SQL.trace_hours)}
            for hour in hours:
                if _name(hour) not in there:
                    name = f"messages.{_name(hour)}"
                    await connection.execute(f"CREATE TABLE {name} (LIKE messages.trace INCLUDING ALL)")
                    bounds = f"FROM ('{hour:%Y-%m-%d %H}:00:00+00') TO ('{hour + _HOUR:%Y-%m-%d %H}:00:00+00')"
                    await connection.execute(f"ALTER TABLE messages.trace ATTACH PARTITION {name} FOR VALUES {bounds}")

    async def _drop(self, connection: Connection) -> list[str]:
        now = await connection.fetchval("SELECT now()")
        last = now - max(self._retention, _HOUR)
        over, held = [], 0
        for row in await connection.fetch(SQL.trace_hours):  # the newest first
            name = row["relname"]
            end = datetime.strptime(name[-10:] + "+0000", "%Y%m%d%H%z") + _HOUR
            if end > now:
                continue
            held += row["bytes"]
            if end > last and held <= self._room:
                continue
            detach = f"ALTER TABLE messages.trace DETACH PARTITION messages.{name}"
            if row["attached"]:
                with suppress(asyncpg.UndefinedTableError):  # a detach whose sender had gone has ended by itself
                    await connection.execute(f"{detach} {'FINALIZE' if row['pending'] else 'CONCURRENTLY'}")
            await connection.execute(f"DROP TABLE messages.{name}")
            over.append(name)
        return over

    async def page(self, question: Question) -> Page:
        """Decisions of the installation, or about one address. Raises Unavailable."""
        since, until = await self._span(question)
        like = None if question.verdict is None else _LIKE[question.verdict]
        common = since, until, *(question.before or (None, None)), like, question.limit + 1, question.sender or None
        if question.address:
            address = question.address
            mailboxes = candidates(address, self._administrator)
            found = await self._database.survey(SQL.trace_of_address, *common, address, mailboxes)
        else:
            found = await self._database.survey(SQL.trace_all, *common)
        return await self._paged(found, question, since, until)

    async def of_mailbox(self, mailbox: Mailbox, aliases: Sequence[Alias], question: Question) -> Page:
        """Decisions about a mailbox's own addresses, each since it was its own. Raises Unavailable."""
        since, until = await self._span(question)
        own = {mailbox.address: mailbox.created_at} | {alias.address: alias.created_at for alias in aliases}
        span = since, until, *(question.before or (None, None))
        arguments = mailbox.id, list(own), list(own.values()), question.limit + 1
        found = await self._database.survey(SQL.trace_of_mailbox, *span, *arguments)
        return await self._paged(found, question, max(since, mailbox.created_at), until)

    async def _span(self, question: Question) -> tuple[datetime, datetime]:
        """What is asked for, within what is kept."""
        now = (await self._database.fetch("SELECT now()"))[0][0]
        oldest, newest = now - self._retention - _HOUR, now + _HOUR
        return max(question.since or oldest, oldest), min(question.until or newest, newest)

    async def _paged(
        self, found: Sequence[asyncpg.Record], question: Question, since: datetime, until: datetime
    ) -> Page:
        rows = found[: question.limit]
        last = rows[-1] if len(found) > question.limit else None
        items = [one for row in rows for one in _decisions(row) if question.verdict in (None, one.verdict)]
        counted = await self._database.survey(SQL.trace_unrecorded, since, until)
        return Page(items, (last["at"], last["id"]) if last else None, counted[0]["n"])


def _name(hour: datetime) -> str:
    return f"trace_{hour:%Y%m%d%H}"


def _off(ours: float, theirs: float) -> float:
    """What to add to our clock. Less than a second counts as nothing: it is mostly the time that asking took, and
    mailboxes are dated by nodes' clocks too, so that small corrections would put decisions before or after an owner."""
    return 0.0 if abs(theirs - ours) < _CLOSE else theirs - ours


def _columns(rows: Sequence[Row], now: float, off: float, first: int) -> list[Sequence[Any]]:
    """The columns that ``trace_write`` takes. What is rare is looked for a column at a time: this is half of what a row
    costs here."""
    at, rcpt_at, *texts, mailboxes, messages, replies, unrecorded = zip(*rows, strict=True)
    ends = [min(max(moment + off, now - _AGE_MAX), now + _CLOSE) for moment in at]
    accepted = [None if moment is None else moment + off for moment in rcpt_at]
    shown = [_scrubbed(column) for column in (*texts, replies)]
    return [ends, range(first, first + len(rows)), accepted, *shown[:-1], mailboxes, messages, shown[-1], unrecorded]


def _scrubbed(column: Sequence[str]) -> Sequence[str]:
    whole = "".join(column)
    if whole.isascii() and "\0" not in whole and max(map(len, column)) <= _LONGEST:
        return column
    return [scrubbed(text, _LONGEST) for text in column]


def _decisions(row: asyncpg.Record) -> list[Decision]:
    """What a row stands for, newest first: the end of a message, and the acceptance of its recipient before."""
    message = str(row["message_id"]) if row["message_id"] else None
    about = (row["client"], row["helo"], row["sender"], row["recipient"])
    last = Decision(row["at"], row["stage"], *about, row["reply"], row["node"], message, row["unrecorded"])
    if row["rcpt_at"] is None:
        return [last]
    return [last, Decision(row["rcpt_at"], "rcpt", *about, RCPT_TAKEN, row["node"])]
