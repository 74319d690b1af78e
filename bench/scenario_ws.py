"""Scenario ``ws``: many subscribers, a steady stream of mail to random ones, time from the final dot to the frame.

Must not know: how frames are read (``client_ws``) or how servers are started (``launch``).
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.progress import Progress

from bench.client_api import Api, Mailbox
from bench.client_smtp import Delivery, SmtpConnection, sample_message
from bench.client_ws import subscribe_all
from bench.launch import Plan, own_server
from bench.processes import memory_bytes
from bench.report import latency_cells, progress, show_latency, table
from bench.stats import Schedule, summarise
from bench.target import Target

_SENDERS = 16
_SETTLE_SECONDS = 10.0
_GRACE_SECONDS = 60.0
_SUBJECT = "bench "


class PushError(Exception):
    """Frames are missing, doubled, strange, or came to the wrong subscriber; the text counts them by kind."""


@dataclass(frozen=True, slots=True)
class Options:
    """``rate`` in mails per second; ``size`` of a body in bytes."""

    server: Plan
    seconds: float
    subscribers: int
    rate: float
    size: int


@dataclass(slots=True)
class Seen:
    """Mail by number: to whom, when sent and accepted, when its frame came; and what went wrong."""

    mailbox: dict[int, str] = field(default_factory=dict)
    delivery: dict[int, Delivery] = field(default_factory=dict)
    lateness: list[float] = field(default_factory=list)
    arrival: dict[int, float] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    expected: int = 0
    complete: asyncio.Event = field(default_factory=asyncio.Event)

    def on_event(self, event: dict[str, Any], arrived: float) -> None:
        """Take one event of any subscriber."""
        if event.get("type") == "lost":
            self.errors[f"subscriber lost: {event['error']}"] += 1
        if event.get("type") != "new_mail":
            return
        number = int(str(event["data"]["subject"]).removeprefix(_SUBJECT))
        if number in self.arrival:
            self.errors["the same mail twice"] += 1
        if event["mailboxId"] != self.mailbox.get(number):
            self.errors["someone else's mail"] += 1
        self.arrival.setdefault(number, arrived)
        if len(self.arrival) == self.expected:
            self.complete.set()

    def pushed(self) -> list[float]:
        """Seconds from the final dot to the frame, one per mail."""
        return [self.arrival[number] - sent.sent for number, sent in self.delivery.items() if number in self.arrival]


async def _send_steadily(target: Target, boxes: Sequence[Mailbox], options: Options, seen: Seen) -> None:
    """Mail to random mailboxes on a schedule, from a few kept-open sessions."""
    schedule = Schedule(time.perf_counter() + 0.5, options.rate, options.seconds)
    seen.expected = schedule.total
    numbers = iter(range(schedule.total))
    chooser = random.Random(1)

    async def sender() -> None:
        async with await SmtpConnection.open(target.smtp) as connection:
            for number in numbers:
                due = schedule.time_of(number)
                await asyncio.sleep(max(due - time.perf_counter(), 0))
                box = chooser.choice(boxes)
                seen.mailbox[number] = box.id
                seen.lateness.append(max(time.perf_counter() - due, 0.0))
                wire = sample_message(f"{_SUBJECT}{number}", options.size)
                seen.delivery[number] = await connection.send((box.address,), wire)

    async with asyncio.timeout(options.seconds + _GRACE_SECONDS), asyncio.TaskGroup() as group:
        for _ in range(_SENDERS):
            group.create_task(sender())


async def _await_frames(seen: Seen) -> None:
    with suppress(TimeoutError):  # what is missing is counted below
        async with asyncio.timeout(_SETTLE_SECONDS):
            await seen.complete.wait()
    await asyncio.sleep(0.2)  # a doubled frame would still be on its way
    if missing := len(seen.delivery) - len(seen.arrival):
        seen.errors["frames missing"] += missing


async def _scenario(target: Target, options: Options, bar: Progress) -> tuple[Seen, float | None, float]:
    """What was seen, the server's memory per connection in bytes, and subscriptions opened per second."""
    async with Api(target.http) as api:
        boxes = await api.create_mailboxes(options.subscribers)
    seen = Seen()
    task = bar.add_task("subscribers", total=options.subscribers)
    before = memory_bytes(target.pid) if target.pid else 0
    started = time.perf_counter()
    subscribers = await subscribe_all(target.http, boxes, seen.on_event, lambda count: bar.advance(task, count))
    opened = options.subscribers / (time.perf_counter() - started)
    memory = (memory_bytes(target.pid) - before) / options.subscribers if target.pid else None
    bar.add_task(f"{options.rate:,.0f} mails/s for {options.seconds:.0f} s", total=None)
    await _send_steadily(target, boxes, options, seen)
    await _await_frames(seen)
    for subscriber in subscribers:
        subscriber.close()
    if seen.errors:
        raise PushError(str(dict(seen.errors)))
    return seen, memory, opened


def run(console: Console, options: Options, work: Path, target: Target | None) -> dict[str, Any]:
    """Measure and show; returns latencies from the dot to the frame and to 250, and memory per connection in bytes."""
    with ExitStack() as stack:
        aim = target or stack.enter_context(own_server(work, options.server))
        bar = stack.enter_context(progress(console))
        seen, memory, opened = uvloop.run(_scenario(aim, options, bar))
    pushed = seen.pushed()
    answered = [sent.answered - sent.sent for sent in seen.delivery.values()]
    title = f"{options.subscribers:,} subscribers, {options.rate:,.0f} mails/s offered, own generator"
    rows = [
        ["final dot to frame", *latency_cells(summarise(pushed))],
        ["final dot to 250", *latency_cells(summarise(answered))],
        ["sent later than due by", *latency_cells(summarise(seen.lateness))],
    ]
    console.print(table(title, ["", "p50", "p95", "p99", "max"], rows))
    held = "not ours to read" if memory is None else f"{memory:,.0f} B"
    console.print(f"memory per connection, server: {held}; subscriptions opened: {opened:,.0f}/s")
    show_latency(console, "final dot to frame", pushed)
    return {
        "mails": len(pushed),
        "dot_to_frame": asdict(summarise(pushed)),
        "dot_to_250": asdict(summarise(answered)),
        "late_by": asdict(summarise(seen.lateness)),
        "memory_per_connection": memory,
        "subscriptions_per_second": opened,
    }
