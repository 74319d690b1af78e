"""Migrations: what they leave equals what schema.sql says, and they refuse what would corrupt."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

import server.store
from server.store import migrate
from server.store.embedded import EmbeddedPostgres
from server.store.pools import DOMAINS
from server.store.sql import SQL
from tests.integration.conftest import in_database

CATALOG = {
    "columns": """
        SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attstorage::text,
            pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE n.nspname IN ('users', 'mailboxes', 'messages') AND a.attnum > 0 AND NOT a.attisdropped
            AND c.relkind IN ('r', 'p')""",
    "indexes": """
        SELECT schemaname, indexname, indexdef FROM pg_indexes
        WHERE schemaname IN ('users', 'mailboxes', 'messages')""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace::regnamespace::text IN ('users', 'mailboxes', 'messages')""",
    "partitions": """
        SELECT c.oid::regclass::text, pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid), c.reloptions::text
        FROM pg_class c WHERE c.relnamespace::regnamespace::text IN ('users', 'mailboxes', 'messages')""",
}


async def described(dsn: str) -> dict[str, list[str]]:
    connection = await asyncpg.connect(dsn)
    try:
        return {name: sorted(repr(tuple(row)) for row in await connection.fetch(sql)) for name, sql in CATALOG.items()}
    finally:
        await connection.close()


def dsns(dsn: str) -> dict[migrate.Domain, str]:
    return dict.fromkeys(DOMAINS, dsn)


async def test_schema_file_and_replay_of_migrations_are_the_same(empty: str, postgres: EmbeddedPostgres) -> None:
    await migrate.migrate(dsns(empty))
    connection = await asyncpg.connect(postgres.dsn)
    await connection.execute("CREATE DATABASE from_schema")
    other = in_database(postgres.dsn, "from_schema")
    try:
        schema = await asyncpg.connect(other)
        await schema.execute((Path(server.store.__file__).parent / "schema.sql").read_text())
        await schema.close()
        assert await described(empty) == await described(other)
    finally:
        await connection.execute("DROP DATABASE from_schema")
        await connection.close()


async def test_every_statement_of_the_file_is_one_that_postgresql_takes(empty: str) -> None:
    await migrate.migrate(dsns(empty))
    connection = await asyncpg.connect(empty)
    for name, text in SQL.texts.items():
        try:
            await connection.prepare(text)
        except asyncpg.PostgresError as error:
            pytest.fail(f"{name}: {error}")
    await connection.close()


async def test_two_migrators_at_once_apply_each_file_once(empty: str) -> None:
    done = await asyncio.gather(*(migrate.migrate(dsns(empty)) for _ in range(4)))
    names = [f"{m.domain}/{m.name}" for ms in done for m in ms]
    assert sorted(names) == sorted({f"{d}/{m.name}" for d in DOMAINS for m in migrate.available(d)})


async def test_second_run_has_nothing_to_do(empty: str) -> None:
    await migrate.migrate(dsns(empty))
    assert await migrate.migrate(dsns(empty)) == []


async def test_changed_file_is_refused(empty: str) -> None:
    await migrate.migrate(dsns(empty))
    connection = await asyncpg.connect(empty)
    await connection.execute("UPDATE messages.schema_migrations SET checksum = 'other'")
    await connection.close()
    with pytest.raises(migrate.MigrationError, match="changed after it was applied"):
        await migrate.migrate(dsns(empty))


async def test_newer_database_is_refused(empty: str) -> None:
    await migrate.migrate(dsns(empty))
    connection = await asyncpg.connect(empty)
    await connection.execute("INSERT INTO users.schema_migrations (number, checksum) VALUES (9999, 'x')")
    await connection.close()
    with pytest.raises(migrate.MigrationError, match="newer than this release"):
        await migrate.migrate(dsns(empty))


async def test_pre_stops_before_the_first_post(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = [
        migrate.Migration("users", n, phase, f"{n:04}_{phase}_x.sql", "")
        for n, phase in enumerate(("pre", "post", "pre"), 1)
    ]
    monkeypatch.setattr(migrate, "available", lambda domain: chain)
    assert [m.number for m in migrate.outstanding("users", {}, ("pre",))] == [1]
    assert [m.number for m in migrate.outstanding("users", {}, ("pre", "post"))] == [1, 2, 3]
