"""Many sessions at once, in every state that one can be left in: when they are gone, nothing of them is."""

import asyncio
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from tests.contract.listening import ENVELOPE, MAIL, Client, Listening, listening

SESSIONS = 500
STATES = {
    "greeted": b"",
    "half a line": b"EHLO cli",
    "hello said": b"EHLO x\r\n",
    "a mail begun": ENVELOPE,
    "within DATA": ENVELOPE + b"DATA\r\n" + b"x" * 500,
    "within a chunk": ENVELOPE + b"BDAT 900\r\n" + b"x" * 500,
    "between chunks": ENVELOPE + b"BDAT 500\r\n" + b"x" * 500,
    "waiting for a commit": ENVELOPE + MAIL + b"NOOP\r\n",
}


@pytest.fixture(scope="module")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    """The loop that the product runs on."""
    return uvloop.EventLoopPolicy()


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """Both ends of each connection are open in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def open_in(place: Listening, said: bytes) -> Client:
    client = await place.client()
    assert (await client.reply()).startswith("220")
    client.write(said)
    return client


async def emptied(place: Listening) -> None:
    async with asyncio.timeout(30):
        while place.listener._sessions:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("by", ["the clients", "their times", "our end"])
async def test_descriptors_seats_and_bytes_come_back(tmp_path: Path, by: str) -> None:
    async with listening(tmp_path) as place:
        place.delivery.pending = True
        await (await open_in(place, b"QUIT\r\n")).rest()  # what is opened once and kept is open now
        await emptied(place)
        before = len(os.listdir("/proc/self/fd"))
        states = list(STATES.values())
        clients = [await open_in(place, states[number % len(states)]) for number in range(SESSIONS)]
        mails = sum(number % len(states) == len(states) - 1 for number in range(SESSIONS))
        shared = place.listener._shared
        assert shared is not None
        async with asyncio.timeout(30):
            while len(place.delivery.envelopes) < mails or shared.in_flight < 500 * 3 * (SESSIONS // len(states)):
                await asyncio.sleep(0.01)
        assert (len(place.listener._sessions), shared.seats._taken) == (SESSIONS, SESSIONS)
        for client in clients if by == "the clients" else ():
            client.writer.transport.abort()
        for future in place.delivery.futures:
            future.set_result([])
        if by == "their times":
            await asyncio.sleep(0)
            place.later(31)
        elif by == "our end":
            await place.listener.drain(0.1)
        for client in clients if by != "the clients" else ():
            client.writer.close()
        await emptied(place)
        assert (shared.in_flight, shared.seats._taken, bool(shared.seats._held)) == (0, 0, False)
        async with asyncio.timeout(30):
            while len(os.listdir("/proc/self/fd")) > before:
                await asyncio.sleep(0.01)
