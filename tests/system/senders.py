"""Real senders, and what they were promised: smtp-source with its dialogue kept, and raw sockets that misbehave on
purpose.
"""

import asyncio
import re
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

_STORED = re.compile(r"250 2\.0\.0 OK stored as ([0-9a-f-]{36})")


class Burst:
    """Postfix's smtp-source, several at a time, started again whenever a killed server makes one give up."""

    def __init__(self, folder: Path, smtp: tuple[str, int], recipient: str) -> None:
        self._folder, self._smtp, self._recipient = folder, smtp, recipient
        self._running: list[asyncio.Task[None]] = []
        self._logs: list[Path] = []
        self._stop = False

    def start(self, senders: int) -> None:
        self._running = [asyncio.create_task(self._keep_sending(n)) for n in range(senders)]

    async def _keep_sending(self, number: int) -> None:
        turn = 0
        while not self._stop:
            log = self._folder / f"smtp-source-{number}-{turn}.log"
            self._logs.append(log)
            with open(log, "wb") as out:
                # -v prints every reply; -s 5 parallel sessions; -d keeps them open; -m messages in all
                command = ["smtp-source", "-v", "-d", "-s", "5", "-m", "200", "-l", "2048", "-f", "a@src.test"]
                command += ["-t", self._recipient, f"{self._smtp[0]}:{self._smtp[1]}"]
                process = await asyncio.create_subprocess_exec(*command, stdout=out, stderr=out)
                await process.wait()
            turn += 1
            await asyncio.sleep(0.1)

    async def stop(self) -> set[str]:
        """Let them finish, and say which messages were answered 250: the ids the server gave them."""
        self._stop = True
        await asyncio.wait_for(asyncio.gather(*self._running), 90)
        return {match for log in self._logs for match in _STORED.findall(log.read_text("utf-8", "replace"))}


def dialog(smtp: tuple[str, int], recipient: str, subject: str) -> socket.socket:
    """A connection that has sent everything but the end of data."""
    sock = socket.create_connection(smtp, timeout=20)
    stream = sock.makefile("rb")
    stream.readline()
    for command in ("HELO gone.test", "MAIL FROM:<a@gone.test>", f"RCPT TO:<{recipient}>", "DATA"):
        sock.sendall(command.encode() + b"\r\n")
        reply = stream.readline()
        assert reply[:1] in b"23", reply
    sock.sendall(f"Subject: {subject}\r\n\r\nbody\r\n".encode())
    return sock


def vanish(sock: socket.socket, how: str) -> None:
    """Send the final dot and go at once: ``fin``, ``rst`` or ``half`` (close one direction, then both)."""
    if how == "rst":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.sendall(b".\r\n")
    if how == "half":
        sock.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            sock.recv(1000)
    sock.close()


def run(*command: str, timeout: float = 60, **more: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **more)  # type: ignore[call-overload,no-any-return]
