"""Promise 5: who saw a write sees it in every later read, from any worker; no cached answer is ever stale."""

import asyncio
import http.client
import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from tests.running import Box, Server
from tests.system.test_webhooks import connect

WORKERS = 3


class Line:
    """One kept-alive connection, which the kernel gave to one worker for good."""

    def __init__(self, server: Server, box: Box) -> None:
        host, port = server.http.removeprefix("http://").split(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=60)
        self._connection.connect()
        self._path, self._headers = f"/v1/mailboxes/{box.id}/messages", box.auth
        self.worker = 0  # whose process answers

    @property
    def local_port(self) -> int:
        return int(self._connection.sock.getsockname()[1])

    def call(self, method: str, path: str = "", body: Any = None) -> Any:
        headers = self._headers | {"Content-Type": "application/json"}
        self._connection.request(method, self._path + path, json.dumps(body) if body is not None else None, headers)
        response = self._connection.getresponse()
        text = response.read()
        assert response.status < 300, text
        return json.loads(text)["data"] if text else None

    def newest(self) -> int:
        items = self.call("GET", "?limit=1")["items"]
        return int(items[0]["seq"]) if items else 0


def one_line_to_each(server: Server, box: Box) -> list[Line]:
    """Connections to all workers, found by looking at whose socket the other end is."""
    lines: dict[int, Line] = {}
    for _ in range(200):
        line = Line(server, box)
        line.newest()
        owners = {
            worker.pid
            for worker in server.workers()
            for c in worker.net_connections("tcp")
            if c.raddr and c.raddr.port == line.local_port
        }
        assert len(owners) == 1
        line.worker = owners.pop()
        lines.setdefault(line.worker, line)
        if len(lines) == WORKERS:
            return list(lines.values())
    raise AssertionError("the kernel never reached every worker")


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(
        tmp_path_factory.mktemp("several"), WORKERS=str(WORKERS), MAILBOX_MAX_MESSAGES="0", CACHE_TTL="10m"
    ).start()
    yield running
    assert running.stop() == 0, running.log[-4000:]


@pytest.fixture
async def lines(several: Server) -> tuple[Server, Box, list[Line]]:
    server = several
    box = await server.mailbox()
    return server, box, one_line_to_each(server, box)


async def test_write_on_one_worker_is_read_on_every_other(lines: tuple[Server, Box, list[Line]]) -> None:
    _, _, workers = lines
    for turn in range(750):
        stored = workers[turn % WORKERS].call("POST", body={"from": "a@b.c", "subject": str(turn), "text": "x"})
        for reader in workers:
            assert reader.newest() == stored["seq"]
    for turn in range(150):
        newest = workers[0].call("GET", "?limit=1")["items"][0]
        workers[turn % WORKERS].call("DELETE", f"/{newest['id']}")
        for reader in workers:
            assert reader.newest() == newest["seq"] - 1


async def test_what_one_worker_showed_no_other_worker_unshows(lines: tuple[Server, Box, list[Line]]) -> None:
    """Readers race the writer: as soon as one worker shows a message, every other must."""
    server, box, (first, second, third) = lines
    writer = Line(server, box)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            writer.call("POST", body={"from": "a@b.c", "subject": "x", "text": "x"})

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(2000):
            seen = 0
            for reader in (first, second, third, first):
                now = reader.newest()
                assert now >= seen
                seen = now
    finally:
        stop.set()
        thread.join()


async def test_what_was_read_while_a_write_was_under_way_is_not_shown_when_it_is_done(
    lines: tuple[Server, Box, list[Line]],
) -> None:
    """The gap between a commit and the writer's word that it is over, as long as can be: its process stands still."""
    server, box, (writer, early, late) = lines
    first = writer.call("POST", body={"from": "a@b.c", "subject": "x", "text": "x"})["seq"]
    database, watching = await connect(server), await connect(server)
    try:
        holding = database.transaction()
        await holding.start()
        await database.execute("SELECT 1 FROM messages.inboxes WHERE mailbox_id = $1 FOR UPDATE", box.id)
        writing = asyncio.create_task(
            asyncio.to_thread(writer.call, "POST", body={"from": "a@b.c", "subject": "x", "text": "x"})
        )
        await until(watching, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'", 1)
        os.kill(writer.worker, signal.SIGSTOP)
        try:
            assert [early.newest() for _ in range(3)] == [first] * 3
            await holding.rollback()
            await until(watching, f"SELECT max(seq) FROM messages.messages WHERE mailbox_id = '{box.id}'", first + 1)
            assert [late.newest(), early.newest(), late.newest(), early.newest()] == [first + 1] * 4
            assert not writing.done(), "the writer cannot have said that it is over"
        finally:
            os.kill(writer.worker, signal.SIGCONT)
        assert (await writing)["seq"] == first + 1
    finally:
        await database.close()
        await watching.close()


async def until(connection: "asyncpg.Connection[Any]", query: str, value: int) -> None:
    """Wait for what the database says."""
    async with asyncio.timeout(60):
        while await connection.fetchval(query) != value:
            await asyncio.sleep(0.02)
