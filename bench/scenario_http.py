"""Scenario ``http``: reading the lists of many mailboxes, beside a bare aiohttp route with as many workers.

Must not know: how load is made (``client_http``), or how servers are started (``launch``, ``peers``).
"""

import asyncio
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console

from bench.client_api import Api, Mailbox
from bench.client_http import Generators, Load, Outcome, Request, get_request
from bench.client_smtp import sample_message, send_all
from bench.launch import Plan, own_server
from bench.peers import bare_aiohttp
from bench.processes import CpuTime, Neighbours, cpu_time
from bench.report import latency_cells, progress, show_latency, table
from bench.stats import cpu_ratio, paired_ratio, summarise
from bench.target import Endpoint, Target

OURS, BARE = "tempmail", "bare aiohttp"
_MAILS_EACH = 3
_FILL_SESSIONS = 50
_FILL_DEADLINE = 900.0
_COLD_DEADLINE = 300.0
_WARM_UP_PASSES = 3


class LoadError(Exception):
    """A run had wrong or missing answers; the text counts them by kind."""


@dataclass(frozen=True, slots=True)
class Options:
    """``rate`` in requests per second, 0 for a closed loop; ``generators`` is the number of generator processes."""

    server: Plan
    runs: int
    seconds: float
    mailboxes: int
    connections: int
    generators: int
    rate: float
    peer: bool


@dataclass(slots=True)
class Side:
    """One of those compared, and what was seen of it: requests/s, CPU microseconds a request, others' cores, by run."""

    name: str
    endpoint: Endpoint
    pids: tuple[int, ...]
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    postgres: list[float] = field(default_factory=list)
    neighbours: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)


async def fill(target: Target, count: int, advance: Callable[[int], None]) -> list[Mailbox]:
    """Create mailboxes and send each some mail; LoadError when the API does not count all of it."""
    async with Api(target.http) as api:
        boxes = await api.create_mailboxes(count)
        advance(count)
        for number in range(_MAILS_EACH):
            wire = sample_message(f"letter {number}", 2000)
            letters = [(box.address, wire) for box in boxes]
            await send_all(target.smtp, letters, sessions=_FILL_SESSIONS, deadline=_FILL_DEADLINE)
            advance(count)
        found = await api.total(boxes[:: max(count // 100, 1)])
    wanted = _MAILS_EACH * len(boxes[:: max(count // 100, 1)])
    if found != wanted:
        raise LoadError(f"{wanted} mails sent to a sample of mailboxes, {found} counted")
    return boxes


async def list_body(target: Target, box: Mailbox) -> bytes:
    """The list of one mailbox, as its holder reads it."""
    head = {"Authorization": f"Bearer {box.token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(target.http.base_url + box.messages_path, headers=head) as got,
    ):
        return await got.read()


def _cpu(pids: Sequence[int]) -> CpuTime:
    readings = [cpu_time(pid) for pid in pids]
    return CpuTime(sum(each.server for each in readings), sum(each.postgres for each in readings))


def _judge(side: Side, outcome: Outcome) -> None:
    if outcome.errors:
        raise LoadError(f"{side.name}: {dict(outcome.errors)}")
    if not outcome.latencies:
        raise LoadError(f"{side.name}: nothing was answered")


def _measure(generators: Generators, side: Side, load: Load, seed: int) -> None:
    before, neighbours = _cpu(side.pids), Neighbours()
    outcome = generators.run(side.endpoint, side.name, load, seed)
    side.neighbours.append(neighbours.cores())
    spent = _cpu(side.pids).since(before)
    _judge(side, outcome)
    side.rates.append(outcome.rate)
    side.latencies.extend(outcome.latencies)
    if side.pids:
        side.cpu.append(spent.server / len(outcome.latencies) * 1e6)
        side.postgres.append(spent.postgres / len(outcome.latencies) * 1e6)


def _all_cpu(side: Side) -> list[float]:
    return [server + postgres for server, postgres in zip(side.cpu, side.postgres, strict=True)]


def _account(sides: Sequence[Side], offered: bool) -> dict[str, Any]:
    ours = sides[0]
    account: dict[str, Any] = {}
    for side in sides:
        account[side.name] = {
            "rate": statistics.median(side.rates),
            "rates": side.rates,
            "server_cpu_us": statistics.median(side.cpu) if side.cpu else None,
            "postgres_cpu_us": statistics.median(side.postgres) if side.postgres else None,
            "neighbours": statistics.median(side.neighbours),
            "latency": asdict(summarise(side.latencies)),
            "ours_over_this": None if side is ours or offered else paired_ratio(ours.rates, side.rates),
            "cpu_this_over_ours": None if side is ours else cpu_ratio(_all_cpu(ours), _all_cpu(side)),
        }
    return account


def _show(console: Console, options: Options, sides: Sequence[Side], account: dict[str, Any]) -> None:
    rows = []
    for side in sides:
        entry = account[side.name]
        cpu = [f"{entry[key]:.1f}" if entry[key] else "-" for key in ("server_cpu_us", "postgres_cpu_us")]
        ratios = [f"{entry[key]:.2f}" if entry[key] else "-" for key in ("ours_over_this", "cpu_this_over_ours")]
        rows.append(
            [
                side.name,
                f"{entry['rate']:,.0f}",
                *cpu,
                f"{entry['neighbours']:.2f}",
                *latency_cells(summarise(side.latencies)),
                *ratios,
            ]
        )
    loop = f"{options.rate:,.0f}/s offered, latency from the due time" if options.rate else "closed loop"
    title = f"list of one of {options.mailboxes:,} mailboxes: {loop}, {options.connections} connections, own generator"
    measures = ["requests/s", "CPU us", "PG us", "others' cores", "p50", "p95", "p99", "max", "rate ratio", "CPU ratio"]
    console.print(table(title, ["server", *measures], rows))
    show_latency(console, f"{OURS}: latency", sides[0].latencies)


def _requests(target: Target, boxes: Sequence[Mailbox], bare_path: str) -> dict[str, Sequence[Request]]:
    ours = [Request(get_request(target.http, box.messages_path, box.token), box.id.encode()) for box in boxes]
    return {OURS: ours, BARE: [Request(get_request(target.http, bare_path, boxes[0].token))]}


def run(console: Console, options: Options, work: Path, target: Target | None) -> dict[str, Any]:
    """Measure and show; returns one account per server and the rate of the first read of each mailbox."""
    with ExitStack() as stack:
        aim = target or stack.enter_context(own_server(work, options.server))
        bar = stack.enter_context(progress(console))
        filling = bar.add_task("mailboxes and their mail", total=options.mailboxes * (1 + _MAILS_EACH))
        boxes = asyncio.run(fill(aim, options.mailboxes, lambda count: bar.advance(filling, count)))
        sides = [Side(OURS, aim.http, () if aim.pid is None else (aim.pid,))]
        path = "/" + "x" * (len(boxes[0].messages_path) - 1)  # as long as ours, and a plain route: the peer at its best
        if options.peer:
            body = asyncio.run(list_body(aim, boxes[0]))
            bare = stack.enter_context(bare_aiohttp(work, aim.workers or options.server.workers, path, body))
            sides.append(Side(BARE, *bare))
        generators = stack.enter_context(Generators(options.generators, _requests(aim, boxes, path)))
        cold = generators.run(aim.http, OURS, Load(options.connections, _COLD_DEADLINE, once=True), 0)
        _judge(sides[0], cold)
        load = Load(options.connections, options.seconds, options.rate)
        task = bar.add_task("runs", total=options.runs * len(sides))
        for seed in range(_WARM_UP_PASSES):  # each worker has a cache of its own, and one pass fills only one of them
            _judge(sides[0], generators.run(aim.http, OURS, Load(options.connections, _COLD_DEADLINE, once=True), seed))
        for number in range(options.runs):
            for side in sides if number % 2 == 0 else reversed(sides):
                bar.update(task, description=f"run {number + 1}/{options.runs}: {side.name}")
                _measure(generators, side, load, number + 2)
                bar.advance(task)
    account = _account(sides, offered=options.rate > 0)
    _show(console, options, sides, account)
    console.print(f"first read of each mailbox: {cold.rate:,.0f}/s, p95 {summarise(cold.latencies).p95 * 1e3:.2f} ms")
    return {"servers": account, "first_read": {"rate": cold.rate, "latency": asdict(summarise(cold.latencies))}}
