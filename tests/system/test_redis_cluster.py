"""Promise 10 on a Redis Cluster: one node hung, one dead, replicas taking over; all hear what any is told."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.ports import free_ports
from tests.running import Server
from tests.system.test_redis import check, watch

MASTERS = 3


class Node:
    """A redis-server of the cluster."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.port, bus = free_ports(2)
        options = ["--port", str(self.port), "--save", "", "--dir", str(folder), "--bind", "127.0.0.1"]
        options += ["--cluster-port", str(bus)]
        options += ["--cluster-enabled", "yes", "--cluster-node-timeout", "1500"]
        self.process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def client(self) -> "redis.Redis":
        return redis.Redis(port=self.port, socket_timeout=2, decode_responses=True)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if condition():
                return
        except redis.RedisError:
            pass
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Three masters, then their replicas."""
    folder = tmp_path_factory.mktemp("redis")
    running = [Node(folder / str(n)) for n in range(2 * MASTERS)]
    try:
        until(lambda: all(node.client.ping() for node in running), "not all answer")
        command = ["redis-cli", "--cluster", "create", *(node.address for node in running)]
        options = ["--cluster-replicas", "1", "--cluster-yes"]
        subprocess.run([*command, *options], check=True, timeout=60, stdout=subprocess.DEVNULL)
        until(lambda: all(cluster_state(node) == "ok" for node in running), "no cluster")
        yield running
    finally:
        for node in running:
            node.process.send_signal(signal.SIGCONT)
            node.kill()


def cluster_state(node: Node) -> str:
    return str(node.client.execute_command("CLUSTER INFO")["cluster_state"])


async def test_what_is_published_once_at_one_node_is_heard_at_every_other(
    own_server: Callable[..., Server], nodes: list[Node]
) -> None:
    server = own_server(REDIS_CLUSTER_NODES=",".join(node.address for node in nodes))
    ears = [redis.Redis(port=node.port).pubsub() for node in nodes]
    for ear in ears:
        ear.subscribe("tempmail:hints")
        assert (ear.get_message(timeout=60) or {})["type"] == "subscribe"
    await server.deliver(await server.mailbox())
    for ear in ears:
        assert (ear.get_message(timeout=60) or {})["type"] == "message"
        ear.close()


async def test_mail_flows_whatever_becomes_of_the_nodes(own_server: Callable[..., Server], nodes: list[Node]) -> None:
    server = own_server(REDIS_CLUSTER_NODES=",".join(node.address for node in nodes))
    box = await server.mailbox()
    watchers = [await watch(server, box) for _ in range(8)]
    first, second = nodes[:2]  # the masters that the two workers talk to
    try:
        await check(server, box, watchers, "all are well")
        first.process.send_signal(signal.SIGSTOP)
        await check(server, box, watchers, "one hangs")
        until(lambda: cluster_state(second) == "ok", "no replica took over")
        await check(server, box, watchers, "its replica took over")
        first.process.send_signal(signal.SIGCONT)
        await check(server, box, watchers, "it goes on")
        until(lambda: cluster_state(first) == "ok", "it did not come back")
        second.kill()
        await check(server, box, watchers, "another is dead")
        until(lambda: cluster_state(first) == "ok", "no replica took over")
        await check(server, box, watchers, "its replica took over, too")
    finally:
        for watcher in watchers:
            await watcher.close()
    until(lambda: server.log.count("Redis is back") == server.log.count("Redis lost"), "an ear found no other node")
