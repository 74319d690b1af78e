"""A streaming replica of a PostgreSQL that the tests run, from the same wheel: made with pg_basebackup, killed and
revived at will.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psutil

from server.store.embedded import EmbeddedPostgres, _tied_to_parent, _wheel

SUPERUSER = "postgres"


def as_superuser(dsn: str) -> str:
    return dsn.replace("user=tempmail", f"user={SUPERUSER}")


class Standby:
    """``settings``: of the server, such as ``recovery_min_apply_delay``."""

    def __init__(self, primary: EmbeddedPostgres, folder: Path, **settings: str) -> None:
        self._data, self._sockets = folder / "standby", f"{_sockets(primary)}-standby"
        self._settings = {"max_connections": "200", "max_locks_per_transaction": "256"} | settings  # no less than there
        self._account = primary._cluster.stat()
        self._bin = primary._bin
        os.mkdir(self._sockets, 0o700)
        host = _sockets(primary)
        backup = _wheel() / "pginstall18" / "bin" / "pg_basebackup"
        command = [str(backup), "-h", host, "-p", "5432", "-U", SUPERUSER, "-D", str(self._data), "-R", "-c", "fast"]
        subprocess.run(command, check=True, timeout=60, env={"LC_ALL": "C"})
        for path in (Path(self._sockets), self._data, *self._data.rglob("*")):
            os.chown(path, self._account.st_uid, self._account.st_gid)
        self.dsn = primary.dsn.replace(host, self._sockets)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Standby":
        """Returns when it takes connections; the kernel ends it with the thread that called this."""
        self._spawn()
        deadline = time.monotonic() + 60
        while not self._ready():
            assert time.monotonic() < deadline, self._data.with_suffix(".log").read_text()[-2000:]
            time.sleep(0.02)
        return self

    async def revive(self) -> None:
        """The same, the test's loop going on meanwhile."""
        self._spawn()
        async with asyncio.timeout(30):
            while not self._ready():
                await asyncio.sleep(0.02)

    def _spawn(self) -> None:
        fd = os.open(self._data, os.O_RDONLY)
        settings = {"listen_addresses": "", "port": "5432", "unix_socket_directories": self._sockets} | self._settings
        command = [str(self._bin / "postgres"), "-D", f"/proc/self/fd/{fd}"]
        command += [f"--{name}={value}" for name, value in settings.items()]
        owner = {"user": self._account.st_uid, "group": self._account.st_gid, "extra_groups": []}
        with open(self._data.with_suffix(".log"), "ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd="/",
                env={"LC_ALL": "C"},
                pass_fds=(fd,),
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_tied_to_parent(os.getpid()),
                **(owner if os.geteuid() == 0 else {}),  # type: ignore[arg-type]
            )
        os.close(fd)

    def _ready(self) -> bool:
        with contextlib.suppress(FileNotFoundError, IndexError):
            return (self._data / "postmaster.pid").read_text().splitlines()[7].strip() == "ready"
        return False

    def kill(self) -> None:
        """With -9, and its children with it."""
        if self.process is not None:
            for process in self._processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self.process.wait()
            self.process = None
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    def signal(self, number: signal.Signals) -> None:
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _processes(self) -> list[psutil.Process]:
        if self.process is None:
            return []
        postmaster = psutil.Process(self.process.pid)
        return [postmaster, *postmaster.children(recursive=True)]

    async def ask(self, sql: str) -> object:
        """One value, asked as superuser."""
        connection = await asyncpg.connect(as_superuser(self.dsn), timeout=60)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._sockets)


def _sockets(primary: EmbeddedPostgres) -> str:
    return parse_qs(urlsplit(primary.dsn).query)["host"][0]
