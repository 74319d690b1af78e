"""Real senders, and what they were promised: smtp-source with its dialogue kept, a Postfix that relays, and raw sockets
that misbehave on purpose.
"""

import asyncio
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.ports import free_ports

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

    async def more(self, count: int) -> None:
        """Until so many more messages were answered 250."""
        wanted = len(self._stored()) + count
        async with asyncio.timeout(90):
            while len(self._stored()) < wanted:
                await asyncio.sleep(0.05)

    async def stop(self) -> set[str]:
        """Let them finish, and say which messages were answered 250: the ids the server gave them."""
        self._stop = True
        await asyncio.wait_for(asyncio.gather(*self._running), 90)
        return self._stored()

    def _stored(self) -> set[str]:
        return {match for log in self._logs for match in _STORED.findall(log.read_text("utf-8", "replace"))}


def dialog(smtp: tuple[str, int], recipient: str, subject: str) -> socket.socket:
    """A connection that has sent everything but the end of data."""
    sock = socket.create_connection(smtp, timeout=60)
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


_MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
meta_directory = /etc/postfix
shlib_directory = /usr/lib/postfix
mail_owner = postfix
setgid_group = postdrop
myhostname = relay.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
{route}
relay_domains = temp.mail
smtpd_relay_restrictions = permit_mynetworks, reject
smtp_tls_security_level = may
smtputf8_enable = no
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
minimal_backoff_time = 1s
queue_run_delay = 1s
alias_maps =
alias_database =
"""

_MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
lmtp unix - - n - - lmtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


@contextmanager
def relaying(route: str) -> Iterator[tuple[str, int]]:
    """A private Postfix that takes mail on loopback and hands it on by ``route``, a line of main.cf; its address."""
    (port,) = free_ports(1)
    folder = Path(run("mktemp", "-d", "-p", "/var/tmp", "postfix.XXXXXX").stdout.strip())
    folder.chmod(0o755)
    etc = folder / "etc"
    for name in ("etc", "queue", "data"):
        (folder / name).mkdir()
    (etc / "main.cf").write_text(_MAIN.format(folder=folder, route=route))
    (etc / "master.cf").write_text(_MASTER.format(port=port))
    run("chown", "postfix", str(folder / "data"))
    started = run("postfix", "-c", str(etc), "start")
    assert started.returncode == 0, started.stderr
    try:
        yield "127.0.0.1", port
    finally:
        run("postfix", "-c", str(etc), "stop")
        run("rm", "-rf", str(folder))
