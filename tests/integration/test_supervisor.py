"""The supervisor over real forked workers: what happens to one of them reaches no client and outlives no parent."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

PROGRAM = Path(__file__).with_name("supervised.py")
ROOT = PROGRAM.parents[2]
PATIENCE = 60.0
T = TypeVar("T")


def eventually(probe: Callable[[], T], what: str) -> T:
    """What ``probe`` gives as soon as it is true; fails after a patience that only a fault exhausts."""
    end = time.monotonic() + PATIENCE
    while not (result := probe()):
        assert time.monotonic() < end, f"not within {PATIENCE:g} s: {what}"
        time.sleep(0.01)
    return result


class Supervised:
    """The program under test and a client of its HTTP address."""

    def __init__(self, directory: Path, env: dict[str, str], settings: dict[str, str]) -> None:
        defaults = {"SERVER_HOST": "127.0.0.1", "SERVER_PORT": "0", "SMTP_BIND_ADDR": "127.0.0.1:0", "WORKERS": "2"}
        arguments = [f"{name}={value}" for name, value in (defaults | settings).items()]
        self.stderr = directory / f"stderr-{time.monotonic_ns()}"
        with self.stderr.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), *arguments],
                env=os.environ | {"PYTHONPATH": str(ROOT)} | env,
                stdout=subprocess.PIPE,
                stderr=sink,
                start_new_session=True,
            )
        self.pid = self.process.pid
        self.children: set[int] = set()

    def serving(self) -> "Supervised":
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.stderr.read_text()
        self.http: tuple[str, int] = tuple(json.loads(line)["http"])
        return self

    def connect(self, path: str = "/") -> socket.socket:
        client = socket.create_connection(self.http, timeout=PATIENCE)
        client.sendall(b"GET %s HTTP/1.1\r\n\r\n" % path.encode())
        return client

    def ask(self, path: str = "/") -> int:
        """The pid of the worker that answered."""
        return pid_in(self.connect(path))

    def workers(self) -> set[int]:
        parent = psutil.Process(self.pid)
        found = {child.pid for child in parent.children() if child.status() != psutil.STATUS_ZOMBIE}
        self.children |= found
        return found

    def log(self, message: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.stderr.read_text().splitlines() if line.endswith("}")]
        return [line for line in lines if message in line["msg"]]

    def logged(self, message: str, times: int = 1) -> dict[str, Any]:
        """The last line with ``message`` once there are ``times`` of it."""
        return eventually(lambda: len(found := self.log(message)) >= times and found, message)[-1]  # type: ignore[index]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        return self.process.wait(PATIENCE)

    def clean_up(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self.workers()
        for pid in (self.pid, *self.children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()


def pid_in(client: socket.socket) -> int:
    with client:
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n\r\n"), answer
    return int(answer.partition(b"\r\n\r\n")[2])


def moment(line: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(line["ts"])


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


Start = Callable[..., Supervised]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Supervised] = []

    def start_one(env: dict[str, str] | None = None, **settings: str) -> Supervised:
        started.append(Supervised(tmp_path, env or {}, settings))
        return started[-1]

    yield start_one
    for one in started:
        one.clean_up()


def test_a_crashed_worker_is_replaced_and_serves_what_waited_in_the_backlog(start: Start) -> None:
    server = start(WORKERS="1").serving()
    first = server.ask()
    os.kill(first, signal.SIGSTOP)
    waiting = [server.connect() for _ in range(50)]
    os.kill(first, signal.SIGKILL)
    answered_by = {pid_in(client) for client in waiting}
    assert answered_by == server.workers()
    assert first not in answered_by
    assert server.logged("worker died")["reason"] == "killed by SIGKILL"
    assert server.logged("reaped")["worker"] == first


def test_a_worker_that_crashes_again_and_again_is_replaced_every_time(start: Start) -> None:
    server = start(WORKERS="1").serving()
    for death in range(1, 5):
        os.kill(server.ask(), signal.SIGKILL)
        server.logged("worker died", death)
    last = server.ask()
    assert server.workers() == {last}
    assert server.process.poll() is None


def test_deaths_in_a_row_make_the_supervisor_wait_longer_each_time(start: Start) -> None:
    server = start(WORKERS="1", backoff_least="0.2", backoff_most="3600", steady="3600").serving()
    for death in range(1, 5):
        os.kill(server.ask(), signal.SIGKILL)
        server.logged("worker died", death)
        server.logged("worker ready", death + 1)
    died = [moment(line) for line in server.log("worker died")]
    started = [moment(line) for line in server.log("worker started")][1:]
    waits = [(after - before).total_seconds() for before, after in zip(died, started, strict=True)]
    assert all(wait >= 0.2 * 2**number - 0.01 for number, wait in enumerate(waits)), waits


def test_deaths_are_forgiven_once_a_worker_has_been_steady(start: Start) -> None:
    server = start(WORKERS="1", backoff_least="0.2", backoff_most="3600", steady="0").serving()
    for death in range(1, 11):  # the tenth death of an unforgiving supervisor would cost 102 s
        os.kill(server.ask(), signal.SIGKILL)
        server.logged("worker died", death)
        server.logged("worker ready", death + 1)


def test_a_death_costs_the_supervisor_no_descriptor(start: Start) -> None:
    server = start(WORKERS="1", steady="0").serving()
    before = psutil.Process(server.pid).num_fds()
    for death in range(1, 5):
        os.kill(server.ask(), signal.SIGKILL)
        server.logged("worker ready", death + 1)
    assert psutil.Process(server.pid).num_fds() == before


def test_a_pause_of_the_whole_machine_kills_no_worker(start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(PATIENCE)
        manager.bind(str(tmp_path / "notify"))
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        server = start(env, heartbeat="3").serving()
        workers = server.workers()
        os.killpg(server.pid, signal.SIGSTOP)
        time.sleep(3.5)  # the pause itself: longer than a worker may be silent
        with contextlib.suppress(BlockingIOError):
            manager.setblocking(False)
            while manager.recv(4096):
                pass
        manager.settimeout(PATIENCE)
        server.signal(signal.SIGCONT)  # the supervisor wakes before any worker can beat
        for _ in range(2):
            while b"WATCHDOG=1" not in manager.recv(4096):
                pass
        os.killpg(server.pid, signal.SIGCONT)
        assert server.ask() in workers
        assert server.workers() == workers
        assert server.log("worker died") == []


def test_a_roll_replaces_every_worker_and_loses_no_request(start: Start) -> None:
    server = start().serving()
    before = server.workers()
    over, faults, answered = threading.Event(), [], []

    def keep_asking() -> None:
        while not over.is_set():
            try:
                answered.append(server.ask())
            except (OSError, AssertionError) as error:
                faults.append(error)

    clients = [threading.Thread(target=keep_asking) for _ in range(4)]
    for client in clients:
        client.start()
    for roll in (1, 2, 3):
        eventually(lambda roll=roll: len(answered) + len(faults) >= 50 * roll, "clients ask")  # type: ignore[misc]
        server.signal(signal.SIGHUP)
        server.logged("workers replaced", roll)
    over.set()
    for client in clients:
        client.join(PATIENCE)
    assert faults == []
    assert len(server.workers()) == 2
    assert not before & server.workers()
    assert server.log("worker died") == []


def test_hup_during_a_roll_rolls_once_more(start: Start) -> None:
    server = start().serving()
    server.signal(signal.SIGHUP)
    server.logged("replacing workers one at a time")
    server.signal(signal.SIGHUP)
    server.logged("workers replaced", 2)
    assert len(server.workers()) == 2
    assert server.ask() in server.workers()


def test_a_roll_whose_successor_cannot_boot_leaves_the_old_workers(start: Start, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    server = start({"FAULT_IF": str(broken)}).serving()
    before = server.workers()
    broken.touch()
    server.signal(signal.SIGHUP)
    server.logged("abandoned")
    assert server.workers() == before
    assert server.ask() in before
    broken.unlink()
    server.signal(signal.SIGHUP)
    server.logged("workers replaced")
    assert not server.workers() & before


def test_term_finishes_what_was_begun_and_refuses_what_is_new(start: Start) -> None:
    server = start().serving()
    begun = [server.connect("/slow") for _ in range(8)]
    heads = [client.recv(19) for client in begun]
    server.signal(signal.SIGTERM)
    workers = server.workers()
    assert heads == [b"HTTP/1.1 200 OK\r\n\r\n"] * 8
    assert {int(client.recv(100)) for client in begun} <= workers
    assert server.end() == 0
    for client in begun:
        client.close()
    with pytest.raises(ConnectionRefusedError):
        server.connect()
    assert all(gone(pid) for pid in workers)
    assert server.log("worker died") == []


def test_ctrl_c_reaches_the_whole_group_and_still_drains(start: Start) -> None:
    server = start().serving()
    client = server.connect("/slow")
    client.recv(19)
    os.killpg(server.pid, signal.SIGINT)
    assert int(client.recv(100)) > 0
    client.close()
    assert server.end() == 0


def test_a_worker_that_does_not_drain_is_killed_at_the_deadline(start: Start) -> None:
    server = start({"FAULT": "stubborn"}, DRAIN_DEADLINE="200ms").serving()
    server.signal(signal.SIGTERM)
    assert server.end() == 0
    assert server.logged("worker ended", 2)["killed_for"] == "not drained within 0.2 s"


def test_a_second_int_ends_everything_at_once(start: Start) -> None:
    server = start({"FAULT": "stubborn"}, DRAIN_DEADLINE="1h").serving()
    workers = server.workers()
    server.signal(signal.SIGINT)
    server.logged("stopping")
    server.signal(signal.SIGINT)
    assert server.end() == 130
    assert workers
    assert all(gone(pid) for pid in workers)


def test_a_blocked_loop_is_killed_and_replaced(start: Start) -> None:
    server = start(WORKERS="1", heartbeat="1").serving()
    blocked = server.ask()
    client = server.connect("/block")
    assert server.logged("worker died")["reason"] == "its loop was blocked for 1 s"
    client.close()
    assert server.ask() != blocked


def test_a_worker_that_cannot_boot_stops_the_supervisor_with_its_reason(start: Start) -> None:
    server = start({"FAULT": "boot"}, WORKERS="1")
    assert server.end() == 1
    assert server.log("could not start 3 times in a row: RuntimeError: no such database: nowhere")
    assert len(server.log("worker started")) == 3
    assert "in run_worker" in server.log("worker died")[0]["trace"]


def test_a_worker_that_never_gets_ready_cannot_boot(start: Start) -> None:
    server = start({"FAULT": "asleep"}, WORKERS="1", boot="0.1")
    assert server.end() == 1
    assert server.log("could not start 3 times in a row: not ready within 0.1 s")


def test_workers_end_with_a_killed_supervisor_and_free_its_addresses(start: Start) -> None:
    server = start().serving()
    workers = server.workers()
    server.signal(signal.SIGKILL)
    server.end()
    eventually(lambda: all(gone(pid) for pid in workers), "workers end")
    again = start(SERVER_PORT=str(server.http[1])).serving()
    assert again.ask() in again.workers()


def test_a_worker_holds_the_sockets_of_its_slot_only(start: Start) -> None:
    server = start().serving()
    workers = server.workers()
    assert len(workers) == 2
    for pid in workers:
        connections = psutil.Process(pid).net_connections("tcp")
        assert len([one for one in connections if one.status == psutil.CONN_LISTEN]) == 2


def test_a_second_server_on_the_same_port_is_refused_by_name(start: Start) -> None:
    server = start().serving()
    second = start(SERVER_PORT=str(server.http[1]))
    assert second.end() == 2
    said = second.stderr.read_text()
    assert "TEMPMAIL_SERVER_PORT" in said
    assert f"process {server.pid}" in said


def test_a_dead_companion_is_started_again(start: Start) -> None:
    server = start({"FAULT": "companion"}, WORKERS="1").serving()
    (companion,) = server.workers() - {server.ask()}
    os.kill(companion, signal.SIGKILL)
    server.logged("companion started again")
    assert len(server.workers()) == 2


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(start: Start, tmp_path: Path, abstract: bool) -> None:
    name = f"@tempmail-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(PATIENCE)
        manager.bind(name.replace("@", "\0"))
        server = start({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000"}, WORKERS="1").serving()
        told: list[list[str]] = []

        def wait_for(word: str) -> list[str]:
            while not told or word not in told[-1]:
                told.append(manager.recv(4096).decode().split("\n"))
            return told[-1]

        wait_for("READY=1")
        server.signal(signal.SIGHUP)
        _, moment, status = wait_for("RELOADING=1")
        name, _, microseconds = moment.partition("=")
        assert name == "MONOTONIC_USEC"
        assert 0 <= time.monotonic() - int(microseconds) / 1e6 < PATIENCE
        assert status.startswith("STATUS=")
        wait_for("READY=1")
        wait_for("WATCHDOG=1")
        server.signal(signal.SIGTERM)
        wait_for("STOPPING=1")
        assert server.end() == 0
