"""The one place that knows everything: builds a worker's parts, hands each what it needs, and closes them in reverse.

Upward calls (a commit that readers should see, a hint from another worker) are callbacks handed over here, so no layer
imports one above it.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from math import inf
from typing import Final

import msgspec

from server.bus.channel import CONNECTIONS, Channel
from server.bus.local_bus import LocalBus
from server.bus.postgres import PostgresChannel
from server.bus.redis import RedisChannel
from server.cache import keys
from server.cache.generations import Writer
from server.cache.responses import ResponseCache
from server.clock import now
from server.config.settings import Config
from server.log import wants
from server.metrics import Board, exposition, snapshot
from server.model.domain import Rules, Target
from server.model.errors import Unavailable
from server.model.event import Hint, Kind, Step
from server.model.message import Mailbox, Stored
from server.services.accounts.account_cleanup import Departures
from server.services.accounts.accounts import AccountService
from server.services.accounts.api_keys import KeyService
from server.services.accounts.passwords import Passwords
from server.services.admin.abuse import AbuseService
from server.services.admin.administration import AdministrationService
from server.services.admin.guard import BanService, Guard
from server.services.admin.settings import ACTS_EVERY, Settings
from server.services.coherence import Coherence
from server.services.contracts import MailSink
from server.services.domains.resolver import Resolver
from server.services.domains.served import ServedDomains
from server.services.domains.verification import DomainVerification
from server.services.limits import RateLimits
from server.services.mail_in.authentication import Authentication
from server.services.mail_in.auto_create import AutoCreate
from server.services.mail_in.decisions import Decisions
from server.services.mail_in.ingest import Ingest
from server.services.mail_in.mail_trace import MailTrace
from server.services.mail_in.routing import Routes
from server.services.mailboxes.account_search import AcrossService
from server.services.mailboxes.aliases import AliasService
from server.services.mailboxes.eraser import Eraser
from server.services.mailboxes.mailboxes import MailboxService
from server.services.mailboxes.messages import MessageService
from server.services.mailboxes.reading import Readers
from server.services.mailboxes.retention import Retention
from server.services.mailboxes.tags import TagService
from server.services.mailboxes.text_search import SEARCHES_WAITING, TextSearch
from server.services.periodic import every
from server.services.push.hub import Hub
from server.services.push.waiting import Waiting
from server.services.sandbox import DEFAULT_QUEUE, Sandbox
from server.services.transfers import Transfers
from server.services.webhooks.http_client import Outbound
from server.services.webhooks.outbox import Outbox
from server.services.webhooks.sender import Deliverer
from server.services.webhooks.webhooks import WebhookService
from server.shards import roles
from server.shards.broker import Broker
from server.shards.context import WorkerContext
from server.shards.process_metrics import Vitals, publisher
from server.shards.readiness import Readiness
from server.shards.timekeeper import Timekeeper
from server.smtp.listener import Listener
from server.store import migrate
from server.store.abuse import AbuseStore
from server.store.account_cleanup import DepartureStore
from server.store.account_search import AcrossStore
from server.store.accounts import UserStore
from server.store.admin import AdministrationStore
from server.store.bans import BanStore
from server.store.deliveries import DeliveryStore
from server.store.domains import DomainStore
from server.store.erasures import ErasureStore
from server.store.mailboxes import MailboxStore
from server.store.messages import MessageStore
from server.store.partitions import Partitions
from server.store.pools import SCHEMAS, Database, Pools, translated
from server.store.replicas.router import Replicas
from server.store.tags import TagStore
from server.store.trace import TraceStore
from server.store.webhooks import WebhookStore
from server.web import app
from server.web.services import Services
from server.web.streams import Streams
from server.ws.sessions import Sessions

STALENESS: Final = 5.0  # s that another host's write may go unseen while the bus is down
PATIENCE: Final = 45.0  # s a starting worker waits for a database that is not there (yet): it may be restarting itself


async def _opened(config: Config, replicas: Replicas) -> Pools:
    """The pools, once the database answers. Unavailable when it does not for ``PATIENCE``."""
    give_up = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            return await Pools.open(config, replicas.of)
        except Unavailable:  # the pools have said why
            if asyncio.get_running_loop().time() > give_up:
                raise
            await asyncio.sleep(0.5)


class Shard:
    """A worker's parts, running. ``drain`` then ``close``."""

    def __init__(self, config: Config, context: WorkerContext, board: Board, host: bytes) -> None:
        self._config, self._context, self._board, self._host = config, context, board, host
        self._does = roles.parts(config)
        self._closing = AsyncExitStack()
        self._untold = False  # a neighbour could not be told of mail just committed
        self._missed = False  # hints may have been lost that nobody has made good yet

    async def start(self) -> None:
        """Build bottom up, listen last. Raises Unavailable, or migrate.MigrationError when the schema is not ours."""
        config, context = self._config, self._context
        context.condition.begin(context.column)
        self._replicas = replicas = Replicas(config, context.standings, self._changed)
        await replicas.open()
        self._closing.push_async_callback(replicas.close)
        self._pools = pools = await _opened(config, replicas)
        self._closing.push_async_callback(pools.close)
        await self._check_schema()
        self._local = local = ResponseCache(context.generations, config.cache_bytes, config.cache_ttl, context.column)
        writer = Writer(context.generations, context.column)
        uncertain = config.database_statement_timeout + 1
        # What a killed predecessor was writing may still be committed by its backend: until then its slots stay unkept.
        asyncio.get_running_loop().call_later(uncertain, writer.heal)
        self._coherence = coherence = Coherence(context.generations, writer, self._tell, uncertain)
        self._build_stores(pools)
        self._limits = RateLimits(config, context.buckets, context.places)
        parsers = self._children("ingest")
        await self._build_domains()
        self._build_webhooks()
        self._administration_store = AdministrationStore(pools)
        self._settings = Settings(config, self._administration_store, self._public, local, coherence, now)
        self._guard = Guard(self._settings)
        self._rules = rules = Rules(config.plus_addressing, config.subdomain_mailboxes, config.administrator)
        self._build_trace()
        routes = Routes(self._mailbox_store, local, self._served, rules, self._provide, self._recall, now)
        self._ingest = Ingest(
            pools.arrivals,
            self._partitions,
            config.retention,
            routes,
            local,
            coherence,
            parsers,
            self._limits.shares,
            self._watched,
            self._committed,
            self._followed,
            self._deliverer.wake,
            partial(context.condition.settled, context.column),
            now,
        )
        self._hub = Hub(self._message_store.since, self._next_seqs, self._message_store.counts_of, self._attend)
        self._closing.push_async_callback(self._hub.close)
        self._neighbours = LocalBus(
            context.lines, context.column, self._hub.feed, self._hub.on_hints, self._bring_up_to_date
        )
        self._neighbours.start()
        self._closing.callback(self._neighbours.close)
        self._bus = self._channel()
        self._bus.start()
        self._closing.push_async_callback(self._bus.close)
        await self._start_services()
        await self._listen()

    def _children(self, name: str, queue: int = DEFAULT_QUEUE) -> Sandbox:
        """A pool of killable processes of its own, so that no other kind of work can fill it."""
        pool = Sandbox(name, queue=queue)
        self._closing.push_async_callback(pool.close)
        return pool

    def _changed(self, key: str) -> int | None:
        return self._context.generations.changed(key.encode())

    async def _build_domains(self) -> None:
        config, store = self._config, DomainStore(self._pools.mailboxes)
        self._served = ServedDomains(store, self._local, config.domains, config.follow_ttl, all_names=config.dev)
        self._resolver = resolver = Resolver(config.dns_servers)
        self._closing.push_async_callback(resolver.close)
        self._domains = DomainVerification(config, store, self._served, resolver, self._coherence, now)
        await self._domains.configure(config.domains)

    def _build_webhooks(self) -> None:
        config = self._config
        outbound = Outbound(self._resolver.addresses, config.webhook_allowed_networks)
        self._closing.push_async_callback(outbound.close)
        webhooks, deliveries = WebhookStore(self._pools.users), DeliveryStore(self._pools.messages)
        self._deliverer = deliverer = Deliverer(config, deliveries, webhooks, outbound, now)
        self._outbox = Outbox(deliveries, now, deliverer.wake)
        self._webhooks = WebhookService(webhooks, deliveries, deliverer, outbound, now)
        deliverer.obey(self._webhooks.disable, self._webhooks.narrow)
        if self._does.webhooks:
            deliverer.start()
        self._closing.push_async_callback(deliverer.close)

    async def _provide(self, target: Target) -> bool:
        """Mail came for a mailbox that is not there."""
        return await self._provision.provide(target)

    def _standing(self, mailbox_id: str) -> Callable[[], bool]:
        return partial(self._local.stands, self._local.ticket(keys.record(mailbox_id)))

    def _recall(self, address: str) -> Mailbox | None:
        return self._mailboxes.at(address)

    async def _check_schema(self) -> None:
        migrate.require(await self._lacking())

    async def _lacking(self) -> list[str]:
        lacking = []
        databases: dict[str, Database] = {domain: getattr(self._pools, domain) for domain in SCHEMAS}
        for domain in SCHEMAS:
            with translated():
                async with databases[domain].connection() as connection:
                    lacking += await migrate.pending(connection, [domain])
        return lacking

    def _build_stores(self, pools: Pools) -> None:
        self._mailbox_store = MailboxStore(pools.mailboxes)
        self._partitions = Partitions(pools.messages, self._config.partition_interval)
        self._message_store = MessageStore(pools.messages, now, pools.pages, self._partitions.count)

    def _channel(self) -> Channel:
        worker = self._context.column
        if self._config.redis_nodes():
            return RedisChannel(self._host, worker, self._heard, self._config.redis_nodes())
        dsn = self._config.dsn("messages")
        return PostgresChannel(self._host, worker, self._heard, dsn, self._pools.messages.lender.acquire)

    async def _start_services(self) -> None:
        config = self._config
        self._build_accounts()
        self._eraser = Eraser(ErasureStore(self._pools.messages))
        self._mailboxes = MailboxService(
            config,
            self._mailbox_store,
            self._message_store,
            self._partitions,
            self._limits,
            self._served,
            self._local,
            self._coherence,
            self._outbox,
            now,
            self._eraser.wake,
            self._guard,
        )
        owner = UserStore(self._pools.users).by_id
        self._provision = AutoCreate(config, self._mailboxes, DomainStore(self._pools.mailboxes), owner)
        self._build_readers()
        self._build_administration()
        await self._partitions.ahead(now(), config.mailbox_max_ttl)
        self._timekeeper = Timekeeper(self._pools, first=self._context.slot == 0)
        self._timekeeper.start()
        self._closing.push_async_callback(self._timekeeper.close)
        if self._does.sweeper:
            self._start_sweeping()
        self._vitals = Vitals(self._config, self._pools, first=self._context.slot == 0)
        self._vitals.start()
        self._closing.push_async_callback(self._vitals.close)
        self._poller = asyncio.create_task(self._poll())
        self._publish = publisher(self._context.column, self._board.publish, snapshot)

    def _start_sweeping(self) -> None:
        abuse = AbuseStore(self._pools.mailboxes)
        retention = Retention(self._config, self._mailboxes, self._message_store, self._partitions, now, abuse)
        for clockwork in (self._domains, retention, self._eraser):
            clockwork.start()
            self._closing.push_async_callback(clockwork.close)

    def _build_readers(self) -> None:
        """What an open mailbox is for: its messages, its further addresses, its owner's tags."""
        config, coherence, tags = self._config, self._coherence, TagStore(self._pools.users)
        looker = TextSearch(self._children("search", SEARCHES_WAITING))
        readers = Readers(self._children("read"), config.cache_ttl)
        self._messages = MessageService(config, self._message_store, tags, self._ingest, coherence, readers, looker)
        self._across = AcrossService(config, AcrossStore(self._pools.messages, now), tags, looker)
        self._aliases = AliasService(config, self._mailbox_store, self._mailboxes, coherence, now)
        self._tags = TagService(tags, self._message_store, coherence, self._outbox, now)

    def _build_trace(self) -> None:
        config, node = self._config, f"{socket.gethostname()}/{self._context.slot}"
        self._decisions = Decisions(on=config.trace_retention > 0 or config.smtp_log != "off" or wants("debug"))
        pool, kept = self._pools.messages, config.trace_retention
        store = TraceStore(pool, kept, node, config.administrator, config.trace_bytes)
        self._trace = MailTrace(config, self._decisions, store, self._meant)
        self._trace.start()
        self._closing.push_async_callback(self._trace.close)

    def _meant(self, address: str) -> str:
        """The address of the mailbox that a recipient means, as far as memory knows."""
        served = self._served.known()
        target = self._rules.target(address, served) if served is not None else None
        return address if target is None else target.address

    async def _public(self) -> Sequence[str]:
        return (await self._served.current()).public

    def _build_administration(self) -> None:
        departures = Departures(DepartureStore(self._pools), self._coherence, now)
        if self._does.api or self._does.sweeper:
            departures.start()
            self._closing.push_async_callback(departures.close)
        users = UserStore(self._pools.users)
        self._administration = AdministrationService(
            self._administration_store, users, self._coherence, departures.wake, now
        )

    async def _open(self, mailbox_id: str, credential: str) -> tuple[Mailbox, float]:
        """What a WebSocket presents: the mailbox's token, or its owner's access token, which has two dots.

        It asks once in minutes, so no record is kept for it: that would be a third of what a connection takes.
        """
        if credential.count(".") != 2:
            return await self._mailboxes.authorise(mailbox_id, credential, remember=False), inf
        principal = await self._accounts.by_token(credential)
        until = inf if principal.expires_at is None else principal.expires_at.timestamp()
        mailbox = await self._mailboxes.owned(mailbox_id, principal.user, remember=False)
        # watched under the account that acts, whose changes put the right in doubt; administrators' has no owner
        return msgspec.structs.replace(mailbox, user_id=principal.user.id), until

    def _build_abuse(self) -> AbuseService:
        return AbuseService(
            self._config,
            AbuseStore(self._pools.mailboxes),
            self._mailbox_store,
            self._mailboxes,
            UserStore(self._pools.users),
            self._administration_store,
            self._coherence,
            now,
        )

    def _build_accounts(self) -> None:
        hasher = Passwords()
        self._closing.callback(hasher.close)
        users = UserStore(self._pools.users)
        guarded = (self._limits, self._local, self._coherence, now, self._guard)
        self._accounts = AccountService(self._config, users, hasher, *guarded)
        self._keys = KeyService(users, self._coherence, self._accounts.used, now)
        if self._does.api or self._does.push:
            self._keys.start()
            self._closing.push_async_callback(self._keys.close)

    async def _listen(self) -> None:
        self._sessions = Sessions(self._config, self._hub, self._open, self._standing, self._limits.exempt)
        self._streams = Streams(self._config.streams_max, self._limits.exempt)
        self._transfers = Transfers.of(self._config, self._limits.exempt)
        self._broker = self._connect_queue()
        self._incoming = self._listeners()
        await self._follow_settings()
        self._readiness = self._judge()
        parts = Services(
            config=self._config,
            served=self._does.served,
            settings=self._settings,
            administration=self._administration,
            abuse=self._build_abuse(),
            bans=BanService(BanStore(self._pools.users), self._settings, self._coherence, now),
            accounts=self._accounts,
            api_keys=self._keys,
            mailboxes=self._mailboxes,
            domains=self._domains,
            messages=self._messages,
            across=self._across,
            aliases=self._aliases,
            tags=self._tags,
            trace=self._trace,
            webhooks=self._webhooks,
            waiting=Waiting(self._hub, self._messages, self._context.marks),
            hub=self._hub,
            streams=self._streams,
            transfers=self._transfers,
            limits=self._limits,
            local=self._local,
            readiness=self._readiness.checks,
            metrics=self._exposition,
            websocket=self._sessions.admit,
        )
        self._web = await app.serve(app.build(parts), self._context.sockets.http, self._config.drain_deadline / 2)
        await self._broker.start()
        for listener in self._incoming:
            await listener.start()

    def _judge(self) -> Readiness:
        context = self._context
        readiness = Readiness(
            self._config,
            self._does,
            pools=self._pools,
            replicas=self._replicas,
            bus=self._bus,
            broker=self._broker,
            condition=context.condition,
            column=context.column,
            clock=self._timekeeper.standing,
        )
        self._closing.push_async_callback(readiness.close)
        if context.slot == 0:
            readiness.watch()
        return readiness

    def _listeners(self) -> list[Listener]:
        """The ways in for mail that this node has."""
        sockets = self._context.sockets
        if sockets.smtp is None:
            return []
        delivery = self._broker.delivery
        listeners = [Listener(self._config, delivery, sockets.smtp, decisions=self._decisions, guard=self._guard)]
        if sockets.lmtp is not None:
            listeners.append(
                Listener(self._config, delivery, sockets.lmtp, lmtp=True, decisions=self._decisions, guard=self._guard)
            )
        return listeners

    def _connect_queue(self) -> Broker:
        first, messages = self._context.slot == 0, self._pools.messages
        arriving, drained, decisions = self._arriving(), self._ingest.drain, self._decisions
        broker = Broker(self._config, self._does, first, arriving, drained, messages, now, decisions)
        self._closing.push_async_callback(broker.close)
        return broker

    def _arriving(self) -> MailSink:
        """Where SMTP, or the queue behind it, hands its mail: the commit, or what checks it after the commit."""
        if not self._config.mail_authentication:
            return self._ingest
        asking = self._resolver.records
        authentication = Authentication(self._ingest, asking, self._message_store, self._coherence, self._limits.shares)
        self._closing.push_async_callback(authentication.close)
        return authentication

    async def _follow_settings(self) -> None:
        """Whoever keeps settings is told of those in force, now and whenever administrators change them."""
        for part in (self._limits, self._accounts, self._mailboxes, self._messages, self._aliases):
            self._settings.on_change(part.apply_settings)
        for listener in self._incoming:
            self._settings.on_change(listener.apply_settings)
        await self._settings.load()
        if self._context.slot == 0:
            self._acts = asyncio.create_task(every(ACTS_EVERY, self._settings.follow))
            self._closing.callback(self._acts.cancel)

    def tick(self) -> None:
        """Once a second: measure this process and lay its figures down for whoever is asked for them."""
        self._vitals.look()
        self._transfers.look()
        CONNECTIONS.set(self._bus.connections())
        self._settings.look()
        self._publish()

    def _exposition(self) -> bytes:
        self.tick()
        return exposition(self._board.all())

    def _watched(self, mailbox_id: str) -> bool:
        return self._hub.watches(mailbox_id) or self._neighbours.watched(mailbox_id)

    def _attend(self, mailbox_id: str, wanted: bool) -> None:
        self._neighbours.attend(mailbox_id, wanted)

    def _committed(self, rows: Sequence[Stored]) -> None:
        self._hub.feed(rows)
        self._untold = not self._neighbours.feed(rows)

    def _followed(self, steps: Sequence[Step]) -> None:
        """Answers kept here and in the host's other workers become those of now."""
        self._bring_up_to_date(steps)
        told: dict[int, list[Step]] = {}
        for step in steps:
            for column in self._context.generations.followers(step.slot):
                if column != self._context.column:
                    told.setdefault(column, []).append(step)
        for column, its in told.items():
            self._neighbours.follow(column, its)

    def _bring_up_to_date(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self._local.follow(step)

    def _tell(self, hints: Sequence[Hint]) -> None:
        """This worker changed something: its own readers first, then the other workers'."""
        self._hub.on_hints(hints)
        self._neighbours.tell(hints)
        if self._bus.alone and not self._untold:  # this host's readers have the mail itself
            hints = [hint for hint in hints if hint.kind is not Kind.MAIL]
        self._untold = False
        if hints:
            self._bus.publish(hints)

    def _heard(self, hints: list[Hint], other_host: bool) -> None:
        if other_host:
            self._coherence.heard(hints)
        if any(hint.kind is Kind.SETTINGS for hint in hints):
            self._settings.look()
        if any(hint.kind is Kind.LOST for hint in hints):
            self._forget_older(0 if other_host else STALENESS)
            self._missed = True
        self._hub.on_hints(hints)

    def _forget_older(self, seconds: float) -> None:
        """Other hosts may have written without our hearing of it, until ``seconds`` ago: neither memory nor a replica
        may show a state from before."""
        self._local.forget_older(seconds)
        self._replicas.not_before(seconds)

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
            missed, self._missed = self._missed, not self._bus.whole
            if missed or self._missed:
                self._forget_older(STALENESS if self._missed else 0)
            if missed or self._missed or turns % 30 == 0:
                await self._hub.poll()

    async def drain(self, deadline: float) -> None:
        """Stop listening; finish SMTP transactions and requests, send WebSockets away, commit what was accepted."""
        self._streams.drain()
        mail = [listener.drain(deadline) for listener in self._incoming]
        await asyncio.gather(*mail, self._web.close(), self._sessions.drain(deadline))
        await self._broker.drain()
        await self._ingest.drain()

    async def close(self) -> None:
        """Undo ``start`` in reverse, also when it stopped half way."""
        if hasattr(self, "_poller"):
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
        await self._closing.aclose()
