"""A real server in a process of its own, and what tests ask of it: its addresses, mailboxes, mail, log and processes.

Knows the product only from outside: its command line, SMTP and HTTP.
"""

import asyncio
import os
import re
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.ports import free_ports

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Box:
    """A mailbox as its creation answered."""

    id: str
    address: str
    token: str

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


def lasting() -> dict[str, str]:
    """Settings of addresses that stay a server's own while it is away: no client is given their ports meanwhile, as
    could happen to those that the kernel chose.
    """
    http, smtp = free_ports(2)
    return {"SERVER_PORT": str(http), "SMTP_BIND_ADDR": f"127.0.0.1:{smtp}"}


class Server:
    """``python -m server serve`` on free ports of 127.0.0.1, data under ``folder``; settings without prefix."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.log_path = folder / "log"
        self.tree = ROOT  # the checkout that the next start runs
        self._settings = {
            "SERVER_PORT": "0",
            "SMTP_BIND_ADDR": "127.0.0.1:0",
            "MAILBOX_ALLOWED_DOMAINS": "temp.mail,second.test",
            "DATA_DIR": str(folder / "data"),
            "WORKERS": "2",
        } | settings
        self._takes_mail = {"all", "smtp"} & set(self._settings.get("ROLES", "all").split(","))
        self.process: subprocess.Popen[bytes] | None = None
        self.http = ""
        self.smtp = ("", 0)

    def start(
        self,
        timeout: float = 300,
        *,
        command: Sequence[str] = (sys.executable, "-m", "server", "serve"),
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> "Server":
        """``command`` and what follows are for tests that stand in for a service manager."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("TEMPMAIL_")}
        env |= {f"TEMPMAIL_{name}": value for name, value in self._settings.items()} | dict(environment or {})
        with open(self.log_path, "ab") as log:
            offset = log.tell()
            self.process = subprocess.Popen(
                command,
                cwd=self.tree,
                env=env,
                pass_fds=pass_fds,
                stderr=log,
                stdout=log,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            text = self.log_path.read_bytes()[offset:].decode("utf-8", "replace")
            http, smtp = re.search(r"HTTP  (http://\S+|unix:\S+)", text), re.search(r"SMTP  (\S+):(\d+)", text)
            if "tempmail is ready" in text and http and (smtp or not self._takes_mail):
                self.http, self.smtp = http[1], (smtp[1], int(smtp[2])) if smtp else ("", 0)
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"the server did not start:\n{self.log_path.read_text('utf-8', 'replace')[-4000:]}")

    def set(self, **settings: str) -> None:
        """Settings of the next start."""
        self._settings |= settings

    def stop(self) -> int:
        """Ctrl-C, and what it came to."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    @property
    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children() if self.process else []

    def workers(self) -> list[psutil.Process]:
        """The worker processes (forked: their command line is the supervisor's)."""
        return [child for child in self.children() if _serves(child)]

    def postmaster(self) -> psutil.Process:
        return next(child for child in self.children() if "postgres" in _named(child))

    def backends(self) -> list[psutil.Process]:
        """PostgreSQL's processes for the server's connections; none while it is away."""
        return [
            process
            for postmaster in self.children()
            if "postgres" in _named(postmaster)
            for process in _children(postmaster)
            if "tempmail" in _named(process)
        ]

    @contextmanager
    def database_suspended(self) -> Iterator[None]:
        """PostgreSQL stands still, so that what is asked of it waits."""
        postmaster = self.postmaster()
        postmaster.suspend()  # first, or it would replace its backends
        processes = [postmaster, *_children(postmaster)]
        try:
            for process in processes:
                with suppress(psutil.NoSuchProcess):  # one that had just ended
                    process.suspend()
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    async def mailbox(self, prefix: str | None = None, **body: Any) -> Box:
        """A new mailbox, made over HTTP."""
        request = body | ({"prefix": prefix} if prefix else {})
        async with (
            aiohttp.ClientSession() as client,
            client.post(f"{self.http}/v1/mailboxes", json=request) as response,
        ):
            assert response.status == 201, await response.text()
            data = (await response.json())["data"]
            return Box(data["id"], data["address"], data["token"])

    async def get(self, box: Box, path: str = "") -> Any:
        """``data`` of a GET below the mailbox."""
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"{self.http}/v1/mailboxes/{box.id}{path}", headers=box.auth) as response,
        ):
            assert response.status == 200, await response.text()
            return (await response.json())["data"]

    async def messages(self, box: Box) -> list[dict[str, Any]]:
        """Every message of a mailbox, newest first."""
        items: list[dict[str, Any]] = []
        while True:
            page = (await self.get(box, f"/messages?limit=100&offset={len(items)}"))["items"]
            items += page
            if len(page) < 100:
                return items

    def send(self, *boxes: Box, subject: str = "hello", text: str = "a line\n", sender: str = "a@example.org") -> None:
        """One message to all of ``boxes`` over SMTP; raises what smtplib raises."""
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = sender, ", ".join(b.address for b in boxes), subject
        message.set_content(text)
        with smtplib.SMTP(*self.smtp, timeout=30) as client:
            client.sendmail(sender, [b.address for b in boxes], message.as_bytes())

    async def deliver(self, *boxes: Box, **what: str) -> None:
        """``send``, without blocking the test's loop."""
        await asyncio.to_thread(self.send, *boxes, **what)


def _serves(child: psutil.Process) -> bool:
    try:
        return "serve" in child.cmdline()
    except psutil.NoSuchProcess:  # it ended meanwhile
        return False


def _named(process: psutil.Process) -> str:
    """How it calls itself; nothing once it has ended."""
    try:
        return " ".join([process.name(), *process.cmdline()])
    except psutil.NoSuchProcess:
        return ""


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children()
    except psutil.NoSuchProcess:
        return []
