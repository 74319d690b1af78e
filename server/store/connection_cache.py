"""Lending a pool's connections out, with a few kept at hand: the pool's own lending and taking back costs as much as a
short statement does.

Lives here: which connections are at hand, and when they go back to their pool. Must not know: SQL, or what is done with
a connection. The pool itself stays asyncpg's: it opens, bounds, resets and closes.
"""

from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeAlias

import asyncpg

if TYPE_CHECKING:  # asyncpg's classes are generic in its stubs only
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = PoolConnectionProxy[asyncpg.Record]
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
else:
    Connection = asyncpg.pool.PoolConnectionProxy
    Pool = asyncpg.Pool

ACQUIRE_TIMEOUT: Final = 3.0  # seconds to wait for a connection before the caller is told to try later
AT_HAND: Final = 4  # connections kept out of the pool; the last one given back is the first to be lent


class ConnectionCache:
    """One pool's connections. Who takes one directly of the pool may have to wait for one at hand: nobody should."""

    __slots__ = ("_at_hand", "_epoch", "_spare", "_waiting", "pool", "together")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.together: list[ConnectionCache] = [self]  # those that lead to the same servers
        self._at_hand: list[Connection] = []
        self._spare = 0  # how many of them nobody has needed since the last look
        self._epoch = 0  # grows when those lent out are not to be kept any more
        self._waiting = 0  # who waits for the pool: then nothing is kept from him

    def acquire(self, timeout: float = ACQUIRE_TIMEOUT) -> "Checkout":
        """A connection for the length of an ``async with``. TimeoutError after ``timeout`` seconds without one."""
        return Checkout(self, timeout)

    async def take(self, timeout: float) -> Connection:
        while self._at_hand:
            connection = self._at_hand.pop()
            self._spare = min(self._spare, len(self._at_hand))
            if not gone(connection):
                return connection
            await self.pool.release(connection)
        self._waiting += 1
        try:
            return await self.pool.acquire(timeout=timeout)
        finally:
            self._waiting -= 1

    async def give_back(self, connection: Connection, epoch: int, *, sound: bool) -> None:
        """``sound``: it did what was asked of it. Whatever state another is in, the pool puts it right, or ends it."""
        if (
            sound
            and epoch == self._epoch
            and not self._waiting
            and len(self._at_hand) < AT_HAND
            and not gone(connection)
            and not connection.is_in_transaction()
        ):
            self._at_hand.append(connection)
        else:
            await self.pool.release(connection)

    async def rest(self) -> None:
        """Give those back that nobody has needed since this was called last: the pool knows how long one may idle."""
        idle, self._at_hand = self._at_hand[: self._spare], self._at_hand[self._spare :]
        self._spare = len(self._at_hand)
        for connection in idle:
            await self.pool.release(connection)

    async def renew(self) -> None:
        """Keep none of those that are open now; the pool replaces each as it comes back."""
        self._epoch += 1
        await self.pool.expire_connections()
        kept, self._at_hand, self._spare = self._at_hand, [], 0
        for connection in kept:
            await self.pool.release(connection)

    async def leave(self) -> None:
        """The server takes no writes: another may be the primary now. Reads of this one would be old from here on."""
        for lender in self.together:
            await lender.renew()

    async def close(self) -> None:
        """Close the pool once what is under way has ended."""
        with suppress(asyncpg.InterfaceError):  # it is closed already
            await self.renew()
        await self.pool.close()

    @property
    def epoch(self) -> int:
        return self._epoch


class Checkout:
    """One connection while it is lent."""

    __slots__ = ("_connection", "_epoch", "_lender", "_timeout")

    _connection: Connection

    def __init__(self, lender: ConnectionCache, timeout: float) -> None:
        self._lender, self._timeout = lender, timeout

    async def __aenter__(self) -> Connection:
        self._epoch = self._lender.epoch
        self._connection = await self._lender.take(self._timeout)
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._lender.give_back(self._connection, self._epoch, sound=kind is None)
        if kind is asyncpg.ReadOnlySQLTransactionError:
            await self._lender.leave()


def gone(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # the pool has taken a broken one back already
        return True
