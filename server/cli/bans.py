"""``tempmail admin list`` and ``tempmail admin ban``: against abuse, at the command line.

Lives here: what is typed and shown. Must not know: how a ban is kept, or what it does.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Final, TypeVar, get_args

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from server.cli.admin import OPERATOR, database, explained, plain
from server.config import settings as configuration
from server.config.parsing import duration
from server.config.settings import Config, ConfigError
from server.model import ids
from server.model.account import User
from server.model.admin import UserFilter
from server.model.ban import Ban, Kind, canonical
from server.store.admin import AdministrationStore
from server.store.bans import BanStore
from server.store.migrate import pending, require
from server.store.pools import Pools

ban = typer.Typer(
    name="ban",
    help="Networks, senders, senders' domains and names of mailboxes that are not let in.",
    no_args_is_help=True,
)
err: Final = Console(stderr=True, highlight=False)
_PAGE: Final = 1000
T = TypeVar("T")

_KIND: Final = typer.Argument(help="network, sender, senderDomain or localPart", metavar="KIND")
_VALUE: Final = typer.Argument(help="192.0.2.0/24, spam@example.org, example.org (and below), or paypal*")


def run(work: Callable[[Config, Pools], Awaitable[T]]) -> T:
    """``work`` on a migrated database; what is refused becomes ConfigError."""
    config = msgspec.structs.replace(database(configuration.load()), workers=1)

    async def whole() -> T:
        pools = await Pools.open(config)
        try:
            async with pools.users.connection() as connection:
                require(await pending(connection, ["users"]))
            return await work(config, pools)
        finally:
            await pools.close()

    with explained():
        return asyncio.run(whole())


def console() -> Console:
    """Standard output, wide enough for a table where nobody looks at it directly."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(width=180, highlight=False)


def moment(at: datetime | None) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if at else ""


def listed() -> None:
    """List the accounts that administer: their role, whether they may log in, and when they last did."""

    async def work(_: Config, pools: Pools) -> list[User]:
        store = AdministrationStore(pools)
        return [one for role in ("super", "admin") for one in (await store.users(UserFilter(role=role), _PAGE, 0))[0]]

    table = Table("email", "username", "role", "active", "last login (UTC)", "id")
    for one in run(work):
        active = "yes" if one.is_active else "no"
        table.add_row(plain(one.email), plain(one.username or ""), one.role, active, moment(one.last_login_at), one.id)
    console().print(table)


@ban.command()
def add(
    kind: Annotated[str, _KIND],
    value: Annotated[str, _VALUE],
    reason: Annotated[str, typer.Option(help="Why, for those who come after you.")],
    expires_in: Annotated[str, typer.Option(help="When it ends by itself: 12h, 30d. Without: never.")] = "",
) -> None:
    """Ban a network, a sender, a sender's domain or a name.

    [bold]tempmail admin ban add network 192.0.2.0/24 --reason "dictionary attack" --expires-in 7d[/bold]

    [bold]tempmail admin ban add localPart "paypal*" --reason phishing[/bold]

    network: its mail is refused at RCPT (550 5.7.1), and it makes no mailbox and no account; logged-in administrators
    are never shut out. sender, senderDomain: mail from them is refused at RCPT. localPart: no new mailbox or alias gets
    the name, however it is spelt (PayPal, pay.pal, paypa1). postmaster@ and abuse@ stay open to all.

    Running servers follow within ten seconds; the API (POST /v1/admin/bans) acts at once.
    """
    wanted = _kind(kind)
    if not 0 < len(reason.strip()) <= 500 or not reason.strip().isprintable():
        raise ConfigError("--reason: why, in 1 to 500 characters of one line")

    async def work(_: Config, pools: Pools) -> Ban:
        life = seconds(expires_in) if expires_in else None
        now = datetime.now(UTC)
        return await BanStore(pools.users).add(OPERATOR, wanted, canonical(wanted, value), reason.strip(), life, now)

    made = run(work)
    end = f" until {moment(made.expires_at)} UTC" if made.expires_at else ""
    err.print(f"[green]{made.kind} {plain(made.value)} is banned{end}[/green] ({made.id})")


@ban.command(name="list")
def list_bans(kind: Annotated[str, typer.Option(help="Only network, sender, senderDomain or localPart.")] = "") -> None:
    """List the bans in force, newest first."""
    wanted = _kind(kind) if kind else None

    async def work(_: Config, pools: Pools) -> tuple[list[Ban], int]:
        return await BanStore(pools.users).page(wanted, _PAGE, 0)

    found, total = run(work)
    table = Table("kind", "value", "reason", "by", "since (UTC)", "until (UTC)", "id")
    for one in found:
        times = (moment(one.created_at), moment(one.expires_at))
        table.add_row(one.kind, plain(one.value), plain(one.reason), plain(one.created_by), *times, one.id)
    console().print(table)
    if total > len(found):
        err.print(f"{total - len(found):,} more are not shown: GET /v1/admin/bans?page=2")


@ban.command()
def remove(
    kind: Annotated[str, typer.Argument(help="network, sender, senderDomain or localPart; or the ban's id")],
    value: Annotated[str, typer.Argument(help="What is banned, as it is listed.")] = "",
) -> None:
    """Take a ban back, by its kind and value or by its id.

    [bold]tempmail admin ban remove network 192.0.2.0/24[/bold]
    """

    async def work(_: Config, pools: Pools) -> None:
        store = BanStore(pools.users)
        found = kind if ids.valid(kind) else await store.find(_kind(kind), canonical(_kind(kind), value))
        if found is None:
            raise ConfigError(f"{kind} {value} is not banned; `tempmail admin ban list` shows what is")
        await store.remove(OPERATOR, found, datetime.now(UTC))

    run(work)
    err.print("[green]the ban is taken back[/green]")


def _kind(text: str) -> Kind:
    for kind in get_args(Kind):
        if kind.lower() == text.lower():
            return kind  # type: ignore[no-any-return]
    raise ConfigError(f"{text!r} is none of {', '.join(get_args(Kind))}")


def seconds(text: str) -> float:
    try:
        seconds = duration(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 100 * 365 * 86400:
        raise ConfigError(f"--expires-in: {text!r} is no duration such as 12h or 30d")
    return seconds
