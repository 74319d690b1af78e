"""Measuring replicas: one worker of a host asks each primary where its log ends, and each replica how far it has come.

Lives here: the sampling, its figures, and saying once that a replica is left out and once that it is back. Must not
know: who reads from replicas.

A sample is a moment and the position up to which the primary had flushed its log when it was asked then: whatever any
session saw committed before the moment lies below the position. A replica that has replayed a sample's position shows
everything of before its moment. Ten samples a second, however much mail there is.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

import asyncpg

from server.log import event
from server.metrics import Counter, Gauge
from server.primary import connect
from server.store.pools import DATABASE_ERRORS, ERRORS, spoken
from server.store.replicas.positions import MAX_LAG, Position, Positions

INTERVAL: Final = 0.1  # s between samples: how long after a change its mailbox is read from the primary at least
_TIMEOUT: Final = 1.0
_RETRY: Final = 0.5  # s until a server that failed is tried again, and until a worker asks whether it is to measure
_KEPT: Final = round(2 * MAX_LAG / 1e9 / INTERVAL)  # samples; a replica behind the oldest of them is left out anyway

LAG_SECONDS: Final = Gauge(
    "tempmail_database_replica_lag_seconds", "Age of the state that a replica is known to show.", ("replica",)
)
LAG_BYTES: Final = Gauge("tempmail_database_replica_lag_bytes", "Log that a replica has not replayed.", ("replica",))
LEFT_OUT: Final = Counter("tempmail_database_replica_left_out_total", "Times a replica was left out.", ("replica",))

_FLUSHED: Final = "SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint"
_CLUSTER: Final = "SELECT system_identifier FROM pg_control_system()"
_STANDING: Final = """SELECT pg_is_in_recovery() AS standby,
    coalesce(pg_last_wal_replay_lsn() - '0/0', 0)::bigint AS replayed,
    EXISTS (SELECT FROM pg_stat_wal_receiver) AS streaming,
    (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint AS server"""


class Unfit(Exception):
    """The server at a replica's DSN is none of the primary's replicas, or not now; the text says why."""


class Primary:
    """A primary's last samples."""

    def __init__(self) -> None:
        self.cluster: int | None = None
        self._samples: deque[tuple[int, int]] = deque(maxlen=_KEPT)

    async def sample(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Until the connection fails. What an earlier one brought is void: another server may have become primary."""
        self._samples.clear()
        self.cluster = await connection.fetchval(_CLUSTER)
        while True:
            moment = time.monotonic_ns()
            position: int = await connection.fetchval(_FLUSHED)
            self._samples.append((moment, position))
            await asyncio.sleep(INTERVAL)

    def newest(self) -> int:
        """The last position; 0 without any."""
        return self._samples[-1][1] if self._samples else 0

    def covered(self, replayed: int) -> tuple[int, int] | None:
        """The last sample that lies within what was replayed."""
        return next((sample for sample in reversed(self._samples) if sample[1] <= replayed), None)


class ReplicaMonitor:
    """``pairs``: primary's and replica's DSN of every replica, in the order of its number."""

    def __init__(self, pairs: Sequence[tuple[str, str]], standings: Positions) -> None:
        self._pairs, self._standings = pairs, standings
        self._primaries = {primary: Primary() for primary, _ in pairs}
        self._out: dict[int, bool] = {}
        self._why: dict[int, str] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        """Measure as long as no other worker does."""
        while True:
            if self._standings.take():
                try:
                    await self._follow_all()
                except Exception as error:  # a fault of ours: replicas are left out meanwhile
                    event("error", "replicas not measured", reason=repr(error))
                finally:
                    self._standings.drop()
            await asyncio.sleep(_RETRY)

    async def _follow_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for dsn, primary in self._primaries.items():
                group.create_task(self._sample(dsn, primary))
            for replica, (dsn, own) in enumerate(self._pairs):
                group.create_task(self._measure(replica, own, self._primaries[dsn]))
            group.create_task(self._judge())

    async def _sample(self, dsn: str, primary: Primary) -> None:
        while True:
            try:
                connection = await _connect(dsn)
                try:
                    await primary.sample(connection)
                finally:
                    connection.terminate()
            except DATABASE_ERRORS as error:
                ERRORS.add((type(error).__name__, "replica"))
            await asyncio.sleep(_RETRY)

    async def _measure(self, replica: int, dsn: str, primary: Primary) -> None:
        while True:
            try:
                connection = await _connect(dsn)
                try:
                    await self._follow(connection, replica, primary)
                finally:
                    connection.terminate()
            except Unfit as unfit:
                self._standings.distrust(replica)
                self._why[replica] = str(unfit)
            except DATABASE_ERRORS as error:
                ERRORS.add((type(error).__name__, "replica"))
                self._why[replica] = spoken(error)
            await asyncio.sleep(_RETRY)

    async def _follow(self, connection: "asyncpg.Connection[asyncpg.Record]", replica: int, primary: Primary) -> None:
        """Until it fails. A replica without a stream shows nothing new, and may have gone another way than the primary:
        then its positions mean nothing."""
        cluster = await connection.fetchval(_CLUSTER)
        while True:
            asked = time.monotonic_ns()
            [row] = await connection.fetch(_STANDING)
            if not row["standby"]:
                raise Unfit("it is no replica, or none any more")
            if primary.cluster not in (None, cluster):
                raise Unfit("it is a replica of another server than the primary")
            LAG_BYTES.set(max(0, primary.newest() - row["replayed"]), (str(replica),))
            covered = primary.covered(row["replayed"])
            if covered is not None and row["streaming"]:
                self._standings.write(replica, Position(*covered, asked, row["server"]))
            self._why[replica] = "it lags" if row["streaming"] else "it has no stream from the primary"
            await asyncio.sleep(INTERVAL)

    async def _judge(self) -> None:
        """Say which are left out, and which are back, once each."""
        await asyncio.sleep(MAX_LAG / 1e9)  # their time to be measured at all
        while True:
            now, left_out = time.monotonic_ns(), self._standings.left_out()
            for replica in range(len(self._pairs)):
                label = (str(replica),)
                LAG_SECONDS.set(round((now - self._standings.read(replica).as_of) / 1e9, 3), label)
                out = replica in left_out
                if out and not self._out.get(replica, False):
                    LEFT_OUT.add(label)
                    event("warning", "replica left out", replica=replica, reason=self._why.get(replica, "no answer"))
                if not out and self._out.get(replica, True):
                    was_out = replica in self._out  # at its level an operator who read of the loss reads of the end too
                    event("warning" if was_out else "info", "replica is read from", replica=replica)
                self._out[replica] = out
            await asyncio.sleep(INTERVAL)


async def _connect(dsn: str) -> "asyncpg.Connection[asyncpg.Record]":
    settings = {"application_name": "tempmail", "search_path": ""}
    connection: asyncpg.Connection[asyncpg.Record] = await connect(
        dsn, timeout=_TIMEOUT, command_timeout=_TIMEOUT, server_settings=settings
    )
    return connection
