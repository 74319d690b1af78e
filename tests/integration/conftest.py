"""A real PostgreSQL for the tests of the store, and a migrated database of their own for each."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from server.config import settings as configuration
from server.config.settings import Config
from server.store import migrate
from server.store.embedded import EmbeddedPostgres
from server.store.pools import SCHEMAS, Pools


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    cluster = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), max_connections=100)
    cluster.start()
    yield cluster
    cluster.stop()


def in_database(dsn: str, name: str) -> str:
    """``dsn`` with another database."""
    parts = urlsplit(dsn)
    assert parse_qs(parts.query)["host"]
    return f"postgresql:///{name}?{parts.query}"


@pytest.fixture
async def empty(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The DSN of a database with nothing in it."""
    name = f"test_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(postgres.dsn)
    await connection.execute(f"CREATE DATABASE {name}")
    yield in_database(postgres.dsn, name)
    await drop(connection, name)
    await connection.close()


async def drop(connection: asyncpg.Connection, name: str) -> None:
    """Drop the database; an autovacuum worker in it, which only a superuser may end, is waited for."""
    deadline = time.monotonic() + 60
    while True:
        try:
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        except asyncpg.InsufficientPrivilegeError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        else:
            return


@pytest.fixture
async def settings(empty: str) -> Config:
    """A configuration whose database is migrated."""
    await migrate.migrate(dict.fromkeys(SCHEMAS, empty))
    return configuration.load({"TEMPMAIL_DATABASE_DSN": empty, "TEMPMAIL_DATABASE_MAX_OPEN_CONNS": "30"})


@pytest.fixture
async def pools(settings: Config) -> AsyncIterator[Pools]:
    opened = await Pools.open(settings)
    yield opened
    await opened.close()
