"""Reads from replicas that nobody can tell from reads of the primary.

Lives here: which replica may answer what, its connections, and falling back to the primary. Must not know: what is
asked, what the keys stand for, or how replicas are measured (monitor.py).

Promise 5 on a replica. The host's generations tell when a key was last changed, by a worker or by another host's hint;
``Standing.as_of`` tells up to which moment everything committed is on the replica. A key is read from a replica only
when no change of it is under way and the last was over before that moment; from the primary otherwise. So nobody is
shown a state older than one shown before, and no mail costs a query for it: positions are sampled beside, never per
write.

A replica that crashes may come back behind where it was. What was measured therefore counts for a connection only if it
was open when the replica was asked (then both speak of one run of it), or found the replica that far when it was made.

Whatever goes wrong on a replica, the primary is asked instead; the replica rests until it is measured anew.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import asyncpg

from server.config.settings import Config
from server.metrics import Counter
from server.store.pools import DATABASE_ERRORS, ERRORS, SCHEMAS, Schema, session_settings, share
from server.store.replicas.monitor import ReplicaMonitor
from server.store.replicas.positions import MAX_LAG, Positions

TIMEOUT: Final = 1.0  # s for a connection, and for an answer; then the primary is asked
PATIENCE: Final = 0.5  # s that a survey waits for a replica to come up with the present
_NAP: Final = 0.02

READS: Final = Counter(
    "tempmail_database_reads_total", "Reads that a replica might answer, by who answered.", ("target",)
)
_PRIMARY: Final = ("primary",)
_IDENTITY: Final = """SELECT pg_catalog.pg_last_wal_replay_lsn() - '0/0' AS replayed,
    (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint AS server"""

Changed = Callable[[str], int | None]
"""A key -> when its last change was over (time.monotonic_ns), None while one is under way."""


class _Connection(asyncpg.Connection):
    """Knows when it was made, which run of a server it leads to, and how far that had come."""

    __slots__ = ("born", "replayed", "server")

    born: int
    replayed: int
    server: int


async def _introduce(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    assert isinstance(connection, _Connection)
    connection.born = time.monotonic_ns()
    [row] = await connection.fetch(_IDENTITY)
    connection.replayed, connection.server = int(row["replayed"] or 0), row["server"]


class Replica:
    """One replica's connections, of one worker."""

    def __init__(self, index: int, dsn: str, config: Config, standings: Positions, most: int) -> None:
        self.index, self._standings = index, standings
        self._target = (f"replica {index}",)
        self._rests_since = 0
        self._pool = asyncpg.create_pool(
            dsn,
            min_size=0,  # one that is down must not keep us from starting
            max_size=most,
            max_inactive_connection_lifetime=config.database_max_idle_time,
            command_timeout=TIMEOUT,
            timeout=TIMEOUT,
            connection_class=_Connection,
            init=_introduce,
            reset=_nothing,
            server_settings=session_settings(config.database_statement_timeout),
        )

    async def open(self) -> None:
        await self._pool

    def close(self) -> None:
        self._pool.terminate()  # nothing but reads, and the requests have ended

    def as_of(self) -> int:
        """Up to which moment it shows everything; 0 while it is not to be asked."""
        standing = self._standings.read(self.index)
        rests = standing.asked <= self._rests_since
        return 0 if rests or standing.as_of < time.monotonic_ns() - MAX_LAG else standing.as_of

    async def fetch(self, after: int, sql: str, args: Sequence[Any]) -> list[asyncpg.Record] | None:
        """Its rows, showing everything until ``after`` at least; None where that is not sure, or it fails."""
        try:
            async with self._pool.acquire(timeout=TIMEOUT) as connection:
                if not self._vouched(connection, after):
                    return None
                try:
                    rows: list[asyncpg.Record] = await connection.fetch(sql, *args)
                except TimeoutError:
                    connection.terminate()  # it may hang: returning it whole would take as long again
                    raise
        except DATABASE_ERRORS as error:
            self._rests_since = time.monotonic_ns()
            ERRORS.add((type(error).__name__, "replica"))
            return None
        READS.add(self._target)
        return rows

    def _vouched(self, connection: Any, after: int) -> bool:
        """``connection``: a _Connection, behind the pool's proxy."""
        standing = self._standings.read(self.index)
        same_run = connection.born <= standing.asked or connection.replayed >= standing.replayed
        return standing.as_of >= after and connection.server == standing.server and same_run


async def _nothing(_: "asyncpg.Connection[asyncpg.Record]") -> None:
    """A connection that only reads leaves nothing behind that would need a round trip."""


class ReplicaRouter:
    """One domain's replicas; implements pools.Copies."""

    def __init__(self, replicas: Sequence[Replica], changed: Changed) -> None:
        self._replicas, self._changed = replicas, changed
        self._floor = time.monotonic_ns()  # what this worker's predecessors wrote and read is not known to it

    def not_before(self, moment: int) -> None:
        """Other hosts' changes until ``moment`` may have gone unheard: nothing older is read."""
        self._floor = max(self._floor, moment)

    async def read(self, keys: Sequence[str], sql: str, args: Sequence[Any]) -> list[asyncpg.Record] | None:
        """Rows that hold every change of ``keys`` there was; None where only the primary is sure to have them."""
        after = self._floor
        for key in keys:
            changed = self._changed(key)
            if changed is None:
                READS.add(_PRIMARY)
                return None
            after = max(after, changed)
        replica = self._preferred(keys)
        rows = None if replica is None or replica.as_of() < after else await replica.fetch(after, sql, args)
        if rows is None:
            READS.add(_PRIMARY)
        return rows

    def _preferred(self, keys: Sequence[str]) -> Replica | None:
        """One key is always read from the same one, in all workers: between two of them a reader could go back in time.
        Several together are read from the first there is."""
        usable = [replica for replica in self._replicas if replica.as_of()]
        if len(usable) < 2 or len(keys) != 1:
            return usable[0] if usable else None
        return usable[hash(keys[0]) % len(usable)]

    async def survey(self, sql: str, args: Sequence[Any]) -> list[asyncpg.Record] | None:
        """Rows as of now, from whichever replica gets here first; None when none does for ``PATIENCE``."""
        now = time.monotonic_ns()
        while time.monotonic_ns() < now + PATIENCE * 1e9 and any(replica.as_of() for replica in self._replicas):
            for replica in self._replicas:
                if replica.as_of() >= now:
                    rows = await replica.fetch(now, sql, args)
                    if rows is not None:
                        return rows
            await asyncio.sleep(_NAP)
        READS.add(_PRIMARY)
        return None


class Replicas:
    """All replicas of all domains, as one worker uses them."""

    def __init__(self, config: Config, standings: Positions, changed: Changed) -> None:
        pairs, most = config.replicas(), share(config)
        self._all = [Replica(i, dsn, config, standings, most) for i, (_, dsn) in enumerate(pairs)]
        self._domains = {
            domain: ReplicaRouter([self._all[pairs.index((config.dsn(domain), dsn))] for dsn in own], changed)
            for domain in SCHEMAS
            if (own := config.replica_dsns(domain))
        }
        self._follower = ReplicaMonitor(pairs, standings)
        self._standings = standings

    async def open(self) -> None:
        for replica in self._all:
            await replica.open()
        if self._all:
            self._follower.start()

    def of(self, domain: Schema) -> ReplicaRouter | None:
        return self._domains.get(domain)

    def not_before(self, seconds: float) -> None:
        """See Copies: other hosts' changes may have gone unheard until ``seconds`` ago."""
        for copies in self._domains.values():
            copies.not_before(time.monotonic_ns() - round(seconds * 1e9))

    def standing(self) -> str:
        """ "ok", or which are left out."""
        left_out = ", ".join(map(str, self._standings.left_out()))
        return f"degraded: of {len(self._all)} left out: {left_out}" if left_out else "ok"

    async def close(self) -> None:
        await self._follower.close()
        for replica in self._all:
            replica.close()
