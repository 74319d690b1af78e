"""Migrations: numbered SQL files for each data domain, applied once each, in order, under a lock.

Lives here: finding, ordering, applying and reporting them. Must not know: what they create.

A file is ``migrations/<domain>/NNNN_{pre|post}_what.sql``. *pre* files only add, so the running release works on;
*post* files remove what the last release needed, and are applied once every process runs the new one. A domain's schema
holds its own record of them, so each domain can move to its own server.

A release works on the schema of a newer one as long as only *pre* files are newer: it starts, rolls and recovers, and
an upgrade can be taken back. Hence two tables. ``schema_changes`` records every file with its phase. Release 0.1.0
reads ``schema_migrations`` alone and refuses any number beyond its own there: so that holds what 0.1.0 brought and
every *post* file, and no newer *pre* file.
"""

import asyncio
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Final, TypeAlias

import asyncpg
import msgspec

from server.config.dsn import each, place
from server.config.settings import PREFIX
from server.primary import NEXT, connect
from server.store.pools import DATABASE_ERRORS, SCHEMAS, Connection, Schema

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record] | Connection"
_FILE = re.compile(r"(\d{4})_(pre|post)_(\w+)\.sql")
_OF_0_1_0: Final[dict[Schema, int]] = {"users": 5, "mailboxes": 4, "messages": 9}
"""The last number that release 0.1.0 knows of each domain."""

# s that a file waits for a lock: all who come after it wait behind it. It is well below PostgreSQL's deadlock_timeout
# (1 s), so that a file that has met a statement crosswise gives way, and never the statement.
_LOCK_TIMEOUT: Final = 0.2
_PATIENCE: Final = 60.0  # s that it is tried again, when a dump or a long query holds what it needs
_AGAIN = 1.0  # s between two attempts to reach a database
_LOCK = 0x74656D70  # pg_advisory_lock key: one migrator at a time on a database


class MigrationError(Exception):
    """A migration cannot be applied; the text says which and why."""


class Applied(msgspec.Struct, frozen=True):
    """What the database has of a file. ``phase`` is "" where only 0.1.0's table has it."""

    checksum: str
    phase: str = ""


class Migration(msgspec.Struct, frozen=True):
    domain: Schema
    number: int
    phase: str
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return sha256(self.text.encode()).hexdigest()


def available(domain: Schema) -> list[Migration]:
    """The domain's migrations in order; MigrationError when a file is misnamed or numbers repeat or leave a hole."""
    found = []
    for file in files("server.store").joinpath("migrations", domain).iterdir():
        match = _FILE.fullmatch(file.name)
        if match is None:
            raise MigrationError(f"{domain}/{file.name} is not named NNNN_pre_what.sql or NNNN_post_what.sql")
        found.append(Migration(domain, int(match[1]), match[2], file.name, file.read_text("utf-8")))
    found.sort(key=lambda migration: migration.number)
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"the numbers of {domain}'s migrations do not run 1, 2, 3 ...")
    return found


async def applied(connection: Session, domain: Schema) -> dict[int, Applied]:
    """Number → what the database has; empty when it has nothing yet."""
    columns = {f"{domain}.schema_changes": "phase", f"{domain}.schema_migrations": "''"}
    asked = "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NOT NULL"
    tables = [row["name"] for row in await connection.fetch(asked, list(columns))]
    if not tables:
        return {}
    rows = await connection.fetch(
        " UNION ALL ".join(f"SELECT number, checksum, {columns[table]} AS phase FROM {table}" for table in tables)
    )
    phases = {row["number"]: row["phase"] for row in rows if row["phase"]}
    in_order = sorted(rows, key=lambda row: not row["phase"])  # what 0.1.0 checks as well is believed first
    return {row["number"]: Applied(row["checksum"], phases.get(row["number"], "")) for row in in_order}


def outstanding(domain: Schema, have: Mapping[int, Applied], phases: Sequence[str]) -> list[Migration]:
    """What is to be applied, in order; all of it to a database that has nothing, whatever the ``phases``.

    MigrationError when an applied file has been changed since, when the database is newer by more than *pre* files, or
    when a *pre* file would have to overtake a *post* file that is not to be applied.
    """
    known = available(domain)
    for migration in known:
        if migration.number in have and have[migration.number].checksum != migration.checksum:
            raise MigrationError(f"{domain}/{migration.name} was changed after it was applied; add a new file instead")
    newer = [number for number, one in have.items() if number > len(known) and one.phase != "pre"]
    if newer:
        raise MigrationError(
            f"the database's {domain} schema is at {max(newer)}, newer than this release ({len(known)}), and no longer"
            " what this release can work with: start the release that migrated it"
        )
    todo = [migration for migration in known if migration.number not in have]
    if not have:
        return todo
    stop = next((i for i, migration in enumerate(todo) if migration.phase not in phases), len(todo))
    late = next((migration for migration in todo[stop:] if migration.phase in phases), None)
    if late:
        raise MigrationError(
            f"{domain}/{late.name} comes after {todo[stop].name}, which ends the upgrade before this one: run `tempmail"
            " migrate` of the release that runs now, once every node runs it"
        )
    return todo[:stop]


async def migrate(
    dsns: dict[Schema, str],
    phases: Sequence[str] = ("pre", "post"),
    waiting: Callable[[str], None] = lambda _: None,
    patience: float = _PATIENCE,
) -> list[Migration]:
    """Apply what is outstanding in every domain, each file in a transaction of its own; returns what was applied.

    A file whose lock is held is tried again for ``patience`` seconds, and ``waiting`` told. MigrationError when that is
    over, or a domain's database lets nobody in.
    """
    done: list[Migration] = []
    for domain in SCHEMAS:
        try:
            connection = await connect(dsns[domain], timeout=10)
        except DATABASE_ERRORS as error:
            raise _unreachable(domain, dsns[domain], error) from error
        try:
            await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
            todo = outstanding(domain, await applied(connection, domain), phases)
            for migration in todo:
                await _persist(connection, migration, waiting, patience)
                done.append(migration)
        finally:
            await connection.close()
    return done


def _misspelt(error: BaseException, dsn: str) -> bool:
    """Whether there is no such host, and no other one to try: waiting would not help."""
    unknown = isinstance(error, socket.gaierror) and error.errno in (socket.EAI_NONAME, socket.EAI_NODATA)
    return unknown and len(each(dsn)) == 1


def _unreachable(domain: Schema, dsn: str, error: BaseException) -> MigrationError:
    settings = f"{PREFIX}DATABASE_DSN or {PREFIX}DATABASE_{domain.upper()}_DSN"
    why = str(error) or type(error).__name__
    if _misspelt(error, dsn):
        why = "DNS knows no such host; is it spelt right?"
    return MigrationError(f"no database for {domain} at {place(dsn)} ({settings}): {why}")


async def check(dsns: dict[Schema, str], patience: float, waiting: Callable[[str], None]) -> None:
    """Return once every domain's database can be worked with. One that does not answer may be starting: it is asked
    again for ``patience`` seconds, and ``waiting`` told why. MigrationError when that or anything else is in the way.
    """
    deadline = time.monotonic() + patience
    for domain in SCHEMAS:
        said = False
        while True:
            try:
                await _check(dsns[domain], domain)
                break
            except NEXT as error:
                trouble = _unreachable(domain, dsns[domain], error)
                if _misspelt(error, dsns[domain]):
                    raise trouble from error
                if time.monotonic() >= deadline:
                    raise trouble from error
                if not said:
                    waiting(f"{trouble}; trying again for {patience:g} s")
                said = True
                await asyncio.sleep(_AGAIN)
            except DATABASE_ERRORS as error:
                raise _unreachable(domain, dsns[domain], error) from error


async def _check(dsn: str, domain: Schema) -> None:
    connection = await connect(dsn, timeout=5)
    try:
        require(await pending(connection, [domain]))
    finally:
        await connection.close()


def require(lacking: Sequence[str]) -> None:
    """MigrationError unless nothing of what ``pending`` found is lacking."""
    if lacking:
        raise MigrationError(f"the database lacks {', '.join(lacking)}: run `tempmail migrate`")


async def pending(connection: Session, domains: Iterable[Schema] = SCHEMAS) -> list[str]:
    """File names of *pre* migrations that this release needs and the database lacks."""
    lacking = []
    for domain in domains:
        lacking += [f"{domain}/{m.name}" for m in outstanding(domain, await applied(connection, domain), ("pre",))]
    return lacking


async def _persist(connection: Session, migration: Migration, waiting: Callable[[str], None], patience: float) -> None:
    """Apply the file without ever holding up the mail for longer than ``_LOCK_TIMEOUT``."""
    deadline, said = time.monotonic() + patience, False
    while True:
        try:
            await _apply(connection, migration)
            return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            held = f"{migration.domain}/{migration.name} waits for a table that another session holds (a dump?)"
            if time.monotonic() >= deadline:
                raise MigrationError(f"{held}: run it again later; nothing of it was applied") from error
            if not said:
                waiting(held)
            said = True
        except asyncpg.PostgresError as error:
            raise MigrationError(f"{migration.domain}/{migration.name}: {error}") from error
        await asyncio.sleep(_AGAIN)


async def _apply(connection: Session, migration: Migration) -> None:
    domain, number = migration.domain, migration.number
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = {round(_LOCK_TIMEOUT * 1000)}")
        await connection.execute(_RECORDS.format(domain=domain))
        await connection.execute(migration.text)
        await connection.execute(
            f"INSERT INTO {domain}.schema_changes (number, phase, name, checksum) VALUES ($1, $2, $3, $4)",
            *(number, migration.phase, migration.name, migration.checksum),
        )
        if migration.phase == "post" or number <= _OF_0_1_0[domain]:
            await connection.execute(
                f"INSERT INTO {domain}.schema_migrations (number, checksum) VALUES ($1, $2)", number, migration.checksum
            )


_RECORDS: Final = """CREATE SCHEMA IF NOT EXISTS {domain};
CREATE TABLE IF NOT EXISTS {domain}.schema_migrations
    (number integer PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE IF NOT EXISTS {domain}.schema_changes (number integer PRIMARY KEY, phase text NOT NULL, name text NOT NULL,
    checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());"""
