"""A primary that is lost, and its replica promoted: a DSN that names both servers needs no restart, and no mail that
was acknowledged is missing afterwards.
"""

import asyncio
import smtplib
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import asyncpg
import psutil
import pytest

from server.primary import connect
from server.store import migrate
from server.store.embedded import EmbeddedPostgres
from server.store.pools import SCHEMAS
from tests.running import Box, Server
from tests.standby import Standby, as_superuser

OwnServer = Callable[..., Server]


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    cluster = EmbeddedPostgres(tmp_path / "primary", max_connections=100)
    cluster.start()
    asyncio.run(migrate.migrate(dict.fromkeys(SCHEMAS, cluster.dsn)))
    yield cluster
    cluster.stop()


@pytest.fixture
def standby(primary: EmbeddedPostgres, tmp_path: Path) -> Iterator[Standby]:
    folder = tmp_path / "standby"
    folder.mkdir()
    replica = Standby(primary, folder).start()
    yield replica
    replica.remove()


def folder_of(dsn: str) -> str:
    return parse_qs(urlsplit(dsn).query)["host"][0]


def both(primary: EmbeddedPostgres, standby: Standby, form: str) -> str:
    hosts = f"{folder_of(primary.dsn)},{folder_of(standby.dsn)}"
    if form == "keywords":
        return f"host={hosts} port=5432,5432 user=tempmail dbname=tempmail target_session_attrs=read-write"
    return f"postgresql:///tempmail?host={hosts}&port=5432,5432&user=tempmail&target_session_attrs=read-write"


async def synchronous(primary: EmbeddedPostgres) -> None:
    """No commit is acknowledged before the replica has it."""
    admin = await asyncpg.connect(as_superuser(primary.dsn))
    try:
        await admin.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await admin.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(120):
            while await admin.fetchval("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") != 1:
                await asyncio.sleep(0.05)
    finally:
        await admin.close()


def ended(primary: EmbeddedPostgres) -> None:
    """With -9, as a machine that loses its power."""
    postmaster = psutil.Process(int((primary._cluster / "postmaster.pid").read_text().splitlines()[0]))
    for process in (postmaster, *postmaster.children(recursive=True)):
        process.kill()


class Sender:
    """Sends all the time; remembers what was answered 250."""

    def __init__(self, server: Server, box: Box) -> None:
        self._server, self._box = server, box
        self.stored: list[str] = []
        self.refused: list[int] = []
        self.over = asyncio.Event()

    async def run(self) -> None:
        turn = 0
        while not self.over.is_set():
            subject = f"mail {turn}"
            try:
                await self._server.deliver(self._box, subject=subject)
                self.stored.append(subject)
            except smtplib.SMTPResponseException as error:
                self.refused.append(error.smtp_code)
            turn += 1

    async def more(self, count: int) -> None:
        wanted = len(self.stored) + count
        async with asyncio.timeout(120):
            while len(self.stored) < wanted:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("form", ["url", "keywords"])
async def test_promotion_loses_no_acknowledged_mail_and_needs_no_restart(
    own_server: OwnServer, primary: EmbeddedPostgres, standby: Standby, form: str
) -> None:
    await synchronous(primary)
    dsn = both(primary, standby, form)
    # the messages by a DSN of their own: each schema's may name several servers
    own = {"DATABASE_DSN": dsn, "DATABASE_MESSAGES_DSN": f"{dsn}{'&' if form == 'url' else ' '}application_name=mail"}
    server = own_server(**own, SERVER_HOST="127.0.0.1", MAILBOX_MAX_MESSAGES="0", RATE_LIMIT_EXEMPT="127.0.0.0/8")
    async with asyncio.timeout(60):  # the addresses are printed after the node is ready
        while f"PostgreSQL at {folder_of(primary.dsn)}:5432, {folder_of(standby.dsn)}:5432" not in server.log:
            await asyncio.sleep(0.05)
    box = await server.mailbox()
    sender = Sender(server, box)
    async with asyncio.TaskGroup() as group:
        group.create_task(sender.run())
        await sender.more(20)
        ended(primary)
        while await standby.ask("SELECT pg_is_in_recovery()"):
            await standby.ask("SELECT pg_promote()")
        await sender.more(20)
        sender.over.set()
    assert set(sender.refused) <= {451}
    subjects = {str(item["subject"]) for item in await server.messages(box)}
    assert set(sender.stored) - subjects == set()
    async with aiohttp.ClientSession() as client, asyncio.timeout(120):
        while True:
            async with client.get(f"{server.http}/health/ready") as response:
                if response.status == 200:
                    break
            await asyncio.sleep(0.2)
    assert server.stop() == 0


async def test_host_that_never_answers_keeps_nobody_from_the_next(primary: EmbeddedPostgres, standby: Standby) -> None:
    """As one that is switched off: its network drops what it is sent."""

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)
        writer.close()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    hosts = f"127.0.0.1,{folder_of(standby.dsn)},{folder_of(primary.dsn)}"
    dsn = f"postgresql:///tempmail?host={hosts}&port={port},5432,5432&user=tempmail"
    for _ in range(2):  # found, then known
        connection = await connect(dsn, timeout=60)
        assert await connection.fetchval("SELECT pg_is_in_recovery()") is False
        await connection.close()
    listening.close()


async def test_server_that_turns_read_only_is_left_for_the_one_that_takes_mail(
    own_server: OwnServer, primary: EmbeddedPostgres, standby: Standby
) -> None:
    """As managed PostgreSQL switches over: connections to the old primary stay open."""
    server = own_server(
        DATABASE_DSN=both(primary, standby, "url"), SERVER_HOST="127.0.0.1", RATE_LIMIT_EXEMPT="127.0.0.0/8"
    )
    box = await server.mailbox()
    await server.deliver(box, subject="before")
    admin = await asyncpg.connect(as_superuser(primary.dsn))
    try:
        await admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await admin.execute("SELECT pg_reload_conf()")
        await standby.ask("SELECT pg_promote()")
        sender = Sender(server, box)
        async with asyncio.TaskGroup() as group:
            group.create_task(sender.run())
            await sender.more(5)
            sender.over.set()
        assert set(sender.refused) <= {451}
        subjects = {str(item["subject"]) for item in await server.messages(box)}
        assert set(sender.stored) - subjects == set()
    finally:
        await admin.close()
    assert server.stop() == 0
