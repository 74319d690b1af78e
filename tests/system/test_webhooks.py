"""Webhooks against real processes that are killed: what was stored is told, and nothing is told that was not."""

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import asyncpg
import psutil
import pytest

from tests.hooking import Reader, reader, signed
from tests.receiving import Receiver, Request, receiving, status
from tests.running import Box, Server, lasting

OwnServer = Callable[..., Server]
SETTINGS = {
    "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.1",
    "WEBHOOK_RETRY_DELAYS": "200ms,200ms,1s,1s,1s",
    "DRAIN_DEADLINE": "5s",
}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as started:
        yield started


def told(receiver: Receiver) -> dict[str, list[Request]]:
    """Requests by the id of the message they tell of."""
    found: dict[str, list[Request]] = {}
    for request in receiver.requests:
        found.setdefault(json.loads(request.body)["data"]["messageId"], []).append(request)
    return found


async def stored(server: Server, box: Box) -> set[str]:
    return {message["id"] for message in await server.messages(box)}


async def capacious(server: Server) -> tuple[Reader, Box]:
    """An account with a mailbox that holds as many messages as a test sends."""
    me = await reader(server)
    await execute(server, "UPDATE users.users SET tier = 'enterprise' WHERE id = $1", me.id)
    box = await me.mailbox()
    await execute(server, "UPDATE messages.inboxes SET capacity = 0 WHERE mailbox_id = $1", box.id)
    return me, box


async def connect(server: Server) -> "asyncpg.Connection[Any]":
    """To the server's own PostgreSQL, by the port and socket directory that it lays down (lines 4 and 5)."""
    [record] = (server.folder / "data").rglob("postmaster.pid")
    lines = record.read_text().splitlines()
    return await asyncpg.connect(host=lines[4], port=int(lines[3]), user="tempmail", database="tempmail")


async def execute(server: Server, statement: str, *values: Any) -> Any:
    connection = await connect(server)
    try:
        return await connection.fetch(statement, *values)
    finally:
        await connection.close()


async def send(server: Server, box: Box, count: int) -> int:
    """Messages one after the other, whatever happens to the server; how many were accepted."""
    accepted = 0
    for n in range(count):
        try:
            await server.deliver(box, subject=str(n))
            accepted += 1
        except OSError:  # smtplib's exceptions and lost connections
            await asyncio.sleep(0.1)
    return accepted


async def test_killing_workers_while_they_deliver_loses_nothing_and_changes_no_id(
    own_server: OwnServer, receiver: Receiver
) -> None:
    server = own_server(**SETTINGS)
    me, box = await capacious(server)
    webhook = await me.hook(receiver)
    let_go = asyncio.Event()

    async def hold(request: Request, writer: asyncio.StreamWriter) -> None:
        """The first few are never answered: their workers die first."""
        if not let_go.is_set():
            await asyncio.sleep(3600)
        await status(200)(request, writer)

    receiver.answer = hold
    assert await send(server, box, 20) == 20
    await receiver.until(lambda r: len(r.requests) >= 4)
    for worker in server.workers():
        os.kill(worker.pid, signal.SIGKILL)
    let_go.set()
    messages = await stored(server, box)
    assert len(messages) == 20
    await receiver.until(lambda r: {m for m, rs in told(r).items() if len(rs) > 1} and set(told(r)) == messages, 80)
    async with asyncio.timeout(60):
        while any(not one["success"] for one in await me.deliveries(webhook)):
            await asyncio.sleep(0.2)
    logged = {one["payload"]["data"]["messageId"]: one["id"] for one in await me.deliveries(webhook)}
    assert set(logged) == messages
    for message, requests in told(receiver).items():
        assert {request.headers["x-webhook-id"] for request in requests} == {logged[message]}
        assert len({request.body for request in requests}) == 1
        assert all(signed(request, webhook["secret"]) for request in requests)


async def test_message_and_its_delivery_are_there_together_or_not_at_all(
    own_server: OwnServer, receiver: Receiver
) -> None:
    """Backends die by SIGKILL while mail is committed."""
    server = own_server(**SETTINGS | lasting())
    me, box = await capacious(server)
    await me.hook(receiver)
    killed = 0

    async def kill() -> None:
        nonlocal killed
        while True:
            await asyncio.sleep(0.7)
            backends = server.backends()
            for backend in random.sample(backends, min(1, len(backends))):
                with suppress(psutil.NoSuchProcess):
                    backend.kill()
                    killed += 1

    async def keep_sending() -> int:
        """Messages until enough were accepted, and enough has happened meanwhile, however fast the machine is."""
        accepted = 0
        while accepted < 50 or killed < 3:
            accepted += await send(server, box, 10)
        return accepted

    killer = asyncio.create_task(kill())
    async with asyncio.timeout(300):
        accepted = sum(await asyncio.gather(*(keep_sending() for _ in range(4))))
    killer.cancel()
    await asyncio.gather(killer, return_exceptions=True)
    print(f"{accepted} answered 250, {killed} backends killed")
    messages = await settled(server, box)
    assert len(messages) >= accepted
    connection = await connect(server)
    rows = await connection.fetch("SELECT data->>'messageId' AS id FROM messages.deliveries")
    await connection.close()
    recorded = [row["id"] for row in rows]
    assert len(recorded) == len(set(recorded))
    assert set(recorded) == messages
    await receiver.until(lambda r: set(told(r)) >= messages, 80)
    assert set(told(receiver)) == messages


async def settled(server: Server, box: Box) -> set[str]:
    """The messages of a mailbox, once the database answers again."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await stored(server, box)
            except (AssertionError, psutil.Error):
                await asyncio.sleep(0.5)


async def test_server_that_was_away_tells_what_it_had_stored(own_server: OwnServer, receiver: Receiver) -> None:
    server = own_server(**SETTINGS | lasting() | {"WEBHOOK_RETRY_DELAYS": "3s,3s,3s"})
    me, box = await capacious(server)
    webhook = await me.hook(receiver)
    receiver.answer = status(503)
    await server.deliver(box, subject="patient")
    await receiver.until(lambda r: len(r.requests) == 1)
    assert await asyncio.to_thread(server.stop) == 0
    receiver.answer = status(200)
    await asyncio.to_thread(server.start)
    await receiver.until(lambda r: len(r.requests) >= 2)
    assert len({request.headers["x-webhook-id"] for request in receiver.requests}) == 1
    assert all(signed(request, webhook["secret"]) for request in receiver.requests)


async def test_target_that_hangs_holds_up_no_other(own_server: OwnServer, receiver: Receiver) -> None:
    server = own_server(**SETTINGS | {"WORKERS": "1"})
    me, box = await capacious(server)

    async def hang(_: Request, __: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)

    async with receiving() as hanging:
        hanging.answer = hang
        await me.hook(hanging)
        await send(server, box, 30)
        other, quiet = await capacious(server)
        await other.hook(receiver)
        await send(server, quiet, 5)
        await receiver.until(lambda r: len(r.requests) == 5)
        assert hanging.connections == 4  # none of those was given up meanwhile
