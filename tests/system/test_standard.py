"""The server starts and goes on whatever its standard output and error are: closed, full, a pipe without a reader."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.ports import free_ports
from tests.running import ROOT

WAYS = ("error closed", "output closed", "all closed", "error full", "both full", "no reader", "a reader asleep")


def arrange(way: str) -> None:
    """In the child, before the program: its standard input, output and error as ``way`` says."""
    if way == "no reader":
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 2)
    elif way == "a reader asleep":
        reader, writer = os.pipe()
        os.set_inheritable(reader, True)
        os.dup2(writer, 1)
        os.dup2(writer, 2)
    elif way.endswith("full"):
        full = os.open("/dev/full", os.O_WRONLY)
        for descriptor in (1, 2)[way == "error full" :]:
            os.dup2(full, descriptor)
    else:
        for descriptor in {"error closed": (2,), "output closed": (1,), "all closed": (0, 1, 2)}[way]:
            os.close(descriptor)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def until_it_answers(port: int) -> None:
    deadline = time.monotonic() + 60
    while not answers(port):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("way", WAYS)
def test_it_serves_and_stops(tmp_path: Path, started: list[subprocess.Popen[bytes]], way: str) -> None:
    [http] = free_ports(1)
    settings = {"SERVER_PORT": str(http), "SMTP_BIND_ADDR": "127.0.0.1:0", "WORKERS": "1", "LOG_LEVEL": "debug"}
    env = os.environ | {f"TEMPMAIL_{name}": value for name, value in settings.items()}
    env["TEMPMAIL_DATA_DIR"] = str(tmp_path / "data")
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "serve"],
        cwd=ROOT,
        env=env,
        preexec_fn=lambda: arrange(way),
        close_fds=False,  # the reader that is asleep has to stay
    )
    started.append(process)
    until_it_answers(http)
    for _ in range(300):  # words enough to fill a pipe
        assert answers(http)
    supervisor = psutil.Process(process.pid)
    [worker] = [child for child in supervisor.children() if "serve" in child.cmdline()]
    worker.kill()
    worker.wait(30)
    until_it_answers(http)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def test_a_command_says_what_is_wrong_with_its_output(tmp_path: Path) -> None:
    env = os.environ | {"TEMPMAIL_DATA_DIR": str(tmp_path)}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "server", "check-config"], cwd=ROOT, env=env, stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 2
    assert done.stderr == b"tempmail: standard output: No space left on device\n"
