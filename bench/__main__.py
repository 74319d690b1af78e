"""``python -m bench SCENARIO`` and ``python -m bench report``: options, a function for each.

Must not know: how anything is measured.
"""

import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from bench.clients.api import ApiError
from bench.clients.smtp import SmtpError
from bench.clients.ws import WebSocketError
from bench.peers.http import ANSWERERS
from bench.peers.npm import ON_REQUEST
from bench.peers.receivers import RECEIVERS
from bench.report.page import PageError, write_page
from bench.report.results import write
from bench.scenarios import capacity as scenario_capacity
from bench.scenarios import corpus as scenario_corpus
from bench.scenarios import e2e as scenario_e2e
from bench.scenarios import edge as scenario_edge
from bench.scenarios import growth as scenario_growth
from bench.scenarios import http as scenario_http
from bench.scenarios import recipes
from bench.scenarios import routes as scenario_routes
from bench.scenarios import sessions as scenario_sessions
from bench.scenarios import smtp as scenario_smtp
from bench.scenarios import timing as scenario_timing
from bench.scenarios import ws as scenario_ws
from bench.tools.launch import LaunchError, Plan, work_directory
from bench.tools.target import Target, TargetError, http_target, smtp_target

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Measure an installation from outside.")
console = Console(width=None if sys.stdout.isatty() else 140)

Runs = Annotated[int, typer.Option(min=1, max=50, help="interleaved runs; figures are their medians")]
Seconds = Annotated[float, typer.Option(min=0.5, max=600, help="length of one run")]
Workers = Annotated[int, typer.Option(min=1, max=64, help="worker processes of the server the bench starts")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="setting of the server the bench starts: NAME=VALUE, no prefix")
]
Http = Annotated[str, typer.Option("--http", help="measure a running installation: http://host:port")]
Smtp = Annotated[str, typer.Option("--smtp", help="measure a running installation: host:port")]
Owned = Annotated[bool, typer.Option("--i-own-this-target", help="allow a target that is not this machine")]
WorkDir = Annotated[Path | None, typer.Option(help="where servers keep their data during the run")]
CORES = len(os.sched_getaffinity(0))


@app.callback()
def _group() -> None:
    """Measure an installation from outside: each scenario is a command."""


def _target(http: str, smtp: str, owned: bool) -> Target | None:
    if not http and not smtp:
        return None
    if not http or not smtp:
        raise TargetError("a running installation needs both --http and --smtp")
    return Target(http_target(http, owned), smtp_target(smtp, owned))


def _plan(workers: int, settings: list[str] | None) -> Plan:
    pairs = [text.partition("=") for text in settings or ()]
    if any(not equals for _, equals, _ in pairs):
        raise typer.BadParameter("--set wants NAME=VALUE")
    return Plan(workers, {name: value for name, _, value in pairs})


def _names(text: str, known: dict[str, Any], what: str) -> tuple[str, ...]:
    names = tuple(name for name in (part.strip() for part in text.split(",")) if name)
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"{name!r} is no {what}; there are {', '.join(known)}")
    return names


def _save(scenario: str, work: Path, options: Any, target: Target | None, result: dict[str, Any]) -> None:
    parameters = asdict(options) | {"target": None if target is None else f"{target.http} {target.smtp}"}
    console.print(f"\nresults: {write(scenario, work, parameters, result)}")


@app.command()
def smtp(
    runs: Runs = 5,
    seconds: Seconds = 4.0,
    workers: Workers = 1,
    settings: Settings = None,
    sessions: Annotated[int, typer.Option(min=1, max=1000, help="SMTP sessions at a time")] = 50,
    size: Annotated[int, typer.Option(min=1, max=50_000_000, help="bytes of each body")] = 4096,
    mailboxes: Annotated[int, typer.Option(min=1, max=64, help="mailboxes, each with its own sender process")] = 1,
    peers: Annotated[
        str, typer.Option(help=f"peers by commas, empty for none; also {', '.join(ON_REQUEST)}")
    ] = ",".join(RECEIVERS),
    variants: Annotated[str, typer.Option(help="by commas, as named in its tables")] = ",".join(scenario_smtp.VARIANTS),
    ours: Annotated[bool, typer.Option(help="measure our server too")] = True,
    http: Http = "",
    smtp: Smtp = "",
    i_own_this_target: Owned = False,
    work_dir: WorkDir = None,
) -> None:
    """Mails per second acknowledged and stored, beside smtp-sink, aiosmtpd and Postfix."""
    target = _target(http, smtp, i_own_this_target)
    options = scenario_smtp.Options(
        server=_plan(workers, settings),
        runs=runs,
        seconds=seconds,
        sessions=sessions,
        size=size,
        mailboxes=mailboxes,
        peers=_names(peers, {**RECEIVERS, **ON_REQUEST}, "peer"),
        variants=_names(variants, dict(scenario_smtp.VARIANTS), "variant"),
    )
    with work_directory(work_dir) as work:
        result = scenario_smtp.run(console, options, work, target, ours)
        _save("smtp", work, options, target, result)


@app.command()
def sessions(
    workers: Workers = 1,
    settings: Settings = None,
    sessions: Annotated[int, typer.Option(min=1, max=18_000, help="SMTP sessions open at a time")] = 10_000,
    drip: Annotated[float, typer.Option(min=0, max=1, help="share of them that sends a byte of a mail a second")] = 0.1,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="how long they stay")] = 20.0,
    rate: Annotated[float, typer.Option(min=1, max=10_000, help="mails per second that others send meanwhile")] = 100.0,
    http: Http = "",
    smtp: Smtp = "",
    i_own_this_target: Owned = False,
    work_dir: WorkDir = None,
) -> None:
    """Thousands of SMTP sessions that hardly speak: memory of each, what others notice, what is left afterwards."""
    target = _target(http, smtp, i_own_this_target)
    options = scenario_sessions.Options(_plan(workers, settings), sessions, drip, seconds, rate)
    with work_directory(work_dir) as work:
        _save("sessions", work, options, target, scenario_sessions.run(console, options, work, target))


@app.command()
def http(
    runs: Runs = 5,
    seconds: Seconds = 4.0,
    workers: Workers = CORES,
    settings: Settings = None,
    mailboxes: Annotated[
        int, typer.Option(min=1, max=200_000, help="different mailboxes, each with its token")
    ] = 20_000,
    connections: Annotated[int, typer.Option(min=1, max=10_000, help="keep-alive connections")] = 100,
    rate: Annotated[float, typer.Option(min=0, help="requests per second of the offered runs; 0: none")] = 10_000.0,
    mail_every: Annotated[int, typer.Option(min=0, help="a mail after one in so many requests; 0: none")] = 100,
    cold_runs: Annotated[int, typer.Option(min=1, max=50, help="first reads of all mailboxes")] = 3,
    peers: Annotated[bool, typer.Option(help="measure nginx and a bare aiohttp route beside ours")] = True,
    more_peers: Annotated[str, typer.Option(help=f"further ones by commas: {', '.join(ANSWERERS)}")] = "",
    http: Http = "",
    smtp: Smtp = "",
    i_own_this_target: Owned = False,
    work_dir: WorkDir = None,
) -> None:
    """A fleet polls lists while mail arrives, beside nginx's `return 200` and a bare aiohttp route; first reads."""
    target = _target(http, smtp, i_own_this_target)
    options = scenario_http.Options(
        _plan(workers, settings),
        runs,
        seconds,
        mailboxes,
        connections,
        rate,
        mail_every,
        cold_runs,
        peers,
        _names(more_peers, dict(ANSWERERS), "peer"),
    )
    with work_directory(work_dir) as work:
        _save("http", work, options, target, scenario_http.run(console, options, work, target))


@app.command()
def edge(
    runs: Runs = 5,
    seconds: Seconds = 4.0,
    workers: Workers = CORES,
    settings: Settings = None,
    mailboxes: Annotated[int, typer.Option(min=1, max=2_000, help="different mailboxes, each with its token")] = 200,
    connections: Annotated[int, typer.Option(min=1, max=1_000, help="keep-alive connections")] = 100,
    work_dir: WorkDir = None,
) -> None:
    """Hot list reads through nginx over unix sockets, beside nginx's own `return 200`; needs nginx and wrk."""
    options = scenario_edge.Options(_plan(workers, settings), runs, seconds, mailboxes, connections)
    with work_directory(work_dir) as work:
        _save("edge", work, options, None, scenario_edge.run(console, options, work))


@app.command()
def ws(
    seconds: Seconds = 10.0,
    workers: Workers = CORES,
    settings: Settings = None,
    connections: Annotated[int, typer.Option(min=1, max=200_000, help="WebSocket connections that read")] = 1000,
    mails_per_second: Annotated[float, typer.Option(min=0.1, max=100_000, help="mails to offer")] = 500.0,
    lazy: Annotated[int, typer.Option(min=0, max=15_000, help="connections beside them that do not read")] = 0,
    size: Annotated[int, typer.Option(min=1, max=1_000_000, help="bytes of each body")] = 4096,
    http: Http = "",
    smtp: Smtp = "",
    i_own_this_target: Owned = False,
    work_dir: WorkDir = None,
) -> None:
    """Time from the final dot to the WebSocket frame, and memory per connection."""
    target = _target(http, smtp, i_own_this_target)
    options = scenario_ws.Options(_plan(workers, settings), seconds, connections, lazy, mails_per_second, size)
    with work_directory(work_dir) as work:
        _save("ws", work, options, target, scenario_ws.run(console, options, work, target))


@app.command()
def growth(
    messages: Annotated[int, typer.Option(min=1, help="messages in the database that holds much")] = 10_000_000,
    mailboxes: Annotated[int, typer.Option(min=1, help="mailboxes they lie in, equally many in each")] = 1_000_000,
    partitions: Annotated[int, typer.Option(min=1, max=190, help="hours in which these end")] = 60,
    runs: Runs = 5,
    seconds: Seconds = 3.0,
    workers: Workers = CORES,
    settings: Settings = None,
    sampled: Annotated[int, typer.Option(min=1, max=200_000, help="mailboxes written to and read, on both")] = 20_000,
    mails: Annotated[int, typer.Option(min=100, max=200_000, help="mails of a run")] = 15_000,
    connections: Annotated[int, typer.Option(min=1, max=10_000, help="keep-alive connections")] = 100,
    poll_rate: Annotated[float, typer.Option(min=1, help="requests a second while a partition ends")] = 2_000.0,
    mail_rate: Annotated[float, typer.Option(min=1, help="mails a second while a partition ends")] = 200.0,
    keep: Annotated[Path | None, typer.Option(help="where the full database is kept, and found next time")] = None,
    fill_only: Annotated[bool, typer.Option(help="fill the database of --keep and measure nothing")] = False,
    work_dir: WorkDir = None,
) -> None:
    """Receiving and reading with millions of messages stored, beside few; and a partition that ends under load."""
    options = scenario_growth.Options(
        _plan(workers, settings),
        *(messages, mailboxes, partitions, runs, seconds, sampled, mails, connections, poll_rate, mail_rate),
    )
    with work_directory(work_dir) as work:
        much = keep or work / "much"
        if fill_only:
            console.print(scenario_growth.fill_much(console, options, much), highlight=False)
            return
        _save("growth", work, options, None, scenario_growth.run(console, options, work, much))


@app.command()
def capacity(
    seconds: Seconds = 5.0,
    workers: Workers = 1,
    settings: Settings = None,
    connections: Annotated[int, typer.Option(min=1, max=1000, help="keep-alive connections")] = 64,
    boxes: Annotated[int, typer.Option(min=60, max=10_000, help="mailboxes, each read with 97 different limits")] = 400,
    cold_share: Annotated[float, typer.Option(min=0.001, max=0.5, help="of the reads, those not in memory")] = 0.2,
    loads: Annotated[str, typer.Option(help="shares of a worker's time to offer, by commas")] = "0.2,0.4,0.6,0.7,0.8",
    work_dir: WorkDir = None,
) -> None:
    """A simulation of the workers beside the server: utilisation, p50 and p95 of reads at several rates."""
    shares = tuple(float(text) for text in loads.split(","))
    options = scenario_capacity.Options(_plan(workers, settings), seconds, connections, boxes, cold_share, shares)
    with work_directory(work_dir) as work:
        _save("capacity", work, options, None, scenario_capacity.run(console, options, work))


@app.command()
def e2e(
    workers: Workers = CORES,
    settings: Settings = None,
    readers: Annotated[int, typer.Option(min=1, max=1000, help="mailboxes written to and read at a time")] = 8,
    mails: Annotated[int, typer.Option(min=1, max=100_000, help="mails to each, one after another")] = 250,
    size: Annotated[int, typer.Option(min=1, max=1_000_000, help="bytes of each body")] = 4096,
    http: Http = "",
    smtp: Smtp = "",
    i_own_this_target: Owned = False,
    work_dir: WorkDir = None,
) -> None:
    """Time from the final dot until a mail is listed and until it is pushed."""
    target = _target(http, smtp, i_own_this_target)
    options = scenario_e2e.Options(_plan(workers, settings), readers, mails, size)
    with work_directory(work_dir) as work:
        _save("e2e", work, options, target, scenario_e2e.run(console, options, work, target))


@app.command()
def routes(
    seconds: Seconds = 4.0,
    workers: Workers = CORES,
    settings: Settings = None,
    rate: Annotated[
        float, typer.Option(min=1, max=100_000, help="requests per second to offer a route, or its share")
    ] = 100.0,
    connections: Annotated[int, typer.Option(min=1, max=1000, help="keep-alive connections")] = 20,
    only: Annotated[str, typer.Option(help="only routes whose names hold this, such as 'POST /v1/auth'")] = "",
    work_dir: WorkDir = None,
) -> None:
    """Latency of every route, each at its share of one offered load; always against a server of its own."""
    options = scenario_routes.Options(_plan(workers, settings), seconds, rate, connections, only)
    with work_directory(work_dir) as work:
        _save("routes", work, options, None, scenario_routes.run(console, options, work))


@app.command()
def timing(
    workers: Workers = 1,
    settings: Settings = None,
    samples: Annotated[int, typer.Option(min=100, max=1_000_000, help="answers timed on each side of a pair")] = 10_000,
    mailboxes: Annotated[int, typer.Option(min=1, max=10_000, help="mailboxes asked about")] = 100,
    http: Http = "",
    smtp: Smtp = "",
    i_own_this_target: Owned = False,
    work_dir: WorkDir = None,
) -> None:
    """Whether the time of a refusal tells an unknown mailbox from a wrong token."""
    target = _target(http, smtp, i_own_this_target)
    options = scenario_timing.Options(_plan(workers, settings), samples, mailboxes)
    with work_directory(work_dir) as work:
        result = scenario_timing.run(console, options, work, target)
        _save("timing", work, options, target, result)
    if result["told"]:
        raise typer.Exit(1)


@app.command()
def corpus(
    directory: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="messages and mbox files")],
    index: Annotated[Path | None, typer.Option(exists=True, help="table of path and kind: message or mbox")] = None,
    workers: Workers = CORES,
    settings: Settings = None,
    sessions: Annotated[int, typer.Option(min=1, max=100, help="messages under way at a time")] = 8,
    http: Http = "",
    smtp: Smtp = "",
    i_own_this_target: Owned = False,
    work_dir: WorkDir = None,
) -> None:
    """Send every message of a directory, read it back, compare it with the expected parse beside it."""
    target = _target(http, smtp, i_own_this_target)
    options = scenario_corpus.Options(_plan(workers, settings), str(directory), str(index or ""), sessions)
    with work_directory(work_dir) as work:
        result = scenario_corpus.run(console, options, work, target)
        _save("corpus", work, options, target, result)
    if result["failures"]:
        raise typer.Exit(1)


@app.command()
def report(
    files: Annotated[list[Path] | None, typer.Argument(help="result files; none: the newest of each scenario")] = None,
    page: Annotated[Path, typer.Option(help="the page; plots go into a folder of its name")] = Path("docs/measured.md"),
) -> None:
    """Write a page of what was measured, with plots."""
    console.print(f"{write_page(files or [], page)} sections: {page}")


_FAILURES = (
    ApiError,
    LaunchError,
    PageError,
    OSError,
    SmtpError,
    TargetError,
    TimeoutError,
    WebSocketError,
    scenario_e2e.StaleRead,
    scenario_growth.GrowthError,
    recipes.RecipeError,
    scenario_http.LoadError,
    scenario_sessions.Leak,
    scenario_smtp.LostMail,
    scenario_timing.TimingError,
    scenario_ws.PushError,
)


def _reasons(error: BaseException) -> list[BaseException]:
    """The failures inside a group of tasks, or the failure itself."""
    if isinstance(error, BaseExceptionGroup):
        return [reason for inner in error.exceptions for reason in _reasons(inner)]
    return [error]


def main() -> None:
    """Run one command; a failed measurement ends with status 1 and one line that says why."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, so that started servers are stopped
    try:
        app()
    except (*_FAILURES, BaseExceptionGroup) as error:
        reasons = _reasons(error)
        if not all(isinstance(reason, _FAILURES) for reason in reasons):
            raise
        for reason in reasons[:5]:
            console.print(f"[red]{type(reason).__name__}[/red]: {escape(str(reason))}", highlight=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
