"""An HTTP load generator: keep-alive connections, closed loop or offered rate, several processes.

Lives here: the protocol, both loops, and the merging of what the processes saw. Must not know: which server answers, or
what the answers mean beyond a marker that must stand in each body. Requests and answers are plain HTTP/1.1 with a
Content-Length (RFC 9112); anything else counts as an error.
"""

import asyncio
import random
import re
import time
from array import array
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import cast

import uvloop

from bench.tools.stats import RandomSchedule, Schedule
from bench.tools.target import Endpoint
from bench.tools.ticker import Ticker

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEAD_LIMIT = 1 << 16
_CONNECT_SECONDS = 15.0
_GRACE_SECONDS = 5.0
_LEAD_SECONDS = 0.3
_TICK_SECONDS = 0.0002


@dataclass(frozen=True, slots=True)
class Request:
    """The bytes to send, a marker that the answer's body must contain (empty: any body will do), and its status."""

    wire: bytes
    marker: bytes = b""
    status: bytes = b"200"


@dataclass(frozen=True, slots=True)
class Load:
    """What to offer, over all processes together.

    ``rate`` 0 is a closed loop: every connection sends its next request when the last is answered. ``once`` ends the
    closed loop when each request was sent once. Otherwise ``rate`` requests per second fall due whatever happens,
    evenly or, with ``poisson``, at random moments.
    """

    connections: int
    seconds: float
    rate: float = 0.0
    once: bool = False
    poisson: bool = False


@dataclass(slots=True)
class Outcome:
    """What was answered: latencies in seconds, body bytes, and errors by kind. ``seconds`` is wall time."""

    seconds: float = 0.0
    latencies: "array[float]" = field(default_factory=lambda: array("d"))
    received: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Good answers per second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0


def get_request(endpoint: Endpoint, path: str, token: str) -> bytes:
    """A GET with a bearer token, as a program that polls would send it."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {endpoint}\r\nAccept: application/json\r\n"
        f"Authorization: Bearer {token}\r\nUser-Agent: tempmail-bench\r\n\r\n"
    ).encode()


def request(endpoint: Endpoint, method: str, path: str, head: Mapping[str, str], body: bytes = b"") -> bytes:
    """Any request, with a JSON body where there is one."""
    fields = {"Host": str(endpoint), "Accept": "application/json", "User-Agent": "tempmail-bench"} | dict(head)
    if body or method != "GET":
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    __slots__ = ("_buffer", "_driver", "_head", "_need", "due", "index", "transport")

    def __init__(self, driver: "_Driver") -> None:
        self._driver = driver
        self._buffer = b""
        self._need = 0
        self._head = 0
        self.index = -1
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but inheritance

    def send(self, index: int, due: float) -> None:
        """Send request ``index``; its latency counts from ``due``."""
        self.index = index
        self.due = due
        self.transport.write(self._driver.requests[index].wire)

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        if not self._need and not self._measure(data):
            return
        if len(data) < self._need:
            self._buffer = data
            return
        head, extra = self._head, len(data) - self._need
        self._buffer, self._need = b"", 0
        if extra or self.index < 0:
            self.refuse("bytes nobody asked for")
            return
        self._driver.answered(self, data, head)

    def _measure(self, data: bytes) -> bool:
        """Find where the head ends and how long the whole answer is; false until the head is complete."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._buffer = data
            if len(data) > _HEAD_LIMIT:
                self.refuse("endless head")
            return False
        self._head = self._need = end + 4
        if data[9:12] == b"204":  # which has no body and says no length (RFC 9110 section 8.6)
            return True
        found = _LENGTH.search(data, 0, end)
        if found is None:
            self.refuse("no Content-Length")
            return False
        self._need += int(found[1])
        return True

    def refuse(self, why: str) -> None:
        """Give the connection up for a reason that is counted."""
        self._driver.errors[why] += 1
        self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._driver.lost(self)


class _Driver:
    """One process's share of a load. Subclasses decide when the next request goes out."""

    def __init__(self, requests: Sequence[Request], seed: int) -> None:
        self.requests = requests
        self.errors: Counter[str] = Counter()
        self.latencies = array("d")
        self.received = 0
        self.finished = asyncio.get_running_loop().create_future()
        self.connections: list[_Connection] = []
        self._order = list(range(len(requests)))
        random.Random(seed).shuffle(self._order)
        self._next = 0

    def next_index(self) -> int:
        """The next request in this process's own shuffled order, round and round."""
        index = self._order[self._next]
        self._next = (self._next + 1) % len(self._order)
        return index

    def answered(self, connection: _Connection, data: bytes, head: int) -> None:
        """Judge a whole answer and go on."""
        now = time.perf_counter()
        request = self.requests[connection.index]
        if data[9:12] != request.status:
            self.errors[f"status {data[9:12].decode('latin-1')}"] += 1
        elif data.find(request.marker, head) < 0:
            self.errors["someone else's body"] += 1
        else:
            self.latencies.append(now - connection.due)
            self.received += len(data) - head
        connection.index = -1
        self.advance(connection, now)

    def advance(self, connection: _Connection, now: float) -> None:
        """The connection is free again."""
        raise NotImplementedError

    def lost(self, connection: _Connection) -> None:
        """A connection ended; it is not replaced, and the load ends when none is left."""
        if not self.finished.done():
            self.errors["connection lost"] += 1
            self.connections.remove(connection)
            if not self.connections:
                self.finish()

    def finish(self) -> None:
        """End the load."""
        if not self.finished.done():
            self.finished.set_result(None)


class _ClosedLoop(_Driver):
    """Every connection sends as soon as it is free."""

    def __init__(self, requests: Sequence[Request], seed: int, end: float, budget: int) -> None:
        super().__init__(requests, seed)
        self._end = end
        self._budget = budget
        self._under_way = 0

    def start(self, now: float) -> None:
        """Send the first request on every connection."""
        self._under_way = len(self.connections)
        for connection in list(self.connections):
            self.advance(connection, now)

    def advance(self, connection: _Connection, now: float) -> None:
        if now < self._end and self._budget:
            self._budget -= 1
            connection.send(self.next_index(), now)
            return
        self._under_way -= 1
        if not self._under_way:
            self.finish()

    def lost(self, connection: _Connection) -> None:
        self._under_way -= 1
        super().lost(connection)


class _OpenLoop(_Driver):
    """Requests fall due on a schedule; those that find no free connection wait, and their wait counts."""

    def __init__(self, requests: Sequence[Request], seed: int, schedule: Schedule) -> None:
        super().__init__(requests, seed)
        self._schedule = schedule
        self._sent = 0
        self._answered = 0
        self._idle: list[_Connection] = []
        self._waiting: deque[float] = deque()

    def start(self) -> None:
        """All connections are free."""
        self._idle = list(self.connections)

    def tick(self) -> None:
        """Send what has fallen due."""
        for number in range(self._sent, self._schedule.due_by(time.perf_counter())):
            due = self._schedule.time_of(number)
            if self._idle:
                self._idle.pop().send(self.next_index(), due)
            else:
                self._waiting.append(due)
            self._sent = number + 1

    def advance(self, connection: _Connection, now: float) -> None:
        self._answered += 1
        if self._waiting:
            connection.send(self.next_index(), self._waiting.popleft())
        else:
            self._idle.append(connection)
        if self._answered == self._schedule.total:
            self.finish()

    def lost(self, connection: _Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
        super().lost(connection)

    @property
    def unanswered(self) -> int:
        """Requests of the schedule that never got an answer."""
        return self._schedule.total - self._answered


async def _connect(driver: _Driver, endpoint: Endpoint, count: int) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_CONNECT_SECONDS):
        for _ in range(count):
            _transport, connection = await loop.create_connection(
                lambda: _Connection(driver), endpoint.host, endpoint.port
            )
            driver.connections.append(connection)


async def _run_closed(endpoint: Endpoint, requests: Sequence[Request], load: Load, start: float, seed: int) -> _Driver:
    budget = len(requests) if load.once else 1 << 62
    driver = _ClosedLoop(requests, seed, start + load.seconds, budget)
    await _connect(driver, endpoint, load.connections)
    await asyncio.sleep(max(start - time.perf_counter(), 0))
    driver.start(time.perf_counter())
    async with asyncio.timeout(load.seconds + _GRACE_SECONDS):
        await driver.finished
    return driver


async def _run_open(endpoint: Endpoint, requests: Sequence[Request], load: Load, start: float, seed: int) -> _Driver:
    even = Schedule(start, load.rate, load.seconds)
    driver = _OpenLoop(requests, seed, RandomSchedule(start, load.rate, load.seconds, seed) if load.poisson else even)
    await _connect(driver, endpoint, load.connections)
    driver.start()
    with Ticker(_TICK_SECONDS, driver.tick):
        done, _ = await asyncio.wait(
            [driver.finished], timeout=start - time.perf_counter() + load.seconds + _GRACE_SECONDS
        )
    if not done:
        driver.errors["unanswered"] += driver.unanswered
        driver.finish()
    return driver


async def _share(endpoint: Endpoint, requests: Sequence[Request], load: Load, start: float, seed: int) -> Outcome:
    run = _run_open if load.rate else _run_closed
    driver = await run(endpoint, requests, load, start, seed)
    outcome = Outcome(time.perf_counter() - start, driver.latencies, driver.received, driver.errors)
    for connection in driver.connections:
        connection.transport.abort()
    return outcome


_requests: dict[str, Sequence[Request]] = {}  # what this generator process may send, by name; set once per process


def _keep_requests(sets: dict[str, Sequence[Request]]) -> None:
    _requests.update(sets)


def _process(endpoint: Endpoint, name: str, load: Load, start: float, seed: int, share: tuple[int, int]) -> Outcome:
    number, count = share
    requests = _requests[name][number::count] if load.once else _requests[name]
    return uvloop.run(_share(endpoint, requests, load, start, seed))


class Generators:
    """Processes that make load together; a context manager. ``sets`` are the requests they may send, by name."""

    def __init__(self, count: int, sets: dict[str, Sequence[Request]]) -> None:
        self._count = count
        self._pool = ProcessPoolExecutor(count, get_context("spawn"), _keep_requests, (sets,))

    def __enter__(self) -> "Generators":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(self, endpoint: Endpoint, name: str, load: Load, seed: int) -> Outcome:
        """Offer a load and merge what all processes saw."""
        count = self._count
        share = Load(max(load.connections // count, 1), load.seconds, load.rate / count, load.once, load.poisson)
        start = time.perf_counter() + _LEAD_SECONDS  # one monotonic clock for all processes of a machine
        work = [
            self._pool.submit(_process, endpoint, name, share, start, seed * count + number, (number, count))
            for number in range(count)
        ]
        merged = Outcome()
        for future in work:
            part = future.result(load.seconds + 60)
            merged.seconds = max(merged.seconds, part.seconds)
            merged.latencies.extend(part.latencies)
            merged.received += part.received
            merged.errors.update(part.errors)
        return merged
