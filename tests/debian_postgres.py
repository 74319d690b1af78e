"""A PostgreSQL of Debian's package, run by the tests on a unix socket: as the package's own user where we are root."""

import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

_ENVIRONMENT: Final = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


class Cluster:
    """A data folder and, inside ``with``, its server; ``configuration`` is a file whose lines it takes."""

    def __init__(self, name: str, configuration: Path | None = None) -> None:
        self.folder = Path("/tmp") / f"tempmail-{name}-{os.getpid()}"  # short: a socket's path has 107 bytes
        self._configuration = configuration

    @staticmethod
    def programs() -> Path:
        """The folder of the newest installed version's programs."""
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        assert found, "apt-get install postgresql"
        return found[-1]

    def __enter__(self) -> Self:
        self.folder.mkdir(mode=0o755)
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        self.run("initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "-D", self._data)
        (self.folder / "data" / "postgresql.conf").write_text("max_connections = 100\n")
        if self._configuration is not None:
            shutil.copy(self._configuration, self.folder / "tuned.conf")
            (self.folder / "tuned.conf").chmod(0o644)
            (self.folder / "data" / "postgresql.conf").write_text(f"include '{self.folder}/tuned.conf'\n")
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder}"
        self.run("pg_ctl", "start", "-w", "-D", self._data, "-o", options, "-l", f"{self.folder}/log")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run("pg_ctl", "stop", "-m", "fast", "-D", self._data)
        shutil.rmtree(self.folder)

    @property
    def _data(self) -> str:
        return f"{self.folder}/data"

    def run(self, name: str, *arguments: str) -> None:
        """Run one of its programs and wait for it."""
        someone: dict[str, Any] = {}
        if os.geteuid() == 0:
            someone = {"user": "postgres", "group": "postgres", "extra_groups": []}
        subprocess.run(
            [self.programs() / name, *arguments],
            check=True,
            cwd=self.folder,
            env=_ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            timeout=60,
            **someone,
        )

    def database(self, name: str, owner: str = "postgres") -> str:
        """A new database; answers its owner's DSN."""
        self.run("createdb", "-h", str(self.folder), "-U", "postgres", "-O", owner, name)
        return f"postgresql://{owner}@/{name}?host={self.folder}"

    def user(self, name: str) -> None:
        """A new user without any privilege."""
        self.run("createuser", "-h", str(self.folder), "-U", "postgres", name)

    def extend(self, database: str, extension: str) -> None:
        """Make an extension as the superuser."""
        do = f"CREATE EXTENSION {extension}"
        self.run("psql", "-h", str(self.folder), "-U", "postgres", "--quiet", "--dbname", database, "--command", do)
