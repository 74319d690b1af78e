"""The bus: what one worker tells every other hears, in order, once; losing the connection is noticed and mended."""

import asyncio
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from server.bus.channel import Channel
from server.bus.postgres import PostgresChannel
from server.model import ids
from server.model.event import NOBODY, Hint, Kind
from server.store.pools import Pools

HOST = b"thishost"


class Listener:
    def __init__(self) -> None:
        self.heard: list[tuple[Hint, bool]] = []

    def __call__(self, hints: list[Hint], other_host: bool) -> None:
        self.heard += [(hint, other_host) for hint in hints]

    async def until(self, done: Callable[[list[tuple[Hint, bool]]], bool]) -> None:
        async with asyncio.timeout(60):
            while not done(self.heard):
                await asyncio.sleep(0.01)


class Pair:
    """Three ends: one that speaks, one on its host, one on another."""

    def __init__(self, dsn: str, pools: Pools) -> None:
        self.near, self.far, self.own = Listener(), Listener(), Listener()
        lend = pools.messages.lender.acquire
        self.speaker: Channel = PostgresChannel(HOST, 0, self.own, dsn, lend)
        self.ends: list[Channel] = [
            self.speaker,
            PostgresChannel(HOST, 1, self.near, dsn, lend),
            PostgresChannel(b"another.", 1, self.far, dsn, lend),
        ]

    async def connected(self) -> None:
        async with asyncio.timeout(60):
            while not all(end.healthy for end in self.ends):
                await asyncio.sleep(0.01)


@pytest.fixture
async def pair(empty: str, pools: Pools) -> AsyncIterator[Pair]:
    made = Pair(empty, pools)
    for end in made.ends:
        end.start()
    await made.connected()
    yield made
    for end in made.ends:
        await end.close()


def hints(count: int) -> list[Hint]:
    return [Hint(Kind.MAIL, ids.new(), seq) for seq in range(count)]


async def test_every_other_worker_hears_in_order_and_knows_the_host(pair: Pair) -> None:
    sent = hints(1000)  # more than one NOTIFY holds
    for start in range(0, 1000, 100):
        pair.speaker.publish(sent[start : start + 100])
    await pair.near.until(lambda heard: len(heard) == 1000)
    await pair.far.until(lambda heard: len(heard) == 1000)
    assert pair.near.heard == [(hint, False) for hint in sent]
    assert pair.far.heard == [(hint, True) for hint in sent]
    assert pair.own.heard == []


async def test_lost_connection_is_noticed_and_mended(pair: Pair, empty: str) -> None:
    other = await asyncpg.connect(empty)
    await other.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await other.close()
    pair.speaker.publish(hints(1))  # may be lost: readers poll
    noticed = set[int]()
    async with asyncio.timeout(60):
        while len(noticed) < len(pair.ends):
            noticed |= {nth for nth, end in enumerate(pair.ends) if not end.healthy and not end.whole}
            await asyncio.sleep(0.01)  # each is silent for RETRY before it listens again
    await pair.connected()
    sent = hints(3)
    async with asyncio.timeout(60):
        while (sent[-1], False) not in pair.near.heard:
            pair.speaker.publish(sent)
            await asyncio.sleep(0.3)


async def test_foreign_payload_is_dropped_and_the_next_is_heard(pair: Pair, pools: Pools) -> None:
    for payload in ("", "hello", "AAAA", "!" * 40, "\u00e9"):
        await pools.messages.execute("SELECT pg_notify('tempmail_hints', $1)", payload)
    sent = hints(1)
    pair.speaker.publish(sent)
    await pair.near.until(lambda heard: (sent[0], False) in heard)
    assert all(end.healthy for end in pair.ends)


async def test_hints_that_did_not_come_are_noticed_by_other_hosts(pair: Pair) -> None:
    lost = Hint(Kind.LOST, NOBODY)
    sent = hints(3)
    pair.speaker.publish(sent[:1])
    await pair.far.until(lambda heard: (sent[0], True) in heard)
    pair.speaker._encode(sent[1:2])  # made and numbered, and never sent
    pair.speaker.publish(sent[2:])
    await pair.near.until(lambda heard: (sent[2], False) in heard)
    await pair.far.until(lambda heard: (sent[2], True) in heard)
    assert pair.far.heard == [(sent[0], True), (lost, True), (sent[2], True)]
    assert pair.near.heard == [(sent[0], False), (sent[2], False)]  # they share the generations


async def test_a_host_knows_whether_another_listens_and_a_newcomer_that_it_was_not_told_yet(
    empty: str, pools: Pools
) -> None:
    def end(host: bytes, worker: int) -> Channel:
        made = PostgresChannel(host, worker, Listener(), empty, pools.messages.lender.acquire)
        made.start()
        return made

    async def until(done: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not done():
                await asyncio.sleep(0.01)

    first, sibling = end(HOST, 0), end(HOST, 1)
    await until(lambda: first.alone and sibling.alone)
    assert first.whole
    newcomer = end(b"another.", 0)
    await until(lambda: newcomer.healthy)
    assert not newcomer.alone
    assert not newcomer.whole
    await until(lambda: not first.alone and not sibling.alone)
    await newcomer.close()
    await until(lambda: first.alone)
    for one in (first, sibling):
        await one.close()
