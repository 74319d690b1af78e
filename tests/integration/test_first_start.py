"""A database that cannot be worked with is said once, with the setting and what to do, before anything is started."""

import subprocess
import sys
from pathlib import Path

import pytest

from server.store import migrate
from server.store.pools import SCHEMAS
from tests.integration.conftest import in_database
from tests.ports import free_ports

ROOT = Path(__file__).parents[2]


def ran(dsn: str, *command: str) -> tuple[int, str]:
    """Exit status of a command and all that it said."""
    settings = {"DATABASE_DSN": dsn, "SERVER_PORT": "0", "SMTP_BIND_ADDR": "127.0.0.1:0", "SERVER_HOST": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-m", "server", *command],
        env={"PATH": "/usr/bin:/bin"} | {f"TEMPMAIL_{name}": value for name, value in settings.items()},
        cwd=ROOT,
        input="correct horse battery\n",
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("command", ["serve", "partitions", "admin create a@example.org"])
async def test_a_schema_that_is_not_made_is_one_line_that_says_how_to_make_it(empty: str, command: str) -> None:
    status, said = ran(empty, *command.split())
    assert (status, said.count("\n"), "Traceback" in said) == (2, 1, False), said
    assert said.startswith("tempmail: the database lacks ")
    assert said.endswith("run `tempmail migrate`\n")


async def test_a_database_that_is_not_there_is_named_with_its_setting_and_not_waited_for(empty: str) -> None:
    status, said = ran(in_database(empty, "nowhere"), "serve")
    assert (status, said.count("\n")) == (2, 1), said
    assert "TEMPMAIL_DATABASE_DSN" in said
    assert 'database "nowhere" does not exist' in said


async def test_a_server_that_does_not_answer_is_asked_again_and_then_named(empty: str) -> None:
    said: list[str] = []
    silent = f"postgresql://u:p@127.0.0.1:{free_ports(1)[0]}/x"
    with pytest.raises(migrate.MigrationError, match="TEMPMAIL_DATABASE_MAILBOXES_DSN"):
        await migrate.migrate({"users": empty, "mailboxes": silent, "messages": empty})
    with pytest.raises(migrate.MigrationError, match="TEMPMAIL_DATABASE_USERS_DSN"):
        await migrate.check(dict.fromkeys(SCHEMAS, silent), 0.5, said.append)
    assert len(said) == 1
    assert "trying again" in said[0]
