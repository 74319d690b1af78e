"""Scenario ``capacity``: what a model of the workers foretells of reads at several rates, beside what the server does.

First the cost of a read that is answered from memory and of one that is not is measured alone: one after another, from
workers that never rest, and one now and then, from workers that sleep in between. Then both are offered together, at
random moments, at rates up to near the worker's limit, and the same is put to the model (``queueing``).
Must not know: how the model works, or how load is made.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
from rich.console import Console

from bench.clients.api import Mailbox
from bench.clients.burst import send_all
from bench.clients.http import Generators, Load, Outcome, Request, get_request
from bench.report.results import milliseconds, progress, table
from bench.scenarios.fill import letter
from bench.scenarios.http import LoadError, fill
from bench.tools.launch import Plan, own_server
from bench.tools.processes import Neighbours, cpu_time, memory, run_time
from bench.tools.queueing import dealt, mixture, simulate
from bench.tools.stats import summarise
from bench.tools.target import Target
from server.store.embedded import running_dsn

_LIMITS: Final = range(4, 101)  # of a list: each is another answer to keep
_HOT_BOXES: Final = 50
_ALONE_RATE: Final = 100.0  # requests a second at which they do not meet
_ALONE_SECONDS: Final = 3.0
_SIMULATED: Final = 200_000
_MAILS: Final = 5_000
_LETTER_WORDS: Final = 640  # some 4 KiB


@dataclass(frozen=True, slots=True)
class Options:
    """``cold_share`` of the reads is not in memory; ``loads`` are shares of a worker's time that are offered."""

    server: Plan
    seconds: float
    connections: int
    boxes: int
    cold_share: float
    loads: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds one read takes: of a worker that never rests, of PostgreSQL (processor), and what it waits beyond the
    worker's time when it is alone; ``rouse`` is what it takes more of a worker that slept, which is within that.
    """

    work: float
    database: float
    away: float
    rouse: float


@dataclass(frozen=True, slots=True)
class Point:
    """One offered rate: the busiest worker's utilisation, p50 and p95 in seconds, foretold and seen."""

    rate: float
    foretold: tuple[float, float, float]
    seen: tuple[float, float, float]
    neighbours: float


@dataclass(frozen=True, slots=True)
class Mail:
    """What one mail of 4 KiB of words costs: processor seconds, and bytes on disk (indexes included) and of WAL."""

    work: float
    database: float
    disk: float
    wal: float


def _good(outcome: Outcome) -> Outcome:
    if outcome.errors or not outcome.latencies:
        raise LoadError(f"capacity: {dict(outcome.errors)}")
    return outcome


class _Reads:
    """Requests by name: ``hot``, ``cold`` for the first costs, and a mixture for each load, whose cold ones are new."""

    def __init__(self, options: Options, target: Target, boxes: Sequence[Mailbox]) -> None:
        def wire(box: Mailbox, limit: int) -> Request:
            path = f"{box.messages_path}?limit={limit}"
            return Request(get_request(target.http, path, box.token), box.id.encode())

        hot = [wire(box, 3) for box in boxes[:_HOT_BOXES]]
        cold = [wire(box, limit) for box in boxes for limit in _LIMITS]
        random.Random(1).shuffle(cold)
        pieces = len(options.loads) + 2
        size = len(cold) // pieces
        parts = [cold[size * number : size * (number + 1)] for number in range(pieces)]
        copies = round(size * (1 - options.cold_share) / options.cold_share / len(hot))
        self.sets: dict[str, Sequence[Request]] = {"hot": hot, "cold": parts[0], "alone": parts[1]}
        for number, part in enumerate(parts[2:]):
            self.sets[str(number)] = hot * copies + part


def _cost(options: Options, generators: Generators, target: Target, name: str, alone: str) -> Cost:
    """Processor time by a closed loop, waiting by requests that never meet."""
    assert target.pid is not None
    once = Load(options.connections, 60.0, once=name == "cold")
    load = once if name == "cold" else Load(options.connections, options.seconds)
    before = cpu_time(target.pid)
    outcome = _good(generators.run(target.http, name, load, 1))
    spent = cpu_time(target.pid).since(before)
    work, count = spent.server / len(outcome.latencies), len(outcome.latencies)
    idle = run_time(target.pid)
    time.sleep(_ALONE_SECONDS)
    idle = run_time(target.pid) - idle
    before_alone = run_time(target.pid)
    lone = _good(generators.run(target.http, alone, Load(1, _ALONE_SECONDS, _ALONE_RATE), 2)).latencies
    each = (run_time(target.pid) - before_alone - idle) / len(lone)
    return Cost(work, spent.postgres / count, max(summarise(lone).p50 - work, 0.0), max(each - work, 0.0))


async def _written(dsn: str) -> tuple[int, int]:
    """Bytes of WAL so far, and of mail's tables now."""
    connection = await asyncpg.connect(dsn)
    try:
        found = await connection.fetchrow(
            "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn AS wal, (SELECT sum(pg_total_relation_size(c.oid)) FROM"
            " pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = 'messages' AND c.relkind = 'r') AS disk"
        )
        assert found is not None
        return int(found["wal"]), int(found["disk"])
    finally:
        await connection.close()


def _mail(target: Target, dsn: str, boxes: Sequence[Mailbox]) -> Mail:
    assert target.pid is not None
    rng = random.Random(5)
    letters = [(rng.choice(boxes).address, letter(rng, _LETTER_WORDS)) for _ in range(_MAILS)]
    asyncio.run(send_all(target.smtp, letters[:500], sessions=50, deadline=60))
    before, (wal, disk) = cpu_time(target.pid), asyncio.run(_written(dsn))
    asyncio.run(send_all(target.smtp, letters, sessions=50, deadline=120))
    spent, (wal_after, disk_after) = cpu_time(target.pid).since(before), asyncio.run(_written(dsn))
    each = [spent.server, spent.postgres, disk_after - disk, wal_after - wal]
    return Mail(*(value / _MAILS for value in each))


def _point(options: Options, generators: Generators, target: Target, costs: dict[str, Cost], number: int) -> Point:
    assert target.pid is not None
    workers = target.workers or 1
    hot, cold, share = costs["hot"], costs["cold"], options.cold_share
    rate = options.loads[number] * workers / (hot.work * (1 - share) + cold.work * share)
    before, neighbours = cpu_time(target.pid), Neighbours()
    load = Load(options.connections, options.seconds, rate, poisson=True)
    outcome = _good(generators.run(target.http, str(number), load, number))
    spent, others = cpu_time(target.pid).since(before), neighbours.cores()
    seen = summarise(outcome.latencies)
    shares = [1.0] if workers == 1 else dealt(options.connections, workers, random.Random(number))
    away = [max(cost.away - hot.rouse, 0.0) for cost in (hot, cold)]
    service = mixture([(1 - share, hot.work, away[0]), (share, cold.work, away[1])])
    model = simulate(rate, service, shares, _SIMULATED, seed=number, rouse=hot.rouse)
    return Point(
        rate,
        (model.utilisation, model.sojourn.p50, model.sojourn.p95),
        (spent.server / options.seconds / workers, seen.p50, seen.p95),
        others,
    )


def _show(console: Console, costs: dict[str, Cost], points: Sequence[Point]) -> None:
    rows = [
        [name, *(f"{part * 1e6:.1f} us" for part in (cost.work, cost.rouse, cost.database, cost.away))]
        for name, cost in costs.items()
    ]
    console.print(
        table("one read", ["", "worker", "more, of one that slept", "PostgreSQL", "waiting for others, alone"], rows)
    )
    rows = []
    for point in points:
        busy = [f"{side[0]:.2f}" for side in (point.foretold, point.seen)]
        p50 = [milliseconds(side[1]) for side in (point.foretold, point.seen)]
        p95 = [milliseconds(side[2]) for side in (point.foretold, point.seen)]
        rows.append([f"{point.rate:,.0f}/s", *busy, *p50, *p95, f"{point.neighbours:.2f}"])
    columns = ["offered", "busy, foretold", "seen", "p50, foretold", "seen", "p95, foretold", "seen", "others' cores"]
    console.print(table("the model beside the server", columns, rows))


def run(console: Console, options: Options, work: Path) -> dict[str, Any]:
    """Measure and show; returns costs in seconds, and a point for each load."""
    with ExitStack() as stack:
        target = stack.enter_context(own_server(work, options.server))
        bar = stack.enter_context(progress(console))
        dsn = running_dsn(work / "data")
        assert dsn is not None
        boxes = asyncio.run(fill(target, options.boxes, lambda _: None))
        reads = _Reads(options, target, boxes)
        generators = stack.enter_context(Generators(1, reads.sets))
        _good(generators.run(target.http, "hot", Load(options.connections, 1.0), 0))
        task = bar.add_task("rates", total=len(options.loads))
        costs = {
            "hot": _cost(options, generators, target, "hot", "hot"),
            "cold": _cost(options, generators, target, "cold", "alone"),
        }
        points = []
        for number in range(len(options.loads)):
            points.append(_point(options, generators, target, costs, number))
            bar.advance(task)
        mail, held = _mail(target, dsn, boxes), memory(target.pid).shared if target.pid else 0
    _show(console, costs, points)
    console.print(
        f"a mail of 4 KiB: worker {mail.work * 1e6:.0f} us, PostgreSQL {mail.database * 1e6:.0f} us, "
        f"{mail.disk:,.0f} B on disk, {mail.wal:,.0f} B of WAL; the server holds {held / 1e6:.0f} MB at the end"
    )
    return {
        "mail": asdict(mail),
        "memory": held,
        "costs": {name: asdict(cost) for name, cost in costs.items()},
        "points": [asdict(point) for point in points],
    }
