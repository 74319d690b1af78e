"""``tempmail plan``: what an operator types and reads. Must not know: the sums."""

from math import isfinite
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from server.capacity import files, sizing
from server.capacity.demand import DATA, Demand, Habits, of_users, read, with_rates
from server.capacity.sizing import GIB, SIZES, Plan, Prices, Size, Units
from server.config.settings import PREFIX, ConfigError


def plan(
    users: Annotated[int, typer.Option(help="Monthly users; the rates follow from --habits.", min=0)] = 0,
    mails_per_second: Annotated[float | None, typer.Option(help="Mails a second at the peak.", min=0)] = None,
    requests_per_second: Annotated[
        float | None, typer.Option(help="HTTP requests a second at the peak.", min=0)
    ] = None,
    websockets: Annotated[float | None, typer.Option(help="WebSockets open at the peak.", min=0)] = None,
    write: Annotated[
        Path | None, typer.Option(help="Also write the configuration files of the chosen topology into this folder.")
    ] = None,
    size: Annotated[
        str, typer.Option(help="small, medium or large; by default by the users, or the first that carries the rates.")
    ] = "",
    units: Annotated[
        Path,
        typer.Option(
            help="Costs of a unit of work (TOML); without it server/capacity/units.toml.",
            exists=True,
            show_default=False,
        ),
    ] = DATA / "units.toml",
    habits: Annotated[
        Path,
        typer.Option(
            help="What users do (TOML); without it server/capacity/habits.toml.", exists=True, show_default=False
        ),
    ] = DATA / "habits.toml",
    prices: Annotated[
        Path,
        typer.Option(
            help="Machines and prices (TOML); without it server/capacity/prices.toml.", exists=True, show_default=False
        ),
    ] = DATA / "prices.toml",
) -> None:
    """Work out machines, settings and the monthly price for a number of users or for given rates.

    [bold]tempmail plan --users 100000[/bold] shows what the users ask for, the three sizes beside each other, and the
    topology of the size that fits. Rates that are given ([bold]--mails-per-second 500[/bold]) replace those worked out.
    """
    console = Console(width=None if Console().is_terminal else 120, highlight=False)
    if not users and mails_per_second is None and requests_per_second is None and websockets is None:
        raise typer.BadParameter("give --users, or a rate such as --mails-per-second 100")
    if not all(isfinite(rate) for rate in (mails_per_second, requests_per_second, websockets) if rate is not None):
        raise typer.BadParameter("a rate is a number, such as --mails-per-second 100")
    if size and size not in SIZES:
        raise typer.BadParameter(f"{size!r} is none of {', '.join(SIZES)}", param_hint="--size")
    known = read(habits, Habits)
    demand = with_rates(
        of_users(users, known), known, mails=mails_per_second, requests=requests_per_second, websockets=websockets
    )
    costs, list_of_prices = read(units, Units), read(prices, Prices)
    chosen = _chosen(size, users, demand, costs, list_of_prices)
    _show_demand(console, demand)
    _show_sizes(console, {name: _possible(name, demand, costs, list_of_prices) for name in SIZES}, chosen.size)
    _show_topology(console, chosen)
    if write is not None:
        for path in files.write(chosen, write):
            console.print(f"wrote {path}", soft_wrap=True)


def _chosen(size: str, users: int, demand: Demand, units: Units, prices: Prices) -> Plan:
    """The plan of ``size``; with none given, of the first size from that of ``users`` on that carries the demand."""
    wanted: list[Size] = [name for name in SIZES if name == size] or list(SIZES)[
        list(SIZES).index(sizing.size_of(users)) :
    ]
    for name in wanted[:-1]:
        if (plan := _possible(name, demand, units, prices)) is not None:
            return plan
    return sizing.plan(wanted[-1], demand, units, prices)


def _possible(size: Size, demand: Demand, units: Units, prices: Prices) -> Plan | None:
    """The plan of ``size``; None where its topology cannot carry the demand."""
    try:
        return sizing.plan(size, demand, units, prices)
    except ConfigError:
        return None


def _show_demand(console: Console, demand: Demand) -> None:
    table = Table("mails/s", "requests/s", "WebSockets", "mail kept", title="at the peak")
    table.add_row(
        f"{demand.mails:,.1f}",
        f"{demand.requests:,.0f}",
        f"{demand.websockets:,.0f}",
        f"{demand.stored_bytes / GIB:,.1f} GiB",
    )
    console.print(table)


def _show_sizes(console: Console, plans: dict[Size, Plan | None], chosen: Size) -> None:
    table = Table("size", "users", Column("machines", justify="right"), Column("USD a month", justify="right"))
    for name, plan in plans.items():
        machines = str(sum(group.count for group in plan.groups)) if plan else "does not fit"
        table.add_row(name + " <" * (name == chosen), SIZES[name], machines, f"{plan.price:,.0f}" if plan else "-")
    console.print(table)


def _show_topology(console: Console, plan: Plan) -> None:
    columns = ("count", "busy", "memory", "USD a month")
    table = Table("group", "machine", "roles", *(Column(name, justify="right") for name in columns), title=plan.size)
    for group in plan.groups:
        memory = f"{group.memory / GIB:,.1f} of {group.machine.memory_gib:g} GiB"
        table.add_row(
            group.name,
            group.machine.name,
            group.roles or "-",
            str(group.count),
            f"{group.cores_busy:.1%}",
            memory,
            f"{group.price:,.0f}",
        )
    for name, price in plan.other.items():
        table.add_row(name, "-", "-", "", "", "", f"{price:,.0f}")
    console.print(table)
    settings = Table(
        "setting", "value", title="of each node; PostgreSQL: max_connections >= " + str(plan.max_connections)
    )
    for name, value in plan.settings.items():
        settings.add_row(PREFIX + name, value)
    console.print(settings)
