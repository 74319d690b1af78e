"""``tempmail trace``: why a mail did not arrive, for an operator at the command line.

Lives here: what is typed and shown. Must not know: how decisions are recorded or found.
"""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Column, Table

from server.cli.admin import database, plain
from server.config import settings as configuration
from server.config.settings import Config, ConfigError
from server.model import dates
from server.model.trace import Decision, Page, Question, Verdict, printable
from server.store.migrate import pending, require
from server.store.pools import Pools
from server.store.trace import TraceStore

_COLOURS: Final[dict[Verdict, str]] = {
    "accepted": "green",
    "deferred": "yellow",
    "refused": "red",
    "dropped": "bold red",
}
_SHOWN: Final = {"at (UTC)": 19, "stage": 7, "client": 15}  # columns that are never folded, in characters


def trace(
    address: Annotated[str, typer.Argument(help="A recipient, or nothing for all.")] = "",
    sender: Annotated[
        str, typer.Option("--from", metavar="SENDER", help="Only what this sender sent, or all of a domain.")
    ] = "",
    since: Annotated[str, typer.Option(help="How far to look back: 2h, 30m, 2026-11-01, 2026-11-01T12:00:00Z")] = "2h",
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1, max=10_000)] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, as the API gives them.")] = False,
) -> None:
    """Show what became of mail to an address: every SMTP decision about it, and the drops of the queue.

    [bold]tempmail trace box@example.org --since 30m[/bold]

    [bold]tempmail trace --from shop.example[/bold]

    Nothing shown for an address means that no server asked us about it: look at the sender's own queue and at the MX
    record. 2xx was accepted, 4xx the sender tries again, 5xx it got back as undeliverable. A decision is here a second
    or two after it was made, and for TEMPMAIL_TRACE_RETENTION. Under a flood a part is only counted; the last line
    then says so.
    """
    try:
        start = dates.ago(since, datetime.now(UTC))
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"--since: {since!r} is neither {dates.EXAMPLE} nor how long ago, such as 2h") from error
    config = msgspec.structs.replace(database(configuration.load()), workers=1)
    if not config.trace_retention:
        raise ConfigError(f"{configuration.PREFIX}TRACE_RETENTION is 0: nothing is recorded")
    page = asyncio.run(_found(config, Question(address.strip().lower(), sender.strip().lower(), start, limit=limit)))
    _print_json(page) if as_json else _print_table(page, address, sender)


async def _found(config: Config, question: Question) -> Page:
    pools = await Pools.open(config)
    try:
        async with pools.messages.connection() as connection:
            require(await pending(connection, ["messages"]))
        return await TraceStore(pools.messages, config.trace_retention, "", config.administrator).page(question)
    finally:
        await pools.close()


def _print_json(page: Page) -> None:
    for one in reversed(page.items):
        shown = {name: value for name, value in msgspec.structs.asdict(one).items() if value is not None}
        shown["messageId"] = shown.pop("message_id", None)
        texts = {name: printable(value) if isinstance(value, str) else value for name, value in shown.items()}
        print(msgspec.json.encode({name: value for name, value in texts.items() if value is not None}).decode())


def _print_table(page: Page, address: str, sender: str) -> None:
    table = Table(
        *(Column(name, no_wrap=True, min_width=width) for name, width in _SHOWN.items()),
        *(Column(name, overflow="fold") for name in ("HELO", "from", "to", "reply")),
    )
    for one in reversed(page.items):
        table.add_row(*_cells(one))
    console = Console()
    console = console if console.is_terminal else Console(width=180)
    if page.items:
        console.print(table)
    else:
        origin = f" from {plain(sender)}" if sender else ""
        console.print(f"no decision about {plain(address) or 'any mail'}{origin} in that time")
    if page.following:
        console.print("[dim]older decisions are not shown: --limit shows more[/dim]")
    if page.unrecorded:
        console.print(f"[yellow]{page.unrecorded:,} more decisions of that time were only counted (too many at once)")


def _cells(one: Decision) -> tuple[str, ...]:
    times = f" (+{one.unrecorded:,} only counted)" if one.unrecorded else ""
    reply = f"[{_COLOURS[one.verdict]}]{plain(one.reply)}[/]{times}"
    at = f"{one.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    return at, one.stage, plain(one.client), plain(one.helo), plain(one.sender) or "<>", plain(one.recipient), reply
