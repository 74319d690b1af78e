"""What a tired operator reads of an outage: that it began and why, that it is over, once for all workers, no more."""

import asyncio
import json
import smtplib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.broker import Broker
from tests.debian_postgres import Cluster
from tests.running import ROOT, Box, Server
from tests.system.test_redis import Redis, broker

__all__ = ["broker"]

OwnServer = Callable[..., Server]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster("outage") as running:
        yield running


@pytest.fixture
def dsn(cluster: Cluster) -> str:
    made = cluster.database("outage")
    migrated = {"TEMPMAIL_DATABASE_DSN": made, "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-m", "server", "migrate"], check=True, cwd=ROOT, env=migrated, timeout=60)
    return made


def warnings(server: Server) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["level"] in ("warning", "error") and not line["msg"].startswith("node is")]


@asynccontextmanager
async def traffic(server: Server, box: Box) -> AsyncIterator[None]:
    """Mail and requests all the time, whatever becomes of them."""

    async def ask() -> None:
        async with aiohttp.ClientSession() as client:
            for n in range(10**9):
                with suppress(aiohttp.ClientError):
                    async with client.get(
                        f"{server.http}/v1/mailboxes/{box.id}/messages?limit={n % 50 + 1}", headers=box.auth
                    ):
                        await asyncio.sleep(0.02)

    async def send() -> None:
        while True:
            with suppress(smtplib.SMTPException, OSError):
                await server.deliver(box)
            await asyncio.sleep(0.05)

    tasks = [asyncio.create_task(work()) for work in (ask, ask, ask, send, send)]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def told(server: Server, text: str) -> None:
    async with asyncio.timeout(180):
        while text not in server.log:
            await asyncio.sleep(0.1)


def one_pair(server: Server, name: str) -> None:
    said = [line["msg"].partition(";")[0] for line in warnings(server)]
    assert said == [f"{name} lost", f"{name} is back"], json.dumps(warnings(server), indent=1)
    assert " " in warnings(server)[0]["reason"], "words, and no class of a library alone"


async def test_a_database_that_goes_and_comes_is_two_lines(own_server: OwnServer, cluster: Cluster, dsn: str) -> None:
    server = own_server(DATABASE_DSN=dsn, WORKERS="2", RATE_LIMIT_EXEMPT="127.0.0.0/8")
    box = await server.mailbox()
    async with traffic(server, box):
        await asyncio.sleep(1)
        await asyncio.to_thread(cluster.run, "pg_ctl", "stop", "-m", "immediate", "-D", f"{cluster.folder}/data")
        await asyncio.sleep(8)
        options = f"-c listen_addresses= -c unix_socket_directories={cluster.folder}"
        start = ("pg_ctl", "start", "-w", "-D", f"{cluster.folder}/data", "-o", options, "-l", f"{cluster.folder}/log")
        await asyncio.to_thread(cluster.run, *start)
        await told(server, "database is back")
        await asyncio.sleep(2)
    one_pair(server, "database")


async def test_a_redis_that_goes_and_comes_is_two_lines(own_server: OwnServer, broker: Redis) -> None:
    server = own_server(REDIS_URL=f"redis://127.0.0.1:{broker.port}/0", RATE_LIMIT_EXEMPT="127.0.0.0/8")
    box = await server.mailbox()
    async with traffic(server, box):
        broker.stop()
        await asyncio.sleep(6)
        broker.start()
        await told(server, "Redis is back")
        await asyncio.sleep(1)
    one_pair(server, "Redis")


async def test_a_redis_that_was_never_there_is_told_of_too(own_server: OwnServer, broker: Redis) -> None:
    broker.stop()
    server = own_server(REDIS_URL=f"redis://127.0.0.1:{broker.port}/0")
    await told(server, "Redis lost")
    broker.start()
    await told(server, "Redis is back")
    one_pair(server, "Redis")


async def test_a_broker_that_was_never_there_and_goes_again_is_two_lines_each_time(
    own_server: OwnServer, tmp_path: Path
) -> None:
    folder = tmp_path / "rabbitmq"
    folder.mkdir()
    rabbit = Broker(folder)
    server = own_server(INGEST_MODE="queue", RABBITMQ_URL=rabbit.url, RATE_LIMIT_EXEMPT="127.0.0.0/8")
    try:
        await told(server, "RabbitMQ lost")
        await asyncio.to_thread(rabbit.start)
        await told(server, "RabbitMQ is back")
        one_pair(server, "RabbitMQ")
        box = await server.mailbox()
        async with traffic(server, box):
            rabbit.kill()
            await asyncio.sleep(5)
            await asyncio.to_thread(rabbit.start)
            async with asyncio.timeout(180):
                while server.log.count("RabbitMQ is back") < 2:
                    await asyncio.sleep(0.1)
        said = [line["msg"].partition(";")[0] for line in warnings(server)]
        assert said == ["RabbitMQ lost", "RabbitMQ is back"] * 2, warnings(server)
    finally:
        await asyncio.to_thread(server.stop)
        rabbit.close()
