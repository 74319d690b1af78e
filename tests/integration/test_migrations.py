"""Migrations: what they leave equals what schema.sql says, and they refuse what would corrupt."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

import server.store
from server.store import migrate
from server.store.embedded import EmbeddedPostgres
from server.store.pools import SCHEMAS
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


def dsns(dsn: str) -> dict[migrate.Schema, str]:
    return dict.fromkeys(SCHEMAS, dsn)


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
    assert sorted(names) == sorted({f"{d}/{m.name}" for d in SCHEMAS for m in migrate.available(d)})


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


def next_release(monkeypatch: pytest.MonkeyPatch, *phases: str) -> list[migrate.Migration]:
    """Further migrations of the users domain, as the release after this one may bring."""
    known = {domain: migrate.available(domain) for domain in SCHEMAS}
    chain = list(known["users"])
    for phase in phases:
        number = len(chain) + 1
        text = f"ALTER TABLE users.users ADD COLUMN extra_{number} text"
        chain.append(migrate.Migration("users", number, phase, f"{number:04}_{phase}_x.sql", text))
    monkeypatch.setattr(migrate, "available", lambda domain: chain if domain == "users" else known[domain])
    return chain[len(known["users"]) :]


async def test_pre_migrations_of_the_next_release_are_no_reason_to_refuse(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate.migrate(dsns(empty))
    with monkeypatch.context() as newer:
        added = next_release(newer, "pre", "pre", "post")
        assert await migrate.migrate(dsns(empty), ("pre",)) == added[:2]
    connection = await asyncpg.connect(empty)
    try:
        assert await migrate.pending(connection) == []
        assert await migrate.migrate(dsns(empty)) == []  # going back, too
        rows = await connection.fetch("SELECT number, phase FROM users.schema_changes ORDER BY number DESC LIMIT 2")
        assert [tuple(row) for row in rows] == [(added[1].number, "pre"), (added[0].number, "pre")]
        with monkeypatch.context() as newer:
            next_release(newer, "pre", "pre", "post")
            assert await migrate.migrate(dsns(empty)) == added[2:]
        with pytest.raises(migrate.MigrationError, match=r"users schema is at .*newer than this release"):
            await migrate.pending(connection)
    finally:
        await connection.close()


async def test_the_release_that_knew_one_table_alone_sees_no_pre_migration_newer_than_itself(empty: str) -> None:
    """0.1.0 read schema_migrations and refused every number beyond its own."""
    await migrate.migrate(dsns(empty))
    connection = await asyncpg.connect(empty)
    for domain, last in {"users": 5, "mailboxes": 4, "messages": 9}.items():
        rows = await connection.fetch(f"SELECT number, checksum FROM {domain}.schema_migrations ORDER BY number")
        first = migrate.available(domain)[:last]  # type: ignore[arg-type]
        posts = [m for m in migrate.available(domain)[last:] if m.phase == "post"]  # type: ignore[arg-type]
        assert [tuple(row) for row in rows] == [(m.number, m.checksum) for m in first + posts]
    await connection.close()


async def test_a_database_of_the_release_before_is_brought_on_and_keeps_its_record(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_0_1_0: dict[migrate.Schema, int] = {"users": 5, "mailboxes": 4, "messages": 9}
    now = {domain: migrate.available(domain) for domain in SCHEMAS}
    with monkeypatch.context() as older:
        older.setattr(migrate, "available", lambda domain: now[domain][: of_0_1_0[domain]])
        await migrate.migrate(dsns(empty))
    connection = await asyncpg.connect(empty)
    for domain in SCHEMAS:
        await connection.execute(f"DROP TABLE {domain}.schema_changes")  # which 0.1.0 did not make
    lacking = [f"{domain}/{m.name}" for domain in SCHEMAS for m in now[domain][of_0_1_0[domain] :]]
    assert await migrate.pending(connection) == lacking
    assert [f"{m.domain}/{m.name}" for m in await migrate.migrate(dsns(empty), ("pre",))] == lacking
    assert await migrate.pending(connection) == []
    await connection.close()


async def test_a_pre_migration_does_not_overtake_the_end_of_the_upgrade_before(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate.migrate(dsns(empty))
    added = next_release(monkeypatch, "post", "pre")
    connection = await asyncpg.connect(empty)
    for asked in (migrate.migrate(dsns(empty), ("pre",)), migrate.pending(connection)):
        with pytest.raises(migrate.MigrationError, match=f"{added[1].name} comes after {added[0].name}"):
            await asked
    await connection.close()
    assert await migrate.migrate(dsns(empty)) == added


async def test_pre_brings_everything_to_a_database_that_has_nothing(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = next_release(monkeypatch, "post", "pre")
    assert (await migrate.migrate(dsns(empty), ("pre",)))[-1:] == migrate.available("messages")[-1:]
    connection = await asyncpg.connect(empty)
    assert await connection.fetchval("SELECT max(number) FROM users.schema_changes") == added[-1].number
    await connection.close()


async def test_a_table_that_a_dump_holds_is_waited_for_without_holding_up_others(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ALTER TABLE that waits for a lock makes everybody who comes after it wait, too."""
    await migrate.migrate(dsns(empty))
    added = next_release(monkeypatch, "pre")
    dump, other = await asyncpg.connect(empty), await asyncpg.connect(empty, command_timeout=60)
    holding = dump.transaction()
    await holding.start()
    await dump.execute("LOCK TABLE users.users IN ACCESS SHARE MODE")
    said: list[str] = []
    with pytest.raises(migrate.MigrationError, match="run it again later"):
        await migrate.migrate(dsns(empty), ("pre",), said.append, patience=0)
    migrating = asyncio.create_task(migrate.migrate(dsns(empty), ("pre",), said.append))
    while not said:
        await asyncio.sleep(0.01)
        await other.fetchval("SELECT count(*) FROM users.users")
    assert "another session holds" in said[0]
    await holding.rollback()
    assert await migrating == added
    await dump.close()
    await other.close()


async def test_a_statement_that_meets_a_migration_crosswise_is_not_the_one_that_fails(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for what the other holds: PostgreSQL ends the one that has waited for a second."""
    await migrate.migrate(dsns(empty))
    known = {domain: migrate.available(domain) for domain in SCHEMAS}
    number = len(known["users"]) + 1
    text = (
        "ALTER TABLE users.users ADD COLUMN x text; SELECT pg_sleep(0.3); ALTER TABLE users.api_keys ADD COLUMN x text"
    )
    added = migrate.Migration("users", number, "pre", f"{number:04}_pre_x.sql", text)
    chain = [*known["users"], added]
    monkeypatch.setattr(migrate, "available", lambda domain: chain if domain == "users" else known[domain])
    other, looking = await asyncpg.connect(empty), await asyncpg.connect(empty)
    held = "SELECT count(*) FROM pg_locks WHERE relation = 'users.users'::regclass AND mode = 'AccessExclusiveLock'"
    async with other.transaction():
        await other.fetch("SELECT FROM users.api_keys")
        migrating = asyncio.create_task(migrate.migrate(dsns(empty), ("pre",)))
        while not await looking.fetchval(held):
            await asyncio.sleep(0.005)
        await other.fetch("SELECT FROM users.users")
    assert await migrating == [added]
    await other.close()
    await looking.close()


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
    have = {1: migrate.Applied(chain[0].checksum, "pre")}
    assert [m.number for m in migrate.outstanding("users", have, ("pre", "post"))] == [2, 3]
    monkeypatch.setattr(migrate, "available", lambda domain: chain[:2])
    assert migrate.outstanding("users", have, ("pre",)) == []
