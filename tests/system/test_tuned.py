"""Every line of deploy/4c8g and deploy/8c16g is taken by the real server it is for, with the value it names."""

import asyncio
import re
import subprocess
import time
from pathlib import Path

import asyncpg
import pytest
import redis

from tests.broker import Broker
from tests.debian_postgres import Cluster
from tests.ports import free_ports

ROOT = Path(__file__).parents[2]
FOLDERS = ("4c8g", "8c16g")


def lines(folder: str, name: str, separator: str) -> dict[str, str]:
    """Key -> value of one file."""
    text = (ROOT / "deploy" / folder / name).read_text()
    pairs = [line.split(separator, 1) for line in text.splitlines() if line and not line.startswith("#")]
    return {key.strip(): value.strip() for key, value in pairs}


@pytest.mark.parametrize("folder", FOLDERS)
def test_postgresql_takes_every_line(folder: str) -> None:
    configuration = ROOT / "deploy" / folder / "postgresql.conf"
    with Cluster("tuned", configuration) as cluster:
        applied, failed = asyncio.run(settings(cluster.folder))
    assert failed == []
    assert set(lines(folder, "postgresql.conf", "=")) <= applied


async def settings(folder: Path) -> tuple[set[str], list[str]]:
    """The names in force from the file, and those that it names and the server did not take."""
    connection = await asyncpg.connect(host=str(folder), user="postgres", database="postgres")
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
    (port,) = free_ports(1)
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


@pytest.mark.parametrize("folder", FOLDERS)
def test_rabbitmq_takes_every_line(tmp_path: Path, folder: str) -> None:
    """It does not start with a line that it does not know; what it made of the others it says itself."""
    broker = Broker(tmp_path, (ROOT / "deploy" / folder / "rabbitmq.conf").read_text())
    try:
        broker.start()
        shown = broker.control("environment")
    finally:
        broker.close()
    for key in ("channel_max", "consumer_timeout", "heartbeat", "collect_statistics_interval"):
        assert f"{{{key},{lines(folder, 'rabbitmq.conf', '=')[key]}}}" in shown
    assert "{vm_memory_high_watermark,0.6}" in shown
    assert "{wal_max_size_bytes,134217728}" in shown


def wait_for(client: "redis.Redis") -> None:
    deadline = time.monotonic() + 60
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
    assert wanted
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
