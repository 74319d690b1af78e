"""Promise 10: Redis stopped, hung or emptied, mail is accepted, stored and readable, and push falls back to polling."""

import asyncio
import contextlib
import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
import redis
from websockets.asyncio.client import ClientConnection, connect

from server.store.embedded import running_dsn
from tests.ports import free_ports
from tests.running import Box, Server


class Redis:
    """A redis-server of the test's own."""

    def __init__(self, folder: Path) -> None:
        (self.port,) = free_ports(1)
        self._folder = folder
        self.start()

    def start(self) -> None:
        options = ["--port", str(self.port), "--save", "", "--dir", str(self._folder), "--bind", "127.0.0.1"]
        self.process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)

    @property
    def client(self) -> "redis.Redis":
        return redis.Redis(port=self.port)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Redis]:
    running = Redis(tmp_path)
    yield running
    running.stop()


async def listened_to(broker: Redis, workers: int) -> None:
    """Until so many workers hear hints again."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(redis.ConnectionError):  # it is not up yet
                [(_, count)] = broker.client.pubsub_numsub("tempmail:hints")
                if count >= workers:
                    return
            await asyncio.sleep(0.1)


async def watch(server: Server, box: Box) -> ClientConnection:
    socket_ = await connect(server.http.replace("http", "ws") + "/v1/ws")
    await socket_.send(json.dumps({"type": "subscribe", "mailboxId": box.id, "token": box.token, "after": 0}))
    assert json.loads(await socket_.recv())["type"] == "subscribed"
    return socket_


async def next_mail(watcher: ClientConnection) -> str:
    async with asyncio.timeout(60):
        while True:
            frame = json.loads(await watcher.recv())
            if frame["type"] == "new_mail":
                return str(frame["data"]["subject"])


async def check(server: Server, box: Box, watchers: list[ClientConnection], subject: str) -> None:
    """Accepted, stored, readable, and pushed to a watcher in whatever worker."""
    await server.deliver(box, subject=subject)
    assert subject in [item["subject"] for item in await server.messages(box)]
    assert [await next_mail(watcher) for watcher in watchers] == [subject] * len(watchers)


async def test_mail_flows_whatever_becomes_of_redis(own_server: Callable[..., Server], broker: Redis) -> None:
    server = own_server(REDIS_URL=f"redis://127.0.0.1:{broker.port}/0")
    box = await server.mailbox()
    watchers = [await watch(server, box) for _ in range(8)]  # enough that both workers have some
    try:
        await check(server, box, watchers, "redis is well")
        broker.client.flushall()
        await check(server, box, watchers, "redis was emptied")
        broker.process.send_signal(signal.SIGSTOP)
        await check(server, box, watchers, "redis hangs")
        broker.process.send_signal(signal.SIGCONT)
        await check(server, box, watchers, "redis goes on")
        broker.stop()
        await check(server, box, watchers, "redis is dead")
        broker.start()
        await listened_to(broker, 2)
        await check(server, box, watchers, "redis is back")
    finally:
        for watcher in watchers:
            await watcher.close()


async def test_hints_really_travel_over_redis(own_server: Callable[..., Server], broker: Redis) -> None:
    server = own_server(REDIS_URL=f"redis://127.0.0.1:{broker.port}/0")
    with broker.client.pubsub() as listener:
        listener.subscribe("tempmail:hints")
        assert (listener.get_message(timeout=60) or {})["type"] == "subscribe"
        box = await server.mailbox()
        await server.deliver(box)
        heard = [listener.get_message(timeout=60) for _ in range(2)]
    assert [message["type"] for message in heard if message] == ["message", "message"]


async def shows(server: Server, box: Box, subject: str) -> None:
    """The list, asked again and again and so kept by every worker, comes to show the message."""
    async with asyncio.timeout(120):
        while subject not in [item["subject"] for item in await server.messages(box)]:
            await asyncio.sleep(0.2)


async def connections(server: Server) -> int:
    """To Redis, by its figures."""
    async with aiohttp.ClientSession() as client, client.get(f"{server.http}/metrics") as response:
        found = re.search(r"^tempmail_redis_connections (\d+)", await response.text(), re.M)
        return int(found[1]) if found else 0


async def test_what_one_host_writes_another_shows_with_and_without_redis(
    own_server: Callable[..., Server], broker: Redis
) -> None:
    url = f"redis://127.0.0.1:{broker.port}/0"
    one = own_server(REDIS_URL=url)
    dsn = running_dsn(one.folder / "data")
    assert dsn
    two = own_server(
        REDIS_URL=url, DATABASE_DSN=dsn, SERVER_HOST="127.0.0.1", RATE_LIMIT_EXEMPT="127.0.0.0/8", CACHE_TTL="10m"
    )
    box = await one.mailbox()
    for subject in ("over redis", "again over redis"):
        assert await two.messages(box) is not None
        await one.deliver(box, subject=subject)
        await shows(two, box, subject)
    async with asyncio.timeout(60):  # workers lay their figures down every second
        while await connections(two) < 2:  # each worker listens over one
            await asyncio.sleep(0.2)
    broker.stop()
    for subject in ("without redis", "still without redis"):
        await one.deliver(box, subject=subject)
        await shows(two, box, subject)
    broker.start()
    await listened_to(broker, 4)
    await one.deliver(box, subject="redis is back")
    await shows(two, box, "redis is back")
    assert two.stop() == 0  # before the host whose database it uses


async def test_host_that_only_cannot_publish_is_not_believed_for_long(
    own_server: Callable[..., Server], broker: Redis
) -> None:
    broker.client.acl_setuser("two", enabled=True, passwords=["+pw"], commands=["+@all"], channels=["*"], keys=["*"])
    url = f"127.0.0.1:{broker.port}/0"
    one = own_server(REDIS_URL=f"redis://{url}", CACHE_TTL="10m")
    dsn = running_dsn(one.folder / "data")
    assert dsn
    two = own_server(
        REDIS_URL=f"redis://two:pw@{url}", DATABASE_DSN=dsn, SERVER_HOST="127.0.0.1", RATE_LIMIT_EXEMPT="127.0.0.0/8"
    )
    box = await one.mailbox()
    await two.deliver(box, subject="heard")
    await shows(one, box, "heard")
    broker.client.acl_setuser("two", enabled=True, commands=["-publish"])
    await two.deliver(box, subject="unheard")
    await shows(one, box, "unheard")
    broker.client.acl_setuser("two", enabled=True, commands=["+publish"])
    await asyncio.sleep(3)
    await two.deliver(box, subject="heard again")
    await shows(one, box, "heard again")
    assert two.stop() == 0
