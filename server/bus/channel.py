"""What both buses share: hints are collected while one publish is under way and go out together with the next.

Lives here: coalescing, bounds, health, and who a payload came from. Must not know: what travels underneath.

A publish that fails is not repeated: readers poll while ``whole`` is false and now and then anyway, so a lost hint
costs them seconds. That something was lost is said as soon as it can be, so that other hosts forget what they kept.

Payloads are numbered by their sender, and where the bus can fail apart from the database a sender with nothing to say
says so: whoever hears others notices both a payload that did not come and a sender that cannot make itself heard.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from server.log import event
from server.metrics import Counter, Gauge
from server.model.event import NOBODY, Hint, Kind, pack, unpack
from server.outages import Outage

MAX_PENDING: Final = 100_000  # hints; more are dropped and readers poll
PACE: Final = 0.02  # s from one publish to the next, where there is only new mail to tell of
RETRY: Final = 1.0  # s between attempts to listen again
PULSE: Final = 2.0  # s after which a sender is heard of although it has nothing to say
SILENCE: Final = 3.5 * PULSE  # s after which a sender that is not heard may be writing all the same
GONE: Final = 300.0  # s after which it is taken for dead
_HOST: Final = 8
_ORIGIN: Final = 10  # bytes that name the sender: its host, then 2 for the worker
_HEAD: Final = _ORIGIN + 8  # and the payload's number

CONNECTIONS = Gauge("tempmail_redis_connections", "Open connections to Redis.")
LOST = Counter("tempmail_bus_lost_total", "Hints that could not be published.")
PUBLISHED = Counter("tempmail_bus_published_total", "Hints published.")
UNKNOWN = Counter(
    "tempmail_bus_unknown_total", "Payloads of another format, or with hints of a newer release's kinds.", ("what",)
)
RECEIVED = Counter("tempmail_bus_received_total", "Hints received from other workers.")

Receiver = Callable[[list[Hint], bool], None]
"""Called in the loop with hints of another worker, and whether that worker is on another host."""


class Channel(ABC):
    """One worker's end of the bus. ``host`` is 8 bytes that the host's workers share, ``worker`` tells them apart."""

    outage: Outage
    pulses = False
    """Whether it can fail while the database works, so that senders have to be heard of."""

    def __init__(self, host: bytes, worker: int, receive: Receiver) -> None:
        self._host, self._origin, self._receive = host, host + worker.to_bytes(2, "big"), receive
        self._pending: list[Hint] = []
        self._sender: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None
        self._free_at = 0.0  # when the next publish of new mail may go
        self._urgent = asyncio.Event()  # something else is to be told: rights may have ended
        self._pulse: asyncio.Task[None] | None = None
        self._number = time.time_ns()  # beyond any that a predecessor in this worker's place has used
        self._spoke = 0.0
        self._senders: dict[bytes, tuple[int, float]] = {}  # other hosts': the last number, and when
        self._listening = self.healthy = False
        self.alone = False  # no other host listens, as far as is known: mail need not be told of
        self._whole_from = 0.0
        self.reason = "not connected yet"
        self._said: set[str] = set()

    def start(self) -> None:
        self._listener = asyncio.create_task(self._keep_listening())
        if self.pulses:
            self._pulse = asyncio.create_task(self._keep_pulsing())

    @property
    def whole(self) -> bool:
        """Everything that other hosts say is heard, as far as can be known."""
        return self.healthy and time.monotonic() >= self._whole_from and not self._silent()

    def _silent(self) -> bool:
        """Whether some other host's worker is there, perhaps, and cannot be heard."""
        now = time.monotonic()
        self._senders = {origin: last for origin, last in self._senders.items() if now - last[1] < GONE}
        return self.pulses and any(now - heard > SILENCE for _, heard in self._senders.values())

    async def _keep_pulsing(self) -> None:
        while True:
            await asyncio.sleep(PULSE / 2)
            if time.monotonic() - self._spoke >= PULSE / 2 and not self._pending:
                self.publish([Hint(Kind.PULSE, NOBODY)])

    def publish(self, hints: Sequence[Hint]) -> None:
        """Queue ``hints``; returns at once and never fails."""
        if len(self._pending) + len(hints) > MAX_PENDING:
            LOST.add(n=len(hints))
            return
        self._pending.extend(hints)
        if any(hint.kind is not Kind.MAIL for hint in hints):
            self._urgent.set()
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_all())

    async def _send_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._pending:
            if self._free_at > loop.time():
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(self._free_at):
                        await self._urgent.wait()
            self._free_at = loop.time() + PACE
            self._urgent.clear()
            hints, self._pending = self._pending, []
            try:
                await self._send(hints)
                PUBLISHED.add(n=len(hints))
                if self._listening and not self.healthy:  # only publishing had failed
                    self._connected()
            except Exception as error:
                LOST.add(n=len(hints))
                self._fail(error)
                await asyncio.sleep(RETRY)
                self._pending.insert(0, Hint(Kind.LOST, NOBODY))

    def _fail(self, error: BaseException) -> None:
        self.told(error)
        self.alone = False
        self.healthy, self.reason = False, type(error).__name__  # its text, in the log, names hosts

    async def _keep_listening(self) -> None:
        while True:
            try:
                await self._listen()
            except Exception as error:
                self._listening = False
                self._fail(error)
            await asyncio.sleep(RETRY)

    def _connected(self) -> None:
        if self.outage.doubted:
            self.outage.back()
        self._listening = True
        self.healthy, self.reason = True, ""

    def _encode(self, hints: Sequence[Hint]) -> bytes:
        self._number += 1
        self._spoke = time.monotonic()
        return self._origin + self._number.to_bytes(8, "big") + pack(hints)

    def _decode(self, payload: bytes) -> None:
        """Hand a payload on unless this worker sent it; one of another format is dropped and counted."""
        origin = payload[:_ORIGIN]
        if origin == self._origin:
            return
        try:
            if len(payload) < _HEAD:
                raise ValueError("too short")
            hints = list(unpack(payload[_HEAD:]))
        except ValueError as error:
            self._not_understood("payload", str(error))
            return
        if any(hint.kind is Kind.UNKNOWN for hint in hints):
            self._not_understood("hint", "a newer release may share the bus")
        RECEIVED.add(n=len(hints))
        other_host = origin[:_HOST] != self._host
        if other_host and self._missed(origin, int.from_bytes(payload[_ORIGIN:_HEAD], "big")):
            hints.insert(0, Hint(Kind.LOST, NOBODY))
        if any(hint.kind is Kind.LEAVE for hint in hints):
            self._senders.pop(origin, None)
        heard = [hint for hint in hints if hint.kind not in (Kind.PULSE, Kind.LEAVE)]
        if heard:
            self._receive(heard, other_host)

    def _not_understood(self, what: str, reason: str) -> None:
        """Count it, and say so once: during an upgrade there may be thousands."""
        if what not in self._said:
            event("info", f"bus carried a {what} that is not known here; counted from now on", reason=reason)
        self._said.add(what)
        UNKNOWN.add((what,))

    def _missed(self, origin: bytes, number: int) -> bool:
        """Whether payloads of that sender before this one did not come. One that comes twice or late is no loss."""
        last = self._senders.get(origin, (number - 1, 0.0))[0]
        self._senders[origin] = max(last, number), time.monotonic()
        return number > last + 1

    def told(self, error: BaseException) -> None:
        """Say that it is lost."""
        self.outage.lost(str(error) or type(error).__name__)

    @abstractmethod
    async def _send(self, hints: list[Hint]) -> None:
        """Publish; raise on failure, within seconds."""

    @abstractmethod
    async def _listen(self) -> None:
        """Connect, call ``_connected``, and pass payloads to ``_decode`` until the connection is lost; then raise."""

    def connections(self) -> int:
        """Open connections to a broker of its own."""
        return 0

    async def close(self) -> None:
        """Send what is pending and take leave, for 2 s at most, and stop listening."""
        if self._pulse is not None:
            self._pulse.cancel()
        if self.pulses:
            self.publish([Hint(Kind.LEAVE, NOBODY)])
        if self._sender is not None and not self._sender.done():
            await asyncio.wait([self._sender], timeout=2)
            self._sender.cancel()
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
