"""Scenario ``e2e``: one mail's way from the final dot to a reader who polls the list and to one who is pushed.

Must not know: how servers are started (``launch``).
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from bench.clients.api import Api, Mailbox
from bench.clients.smtp import SmtpConnection, sample_message
from bench.clients.ws import subscribe
from bench.report.results import latency_cells, progress, show_latency, table
from bench.tools.launch import Plan, own_server
from bench.tools.stats import summarise
from bench.tools.target import Target

_PATIENCE = 10.0


class StaleRead(Exception):
    """A mail that was acknowledged did not show in the list, or was not pushed, in time."""


@dataclass(frozen=True, slots=True)
class Options:
    """``readers`` mailboxes at a time, each sent ``mails`` one after another; ``size`` of a body in bytes."""

    server: Plan
    readers: int
    mails: int
    size: int


@dataclass(slots=True)
class Times:
    """Seconds from the final dot to each event; ``first_list`` counts mails that the first list after 250 showed."""

    answered: list[float] = field(default_factory=list)
    listed: list[float] = field(default_factory=list)
    pushed: list[float] = field(default_factory=list)
    first_list: int = 0


async def _until_listed(api: Api, box: Mailbox, subject: str) -> int:
    """Poll the list until the mail shows, without a pause; returns how many lists it took. StaleRead after 10 s."""
    deadline = time.perf_counter() + _PATIENCE
    tries = 1
    while not any(item["subject"] == subject for item in await api.messages(box)):
        if time.perf_counter() > deadline:
            raise StaleRead(f"{subject} acknowledged, not listed after {_PATIENCE:.0f} s")
        tries += 1
    return tries


async def _reader(target: Target, api: Api, options: Options, times: Times, advance: Callable[[int], None]) -> None:
    """One mailbox, its subscriber, its poller and its sender, mail by mail."""
    box = await api.create_mailbox()
    arrivals: asyncio.Queue[tuple[dict[str, Any], float]] = asyncio.Queue()
    subscriber = await subscribe(
        target.http, box, lambda event, arrived: arrivals.put_nowait((event, arrived)), timeout=30
    )
    async with await SmtpConnection.open(target.smtp) as connection:
        for number in range(options.mails):
            subject = f"mail {number}"
            delivery = await connection.send((box.address,), sample_message(subject, options.size))
            tries = await _until_listed(api, box, subject)
            times.listed.append(time.perf_counter() - delivery.sent)
            times.first_list += tries == 1
            times.answered.append(delivery.answered - delivery.sent)
            times.pushed.append(await _until_pushed(arrivals, subject) - delivery.sent)
            advance(1)
    subscriber.close()


async def _until_pushed(arrivals: "asyncio.Queue[tuple[dict[str, Any], float]]", subject: str) -> float:
    """When the frame of this mail came. StaleRead after 10 s."""
    try:
        async with asyncio.timeout(_PATIENCE):
            while True:
                event, arrived = await arrivals.get()
                if event["type"] == "lost":
                    raise StaleRead(f"subscriber lost: {event['error']}")
                if event["type"] == "new_mail" and event["data"]["subject"] == subject:
                    return arrived
    except TimeoutError as error:
        raise StaleRead(f"{subject} acknowledged, not pushed after {_PATIENCE:.0f} s") from error


async def _scenario(target: Target, options: Options, advance: Callable[[int], None]) -> Times:
    times = Times()
    async with Api(target.http) as api, asyncio.TaskGroup() as group:
        for _ in range(options.readers):
            group.create_task(_reader(target, api, options, times, advance))
    return times


def run(console: Console, options: Options, work: Path, target: Target | None) -> dict[str, Any]:
    """Measure and show; returns distributions from the final dot to 250, list and frame, in seconds."""
    with ExitStack() as stack:
        aim = target or stack.enter_context(own_server(work, options.server))
        bar = stack.enter_context(progress(console))
        task = bar.add_task("mails", total=options.readers * options.mails)
        times = uvloop.run(_scenario(aim, options, lambda count: bar.advance(task, count)))
    parts = {"250": times.answered, "seen in the list": times.listed, "pushed over WebSocket": times.pushed}
    rows = [[name, *latency_cells(summarise(values))] for name, values in parts.items()]
    title = f"from the final dot, {options.readers} readers at a time, own generator"
    console.print(table(title, ["until", "p50", "p95", "p99", "max"], rows))
    console.print(f"shown by the first list after 250: {times.first_list} of {len(times.listed)}")
    show_latency(console, "final dot to list", times.listed)
    show_latency(console, "final dot to frame", times.pushed)
    return {
        "mails": len(times.listed),
        "shown_by_first_list": times.first_list,
        "dot_to_250": asdict(summarise(times.answered)),
        "dot_to_list": asdict(summarise(times.listed)),
        "dot_to_frame": asdict(summarise(times.pushed)),
    }
