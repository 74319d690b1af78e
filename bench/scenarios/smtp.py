"""Scenario ``smtp``: acknowledged mails per second, ours beside its peers, every stored message counted.

Must not know: how servers are started (``launch``, ``peers``), or how results are written (``report``).
"""

import asyncio
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.progress import Progress

from bench.clients.api import Api, Mailbox
from bench.clients.burst import send_all
from bench.clients.smtp import Burst, SmtpError, burst, sample_message
from bench.peers.npm import ON_REQUEST
from bench.peers.receivers import RECEIVERS, Receiver
from bench.report.results import latency_cells, progress, show_latency, table
from bench.tools.launch import Plan, own_server
from bench.tools.processes import CpuTime, Neighbours, cpu_time
from bench.tools.stats import cpu_ratio, paired_ratio, summarise
from bench.tools.target import Target

OURS = "tempmail"
VARIANTS = {
    "kept": "smtp-source, sessions kept open",
    "single": "smtp-source, one message per connection",
    "own": "own generator, kept open, pipelined where offered",
    "bdat": "own generator, kept open, envelope and BDAT LAST in one write",
}
_PROBE_MESSAGES = 300
_FEWEST_MESSAGES = 500
_MOST_MESSAGES = {
    "kept": 200_000,
    "single": 20_000,
    "own": 50_000,
    "bdat": 50_000,
}  # single: a loopback pair has 28,000 client ports
_BURST_DEADLINE = 300.0
_SETTLE_SECONDS = 60.0


class LostMail(Exception):
    """A receiver holds another number of messages than it acknowledged."""


@dataclass(frozen=True, slots=True)
class Options:
    """``size`` in bytes; ``seconds`` is the length of a run; ``mailboxes`` is the number of sender processes."""

    server: Plan
    runs: int
    seconds: float
    sessions: int
    size: int
    mailboxes: int
    peers: tuple[str, ...]
    variants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One burst: rate in mails per second, CPU in microseconds per mail; ``stored`` is None for what keeps nothing.

    ``neighbours`` is the number of cores that were busy with something else.
    """

    acknowledged: int
    seconds: float
    rate: float
    stored: int | None
    server_cpu: float | None
    postgres_cpu: float | None
    neighbours: float


def _stored_total(target: Target, mailboxes: Sequence[Mailbox]) -> int:
    async def ask() -> int:
        async with Api(target.http) as api:
            return await api.total(mailboxes)

    return asyncio.run(ask())


def our_receiver(target: Target, count: int) -> Receiver:
    """Our server as a receiver with ``count`` fresh mailboxes, its stored messages counted through the API."""

    async def create() -> list[Mailbox]:
        async with Api(target.http) as api:
            return await api.create_mailboxes(count)

    boxes = asyncio.run(create())
    pids = () if target.pid is None else (target.pid,)
    addresses = tuple(box.address for box in boxes)
    return Receiver(OURS, target.smtp, addresses, pids, lambda: _stored_total(target, boxes))


def _send(receiver: Receiver, variant: str, messages: int, options: Options) -> tuple[Burst, list[float]]:
    recipients = receiver.recipients
    if variant in ("kept", "single"):
        keep = variant == "kept"
        made = burst(
            receiver.smtp,
            recipients,
            messages=messages,
            sessions=options.sessions,
            size=options.size,
            keep_open=keep,
            deadline=_BURST_DEADLINE,
        )
        return made, []
    wire = sample_message("bench", options.size)
    letters = [(recipients[number % len(recipients)], wire) for number in range(messages)]
    started = time.perf_counter()
    sending = send_all(
        receiver.smtp, letters, sessions=options.sessions, deadline=_BURST_DEADLINE, chunks=variant == "bdat"
    )
    sent = uvloop.run(sending)
    return Burst(len(sent), time.perf_counter() - started), [each.answered - each.sent for each in sent]


def _cpu(receiver: Receiver) -> CpuTime:
    readings = [cpu_time(pid) for pid in receiver.pids]
    return CpuTime(sum(each.server for each in readings), sum(each.postgres for each in readings))


def _settled(receiver: Receiver, before: int, acknowledged: int) -> int | None:
    """Messages stored since ``before``; a queueing receiver gets a minute. LostMail when some are missing."""
    if receiver.stored is None:
        return None
    deadline = time.monotonic() + _SETTLE_SECONDS
    while (stored := receiver.stored() - before) < acknowledged and time.monotonic() < deadline:
        time.sleep(0.1)
    if stored != acknowledged:
        raise LostMail(f"{receiver.name}: {acknowledged} messages acknowledged, {stored} stored")
    return stored


def measure(receiver: Receiver, variant: str, messages: int, options: Options) -> tuple[Run, list[float]]:
    """One burst and its accounts; the second value holds dot-to-250 latencies in seconds, where timed.

    LostMail when stored and acknowledged differ, SmtpError when a message was refused.
    """
    receiver.clear()
    before = receiver.stored() if receiver.stored else 0
    cpu_before = _cpu(receiver)
    neighbours = Neighbours()
    sent, latencies = _send(receiver, variant, messages, options)
    others = neighbours.cores()
    stored = _settled(receiver, before, sent.acknowledged)
    spent = _cpu(receiver).since(cpu_before)
    known = bool(receiver.pids)
    return Run(
        acknowledged=sent.acknowledged,
        seconds=sent.seconds,
        rate=sent.acknowledged / sent.seconds,
        stored=stored,
        server_cpu=spent.server / sent.acknowledged * 1e6 if known else None,
        postgres_cpu=spent.postgres / sent.acknowledged * 1e6 if known else None,
        neighbours=others,
    ), latencies


def _calibrate(receiver: Receiver, variant: str, options: Options) -> int:
    """Warm the receiver up and find how many messages fill one run."""
    messages = max(_PROBE_MESSAGES, options.mailboxes)
    for _ in range(2):
        run, _latencies = measure(receiver, variant, messages, options)
        wanted = min(run.rate * options.seconds, options.seconds * 5e8 / options.size)
        messages = int(min(max(wanted, _FEWEST_MESSAGES), _MOST_MESSAGES[variant]))
        if messages < 2 * _PROBE_MESSAGES:
            break
    return messages


def _variant(
    variant: str, receivers: Sequence[Receiver], options: Options, bar: Progress
) -> dict[str, tuple[list[Run], list[float]]]:
    task = bar.add_task(f"{variant}: warm-up", total=len(receivers) * (options.runs + 1))
    counts = {}
    for receiver in receivers:
        counts[receiver.name] = _calibrate(receiver, variant, options)
        bar.advance(task)
    found: dict[str, tuple[list[Run], list[float]]] = {receiver.name: ([], []) for receiver in receivers}
    for number in range(options.runs):
        turn = number % len(receivers)  # nobody always runs first, right after a neighbour's leftovers
        for receiver in (*receivers[turn:], *receivers[:turn]):
            bar.update(task, description=f"{variant} {number + 1}/{options.runs}: {receiver.name}")
            run, latencies = measure(receiver, variant, counts[receiver.name], options)
            found[receiver.name][0].append(run)
            found[receiver.name][1].extend(latencies)
            bar.advance(task)
    return found


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _all_cpu(runs: Sequence[Run]) -> list[float]:
    return [(run.server_cpu or 0.0) + (run.postgres_cpu or 0.0) for run in runs if run.server_cpu is not None]


def _account(found: dict[str, tuple[list[Run], list[float]]]) -> dict[str, Any]:
    ours = [run.rate for run in found[OURS][0]] if OURS in found else None
    account: dict[str, Any] = {}
    for name, (runs, latencies) in found.items():
        account[name] = {
            "rate": statistics.median(run.rate for run in runs),
            "server_cpu_us": _median([run.server_cpu for run in runs]),
            "postgres_cpu_us": _median([run.postgres_cpu for run in runs]),
            "ours_over_this": paired_ratio(ours, [run.rate for run in runs]) if ours and name != OURS else None,
            "dot_to_250": asdict(summarise(latencies)) if latencies else None,
            "cpu_this_over_ours": cpu_ratio(_all_cpu(found[OURS][0]), _all_cpu(runs))
            if ours and name != OURS
            else None,
            "neighbours": statistics.median(run.neighbours for run in runs),
            "runs": [asdict(run) for run in runs],
        }
    return account


def _figure(value: float | None, form: str = ",.0f") -> str:
    return "-" if value is None else format(value, form)


def _show(
    console: Console, variant: str, account: dict[str, Any], found: dict[str, tuple[list[Run], list[float]]]
) -> None:
    rows = []
    for name, entry in account.items():
        rates = [run["rate"] for run in entry["runs"]]
        row = [name, _figure(entry["rate"]), f"{min(rates):,.0f}-{max(rates):,.0f}"]
        row += [_figure(entry["server_cpu_us"]), _figure(entry["postgres_cpu_us"] or None)]
        row += [
            _figure(entry["neighbours"], ".2f"),
            "all" if entry["runs"][0]["stored"] is not None else "-",
            _figure(entry["ours_over_this"], ".2f"),
            _figure(entry["cpu_this_over_ours"], ".2f"),
        ]
        rows.append(row)
    measures = ["mails/s", "runs", "CPU us", "PG us", "others' cores", "stored", "rate ratio", "CPU ratio"]
    console.print(table(f"{variant}: {VARIANTS[variant]}", ["receiver", *measures], rows))
    timed = {name: latencies for name, (_, latencies) in found.items() if latencies}
    if timed:
        rows = [[name, *latency_cells(summarise(latencies))] for name, latencies in timed.items()]
        console.print(table("final dot to 250, own generator", ["receiver", "p50", "p95", "p99", "max"], rows))
        first = OURS if OURS in timed else next(iter(timed))
        show_latency(console, f"{first}: final dot to 250", timed[first])


def run(
    console: Console, options: Options, work: Path, target: Target | None, with_ours: bool = True
) -> dict[str, Any]:
    """Measure and show; returns one account per variant and receiver.

    ``target`` is a running installation, None starts our server; ``with_ours`` false measures the peers alone.
    """
    result: dict[str, Any] = {}
    with ExitStack() as stack:
        receivers = []
        if with_ours:
            aim = target or stack.enter_context(own_server(work, options.server))
            receivers.append(our_receiver(aim, options.mailboxes))
        receivers += [stack.enter_context((RECEIVERS | ON_REQUEST)[name](work)) for name in options.peers]
        tables = []
        with progress(console) as bar:
            for variant in options.variants:
                able = receivers if variant != "bdat" else [each for each in receivers if each.name == OURS]
                if not able:
                    raise SmtpError(0, "no receiver here offers CHUNKING")
                found = _variant(variant, able, options, bar)
                result[variant] = {"generator": VARIANTS[variant], "receivers": _account(found)}
                tables.append((variant, result[variant]["receivers"], found))
        for shown in tables:
            _show(console, *shown)
    return result
