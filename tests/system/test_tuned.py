"""Every line of deploy/4c8g and deploy/8c16g is taken by the real server it is for, with the value it names."""

import asyncio
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
import redis

ROOT = Path(__file__).parents[2]
FOLDERS = ("4c8g", "8c16g")


def lines(folder: str, name: str, separator: str) -> dict[str, str]:
    """Key -> value of one file."""
    text = (ROOT / "deploy" / folder / name).read_text()
    pairs = [line.split(separator, 1) for line in text.splitlines() if line and not line.startswith("#")]
    return {key.strip(): value.strip() for key, value in pairs}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder of Debian's PostgreSQL, made once; the server runs as the package's own user."""
    folder = Path("/tmp") / f"tuned-{os.getpid()}"  # short: socket paths have 107 bytes
    folder.mkdir()
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    as_postgres(folder, "initdb", "--no-sync", "--auth=trust", "--username=postgres", "-D", str(folder / "data"))
    yield folder
    shutil.rmtree(folder)


def binary(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    assert found, "apt-get install postgresql"
    return str(found[-1])


def as_postgres(folder: Path, name: str, *arguments: str) -> None:
    """Run one of its programs: as the package's user where we are root, which it refuses."""
    someone = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    subprocess.run(
        [binary(name), *arguments],
        check=True,
        **someone,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        stdout=subprocess.DEVNULL,
        timeout=60,
    )


@pytest.mark.parametrize("folder", FOLDERS)
def test_postgresql_takes_every_line(cluster: Path, folder: str) -> None:
    wanted = lines(folder, "postgresql.conf", "=")
    shutil.copy(ROOT / "deploy" / folder / "postgresql.conf", cluster / "tuned.conf")
    (cluster / "tuned.conf").chmod(0o644)
    (cluster / "data" / "postgresql.conf").write_text(f"include '{cluster}/tuned.conf'\n")
    options = f"-c listen_addresses= -c unix_socket_directories={cluster} -c logging_collector=off"
    as_postgres(cluster, "pg_ctl", "start", "-w", "-D", f"{cluster}/data", "-o", options, "-l", f"{cluster}/log")
    try:
        applied, failed = asyncio.run(settings(cluster))
    finally:
        as_postgres(cluster, "pg_ctl", "stop", "-m", "fast", "-D", f"{cluster}/data")
    assert failed == []
    assert set(wanted) <= applied


async def settings(cluster: Path) -> tuple[set[str], list[str]]:
    """The names in force from the file, and those that it names and the server did not take."""
    connection = await asyncpg.connect(host=str(cluster), user="postgres", database="postgres")
    try:
        rows = await connection.fetch(
            "SELECT name, applied, error FROM pg_file_settings WHERE sourcefile LIKE '%/tuned.conf'"
        )
        await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        assert await connection.fetchval("SELECT count(*) FROM pg_stat_statements") > 0
    finally:
        await connection.close()
    return {row["name"] for row in rows if row["applied"]}, [row["name"] for row in rows if row["error"]]


@pytest.mark.parametrize("folder", FOLDERS)
def test_redis_takes_every_line(tmp_path: Path, folder: str) -> None:
    wanted = lines(folder, "redis.conf", " ")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = ["redis-server", ROOT / "deploy" / folder / "redis.conf", "--port", str(port), "--dir", tmp_path]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    client = redis.Redis(port=port, decode_responses=True)
    try:
        wait_for(client)
        config = {key: client.config_get(key)[key] for key in wanted}
    finally:
        client.close()
        server.kill()
        server.wait()
    assert config.pop("maxmemory") == str(256 << 20)
    assert "pubsub 33554432 8388608 60" in config.pop("client-output-buffer-limit")
    assert config == {key: wanted[key].strip('"') for key in config}


def wait_for(client: "redis.Redis") -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            client.ping()
        except redis.ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_kernel_takes_every_line(folder: str, tmp_path: Path) -> None:
    """Those of the network in a namespace of the test's own; the others are the machine's, and only looked up."""
    wanted = lines(folder, "sysctl.conf", "=")
    for key in wanted:
        assert Path("/proc/sys", *key.split(".")).exists(), key
    own = {
        key: value for key, value in wanted.items() if key.startswith("net.") and key != "net.core.netdev_max_backlog"
    }
    script = "".join(f"sysctl -w {key}='{value}'; " for key, value in own.items())
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-ec", script],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    shown = dict(re.split(r"\s*=\s*", line, maxsplit=1) for line in done.stdout.splitlines())
    assert {key: " ".join(value.split()) for key, value in shown.items()} == own
