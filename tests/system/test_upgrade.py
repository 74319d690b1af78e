"""An upgrade as the runbook has it, and the way back: two nodes behind nginx on one PostgreSQL and Redis, under load.

Two pairs of releases: this one and a next one, made of this tree with further migrations; and, where the history is
there, release 0.1.0 and this one.
"""

import asyncio
import os
import shutil
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp
import asyncpg
import psutil
import pytest

from server.store import migrate
from server.store.embedded import EmbeddedPostgres
from tests.edge import Edge
from tests.integration.conftest import in_database
from tests.running import ROOT, Box, Server, lasting
from tests.system.test_redis import Redis, broker

__all__ = ["broker"]

BEFORE: Final = "0a49809"  # release 0.1.0
PRE: Final[dict[migrate.Schema, str]] = {
    "users": "ALTER TABLE users.users ADD COLUMN nickname text NOT NULL DEFAULT ''; CREATE TABLE users.new (id uuid);",
    "mailboxes": "ALTER TABLE mailboxes.mailboxes ADD COLUMN hue text; CREATE INDEX ON mailboxes.mailboxes (hue);",
    "messages": "ALTER TABLE messages.messages ADD COLUMN score real; ALTER TABLE messages.bodies ADD COLUMN kind text;"
    " ALTER TABLE messages.inboxes ADD COLUMN score_most real NOT NULL DEFAULT 5;",
}
POST: Final = "ALTER TABLE users.new ADD PRIMARY KEY (id);"


class Releases(NamedTuple):
    old: Path
    new: Path
    ends: bool  # whether the new one has a post migration


def history() -> bool:
    command = ["git", "-C", str(ROOT), "cat-file", "-e", f"{BEFORE}^{{commit}}"]
    return not subprocess.run(command, capture_output=True, timeout=20).returncode


@pytest.fixture(params=["this and the next", *(["0.1.0 and this"] if history() else [])])
def releases(request: pytest.FixtureRequest, tmp_path: Path) -> Releases:
    other = tmp_path / "release"
    if request.param == "0.1.0 and this":
        other.mkdir()
        command = f"git -C '{ROOT}' archive {BEFORE} server | tar -x -C '{other}'"
        subprocess.run(["/bin/sh", "-c", command], check=True, timeout=60)
        return Releases(other, ROOT, ends=False)
    shutil.copytree(ROOT / "server", other / "server", ignore=shutil.ignore_patterns("__pycache__"))
    for domain, text in PRE.items():
        folder = other / "server" / "store" / "migrations" / domain
        number = len(migrate.available(domain)) + 1
        (folder / f"{number:04}_pre_next.sql").write_text(text)
        if domain == "users":
            (folder / f"{number + 1:04}_post_next.sql").write_text(POST)
    return Releases(ROOT, other, ends=True)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    cluster = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), max_connections=100)
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
async def dsn(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    name = f"upgrade_{os.urandom(4).hex()}"
    connection = await asyncpg.connect(postgres.dsn)
    await connection.execute(f"CREATE DATABASE {name}")
    yield in_database(postgres.dsn, name)
    await connection.close()


def tempmail(tree: Path, dsn: str, *command: str) -> str:
    """A command of a release; what it said."""
    environment = {"PATH": os.environ["PATH"], "TEMPMAIL_DATABASE_DSN": dsn}
    run = [sys.executable, "-m", "server", *command]
    done = subprocess.run(run, cwd=tree, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stderr


class Load:
    """Requests through nginx and mail to the nodes in turn, the whole time; ``failed`` are answers that were none."""

    def __init__(self, edge: Edge, nodes: list[Server], box: Box) -> None:
        self._edge, self._nodes, self._box = edge, nodes, box
        self.failed: list[str] = []
        self.stored: set[str] = set()
        self.later = self.asked = 0
        self.killing = False  # a worker is killed: what it was making is not asked of another, for it may be made
        self._over = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for n in range(3):
                group.create_task(self._read())
                group.create_task(self._send(n))
            group.create_task(self._make())
            try:
                yield
            finally:
                self._over.set()

    def _fail(self, what: str) -> None:
        self.failed.append(f"{time.strftime('%H:%M:%S')} {what}")

    async def _ask(self, client: aiohttp.ClientSession, method: str, path: str, wanted: int, **more: object) -> None:
        self.asked += 1
        try:
            async with client.request(method, self._edge.base + path, **more) as response:  # type: ignore[arg-type]
                text = await response.text()
                if self.killing and method == "POST" and response.status == 503:
                    self.later += 1
                elif response.status != wanted:
                    self._fail(f"{method} {path}: {response.status} {text[:200]}")
        except aiohttp.ClientError as error:
            self._fail(f"{method} {path}: {error!r}")

    async def _read(self) -> None:
        async with self._edge.session() as client:
            while not self._over.is_set():
                await self._ask(client, "GET", f"/v1/mailboxes/{self._box.id}/messages", 200, headers=self._box.auth)
                await asyncio.sleep(0.05)

    async def _make(self) -> None:
        async with self._edge.session() as client:
            while not self._over.is_set():
                await self._ask(client, "POST", "/v1/mailboxes", 201, json={})
                await asyncio.sleep(0.15)

    async def _send(self, number: int) -> None:
        """As a relay does: what is not taken is offered to the other node."""
        turn = 0
        while not self._over.is_set():
            subject = f"mail {number} {turn}"
            for node in self._nodes if turn % 2 else self._nodes[::-1]:
                try:
                    await node.deliver(self._box, subject=subject)
                    self.stored.add(subject)
                    break
                except smtplib.SMTPResponseException as error:
                    if error.smtp_code >= 500:
                        self._fail(f"mail: {error.smtp_code} {error.smtp_error!r}")
                    self.later += 1
                except (smtplib.SMTPException, OSError):
                    self.later += 1
            turn += 1
            await asyncio.sleep(0.05)


async def await_ready(*nodes: Server) -> None:
    """Until ten answers in a row, which come from any of a node's workers, say so."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as client, asyncio.timeout(120):
        for node in nodes:
            in_a_row = 0
            while in_a_row < 10:
                async with client.get(f"{node.http}/health/ready") as response:
                    in_a_row = in_a_row + 1 if response.status == 200 else 0
                await asyncio.sleep(0.05)


async def errors(node: Server) -> list[str]:
    """What a node counts of failures of its own."""
    async with aiohttp.ClientSession() as client, client.get(f"{node.http}/metrics") as response:
        return [line for line in (await response.text()).splitlines() if line.startswith("tempmail_errors_total{")]


async def stay_ready(*nodes: Server) -> None:
    """For 3 s, asked of several workers: nginx asks every node again by then, as the runbook wants."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as client:
        for _ in range(12):
            for node in nodes:
                async with client.get(f"{node.http}/health/ready") as response:
                    assert response.status == 200, await response.text()
            await asyncio.sleep(0.25)


async def replaced(node: Server, gone: list[psutil.Process]) -> None:
    async with asyncio.timeout(60):
        while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in gone):
            await asyncio.sleep(0.05)
        while len(node.workers()) < 2:
            await asyncio.sleep(0.05)


async def exchange(node: Server, tree: Path) -> None:
    """Restart a node with another release, on the same addresses."""
    assert await asyncio.to_thread(node.stop) == 0
    node.tree = tree
    await asyncio.to_thread(node.start)
    await await_ready(node)


async def test_upgrade_and_the_way_back_fail_no_request_and_lose_no_mail(
    own_server: Callable[..., Server],
    releases: Releases,
    dsn: str,
    broker: Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tempmail(releases.old, dsn, "migrate")
    monkeypatch.setattr("tests.running.ROOT", releases.old)  # what a node starts with
    settings = {
        "DATABASE_DSN": dsn,
        "REDIS_URL": f"redis://127.0.0.1:{broker.port}/0",
        "SERVER_HOST": "127.0.0.1",
        "JWT_SECRET": "0" * 64,
        "RATE_LIMIT_EXEMPT": "127.0.0.0/8, ::1/128",
        "TRUSTED_PROXIES": "127.0.0.1/32",
        "MAILBOX_MAX_MESSAGES": "0",
        "DATABASE_MAX_OPEN_CONNS": "20",
    }
    nodes = [own_server(**settings, **lasting()) for _ in range(2)]
    (tmp_path / "edge").mkdir()
    edge = Edge(
        tmp_path / "edge", [f"{node.http.removeprefix('http://')} max_fails=2 fail_timeout=2s" for node in nodes]
    ).start()
    first, second = nodes
    load = Load(edge, nodes, await first.mailbox())
    try:
        async with load.running():
            await stay_ready(*nodes)
            assert "_pre_" in await asyncio.to_thread(tempmail, releases.new, dsn, "migrate", "--pre")
            await stay_ready(*nodes)  # the old release on the new schema
            assert load.failed == [], [await errors(node) for node in nodes]
            rolled = first.workers()
            assert first.process
            first.process.send_signal(signal.SIGHUP)
            await replaced(first, rolled)
            killed = second.workers()[0]
            load.killing = True
            killed.kill()
            await replaced(second, [killed])
            await await_ready(*nodes)  # 0.1.0 calls a worker unready whose bus is not connected yet
            load.killing = False
            await stay_ready(*nodes)
            await exchange(first, releases.new)
            await stay_ready(*nodes)  # both releases, on one Redis
            await exchange(second, releases.new)
            await exchange(second, releases.old)  # the way back
            await stay_ready(*nodes)
            await exchange(second, releases.new)
            said = await asyncio.to_thread(tempmail, releases.new, dsn, "migrate")
            assert ("_post_" in said) == releases.ends
            await stay_ready(*nodes)
        stored = {str(item["subject"]) for item in await first.messages(load._box)}
        counted = [await errors(node) for node in nodes]
    finally:
        edge.stop()
    said = [line for node in nodes for line in node.log.splitlines() if '"warning"' in line or '"error"' in line]
    assert load.failed == [], (counted, [line for line in said if "DNS" not in line], edge.complaints())
    assert load.asked > 200
    assert len(load.stored) > 100
    assert load.stored - stored == set()
    for node in nodes:
        assert "not ours" not in node.log
        assert "not known here" not in node.log
        assert node.log.count("commit failed") == 0
    if releases.ends:
        assert await asyncio.to_thread(second.stop) == 0
        second.tree = releases.old
        with pytest.raises(AssertionError, match="start the release that migrated it"):
            await asyncio.to_thread(second.start)
