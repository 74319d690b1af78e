"""A connection to the first of a DSN's servers that will do.

Lives here: trying several hosts, each in a share of the time. Must not know: pools, or what is asked.

The driver tries hosts one after the other too, but in one time for all of them: behind a host that is switched off, and
so never answers, it does not come to the next. The one that did last time is asked first.
"""

import time
from typing import Any, Final

import asyncpg

from server.config.dsn import each

NEXT: Final = (
    OSError,
    TimeoutError,
    asyncpg.CannotConnectNowError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.TooManyConnectionsError,
    asyncpg.TargetServerAttributeNotMatched,
)
"""Why another host may still do; anything else, such as a wrong password, is said at once."""

_last: Final[dict[str, str]] = {}  # DSN -> the host that did; one entry for each DSN of the settings


async def connect(dsn: str, *, timeout: float = 5.0, **options: Any) -> Any:
    """An asyncpg.Connection; ``options`` are those of asyncpg.connect. Raises what the last host tried did, within
    ``timeout`` seconds."""
    hosts = each(dsn)
    if len(hosts) == 1:
        return await asyncpg.connect(dsn, timeout=timeout, **options)
    best = _last.get(dsn)
    hosts.sort(key=lambda host: host != best)
    until = time.monotonic() + timeout
    for tried, host in enumerate(hosts):
        limit = (until - time.monotonic()) / (len(hosts) - tried)
        try:
            connection = await asyncpg.connect(host, timeout=max(limit, 0.1), **options)
        except NEXT:
            if tried == len(hosts) - 1:
                raise
        else:
            _last[dsn] = host
            return connection
    raise AssertionError("a DSN has at least one host")
