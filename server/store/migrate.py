"""Migrations: numbered SQL files for each data domain, applied once each, in order, under a lock.

Lives here: finding, ordering, applying and reporting them. Must not know: what they create.

A file is ``migrations/<domain>/NNNN_{pre|post}_what.sql``. *pre* files only add, so the running release works on;
*post* files remove what the last release needed, and are applied once every process runs the new one. A domain's schema
holds its own ``schema_migrations``, so each domain can move to its own server.
"""

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from importlib.resources import files
from typing import TypeAlias

import asyncpg
import msgspec

from server.config import PREFIX
from server.store.pools import DOMAINS, TROUBLE, Connection, Domain

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record] | Connection"
_FILE = re.compile(r"(\d{4})_(pre|post)_(\w+)\.sql")
_AGAIN = 1.0  # s between two attempts to reach a database
_LOCK = 0x74656D70  # pg_advisory_lock key: one migrator at a time on a database


class MigrationError(Exception):
    """A migration cannot be applied; the text says which and why."""


class Migration(msgspec.Struct, frozen=True):
    domain: Domain
    number: int
    phase: str
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return sha256(self.text.encode()).hexdigest()


def available(domain: Domain) -> list[Migration]:
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


async def applied(connection: Session, domain: Domain) -> dict[int, str]:
    """Number → checksum of what the database has; empty when it has nothing yet."""
    if await connection.fetchval("SELECT to_regclass($1) IS NULL", f"{domain}.schema_migrations"):
        return {}
    rows = await connection.fetch(f"SELECT number, checksum FROM {domain}.schema_migrations")
    return {row["number"]: row["checksum"] for row in rows}


def outstanding(domain: Domain, have: dict[int, str], phases: Sequence[str]) -> list[Migration]:
    """What is to be applied; MigrationError when an applied file has been changed since, or the database is newer."""
    known = available(domain)
    for migration in known:
        if have.get(migration.number, migration.checksum) != migration.checksum:
            raise MigrationError(f"{domain}/{migration.name} was changed after it was applied; add a new file instead")
    if have and max(have) > len(known):
        raise MigrationError(
            f"the database's {domain} schema is at {max(have)}, newer than this release ({len(known)})"
        )
    todo = [migration for migration in known if migration.number not in have]
    stop = next((i for i, migration in enumerate(todo) if migration.phase not in phases), len(todo))
    return todo[:stop]


async def migrate(dsns: dict[Domain, str], phases: Sequence[str] = ("pre", "post")) -> list[Migration]:
    """Apply what is outstanding in every domain, each file in a transaction of its own; returns what was applied.

    MigrationError when a domain's database lets nobody in.
    """
    done: list[Migration] = []
    for domain in DOMAINS:
        try:
            connection = await asyncpg.connect(dsns[domain], timeout=10)
        except TROUBLE as error:
            raise _unreachable(domain, error) from error
        try:
            await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
            todo = outstanding(domain, await applied(connection, domain), phases)
            for migration in todo:
                await _apply(connection, migration)
                done.append(migration)
        finally:
            await connection.close()
    return done


def _unreachable(domain: Domain, error: BaseException) -> MigrationError:
    settings = f"{PREFIX}DATABASE_DSN or {PREFIX}DATABASE_{domain.upper()}_DSN"
    return MigrationError(f"no database for {domain} at {settings}: {str(error) or type(error).__name__}")


async def check(dsns: dict[Domain, str], patience: float, waiting: Callable[[str], None]) -> None:
    """Return once every domain's database can be worked with. One that does not answer may be starting: it is asked
    again for ``patience`` seconds, and ``waiting`` told why. MigrationError when that or anything else is in the way.
    """
    deadline = time.monotonic() + patience
    for domain in DOMAINS:
        said = False
        while True:
            try:
                await _check(dsns[domain], domain)
                break
            except (OSError, TimeoutError, asyncpg.CannotConnectNowError) as error:
                trouble = _unreachable(domain, error)
                if time.monotonic() >= deadline:
                    raise trouble from error
                if not said:
                    waiting(f"{trouble}; trying again for {patience:g} s")
                said = True
                await asyncio.sleep(_AGAIN)
            except TROUBLE as error:
                raise _unreachable(domain, error) from error


async def _check(dsn: str, domain: Domain) -> None:
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        require(await pending(connection, [domain]))
    finally:
        await connection.close()


def require(lacking: Sequence[str]) -> None:
    """MigrationError unless nothing of what ``pending`` found is lacking."""
    if lacking:
        raise MigrationError(f"the database lacks {', '.join(lacking)}: run `tempmail migrate`")


async def pending(connection: Session, domains: Iterable[Domain] = DOMAINS) -> list[str]:
    """File names of *pre* migrations that this release needs and the database lacks."""
    lacking = []
    for domain in domains:
        lacking += [f"{domain}/{m.name}" for m in outstanding(domain, await applied(connection, domain), ("pre",))]
    return lacking


async def _apply(connection: Session, migration: Migration) -> None:
    domain = migration.domain
    try:
        async with connection.transaction():
            await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {domain}")
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS {domain}.schema_migrations"
                " (number integer PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
            )
            await connection.execute(migration.text)
            await connection.execute(
                f"INSERT INTO {domain}.schema_migrations (number, checksum) VALUES ($1, $2)",
                migration.number,
                migration.checksum,
            )
    except asyncpg.PostgresError as error:
        raise MigrationError(f"{domain}/{migration.name}: {error}") from error
