"""What an operator does to accounts from the command line: the first administrator is made here and nowhere else.

Lives here: ``tempmail admin create | promote | reset-password``, which work on the database alone, running server or
not. Must not know: HTTP. A running server notices within a minute.
"""

import asyncio
import secrets
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from server import clock
from server.config import settings as configuration
from server.config.settings import Config, ConfigError
from server.model.account import ROLES, Role, User
from server.model.admin import Actor
from server.model.errors import Refused
from server.model.trace import printable
from server.services.accounts import accounts, passwords
from server.store.accounts import UserStore
from server.store.admin import AdministrationStore
from server.store.embedded import running_dsn
from server.store.migrate import pending, require
from server.store.pools import Pools

app = typer.Typer(
    name="admin", help="Accounts of administrators, and what they do against abuse.", no_args_is_help=True
)
err: Final = Console(stderr=True, highlight=False)

Work = Callable[[UserStore], Awaitable[User]]
OPERATOR: Final = Actor(None, "command line", "super", "")

Email = Annotated[str, typer.Argument(help="The account's email address.")]
Generate = Annotated[bool, typer.Option("--generate", help="Make the password up and print it.")]
_ROLE_OPTION: Final = typer.Option(
    help="admin, super (may also change roles, domains and settings) or user (an ordinary account, no administrator)."
)


def database(config: Config) -> Config:
    """The configuration with the DSN of the running embedded server filled in where none is set. ConfigError."""
    if not config.embedded:
        return config
    dsn = running_dsn(config.data_dir)
    if dsn is None:
        raise ConfigError(
            f"no database: set {configuration.PREFIX}DATABASE_DSN, or start `tempmail serve` (data: {config.data_dir})"
        )
    return msgspec.structs.replace(config, database_dsn=dsn)


def plain(text: str) -> str:
    """What others wrote, as a console may show it: no markup and nothing that a terminal obeys."""
    return escape(printable(text))


@app.command()
def create(
    email: Email,
    username: Annotated[str | None, typer.Option(help="A name to log in with beside the address.")] = None,
    role: Annotated[str, _ROLE_OPTION] = "super",
    generate: Generate = False,
) -> None:
    """Make an account, by default a super user's; the password is asked for, or read from standard input."""
    wanted = _role(role)

    async def work(store: UserStore) -> User:
        try:
            await store.insert(user, password_hash)
        except Refused as refused:
            if refused.word != "user_exists":
                raise
            taken = f"{refused.field}: an account has it; `tempmail admin promote` makes it an administrator"
            raise ConfigError(taken) from refused
        return user

    with explained():
        user = msgspec.structs.replace(accounts.new_user(email, username, clock.now()), role=wanted)
        password = _password(generate)
        password_hash = passwords.hashed(password)
        _run("account.create", {"role": wanted}, work)
    _show(password, generate)
    ordinary = ", an ordinary account: it administers nothing" if wanted == "user" else ""
    err.print(f"[green]{user.role} {plain(user.email)} is made{ordinary}[/green]")


@app.command()
def promote(email: Email, role: Annotated[str, _ROLE_OPTION] = "admin") -> None:
    """Give an existing account a role (user, admin or super), and let it in again where it was shut out."""
    wanted = _role(role)

    async def work(store: UserStore) -> User:
        user = await _found(store, email)
        await store.set_role(user.id, wanted, clock.now())
        return user

    with explained():
        user = _run("account.promote", {"role": wanted}, work)
    err.print(f"[green]{plain(user.email)} is {wanted}[/green]")


@app.command()
def reset_password(email: Email, generate: Generate = False) -> None:
    """Give an account a new password; every login of it ends."""

    async def work(store: UserStore) -> User:
        user = await _found(store, email)
        await store.set_password(user.id, password_hash, clock.now())
        return user

    with explained():
        password = _password(generate)
        password_hash = passwords.hashed(password)
        user = _run("account.reset-password", None, work)
    _show(password, generate)
    err.print(f"[green]{plain(user.email)} has a new password[/green]")


def _role(text: str) -> Role:
    for role in ROLES:
        if role == text:
            return role
    raise typer.BadParameter(f"{text} is not one of {', '.join(ROLES)}", param_hint="--role")


def _show(password: str, generated: bool) -> None:
    """A made-up password, once it is in force: alone on standard output, for scripts."""
    if generated:
        print(password)


def _password(generate: bool) -> str:
    """Made up, typed twice at a terminal, or the first line of standard input."""
    if generate:
        password = secrets.token_urlsafe(18)
    elif sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    passwords.check_length(password, configuration.load().password_min_length)
    return password


@contextmanager
def explained() -> Iterator[None]:
    """What is refused becomes ConfigError: an operator can mend it."""
    try:
        yield
    except Refused as refused:
        raise ConfigError(": ".join(filter(None, (refused.word, refused.field, refused.detail)))) from refused


async def _found(store: UserStore, email: str) -> User:
    found = await store.by_name(email.strip().lower())
    if found is None:
        raise Refused("user_not_found", f"no account has the name {email}")
    return found[0]


def _run(action: str, after: Mapping[str, str] | None, work: Work) -> User:
    """``work`` on the database, and its entry in the audit trail."""
    config = msgspec.structs.replace(database(configuration.load()), workers=1)
    return asyncio.run(_noted(config, action, after, work))


async def _noted(config: Config, action: str, after: Mapping[str, str] | None, work: Work) -> User:
    pools = await Pools.open(config)
    try:
        async with pools.users.connection() as connection:
            require(await pending(connection, ["users"]))
        user = await work(UserStore(pools.users))
        await AdministrationStore(pools).record(OPERATOR, action, user.id, None, after, clock.now())
        return user
    finally:
        await pools.close()
