"""What a scenario leaves behind: tables and a histogram on the terminal, one JSON file in ``bench/results``.

Must not know: how anything was measured.
"""

import re
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.report.machine import commit, machine, versions
from bench.tools.stats import Latency, histogram

RESULTS = Path(__file__).parents[1] / "results"
_BAR = 40


def progress(console: Console) -> Progress:
    """The bar every scenario shows."""
    columns = (TextColumn("{task.description:<32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def milliseconds(seconds: float) -> str:
    """A duration for people."""
    return f"{seconds * 1e3:.3f} ms" if seconds < 0.1 else f"{seconds * 1e3:.0f} ms"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table whose first column is text and whose others are figures."""
    made = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        made.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        made.add_row(*(str(cell) for cell in row))
    return made


def show_latency(console: Console, title: str, values: Sequence[float]) -> None:
    """Percentiles and a histogram of durations in seconds, in the manner of hey and wrk."""
    bins = histogram(values)
    if not bins:
        console.print(f"\n[bold]{title}[/bold]: nothing was measured")
        return
    console.print(f"\n[bold]{title}[/bold] ({len(values)} samples)")
    peak = max(entry.count for entry in bins)
    for entry in bins:
        bar = "■" * round(_BAR * entry.count / peak)
        console.print(f"  <= {milliseconds(entry.upper):>12} [{entry.count:>8}] {bar}", markup=False, highlight=False)


def latency_cells(latency: Latency) -> list[str]:
    """p50, p95, p99 and the worst for a table."""
    return [milliseconds(value) for value in (latency.p50, latency.p95, latency.p99, latency.maximum)]


_SECRET = re.compile(r"(://)[^/@]*@")


def write(scenario: str, work: Path, parameters: dict[str, Any], result: dict[str, Any]) -> Path:
    """Write ``bench/results/<scenario>-<UTC time>.json`` and return its path.

    The file holds scenario, finished (RFC 3339), command, commit, machine, versions, parameters and result; times are
    in seconds, sizes in bytes.
    """
    now = datetime.now(UTC)
    document = {
        "scenario": scenario,
        "finished": now,
        "command": _SECRET.sub(r"\1", shlex.join(["python", "-m", "bench", *sys.argv[1:]])),
        "commit": commit(),
        "machine": machine(work),
        "versions": versions(),
        "parameters": parameters,
        "result": result,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{scenario}-{now:%Y%m%dT%H%M%SZ}.json"
    path.write_bytes(orjson.dumps(document, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z))
    return path
