"""Scenario ``ws``: many subscribers, a steady stream of mail to random ones, time from the final dot to the frame.

Beside those that read there may be some that do not: they ask for more mail than their sockets take, before the stream
begins, so that the server has to hold some, give up on them, and harm nobody.
Must not know: how frames are read (``client_fleet``) or how servers are started (``launch``).
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.progress import Progress

from bench.client_api import Api, Mailbox
from bench.client_fleet import Fleet, Interest, Seen
from bench.client_smtp import Delivery, SmtpConnection, sample_message, send_all
from bench.launch import Plan, own_server
from bench.processes import CpuTime, Memory, Neighbours, cpu_time, kernel_bytes, memory
from bench.report import latency_cells, progress, show_latency, table
from bench.stats import Latency, Schedule, summarise
from bench.target import Target

_SENDERS = 16
_SETTLE_SECONDS = 3.0
_GRACE_SECONDS = 60.0
_SUBJECT = "bench "
_CROWD_MAILS = 900  # that those who do not read ask for: some 600 kB, more than their sockets take
_CROWD_SECONDS = 120.0


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


@dataclass(slots=True)
class Sent:
    """Mail by number: to which subscriber, when sent and accepted; and how late it was sent."""

    subscriber: dict[int, int] = field(default_factory=dict)
    delivery: dict[int, Delivery] = field(default_factory=dict)
    lateness: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes a connection: of the server, and of the kernel, which holds both ends of it on this machine."""

    shared: float
    own: float
    kernel: float


async def _send_steadily(target: Target, boxes: Sequence[Mailbox], options: Options) -> Sent:
    """Mail to random mailboxes on a schedule, from a few kept-open sessions."""
    sent, chooser = Sent(), random.Random(1)
    schedule = Schedule(time.perf_counter() + 0.5, options.rate, options.seconds)
    numbers = iter(range(schedule.total))

    async def sender() -> None:
        async with await SmtpConnection.open(target.smtp) as connection:
            for number in numbers:
                due = schedule.time_of(number)
                await asyncio.sleep(max(due - time.perf_counter(), 0))
                subscriber = sent.subscriber[number] = chooser.randrange(len(boxes))
                sent.lateness.append(max(time.perf_counter() - due, 0.0))
                wire = sample_message(f"{_SUBJECT}{number}", options.size)
                sent.delivery[number] = await connection.send((boxes[subscriber].address,), wire)

    async with asyncio.timeout(options.seconds + _GRACE_SECONDS), asyncio.TaskGroup() as group:
        for _ in range(_SENDERS):
            group.create_task(sender())
    await asyncio.sleep(_SETTLE_SECONDS)
    return sent


async def _make_boxes(target: Target, count: int) -> list[Mailbox]:
    async with Api(target.http) as api:
        return await api.create_mailboxes(count)


async def _crowd(target: Target, size: int) -> Mailbox:
    """A mailbox with much mail in it."""
    (box,) = await _make_boxes(target, 1)
    letters = [(box.address, sample_message(f"{_SUBJECT}{number}", size)) for number in range(_CROWD_MAILS)]
    await send_all(target.smtp, letters, sessions=_SENDERS, deadline=_CROWD_SECONDS)
    return box


def judge(sent: Sent, seen: Seen) -> list[float]:
    """Seconds from the final dot to the frame, one for each mail. PushError unless all came, once, to the right one."""
    errors = Counter({f"subscriber lost: {why}": count for why, count in seen.errors.items()})
    pushed: dict[int, float] = {}
    for number, subscriber, arrival in zip(seen.numbers, seen.subscribers, seen.arrivals, strict=True):
        if number in pushed:
            errors["the same mail twice"] += 1
        elif sent.subscriber.get(number) != subscriber:
            errors["someone else's mail"] += 1
        else:
            pushed[number] = arrival - sent.delivery[number].sent
    if missing := len(sent.delivery) - len(pushed):
        errors["frames missing"] += missing
    if errors:
        raise PushError(str(dict(errors)))
    return list(pushed.values())


def _reading(target: Target) -> tuple[Memory, int]:
    return memory(target.pid) if target.pid else Memory(0, 0), kernel_bytes()


def _open(fleet: Fleet, bar: Progress, title: str, count: int) -> float:
    """Connections subscribed per second."""
    task, started = bar.add_task(title, total=count), time.perf_counter()
    fleet.wait(lambda more: bar.advance(task, more))
    return count / (time.perf_counter() - started)


def _held(before: tuple[Memory, int], after: tuple[Memory, int], count: int) -> Held:
    own, shared = after[0].own - before[0].own, after[0].shared - before[0].shared
    return Held(shared / count, own / count, (after[1] - before[1]) / count)


def _spent(target: Target) -> CpuTime:
    return cpu_time(target.pid) if target.pid else CpuTime(0.0, 0.0)


def _show(console: Console, options: Options, result: dict[str, Any]) -> None:
    who = f"{options.connections:,} subscribers and {options.lazy:,} that do not read"
    rows = [
        [name, *latency_cells(Latency(**result[key]))]
        for name, key in (
            ("final dot to frame", "dot_to_frame"),
            ("final dot to 250", "dot_to_250"),
            ("sent later than due by", "late_by"),
        )
    ]
    title = f"{who}, {options.rate:,.0f} mails/s offered, own generator"
    console.print(table(title, ["", "p50", "p95", "p99", "max"], rows))
    held, cpu, mails = result["memory_per_connection"], result["server_cpu"], result["mails"]
    console.print(
        f"a connection: {held['shared']:,.0f} B of the server ({held['own']:,.0f} B its processes' own pages), "
        f"{held['kernel']:,.0f} B of the kernel for both ends; opened: {result['subscriptions_per_second']:,.0f}/s"
    )
    console.print(
        f"CPU a mail: server {cpu['server'] / mails * 1e6:,.0f} us, PostgreSQL {cpu['postgres'] / mails * 1e6:,.0f} us"
        f"; others' cores: {result['neighbours']:.2f}"
    )


def run(console: Console, options: Options, work: Path, target: Target | None) -> dict[str, Any]:
    """Measure and show; returns latencies from the dot to the frame and to 250, memory in bytes and CPU in seconds.

    Of a target that somebody else started neither can be read: they are 0.
    """
    with ExitStack() as stack:
        aim = target or stack.enter_context(own_server(work, options.server))
        bar = stack.enter_context(progress(console))
        bar.add_task(f"{options.connections:,} mailboxes", total=None)
        boxes = uvloop.run(_make_boxes(aim, options.connections))
        before = _reading(aim)
        interests = [Interest(box.id, box.token) for box in boxes]
        fleet = stack.enter_context(Fleet(aim.http, interests))
        opened = _open(fleet, bar, "subscribers", options.connections)
        held = _held(before, _reading(aim), options.connections)
        if options.lazy:
            crowded = uvloop.run(_crowd(aim, options.size))
            crowd = [Interest(crowded.id, crowded.token, lazy=True)] * options.lazy
            _open(stack.enter_context(Fleet(aim.http, crowd, number=1)), bar, "some that do not read", options.lazy)
        bar.add_task(f"{options.rate:,.0f} mails/s for {options.seconds:.0f} s", total=None)
        spent, neighbours = _spent(aim), Neighbours()
        sent = uvloop.run(_send_steadily(aim, boxes, options))
        cpu = _spent(aim).since(spent)
        others = neighbours.cores()
        pushed = judge(sent, fleet.seen())
    result = {
        "mails": len(pushed),
        "dot_to_frame": asdict(summarise(pushed)),
        "dot_to_250": asdict(summarise([one.answered - one.sent for one in sent.delivery.values()])),
        "late_by": asdict(summarise(sent.lateness)),
        "memory_per_connection": asdict(held),
        "subscriptions_per_second": opened,
        "server_cpu": asdict(cpu),
        "neighbours": others,
    }
    _show(console, options, result)
    show_latency(console, "final dot to frame", pushed)
    return result
