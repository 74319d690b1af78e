"""The command line: serve, migrate, partitions, check-config, admin, trace.

Lives here: what an operator types and reads. Must not know: how anything below it works.
"""

import asyncio
import errno
import inspect
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from server import clock, log, standard
from server.cli import admin, bans, mailbox
from server.cli.admin import database
from server.cli.check_config import check_config
from server.cli.plan import plan
from server.cli.trace import trace
from server.config import settings as configuration
from server.config.dsn import place
from server.config.parsing import Address, is_loopback, size_text
from server.config.settings import Config, ConfigError
from server.metrics import Board
from server.model.errors import Unavailable
from server.services.accounts import tokens
from server.shards import worker
from server.shards.sockets import SlotSockets
from server.smtp import certificate
from server.store import migrate as migrations
from server.store.embedded import EmbeddedError, EmbeddedPostgres
from server.store.partitions import Partitions, attached
from server.store.pools import SCHEMAS, Pools, Schema
from server.supervisor import SPARE_COLUMNS, Supervisor
from server.version import VERSION

app = typer.Typer(
    name="tempmail",
    help="A disposable-mail server: receive-only SMTP in; JSON API and WebSocket out; stored in PostgreSQL before 250.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
admin.app.command("list")(bans.listed)
admin.app.add_typer(bans.ban)
admin.app.add_typer(mailbox.mailbox)
app.add_typer(admin.app)
app.command()(plan)
app.command()(check_config)
app.command()(trace)
err: Final = Console(stderr=True, highlight=False, emoji=False)
_PATIENCE: Final = 30.0  # s that a database may take to start


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"tempmail {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run a command; what an operator can mend is one line on stderr and exit status 2."""
    try:
        try:
            app(prog_name="tempmail")
        finally:
            sys.stdout.flush()
    except (ConfigError, EmbeddedError, migrations.MigrationError, Unavailable) as error:
        hint = f" ({configuration.PREFIX}DATABASE_DSN names it)" if isinstance(error, Unavailable) else ""
        err.print(f"[red]tempmail:[/red] {escape(str(error))}{hint}", soft_wrap=True)
        raise SystemExit(2) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EPIPE, errno.EIO):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or what is left to be written fails once more as we end
        err.print(f"[red]tempmail:[/red] standard output: {error.strerror}", soft_wrap=True)
        raise SystemExit(2) from None


@app.command()
def serve(
    workers: Annotated[int, typer.Option(help="Worker processes; 0 is one for each core.", min=0, max=64)] = 0,
    roles: Annotated[
        str, typer.Option(help="What this node does, instead of TEMPMAIL_ROLES: smtp,web for example")
    ] = "",
) -> None:
    """Start the server and stay in the foreground until Ctrl-C.

    With TEMPMAIL_DATABASE_DSN set it uses that PostgreSQL (15 or newer; run [bold]tempmail migrate[/bold] first).
    Without it, it starts one of its own under TEMPMAIL_DATA_DIR and migrates it: nothing needs to be installed.

    A node does everything, or what [bold]--roles[/bold] names, on one database with others: [bold]smtp[/bold] takes
    mail, [bold]web[/bold] answers requests, [bold]push[/bold] holds WebSockets, event streams and waits,
    [bold]webhooks[/bold] delivers to webhooks, [bold]sweeper[/bold] ends mailboxes and drops partitions (some node
    must), [bold]ingest[/bold] stores what SMTP nodes queued (TEMPMAIL_INGEST_MODE=queue). Each answers /health and
    /metrics.
    """
    standard.quiet()
    given = {"WORKERS": str(workers) if workers else "", "ROLES": roles}
    config = configuration.load(overrides={name: value for name, value in given.items() if value})
    log.configure(config.log_level)
    if config.smtp_tls_key:
        certificate.context(config)  # one that cannot be used is said here, before anything is started
    board = Board(config.workers + SPARE_COLUMNS)
    host = secrets.token_bytes(8)
    postgres = _embedded(config) if config.embedded else None
    ready = config  # with the embedded server's DSN, once that is known
    supervisor = Supervisor(  # takes the addresses first: nothing is started for a server that cannot listen
        config,
        lambda context: worker.run(ready, board, host, context),
        companions=[postgres] if postgres else [],
        on_ready=lambda sockets: _welcome(config, sockets),
        on_reap=board.bury,
    )
    with ExitStack() as stack:
        if postgres:
            stack.callback(_stop_embedded, postgres)
            ready = _start_embedded(config, postgres)
        else:
            _aside("check-database", dict(configuration.environment()))
        ready = msgspec.structs.replace(ready, jwt_secret=tokens.secret(ready))  # before the fork: one for all workers
        status = supervisor.run()
    raise SystemExit(status)


def _embedded(config: Config) -> EmbeddedPostgres:
    return EmbeddedPostgres(config.data_dir, max_connections=config.database_max_open + 2 * config.workers + 10)


def _start_embedded(config: Config, postgres: EmbeddedPostgres) -> Config:
    err.print(f"[dim]starting PostgreSQL in {config.data_dir.absolute()} ...[/dim]", soft_wrap=True)
    postgres.start()
    config = msgspec.structs.replace(config, database_dsn=postgres.dsn)
    environment = configuration.environment() | {configuration.PREFIX + "DATABASE_DSN": config.database_dsn}
    _aside("migrate", environment)
    return config


def _aside(command: str, environment: Mapping[str, str]) -> None:
    """A command in a process of its own: the supervisor holds no loop and no connection when it forks. It has said what
    is wrong before its failure ends ours."""
    try:
        status = subprocess.run([sys.executable, "-m", "server", command], env=environment, timeout=120).returncode
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"`tempmail {command}` was not done in two minutes: is the database locked?") from error
    if status:
        raise SystemExit(status if status > 0 else 1)


def _stop_embedded(postgres: EmbeddedPostgres) -> None:
    err.print("[dim]stopping PostgreSQL ...[/dim]")
    postgres.stop()


def _welcome(config: Config, sockets: SlotSockets) -> None:
    http = _shown(sockets.http.getsockname())
    err.print(f"\n[bold green]tempmail is ready[/bold green] ({config.workers} workers). Ctrl-C stops it.")
    if config.dev:
        _warn_of_dev(config)
    err.print(f"  HTTP  http://{http}" if not http.startswith("unix:") else f"  HTTP  {http}", soft_wrap=True)
    if sockets.smtp:
        smtp = _shown(sockets.smtp.getsockname())
        err.print(f"  SMTP  {smtp}   for {', '.join(config.domains)}", soft_wrap=True)
    if sockets.lmtp:
        err.print(f"  LMTP  {_shown(sockets.lmtp.getsockname())}", soft_wrap=True)
    if not config.embedded:
        servers = dict.fromkeys(place(config.dsn(domain)) for domain in SCHEMAS)
        err.print(f"  Data  PostgreSQL at {'; '.join(servers)}", soft_wrap=True)
    if config.roles != configuration.everything(config.ingest_mode):
        err.print(f"  Roles {', '.join(config.roles)}", soft_wrap=True)
    if "web" not in config.roles:
        return
    target = f"http://{http}" if not http.startswith("unix:") else f"--unix-socket {http[5:]} http://localhost"
    if not http.startswith("unix:"):
        err.print(f"  Docs  {target}/docs", soft_wrap=True)
    err.print("Make the first mailbox:")
    err.print(f"  [bold]curl -X POST {target}/v1/mailboxes[/bold]\n", soft_wrap=True)


def _warn_of_dev(config: Config) -> None:
    err.print("  [bold yellow]MODE  dev: no limits, no quotas, mailboxes under any domain[/bold yellow]")
    bound = {"SERVER_HOST": config.http, "SMTP_BIND_ADDR": config.smtp}
    exposed = [name for name, where in bound.items() if not where.path and not is_loopback(where.host)]
    log.event("warning", "MODE=dev: no limits, no quotas, mailboxes under any domain")  # a journal has no banner
    if exposed:
        names = " and ".join(exposed)
        log.event("warning", "MODE=dev is not on loopback alone", settings=names)
        err.print(
            f"  [bold red]{names} not on loopback: whoever reaches this host may use it without limit.[/bold red]",
            soft_wrap=True,
        )


def _shown(name: object) -> str:
    """A socket's name as one types it, safe to print: rich would take ``[fe80::1]`` for markup."""
    if isinstance(name, tuple):
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(name[0]), str(name[0]))
        return escape(str(Address(host=host, port=int(name[1]))))
    return escape(f"unix:{name}")


@app.command()
def migrate(
    pre: Annotated[bool, typer.Option("--pre", help="Only what the running release can live with (before it)")] = False,
) -> None:
    """Bring the database's schema to this release; does nothing when it is there already.

    An upgrade without downtime: [bold]migrate --pre[/bold], restart every node, [bold]migrate[/bold].
    """
    config = database(configuration.load())
    dsns: dict[Schema, str] = {domain: config.dsn(domain) for domain in SCHEMAS}
    phases = ("pre",) if pre else ("pre", "post")
    done = asyncio.run(migrations.migrate(dsns, phases, lambda why: err.print(f"[dim]{escape(why)}[/dim]")))
    for migration in done:
        err.print(f"applied {migration.domain}/{migration.name}")
    if not done:
        err.print("[dim]schema is up to date[/dim]")


@app.command(hidden=True)
def check_database() -> None:
    """Whether [bold]serve[/bold] can work with the databases; waits for one that is just starting."""
    config = database(configuration.load())
    dsns: dict[Schema, str] = {domain: config.dsn(domain) for domain in SCHEMAS}
    asyncio.run(migrations.check(dsns, _PATIENCE, lambda why: err.print(f"[dim]{escape(why)}[/dim]", soft_wrap=True)))


@app.command()
def partitions(
    drop: Annotated[bool, typer.Option("--drop", help="Also make those ahead and drop those that are over")] = False,
) -> None:
    """List the partitions of mail: their range, and the space their messages and bodies take on disk.

    The server makes and drops them by itself; [bold]--drop[/bold] does one round of that by hand.
    """
    asyncio.run(_partitions(msgspec.structs.replace(database(configuration.load()), workers=1), drop))


async def _partitions(config: Config, drop: bool) -> None:
    pools = await Pools.open(config)
    try:
        async with pools.messages.connection() as connection:
            migrations.require(await migrations.pending(connection, ["messages"]))
        keeper = Partitions(pools.messages, config.partition_interval)
        if drop:
            now = clock.now()
            await keeper.ahead(now, config.mailbox_max_ttl)
            for name in await keeper.drop_expired(now):
                err.print(f"dropped {name}")
        async with pools.messages.connection() as connection:
            ranges = sorted(await attached(connection))
            sizes = await connection.fetch(_SIZES)
    finally:
        await pools.close()
    size = {row["relname"]: row["size"] for row in sizes}
    table = Table("from", "to", "messages", "bodies", title="mail by the moment it may vanish (UTC)")
    for r in ranges:
        kind = " (kept for ever, by receipt)" if r.forever else ""
        table.add_row(
            f"{r.start:%Y-%m-%d %H:%M}{kind}",
            f"{r.end:%Y-%m-%d %H:%M}",
            size_text(size.get(f"messages_{r.suffix}", 0)),
            size_text(size.get(f"bodies_{r.suffix}", 0)),
        )
    Console().print(table)


_SIZES: Final = (
    "SELECT c.relname, pg_catalog.pg_total_relation_size(c.oid) AS size FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'messages' AND c.relkind = 'r'"
)


def _unbroken(commands: typer.Typer) -> None:
    """Let each paragraph of help be as wide as the terminal: typer keeps the source's lines in all but the first."""
    for command in commands.registered_commands:
        paragraphs = (inspect.getdoc(command.callback) or "").split("\n\n")
        command.help = "\n\n".join(one.replace("\n", " ") for one in paragraphs)
    for group in commands.registered_groups:
        if group.typer_instance:
            _unbroken(group.typer_instance)


_unbroken(app)  # once every command is there
