"""The bus over LISTEN/NOTIFY: nothing more than PostgreSQL is needed. Payloads are base64, 8,000 bytes at most.

Listening connections carry their host's name, so that each host knows whether another one listens. While none does,
nobody is told of mail: that costs the database more than all else about a small batch. Whoever begins to listen beside
others was not told until they have noticed, and so is not ``whole`` before.
"""

import asyncio
import base64
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from server.bus.channel import Channel, Receiver
from server.model.event import Hint
from server.outages import DATABASE, EVENTS
from server.primary import connect

CHANNEL: Final = "tempmail_hints"
_PER_PAYLOAD: Final = 230  # hints: 18 + 230 * 25 bytes are 7,692 in base64
_PATIENCE: Final = 2.0  # seconds to wait for a connection on which to publish
_ALIVE: Final = 2.0  # seconds between looks at who listens, which prove that the connection still answers
_NOTICED: Final = 3 * _ALIVE  # s after which others have surely looked
_NAME: Final = "tempmail bus "
_UNTOLD: Final = 4  # failures in a row, of which the first may be an outage of the database that nothing else met yet
_NOTIFY: Final = "SELECT pg_catalog.pg_notify($1, payload) FROM pg_catalog.unnest($2::text[]) AS payload"
_OTHERS: Final = (
    "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database()"
    " AND pg_catalog.starts_with(application_name, $1) AND application_name <> $2"
)

_READ_ONLY: Final = "SELECT pg_catalog.current_setting('transaction_read_only')::boolean"

Lend = Callable[[float], AbstractAsyncContextManager[Any]]
"""Lends a connection; TimeoutError after so many seconds without one."""


class PostgresChannel(Channel):
    """``lend`` lends a connection for each publish; listening has one of its own."""

    outage = EVENTS

    def told(self, error: BaseException) -> None:
        """Where the database is away that is said, and enough."""
        if not DATABASE.said:
            self.outage.lost(str(error) or type(error).__name__, after=_UNTOLD)

    def __init__(self, host: bytes, worker: int, receive: Receiver, dsn: str, lend: Lend) -> None:
        super().__init__(host, worker, receive)
        self._dsn, self._lend = dsn, lend

    async def _send(self, hints: list[Hint]) -> None:
        chunks = (hints[i : i + _PER_PAYLOAD] for i in range(0, len(hints), _PER_PAYLOAD))
        payloads = [base64.b64encode(self._encode(chunk)).decode() for chunk in chunks]
        async with self._lend(_PATIENCE) as connection:
            await connection.execute(_NOTIFY, CHANNEL, payloads, timeout=3)

    async def _listen(self) -> None:
        name = _NAME + self._host.hex()
        named = {"application_name": name}
        connection = await connect(self._dsn, timeout=2, command_timeout=2, server_settings=named)
        try:
            await connection.add_listener(CHANNEL, self._notified)
            self.alone = await connection.fetchval(_OTHERS, _NAME, name) == 0
            self._whole_from = 0.0 if self.alone else time.monotonic() + _NOTICED
            self._connected()
            while True:
                await asyncio.sleep(_ALIVE)
                self.alone = await connection.fetchval(_OTHERS, _NAME, name) == 0
                if await connection.fetchval(_READ_ONLY):
                    raise ConnectionError("read-only: another server may be the primary now")
        finally:
            connection.terminate()

    def _notified(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        try:
            decoded = base64.b64decode(str(payload), validate=True)
        except ValueError:
            decoded = b""  # anyone may NOTIFY on the channel; the check below says that it is not ours
        self._decode(decoded)
