"""docs/runbook.md's backup and restore, its very lines: what was there is there again, counted and readable."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import asyncpg

from tests.debian_postgres import Cluster
from tests.running import ROOT, Server

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()


def block(name: str) -> str:
    """The shell block of the runbook that begins with ``# name``."""
    found = re.search(rf"```sh\n# {name}\n(.*?)```", RUNBOOK, re.DOTALL)
    assert found, name
    return found[1]


def run(script: str, folder: Path, dsn: str) -> None:
    (folder / "tempmail").unlink(missing_ok=True)
    (folder / "tempmail").write_text(f'#!/bin/sh\ncd "{ROOT}" && exec "{sys.executable}" -m server "$@"\n')
    (folder / "tempmail").chmod(0o755)
    environment = os.environ | {"TEMPMAIL_DATABASE_DSN": dsn, "PATH": f"{Cluster.programs()}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-eu", "-c", script], cwd=folder, env=environment, check=True, timeout=120)


async def counted(dsn: str) -> dict[str, int]:
    """Rows of every table that is not empty; partitions are counted through their parents."""
    connection = await asyncpg.connect(dsn)
    try:
        tables = await connection.fetch(
            "SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname IN ('users', 'mailboxes', 'messages') AND c.relkind IN ('r', 'p')"
            " AND NOT c.relispartition"
        )
        counts = {row["name"]: await connection.fetchval(f"SELECT count(*) FROM {row['name']}") for row in tables}
    finally:
        await connection.close()
    return {name: count for name, count in counts.items() if count}


def test_what_was_dumped_is_restored(tmp_path: Path) -> None:
    with Cluster("backup") as cluster:
        cluster.user("tempmail")
        before, after = [cluster.database(name, "tempmail") for name in ("before", "after")]
        cluster.extend("before", "pg_stat_statements")  # as docs/install.md does: it is not the user's to restore
        run("./tempmail migrate", tmp_path, before)
        server = Server(tmp_path, DATABASE_DSN=before).start()
        try:
            box = asyncio.run(server.mailbox(expiresIn="12h"))
            for n in range(20):
                server.send(box, subject=f"mail {n}", text="Your code is 482193\n")
        finally:
            server.stop()
        run(block("backup"), tmp_path, before)
        run(block("restore"), tmp_path, after)
        assert asyncio.run(counted(after)) == asyncio.run(counted(before))
        server = Server(tmp_path, DATABASE_DSN=after).start()
        try:
            subjects = {message["subject"] for message in asyncio.run(server.messages(box))}
            server.send(box, subject="after the restore")
            assert len(asyncio.run(server.messages(box))) == 21
        finally:
            server.stop()
        assert subjects == {f"mail {n}" for n in range(20)}
