"""A fleet that polls lists while mail arrives: a generator lean enough for servers that answer in microseconds.

Lives here: the generator, one process over epoll and bare sockets, and the postman, another process that sends a mail
whenever the generator asks for one. They share ``acknowledged``: how many mails to each mailbox have got 250 so far. An
answer whose newest seq is below what was acknowledged before its request was sent is stale. Must not know: whose server
answers. Answers are HTTP/1.1 with a Content-Length (RFC 9112); anything else counts as an error.
"""

import asyncio
import mmap
import os
import random
import select
import socket
import struct
import time
from array import array
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path

import uvloop

from bench.clients.smtp import SmtpConnection
from bench.tools.stats import Schedule
from bench.tools.target import Endpoint
from bench.tools.ticker import timer

_READ = 1 << 17
_TICK_SECONDS = 0.0002
_GRACE_SECONDS = 3.0
_POSTMEN = 8
_MARK = b'"seq":'
_NUMBER = struct.Struct("I")


@dataclass(frozen=True, slots=True)
class Poll:
    """What to offer: ``rate`` 0 is a closed loop, else so many requests per second fall due whatever happens. After one
    in ``mail_every`` requests a mail goes to the mailbox that was read (0: none). ``skew`` is Zipf's exponent.
    """

    connections: int
    seconds: float
    rate: float = 0.0
    mail_every: int = 0
    skew: float = 0.9


@dataclass(slots=True)
class Seen:
    """What was answered: latencies in seconds from the due time, errors by kind, mails asked for. ``unanswered`` fell
    due at an offered rate and were not answered until three seconds after the end. ``cpu`` is the generator's own, in
    seconds; ``seconds`` is wall time.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    mails: int = 0
    unanswered: int = 0
    latencies: "array[float]" = field(default_factory=lambda: array("d"))
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Good answers per second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0


def shared(path: Path) -> "memoryview":
    """The counts of acknowledged mails that the processes share, one for each mailbox."""
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0)).cast("I")


def popular(count: int, length: int, skew: float, seed: int) -> "array[int]":
    """``length`` mailboxes by Zipf's law, whose ranks are dealt out anew for each seed 0, 1, ..."""
    rng = random.Random(seed)
    ranked = list(range(count))
    random.Random(0).shuffle(ranked)  # the same mailboxes are popular in every run, as they are in life
    weights = list(accumulate((rank + 1) ** -skew for rank in range(count)))
    return array("I", rng.choices(ranked, cum_weights=weights, k=length))


class _Line:
    """One connection with at most one request under way."""

    __slots__ = ("buffer", "due", "index", "least", "receive", "send", "socket")

    def __init__(self, endpoint: Endpoint) -> None:
        self.socket = socket.create_connection((endpoint.host, endpoint.port), timeout=15)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.receive, self.send = self.socket.recv, self.socket.send
        self.buffer = b""
        self.index, self.least, self.due = 0, 0, 0.0


class _Generator:
    def __init__(self, wires: Sequence[bytes], counts: "memoryview | None", post: int, load: Poll, seed: int) -> None:
        self._wires, self._counts, self._post, self._load = wires, counts, post, load
        self._order = popular(len(wires), 1 << 18, load.skew, seed)
        self._place = 0
        self._seen = Seen()
        self._poll = select.epoll()
        self._lines: dict[int, _Line] = {}

    def run(self, endpoint: Endpoint) -> Seen:
        for _ in range(self._load.connections):
            line = _Line(endpoint)
            self._lines[line.socket.fileno()] = line
            self._poll.register(line.socket.fileno(), select.EPOLLIN)
        began, cpu = time.perf_counter(), time.process_time()
        (self._offered if self._load.rate else self._closed)(began)
        self._seen.seconds = time.perf_counter() - began
        self._seen.cpu = time.process_time() - cpu
        for line in self._lines.values():
            line.socket.close()
        return self._seen

    def _ask(self, line: _Line, due: float) -> None:
        place = self._place = (self._place + 1) & 0x3FFFF
        index = line.index = self._order[place]
        line.due = due
        if self._counts is not None:
            line.least = self._counts[index]
        line.send(self._wires[index])

    def _closed(self, began: float) -> None:
        end = began + self._load.seconds
        for line in self._lines.values():
            self._ask(line, time.perf_counter())
        under_way = len(self._lines)
        while under_way:
            ready = self._poll.poll(_GRACE_SECONDS)
            if not ready:
                self._seen.errors["unanswered"] += under_way
                return
            for descriptor, _ in ready:
                line = self._lines[descriptor]
                now = self._answered(line)
                if not now:
                    continue
                if 0 < now < end:
                    self._ask(line, now)
                else:
                    under_way -= 1

    def _offered(self, began: float) -> None:
        schedule = Schedule(began, self._load.rate, self._load.seconds)
        idle, waiting = list(self._lines.values()), deque[float]()
        sent = done = 0
        give_up = began + self._load.seconds + _GRACE_SECONDS
        with timer(_TICK_SECONDS) as ticks:
            self._poll.register(ticks, select.EPOLLIN)
            while done < schedule.total:
                for descriptor, _ in self._poll.poll(1):
                    if descriptor == ticks:
                        os.read(ticks, 8)
                        continue
                    line = self._lines[descriptor]
                    now = self._answered(line)
                    if now:
                        done += 1
                        idle.append(line)
                now = time.perf_counter()
                for number in range(sent, schedule.due_by(now)):
                    waiting.append(schedule.time_of(number))
                    sent = number + 1
                while waiting and idle:
                    self._ask(idle.pop(), waiting.popleft())
                if now > give_up:
                    self._seen.unanswered = schedule.total - done
                    return

    def _answered(self, line: _Line) -> float:
        """Take what came: when the answer is whole the time it was (negative: the connection is lost), else 0."""
        data = line.receive(_READ)
        if not data:
            return self._lost(line)
        if line.buffer:
            data = line.buffer + data
        head = data.find(b"\r\n\r\n") + 4
        length = data.find(b"Content-Length: ", 0, head)
        if length < 0:
            length = data.find(b"content-length: ", 0, head)  # as servers on hyper write it
        if head < 4 or length < 0 or len(data) < head + int(data[length + 16 : data.find(b"\r", length)]):
            line.buffer = data
            return 0.0 if len(data) < _READ * 8 else self._lost(line)
        line.buffer = b""
        now = time.perf_counter()
        if data[9:12] != b"200":
            self._seen.errors[f"status {data[9:12].decode('latin-1')}"] += 1
        elif self._counts is not None and self._newest(data, head) < line.least:
            self._seen.errors["stale"] += 1
        else:
            self._seen.latencies.append(now - line.due)
        if self._load.mail_every and len(self._seen.latencies) % self._load.mail_every == 0:
            self._order_mail(line.index)
        return now

    @staticmethod
    def _newest(data: bytes, head: int) -> int:
        found = data.find(_MARK, head) + len(_MARK)
        return int(data[found : data.find(b",", found)]) if found >= len(_MARK) else 0

    def _order_mail(self, index: int) -> None:
        try:
            os.write(self._post, _NUMBER.pack(index))
            self._seen.mails += 1
        except BlockingIOError:
            self._seen.errors["the postman cannot keep up"] += 1

    def _lost(self, line: _Line) -> float:
        self._seen.errors["connection lost"] += 1
        self._poll.unregister(line.socket.fileno())
        return -1.0


@dataclass(frozen=True, slots=True)
class Shared:
    """What the processes of a fleet find one another by: the counts' file, and the pipe to the postman."""

    counts: Path
    post: Path


_kept: dict[str, Sequence[bytes]] = {}  # what this generator process may send, by name; set once per process


def _keep(sets: dict[str, Sequence[bytes]]) -> None:
    _kept.update(sets)


def _generate(endpoint: Endpoint, name: str, common: Shared | None, load: Poll, seed: int) -> Seen:
    counts = shared(common.counts) if common else None
    post = os.open(common.post, os.O_WRONLY | os.O_NONBLOCK) if common and load.mail_every else -1
    try:
        return _Generator(_kept[name], counts, post, load, seed).run(endpoint)
    finally:
        if post >= 0:
            os.close(post)


class Fleet:
    """The generator's process; a context manager. ``sets`` are the requests it may send, by name."""

    def __init__(self, sets: dict[str, Sequence[bytes]]) -> None:
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), _keep, (sets,))

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(self, endpoint: Endpoint, name: str, common: Shared | None, load: Poll, seed: int) -> Seen:
        """Poll; with ``common`` the answers are checked against what was acknowledged."""
        return self._pool.submit(_generate, endpoint, name, common, load, seed).result(load.seconds + 60)


async def _deliver(smtp: Endpoint, recipients: Sequence[str], common: Shared, wire: bytes) -> None:
    counts = shared(common.counts)
    wanted: asyncio.Queue[int] = asyncio.Queue()
    descriptor = os.open(common.post, os.O_RDWR | os.O_NONBLOCK)  # a writer too, so that the pipe never ends

    def heard() -> None:
        for (index,) in _NUMBER.iter_unpack(os.read(descriptor, 4096)):
            wanted.put_nowait(index)

    asyncio.get_running_loop().add_reader(descriptor, heard)

    async def session() -> None:
        async with await SmtpConnection.open(smtp) as connection:
            while True:
                index = await wanted.get()
                await connection.send((recipients[index],), wire)
                counts[index] += 1  # the one process that writes, in one thread

    async with asyncio.TaskGroup() as group:
        for _ in range(_POSTMEN):
            group.create_task(session())


def postman(smtp: Endpoint, recipients: Sequence[str], common: Shared, wire: bytes) -> None:
    """Send what generators ask for until terminated; the body of a process of its own."""
    uvloop.run(_deliver(smtp, recipients, common, wire))
