"""Connections to PostgreSQL: one pool for each distinct server, shared by the data domains that live there.

Lives here: opening, bounding and closing pools, and turning the driver's many exceptions into one. Must not know: SQL
beyond session settings.

Every statement has a deadline (the server's statement_timeout, and a little later the client's), and waiting for a
connection has one too: a database that hangs is answered with Unavailable, never with silence.
"""

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol

import asyncpg

from server import clock
from server.config.settings import Config
from server.metrics import Counter, Gauge
from server.model.errors import Unavailable
from server.outages import DATABASE
from server.primary import connect
from server.store import binary_rows
from server.store.coalescing import LANES
from server.store.connection_cache import Checkout, Connection, ConnectionCache, Pool

__all__ = [
    "DATABASE_ERRORS",
    "ERRORS",
    "NO_ANSWER",
    "READ_ONLY",
    "SCHEMAS",
    "Connection",
    "Database",
    "Pools",
    "Schema",
    "affected",
    "column",
    "spoken",
    "translated",
]

Schema = Literal["users", "mailboxes", "messages"]
SCHEMAS: Final[tuple[Schema, ...]] = ("users", "mailboxes", "messages")

_LOOK: Final = 5.0  # seconds from one look for connections that nobody needs at hand to the next

ERRORS = Counter("tempmail_errors_total", "Failures of our own, by kind and part.", ("type", "component"))
CONNECTIONS = Gauge("tempmail_database_connections", "Open database connections.")

# A server's last words to an idle connection leave it in a state that asyncpg calls its own fault, until it is closed.
DATABASE_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
    EOFError,
)


@contextmanager
def translated() -> Iterator[None]:
    """Turn every failure of the database, its network or its patience into Unavailable."""
    try:
        yield
    except DATABASE_ERRORS as error:
        raise _unavailable(error) from error


NO_ANSWER: Final = "no answer in time"
READ_ONLY: Final = "read-only: a standby, or default_transaction_read_only"
_WORDS: Final = {
    "53100": "the disk is full",
    "25006": READ_ONLY,
    "57P03": "starting up or shutting down",
    "53300": "too many connections",
    "57P01": "shut down by its administrator",
    "57P02": "restarting after a crash",
    "08003": "connection lost",
    "08006": "connection lost",
    "28000": "the server does not let this user in (pg_hba.conf)",
    "28P01": "wrong password",
    "3D000": "no such database",
}
_NO_PRIMARY: Final = "no host of the DSN takes writes: the primary is away, and no replica was promoted yet"


def spoken(error: BaseException) -> str:
    """What may be shown of an error to anyone who asks: not its text, which may name hosts, users or mail."""
    sqlstate = getattr(error, "sqlstate", None) or ""
    if isinstance(error, TimeoutError):
        return NO_ANSWER
    if isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
        return "not running, or not where the DSN says"
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return _NO_PRIMARY
    if isinstance(error, socket.gaierror):
        return "its host name cannot be resolved"
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return "connection lost"
    return _WORDS.get(sqlstate) or " ".join(filter(None, (type(error).__name__, sqlstate)))


_AWAY: Final = (
    OSError,
    EOFError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
_PATIENCE: Final = 5  # timeouts in a row that are taken for an outage: a busy database may be late now and then


def away(error: BaseException) -> bool:
    """Whether the database cannot be reached, and not one statement failed; then the log is told."""
    late = isinstance(error, TimeoutError)
    if not late and not isinstance(error, _AWAY):
        return False
    text = "" if late or isinstance(error, asyncpg.TargetServerAttributeNotMatched) else str(error)
    DATABASE.lost(f"{spoken(error)}: {text}" if text else spoken(error), after=_PATIENCE if late else 1)
    return DATABASE.said


def _unavailable(error: Exception) -> Unavailable:
    ERRORS.add((type(error).__name__, "database"))
    away(error)
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):  # its own words are about the driver's options
        return Unavailable(f"database: {_NO_PRIMARY}")
    return Unavailable(f"database: {type(error).__name__}: {error}")


class Copies(Protocol):
    """A domain's replicas. Both answer None where the primary has to be asked, and raise nothing for their trouble."""

    async def read(self, keys: Sequence[str], sql: str, args: Sequence[Any]) -> list[asyncpg.Record] | None:
        """Rows that show every change of ``keys`` that anybody may have seen."""
        ...

    async def survey(self, sql: str, args: Sequence[Any]) -> list[asyncpg.Record] | None:
        """Rows as of now, whatever they are about; a replica may take a moment to get here."""
        ...


class Database:
    """One domain's server and its replicas. ``read``, ``survey``, ``fetch``, ``fetchrow`` and ``execute`` raise
    Unavailable; ``connection`` hands the raw one out. All but the first two go to the primary.
    """

    def __init__(self, lender: ConnectionCache, copies: Copies | None = None) -> None:
        self.lender, self._copies = lender, copies

    @property
    def copied(self) -> bool:
        """Whether there are replicas: then a question is put alone, for each key has a replica of its own."""
        return self._copies is not None

    async def read(
        self, keys: Sequence[str], sql: str, *args: Any, sure: Callable[[list[asyncpg.Record]], bool] | None = None
    ) -> list[asyncpg.Record]:
        """What only changes together with the generations of ``keys``, from a replica that has come that far, if any.

        ``sure``: whether rows of a replica say enough. That something is not there, the primary has to say: another
        host may have made it a moment ago.
        """
        if self._copies is not None:
            rows = await self._copies.read(keys, sql, args)
            if rows is not None and (sure is None or sure(rows)):
                return rows
        return await self.fetch(sql, *args)

    async def survey(self, sql: str, *args: Any) -> list[asyncpg.Record]:
        """A large or rare read that may wait a moment for a replica to show the present."""
        rows = None if self._copies is None else await self._copies.survey(sql, args)
        return await self.fetch(sql, *args) if rows is None else rows

    async def fetch(self, sql: str, *args: Any) -> list[asyncpg.Record]:
        try:
            async with self.lender.acquire() as connection:
                rows: list[asyncpg.Record] = await connection.fetch(sql, *args)
                if DATABASE.doubted:
                    DATABASE.back()
                return rows
        except DATABASE_ERRORS as error:
            raise _unavailable(error) from error

    async def fetchrow(self, sql: str, *args: Any) -> asyncpg.Record | None:
        rows = await self.fetch(sql, *args)
        return rows[0] if rows else None

    async def execute(self, sql: str, *args: Any) -> str:
        with translated():
            async with self.lender.acquire() as connection:
                status: str = await connection.execute(sql, *args)
                if DATABASE.doubted:
                    DATABASE.back()
                return status

    def connection(self) -> Checkout:
        """A connection of the pool, errors untranslated (wrap the block in ``translated`` or handle them)."""
        return self.lender.acquire()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction, every failure translated."""
        with translated():
            async with self.lender.acquire() as connection, connection.transaction():
                yield connection


class Pools:
    """The three domains' databases. Domains whose DSN is the same share one pool.

    ``arrivals`` is the messages domain again, over a connection for arriving mail alone: its one large statement is
    planned once and for all there, which halves what it costs the server. ``pages`` is the same for lists: planning one
    over sixty partitions costs four times what it then takes. Such a plan locks every partition each time, so it is for
    a statement that comes often, over few connections, while partitions are not too many (messages.py). Elsewhere
    PostgreSQL plans for the values at hand.
    """

    def __init__(
        self, databases: dict[Schema, Database], arrivals: Database, pages: Database, lifetime: float, idle: float
    ) -> None:
        self.users, self.mailboxes, self.messages = (databases[domain] for domain in SCHEMAS)
        self.arrivals, self.pages = arrivals, pages
        self._lenders = list({id(db.lender): db.lender for db in (*databases.values(), arrivals, pages)}.values())
        for lender in self._lenders:
            lender.together = self._lenders
        self._keeping = [asyncio.create_task(self._renew(lifetime)), asyncio.create_task(self._rest(idle))]

    @classmethod
    async def open(cls, config: Config, copies: Callable[[Schema], Copies | None] = lambda _: None) -> "Pools":
        """Connect; Unavailable when a server does not answer within 10 s. ``copies``: each domain's replicas."""
        dsns = {domain: config.dsn(domain) for domain in SCHEMAS}
        most = share(config)
        idle = max(1, min(most, config.database_max_idle // config.workers))
        opened: dict[str, ConnectionCache] = {}
        with translated():
            for dsn in dict.fromkeys(dsns.values()):
                opened[dsn] = ConnectionCache(await asyncio.wait_for(_pool(dsn, config, idle, most), 10))
            planned_once = [
                ConnectionCache(await asyncio.wait_for(_pool(dsns["messages"], config, 1, most, _PLANNED_ONCE), 10))
                for most in (1, LANES)[: 1 + _for_pages(config)]
            ]
        databases = {domain: Database(opened[dsn], copies(domain)) for domain, dsn in dsns.items()}
        arrivals, *pages = [Database(lender, copies("messages")) for lender in planned_once]
        pages_or_all = (*pages, databases["messages"])[0]
        pools = cls(databases, arrivals, pages_or_all, config.database_max_lifetime, config.database_max_idle_time)
        await pools.tell_time()
        return pools

    async def tell_time(self) -> None:
        """Measure the database's clock: that of the server that knows when mailboxes end. Raises Unavailable."""
        with translated():
            async with self.mailboxes.connection() as connection:
                asked = time.monotonic()
                told = await connection.fetchval(_CLOCK)
                clock.measured(asked, told, time.monotonic())
        if DATABASE.doubted:
            DATABASE.back()

    async def _renew(self, lifetime: float) -> None:
        """Once in ``lifetime`` each pool replaces its connections as they are borrowed: what a session gathers in the
        server's memory goes, and a name that has come to lead elsewhere is followed. Never where it is 0.
        """
        while lifetime:
            await asyncio.sleep(lifetime * random.uniform(0.9, 1))  # not all workers at once
            for lender in self._lenders:
                await lender.renew()

    async def _rest(self, idle: float) -> None:
        while True:
            await asyncio.sleep(min(_LOOK, idle or _LOOK))
            for lender in self._lenders:
                await lender.rest()

    def count(self) -> int:
        """Connections open now; also sets the gauge."""
        size = sum(lender.pool.get_size() for lender in self._lenders)
        CONNECTIONS.set(size)
        return size

    async def close(self) -> None:
        """Let statements under way finish for 5 s, then cut them."""
        for task in self._keeping:
            task.cancel()
        for lender in self._lenders:
            try:
                await asyncio.wait_for(lender.close(), 5)
            except TimeoutError:
                lender.pool.terminate()


def share(config: Config) -> int:
    """Connections of one worker to one server."""
    own = 1 + LANES * _for_pages(config)
    most = config.database_max_open // config.workers - own
    return max(2, most // len({config.dsn(domain) for domain in SCHEMAS}))


def _for_pages(config: Config) -> bool:
    """Whether there are connections to spare for lists."""
    return config.database_max_open // config.workers >= _MANY


_CLOCK: Final = "SELECT extract(epoch FROM pg_catalog.clock_timestamp())::float8"
_MANY: Final = 8  # connections of a worker
_CONNECT: Final[Any] = connect  # the stubs ask for an overloaded function
_PLANNED_ONCE: Final = {"plan_cache_mode": "force_generic_plan"}


async def _pool(
    dsn: str, config: Config, least: int, most: int, more: Mapping[str, str] = MappingProxyType({})
) -> Pool:
    return await asyncpg.create_pool(
        dsn,
        connect=_CONNECT,
        min_size=least,
        max_size=most,
        max_inactive_connection_lifetime=config.database_max_idle_time,
        command_timeout=config.database_statement_timeout + 1,
        timeout=5,
        init=binary_rows.teach,
        reset=_keep,
        server_settings=session_settings(config.database_statement_timeout) | dict(more),
    )


async def _keep(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """What the pool does with a connection it gets back: nothing, unless a transaction was left open in it.

    Its default is a round trip to undo session state after every single statement, which doubled the cost of a read.
    Our code leaves none behind: whoever sets or locks something for the session (partitions.py) undoes it.
    """
    if connection.is_in_transaction():
        await connection.reset()


def session_settings(statement_timeout: float) -> dict[str, str]:
    """What every session of ours sets: UTC, no JIT (our statements are short), durable commits, deadlines."""
    milliseconds = str(round(statement_timeout * 1000))
    return {
        "application_name": "tempmail",
        "timezone": "UTC",
        "jit": "off",
        "synchronous_commit": "on",
        "statement_timeout": milliseconds,
        "lock_timeout": milliseconds,
        "idle_in_transaction_session_timeout": "30000",
        "search_path": "",
    }


def affected(status: str) -> int:
    """The row count at the end of a command tag such as ``UPDATE 3``."""
    return int(status.rsplit(" ", 1)[1])


def column(rows: Sequence[asyncpg.Record], name: str) -> list[Any]:
    return [row[name] for row in rows]
