"""Scenario ``ws``: many subscribers, a steady stream of mail to random ones, time from the final dot to the frame.

Then the same stream beside some that do not read: they have asked for more mail than their sockets take, so that the
server has to hold some, give up on them, and harm nobody.
Must not know: how frames are read (``client_fleet``), how mail is sent (``client_postman``) or how servers are started.
"""

import asyncio
import random
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.progress import Progress

from bench.clients.api import Mailbox
from bench.clients.burst import send_all
from bench.clients.fleet import Fleet, Interest, Seen
from bench.clients.postman import Sent, send_steadily
from bench.clients.smtp import sample_message
from bench.report.results import latency_cells, progress, show_latency, table
from bench.scenarios.boxes import make_boxes
from bench.tools.launch import Plan, own_server
from bench.tools.processes import CpuTime, Memory, Neighbours, Peak, cpu_time, kernel_bytes, memory
from bench.tools.stats import Latency, summarise
from bench.tools.target import Target

_SENDERS = 48  # sessions, so that each worker gets some and the mail in one of them delays no other
_SETTLE_SECONDS = 3.0
_SUBJECT = "bench "
_CROWD_MAILS = 900  # that those who do not read ask for: some 600 kB, more than their sockets take
_CROWD_SECONDS = 120.0
_LAZY_SECONDS = 32.0  # of the stream beside them, at least: so long we need to be rid of them
_DROPPED = re.compile(r'^tempmail_websocket_dropped_total\{reason="(\w+)"\} ([\d.e+]+)$', re.M)
ALONE, BESIDE = "alone", "beside"


class PushError(Exception):
    """Frames are missing, doubled, strange, or came to the wrong subscriber; the text counts them by kind."""


@dataclass(frozen=True, slots=True)
class Options:
    """``connections`` that read, ``lazy`` ones that do not; ``rate`` in mails a second; ``size`` of a body in bytes."""

    server: Plan
    seconds: float
    connections: int
    lazy: int
    rate: float
    size: int


@dataclass(frozen=True, slots=True)
class Stream:
    """Mails numbered from ``first``, each to a subscriber, and what they cost. ``held``: bytes of the server at its
    most, and at the end, over what it had when the stream began.
    """

    first: int
    subscribers: list[int]
    sent: Sent
    cpu: CpuTime
    neighbours: float
    held: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes a connection: of the server, and of the kernel, which holds both ends of it on this machine."""

    shared: float
    own: float
    kernel: float


async def _watched(peak: Peak | None) -> None:
    while peak is not None:
        peak.look()
        await asyncio.sleep(0.5)


async def _send(target: Target, boxes: Sequence[Mailbox], options: Options, seconds: float, first: int) -> Stream:
    """Mail to random mailboxes on a schedule."""
    chooser = random.Random(first)
    chosen = [chooser.randrange(len(boxes)) for _ in range(max(round(options.rate * seconds), 1))]

    def letter(number: int) -> tuple[str, bytes]:
        return boxes[chosen[number]].address, sample_message(f"{_SUBJECT}{first + number}", options.size)

    peak = Peak(target.pid) if target.pid else None
    watching = asyncio.create_task(_watched(peak))
    spent, neighbours = _spent(target), Neighbours()
    sent = await send_steadily(target.smtp, options.rate, seconds, letter, sessions=_SENDERS)
    cpu, others = _spent(target).since(spent), neighbours.cores()
    watching.cancel()
    held = (peak.most - peak.first, peak.last - peak.first) if peak else (0, 0)
    await asyncio.sleep(_SETTLE_SECONDS)
    return Stream(first, chosen, sent, cpu, others, held)


async def _crowd(target: Target, box: Mailbox, size: int) -> None:
    """Much mail for one mailbox."""
    letters = [(box.address, sample_message(f"{_SUBJECT}{number}", size)) for number in range(_CROWD_MAILS)]
    await send_all(target.smtp, letters, sessions=16, deadline=_CROWD_SECONDS)


def judge(streams: Sequence[Stream], seen: Seen) -> list[list[float]]:
    """For each stream, seconds from the final dot to the frame, one for each mail. PushError unless all came, once, to
    the right one.
    """
    errors = Counter({f"subscriber lost: {why}": count for why, count in seen.errors.items()})
    wanted = {
        stream.first + number: (subscriber, stream.sent.dot[number])
        for stream in streams
        for number, subscriber in enumerate(stream.subscribers)
    }
    pushed: dict[int, float] = {}
    for number, subscriber, arrival in zip(seen.numbers, seen.subscribers, seen.arrivals, strict=True):
        if number in pushed:
            errors["the same mail twice"] += 1
        elif number not in wanted or wanted[number][0] != subscriber:
            errors["someone else's mail"] += 1
        else:
            pushed[number] = arrival - wanted[number][1]
    if missing := len(wanted) - len(pushed):
        errors["frames missing"] += missing
    if errors:
        raise PushError(str(dict(errors)))
    return [[pushed[s.first + number] for number in range(len(s.subscribers))] for s in streams]


def _reading(target: Target) -> tuple[Memory, int]:
    return memory(target.pid) if target.pid else Memory(0, 0), kernel_bytes()


@contextmanager
def _fleet(
    target: Target, bar: Progress, title: str, interests: Sequence[Interest], number: int
) -> Iterator[tuple[Fleet, float]]:
    """The subscribers, and how many were subscribed a second."""
    with Fleet(target.http, interests, number) as fleet:
        task, started = bar.add_task(title, total=len(interests)), time.perf_counter()
        fleet.wait(lambda more: bar.advance(task, more))
        yield fleet, len(interests) / (time.perf_counter() - started)


def _held(before: tuple[Memory, int], after: tuple[Memory, int], count: int) -> Held:
    own, shared = after[0].own - before[0].own, after[0].shared - before[0].shared
    return Held(shared / count, own / count, (after[1] - before[1]) / count)


def _spent(target: Target) -> CpuTime:
    return cpu_time(target.pid) if target.pid else CpuTime(0.0, 0.0)


def _dropped(target: Target) -> Counter[str]:
    """Connections that the server has ended so far, by its own count."""
    with urllib.request.urlopen(f"{target.http.base_url}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return Counter({reason: int(float(count)) for reason, count in _DROPPED.findall(text)})


def _told(stream: Stream, pushed: Sequence[float]) -> dict[str, Any]:
    sent, mails = stream.sent, len(pushed)
    return {
        "mails": mails,
        "offered": sent.rate,
        "dot_to_frame": asdict(summarise(pushed)),
        "dot_to_250": asdict(summarise([end - dot for end, dot in zip(sent.answered, sent.dot, strict=True)])),
        "late_by": asdict(summarise([began - due for began, due in zip(sent.began, sent.due, strict=True)])),
        "cpu_a_mail": {"server": stream.cpu.server / mails, "postgres": stream.cpu.postgres / mails},
        "memory": {"most": stream.held[0], "at_the_end": stream.held[1]},
        "neighbours": stream.neighbours,
    }


def _show(console: Console, options: Options, result: Mapping[str, Any]) -> None:
    for name in (ALONE, BESIDE):
        if (told := result.get(name)) is None:
            continue
        rows = [
            [title, *latency_cells(Latency(**told[key]))]
            for title, key in (
                ("final dot to frame", "dot_to_frame"),
                ("final dot to 250", "dot_to_250"),
                ("sent later than due by", "late_by"),
            )
        ]
        lazy = f" beside {options.lazy:,} that do not read" if name == BESIDE else ""
        title = f"{options.connections:,} subscribers{lazy}: {told['offered']:,.0f} mails/s offered, own generator"
        console.print(table(title, ["", "p50", "p95", "p99", "max"], rows))
        cpu, memory = told["cpu_a_mail"], told["memory"]
        console.print(
            f"CPU a mail: server {cpu['server'] * 1e6:,.0f} us, PostgreSQL {cpu['postgres'] * 1e6:,.0f} us; "
            f"others' cores: {told['neighbours']:.2f}; memory {memory['most'] / 2**20:+,.1f} MiB at most, "
            f"{memory['at_the_end'] / 2**20:+,.1f} at the end"
        )
    held = result["memory_per_connection"]
    console.print(
        f"a connection: {held['shared']:,.0f} B of the server ({held['own']:,.0f} B its processes' own pages), "
        f"{held['kernel']:,.0f} B of the kernel for both ends; opened: {result['subscriptions_per_second']:,.0f}/s"
    )
    if BESIDE in result:
        console.print(f"dropped, the server says: {result['dropped']}; those that did not read say: {result['ends']}")


class _Run:
    """What the stages of a run hand on."""

    def __init__(self, options: Options, work: Path, target: Target, bar: Progress) -> None:
        self._options, self._work, self._target, self._bar = options, work, target, bar
        self._streams: list[Stream] = []
        self.result: dict[str, Any] = {}

    def measure(self) -> dict[str, list[float]]:
        """Fill ``result``; seconds from the dot to the frame by stream."""
        options, target, bar = self._options, self._target, self._bar
        task = bar.add_task("mailboxes", total=options.connections)
        boxes = uvloop.run(make_boxes(target, self._work, options.connections + 1))
        bar.advance(task, options.connections)
        crowded = boxes.pop()
        before = _reading(target)
        with _fleet(target, bar, "subscribers", [Interest(box.id, box.token) for box in boxes], 0) as (fleet, opened):
            held = _held(before, _reading(target), options.connections)
            self._stream(boxes, options.seconds)
            if options.lazy:
                self._beside_lazy(boxes, crowded)
            pushed = judge(self._streams, fleet.seen())
        by_name = dict(zip((ALONE, BESIDE), pushed, strict=False))
        told = {name: _told(stream, by_name[name]) for name, stream in zip(by_name, self._streams, strict=True)}
        self.result |= {**told, "memory_per_connection": asdict(held), "subscriptions_per_second": opened}
        return by_name

    def _stream(self, boxes: Sequence[Mailbox], seconds: float) -> None:
        task = self._bar.add_task(f"{self._options.rate:,.0f} mails/s for {seconds:.0f} s", total=1)
        first = sum(len(stream.subscribers) for stream in self._streams)
        self._streams.append(uvloop.run(_send(self._target, boxes, self._options, seconds, first)))
        self._bar.advance(task)

    def _beside_lazy(self, boxes: Sequence[Mailbox], crowded: Mailbox) -> None:
        options, target = self._options, self._target
        uvloop.run(_crowd(target, crowded, options.size))
        crowd = [Interest(crowded.id, crowded.token, lazy=True)] * options.lazy
        before = _dropped(target)
        with _fleet(target, self._bar, "some that do not read", crowd, 1) as (lazy, _):
            self._stream(boxes, max(options.seconds, _LAZY_SECONDS))
            self.result["ends"] = dict(lazy.seen().errors)
        self.result["dropped"] = dict(_dropped(target) - before)


def run(console: Console, options: Options, work: Path, target: Target | None) -> dict[str, Any]:
    """Measure and show; returns latencies from the dot to the frame and to 250, memory in bytes and CPU in seconds.

    Of a target that somebody else started neither can be read: they are 0.
    """
    with ExitStack() as stack:
        aim = target or stack.enter_context(own_server(work, options.server))
        whole = _Run(options, work, aim, stack.enter_context(progress(console)))
        pushed = whole.measure()
    _show(console, options, whole.result)
    for name, values in pushed.items():
        show_latency(console, f"final dot to frame, {name}", values)
    return whole.result
