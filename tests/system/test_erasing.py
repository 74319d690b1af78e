"""Deleted mail of a real server leaves its database within a minute, also when its workers are killed meanwhile."""

import asyncio
from collections.abc import Callable

import aiohttp
import asyncpg

from server.store.embedded import running_dsn
from tests.running import Box, Server

OwnServer = Callable[..., Server]


async def rows(server: Server, *boxes: Box) -> tuple[int, int]:
    """Messages of the mailboxes, and bodies of any."""
    dsn = running_dsn(server.folder / "data")
    assert dsn
    connection = await asyncpg.connect(dsn)
    try:
        asked = "SELECT count(*) FROM messages.messages WHERE mailbox_id = ANY($1::uuid[])"
        messages = await connection.fetchval(asked, [box.id for box in boxes])
        return messages, await connection.fetchval("SELECT count(*) FROM messages.bodies")
    finally:
        await connection.close()


async def delete(server: Server, path: str, box: Box) -> None:
    async with aiohttp.ClientSession() as client, client.delete(server.http + path, headers=box.auth) as response:
        assert response.status < 300, await response.text()


async def test_what_was_deleted_is_gone_within_a_minute_whoever_is_killed(own_server: OwnServer) -> None:
    server = own_server(WORKERS="2", RATE_LIMIT_EXEMPT="127.0.0.0/8")
    gone, older, emptied, kept = [await server.mailbox(expiresIn="24h") for _ in range(4)]
    for n in range(40):
        await server.deliver(gone, older, emptied, subject=f"erase me {n}")
    await server.deliver(gone, kept, subject="shared")
    assert await rows(server, gone, older, emptied, kept) == (122, 41)
    await delete(server, f"/v1/mailboxes/{emptied.id}/messages", emptied)
    assert (await rows(server, emptied))[0] == 0
    await asyncio.gather(
        delete(server, f"/v1/mailboxes/{gone.id}", gone), delete(server, f"/v1/mailboxes/{older.id}", older)
    )
    for worker in server.workers():
        worker.kill()
    async with asyncio.timeout(60):
        while await rows(server, gone, older, emptied) != (0, 1):
            await asyncio.sleep(0.2)
    assert [item["subject"] for item in await server.messages(kept)] == ["shared"]
