"""Scenario ``corpus``: every message of a directory through SMTP, read back, compared with what is expected.

Must not know: how messages are found and judged (``corpus_files``), or how servers are started (``launch``).
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from bench.clients.api import Api, ApiError
from bench.clients.smtp import SmtpConnection, SmtpError, wire_form
from bench.report.results import latency_cells, progress, show_latency, table
from bench.scenarios.corpus_files import Expected, Sample, compare, compare_names, samples
from bench.tools.launch import Plan, own_server
from bench.tools.stats import summarise
from bench.tools.target import Target

_SLOW_SECONDS = 2.0
_AGREES = {"equal", "equal but for white space", "equal where named", "decoded, the expectation is not"}
_EXCERPT = 200


@dataclass(frozen=True, slots=True)
class Options:
    """``sessions`` messages are under way at a time."""

    server: Plan
    directory: str
    index: str
    sessions: int


@dataclass(slots=True)
class Findings:
    """What happened: failures by message, differences by field and class with examples, and durations in seconds."""

    sent: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    classes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    differences: list[dict[str, str]] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    listed: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)

    def judge(self, name: str, part: str, verdict: str, expected: str, found: str) -> None:
        """Count one comparison, and keep it when it disagrees."""
        self.classes[part][verdict] += 1
        if verdict not in _AGREES:
            difference = {"message": name, "field": part, "class": verdict}
            self.differences.append(difference | {"expected": expected[:_EXCERPT], "found": found[:_EXCERPT]})


def _judge(findings: Findings, name: str, expected: Expected, detail: dict[str, Any]) -> None:
    text, html = str(detail.get("text") or ""), str(detail.get("html") or "")
    if expected.subject is not None:
        findings.judge(
            name, "subject", compare(expected.subject, detail["subject"]), expected.subject, detail["subject"]
        )
    if expected.text is not None:
        findings.judge(name, "text", compare(expected.text, text), expected.text, text)
    if expected.html_contains is not None:
        verdict = "equal" if expected.html_contains in html else "not in html"
        findings.judge(name, "html", verdict, expected.html_contains, html)
    if expected.attachments is not None:
        names = tuple(str(entry["filename"] or "") for entry in detail.get("attachments") or ())
        verdict = compare_names(expected.attachments, names)
        findings.judge(name, "attachments", verdict, repr(expected.attachments), repr(names))


async def _one(target: Target, api: Api, sample: Sample, findings: Findings) -> None:
    """Send one message to a mailbox of its own and read it back; ApiError or SmtpError says what went wrong."""
    box = await api.create_mailbox()
    async with await SmtpConnection.open(target.smtp) as connection:
        delivery = await connection.send((box.address,), wire_form(sample.content))
    findings.answered.append(delivery.answered - delivery.sent)
    started = time.perf_counter()
    items = await api.messages(box)
    findings.listed.append(time.perf_counter() - started)
    if len(items) != 1:
        raise ApiError(f"{len(items)} messages in the list instead of 1")
    started = time.perf_counter()
    detail = await api.message(box, items[0]["id"])
    findings.read.append(time.perf_counter() - started)
    if max(findings.listed[-1], findings.read[-1]) > _SLOW_SECONDS:
        raise ApiError(f"list took {findings.listed[-1]:.1f} s, detail {findings.read[-1]:.1f} s")
    if sample.expected is not None:
        _judge(findings, sample.name, sample.expected, detail)


async def _scenario(
    target: Target, found: Sequence[Sample], options: Options, advance: Callable[[int], None]
) -> Findings:
    findings = Findings(sent=len(found))
    pending = iter(found)

    async def session() -> None:
        for sample in pending:
            try:
                await _one(target, api, sample, findings)
            except (ApiError, SmtpError, OSError, TimeoutError) as error:
                findings.failures[sample.name] = f"{type(error).__name__}: {error}"
            advance(1)

    async with Api(target.http) as api, asyncio.TaskGroup() as group:
        for _ in range(options.sessions):
            group.create_task(session())
    return findings


def _show(console: Console, findings: Findings) -> None:
    rows = [
        [name, *latency_cells(summarise(values))]
        for name, values in (("250", findings.answered), ("list", findings.listed), ("detail", findings.read))
    ]
    console.print(table("answer times", ["", "p50", "p95", "p99", "max"], rows))
    compared = [
        [part, verdict, count, "yes" if verdict in _AGREES else "no"]
        for part, verdicts in sorted(findings.classes.items())
        for verdict, count in verdicts.most_common()
    ]
    console.print(table("expected parses", ["field", "class", "messages", "agrees"], compared))
    for name, why in sorted(findings.failures.items()):
        console.print(f"FAILED {name}: {why}", markup=False, highlight=False)
    show_latency(console, "detail", findings.read)


def run(console: Console, options: Options, work: Path, target: Target | None) -> dict[str, Any]:
    """Send, read back, compare and show; ``failures`` of the result is empty when nothing was refused, lost or slow."""
    found = list(samples(Path(options.directory), Path(options.index) if options.index else None))
    with ExitStack() as stack:
        aim = target or stack.enter_context(own_server(work, options.server))
        bar = stack.enter_context(progress(console))
        task = bar.add_task("messages", total=len(found))
        findings = uvloop.run(_scenario(aim, found, options, lambda count: bar.advance(task, count)))
    _show(console, findings)
    agreeing = sum(count for part in findings.classes.values() for verdict, count in part.items() if verdict in _AGREES)
    judged = sum(sum(part.values()) for part in findings.classes.values())
    rate = agreeing / judged if judged else None
    passed = findings.sent - len(findings.failures)
    console.print(f"{passed} of {findings.sent} messages accepted, stored and read back in time")
    console.print("nothing to compare" if rate is None else f"agreement: {agreeing} of {judged} fields ({rate:.1%})")
    return {
        "messages": findings.sent,
        "failures": findings.failures,
        "agreement": rate,
        "compared": judged,
        "classes": findings.classes,
        "differences": findings.differences,
        "dot_to_250": asdict(summarise(findings.answered)),
        "list": asdict(summarise(findings.listed)),
        "detail": asdict(summarise(findings.read)),
    }
