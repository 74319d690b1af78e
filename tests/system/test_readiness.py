"""/health/ready against real trouble: a full disk, a read-only or hung PostgreSQL, no Redis, a hung worker."""

import asyncio
import os
import signal
import smtplib
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import asyncpg
import pytest

from server.store import migrate
from server.store.embedded import EmbeddedPostgres, running_dsn
from server.store.pools import SCHEMAS, Schema
from tests.running import Box, Server, lasting
from tests.standby import as_superuser
from tests.system.test_redis import Redis, broker

__all__ = ["broker"]

OwnServer = Callable[..., Server]


class Found(NamedTuple):
    code: int
    status: str
    checks: dict[str, str]


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield session


async def ready(client: aiohttp.ClientSession, server: Server) -> Found:
    async with client.get(f"{server.http}/health/ready") as response:
        answer: dict[str, Any] = await response.json()
        return Found(response.status, answer["status"], answer["checks"])


async def until(
    client: aiohttp.ClientSession, server: Server, done: Callable[[Found], bool], seconds: float = 120
) -> Found:
    async with asyncio.timeout(seconds):
        while True:
            found = await ready(client, server)
            if done(found):
                return found
            await asyncio.sleep(0.2)


async def alive(client: aiohttp.ClientSession, server: Server) -> bool:
    async with client.get(f"{server.http}/health/live") as response:
        return response.status == 200


async def code(server: Server, box: Box) -> int:
    """What a message is answered with."""
    try:
        await server.deliver(box)
    except smtplib.SMTPResponseException as error:
        return error.smtp_code
    return 250


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m,mode=755", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take what is left, to the last page."""
    path = folder / "filler"
    with open(path, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\1" * (1 << 20))
    with open(path, "ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\1" * 4096)
    return path


async def test_full_disk_takes_the_node_away_for_as_long_as_it_lasts(
    own_server: OwnServer, small_disk: Path, client: aiohttp.ClientSession
) -> None:
    server = own_server(DATA_DIR=str(small_disk / "data"))
    box = await server.mailbox()
    assert await code(server, box) == 250
    assert (await ready(client, server)).status == "ok"
    filler = fill(small_disk)
    async with asyncio.timeout(60):  # free pages that mail may still find
        while [await code(server, box) for _ in range(4)] != [451] * 4:
            pass
    found = await until(client, server, lambda found: found.code == 503)  # findings are up to a second old
    assert found.status == "unavailable"
    assert "the disk is full" in found.checks["commits"]
    assert await alive(client, server)
    # no mail any more: what was refused is forgotten, and a write of the node's own has to tell
    found = await until(client, server, lambda found: "write was refused" in found.checks["commits"])
    assert (found.code, "the disk is full" in found.checks["commits"]) == (503, True)
    filler.unlink()
    found = await until(client, server, lambda found: found.code == 200)
    assert found.checks["commits"] == "ok"
    assert await code(server, box) == 250
    assert (server.log.count("storage lost"), server.log.count("storage is back")) == (1, 1)
    assert '"storage lost; the database answers and stores nothing: mail is answered 451"' in server.log
    assert server.log.count('"commit failed"') <= 4, "one or two of each worker before the outage was believed"
    assert server.stop() == 0


async def test_no_worker_says_503_once_another_has_said_that_the_node_is_ready(
    own_server: OwnServer, client: aiohttp.ClientSession
) -> None:
    """Asked all the time while the workers start and when one is replaced, over connections of either."""
    server = own_server(**lasting())
    assert server.stop() == 0
    starting = asyncio.create_task(asyncio.to_thread(server.start))
    found: list[Found] = []
    async with asyncio.timeout(120):
        while not starting.done() or len([one for one in found if one.code == 200]) < 40:
            with suppress(aiohttp.ClientError):
                found.append(await ready(client, server))
            await asyncio.sleep(0.03)
    await starting
    first = next(nth for nth, one in enumerate(found) if one.code == 200)
    assert {one.code for one in found[first:]} == {200}, [one.checks for one in found[first:] if one.code != 200]
    assert server.stop() == 0


async def test_read_only_database_takes_the_node_away_and_comes_back(
    own_server: OwnServer, client: aiohttp.ClientSession
) -> None:
    server = own_server()
    dsn = running_dsn(server.folder / "data")
    assert dsn
    admin = await asyncpg.connect(as_superuser(dsn))
    try:
        await admin.execute("SET default_transaction_read_only = off")
        await admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await admin.execute("SELECT pg_reload_conf()")
        for part in ("database", "commits"):
            found = await until(client, server, lambda found, part=part: "read-only" in found.checks[part])
            assert (found.code, found.status) == (503, "unavailable")
        assert await alive(client, server)
        await admin.execute("ALTER SYSTEM RESET default_transaction_read_only")
        await admin.execute("SELECT pg_reload_conf()")
        await until(client, server, lambda found: found.status == "ok")
    finally:
        await admin.close()


async def test_database_that_does_not_answer_takes_the_node_away_and_is_named(
    own_server: OwnServer, client: aiohttp.ClientSession
) -> None:
    server = own_server()
    with server.database_suspended():
        silent = "users, mailboxes, messages: no answer in time"
        found = await until(client, server, lambda found: found.checks["database"] == silent)
        assert (found.code, found.status) == (503, "unavailable")
        others = [await ready(client, server) for _ in range(8)]  # of either worker
        assert {one.code for one in others} == {503}
        assert await alive(client, server)
    await until(client, server, lambda found: found.status == "ok")


async def test_probe_leaves_nothing_behind_and_a_dump_does_not_block_it(
    own_server: OwnServer, client: aiohttp.ClientSession
) -> None:
    server = own_server()
    dsn = running_dsn(server.folder / "data")
    assert dsn
    dump = await asyncpg.connect(dsn)
    try:
        tables = "SELECT relname FROM pg_class WHERE relnamespace = 'messages'::regnamespace AND relkind IN ('r', 'p')"
        async with dump.transaction(isolation="repeatable_read"):  # as pg_dump holds them
            for row in await dump.fetch(tables):
                await dump.execute(f'LOCK TABLE messages."{row["relname"]}" IN ACCESS SHARE MODE')
            for _ in range(3):
                assert (await ready(client, server)).checks["commits"] == "ok"
                await asyncio.sleep(4)
        assert not [row for row in await dump.fetch(tables) if "probe" in row["relname"]]
    finally:
        await dump.close()


async def test_redis_away_never_takes_the_node_away_and_is_back_once(
    own_server: OwnServer, broker: Redis, client: aiohttp.ClientSession
) -> None:
    server = own_server(REDIS_URL=f"redis://127.0.0.1:{broker.port}/0")
    await until(client, server, lambda found: found.status == "ok")
    for stop, start in (
        (broker.stop, broker.start),
        (lambda: broker.process.send_signal(signal.SIGSTOP), lambda: broker.process.send_signal(signal.SIGCONT)),
    ):
        lost = server.log.count("Redis lost")
        stop()
        gone: list[Found] = []
        async with asyncio.timeout(120):
            while not (gone and gone[-1].checks["bus"].startswith("degraded: readers poll; ")):
                gone.append(await ready(client, server))
                await asyncio.sleep(0.2)
        assert gone[-1].status == "degraded"
        gone += [await ready(client, server) for _ in range(12) if not await asyncio.sleep(0.25)]
        assert [found for found in gone if found.code != 200] == []
        start()
        async with asyncio.timeout(120):  # in both workers
            while server.log.count("Redis is back") < server.log.count("Redis lost"):
                await asyncio.sleep(0.1)
        back = [await ready(client, server) for _ in range(16) if not await asyncio.sleep(0.25)]
        assert {(found.code, found.checks["bus"]) for found in back} == {(200, "ok")}
        assert server.log.count("Redis lost") == lost + 1  # once for all workers


async def test_worker_that_hangs_takes_the_node_away_until_it_is_well(
    own_server: OwnServer, client: aiohttp.ClientSession
) -> None:
    server = own_server()
    hung = server.workers()[0]
    os.kill(hung.pid, signal.SIGSTOP)

    async def asked() -> Found:
        """By a connection that the other worker has: it is for the kernel to choose."""
        async with asyncio.timeout(120):
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(5):
                        return await ready(client, server)

    try:
        async with asyncio.timeout(120):
            while (found := await asked()).code == 200:
                await asyncio.sleep(0.2)
        assert found.checks["workers"] == "1 of 2 serve"
    finally:
        os.kill(hung.pid, signal.SIGCONT)
    await until(client, server, lambda found: found.status == "ok")


async def test_metric_tells_of_each_part_though_nobody_asks(
    own_server: OwnServer, broker: Redis, client: aiohttp.ClientSession
) -> None:
    server = own_server(REDIS_URL=f"redis://127.0.0.1:{broker.port}/0")

    async def figures() -> dict[str, str]:
        async with client.get(f"{server.http}/metrics") as response:
            lines = (await response.text()).splitlines()
        pairs = [
            line.removeprefix('tempmail_health{check="').split('"} ') for line in lines if "tempmail_health{" in line
        ]
        return {name: value for name, value, *_ in pairs}

    async def become(name: str, value: str) -> None:
        async with asyncio.timeout(120):
            while (await figures()).get(name) != value:
                await asyncio.sleep(0.5)

    await become("bus", "0.0")
    assert set(await figures()) == {"workers", "database", "migrations", "commits", "bus", "clock"}
    broker.stop()
    await become("bus", "1.0")
    assert '"node is degraded"' in server.log


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A second PostgreSQL."""
    running = EmbeddedPostgres(tmp_path / "second", max_connections=50)
    running.start()
    yield running
    running.stop()


@pytest.mark.parametrize(("schema", "wanted"), [("users", "degraded"), ("mailboxes", "unavailable")])
async def test_only_the_servers_that_mail_needs_take_the_node_away(
    own_server: OwnServer, cluster: EmbeddedPostgres, client: aiohttp.ClientSession, schema: Schema, wanted: str
) -> None:
    own = own_server(WORKERS="1")
    dsn = running_dsn(own.folder / "data")
    assert dsn
    dsns: dict[Schema, str] = dict.fromkeys(SCHEMAS, dsn)
    await migrate.migrate(dsns | {schema: cluster.dsn})
    split = {"DATABASE_DSN": dsn, f"DATABASE_{schema.upper()}_DSN": cluster.dsn}
    server = own_server(**split, SERVER_HOST="127.0.0.1", RATE_LIMIT_EXEMPT="127.0.0.0/8")
    box = await server.mailbox()
    await until(client, server, lambda found: found.status == "ok")
    cluster.stop()
    found = await until(client, server, lambda found: found.checks["database"] != "ok")
    found = await until(client, server, lambda found: found.status == wanted)
    assert found.code == (200 if wanted == "degraded" else 503)
    assert f"{schema}: " in found.checks["database"]
    if wanted == "degraded":  # and that is true
        await server.deliver(box, subject="without accounts")
        assert [item["subject"] for item in await server.messages(box)] == ["without accounts"]
    assert server.stop() == 0
