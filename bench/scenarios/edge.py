"""Scenario ``edge``: hot private reads through nginx over unix sockets, beside nginx answering by itself.

One nginx with the configuration of ``nginx/``, without TLS and with limits out of the way, serves both: the site in
front of our server, and ``return 200`` with the same head and a body of the same length, so that both send as much and
wrk reads as much. wrk makes the load, because a generator in Python would be slower than what it measures.
Must not know: how a server is started, beyond asking for it.
"""

import asyncio
import os
import re
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from rich.console import Console

from bench.clients.api import Mailbox
from bench.report.results import milliseconds, progress, table
from bench.scenarios.http import LoadError, fill
from bench.tools.launch import LaunchError, Plan, accepts, free_endpoint, own_server, require_program, running
from bench.tools.processes import Neighbours, cpu_time
from bench.tools.stats import cpu_ratio, paired_ratio
from bench.tools.target import Endpoint, Target

SITE, ALONE, DIRECT = "nginx + tempmail", "nginx return 200", "nginx + tempmail, no log, no limits"
_ROOT: Final = Path(__file__).parents[2]
_WARM_UP_SECONDS: Final = 2.0
_RELOAD_SECONDS: Final = 20.0
_BY_NGINX: Final = frozenset({"Server", "Date", "Connection", "Content-Length"})
_RETURNED_MAX: Final = 4_000  # bytes: nginx's parser takes no longer word


@dataclass(frozen=True, slots=True)
class Options:
    """``connections`` keep-alive ones of wrk's single thread, over ``mailboxes`` lists, each with its own token."""

    server: Plan
    runs: int
    seconds: float
    mailboxes: int
    connections: int


@dataclass(slots=True)
class Side:
    """What was seen of one of those compared, by run: requests/s, CPU microseconds a request, p99 in seconds."""

    name: str
    endpoint: Endpoint
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    tails: list[float] = field(default_factory=list)
    neighbours: list[float] = field(default_factory=list)


_MAIN: Final = """\
{user}
worker_processes auto;
worker_rlimit_nofile 20000;
pcre_jit on;
daemon off;
pid {work}/nginx.pid;
error_log {work}/nginx-error.log warn;
events {{ worker_connections 8192; }}
http {{
    client_body_temp_path {work}/nginx-temporary;
    proxy_temp_path {work}/nginx-temporary;
    default_type application/json;
    sendfile on;
    tcp_nopush on;
    server_tokens off;
    access_log off;
    include tempmail/upstream.conf;
    include tempmail/clients.conf;
    include tempmail/cache.conf;
    include tempmail/log.conf;
    include tempmail/sentences.conf;
    server {{ listen {site} backlog=4096; include tempmail/site.conf; }}
    server {{
        listen {direct} backlog=4096;
        keepalive_requests 1000000;
        include tempmail/proxy.conf;
        location / {{ proxy_pass http://tempmail; }}
    }}
    include alone.conf;
}}
"""


def _lay_out(work: Path, sockets: Sequence[Path], site: Endpoint, direct: Endpoint) -> Path:
    """nginx's configuration as the repository has it, with what an operator edits edited; the path of its main file."""
    conf = work / "nginx"
    shutil.copytree(_ROOT / "nginx" / "tempmail", conf / "tempmail")
    servers = "".join(f"server unix:{path} max_fails=0;\n" for path in sockets)
    (conf / "tempmail" / "servers.conf").write_text(servers)
    edits = {
        "/var/log/nginx/": f"{work}/",
        "/var/cache/nginx/": f"{work}/nginx-cache/",
        "rate=100r/s": "rate=1000000r/s",
        "burst=300": "burst=1000000",
        "tempmail_connections 300": "tempmail_connections 60000",
        "keepalive_requests 10000;": "keepalive_requests 1000000;",
    }
    for path in (conf / "tempmail").iterdir():
        text = path.read_text()
        for old, new in edits.items():
            text = text.replace(old, new)
        path.write_text(text)
    (work / "nginx-cache").mkdir()
    (conf / "alone.conf").touch()
    main = conf / "nginx.conf"
    user = "" if os.geteuid() else "user root;"  # the server's sockets are open to its own user and group
    main.write_text(_MAIN.format(user=user, work=work, site=site, direct=direct))
    return main


async def _seen(target: Target, box: Mailbox) -> tuple[Mapping[str, str], int]:
    """The head of the site's answer but for what nginx writes on every answer, and the length of its body."""
    head = {"Authorization": f"Bearer {box.token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(target.http.base_url + box.messages_path, headers=head) as got,
    ):
        body = await got.read()
        return {name: value for name, value in got.headers.items() if name not in _BY_NGINX}, len(body)


def _answer_alone(main: Path, nginx: int, endpoint: Endpoint, head: Mapping[str, str], length: int) -> None:
    """Have nginx answer by itself too, with the head and as many bytes as our server."""
    fields = "".join(f"add_header {name} '{value}'; " for name, value in head.items() if name != "Content-Type")
    body = "x" * min(length, _RETURNED_MAX)
    alone = (
        f"server {{ listen {endpoint} backlog=4096; keepalive_requests 1000000;"
        f" default_type '{head['Content-Type']}'; {fields}return 200 '{body}'; }}\n"
    )
    main.with_name("alone.conf").write_text(alone)
    os.kill(nginx, signal.SIGHUP)
    deadline = time.monotonic() + _RELOAD_SECONDS
    while not accepts(endpoint):
        if time.monotonic() > deadline:
            raise LaunchError(f"nginx was not reloaded: {(main.parent.parent / 'nginx-error.log').read_text()}")
        time.sleep(0.05)


@contextmanager
def _nginx(work: Path, main: Path, endpoint: Endpoint) -> Iterator[int]:
    command = [require_program("nginx", "nginx-light"), "-c", str(main), "-e", str(work / "nginx-start.log")]
    with running(command, work / "nginx.log", lambda: accepts(endpoint)) as pid:
        yield pid


def _script(work: Path, boxes: Sequence[Mailbox]) -> Path:
    """wrk's script: the lists of the mailboxes in turn, each with its own token."""
    heads = ",\n".join(f'wrk.format("GET", "{b.messages_path}", {{Authorization="Bearer {b.token}"}})' for b in boxes)
    path = work / "wrk.lua"
    path.write_text(f"""\
local heads, at
function init(arguments)
  heads, at = {{ {heads} }}, 0
end
function request()
  at = at % #heads + 1
  return heads[at]
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("\\nresult %d %d %d %d\\n", summary.requests, summary.duration,
    latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
""")
    return path


def _load(
    options: Options, script: Path, endpoint: Endpoint, seconds: float, *, strict: bool = True
) -> tuple[int, float, float]:
    """Answers, seconds taken, and p99 in seconds; LoadError for a ``strict`` run with any wrong answer."""
    command = [
        require_program("wrk", "wrk"),
        "-t1",
        f"-c{options.connections}",
        f"-d{max(round(seconds), 1)}s",
        "-s",
        str(script),
    ]
    made = subprocess.run(
        [*command, endpoint.base_url], capture_output=True, text=True, timeout=seconds + 60, check=False
    )
    found = re.search(r"^result (\d+) (\d+) (\d+) (\d+)$", made.stdout, re.MULTILINE)
    if found is None or (strict and found[4] != "0") or found[1] == "0":
        raise LoadError(f"{endpoint}: wrk says {made.stdout[-500:]} {made.stderr[-500:]}")
    return int(found[1]), int(found[2]) / 1e6, int(found[3]) / 1e6


def _measure(options: Options, script: Path, side: Side, pids: Sequence[int]) -> None:
    before, neighbours = sum(cpu_time(pid).server for pid in pids), Neighbours()
    answers, seconds, tail = _load(options, script, side.endpoint, options.seconds)
    side.neighbours.append(neighbours.cores())
    spent = sum(cpu_time(pid).server for pid in pids) - before
    side.rates.append(answers / seconds)
    side.cpu.append(spent / answers * 1e6)
    side.tails.append(tail)


def _account(sides: Sequence[Side]) -> dict[str, Any]:
    site, alone = sides[0], sides[1]
    return {
        side.name: {
            "rate": statistics.median(side.rates),
            "cpu_us": statistics.median(side.cpu),
            "p99": statistics.median(side.tails),
            "neighbours": statistics.median(side.neighbours),
            "over_return_200": None if side is alone else paired_ratio(side.rates, alone.rates),
            "cpu_of_return_200_over_this": None if side is alone else cpu_ratio(side.cpu, alone.cpu),
            "runs": asdict(side),
        }
        for side in (site, *sides[1:])
    }


def _show(console: Console, options: Options, account: dict[str, Any]) -> None:
    rows = []
    for name, entry in account.items():
        ratios = [entry["over_return_200"], entry["cpu_of_return_200_over_this"]]
        cells = ["-" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        figures = [f"{entry['rate']:,.0f}", f"{entry['cpu_us']:.1f}", f"{entry['neighbours']:.2f}"]
        rows.append([name, *figures, milliseconds(entry["p99"]), *cells])
    title = f"lists of {options.mailboxes:,} mailboxes, hot, {options.connections} connections, wrk with one thread"
    columns = ["server", "requests/s", "CPU us (nginx + ours)", "others' cores", "p99", "of return 200", "CPU ratio"]
    console.print(table(title, columns, rows))


def run(console: Console, options: Options, work: Path) -> dict[str, Any]:
    """Measure and show; returns one account for each side."""
    with ExitStack() as stack:
        path = work / "http.sock"
        workers = options.server.workers
        sockets = [path] if workers == 1 else [path.with_name(f"{path.name}.{slot}") for slot in range(workers)]
        sides = [Side(name, free_endpoint()) for name in (SITE, ALONE, DIRECT)]
        site, alone, direct = (side.endpoint for side in sides)
        main = _lay_out(work, sockets, site, direct)
        nginx = stack.enter_context(_nginx(work, main, site))
        plan = Plan(workers, {"SERVER_HOST": f"unix:{path}", **options.server.settings})
        target = stack.enter_context(own_server(work, plan, site))
        bar = stack.enter_context(progress(console))
        boxes = asyncio.run(fill(target, options.mailboxes, lambda _: None))
        _answer_alone(main, nginx, alone, *asyncio.run(_seen(target, boxes[0])))
        script = _script(work, boxes)
        assert target.pid is not None
        for side in sides:
            _load(options, script, side.endpoint, _WARM_UP_SECONDS, strict=False)  # nginx's old workers close on some
        task = bar.add_task("runs", total=options.runs * len(sides))
        for number in range(options.runs):
            for side in sides if number % 2 == 0 else reversed(sides):
                bar.update(task, description=f"run {number + 1}/{options.runs}: {side.name}")
                _measure(options, script, side, (nginx, target.pid))
                bar.advance(task)
    account = _account(sides)
    _show(console, options, account)
    return {"sides": account}
