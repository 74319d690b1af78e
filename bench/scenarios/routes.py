"""Scenario ``routes``: latency of every route at a fixed offered load that it can sustain, one after another.

Lives here: warming, measuring and showing. Must not know: how a route is asked for (``routes_recipes``), or how load is
made (``client_http``, ``client_streams``). It deletes, reconfigures and locks out, so it is run against a server of its
own alone.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import uvloop
from rich.console import Console

from bench.clients.api import Api, Mailbox
from bench.clients.http import Generators, Load, Request
from bench.clients.streams import Attempt, event_stream, opened, subscription
from bench.report.results import latency_cells, progress, table
from bench.scenarios import recipes
from bench.scenarios.http import LoadError
from bench.scenarios.recipes import CHANGING, RECIPES, STREAMING, Recipe
from bench.scenarios.world import Around, World, around, made
from bench.tools.launch import Plan, make_administrator, own_server
from bench.tools.stats import Latency, summarise
from bench.tools.target import Endpoint

_BOXES: Final = 100
_WARM_SECONDS: Final = 0.5
_EACH: Final = 3  # things of a kind that an account is given by one family: webhooks have the least cap, 10
_STREAMS: Final[dict[str, Attempt]] = dict(zip(STREAMING, (event_stream, subscription), strict=True))
"""A connection each: from the due time until what was missed arrives, or until the server says ``subscribed``."""


@dataclass(frozen=True, slots=True)
class Options:
    """``rate`` in requests per second, of which each family is offered its share; ``only``: those whose names hold it,
    empty for all.
    """

    server: Plan
    seconds: float
    rate: float
    connections: int
    only: str


Requests = dict[str, tuple[list[Request], list[Request]]]
"""By family: those that warm up, and those that are measured."""


async def _prepared(
    http: Endpoint, outside: Around, administrator: tuple[str, str], options: Options, wanted: Sequence[Recipe]
) -> tuple[list[Mailbox], Requests]:
    async with Api(http) as api:
        world = World(api, outside, await api.login(*administrator))
        spent = options.rate * CHANGING * (options.seconds + _WARM_SECONDS)
        await world.fill(_BOXES, max(math.ceil(spent / _EACH), 20))
        sets: Requests = {}
        for recipe in wanted:
            warming, measured = (_count(recipe, options, seconds) for seconds in (_WARM_SECONDS, options.seconds))
            maker, count = recipe.uses, warming + measured
            if maker is None:
                subjects = recipes.standing(recipe, world)
            else:
                subjects = await made(count, lambda number, maker=maker: maker(world, number))  # type: ignore[misc]
            requests = recipes.requests_of(recipe, http, world, subjects, count)
            sets[recipe.name] = requests[:warming], requests[warming:]
        return [Mailbox(box["mailbox"], box["address"], box["box"]) for box in world.boxes], sets


def _count(recipe: Recipe, options: Options, seconds: float) -> int:
    return max(round(options.rate * recipe.share * seconds), 1)  # as a schedule counts


def run(console: Console, options: Options, work: Path) -> dict[str, Any]:
    """Measure and show; {family: latency and rate}. LoadError where a family answered anything but what it should,
    RecipeError where a route has no recipe.
    """
    recipes.check()
    wanted = [recipe for recipe in RECIPES if options.only in recipe.name]
    streams = [name for name in STREAMING if options.only in name]
    results: dict[str, Any] = {}
    with ExitStack() as stack:
        outside = stack.enter_context(around())
        settings = {"DNS_SERVERS": outside.dns, "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}
        plan = Plan(options.server.workers, settings | dict(options.server.settings))
        http = stack.enter_context(own_server(work, plan)).http
        bar = stack.enter_context(progress(console))
        task = bar.add_task("accounts, mailboxes, mail", total=len(wanted) + len(streams))
        boxes, sets = uvloop.run(_prepared(http, outside, make_administrator(work), options, wanted))
        flat = {(name, part): requests for name, parts in sets.items() for part, requests in enumerate(parts)}
        generators = stack.enter_context(Generators(1, {f"{part} {name}": flat[name, part] for name, part in flat}))
        for seed, recipe in enumerate(wanted):
            bar.update(task, description=recipe.name[:32])
            rate = options.rate * recipe.share
            for part, seconds in enumerate((_WARM_SECONDS, options.seconds)):
                load = Load(options.connections, seconds, rate)
                outcome = generators.run(http, f"{part} {recipe.name}", load, seed)
                if outcome.errors:
                    raise LoadError(f"{recipe.name}: {dict(outcome.errors)}")
            results[recipe.name] = _result(rate, outcome.rate, outcome.latencies)
            bar.advance(task)
        for name in streams:
            bar.update(task, description=name[:32])
            for seconds in (_WARM_SECONDS, options.seconds):
                load = Load(options.connections, seconds, options.rate)
                outcome = uvloop.run(opened(_STREAMS[name], http, boxes, load))
                if outcome.errors:
                    raise LoadError(f"{name}: {dict(outcome.errors)}")
            results[name] = _result(options.rate, outcome.rate, outcome.latencies)
            bar.advance(task)
    _show(console, results)
    return {"families": results}


def _result(offered: float, rate: float, latencies: Sequence[float]) -> dict[str, Any]:
    return {"offered": offered, "rate": rate, "latency": asdict(summarise(latencies))}


def _show(console: Console, results: dict[str, Any]) -> None:
    rows = [
        [name, f"{found['offered']:,.1f}", *latency_cells(Latency(**found["latency"]))]
        for name, found in results.items()
    ]
    title = "requests/s offered to one route at a time, answered or not; latency from the due time"
    console.print(table(title, ["route", "offered/s", "p50", "p95", "p99", "max"], rows))
