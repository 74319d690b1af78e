"""The bus over LISTEN/NOTIFY: nothing more than PostgreSQL is needed. Payloads are base64, 8,000 bytes at most."""

import asyncio
import base64
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import asyncpg

from server.bus.channel import Channel, Receiver
from server.model.event import Hint

CHANNEL: Final = "tempmail_hints"
_PER_PAYLOAD: Final = 230  # hints: 18 + 230 * 25 bytes are 7,692 in base64
_PATIENCE: Final = 2.0  # seconds to wait for a connection on which to publish
_ALIVE: Final = 2.0  # seconds between proofs that the listening connection still answers
_NOTIFY: Final = "SELECT pg_catalog.pg_notify($1, payload) FROM pg_catalog.unnest($2::text[]) AS payload"

Lend = Callable[[float], AbstractAsyncContextManager[Any]]
"""Lends a connection; TimeoutError after so many seconds without one."""


class PostgresChannel(Channel):
    """``lend`` lends a connection for each publish; listening has one of its own."""

    def __init__(self, host: bytes, worker: int, receive: Receiver, dsn: str, lend: Lend) -> None:
        super().__init__(host, worker, receive)
        self._dsn, self._lend = dsn, lend

    async def _send(self, hints: list[Hint]) -> None:
        chunks = (hints[i : i + _PER_PAYLOAD] for i in range(0, len(hints), _PER_PAYLOAD))
        payloads = [base64.b64encode(self._encode(chunk)).decode() for chunk in chunks]
        async with self._lend(_PATIENCE) as connection:
            await connection.execute(_NOTIFY, CHANNEL, payloads, timeout=3)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=2, command_timeout=2)
        try:
            await connection.add_listener(CHANNEL, self._notified)
            self._connected()
            while True:
                await asyncio.sleep(_ALIVE)
                await connection.execute("SELECT 1")
        finally:
            connection.terminate()

    def _notified(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        try:
            decoded = base64.b64decode(str(payload), validate=True)
        except ValueError:
            decoded = b""  # anyone may NOTIFY on the channel; the check below says that it is not ours
        self._decode(decoded)
