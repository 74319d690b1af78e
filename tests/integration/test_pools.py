"""Connections to PostgreSQL: none outlives its setting, a few are kept at hand, and nobody who asks notices."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from server.config import settings as configuration
from server.config.settings import Config
from server.model.errors import Unavailable
from server.store.pools import Database, Pools


async def backend(database: Database) -> int:
    (row,) = await database.fetch("SELECT pg_backend_pid() AS pid")
    return int(row["pid"])


async def test_no_connection_outlives_its_setting(settings: Config) -> None:
    short = {"TEMPMAIL_DATABASE_DSN": settings.dsn("messages"), "TEMPMAIL_DATABASE_CONN_MAX_LIFETIME": "100ms"}
    pools = await Pools.open(configuration.load(short))
    try:
        for database in (pools.messages, pools.arrivals, pools.pages):
            first = await backend(database)
            async with asyncio.timeout(60):
                while await backend(database) == first:
                    await asyncio.sleep(0.01)
    finally:
        await pools.close()


async def test_what_is_under_way_ends_on_the_connection_it_began_on(settings: Config) -> None:
    short = {"TEMPMAIL_DATABASE_DSN": settings.dsn("messages"), "TEMPMAIL_DATABASE_CONN_MAX_LIFETIME": "50ms"}
    pools = await Pools.open(configuration.load(short))
    try:
        for database in (pools.messages, pools.arrivals, pools.pages):
            async with database.connection() as connection, connection.transaction():
                first = await connection.fetchval("SELECT pg_backend_pid()")
                await asyncio.sleep(0.3)
                assert await connection.fetchval("SELECT pg_backend_pid()") == first
    finally:
        await pools.close()


@pytest.fixture
async def pools(settings: Config) -> AsyncIterator[Pools]:
    opened = await Pools.open(configuration.load({"TEMPMAIL_DATABASE_DSN": settings.dsn("messages")}))
    yield opened
    await opened.close()


async def test_a_connection_that_was_given_back_is_at_hand_and_one_that_is_not_needed_goes(pools: Pools) -> None:
    database, lender = pools.messages, pools.messages.lender
    first = await backend(database)
    assert await backend(database) == first
    idle = lender.pool.get_idle_size()
    assert idle < lender.pool.get_size()  # it is not with the pool
    await lender.rest()  # it was needed since the last look, if there was one
    await lender.rest()
    assert lender.pool.get_idle_size() == lender.pool.get_size()


async def test_a_connection_whose_statement_failed_or_was_given_up_is_not_kept(pools: Pools) -> None:
    database, lender = pools.messages, pools.messages.lender
    with pytest.raises(Unavailable):
        await database.fetch("SELECT 1 / 0")
    assert lender.pool.get_idle_size() == lender.pool.get_size()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await database.fetch("SELECT pg_sleep(60)")
    assert lender.pool.get_idle_size() == lender.pool.get_size()
    async with database.connection() as connection:
        await connection.execute("BEGIN")  # and left open
    assert lender.pool.get_idle_size() == lender.pool.get_size()
    async with database.connection() as connection:
        assert not connection.is_in_transaction()


async def test_nobody_waits_for_what_is_at_hand(pools: Pools) -> None:
    database = pools.messages
    await asyncio.gather(*(database.fetch("SELECT pg_sleep(0.001)") for _ in range(10)))
    most = database.lender.pool.get_max_size()
    async with asyncio.timeout(60):
        for _ in range(3):
            found = await asyncio.gather(*(database.fetch("SELECT pg_sleep(0.001)") for _ in range(10 * most)))
            assert len(found) == 10 * most


async def test_a_connection_that_broke_while_at_hand_is_not_lent(pools: Pools) -> None:
    database = pools.messages
    pid = await backend(database)
    async with database.connection() as held, database.connection() as other:
        assert await held.fetchval("SELECT pg_backend_pid()") == pid
        await other.execute("SELECT pg_terminate_backend($1)", pid)
    async with asyncio.timeout(60):
        while True:
            try:
                assert await backend(database) != pid
                break
            except Unavailable:  # the news of its end may be under way still
                await asyncio.sleep(0.01)
