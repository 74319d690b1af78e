"""The bus over Redis publish/subscribe, for several hosts. Redis keeps nothing: emptied or restarted, it loses no
state.

A Redis Cluster is one bus as well: its nodes pass on to each other what is published at any of them (redis.io, "Redis
cluster specification", publish/subscribe). So a worker publishes at one node and listens at one, whichever lives: which
node serves which keys, and which is whose replica, does not matter. Sharded channels would spare the nodes that passing
on, but there is one channel: all of it would go through one shard, and nowhere while that shard is without a master.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import redis.asyncio as redis
from redis.exceptions import RedisError

from server.bus.channel import Channel, Receiver
from server.model.event import Hint
from server.outages import REDIS

CHANNEL: Final = "tempmail:hints"
_TIMEOUT: Final = 2.0  # seconds a command may take; a hung Redis is then as good as a dead one
_ALIVE: Final = 2.0  # seconds of silence after which the listening connection is asked for a sign of life


class RedisChannel(Channel):
    """``urls``: the nodes there are, of which any will do."""

    outage = REDIS
    pulses = True

    def __init__(self, host: bytes, worker: int, receive: Receiver, urls: Sequence[str]) -> None:
        super().__init__(host, worker, receive)
        self._clients = [
            redis.Redis.from_url(
                url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT, max_connections=4, retry=None
            )
            for url in urls
        ]
        self._at = worker % len(self._clients)  # where it publishes; the workers spread
        self._ear = self._at  # where it listens

    async def _send(self, hints: list[Hint]) -> None:
        """At the first node that takes it. One that hangs may pass it on later: a hint heard twice does no harm."""
        payload = self._encode(hints)
        for tried in range(1, len(self._clients) + 1):
            try:
                async with asyncio.timeout(_TIMEOUT):
                    await self._clients[self._at].publish(CHANNEL, payload)
                return
            except (RedisError, OSError, TimeoutError):
                await self._drop_idle(self._clients[self._at])
                self._at = (self._at + 1) % len(self._clients)
                if tried == len(self._clients):
                    raise

    async def _listen(self) -> None:
        client = self._clients[self._ear]
        self._ear = (self._ear + 1) % len(self._clients)  # the next, once this one is lost
        try:
            await self._hear(client)
        finally:
            await self._drop_idle(client)

    @staticmethod
    async def _drop_idle(client: "redis.Redis") -> None:
        """A node that has failed may come back by restarting: its pool would hand out each dead connection once."""
        with suppress(RedisError, OSError, TimeoutError):
            await client.connection_pool.disconnect(inuse_connections=False)

    async def _hear(self, client: "redis.Redis") -> None:
        async with client.pubsub() as pubsub:
            await pubsub.subscribe(CHANNEL)
            silent = False
            while True:
                message = await pubsub.get_message(timeout=_ALIVE)
                if message is None and silent:
                    raise TimeoutError("no sign of life")
                if message is None:
                    await pubsub.ping()
                    silent = True
                    continue
                silent = False
                if message["type"] == "subscribe":
                    self._connected()
                elif message["type"] == "message":
                    self._decode(message["data"])

    def connections(self) -> int:
        return sum(count for client in self._clients for count, _ in client.connection_pool.get_connection_count())

    async def close(self) -> None:
        await super().close()
        for client in self._clients:
            await client.aclose()
