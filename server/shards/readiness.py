"""Whether this node takes and shows mail, for /health/ready, the metrics and the log.

Lives here: what is looked at, and which findings stop a node. Must not know: HTTP.

A finding is "ok", "degraded: ..." where something stands in for what is away, or anything else where this node cannot
take or show mail. Redis, replicas and the users' database degrade a node: mail is taken and shown without them. If they
made nodes not ready, one outage would take every node out of its balancer at once.

Whether the database commits is judged by real commits of mail, of all workers of the node. Where none came lately, a
probe is committed over the same connection. It makes a table, fills some pages and drops it, in one transaction: a full
disk refuses that as it refuses mail, while an update of an existing row would still succeed.

All workers of a node give the same answer. The database is asked by one of them at a time, and its findings are shared.
Other parts are read from shared memory at each question, so no answer is older than ``KEPT``.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from server.bus.channel import Channel
from server.config.settings import Config
from server.log import event
from server.metrics import Gauge
from server.model.health import OK, degraded, lessened, level, status
from server.outages import RABBITMQ, STORAGE
from server.shards.broker import Broker
from server.shards.condition import Condition, Outcomes
from server.shards.roles import Parts
from server.store import migrate
from server.store.pools import (
    DATABASE_ERRORS,
    NO_ANSWER,
    READ_ONLY,
    SCHEMAS,
    Connection,
    Database,
    Pools,
    Schema,
    spoken,
)
from server.store.replicas.router import Replicas

KEPT: Final = 1.0  # s that findings about the database answer all who ask any worker: asking is free for anyone
LOOK: Final = 2.0  # s that a database has for its answer, and again for the probe
FRESH: Final = 5.0  # s that a commit says the database commits
ROW: Final = 2  # failed commits in a row that are believed; after one, a probe decides
HELD: Final = 15.0  # s that such failures are believed without another one
PROBE_KEPT: Final = 10.0  # s that a probe which was committed stands for the next; one that failed: KEPT
WATCH: Final = 10.0  # s between looks of the first worker when nobody asks
SLOW: Final = 10.0  # s since the last answer until silence counts as trouble: a busy database may be slow
SUCCESSION: Final = 5.0  # s that a slot may wait for a dead worker's successor
_ELSEWHERE: Final = "another worker is not connected"

HEALTH: Final = Gauge(
    "tempmail_health", "State of each part of a node: 0 ok, 1 degraded, 2 stops it taking or showing mail.", ("check",)
)


def commits(rows: Sequence[Outcomes], now: float) -> str | None:
    """The finding about commits, or None where only a probe can tell."""
    succeeded = max(row.succeeded for row in rows)
    failing = [row for row in rows if row.failed > succeeded]
    last = max(failing, key=lambda row: row.failed, default=None)
    if last and now - last.failed < HELD and sum(row.failures for row in failing) >= ROW:
        return f"mail cannot be stored: {last.reason}"
    if last is None and now - succeeded < FRESH:
        return OK
    probe = max(rows, key=lambda row: row.answered)
    sound = probe.sound == probe.answered
    since = last.failed if last else 0.0
    if not probe.answered or probe.asked <= since or now - probe.answered >= (PROBE_KEPT if sound else KEPT):
        return None
    if sound:
        return OK
    found = f"a write was refused: {probe.reason}"
    well = max(succeeded, max(row.sound for row in rows))
    return degraded(found) if probe.reason == NO_ANSWER and now - well < SLOW else found


def workers(vacancies: Sequence[float]) -> str:
    """The finding about the slots: requests to one without a worker wait in its backlog."""
    empty = [seconds for seconds in vacancies if seconds]
    if not empty:
        return OK
    counted = f"{len(vacancies) - len(empty)} of {len(vacancies)} serve"
    return counted if max(empty) > SUCCESSION else degraded(counted)


class Readiness:
    """One worker's look at its node. ``checks`` may be called as often as anyone likes."""

    def __init__(
        self,
        config: Config,
        does: Parts,
        *,
        pools: Pools,
        replicas: Replicas,
        bus: Channel,
        broker: Broker,
        condition: Condition,
        column: int,
        clock: Callable[[], str],
    ) -> None:
        self._config, self._pools, self._replicas, self._bus, self._broker = config, pools, replicas, bus, broker
        self._condition, self._column, self._clock = condition, column, clock
        # Such a node takes mail for the queue alone: known addresses are answered from memory.
        self._needs_database = not does.relay or does.api or does.push or does.consume
        self._needs_broker = does.relay
        self._looking: asyncio.Task[dict[str, str]] | None = None
        condition.answer(time.monotonic())  # they did: the pools are open
        self._watcher: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Keep the metric true, and log changes, whether or not anyone asks. In one worker of the node."""
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        before = OK
        while True:
            await asyncio.sleep(WATCH)  # first, while the other workers start
            checks = await self.checks()
            HEALTH.values = {(name,): float(level(found)) for name, found in checks.items()}
            now = status(checks)
            if now != before:
                wrong = "; ".join(f"{name}: {found}" for name, found in checks.items() if found != OK)
                event("info" if now == OK else "warning", f"node is {now}", reason=wrong or None)
            before = now

    async def checks(self) -> dict[str, str]:
        """Each part by name with its finding. The database is asked once a second at most, for all workers."""
        known = self._condition.findings()
        if known and time.monotonic() - known.found < KEPT:
            database = known.checks
        else:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look())
            database = await asyncio.shield(self._looking)
        return {"workers": workers(self._condition.vacancies(time.monotonic()))} | database | self._links()

    async def _look(self) -> dict[str, str]:
        asked = time.monotonic()
        found, committing = await asyncio.gather(self._databases(), self._commits())
        found["commits"] = committing
        if not self._needs_database:
            found |= {name: lessened(found[name]) for name in ("database", "commits")}
        self._condition.publish(asked, time.monotonic(), found)
        known = self._condition.findings()
        return known.checks if known and known.asked > asked else found

    def _links(self) -> dict[str, str]:
        """The parts that a worker knows without asking. A link that any worker has lost is lost for the node."""
        bus = self._bus
        whole = bus.healthy and not bus.outage.said
        found = {"bus": OK if whole else degraded(f"readers poll; {bus.reason or _ELSEWHERE}")}
        if self._config.replicas():
            found["replicas"] = self._replicas.standing()
        found["clock"] = self._clock()
        for name, said in self._broker.readiness().items():
            finding = _ELSEWHERE if said == OK and RABBITMQ.said else said
            found[name] = finding if self._needs_broker else lessened(finding)
        return found

    async def _databases(self) -> dict[str, str]:
        """What is said of the schemas' servers, and of their migrations."""
        pools = self._pools
        by_server: dict[int, tuple[Database, list[Schema]]] = {}
        of_domain: dict[Schema, Database] = {domain: getattr(pools, domain) for domain in SCHEMAS}
        for domain, database in of_domain.items():
            by_server.setdefault(id(database.lender), (database, []))[1].append(domain)
        looks = [_Look(database, domains) for database, domains in by_server.values()]
        await asyncio.gather(*(look.run() for look in looks))
        wrong = [f"{', '.join(look.domains)}: {look.trouble}" for look in looks if look.trouble]
        schema = [look.schema for look in looks if look.schema]
        vital = [look for look in looks if look.trouble and set(look.domains) != {"users"}]
        now = time.monotonic()
        if not vital:
            self._condition.answer(now)
        elif now - self._condition.answered < SLOW and all(look.trouble == NO_ANSWER for look in vital):
            vital = []
        said = "; ".join(wrong) or OK
        return {"database": said if vital or not wrong else degraded(said), "migrations": "; ".join(schema) or OK}

    async def _commits(self) -> str:
        found = commits(self._condition.outcomes(), time.monotonic())
        if found is None:
            await self._probe()
            found = commits(self._condition.outcomes(), time.monotonic())
        if found == OK:
            STORAGE.back()
        return found or degraded("a commit has just failed")

    async def _probe(self) -> None:
        asked, reason = time.monotonic(), ""
        try:
            async with _answering(self._pools.arrivals) as connection:
                await connection.execute(_PROBE.format(name=f"probe_{secrets.token_hex(8)}"))
        except DATABASE_ERRORS as error:
            reason = spoken(error)
        self._condition.probed(self._column, asked, time.monotonic(), reason)

    async def close(self) -> None:
        tasks = [task for task in (self._watcher, self._looking) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _answering(database: Database) -> AsyncIterator[Connection]:
    """A connection for ``LOOK`` seconds; then TimeoutError, and the connection ends: one that hangs would be waited for
    as long again before the pool had it back."""
    async with asyncio.timeout(LOOK), database.connection() as connection:
        try:
            yield connection
        except asyncio.CancelledError:
            connection.terminate()
            raise


class _Look:
    """One server's answers about the schemas it has."""

    def __init__(self, database: Database, domains: list[Schema]) -> None:
        self._database, self.domains = database, domains
        self.trouble = self.schema = ""

    async def run(self) -> None:
        try:
            async with _answering(self._database) as connection:
                if await connection.fetchval("SELECT pg_catalog.current_setting('transaction_read_only')::boolean"):
                    self.trouble = READ_ONLY
                lacking = await migrate.pending(connection, self.domains)
                self.schema = f"not applied: {', '.join(lacking)}" if lacking else ""
        except migrate.MigrationError as error:
            self.schema = str(error)
        except DATABASE_ERRORS as error:
            self.trouble = spoken(error)


# One message of the simple protocol is one transaction: no session can be left idle in it, holding locks.
_PROBE: Final = """CREATE TABLE messages.{name} (filler uuid);
INSERT INTO messages.{name} SELECT '00000000-0000-0000-0000-000000000000' FROM pg_catalog.generate_series(1, 1500);
DROP TABLE messages.{name}"""
