"""Scenario ``http``: a fleet polls the lists of many mailboxes while mail arrives, beside nginx's ``return 200`` and a
bare aiohttp route with the same body; and the first read of each mailbox, beside the bare rate of its SELECT.

Must not know: how load is made (``client_polls``, ``client_http``), or how servers are started (``launch``, ``peers``).
"""

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil
from rich.console import Console

from bench.clients.api import Api, Mailbox
from bench.clients.burst import send_all
from bench.clients.http import Generators, Load, Outcome, Request, get_request
from bench.clients.polls import Fleet, Poll, Seen, Shared, postman
from bench.clients.smtp import sample_message
from bench.peers.http import ANSWERERS
from bench.peers.receivers import bare_aiohttp, nginx_return
from bench.report.results import latency_cells, milliseconds, progress, show_latency, table
from bench.tools.launch import LaunchError, Plan, own_server
from bench.tools.processes import CpuTime, Neighbours, cpu_time
from bench.tools.stats import cpu_ratio, paired_ratio, percentile, summarise
from bench.tools.target import Endpoint, Target
from server.store.embedded import running_dsn

OURS, BARE, NGINX = "tempmail", "bare aiohttp", "nginx return 200"
_MAILS_EACH = 3
_FILL_SESSIONS = 50
_FILL_DEADLINE = 900.0
_COLD_DEADLINE = 300.0
_WARM_UP_PASSES = 8  # with two workers all but one in 128 of what each of them reads later is then no first read
_WARM_UP_SECONDS = 3.0
_RELOAD_SECONDS = 60.0
_SELECT_CONNECTIONS = 8
_QUERY: Final = f"?limit={_MAILS_EACH}"  # lists that stay as long as the peers' body, however much mail arrives


class LoadError(Exception):
    """A run had wrong or missing answers; the text counts them by kind."""


@dataclass(frozen=True, slots=True)
class Options:
    """``rate`` in requests per second, for the runs at an offered rate (0: none); after one in ``mail_every`` requests
    a mail goes to the mailbox that was read (0: none); ``cold_runs`` first reads of all mailboxes.
    """

    server: Plan
    runs: int
    seconds: float
    mailboxes: int
    connections: int
    rate: float
    mail_every: int
    cold_runs: int
    peers: bool
    more_peers: tuple[str, ...] = ()


@dataclass(slots=True)
class Side:
    """One of those compared, and what was seen of it, by run: requests/s, CPU microseconds a request (server,
    PostgreSQL, generator), mails/s, others' cores; latencies at full speed, and at the offered rate by run.
    """

    name: str
    endpoint: Endpoint
    pids: tuple[int, ...]
    common: Shared | None = None
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    postgres: list[float] = field(default_factory=list)
    generator: list[float] = field(default_factory=list)
    mails: list[float] = field(default_factory=list)
    neighbours: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    offered: list[list[float]] = field(default_factory=list)
    unanswered: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Cold:
    """First reads of all mailboxes, by run, beside the SELECT alone: reads/s and CPU microseconds a read."""

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    postgres: list[float] = field(default_factory=list)
    p95: list[float] = field(default_factory=list)
    select_rates: list[float] = field(default_factory=list)
    select_cpu: list[float] = field(default_factory=list)


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


async def list_body(target: Target, box: Mailbox, query: str = "") -> bytes:
    """The list of one mailbox, as its holder reads it."""
    head = {"Authorization": f"Bearer {box.token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(target.http.base_url + box.messages_path + query, headers=head) as got,
    ):
        return await got.read()


def _cpu(pids: Sequence[int]) -> CpuTime:
    readings = [cpu_time(pid) for pid in pids]
    return CpuTime(sum(each.server for each in readings), sum(each.postgres for each in readings))


def _judge(name: str, outcome: Outcome | Seen) -> None:
    if outcome.errors:
        raise LoadError(f"{name}: {dict(outcome.errors)}")
    if not outcome.latencies:
        raise LoadError(f"{name}: nothing was answered")


def reload(pid: int) -> None:
    """Replace the workers of our server, so that nothing is left in their memory."""
    before = {child.pid for child in psutil.Process(pid).children() if not child.name().startswith("postgres")}
    os.kill(pid, signal.SIGHUP)
    give_up = time.monotonic() + _RELOAD_SECONDS
    while before & {child.pid for child in psutil.Process(pid).children()}:
        if time.monotonic() > give_up:
            raise LaunchError("the workers were not replaced")
        time.sleep(0.1)
    time.sleep(0.5)


def _select(dsn: str, boxes: Sequence[Mailbox], cold: Cold) -> None:
    command = [sys.executable, "-m", "bench.peers.select", dsn, str(_SELECT_CONNECTIONS)]
    ids = "\n".join(box.id for box in boxes)
    done = subprocess.run(command, input=ids, capture_output=True, text=True, timeout=_COLD_DEADLINE, check=False)
    if done.returncode:
        raise LoadError(f"the bare SELECT failed: {done.stderr.strip()[-500:]}")
    rate, cpu = map(float, done.stdout.split())
    cold.select_rates.append(rate)
    cold.select_cpu.append(cpu * 1e6)


def _first_reads(options: Options, work: Path, aim: Target, boxes: Sequence[Mailbox], step: Callable[[], None]) -> Cold:
    """Read every mailbox once from new workers, and warm them up in the end."""
    cold, pids = Cold(), () if aim.pid is None else (aim.pid,)
    dsn = running_dsn(work / "data") if aim.pid is not None else None
    wires = [Request(get_request(aim.http, box.messages_path + _QUERY, box.token), box.id.encode()) for box in boxes]
    once = Load(options.connections, _COLD_DEADLINE, once=True)
    with Generators(1, {OURS: wires}) as generators:
        for number in range(options.cold_runs if aim.pid is not None else 1):
            if aim.pid is not None:
                reload(aim.pid)
            before = _cpu(pids)
            outcome = generators.run(aim.http, OURS, once, number)
            spent = _cpu(pids).since(before)
            _judge(OURS, outcome)
            cold.rates.append(outcome.rate)
            cold.p95.append(summarise(outcome.latencies).p95)
            cold.cpu.append(spent.server / len(boxes) * 1e6)
            cold.postgres.append(spent.postgres / len(boxes) * 1e6)
            if dsn is not None:
                _select(dsn, boxes, cold)
            step()
        for number in range(_WARM_UP_PASSES):  # each worker has a cache of its own, and one pass fills only one of them
            _judge(OURS, generators.run(aim.http, OURS, once, number))
    return cold


@contextmanager
def post(work: Path, target: Target, boxes: Sequence[Mailbox], held: int = _MAILS_EACH) -> Iterator[Shared]:
    """A postman at work, for a fleet to order mail from; each mailbox holds ``held`` mails."""
    common = Shared(work / "acknowledged", work / "post")
    with common.counts.open("wb") as file:
        file.write(held.to_bytes(4, sys.byteorder) * len(boxes))
    os.mkfifo(common.post)
    arguments = (target.smtp, [box.address for box in boxes], common, sample_message("news", 2000))
    process = get_context("spawn").Process(target=postman, args=arguments, daemon=True)
    process.start()
    try:
        yield common
    finally:
        process.terminate()
        process.join()


def _measure(fleet: Fleet, side: Side, load: Poll, seed: int) -> None:
    before, neighbours = _cpu(side.pids), Neighbours()
    seen = fleet.run(side.endpoint, side.name, side.common, load, seed)
    spent, others = _cpu(side.pids).since(before), neighbours.cores()
    _judge(side.name, seen)
    if load.rate:
        side.offered.append(list(seen.latencies))
        side.unanswered.append(seen.unanswered)
        return
    answers = len(seen.latencies)
    side.neighbours.append(others)
    side.rates.append(seen.rate)
    side.mails.append(seen.mails / seen.seconds)
    side.generator.append(seen.cpu / answers * 1e6)
    side.latencies.extend(seen.latencies)
    if side.pids:
        side.cpu.append(spent.server / answers * 1e6)
        side.postgres.append(spent.postgres / answers * 1e6)


def _sides(options: Options, work: Path, aim: Target, boxes: Sequence[Mailbox], stack: ExitStack) -> list[Side]:
    mailed = stack.enter_context(post(work, aim, boxes))
    sides = [Side(OURS, aim.http, () if aim.pid is None else (aim.pid,), mailed)]
    body = asyncio.run(list_body(aim, boxes[0], _QUERY))
    workers = aim.workers or options.server.workers
    if options.peers:
        sides.append(Side(NGINX, *stack.enter_context(nginx_return(work, workers, body))))
        sides.append(Side(BARE, *stack.enter_context(bare_aiohttp(work, workers, _bare_path(boxes[0]), body))))
    more = [(name, ANSWERERS[name](work, workers, body)) for name in options.more_peers]
    sides += [Side(name, *stack.enter_context(peer)) for name, peer in more]
    return sides


def _bare_path(box: Mailbox) -> str:
    """As long as ours, and a plain route: the peer at its best."""
    return "/" + "x" * (len(box.messages_path + _QUERY) - 1)


def _polled(options: Options, sides: Sequence[Side], boxes: Sequence[Mailbox], step: Callable[[], None]) -> None:
    """Closed loops of all sides in turn, then the offered rate of all in turn."""
    http = sides[0].endpoint
    ours = [get_request(http, box.messages_path + _QUERY, box.token) for box in boxes]
    theirs = [get_request(http, _bare_path(box), box.token) for box in boxes]
    with Fleet({OURS: ours, **{side.name: theirs for side in sides[1:]}}) as fleet:
        warm = Poll(options.connections, _WARM_UP_SECONDS, mail_every=options.mail_every)
        _judge(OURS, fleet.run(http, OURS, sides[0].common, warm, options.runs))
        for rate in (0.0, options.rate) if options.rate else (0.0,):
            for number in range(options.runs):
                for side in sides if number % 2 == 0 else reversed(sides):
                    mail_every = options.mail_every if side.common else 0
                    _measure(fleet, side, Poll(options.connections, options.seconds, rate, mail_every), number)
                    step()


def _all_cpu(side: Side) -> list[float]:
    return [server + postgres for server, postgres in zip(side.cpu, side.postgres, strict=True)]


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _account(sides: Sequence[Side]) -> dict[str, Any]:
    ours, account = sides[0], {}
    for side in sides:
        p95 = [percentile(sorted(values), 0.95) for values in side.offered]
        account[side.name] = {
            "rate": _median(side.rates),
            "rates": side.rates,
            "server_cpu_us": _median(side.cpu),
            "postgres_cpu_us": _median(side.postgres),
            "generator_cpu_us": _median(side.generator),
            "mails": _median(side.mails),
            "neighbours": _median(side.neighbours),
            "latency": asdict(summarise(side.latencies)),
            "offered_p95": p95,
            "offered_unanswered": side.unanswered,
            "offered": asdict(summarise([value for values in side.offered for value in values])),
            "ours_over_this": None if side is ours else paired_ratio(ours.rates, side.rates),
            "cpu_this_over_ours": None if side is ours else cpu_ratio(_all_cpu(ours), _all_cpu(side)),
        }
    return account


def _show(console: Console, options: Options, sides: Sequence[Side], account: dict[str, Any], cold: Cold) -> None:
    rows, offered = [], []
    for side in sides:
        entry = account[side.name]
        cpu = [
            f"{entry[key]:.1f}" if entry[key] else "-"
            for key in ("server_cpu_us", "postgres_cpu_us", "generator_cpu_us")
        ]
        ratios = [f"{entry[key]:.2f}" if entry[key] else "-" for key in ("ours_over_this", "cpu_this_over_ours")]
        figures = [f"{entry['rate']:,.0f}", f"{entry['mails']:,.0f}", *cpu, f"{entry['neighbours']:.2f}"]
        rows.append([side.name, *figures, *latency_cells(summarise(side.latencies)), *ratios])
        if side.offered:
            every = [value for values in side.offered for value in values]
            p95 = milliseconds(statistics.median(entry["offered_p95"]))
            offered.append([side.name, p95, *latency_cells(summarise(every)), sum(side.unanswered)])
    mail = f"a mail after one in {options.mail_every} requests" if options.mail_every else "no mail"
    title = f"lists of {options.mailboxes:,} mailboxes, {mail}, {options.connections} connections, no stale answer"
    measures = ["requests/s", "mails/s", "CPU us", "PG us", "generator us", "others' cores", "p50", "p95", "p99", "max"]
    console.print(table(title, ["server", *measures, "rate ratio", "CPU ratio"], rows))
    if offered:
        title = f"{options.rate:,.0f} requests/s offered, latency from the due time"
        console.print(
            table(title, ["server", "p95, median of runs", "p50", "p95", "p99", "max", "unanswered"], offered)
        )
    show_latency(console, f"{OURS}: latency", sides[0].latencies)
    line = f"first read of each mailbox: {statistics.median(cold.rates):,.0f}/s"
    line += f", p95 {milliseconds(statistics.median(cold.p95))}"
    if cold.select_rates:
        ratio = paired_ratio(cold.rates, cold.select_rates)
        line += f", CPU {statistics.median(cold.cpu):.0f} us + PostgreSQL {statistics.median(cold.postgres):.0f} us"
        line += f"; its SELECT alone: {statistics.median(cold.select_rates):,.0f}/s; ratio {ratio:.2f}"
    console.print(line)


def run(console: Console, options: Options, work: Path, target: Target | None) -> dict[str, Any]:
    """Measure and show; returns one account per server, and the first reads."""
    with ExitStack() as stack:
        aim = target or stack.enter_context(own_server(work, options.server))
        bar = stack.enter_context(progress(console))
        filling = bar.add_task("mailboxes and their mail", total=options.mailboxes * (1 + _MAILS_EACH))
        boxes = asyncio.run(fill(aim, options.mailboxes, lambda count: bar.advance(filling, count)))
        reading = bar.add_task("first reads", total=options.cold_runs)
        cold = _first_reads(options, work, aim, boxes, lambda: bar.advance(reading))
        sides = _sides(options, work, aim, boxes, stack)
        runs = bar.add_task("runs", total=options.runs * len(sides) * (2 if options.rate else 1))
        _polled(options, sides, boxes, lambda: bar.advance(runs))
    account = _account(sides)
    _show(console, options, sides, account, cold)
    return {"servers": account, "first_read": asdict(cold)}
