"""The figures of a worker as a process, and of the whole installation, measured once in a while and not when they
change.
"""

import asyncio
import platform
import time
from collections.abc import Callable
from typing import Final

from server.config.settings import Config
from server.log import event
from server.metrics import Gauge
from server.model.errors import Unavailable
from server.outages import put_off
from server.shards.heap_trim import Leftovers
from server.shards.supplies import Supplies
from server.smtp import listener_state
from server.store.pools import Pools
from server.version import VERSION
from server.web import streams
from server.ws import sessions

MEMORY = Gauge("tempmail_memory_usage_bytes", "Resident memory of the workers.")
CPU = Gauge("tempmail_cpu_usage_percent", "CPU time of the workers, percent of one core, over the last second.")
UPTIME = Gauge("tempmail_system_uptime_seconds", "Since the first worker's process began.")
MAILBOXES = Gauge("tempmail_mailboxes_active", "Living mailboxes, counted every minute.")
MESSAGES = Gauge("tempmail_messages_total", "Messages in living mailboxes, counted every minute.")
USERS = Gauge("tempmail_users_active", "Accounts that may log in, counted every minute.")
ONLINE = Gauge("tempmail_users_online", "Accounts holding an access token that has not run out, counted every minute.")
BUILD = Gauge("tempmail_build_info", "1, with the release and the Python that the host runs.", ("version", "python"))
DOMAINS = Gauge("tempmail_domain_usage", "Living mailboxes of each domain, counted every minute.", ("domain",))

COUNT_EVERY: Final = 60.0  # s; counting reads every living mailbox's row once

_MAILBOXES: Final = "SELECT domain, count(*) AS n FROM mailboxes.mailboxes GROUP BY domain"
_MESSAGES: Final = "SELECT coalesce(sum(total), 0)::bigint AS n FROM messages.inboxes WHERE drop_after > now()"
_USERS: Final = "SELECT coalesce(sum(accounts), 0)::bigint AS n FROM users.counters WHERE is_active"
# a login's end is its last renewal and the life of a refresh token: what is left of it says how old its access token is
_ONLINE: Final = (
    "SELECT count(DISTINCT user_id) AS n FROM users.sessions WHERE expires_at > now() + $1::float8 * interval '1 s'"
)
_CONNECTIONS: Final = (listener_state.ACTIVE, sessions.ACTIVE, streams.ACTIVE)


class Vitals:
    """``first`` is true in one worker of the host, which alone reports what concerns them all."""

    def __init__(self, config: Config, pools: Pools, first: bool) -> None:
        self._pools, self._first = pools, first
        self._renewed = config.jwt_refresh_expiry - config.jwt_access_expiry
        self._born = self._looked = time.monotonic()
        self._cpu = time.process_time()
        self._supplies = Supplies(config) if first else None
        self._leftovers = Leftovers()
        if first:
            BUILD.set(1, (VERSION, platform.python_version()))
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._first:
            self._task = asyncio.create_task(self._count_all())

    def look(self) -> None:
        """Once a second."""
        MEMORY.set(self._leftovers.look(sum(gauge.values[()] for gauge in _CONNECTIONS)))
        now, cpu = time.monotonic(), time.process_time()
        CPU.set(round(100 * (cpu - self._cpu) / max(now - self._looked, 0.001), 1))
        self._looked, self._cpu = now, cpu
        if self._supplies:
            self._supplies.look()
            UPTIME.set(round(now - self._born, 1))
        self._pools.count()

    async def _count_all(self) -> None:
        while True:
            try:
                await self.count()
            except Unavailable as error:
                put_off("figures not counted", error)
            await asyncio.sleep(COUNT_EVERY)

    async def count(self) -> None:
        """What only the database knows. Unavailable."""
        rows = await self._pools.mailboxes.survey(_MAILBOXES)
        DOMAINS.values = {(row["domain"],): float(row["n"]) for row in rows}
        MAILBOXES.set(sum(row["n"] for row in rows))
        MESSAGES.set((await self._pools.messages.survey(_MESSAGES))[0]["n"])
        USERS.set((await self._pools.users.survey(_USERS))[0]["n"])
        ONLINE.set((await self._pools.users.survey(_ONLINE, self._renewed))[0]["n"])

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def publisher(column: int, publish: Callable[[int, bytes], bool], snapshot: Callable[[], bytes]) -> Callable[[], None]:
    """What lays this worker's figures on the board; says so once when they no longer fit."""
    warned = False

    def lay_down() -> None:
        nonlocal warned
        if not publish(column, snapshot()) and not warned:
            warned = True
            event("error", "metrics no longer fit on the board; they stand still", column=column)

    return lay_down
