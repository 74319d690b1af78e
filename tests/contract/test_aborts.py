"""A worker's memory after clients cut off what they had begun, many at a time."""

import asyncio
import random
from collections.abc import Callable
from typing import Final

from tests.contract.transcript import ask
from tests.cutting import STORMS, Place
from tests.running import Server

BOUND: Final = 60 << 20  # bytes more than before
TIMES: Final = 12
PATIENCE: Final = 120.0  # s; a look at the heap of a large worker comes after a minute at the latest


async def place(server: Server) -> Place:
    """A mailbox with a message of some 6 MB."""
    box = await server.mailbox()
    text = random.Random(1).randbytes(3_000_000).hex()
    body = {"from": "a@b.c", "text": "\n".join(text[at : at + 900] for at in range(0, len(text), 900))}
    answer = await ask(server, "POST", f"/v1/mailboxes/{box.id}/messages", box, json=body)
    assert answer.status == 201
    return Place(("127.0.0.1", int(server.http.rpartition(":")[2])), server.smtp, box, answer.data["id"])


async def test_memory_is_given_back_after_storms_of_cut_transfers(own_server: Callable[..., Server]) -> None:
    server = own_server(WORKERS="1")
    where = await place(server)
    [worker] = server.workers()
    before = worker.memory_info().rss
    for _ in range(TIMES):
        await asyncio.gather(*[storm(where) for storm in STORMS.values()])
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while (more := worker.memory_info().rss - before) > BOUND:
        assert asyncio.get_running_loop().time() < deadline, f"{more >> 20} MiB stay"
        await asyncio.sleep(0.5)
    await asyncio.sleep(1)
    assert worker.memory_info().rss - before <= BOUND
    assert (await ask(server, "GET", f"/v1/mailboxes/{where.box.id}/messages", where.box)).status == 200
