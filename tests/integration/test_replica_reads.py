"""Which reads a replica may answer: none that would show a state older than one that was shown before.

A real server answers; what is known of it as a replica is written by the test, to the very moment.
"""

import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from server.config import settings as configuration
from server.store.replicas.positions import MAX_LAG, Position, Positions
from server.store.replicas.router import Replica, ReplicaRouter

SQL = "SELECT $1::int AS answer"
SECOND = 1_000_000_000


class Place:
    """One replica, what is known of it, and when each key was changed last (None: a change is under way)."""

    def __init__(self, dsn: str, server: int) -> None:
        self.config = configuration.load({"TEMPMAIL_DATABASE_DSN": dsn})
        self.server, self.standings = server, Positions(1)
        self.replica = Replica(0, dsn, self.config, self.standings, 2)
        self.changes: dict[str, int | None] = {}
        self.copies = ReplicaRouter([self.replica], lambda key: self.changes.get(key, 0))
        self.as_of = 0

    def measure(self, replayed: int = 0, **known: int) -> None:
        """The replica was asked just now and shows everything of before this moment."""
        self.as_of = known.get("as_of", time.monotonic_ns())
        asked = known.get("asked", time.monotonic_ns())
        self.standings.write(0, Position(self.as_of, replayed, asked, known.get("server", self.server)))

    async def answers(self, *keys: str) -> bool:
        """Whether the replica answers a read of ``keys``."""
        rows = await self.copies.read(keys, SQL, [7])
        assert rows is None or rows[0]["answer"] == 7
        return rows is not None


@pytest.fixture
async def place(empty: str) -> AsyncIterator[Place]:
    connection = await asyncpg.connect(empty)
    started = "SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint"
    made = Place(empty, await connection.fetchval(started))
    await connection.close()
    await made.replica.open()
    made.measure()
    yield made
    made.replica.close()


async def test_a_key_is_read_once_its_change_is_on_the_replica(place: Place) -> None:
    place.changes["box"] = place.as_of - 1
    assert await place.answers("box")
    place.changes["box"] = place.as_of
    assert await place.answers("box")
    place.changes["box"] = place.as_of + 1
    assert not await place.answers("box")
    place.measure()
    assert await place.answers("box")


async def test_what_the_replica_shows_is_looked_at_again_with_the_connection(place: Place) -> None:
    """Another worker may have measured it, further back, between the choice and the query."""
    assert await place.replica.fetch(place.as_of, SQL, [7]) is not None
    assert await place.replica.fetch(place.as_of + 1, SQL, [7]) is None


async def test_no_key_is_read_while_a_change_of_it_is_under_way(place: Place) -> None:
    place.changes["box"] = None
    assert not await place.answers("box")
    assert not await place.answers("other", "box")
    assert not await place.answers("box", "other")
    assert await place.answers("other")


async def test_several_keys_wait_for_the_latest_change(place: Place) -> None:
    place.changes |= {"old": place.as_of - 1, "new": place.as_of + 1}
    assert not await place.answers("new", "old")
    assert not await place.answers("old", "new")
    assert await place.answers("old")


async def test_another_server_behind_the_same_name_is_not_believed(place: Place) -> None:
    place.measure(server=place.server + 1)
    assert not await place.answers("box")
    place.measure()
    assert await place.answers("box")


async def test_a_replica_that_came_back_behind_where_it_was_is_not_believed(place: Place) -> None:
    """Its connection was made after it was asked, and it has not replayed what the measurement rests on."""
    place.measure(replayed=1 << 40, asked=time.monotonic_ns() - SECOND)
    assert not await place.answers("box")
    place.measure(replayed=1 << 40)  # asked again: the connection was open then
    assert await place.answers("box")


async def test_a_replica_that_lags_is_not_asked(place: Place) -> None:
    place.changes["box"] = -(10 * MAX_LAG)
    place.copies._floor = -(10 * MAX_LAG)
    place.measure(as_of=time.monotonic_ns() - MAX_LAG - SECOND)
    assert place.replica.as_of() == 0
    assert not await place.answers("box")


async def test_nothing_older_than_what_other_hosts_may_have_written_unheard_is_read(place: Place) -> None:
    assert await place.answers("box")
    place.copies.not_before(place.as_of + 1)
    assert not await place.answers("box")
    place.copies.not_before(0)  # never goes back
    assert not await place.answers("box")


async def test_a_replica_that_failed_rests_until_it_is_measured_again(place: Place) -> None:
    assert await place.copies.read(["box"], "SELECT 1 / $1::int AS answer", [0]) is None
    assert place.replica.as_of() == 0
    assert not await place.answers("box")
    place.measure()
    assert await place.answers("box")


async def test_a_worker_that_starts_believes_no_measurement_of_before(place: Place) -> None:
    """Its predecessor may have shown what was written since."""
    fresh = ReplicaRouter([place.replica], lambda _: 0)
    assert await fresh.read(["box"], SQL, [7]) is None
    place.measure()
    assert await fresh.read(["box"], SQL, [7]) is not None
