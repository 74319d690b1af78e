"""Promises 1, 3 and 4: what was answered 250 is readable, whoever is killed and whoever hangs up."""

import asyncio
import os
import random
import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.running import Box, Server, lasting
from tests.system.senders import Burst, dialog, vanish

OwnServer = Callable[..., Server]
_ID = re.compile(rb"^Received: .*?\bid ([0-9a-f-]{36})", re.S | re.M)


async def stored_ids(server: Server, box: Box) -> Counter[str]:
    """The id in the Received line of every message that the API shows."""
    items = await server.messages(box)
    gate = asyncio.Semaphore(20)
    async with aiohttp.ClientSession(headers=box.auth) as client:

        async def one(message_id: str) -> str:
            async with gate, client.get(f"{server.http}/v1/mailboxes/{box.id}/messages/{message_id}/raw") as response:
                found = _ID.search(await response.read())
                assert found
                return found[1].decode()

        return Counter(await asyncio.gather(*(one(item["id"]) for item in items)))


def kill_worker(server: Server) -> None:
    random.choice(server.workers()).kill()


def kill_backend(server: Server) -> None:
    random.choice(server.backends()).kill()


def kill_postmaster(server: Server) -> None:
    server.postmaster().kill()


def kill_supervisor(server: Server) -> None:
    """And start again as whoever watches over it would."""
    assert server.process is not None
    family = psutil.Process(server.process.pid).children(recursive=True)
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    psutil.wait_procs(family, timeout=30)
    server.start()


async def test_killing_every_process_in_turn_loses_nothing_that_was_answered_250(
    own_server: OwnServer, tmp_path: Path
) -> None:
    server = own_server(MAILBOX_MAX_MESSAGES="0", DRAIN_DEADLINE="5s", **lasting())
    box = await server.mailbox()
    burst = Burst(tmp_path, server.smtp, box.address)
    burst.start(4)
    for _ in range(2):
        for kill in (kill_worker, kill_backend, kill_worker, kill_postmaster, kill_supervisor):
            await burst.more(50)
            await asyncio.sleep(random.uniform(0, 0.5))
            await asyncio.to_thread(kill, server)
    await burst.more(50)
    promised = await burst.stop()
    readable = await stored_ids(server, box)
    assert promised - set(readable) == set()
    repeated = {mail_id: n for mail_id, n in readable.items() if n > 1}
    print(f"{len(promised)} answered 250, {sum(readable.values())} stored, {len(repeated)} of them more than once")
    assert not repeated  # an id is made for each DATA: the server itself never stores one twice
    counts = [item["seq"] for item in await server.messages(box)]
    assert len(counts) == len(set(counts))


@pytest.mark.parametrize("how", ["fin", "rst", "half"])
async def test_client_that_goes_after_the_dot_harms_no_neighbour(server: Server, how: str) -> None:
    gone, staying = await server.mailbox(), await server.mailbox()
    for turn in range(10):
        sockets = await asyncio.gather(
            *(asyncio.to_thread(dialog, server.smtp, gone.address, f"gone {turn} {n}") for n in range(5))
        )
        senders = [server.deliver(staying, subject=f"staying {turn} {n}") for n in range(3)]
        await asyncio.gather(*senders, *(asyncio.to_thread(vanish, sock, how) for sock in sockets))
    assert len(await server.messages(staying)) == 30
    async with asyncio.timeout(60):
        while len(await server.messages(gone)) < (0 if how == "rst" else 50):  # a reset may overtake the dot itself
            await asyncio.sleep(0.1)
    subjects = [item["subject"] for item in await server.messages(gone)]
    assert len(subjects) == len(set(subjects))


async def test_stop_under_load_finishes_what_it_began(own_server: OwnServer, tmp_path: Path) -> None:
    server = own_server(MAILBOX_MAX_MESSAGES="0", **lasting())
    box = await server.mailbox()
    burst = Burst(tmp_path, server.smtp, box.address)
    burst.start(2)
    await burst.more(50)
    assert await asyncio.to_thread(server.stop) == 0
    await asyncio.to_thread(server.start)
    await burst.more(50)
    promised = await burst.stop()
    assert promised - set(await stored_ids(server, box)) == set()


async def test_second_start_finds_the_data_of_the_first(own_server: OwnServer) -> None:
    server = own_server()
    box = await server.mailbox("keepsake")
    await server.deliver(box, subject="still here")
    assert await asyncio.to_thread(server.stop) == 0
    await asyncio.to_thread(server.start)
    assert [item["subject"] for item in await server.messages(box)] == ["still here"]
