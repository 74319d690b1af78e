"""The page of what was measured: result files in, Markdown and plots out.

Every scenario is shown by the same three rules: what has a ``rate`` becomes a row of a table and a bar; what has
percentiles becomes a row of another table, and the first of them a histogram; what is growth or a model, a table of its
own. Must not know: how anything was measured.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import orjson

from bench.report.plots import bars
from bench.report.results import RESULTS, milliseconds

_SLOWEST: Final = 20  # routes that are drawn
OURS: Final = ("tempmail", "nginx + tempmail", "much")
_TITLES: Final = {
    "smtp": "Receiving",
    "sessions": "Connections",
    "http": "Reading",
    "edge": "Reading through nginx",
    "ws": "Push",
    "growth": "Growth",
    "capacity": "Model and server",
    "e2e": "End to end",
    "routes": "Every route",
    "timing": "Time of refusals",
    "corpus": "Corpus",
}
_RATES: Final = {
    "rate": ("a second", ",.0f"),
    "server_cpu_us": ("CPU us", ",.1f"),
    "cpu_us": ("CPU us", ",.1f"),
    "postgres_cpu_us": ("PostgreSQL us", ",.1f"),
    "ours_over_this": ("ours / this", ".2f"),
    "over_return_200": ("of return 200", ".2f"),
    "cpu_this_over_ours": ("CPU, this / ours", ".2f"),
    "neighbours": ("others' cores", ".2f"),
}


class PageError(Exception):
    """There is nothing to show, or a file is not a result; the text names it."""


@dataclass(slots=True)
class _Section:
    document: dict[str, Any]
    lines: list[str] = field(default_factory=list)
    plots: dict[str, str] = field(default_factory=dict)


def newest(files: Sequence[Path]) -> list[dict[str, Any]]:
    """The result files that are to be shown: all that are given, else the newest of each scenario and, of ``smtp``, of
    each variant. In the order of the page."""
    paths = list(files) or sorted(RESULTS.glob("*.json"))
    documents = [_read(path) for path in paths]
    if not documents:
        raise PageError(f"no results in {RESULTS}: run a scenario first")
    if not files:
        documents.sort(key=lambda document: str(document["finished"]))
        kept: dict[tuple[str, ...], dict[str, Any]] = {}
        for document in documents:
            if document["scenario"] == "smtp":
                for variant, found in document["result"].items():
                    kept["smtp", variant] = document | {"result": {variant: found}}
            else:
                kept[(document["scenario"],)] = document
        documents = list(kept.values())
    order = list(_TITLES)
    return sorted(documents, key=lambda document: order.index(document["scenario"]))


def _read(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = orjson.loads(path.read_bytes())
        if document["scenario"] not in _TITLES or not isinstance(document["result"], dict):
            raise PageError(f"{path}: of no known scenario")
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise PageError(f"{path}: not a result of the bench: {error}") from error
    return document


def _walk(value: Any, wanted: str, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every dictionary below that has the key ``wanted``, with the path that leads there."""
    if not isinstance(value, dict):
        return
    if wanted in value and value[wanted] is not None:
        yield name, value
    for key, inner in value.items():
        yield from _walk(inner, wanted, f"{name}, {key}" if name else str(key))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(columns)} |", "|---|" + "---:|" * (len(columns) - 1)]
    return ["", *lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _short(names: Sequence[str]) -> list[str]:
    """Paths without the words that all of them have."""
    skipped = {"receivers", "servers", "figures"}
    return [", ".join(part for part in name.split(", ") if part not in skipped) for name in names]


def _plot(section: _Section, kind: str, svg: str) -> None:
    name = f"{section.document['scenario']}-{kind}.svg"
    if name in section.plots:
        raise PageError(f"{name} twice")
    section.plots[name] = svg


def _rates(section: _Section, tag: str) -> None:
    found = [(name, entry) for name, entry in _walk(section.document["result"], "rate")]
    if not found:
        return
    names = _short([name for name, _ in found])
    used = [key for key in _RATES if any(isinstance(entry.get(key), int | float) for _, entry in found)]
    rows = []
    for name, (_, entry) in zip(names, found, strict=True):
        values = [entry.get(key) for key in used]
        rows.append(
            [
                name,
                *(
                    "" if value is None else format(value, _RATES[key][1])
                    for key, value in zip(used, values, strict=True)
                ),
            ]
        )
    section.lines += _table(["", *(_RATES[key][0] for key in used)], rows)
    ours = frozenset(number for number, name in enumerate(names) if name.split(", ")[-1].startswith(OURS))
    drawn = [
        (name, float(entry["rate"]), f"{entry['rate']:,.0f}") for name, (_, entry) in zip(names, found, strict=True)
    ]
    _plot(
        section, f"{tag}rates", bars(f"{_TITLES[section.document['scenario']]}: operations a second", drawn, ours=ours)
    )


def _latencies(section: _Section, tag: str) -> None:
    found = [(name, entry) for name, entry in _walk(section.document["result"], "p95") if entry.get("count")]
    if not found:
        return
    names = _short([name for name, _ in found])
    rows = []
    for name, (_, entry) in zip(names, found, strict=True):
        rows.append(
            [name, f"{entry['count']:,}", *(milliseconds(entry[key]) for key in ("p50", "p95", "p99", "maximum"))]
        )
    section.lines += _table(["latency", "samples", "p50", "p95", "p99", "max"], rows)
    for name, (_, entry) in zip(names, found, strict=True):
        if bins := entry.get("bins"):
            drawn = [(f"<= {milliseconds(one['upper'])}", float(one["count"]), f"{one['count']:,}") for one in bins]
            _plot(section, f"{tag}latency", bars(f"{name}: latency", drawn, ours=frozenset(range(len(drawn)))))
            break


def _growth(section: _Section) -> None:
    result = section.document["result"]
    for name, one in result["filled"].items():
        size = sum(one["bytes"].values()) / 1e9
        section.lines.append(
            f"- {name}: {one['messages']:,} messages in {one['mailboxes']:,} mailboxes over {one['partitions']} "
            f"partition(s), {size:.1f} GB with indexes, filled in {one['seconds']:.0f} s"
        )
    drawn, rows = [], []
    for what, entry in result["figures"].items():
        rows.append([what, f"{entry['much_over_little']:.2f}", f"{entry['cpu_little_over_much']:.2f}"])
        drawn.append((what.split(",")[0], entry["much_over_little"], rows[-1][1]))
    section.lines += _table(["much beside little", "rate", "CPU, little / much"], rows)
    _plot(
        section, "ratios", bars("Rate with much stored, as a part of that with little", drawn, ours=frozenset(range(9)))
    )
    expiry = result["expiry"]
    ratios = ", ".join(f"{what} {ratio:.2f} x" for what, ratio in expiry["p99_ratio"].items())
    section.lines.append(f"p99 while a partition of {expiry['messages']:,} messages ends, over p99 before: {ratios}.")


def _capacity(section: _Section) -> None:
    result = section.document["result"]
    rows = [
        [name, *(f"{cost[key] * 1e6:.1f} us" for key in ("work", "database", "away"))]
        for name, cost in result["costs"].items()
    ]
    section.lines += _table(["one read", "worker", "PostgreSQL", "waiting for others, alone"], rows)
    rows, drawn = [], []
    for point in result["points"]:
        foretold, seen = point["foretold"], point["seen"]
        rows.append([f"{point['rate']:,.0f}/s"])
        for number, form in enumerate((lambda value: f"{value:.2f}", milliseconds, milliseconds)):
            rows[-1] += [form(foretold[number]), form(seen[number])]
        drawn += [
            (f"{point['rate']:,.0f}/s {side}", point[side][2], milliseconds(point[side][2]))
            for side in ("foretold", "seen")
        ]
    columns = ["offered", "busy, foretold", "seen", "p50, foretold", "seen", "p95, foretold", "seen"]
    section.lines += _table(columns, rows)
    _plot(section, "p95", bars("p95, foretold and seen", drawn, ours=frozenset(range(1, 99, 2))))


def _routes(section: _Section) -> None:
    found = section.document["result"]["families"]
    section.lines += ["", "Each route alone, at a fixed rate; a latency counts from the moment the request was due."]
    rows = [
        [name, f"{entry['offered']:,.0f}", *(milliseconds(entry["latency"][key]) for key in ("p50", "p95", "p99"))]
        for name, entry in found.items()
    ]
    section.lines += _table(["route", "offered a second", "p50", "p95", "p99"], rows)
    slowest = sorted(found.items(), key=lambda item: -item[1]["latency"]["p95"])[:_SLOWEST]
    drawn = [(name, entry["latency"]["p95"], milliseconds(entry["latency"]["p95"])) for name, entry in slowest]
    _plot(section, "p95", bars("The slowest routes: p95", drawn, ours=frozenset(range(_SLOWEST))))


def _section(document: dict[str, Any]) -> _Section:
    section = _Section(document)
    scenario, commit = document["scenario"], document["commit"]
    variants = list(document["result"]) if scenario == "smtp" else []
    title = _TITLES[scenario] + (
        f": {', '.join(document['result'][name]['generator'] for name in variants)}" if variants else ""
    )
    state = " and changes not committed" if commit["dirty"] else ""
    section.lines += [
        f"## {title}",
        "",
        f"`{document['command']}` at {commit['id'][:10]}{state}, {document['finished'][:16]}Z",
    ]
    tag = "-".join(variants) + "-" if variants else ""
    {"growth": _growth, "capacity": _capacity, "routes": _routes}.get(scenario, lambda _: None)(section)
    if scenario != "routes":
        _rates(section, tag)
        _latencies(section, tag)
    return section


def _head(document: dict[str, Any]) -> list[str]:
    machine = document["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return [
        "# What was measured",
        "",
        "Made by `python -m bench report` from the files that the scenarios write. Generators share the machine with",
        "what they measure, so ratios taken in one run say more than absolute figures; where others' cores are far",
        "from 0, something else was busy too.",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory'] / 2**30:.0f} GiB, Linux {machine['kernel']}, "
        f"{machine['filesystem']}; {versions}.",
        "",
    ]


def _names(name: str) -> Iterator[str]:
    """Two files of one scenario have plots of one name."""
    yield name
    yield from (f"{name}-{number}" for number in count(2))


def write_page(files: Sequence[Path], page: Path) -> int:
    """Write the page, and its plots into a folder of its name; how many sections it has. PageError."""
    sections = [_section(document) for document in newest(files)]
    plots = page.with_suffix("")
    plots.mkdir(parents=True, exist_ok=True)
    for old in plots.glob("*.svg"):
        old.unlink()
    lines = _head(max((section.document for section in sections), key=lambda document: str(document["finished"])))
    for section in sections:
        lines += section.lines
        for named, svg in section.plots.items():
            name = next(name for name in _names(named.removesuffix(".svg")) if not (plots / f"{name}.svg").exists())
            (plots / f"{name}.svg").write_text(svg)
            lines += ["", f"![{name}]({plots.name}/{name}.svg)"]
        lines.append("")
    page.write_text("\n".join(lines).rstrip() + "\n")
    return len(sections)
