"""RabbitMQ in queue mode: durable quorum queues between the nodes that take mail and those that store it.

Lives here: connecting and connecting again, the queues and their bounds, publisher confirms, acknowledgements. Must not
know: what a message holds.

Three queues: ``name`` for ordinary messages, ``name.large`` for those above LARGE (so that what a worker takes ahead is
bounded in bytes as well), ``name.dead`` for what cannot be stored. Publishers and consumers have a connection each: the
broker stops reading from a connection that publishes when it runs short of memory or disk, and acknowledgements must
not wait for that.

aiormq is the protocol layer of aio-pika; nothing here would use the objects that aio-pika makes of each message.
"""

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import aiormq
from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic
from pamqp.common import FieldTable
from yarl import URL

from server.config.settings import Config
from server.log import event
from server.metrics import Counter, Gauge
from server.model.errors import Unavailable
from server.outages import RABBITMQ

CONNECT: Final = 5.0  # s to connect and declare the queues
CONFIRM: Final = 10.0  # s for the broker to say that it has a message
CLOSE: Final = 2.0  # s for a farewell
HEARTBEAT: Final = 10  # s; a broker silent for 33 s is lost
BACKOFF: Final = (0.2, 5.0)  # s between attempts to connect: at first, at most
LARGE: Final = 256 << 10  # bytes
BODY_MAX: Final = 16 << 20  # bytes; what RabbitMQ 4 takes by default
PREFETCH: Final = 500  # messages a worker takes ahead; times LARGE this is 125 MiB
PREFETCH_LARGE: Final = 8  # times BODY_MAX this is 128 MiB
DELIVERY_LIMIT: Final = 20  # times a message is handed out before it is taken for the death of whoever takes it
DEAD_MAX: Final = 10_000  # messages kept that cannot be stored; the oldest go
DEAD_MAX_BYTES: Final = 1 << 30
MEASURE_EVERY: Final = 5.0  # s between two looks at how long the queues are

PUBLISHED = Counter(
    "tempmail_queue_published_total", "Messages offered to the broker, by what came of it.", ("result",)
)
DEPTH = Gauge("tempmail_queue_messages", "Messages ready in a queue, seen by one worker of a node.", ("queue",))
CONNECTED = Gauge("tempmail_queue_connections", "Connections to the broker.")

BROKER_ERRORS: Final = (aiormq.AMQPError, OSError, TimeoutError, RuntimeError)

for _name in ("aiormq.connection", "aiormq.channel"):  # its warnings show messages whole; ours say what is needed
    logging.getLogger(_name).addHandler(logging.NullHandler())
    logging.getLogger(_name).propagate = False


class Queues:
    """Names, bounds and arguments of the three queues."""

    def __init__(self, config: Config) -> None:
        name = config.rabbitmq_queue
        self.ordinary, self.large, self.dead = name, f"{name}.large", f"{name}.dead"
        self._bounds: FieldTable = {
            "x-max-length": config.rabbitmq_max_messages,
            "x-max-length-bytes": config.rabbitmq_max_bytes,
        }

    async def declare(self, channel: AbstractChannel) -> None:
        """Make them, or see that they are as they should be: aiormq.ChannelPreconditionFailed if not."""
        dead: FieldTable = {"x-queue-type": "quorum", "x-max-length": DEAD_MAX, "x-max-length-bytes": DEAD_MAX_BYTES}
        await channel.queue_declare(self.dead, durable=True, arguments=dead)
        arguments: FieldTable = self._bounds | {
            "x-queue-type": "quorum",
            "x-overflow": "reject-publish",
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self.dead,
            "x-dead-letter-strategy": "at-least-once",
        }
        for name in (self.ordinary, self.large):
            await channel.queue_declare(name, durable=True, arguments=arguments)


class Link(ABC):
    """One connection with one channel, kept: when it is lost it is made again. ``measures``: it watches the depths."""

    part = 0  # of what a worker has of the broker

    def __init__(self, config: Config, *, measures: bool) -> None:
        url = URL(config.rabbitmq_url)
        self._url = url.with_query({"heartbeat": str(HEARTBEAT), "name": "tempmail"} | dict(url.query))
        self.queues, self._measures = Queues(config), measures
        self._keeper: asyncio.Task[None] | None = None
        self._connection: aiormq.Connection | None = None
        self._cancelled, self._up = asyncio.Event(), asyncio.Event()
        self.healthy, self.reason = False, "not connected yet"

    async def start(self) -> None:
        """Begin; return when the broker is there, or without it after CONNECT: it may come later."""
        self._keeper = asyncio.create_task(self._keep())
        with suppress(TimeoutError):
            async with asyncio.timeout(CONNECT):
                await self._up.wait()

    async def _keep(self) -> None:
        delay = BACKOFF[0]
        while True:
            try:
                await self._permitted()
                channel = await self._connect()
                delay = BACKOFF[0]
                await self._watch(channel)
                self._fail("connection lost")
            except asyncio.CancelledError:  # the library raises it too, for a connection that it has given up
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
                self._fail("connection given up")
            except Exception as error:  # whatever it is, the link must be made again
                self._fail(_said(error))
            await self._disconnect()
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(2 * delay, BACKOFF[1])

    async def _connect(self) -> AbstractChannel:
        self._cancelled.clear()
        async with asyncio.timeout(CONNECT):
            self._connection = connection = aiormq.Connection(self._url)
            await connection.connect()
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            channel.on_consumer_cancel_callbacks.add(lambda _: self._cancelled.set())
            await self.queues.declare(channel)
            await self._opened(channel)
        self.healthy, self.reason = True, ""
        self._up.set()
        CONNECTED.add()
        RABBITMQ.back(self.part)
        return channel

    async def _watch(self, channel: AbstractChannel) -> None:
        """Return when connection, channel or consumer is lost."""
        assert self._connection is not None
        cancelled = asyncio.ensure_future(self._cancelled.wait())
        ends = [self._connection.closing, channel.closing, cancelled]
        try:
            while not any(end.done() for end in ends):
                await asyncio.wait(ends, timeout=MEASURE_EVERY, return_when=asyncio.FIRST_COMPLETED)
                if self._measures and not any(end.done() for end in ends):
                    await self._measure(self._connection)
        finally:
            for end in ends:
                end.cancel()

    async def _measure(self, connection: aiormq.Connection) -> None:
        """On a channel of its own, whose end harms no other."""
        with suppress(*BROKER_ERRORS):
            async with asyncio.timeout(CONNECT):
                channel = await connection.channel(publisher_confirms=False)
                for name in (self.queues.ordinary, self.queues.large, self.queues.dead):
                    found = await channel.queue_declare(name, passive=True)
                    DEPTH.set(found.message_count or 0, (name,))
                await channel.close()

    def _fail(self, reason: str) -> None:
        if self.healthy:
            CONNECTED.add(n=-1)
        RABBITMQ.lost(reason, self.part)
        self.healthy, self.reason = False, reason
        if self._measures:
            DEPTH.values = {}
        self._lost()

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*BROKER_ERRORS):
                async with asyncio.timeout(CLOSE):
                    await connection.close()

    @abstractmethod
    async def _permitted(self) -> None:
        """Return when it makes sense to connect."""

    @abstractmethod
    async def _opened(self, channel: AbstractChannel) -> None:
        """The channel is there, and so are the queues."""

    @abstractmethod
    def _lost(self) -> None:
        """The channel is gone."""

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self._disconnect()


def _said(error: Exception) -> str:
    """What an operator is told; for a queue that stands with other bounds, what to do."""
    if isinstance(error, aiormq.ChannelPreconditionFailed):
        return f"{error}; its bounds are fixed: let it drain, delete it, and it is made anew"
    return f"{type(error).__name__}: {error}".removesuffix(": ")


class Publisher(Link):
    """Gives messages to the broker and waits until a majority of its nodes has them on disk."""

    part = 1
    _channel: AbstractChannel | None = None

    async def _permitted(self) -> None:
        """At once."""

    async def _opened(self, channel: AbstractChannel) -> None:
        self._channel = channel

    def _lost(self) -> None:
        self._channel = None

    async def publish(self, body: bytes) -> None:
        """Return once the broker has confirmed. Raises Unavailable: it may have the message all the same, unless it
        said that it has not (full, no such queue)."""
        if self._channel is None:
            PUBLISHED.add(("disconnected",))
            raise Unavailable(f"broker: {self.reason}")
        queue = self.queues.large if len(body) > LARGE else self.queues.ordinary
        properties = Basic.Properties(delivery_mode=2)
        try:
            answer = await self._channel.basic_publish(
                body, routing_key=queue, properties=properties, mandatory=True, timeout=CONFIRM
            )
        except (*BROKER_ERRORS, asyncio.CancelledError) as error:
            PUBLISHED.add((_outcome(error),))
            raise Unavailable(f"broker: {_outcome(error)}") from error
        if not isinstance(answer, Basic.Ack):
            PUBLISHED.add(("rejected",))
            raise Unavailable("broker: not confirmed")
        PUBLISHED.add(("confirmed",))


def _outcome(error: BaseException) -> str:
    if isinstance(error, aiormq.PublishError):
        return "returned"
    if isinstance(error, aiormq.DeliveryError):
        return "rejected"
    return "timeout" if isinstance(error, TimeoutError) else "lost"


class Delivered:
    """A message the broker handed out. Once its fate is certain, exactly one of ``accept`` and ``dead_letter`` is
    called."""

    __slots__ = ("_ledger", "_tag", "body", "redelivered")

    def __init__(self, ledger: "_Ledger", tag: int, body: bytes, redelivered: bool) -> None:
        self._ledger, self._tag, self.body, self.redelivered = ledger, tag, body, redelivered

    @property
    def gone(self) -> bool:
        """The broker will hand it out again, to whomever: this one need not be settled."""
        return self._ledger.closed

    def accept(self) -> None:
        """It is stored, or nobody wants it: the broker may forget it."""
        self._ledger.settle(self._tag, dead_letter=False)

    def dead_letter(self) -> None:
        """It cannot be stored: to the dead letters."""
        self._ledger.settle(self._tag, dead_letter=True)


class _Ledger:
    """What one channel's consumer has taken and not settled; settles the longest row from the oldest with one frame."""

    def __init__(self, channel: AbstractChannel) -> None:
        self._channel, self.closed = channel, False
        self._open: dict[int, bool] = {}  # tag, in the order handed out → whether its fate is certain
        self._certain = 0
        self._buried: list[int] = []
        self._settler: asyncio.Task[None] | None = None

    def take(self, message: DeliveredMessage) -> Delivered:
        delivery = message.delivery
        assert isinstance(delivery, Basic.Deliver)
        assert delivery.delivery_tag is not None
        self._open[delivery.delivery_tag] = False
        return Delivered(self, delivery.delivery_tag, message.body, bool(delivery.redelivered))

    def settle(self, tag: int, *, dead_letter: bool) -> None:
        if self.closed:
            return
        if dead_letter:
            del self._open[tag]
            self._buried.append(tag)
        else:
            self._open[tag] = True
            self._certain += 1
        if self._settler is None or self._settler.done():
            self._settler = asyncio.create_task(self._settle_all())

    async def _settle_all(self) -> None:
        await asyncio.sleep(0)  # the others of the same batch are settled in this turn of the loop
        try:
            while self._buried or self._certain:
                buried, self._buried = self._buried, []
                for tag in buried:  # first: a "multiple" would acknowledge them
                    await self._channel.basic_reject(tag, requeue=False, wait=False)
                for tag, multiple in self._due():
                    await self._channel.basic_ack(tag, multiple=multiple, wait=False)
        except BROKER_ERRORS as error:
            event("warning", "acknowledgement not sent", reason=type(error).__name__)

    def _due(self) -> list[tuple[int, bool]]:
        """(tag, whether all before it too) of what is to be acknowledged."""
        if self._buried:  # meanwhile; their turn comes first
            return []
        row = 0
        for tag, certain in self._open.items():
            if not certain:
                break
            row = tag
        done = [(row, True)] if row else []
        done += [(tag, False) for tag, certain in self._open.items() if certain and tag > row]
        self._certain = 0
        self._open = {tag: certain for tag, certain in self._open.items() if not certain}
        return done

    async def emptied(self) -> None:
        """Return when everything certain has been said."""
        if self._settler is not None:
            await asyncio.gather(self._settler, return_exceptions=True)


class Consumer(Link):
    """Takes messages as fast as they are settled. ``permitted`` returns when there is somewhere to put them."""

    def __init__(self, config: Config, permitted: Callable[[], Awaitable[None]], *, measures: bool) -> None:
        super().__init__(config, measures=measures)
        self._ready, self._stopped = permitted, False
        self._ledger: _Ledger | None = None
        self._tags: list[str] = []
        self.deliver: Callable[[Delivered], None] = lambda delivered: None

    async def _permitted(self) -> None:
        await self._ready()

    async def _opened(self, channel: AbstractChannel) -> None:
        ledger = self._ledger = _Ledger(channel)

        async def take(message: DeliveredMessage) -> None:
            self.deliver(ledger.take(message))

        self._tags = []
        for name, ahead in ((self.queues.ordinary, PREFETCH), (self.queues.large, PREFETCH_LARGE)):
            if self._stopped:
                return
            await channel.basic_qos(prefetch_count=ahead)
            answer = await channel.basic_consume(name, take)
            self._tags.append(str(answer.consumer_tag))
        self._channel = channel

    def _lost(self) -> None:
        if self._ledger is not None:
            self._ledger.closed = True

    async def stop(self) -> None:
        """Take no more; what was taken may still be settled."""
        self._stopped = True
        if self.healthy:
            with suppress(*BROKER_ERRORS):
                async with asyncio.timeout(CLOSE):
                    for tag in self._tags:
                        await self._channel.basic_cancel(tag)

    async def close(self) -> None:
        if self._ledger is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE):
                    await self._ledger.emptied()
        await super().close()
