"""The one place that knows everything: builds a worker's parts, hands each what it needs, and closes them in reverse.

Upward calls (a commit that readers should see, a hint from another worker) are callbacks handed over here, so no layer
imports one above it.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Final

from server.bus.channel import Channel
from server.bus.postgres import PostgresChannel
from server.bus.redis import RedisChannel
from server.cache.generations import Writer
from server.cache.local import Local
from server.config import Config
from server.log import event
from server.metrics import Board, exposition, snapshot
from server.model.errors import Unavailable
from server.model.event import Hint, Kind
from server.model.message import Stored
from server.services.coherence import Coherence
from server.services.ingest import Ingest
from server.services.limits import RateLimits
from server.services.mailboxes import MailboxService
from server.services.messages import MessageService
from server.services.retention import Retention
from server.services.routing import Routes
from server.services.sandbox import Sandbox
from server.shards.context import WorkerContext
from server.shards.vitals import Vitals, publisher
from server.smtp.listener import Listener
from server.store import migrate
from server.store.mailboxes import MailboxStore
from server.store.messages import MessageStore
from server.store.partitions import Partitions
from server.store.pools import DOMAINS, Database, Pools, translated
from server.web import app
from server.web.parts import WebParts
from server.ws.hub import Hub
from server.ws.sessions import Sessions

READY_TIMEOUT: Final = 3.0  # s a readiness check may take
STALENESS: Final = 5.0  # s that another host's write may go unseen while the bus is down
PATIENCE: Final = 45.0  # s a starting worker waits for a database that is not there (yet): it may be restarting itself


def now() -> datetime:
    return datetime.now(UTC)


async def _opened(config: Config) -> Pools:
    """The pools, once the database answers. Unavailable when it does not for ``PATIENCE``."""
    give_up = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            return await Pools.open(config)
        except Unavailable as error:
            if asyncio.get_running_loop().time() > give_up:
                raise
            event("warning", "waiting for the database", reason=str(error))
            await asyncio.sleep(0.5)


class Shard:
    """A worker's parts, running. ``drain`` then ``close``."""

    def __init__(self, config: Config, context: WorkerContext, board: Board, host: bytes) -> None:
        self._config, self._context, self._board, self._host = config, context, board, host
        self._closing = AsyncExitStack()
        self._missed = False  # hints may have been lost that nobody has made good yet

    async def start(self) -> None:
        """Build bottom up, listen last. Raises Unavailable, or migrate.MigrationError when the schema is not ours."""
        config, context = self._config, self._context
        self._pools = pools = await _opened(config)
        self._closing.push_async_callback(pools.close)
        await self._check_schema()
        self._local = local = Local(context.generations, config.cache_bytes, config.cache_ttl)
        writer = Writer(context.generations, context.column)
        uncertain = config.database_statement_timeout + 1
        # What a killed predecessor was writing may still be committed by its backend: until then its slots stay unkept.
        asyncio.get_running_loop().call_later(uncertain, writer.heal)
        self._coherence = coherence = Coherence(context.generations, writer, self._tell, uncertain)
        self._build_stores(pools)
        self._sandbox = sandbox = Sandbox()
        self._closing.push_async_callback(sandbox.close)
        routes = Routes(self._mailbox_store, local, config.domains, now)
        self._ingest = Ingest(
            pools.messages, self._partitions, config.retention, routes, local, coherence, sandbox, self._committed, now
        )
        self._hub = Hub(self._message_store.since, self._next_seqs, self._message_store.counts_of)
        self._closing.push_async_callback(self._hub.close)
        self._bus = self._channel()
        self._bus.start()
        self._closing.push_async_callback(self._bus.close)
        await self._start_services()
        await self._listen()

    async def _check_schema(self) -> None:
        lacking = await self._lacking()
        if lacking:
            raise migrate.MigrationError(f"the database lacks {', '.join(lacking)}: run `tempmail migrate`")

    async def _lacking(self) -> list[str]:
        lacking = []
        databases: dict[str, Database] = {domain: getattr(self._pools, domain) for domain in DOMAINS}
        for domain in DOMAINS:
            with translated():
                async with databases[domain].connection() as connection:
                    lacking += await migrate.pending(connection, [domain])
        return lacking

    def _build_stores(self, pools: Pools) -> None:
        self._mailbox_store = MailboxStore(pools.mailboxes)
        self._message_store = MessageStore(pools.messages, now)
        self._partitions = Partitions(pools.messages, self._config.partition_interval)

    def _channel(self) -> Channel:
        worker = self._context.column
        if self._config.redis_url:
            return RedisChannel(self._host, worker, self._heard, self._config.redis_url)
        dsn = self._config.dsn("messages")
        return PostgresChannel(self._host, worker, self._heard, dsn, self._pools.messages.pool)

    async def _start_services(self) -> None:
        config = self._config
        self._limits = RateLimits(config, self._context.buckets)
        self._mailboxes = MailboxService(
            config,
            self._mailbox_store,
            self._message_store,
            self._partitions,
            self._limits,
            self._local,
            self._coherence,
            now,
        )
        self._messages = MessageService(config, self._message_store, self._ingest, self._coherence, self._sandbox)
        retention = Retention(config, self._mailboxes, self._message_store, self._partitions, now)
        await self._partitions.ahead(now(), config.mailbox_max_ttl)
        retention.start()
        self._closing.push_async_callback(retention.close)
        self._vitals = Vitals(self._pools, first=self._context.slot == 0)
        self._vitals.start()
        self._closing.push_async_callback(self._vitals.close)
        self._poller = asyncio.create_task(self._poll())
        self._publish = publisher(self._context.column, self._board.publish, snapshot)

    async def _listen(self) -> None:
        self._sessions = Sessions(self._config, self._hub, self._mailboxes.authorise)
        parts = WebParts(
            config=self._config,
            mailboxes=self._mailboxes,
            messages=self._messages,
            limits=self._limits,
            local=self._local,
            readiness=self.readiness,
            metrics=self._exposition,
            websocket=self._sessions.handle,
        )
        self._web = await app.serve(app.build(parts), self._context.sockets.http, self._config.drain_deadline / 2)
        self._smtp = Listener(self._config, self._ingest, self._context.sockets.smtp)
        await self._smtp.start()

    def tick(self) -> None:
        """Once a second: measure this process and lay its figures down for whoever is asked for them."""
        self._vitals.look()
        self._publish()

    def _exposition(self) -> bytes:
        self.tick()
        return exposition(self._board.all())

    def _committed(self, rows: Sequence[Stored]) -> None:
        self._hub.feed(rows)

    def _tell(self, hints: Sequence[Hint]) -> None:
        """This worker changed something: its own readers first, then the other workers'."""
        self._hub.on_hints(hints)
        self._bus.publish(hints)

    def _heard(self, hints: list[Hint], other_host: bool) -> None:
        if other_host:
            self._coherence.heard(hints)
        if any(hint.kind is Kind.LOST for hint in hints):
            self._local.forget_older(0 if other_host else STALENESS)
            self._missed = True
        self._hub.on_hints(hints)

    async def _next_seqs(self, mailbox_ids: Sequence[str]) -> dict[str, int]:
        counts = await self._message_store.counts_of(mailbox_ids)
        return {mailbox: count.next_seq for mailbox, count in counts.items()}

    async def _poll(self) -> None:
        """Ask the store what the bus may have lost: at once when it comes back, often while it is away, else seldom.

        While it is away nothing older than ``STALENESS`` is served from memory, and nothing kept until then once it is
        back: other hosts' writes went unheard. (Workers of this host share the generations and need no bus.)
        """
        turns = 0
        while True:
            await asyncio.sleep(1)
            turns += 1
            missed, self._missed = self._missed, not self._bus.healthy
            if missed or self._missed:
                self._local.forget_older(STALENESS if self._missed else 0)
            if missed or self._missed or turns % 30 == 0:
                await self._hub.poll()

    async def readiness(self) -> dict[str, str]:
        """ "ok" or what is wrong, for the database, its schema and the bus."""
        found = {"database": "ok", "migrations": "ok", "bus": "ok" if self._bus.healthy else self._bus.reason}
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                lacking = await self._lacking()
                if lacking:
                    found["migrations"] = f"not applied: {', '.join(lacking)}"
        except Exception as error:  # whatever it is, it is the answer
            found["database"] = found["migrations"] = f"{type(error).__name__}: no answer"
        return found

    async def drain(self, deadline: float) -> None:
        """Stop listening; finish SMTP transactions and requests, send WebSockets away, commit what was accepted."""
        await asyncio.gather(self._smtp.drain(deadline), self._web.close(), self._sessions.drain(deadline))
        await self._ingest.drain()

    async def close(self) -> None:
        """Undo ``start`` in reverse, also when it stopped half way."""
        if hasattr(self, "_poller"):
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
        await self._closing.aclose()
