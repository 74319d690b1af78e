"""The service manager's notification protocol, sd_notify(3), spoken directly.

Lives here: the datagrams to NOTIFY_SOCKET and the watchdog's rhythm.
Must not know: what the states mean to the supervisor.
"""

import os
import socket
import time
from collections.abc import Mapping

from server import log


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

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:  # the service goes on; its manager will say what it missed
            log.event("warning", "service manager not notified", state=lines[0], error=error)
