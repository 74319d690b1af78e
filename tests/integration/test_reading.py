"""Opened messages against real children: one run for all who ask, kept by the message, no client in another's way."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from server.model.errors import Refused, Unavailable
from server.services import sandbox
from server.services.mailboxes import reading
from server.services.mailboxes.reading import READINGS, Readers
from server.services.sandbox import RUNS, Sandbox
from tests.clients import of

LARGE = b"Subject: s\r\nContent-Type: text/html\r\n\r\n<p>Hello</p>" + b" " * 1_100_000
HTML = "<p onclick=x>Hello</p>" * 1000


class Pool:
    """Readers over a pool of their own, and a clock that is moved by hand."""

    def __init__(self) -> None:
        self.sandbox = Sandbox("test reading", queue=20)
        self.now = 0.0
        self.fetched = 0
        self.readers = Readers(self.sandbox, 60, clock=lambda: self.now)

    async def fetch(self) -> bytes:
        self.fetched += 1
        return LARGE

    def runs(self) -> float:
        return sum(n for (pool, _), n in RUNS.values.items() if pool == "test reading")

    async def occupy(self, *clients: str) -> "asyncio.Task[None]":
        """A child that works until the task is cancelled."""
        task = asyncio.create_task(self.sandbox.run(time.sleep, 3600, wait=60, clients=of(*clients)))
        await asyncio.sleep(0)
        return task


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    made = Pool()
    yield made
    await made.sandbox.close()


async def word(work: Coroutine[Any, Any, object]) -> str:
    with pytest.raises((Refused, Unavailable)) as failed:
        await work
    return failed.value.word if isinstance(failed.value, Refused) else "unavailable"


async def test_readers_of_one_message_share_a_run_and_its_result_is_kept(pool: Pool) -> None:
    before = pool.runs()
    opened = await asyncio.gather(*(pool.readers.opened("id", pool.fetch, of(f"client {n}")) for n in range(5)))
    assert {one.html[:12] for one in opened} == {"<p>Hello</p>"}
    fetched = pool.fetched
    safe = await asyncio.gather(*(pool.readers.safe("id", HTML, of(f"client {n}")) for n in range(5)))
    assert set(safe) == {"<p>Hello</p>" * 1000}
    assert await pool.readers.opened("id", pool.fetch, ()) == opened[0]
    assert await pool.readers.safe("id", HTML, ()) == safe[0]
    assert pool.runs() - before == 2
    assert pool.fetched == fetched, "a kept message needs no bytes"


async def test_kept_result_ends_with_its_time_and_under_its_bound(pool: Pool) -> None:
    await pool.readers.safe("id", HTML, ())
    pool.now = 61
    before = pool.runs()
    await pool.readers.safe("id", HTML, ())
    assert pool.runs() - before == 1
    small = Readers(pool.sandbox, 60, most=20_000, clock=lambda: pool.now)
    for n in range(4):
        await small.safe(f"id {n}", HTML, ())
    before = pool.runs()
    await small.safe("id 3", HTML, ())
    assert pool.runs() == before
    await small.safe("id 0", HTML, ())
    assert pool.runs() - before == 1


async def test_what_broke_a_bound_is_not_computed_again(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "STARVED", 1000)  # however busy this machine is
    monkeypatch.setattr(reading, "SANITISE_TIMEOUT", 0.05)
    monkeypatch.setattr(reading, "sanitise", _endless)
    assert await pool.readers.safe("id", HTML, ()) == ""
    before = pool.runs()
    assert await pool.readers.safe("id", HTML, ()) == ""
    assert pool.runs() == before


def _endless(html: str) -> str:
    while html:
        pass
    return html


async def test_want_of_room_is_no_result(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "WAIT", 0.1)
    others = [await pool.occupy("a"), await pool.occupy("b")]
    assert await word(pool.readers.safe("id", HTML, of("c"))) == "unavailable"
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    assert await pool.readers.safe("id", HTML, of("c")) == "<p>Hello</p>" * 1000


async def test_guest_at_its_share_is_refused_alone(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "WAIT", 0.1)
    slow = await pool.occupy("guest", "box")
    assert await word(pool.readers.safe("id", HTML, of("guest", "box"))) == "rate_limited"
    assert await word(pool.readers.safe("id", HTML, of("elsewhere", "box"))) == "rate_limited"
    monkeypatch.setattr(reading, "WAIT", 60)
    assert await pool.readers.safe("id", HTML, of("other", "other box")) == "<p>Hello</p>" * 1000
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)


async def test_reader_whose_client_goes_leaves_the_run_to_the_others(pool: Pool) -> None:
    first = asyncio.create_task(pool.readers.safe("id", HTML, of("a")))
    await asyncio.sleep(0)
    second = asyncio.create_task(pool.readers.safe("id", HTML, of("b")))
    await asyncio.sleep(0)
    before = pool.runs()
    first.cancel()
    assert await second == "<p>Hello</p>" * 1000
    assert pool.runs() - before == 1


async def test_joined_run_that_was_refused_for_another_is_tried_with_ones_own_share(pool: Pool) -> None:
    slow = await pool.occupy("guest")
    before = dict(READINGS.values)
    hopeless = asyncio.create_task(pool.readers._shared(("k",), _refused_once(pool, "guest")))
    await asyncio.sleep(0)
    joined = asyncio.create_task(pool.readers._shared(("k",), _refused_once(pool, "other")))
    assert await word(_as_coroutine(hopeless)) == "rate_limited"
    assert await joined == 1
    assert READINGS.values[("shared",)] - before.get(("shared",), 0) == 1
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)


def _refused_once(pool: Pool, client: str) -> Callable[[], Coroutine[Any, Any, int]]:
    async def work() -> int:
        wait = 0.1 if client == "guest" else 60
        return await pool.sandbox.run(abs, -1, wait=wait, clients=of(client))

    return work


async def _as_coroutine(task: "asyncio.Task[Any]") -> Any:
    return await task
