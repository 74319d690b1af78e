"""Starting and stopping servers for a measurement: free ports, readiness, our own server on loopback.

Must not know: what is measured, or how load is made.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.tools.target import Endpoint, Target

_BOOT_SECONDS = 60.0
_STOP_SECONDS = 45.0
_ROOT = Path(__file__).parents[2]


class LaunchError(RuntimeError):
    """A server did not come up, or a program is not installed; the text says what it printed or what to install."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How our server is started: worker processes, and settings (names without their prefix) that differ from ours."""

    workers: int
    settings: Mapping[str, str]


def free_endpoint() -> Endpoint:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Endpoint("127.0.0.1", probe.getsockname()[1])


@contextmanager
def work_directory(parent: Path | None) -> Iterator[Path]:
    """A fresh directory for data and logs, removed afterwards; servers that drop privileges may pass through it."""
    path = Path(tempfile.mkdtemp(prefix="tempmail-bench-", dir=parent))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def require_program(name: str, package: str) -> str:
    """Path of a program, also looked for in /usr/sbin; LaunchError names the Debian package that brings it."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise LaunchError(f"{name} is not installed: apt-get install {package}")
    return found


def accepts(endpoint: Endpoint) -> bool:
    """Whether something listens there."""
    with suppress(OSError), socket.create_connection((endpoint.host, endpoint.port), timeout=1):
        return True
    return False


@contextmanager
def running(
    command: Sequence[str], log: Path, ready: Callable[[], bool], environment: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Run a server until the block ends; yields its pid once ``ready`` says so.

    Its output goes to ``log``. It gets SIGTERM at the end, and it and its whole group SIGKILL when that does not help.
    LaunchError when it ends early or is not ready within a minute.
    """
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=_ROOT,
            env=None if environment is None else dict(environment),
            start_new_session=True,
        )
    try:
        _await_ready(child, ready, log)
        yield child.pid
    finally:
        _stop(child)


def _await_ready(child: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + _BOOT_SECONDS
    while not ready():
        if child.poll() is not None or time.monotonic() > deadline:
            state = "is not ready" if child.returncode is None else f"ended with status {child.returncode}"
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise LaunchError(f"{child.args!r} {state}; its last lines:\n{tail}")
        time.sleep(0.05)


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _is_ready(http: Endpoint) -> bool:
    try:
        with urllib.request.urlopen(f"{http.base_url}/health/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def own_server(work: Path, plan: Plan, through: Endpoint | None = None) -> Iterator[Target]:
    """Our server with an embedded PostgreSQL in ``work``, on free loopback ports; the settings of ``plan`` win.

    ``through`` is a proxy's endpoint where the settings put the server behind one.
    """
    http, smtp = through or free_endpoint(), free_endpoint()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TEMPMAIL_")}
    environment = inherited | {
        "TEMPMAIL_SERVER_HOST": http.host,
        "TEMPMAIL_SERVER_PORT": str(http.port),
        "TEMPMAIL_SMTP_BIND_ADDR": str(smtp),
        "TEMPMAIL_DATA_DIR": str(work / "data"),
        "TEMPMAIL_WORKERS": str(plan.workers),
        "TEMPMAIL_MAILBOX_MAX_MESSAGES": "0",
        "TEMPMAIL_RATE_LIMIT_EXEMPT": "127.0.0.0/8,::1",
        "TEMPMAIL_LOG_LEVEL": "warning",
    }
    environment |= {f"TEMPMAIL_{name}": value for name, value in plan.settings.items()}
    command = [sys.executable, "-m", "server", "serve"]
    with running(command, work / "server.log", lambda: _is_ready(http), environment) as pid:
        yield Target(http, smtp, pid, plan.workers)


def make_administrator(work: Path) -> tuple[str, str]:
    """Email and password of a new super user of the server that ``own_server`` runs in ``work``."""
    email, password = f"{secrets.token_hex(8)}@example.org", secrets.token_hex(16)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TEMPMAIL_")}
    done = subprocess.run(
        [sys.executable, "-m", "server", "admin", "create", email],
        cwd=_ROOT,
        env=inherited | {"TEMPMAIL_DATA_DIR": str(work / "data")},
        input=f"{password}\n",
        capture_output=True,
        text=True,
        timeout=_BOOT_SECONDS,
        check=False,
    )
    if done.returncode:
        raise LaunchError(f"no administrator was made: {done.stderr.strip()[-500:]}")
    return email, password
