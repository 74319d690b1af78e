"""A restart refuses nobody: the service manager keeps the listening sockets, and whoever comes meanwhile waits."""

import array
import asyncio
import contextlib
import os
import signal
import smtplib
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.running import Server, lasting

# Starts the server as a service manager does: the kept sockets are its descriptors from 3 on.
_LAUNCH = """
import os, sys
count = int(sys.argv[1])
for n, fd in enumerate(sorted(map(int, sys.argv[2:2 + count]))):
    os.dup2(fd, 200 + n, inheritable=False)
    os.set_inheritable(fd, False)
for n in range(count): os.dup2(200 + n, 3 + n, inheritable=True)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "server", "serve"])
"""


class Manager:
    """What systemd does for a unit with a file descriptor store."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.stored: dict[str, int] = {}

    def take(self) -> None:
        """Everything that was said so far."""
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                words, rights, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(4))
                lines = words.decode().split("\n")
                name = next((line.removeprefix("FDNAME=") for line in lines if line.startswith("FDNAME=")), "")
                for _, _, data in rights:
                    self.stored[name] = array.array("i", data)[0]
                if "FDSTOREREMOVE=1" in lines:
                    os.close(self.stored.pop(name))

    def close(self) -> None:
        self.socket.close()
        for descriptor in self.stored.values():
            os.close(descriptor)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path)
    yield manager
    manager.close()


def started(server: Server, manager: Manager) -> None:
    """Start ``server`` with what ``manager`` holds, lowest descriptor first, and let it hold what is new."""
    names = sorted(manager.stored, key=lambda name: manager.stored[name])
    held = [manager.stored[name] for name in names]
    environment = {
        "NOTIFY_SOCKET": manager.path,
        "LISTEN_FDS": str(len(held)),
        "LISTEN_FDNAMES": ":".join(names),
    }
    command = [sys.executable, "-c", _LAUNCH, str(len(held)), *map(str, held)]
    server.start(command=command, environment=environment, pass_fds=held)
    manager.take()


class Knocking:
    """Clients that come one after the other, from before the restart until after it."""

    def __init__(self, server: Server) -> None:
        self.http, self.smtp = server.http, server.smtp
        self.answered, self.refused = 0, list[str]()
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=self._knock, args=(ask,)) for ask in (self._get, self._greet)]

    def _get(self) -> None:
        with urllib.request.urlopen(f"{self.http}/health", timeout=60) as answer:
            assert answer.status == 200

    def _greet(self) -> None:
        with smtplib.SMTP(*self.smtp, timeout=60) as client:
            client.noop()

    def _knock(self, ask: Callable[[], None]) -> None:
        while not self._enough.is_set():
            try:
                ask()
                self.answered += 1
            except (ConnectionRefusedError, urllib.error.URLError) as error:
                self.refused.append(str(error))
            except (OSError, smtplib.SMTPException):  # an answer cut off by the drain is no refusal
                pass
            time.sleep(0.005)

    def __enter__(self) -> "Knocking":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()


def test_nobody_is_refused_while_the_service_restarts(tmp_path: Path, manager: Manager) -> None:
    server = Server(tmp_path, **lasting())
    started(server, manager)
    assert set(manager.stored) == {"http.0", "http.1", "smtp.0", "smtp.1"}
    try:
        box = asyncio.run(server.mailbox())
        with Knocking(server) as clients:
            for _ in range(2):
                assert server.process is not None
                server.process.send_signal(signal.SIGTERM)
                assert server.process.wait(60) == 0
                before = clients.answered
                started(server, manager)
                while clients.answered < before + 20:
                    time.sleep(0.01)
        server.send(box, subject="after")
        assert [message["subject"] for message in asyncio.run(server.messages(box))] == ["after"]
    finally:
        server.stop()
    assert clients.refused == []


def test_a_kept_socket_without_a_worker_is_let_go(tmp_path: Path, manager: Manager) -> None:
    server = Server(tmp_path, WORKERS="3", **lasting())
    started(server, manager)
    server.stop()
    server.set(WORKERS="1")
    started(server, manager)
    try:
        assert set(manager.stored) == {"http.0", "smtp.0"}
        for _ in range(30):  # SO_REUSEPORT would spread these over whatever still listens
            with urllib.request.urlopen(f"{server.http}/health", timeout=60) as answer:
                assert answer.status == 200
    finally:
        server.stop()
