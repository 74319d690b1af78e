"""The service manager's protocols, sd_notify(3) and sd_listen_fds(3), spoken directly.

Lives here: the datagrams to NOTIFY_SOCKET, the watchdog's rhythm, and the sockets that the manager keeps for us while
we restart (its file descriptor store). Must not know: what the states mean to the supervisor, or what the sockets are.
"""

import array
import os
import socket
import time
from collections.abc import Mapping
from typing import Final

from server import log

_FIRST: Final = 3  # SD_LISTEN_FDS_START


def kept(env: Mapping[str, str] = os.environ) -> dict[str, socket.socket]:
    """The sockets that were stored under their names by the process before this one; empty where none were."""
    if env.get("LISTEN_PID") != str(os.getpid()) or not env.get("LISTEN_FDS", "").isdecimal():
        return {}
    names = env.get("LISTEN_FDNAMES", "").split(":")
    found = {name: socket.socket(fileno=_FIRST + n) for n, name in enumerate(names[: int(env["LISTEN_FDS"])])}
    for sock in found.values():
        sock.setblocking(False)
        sock.set_inheritable(False)
    return found


class Notifier:
    """Tells the service manager how we are; silent when there is none (NOTIFY_SOCKET unset).

    ``watchdog`` is the longest time between two ``alive()``, in seconds; None when none is set for this process.
    """

    def __init__(self, env: Mapping[str, str] = os.environ) -> None:
        path = env.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        interval = env.get("WATCHDOG_USEC", "")
        meant = env.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        self.watchdog = int(interval) / 1e6 if interval.isdecimal() and meant else None
        self._due = 0.0

    def ready(self, status: str) -> None:
        self._send("READY=1", f"STATUS={status}")

    def reloading(self, status: str) -> None:
        """Type=notify-reload wants the moment beside the word, on CLOCK_MONOTONIC in microseconds."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", f"STATUS={status}")

    def stopping(self, status: str) -> None:
        self._send("STOPPING=1", f"STATUS={status}")

    def alive(self) -> None:
        """Feed the watchdog, at twice the rhythm it asks for however often this is called."""
        now = time.monotonic()
        if self.watchdog is not None and now >= self._due:
            self._due = now + self.watchdog / 2
            self._send("WATCHDOG=1")

    @property
    def manages(self) -> bool:
        """Whether there is a service manager."""
        return bool(self._address)

    def store(self, name: str, sock: socket.socket) -> None:
        """Have the manager hold ``sock`` under ``name`` beyond our end, for whoever is started next in our place."""
        self._send("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", descriptor=sock.fileno())

    def forget(self, name: str) -> None:
        """It need not hold that socket any more."""
        self._send("FDSTOREREMOVE=1", f"FDNAME={name}")

    def _send(self, *lines: str, descriptor: int | None = None) -> None:
        if not self._address:
            return
        rights = [] if descriptor is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendmsg(["\n".join(lines).encode()], rights, 0, self._address)
        except OSError as error:  # the service goes on; its manager will say what it missed
            log.event("warning", "service manager not notified", state=lines[0], error=error)
