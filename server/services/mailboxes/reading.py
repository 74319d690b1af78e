"""Opened messages: read within bounds, once for all who ask at the same time, and kept by the message.

Lives here: where reading runs, who may have it run, and how long a result is kept. Must not know: HTTP, or whose a
message is: callers have opened the mailbox.

A result is kept under the body's id, never under what a request looks like, so another query computes nothing. A
process runs one version of the sanitiser, so the version is no part of the key. What is cheap is neither kept nor
shared.
"""

import asyncio
import sys
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, TypeVar

from server.metrics import Counter, Gauge
from server.model import mime
from server.model.errors import Refused, Unavailable
from server.model.mime import Attachment
from server.model.opened import Opened, headers, opened
from server.model.sanitise import sanitise
from server.services.contracts import Shares
from server.services.sandbox import Sandbox, SandboxBusy, SandboxError, SandboxShare

READ_TIMEOUT: Final = 5.0  # s for reading a body that is not cheap
SANITISE_TIMEOUT: Final = 2.0
WAIT: Final = 5.0  # s for a child
KEPT_BYTES: Final = 32 << 20  # of results, a worker
_OVERHEAD: Final = 512  # bytes of a result's own, about
_CHEAP_HTML: Final = 4_096  # characters; sanitising so few takes 5 ms at worst, whatever they are

T = TypeVar("T")

READINGS = Counter(
    "tempmail_readings_total",
    "Large messages and HTML asked for: kept (by memory), shared (with one who asked before), read.",
    ("result",),
)
KEPT = Gauge("tempmail_readings_kept_bytes", "Read messages that are kept in memory.")


class _Kept(NamedTuple):
    found: Any
    size: int
    until: float


class Readers:
    """One for each worker. ``sandbox`` has the children that read; ``life`` is how long a result is kept, in s."""

    def __init__(
        self, sandbox: Sandbox, life: float, most: int = KEPT_BYTES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sandbox, self._life, self._most, self._clock = sandbox, life, most, clock
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._bytes = 0
        self._under_way: dict[tuple[str, ...], asyncio.Future[Any]] = {}

    async def opened(self, body_id: str, fetch: Callable[[], Awaitable[bytes]], shares: Shares) -> Opened:
        """The message whose bytes ``fetch`` brings. Refused rate_limited, Unavailable."""
        kept: Opened | None = self._get("opened", body_id)
        if kept is not None:
            return kept
        raw = await fetch()
        if mime.is_cheap(raw):
            return opened(raw)
        return await self._shared(("opened", body_id), lambda: self._open(body_id, raw, shares))

    async def safe(self, body_id: str, html: str, shares: Shares) -> str:
        """``html`` of that message, sanitised; "" where that broke a bound. Refused rate_limited, Unavailable."""
        if len(html) <= _CHEAP_HTML:
            return sanitise(html)
        kept: str | None = self._get("safe", body_id)
        if kept is not None:
            return kept
        return await self._shared(("safe", body_id), lambda: self._sanitise(body_id, html, shares))

    async def attachment(
        self, body_id: str, raw: bytes, number: str, shares: Shares
    ) -> tuple[Attachment, bytes] | None:
        """The part numbered so, None where there is none. Refused rate_limited, Unavailable."""
        if mime.is_cheap(raw):
            return mime.attachment(raw, number)
        key = ("attachment", body_id, number)
        return await self._shared(key, lambda: self._run(mime.attachment, raw, number, shares=shares))

    async def _open(self, body_id: str, raw: bytes, shares: Shares) -> Opened:
        found = await self._run(opened, raw, shares=shares)
        if found is None:
            found = await self._run(headers, raw, shares=shares) or Opened()
        self._keep("opened", body_id, found, found.size())
        return found

    async def _sanitise(self, body_id: str, html: str, shares: Shares) -> str:
        """The reader of what cannot be sanitised still has the text, and ``?raw=1``."""
        safe = await self._run(sanitise, html, shares=shares, timeout=SANITISE_TIMEOUT) or ""
        self._keep("safe", body_id, safe, sys.getsizeof(safe))
        return safe

    async def _run(
        self, read: Callable[..., T], *args: object, shares: Shares, timeout: float = READ_TIMEOUT
    ) -> T | None:
        """None when the input broke a bound."""
        try:
            return await self._sandbox.run(read, *args, timeout=timeout, wait=WAIT, clients=shares)
        except SandboxBusy:
            raise
        except SandboxError:
            return None

    async def _shared(self, key: tuple[str, ...], work: Callable[[], Awaitable[T]]) -> T:
        """The outcome of ``work``, which goes on for those who come later when its caller goes."""
        while True:
            task: asyncio.Future[T] | None = self._under_way.get(key)
            mine = task is None
            if task is None:
                READINGS.add(("read",))
                task = self._under_way[key] = asyncio.ensure_future(work())
                task.add_done_callback(lambda done: self._ended(key, done))
            else:
                READINGS.add(("shared",))
            try:
                return await asyncio.shield(task)
            except SandboxShare as error:
                if mine:
                    detail = "too many large messages are being read from here; wait for one"
                    raise Refused("rate_limited", detail, retry_after=1.0) from error
                # the share was another's: this caller tries with its own
            except SandboxBusy as error:
                raise Unavailable("too many large messages are being read") from error

    def _ended(self, key: tuple[str, ...], done: "asyncio.Future[Any]") -> None:
        if self._under_way.get(key) is done:
            del self._under_way[key]
        if not done.cancelled():
            done.exception()  # its caller may have gone

    def _get(self, kind: str, body_id: str) -> Any:
        found = self._kept.get((kind, body_id))
        if found is None:
            return None
        if found.until <= self._clock():
            self._drop(kind, body_id)
            return None
        self._kept.move_to_end((kind, body_id))
        READINGS.add(("kept",))
        return found.found

    def _keep(self, kind: str, body_id: str, found: Any, size: int) -> None:
        self._drop(kind, body_id)
        self._kept[kind, body_id] = _Kept(found, size + _OVERHEAD, self._clock() + self._life)
        self._bytes += size + _OVERHEAD
        while self._bytes > self._most:
            self._drop(*next(iter(self._kept)))
        KEPT.set(self._bytes)

    def _drop(self, kind: str, body_id: str) -> None:
        found = self._kept.pop((kind, body_id), None)
        if found is not None:
            self._bytes -= found.size
