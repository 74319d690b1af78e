"""The bus over Redis publish/subscribe, for several hosts. Redis keeps nothing: emptied or restarted, it loses no
state.
"""

import asyncio
from typing import Final

import redis.asyncio as redis

from server.bus.channel import Channel, Receiver
from server.model.event import Hint

CHANNEL: Final = "tempmail:hints"
_TIMEOUT: Final = 2.0  # seconds a command may take; a hung Redis is then as good as a dead one
_ALIVE: Final = 2.0  # seconds of silence after which the listening connection is asked for a sign of life


class RedisChannel(Channel):
    def __init__(self, host: bytes, worker: int, receive: Receiver, url: str) -> None:
        super().__init__(host, worker, receive)
        self._client = redis.Redis.from_url(
            url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT, max_connections=4, retry=None
        )

    async def _send(self, hints: list[Hint]) -> None:
        async with asyncio.timeout(_TIMEOUT):
            await self._client.publish(CHANNEL, self._encode(hints))

    async def _listen(self) -> None:
        async with self._client.pubsub() as pubsub:
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
        return sum(count for count, _ in self._client.connection_pool.get_connection_count())

    async def close(self) -> None:
        await super().close()
        await self._client.aclose()
