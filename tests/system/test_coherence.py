"""Promise 5: who saw a write sees it in every later read, from any worker; no cached answer is ever stale."""

import http.client
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.running import Box, Server

WORKERS = 3


class Line:
    """One kept-alive connection, which the kernel gave to one worker for good."""

    def __init__(self, server: Server, box: Box) -> None:
        host, port = server.http.removeprefix("http://").split(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=20)
        self._connection.connect()
        self._path, self._headers = f"/v1/mailboxes/{box.id}/messages", box.auth

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
        lines.setdefault(owners.pop(), line)
        if len(lines) == WORKERS:
            return list(lines.values())
    raise AssertionError("the kernel never reached every worker")


@pytest.fixture
async def lines(own_server: Callable[..., Server]) -> tuple[Server, Box, list[Line]]:
    server = own_server(WORKERS=str(WORKERS), MAILBOX_MAX_MESSAGES="0", CACHE_TTL="60s")
    box = await server.mailbox()
    return server, box, one_line_to_each(server, box)


@pytest.mark.timeout(240)
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
