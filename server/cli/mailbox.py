"""``tempmail admin mailbox``: mailboxes found, looked at, extended, disabled and deleted at the command line.

Lives here: what is typed and shown. Must not know: SQL, or any mail.
"""

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, get_args

import typer
from rich.console import Console
from rich.table import Table

from server.cli.admin import OPERATOR, plain
from server.cli.bans import console, moment, run, seconds
from server.config.settings import Config, ConfigError
from server.model import ids
from server.model.admin import MailboxFacts, MailboxFilter, State
from server.store.abuse import AbuseStore
from server.store.accounts import UserStore
from server.store.admin import AdministrationStore
from server.store.mailboxes import MailboxStore
from server.store.messages import MessageStore
from server.store.partitions import Partitions
from server.store.pools import Pools

mailbox = typer.Typer(
    name="mailbox",
    help="Mailboxes: who made them and whose they are, never their mail. A running server follows within a minute.",
    no_args_is_help=True,
)
err: Final = Console(stderr=True, highlight=False)
_PAGE: Final = 500

Which = Annotated[str, typer.Argument(help="The mailbox's address or id.", metavar="MAILBOX")]


def _now() -> datetime:
    return datetime.now(UTC)


@mailbox.command(name="list")
def listed(
    address: Annotated[str, typer.Option(help="An address, whole or a part; * stands for anything.")] = "",
    owner: Annotated[str, typer.Option(help="The account: its id, email or username.")] = "",
    network: Annotated[str, typer.Option(help="Who made it: 192.0.2.7, 192.0.2.0/24, 2001:db8::/48")] = "",
    state: Annotated[str, typer.Option(help="active or disabled; gone: as long as its maker is known.")] = "",
) -> None:
    """Find mailboxes by address, owner or the network that made them; newest first, 500 at most.

    [bold]tempmail admin mailbox list --network 192.0.2.0/24[/bold]
    """
    if state and state not in get_args(State):
        raise ConfigError(f"--state: {state!r} is none of {', '.join(get_args(State))}")
    try:
        cidr = str(ipaddress.ip_network(network, strict=False)) if network else None
    except ValueError as error:
        raise ConfigError(f"--network: {network!r} is no address or network such as 192.0.2.0/24") from error

    async def work(_: Config, pools: Pools) -> tuple[Any, int]:
        user_id = owner or None
        if owner and not ids.valid(owner):
            found = await UserStore(pools.users).by_name(owner.lower())
            if found is None:
                raise ConfigError(f"--owner: no account has the name {owner}")
            user_id = found[0].id
        wanted = MailboxFilter(address, user_id, cidr, state or None)
        return await AbuseStore(pools.mailboxes).page(wanted, _PAGE, 0)

    shown, total = run(work)
    table = Table("address", "state", "made (UTC)", "ends (UTC)", "made from", "account", "id")
    for one in shown:
        table.add_row(*_cells(one))
    console().print(table)
    if total > len(shown):
        err.print(f"{total - len(shown):,} more are not shown: ask for fewer")


def _cells(one: MailboxFacts) -> tuple[str, ...]:
    times = (moment(one.created_at), moment(one.expires_at) or "never")
    return plain(one.address), one.state, *times, one.client, one.user_id or "", one.id


@mailbox.command()
def show(which: Which) -> None:
    """Show a mailbox's facts: who made it, whose it is, how much is in it."""

    async def work(config: Config, pools: Pools) -> tuple[MailboxFacts, Any]:
        facts = await _found(pools, which)
        return facts, await MessageStore(pools.messages, _now).counts(facts.id)

    facts, counts = run(work)
    table = Table(show_header=False)
    names = ("address", "state", "made (UTC)", "ends (UTC)", "made from", "account", "id")
    for name, value in zip(names, _cells(facts), strict=True):
        table.add_row(name, value)
    table.add_row("messages", f"{counts.total:,}, {counts.unread:,} of them unread")
    table.add_row("last activity (UTC)", moment(counts.last_activity))
    console().print(table)


@mailbox.command()
def disable(which: Which) -> None:
    """Let a mailbox take no more mail (550 5.2.1). Its owner still reads what is there; its address stays taken."""
    _switch(which, False)


@mailbox.command()
def enable(which: Which) -> None:
    """Let a disabled mailbox take mail again."""
    _switch(which, True)


def _switch(which: str, active: bool) -> None:
    async def work(config: Config, pools: Pools) -> MailboxFacts:
        facts = await _found(pools, which, config.administrator)
        await AbuseStore(pools.mailboxes).disable(facts.id, not active)
        states = {"isActive": facts.state == "active"}, {"isActive": active}
        await _note(pools, "mailbox.enable" if active else "mailbox.disable", facts, *states)
        return facts

    facts = run(work)
    err.print(f"[green]{plain(facts.address)} is {'enabled' if active else 'disabled'}[/green]")


@mailbox.command()
def extend(
    which: Which, expires_in: Annotated[str, typer.Option(help="How long from now: 12h, 7d. It never ends sooner.")]
) -> None:
    """Let a mailbox live longer, its mail with it."""
    life = timedelta(seconds=seconds(expires_in))

    async def work(config: Config, pools: Pools) -> MailboxFacts:
        facts = await _found(pools, which)
        end = _now() + life
        if facts.expires_at is not None and end > facts.expires_at:
            await Partitions(pools.messages, config.partition_interval).ensure([(end, _now())])
            await MessageStore(pools.messages, _now).move(facts.id, end)
            await MailboxStore(pools.mailboxes).extend(facts.id, end)
            await _note(pools, "mailbox.extend", facts, {"expiresAt": facts.expires_at}, {"expiresAt": end})
        return await _found(pools, which)

    facts = run(work)
    err.print(f"[green]{plain(facts.address)} ends {moment(facts.expires_at) or 'never'}[/green]")


@mailbox.command()
def delete(which: Which, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete a mailbox and its mail. Its address is free then: `tempmail admin ban add localPart NAME --reason WHY`
    keeps it."""
    if not yes:
        typer.confirm(f"Delete {which} and all its mail?", abort=True, err=True)

    async def work(config: Config, pools: Pools) -> MailboxFacts:
        facts = await _found(pools, which, config.administrator)
        await MailboxStore(pools.mailboxes).delete(facts.id)
        await MessageStore(pools.messages, _now).end({facts.id: facts.address}, "deleted")
        await _note(pools, "mailbox.delete", facts, {"address": facts.address, "userId": facts.user_id}, None)
        return facts

    facts = run(work)
    err.print(f"[green]{plain(facts.address)} is deleted[/green]")


async def _found(pools: Pools, which: str, protected: str = "") -> MailboxFacts:
    """The living mailbox with this address or id. ConfigError, for ``protected`` too."""
    store = AbuseStore(pools.mailboxes)
    if ids.valid(which):
        facts = await store.one(which)
    else:
        local, _, domain = which.strip().lower().rpartition("@")
        known = await MailboxStore(pools.mailboxes).any_by_address(local, domain)
        facts = await store.one(known) if known else None
    if facts is None:
        raise ConfigError(f"no mailbox has the address or id {which}; `tempmail admin mailbox list` finds them")
    if facts.address == protected:
        raise ConfigError(f"{which} is the way to the administrators: postmaster@ and abuse@")
    return facts


async def _note(pools: Pools, action: str, facts: MailboxFacts, before: Any, after: Any) -> None:
    await AdministrationStore(pools).record(OPERATOR, action, facts.id, before, after, _now())
