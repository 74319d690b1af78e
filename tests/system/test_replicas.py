"""Promise 5 with reads on a streaming replica: late, paused, killed, revived or hung, nobody sees an older state."""

import asyncio
import random
import re
import signal
from collections.abc import Callable, Iterator

import aiohttp
import pytest

from server.store import migrate
from server.store.embedded import EmbeddedPostgres
from server.store.pools import SCHEMAS
from tests.running import Box, Server
from tests.standby import Standby

WORKERS = 3


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    cluster = EmbeddedPostgres(tmp_path_factory.mktemp("primary"), max_connections=100)
    cluster.start()
    asyncio.run(migrate.migrate(dict.fromkeys(SCHEMAS, cluster.dsn)))
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def standby(primary: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standby]:
    """Every commit shows there 150 ms late: who reads it too early is caught each time."""
    replica = Standby(primary, tmp_path_factory.mktemp("standby"), recovery_min_apply_delay="150ms").start()
    yield replica
    replica.remove()


@pytest.fixture
def server(own_server: Callable[..., Server], primary: EmbeddedPostgres, standby: Standby) -> Iterator[Server]:
    """Keeps nothing in memory, so that every request is a read."""
    running = own_server(
        DATABASE_DSN=primary.dsn,
        DATABASE_SLAVE_DSNS=standby.dsn,
        SERVER_HOST="127.0.0.1",
        RATE_LIMIT_EXEMPT="127.0.0.0/8",
        MAILBOX_MAX_MESSAGES="0",
        CACHE_TTL="1ms",
        WORKERS=str(WORKERS),
    )
    yield running
    assert running.stop() == 0


async def figure(server: Server, name: str) -> float:
    async with aiohttp.ClientSession() as client, client.get(f"{server.http}/metrics") as response:
        found = re.findall(rf"^{re.escape(name)} (\S+)$", await response.text(), re.MULTILINE)
    return float(found[0]) if found else 0.0


async def readiness(server: Server) -> tuple[int, dict[str, str]]:
    async with aiohttp.ClientSession() as client, client.get(f"{server.http}/health/ready") as response:
        body = await response.json()
        return response.status, body["checks"]


async def until_replicas_are(server: Server, standing: str) -> None:
    async with asyncio.timeout(120):
        while True:
            status, checks = await readiness(server)
            assert status == 200
            if checks["replicas"].startswith(standing):
                return
            await asyncio.sleep(0.1)


class Reader:
    """A mailbox that one task changes and reads through connections of its own, whichever workers they lead to."""

    def __init__(self, server: Server, box: Box, client: aiohttp.ClientSession) -> None:
        self._url, self._head, self._client = f"{server.http}/v1/mailboxes/{box.id}/messages", box.auth, client
        self.reads = 0

    async def call(self, method: str, path: str = "", **body: str) -> dict[str, object]:
        async with self._client.request(method, self._url + path, headers=self._head, json=body or None) as response:
            assert response.status < 300, (method, path, await response.text())
            self.reads += 1
            return (await response.json())["data"] if response.content_type == "application/json" else {}

    async def go_on(self, over: asyncio.Event) -> None:
        while not over.is_set() or self.reads < 300:
            stored = await self.call("POST", **{"from": "a@b.c", "subject": "x", "text": "x"})
            path = f"/{stored['id']}"
            for _ in range(random.randrange(1, 12)):
                page = await self.call("GET", "?limit=1")
                assert page["items"][0]["seq"] == stored["seq"]  # type: ignore[index]
                assert (await self.call("GET", path))["seq"] == stored["seq"]
                await self.call("GET", f"{path}/raw")
                await asyncio.sleep(random.random() * 0.06)
            await self.call("POST", f"{path}/read")
            for _ in range(random.randrange(1, 12)):
                assert (await self.call("GET", path))["isRead"] is True
                assert (await self.call("GET", "/search?isRead=false&limit=1"))["total"] == 0
                await asyncio.sleep(random.random() * 0.06)
            await self.call("DELETE", path)
            for _ in range(random.randrange(1, 6)):
                assert (await self.call("GET", "?limit=1"))["items"] == []
                await asyncio.sleep(random.random() * 0.06)


async def harass(standby: Standby, over: asyncio.Event) -> None:
    """Paused and resumed, killed and revived, hung and woken, in turn."""
    for _ in range(2):
        await asyncio.sleep(1.5)
        await standby.ask("SELECT pg_wal_replay_pause()")
        await asyncio.sleep(random.uniform(0.5, 3))
        await standby.ask("SELECT pg_wal_replay_resume()")
        await asyncio.sleep(1.5)
        standby.kill()
        await asyncio.sleep(random.uniform(0, 1))
        await standby.revive()
        await asyncio.sleep(1.5)
        standby.signal(signal.SIGSTOP)
        await asyncio.sleep(random.uniform(0.5, 3))
        standby.signal(signal.SIGCONT)
    over.set()


async def test_no_read_is_ever_older_than_a_write_whatever_becomes_of_the_replica(
    server: Server, standby: Standby
) -> None:
    await until_replicas_are(server, "ok")
    over = asyncio.Event()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as client:
        readers = [Reader(server, await server.mailbox(), client) for _ in range(10)]
        async with asyncio.TaskGroup() as group:
            for reader in readers:
                group.create_task(reader.go_on(over))
            group.create_task(harass(standby, over))
    await until_replicas_are(server, "ok")
    assert await figure(server, 'tempmail_database_reads_total{target="replica 0"}') > 200
    assert await figure(server, 'tempmail_database_reads_total{target="primary"}') > 200


async def test_replica_that_is_away_is_left_out_said_once_and_comes_back(server: Server, standby: Standby) -> None:
    await until_replicas_are(server, "ok")
    box = await server.mailbox()
    for killed in (True, False):
        left_out = server.log.count("replica left out")
        if killed:
            standby.kill()
        else:
            standby.signal(signal.SIGSTOP)
        for _ in range(20):  # answered all the same, and within a second or two
            assert await server.messages(box) == []
        await until_replicas_are(server, "degraded")
        before = await figure(server, 'tempmail_database_reads_total{target="primary"}')
        async with asyncio.timeout(120):
            while await figure(server, 'tempmail_database_reads_total{target="primary"}') == before:
                assert await server.messages(box) == []
        async with asyncio.timeout(60):
            while server.log.count("replica left out") == left_out:
                await asyncio.sleep(0.1)
        if killed:
            await standby.revive()
        else:
            standby.signal(signal.SIGCONT)
        await until_replicas_are(server, "ok")
        assert server.log.count("replica left out") == left_out + 1
        before = await figure(server, 'tempmail_database_reads_total{target="replica 0"}')
        async with asyncio.timeout(60):
            while await figure(server, 'tempmail_database_reads_total{target="replica 0"}') == before:
                assert await server.messages(box) == []


async def test_server_starts_without_its_replica_and_uses_no_primary_as_one(
    own_server: Callable[..., Server], primary: EmbeddedPostgres
) -> None:
    own = f"{primary.dsn}&application_name=other"
    server = own_server(
        DATABASE_DSN=primary.dsn,
        DATABASE_SLAVE_DSNS=f"postgresql://nobody@127.0.0.1:1/x, {own}",
        SERVER_HOST="127.0.0.1",
    )
    box = await server.mailbox()
    assert await server.messages(box) == []
    await until_replicas_are(server, "degraded: of 2 left out: 0, 1")
    assert server.stop() == 0
