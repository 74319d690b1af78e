"""A node with a wrong clock beside one whose clock is right: it destroys nothing and lives by the database's time."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from server.store.embedded import running_dsn
from tests.running import Box, Server

OwnServer = Callable[..., Server]
Beside = Callable[[Server, str], Server]
NODE = {"WORKERS": "1", "RATE_LIMIT_EXEMPT": "127.0.0.0/8", "JWT_SECRET": "one secret for both nodes " * 2}
LOGIN = {"email": "someone@example.org", "password": "correct horse battery"}


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Beside]:
    """Starts another node on the database of one that runs, its machine's clock moved by so much."""
    started: list[Server] = []

    def start(first: Server, off: str) -> Server:
        dsn = running_dsn(first.folder / "data")
        assert dsn
        folder = tmp_path / f"moved{len(started)}"
        folder.mkdir()
        started.append(Server(folder, DATABASE_DSN=dsn, **NODE))
        [library] = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
        return started[-1].start(environment={"LD_PRELOAD": str(library), "FAKETIME": off})

    yield start
    for one in started:
        one.stop()


async def ask(server: Server, method: str, path: str, body: object = None, token: str = "") -> tuple[int, Any]:
    head = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        aiohttp.ClientSession() as client,
        client.request(method, server.http + path, json=body, headers=head) as response,
    ):
        return response.status, await response.json()


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def close(text: str, to: datetime) -> bool:
    return abs(moment(text) - to) < timedelta(minutes=2)


async def database(server: Server, sql: str, *args: object) -> Any:
    dsn = running_dsn(server.folder / "data")
    assert dsn
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(sql, *args)
    finally:
        await connection.close()


async def living(server: Server, box: Box) -> bool:
    status, _ = await ask(server, "GET", f"/v1/mailboxes/{box.id}/messages", token=box.token)
    return status == 200


@pytest.mark.parametrize("off", ["+3d", "-3d"])
async def test_a_wrong_clock_ends_nothing_and_dates_nothing(own_server: OwnServer, beside: Beside, off: str) -> None:
    right = own_server(ROLES="smtp,web", **NODE)  # the sweeper is the other one
    boxes = [await right.mailbox(expiresIn="24h") for _ in range(3)]
    await right.deliver(*boxes, subject="keep me")
    over = await right.mailbox(expiresIn="1h")
    await database(right, "UPDATE mailboxes.mailboxes SET expires_at = now() - interval '1 s' WHERE id = $1", over.id)
    _, made = await ask(right, "POST", "/v1/auth/register", LOGIN)
    wrong = beside(right, off)
    status, ready = await ask(wrong, "GET", "/health/ready")
    assert status == 200
    assert ready["status"] == "degraded"
    assert "259,200 s" in ready["checks"]["clock"]
    assert ("ahead of" if off[0] == "+" else "behind") in ready["checks"]["clock"]
    assert wrong.log.count("ends and destroys nothing") == 1

    # what it writes is dated by the database, and what it reads is judged by it
    mine = await wrong.mailbox(expiresIn="1h")
    await wrong.deliver(mine, subject="through the wrong one")
    status, got = await ask(wrong, "GET", f"/v1/mailboxes/{mine.id}", token=mine.token)
    assert status == 200
    now = datetime.now(UTC)
    assert close(got["data"]["createdAt"], now)
    assert close(got["data"]["expiresAt"], now + timedelta(hours=1))
    for node in (right, wrong):
        [item] = await node.messages(mine)
        assert close(item["createdAt"], now)
    status, login = await ask(wrong, "POST", "/v1/auth/login", LOGIN)
    assert status == 200
    for node in (right, wrong):  # access tokens of either are good at both
        for token in (made["data"]["accessToken"], login["data"]["accessToken"]):
            assert (await ask(node, "GET", "/v1/auth/me", token=token))[0] == 200
    status, _ = await ask(wrong, "PATCH", f"/v1/mailboxes/{boxes[2].id}", {"expiresIn": "24h"}, boxes[2].token)
    assert status == 200

    await asyncio.sleep(5)  # several rounds of the sweep
    for node in (right, wrong):
        for box in (*boxes, mine):
            assert await living(node, box)
            assert len(await node.messages(box)) == 1
    # what is over is over by the database's time, and stays for a node that knows the time to clear away
    assert not await living(wrong, over)
    assert await database(right, "SELECT 1 FROM mailboxes.mailboxes WHERE id = $1", over.id)
    assert await asyncio.to_thread(wrong.stop) == 0
