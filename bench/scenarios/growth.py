"""Scenario ``growth``: receiving and reading on a database that holds much beside one that holds little, in turn in the
same run; and what the end of a partition does to those who send and read meanwhile.

Must not know: how a database is filled (``growth_fill``), or how load is made.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import uvloop
from rich.console import Console
from rich.progress import Progress

from bench.clients.api import Mailbox
from bench.clients.burst import send_all
from bench.clients.http import Generators, Load, Request, get_request
from bench.clients.polls import Fleet, Poll
from bench.clients.smtp import SmtpConnection, sample_message
from bench.report.results import latency_cells, progress, table
from bench.scenarios import smtp
from bench.scenarios.fill import TTL_SETTINGS, Expiring, Filled, fill, sample
from bench.scenarios.http import LoadError, post, reload
from bench.tools.launch import Plan, own_server
from bench.tools.processes import Neighbours, cpu_time
from bench.tools.stats import Latency, Schedule, paired_ratio, summarise
from bench.tools.target import Target
from server.store.embedded import running_dsn

LITTLE, MUCH = "little", "much"
KEPT, SPREAD, COLD, POLLS = (
    "receiving: smtp-source to one new mailbox",
    "receiving: own generator to mailboxes of any age",
    "reading: each mailbox once, new workers",
    "reading: a fleet polls while mail arrives",
)
_LITTLE_EACH: Final = 3
_QUERY: Final = f"?limit={_LITTLE_EACH}"
_POSTMEN: Final = 50  # so many that the rate is offered whatever an answer takes: eight at 40 ms each cannot send 200/s
_ENDS_IN: Final = 5.0  # seconds of the second window until the mailboxes of the partition end


class GrowthError(Exception):
    """The partition did not go while load was on: nothing was measured about it."""


@dataclass(frozen=True, slots=True)
class Options:
    """``sampled`` mailboxes, from anywhere in the database, are polled and written to; rates a second are offered while
    a partition ends, for ``before`` and ``during`` seconds.
    """

    server: Plan
    messages: int
    mailboxes: int
    partitions: int
    runs: int
    seconds: float
    sampled: int
    mails: int
    connections: int
    poll_rate: float
    mail_rate: float
    before: float = 20.0
    during: float = 40.0


@dataclass(slots=True)
class Seen:
    """By run: operations a second, and CPU microseconds of the server and of PostgreSQL for each."""

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    postgres: list[float] = field(default_factory=list)
    neighbours: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two installations, with what is read and written there."""

    name: str
    target: Target
    dsn: str
    boxes: list[Mailbox]
    held: int


Figures = dict[str, dict[str, Seen]]


@contextmanager
def _sides(options: Options, places: dict[str, Path], plan: Plan) -> Iterator[list[_Side]]:
    with ExitStack() as stack:
        sides = []
        for name, place in places.items():
            settings = {**TTL_SETTINGS, **plan.settings}
            target = stack.enter_context(own_server(place, Plan(plan.workers, settings)))
            dsn = running_dsn(place / "data")
            assert dsn is not None
            held = _LITTLE_EACH if name == LITTLE else options.messages // options.mailboxes
            sides.append(_Side(name, target, dsn, asyncio.run(sample(dsn, options.sampled)), held))
        yield sides


def _pid(side: _Side) -> int:
    assert side.target.pid is not None
    return side.target.pid


def _note(figures: Figures, what: str, side: _Side, work: Callable[[], tuple[int, float]]) -> None:
    """Do ``work``, which says how many operations it did in how many seconds, and write its costs down."""
    before, neighbours = cpu_time(_pid(side)), Neighbours()
    count, seconds = work()
    others, spent = neighbours.cores(), cpu_time(_pid(side)).since(before)
    seen = figures.setdefault(what, {}).setdefault(side.name, Seen())
    seen.rates.append(count / seconds)
    seen.cpu.append(spent.server / count * 1e6)
    seen.postgres.append(spent.postgres / count * 1e6)
    seen.neighbours.append(others)


def _in_turn(runs: int, sides: Sequence[_Side], work: Callable[[_Side, int], None]) -> None:
    for number in range(runs):
        for side in sides if number % 2 == 0 else reversed(sides):
            work(side, number)


def _receiving(options: Options, sides: Sequence[_Side], figures: Figures, step: Callable[[], None]) -> None:
    burst = smtp.Options(options.server, 1, options.seconds, 50, 4096, 1, (), ())
    receivers = {side.name: replace(smtp.our_receiver(side.target, 1), name=side.name) for side in sides}
    for side in sides:
        smtp.measure(receivers[side.name], "kept", 1000, burst)

    def kept(side: _Side, _number: int) -> None:
        run, _ = smtp.measure(receivers[side.name], "kept", options.mails, burst)
        seen = figures.setdefault(KEPT, {}).setdefault(side.name, Seen())
        seen.rates.append(run.rate)
        seen.cpu.append(run.server_cpu or 0.0)
        seen.postgres.append(run.postgres_cpu or 0.0)
        seen.neighbours.append(run.neighbours)
        step()

    def spread(side: _Side, number: int) -> None:
        wire, chosen = sample_message("growth", 4096), random.Random(number)
        letters = [(chosen.choice(side.boxes).address, wire) for _ in range(options.mails)]

        def send() -> tuple[int, float]:
            began = time.perf_counter()
            return len(uvloop.run(send_all(side.target.smtp, letters, sessions=50, deadline=120))), (
                time.perf_counter() - began
            )

        _note(figures, SPREAD, side, send)
        step()

    _in_turn(options.runs, sides, kept)
    _in_turn(options.runs, sides, spread)


def _reading(options: Options, work: Path, sides: Sequence[_Side], figures: Figures, step: Callable[[], None]) -> None:
    for side in sides:
        (work / f"post-{side.name}").mkdir()
        wires = [
            Request(get_request(side.target.http, box.messages_path + _QUERY, box.token), box.id.encode())
            for box in side.boxes
        ]
        with Generators(1, {side.name: wires}) as generators:
            for number in range(options.runs):
                reload(_pid(side))

                def read(
                    generators: Generators = generators, side: _Side = side, number: int = number
                ) -> tuple[int, float]:
                    once = generators.run(
                        side.target.http, side.name, Load(options.connections, 120, once=True), number
                    )
                    if once.errors:
                        raise LoadError(f"{side.name}: {dict(once.errors)}")
                    return len(once.latencies), once.seconds

                _note(figures, COLD, side, read)
                step()
    with ExitStack() as stack:
        posts = {
            side.name: stack.enter_context(post(work / f"post-{side.name}", side.target, side.boxes, side.held))
            for side in sides
        }
        fleet = stack.enter_context(Fleet(_wires(sides)))

        def polls(side: _Side, number: int) -> None:
            load = Poll(options.connections, options.seconds, mail_every=100)

            def poll() -> tuple[int, float]:
                seen = fleet.run(side.target.http, side.name, posts[side.name], load, number)
                if seen.errors:
                    raise LoadError(f"{side.name}: {dict(seen.errors)}")
                return len(seen.latencies), seen.seconds

            _note(figures, POLLS, side, poll)
            step()

        _in_turn(1, sides, polls)  # warms them up
        figures.pop(POLLS)
        _in_turn(options.runs, sides, polls)


def _wires(sides: Sequence[_Side]) -> dict[str, Sequence[bytes]]:
    return {
        side.name: [get_request(side.target.http, box.messages_path + _QUERY, box.token) for box in side.boxes]
        for side in sides
    }


async def _offered_mail(side: _Side, rate: float, seconds: float) -> list[float]:
    """Seconds from the final dot, or from when it was due, to 250."""
    schedule = Schedule(time.perf_counter() + 0.2, rate, seconds)
    numbers, taken, wire = iter(range(schedule.total)), list[float](), sample_message("growth", 4096)

    async def sender() -> None:
        async with await SmtpConnection.open(side.target.smtp) as connection:
            for number in numbers:
                due = schedule.time_of(number)
                await asyncio.sleep(max(due - time.perf_counter(), 0))
                sent = await connection.send((side.boxes[number * 7 % len(side.boxes)].address,), wire)
                taken.append(sent.answered - due)

    async with asyncio.TaskGroup() as group:
        for _ in range(_POSTMEN):
            group.create_task(sender())
    return taken


async def _window(
    options: Options, fleet: Fleet, side: _Side, seconds: float, ending: Expiring | None
) -> dict[str, Any]:
    """What senders and readers saw in one window, at rates that are offered whatever happens."""
    load = Poll(options.connections, seconds, options.poll_rate)
    polling = asyncio.create_task(asyncio.to_thread(fleet.run, side.target.http, side.name, None, load, 1))
    mailing = asyncio.create_task(_offered_mail(side, options.mail_rate, seconds))
    if ending is not None:
        await asyncio.sleep(1.0)
        await ending.attach()
    seen, mails = await polling, await mailing
    if seen.errors:
        raise LoadError(f"{side.name}: {dict(seen.errors)}")
    return {"reads": asdict(summarise(seen.latencies)), "mails": asdict(summarise(mails))}


async def _expiry(options: Options, fleet: Fleet, side: _Side) -> dict[str, Any]:
    """Two windows of the same load: nothing happens in the first, a partition of usual size goes in the second."""
    ending, boxes = Expiring(side.dsn), max(options.mailboxes // options.partitions, 1)
    await ending.prepare(boxes, side.held, options.before + _ENDS_IN)
    before = await _window(options, fleet, side, options.before, None)
    during = await _window(options, fleet, side, options.during, ending)
    if left := await ending.left():
        raise GrowthError(f"{left} tables and mailboxes of a partition that is over were still there at the end")
    ratios = {what: during[what]["p99"] / before[what]["p99"] for what in ("reads", "mails")}
    return {"mailboxes": boxes, "messages": boxes * side.held, "before": before, "during": during, "p99_ratio": ratios}


def _account(figures: Figures) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for what, seen in figures.items():
        much, little = seen[MUCH], seen[LITTLE]
        made[what] = {name: {"rate": statistics.median(one.rates), **asdict(one)} for name, one in seen.items()}
        made[what]["much_over_little"] = paired_ratio(much.rates, little.rates)
        both = [[a + b for a, b in zip(one.cpu, one.postgres, strict=True)] for one in (little, much)]
        made[what]["cpu_little_over_much"] = statistics.median(both[0]) / statistics.median(both[1])
    return made


def _show(console: Console, filled: dict[str, Filled], account: dict[str, Any], expiry: dict[str, Any]) -> None:
    for name, one in filled.items():
        sizes = ", ".join(f"{table_name} {size / 1e6:,.0f} MB" for table_name, size in one.bytes.items())
        console.print(
            f"{name}: {one.messages:,} messages in {one.mailboxes:,} mailboxes over {one.partitions} partitions,"
            f" filled in {one.seconds:.0f} s; {sizes}",
            highlight=False,
        )
    rows = []
    for what, entry in account.items():
        sides = [f"{entry[name]['rate']:,.0f}" for name in (LITTLE, MUCH)]
        cpu = [
            f"{statistics.median(entry[name]['cpu']):.0f} + {statistics.median(entry[name]['postgres']):.0f}"
            for name in (LITTLE, MUCH)
        ]
        rows.append([what, *sides, *cpu, f"{entry['much_over_little']:.2f}", f"{entry['cpu_little_over_much']:.2f}"])
    columns = ["", "little, /s", "much, /s", "CPU + PG us, little", "much", "rate ratio", "CPU ratio"]
    console.print(table("much beside little", columns, rows))
    rows = [
        [f"{what}, {when}", *latency_cells(Latency(**expiry[when][what]))]
        for what in ("reads", "mails")
        for when in ("before", "during")
    ]
    title = f"a partition of {expiry['messages']:,} messages and {expiry['mailboxes']:,} mailboxes ends under load"
    console.print(table(title, ["", "p50", "p95", "p99", "max"], rows))
    ratios = ", ".join(f"{what} {ratio:.2f}" for what, ratio in expiry["p99_ratio"].items())
    console.print(f"p99 during over before: {ratios}", highlight=False)


def fill_much(console: Console, options: Options, place: Path) -> Filled:
    """Fill the database that holds much, if it is not filled yet."""
    with progress(console) as bar:
        task = bar.add_task("filling", total=options.partitions)
        each = max(options.messages // options.mailboxes, 1)
        return fill(place, options.mailboxes, each, options.partitions, lambda: bar.advance(task))


def run(console: Console, options: Options, work: Path, much: Path) -> dict[str, Any]:
    """Fill what is not filled, measure and show; returns what was filled, figures by side, and the expiry."""
    places = {LITTLE: work / "little", MUCH: much}
    filled = {LITTLE: fill(places[LITTLE], options.sampled, _LITTLE_EACH, 1, lambda: None)}
    filled[MUCH] = fill_much(console, options, much)
    figures: Figures = {}
    with progress(console) as bar:
        expiry = _measure(options, work, places, figures, bar)
    account = _account(figures)
    _show(console, filled, account, expiry)
    return {"filled": {name: asdict(one) for name, one in filled.items()}, "figures": account, "expiry": expiry}


def _measure(options: Options, work: Path, places: dict[str, Path], figures: Figures, bar: Progress) -> dict[str, Any]:
    task = bar.add_task("runs", total=options.runs * 8 + 2)

    def step() -> None:
        bar.advance(task)

    with _sides(options, places, Plan(1, options.server.settings)) as sides:
        _receiving(options, sides, figures, step)
    with _sides(options, places, options.server) as sides:
        _reading(options, work, sides, figures, step)
        bar.update(task, description="a partition ends")
        with Fleet(_wires(sides)) as fleet:
            return uvloop.run(_expiry(options, fleet, sides[-1]))
