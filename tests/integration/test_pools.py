"""Connections to PostgreSQL come to an end of their own: none outlives its setting, and nobody who asks notices."""

import asyncio

from server import config as configuration
from server.config import Config
from server.store.pools import Database, Pools


async def backend(database: Database) -> int:
    (row,) = await database.fetch("SELECT pg_backend_pid() AS pid")
    return int(row["pid"])


async def test_no_connection_outlives_its_setting(settings: Config) -> None:
    short = {"TEMPMAIL_DATABASE_DSN": settings.dsn("messages"), "TEMPMAIL_DATABASE_CONN_MAX_LIFETIME": "100ms"}
    pools = await Pools.open(configuration.load(short))
    try:
        for database in (pools.messages, pools.arrivals):
            first = await backend(database)
            async with asyncio.timeout(20):
                while await backend(database) == first:
                    await asyncio.sleep(0.01)
    finally:
        await pools.close()


async def test_what_is_under_way_ends_on_the_connection_it_began_on(settings: Config) -> None:
    short = {"TEMPMAIL_DATABASE_DSN": settings.dsn("messages"), "TEMPMAIL_DATABASE_CONN_MAX_LIFETIME": "50ms"}
    pools = await Pools.open(configuration.load(short))
    try:
        for database in (pools.messages, pools.arrivals):
            async with database.connection() as connection, connection.transaction():
                first = await connection.fetchval("SELECT pg_backend_pid()")
                await asyncio.sleep(0.3)
                assert await connection.fetchval("SELECT pg_backend_pid()") == first
    finally:
        await pools.close()
