"""Receivers from npm beside ours: Haraka, smtp-server, maildev; started only when asked for.

They are installed with npm into ``bench/.cache/npm``, which git does not see, at the first use. All of them discard or
hold mail in memory: none promises anything once it has said 250. Must not know: our server, or how load is made.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from bench.peers.receivers import DOMAIN, Receiver, aiosmtpd_sink
from bench.tools.launch import LaunchError, accepts, free_endpoint, require_program, running
from bench.tools.target import Endpoint

CACHE: Final = Path(__file__).parents[1] / ".cache" / "npm"
PACKAGES: Final = {"haraka": "Haraka@3.3.4", "smtp-server": "smtp-server@3.21.6", "maildev": "maildev@2.2.1"}
_INSTALL_SECONDS: Final = 240


def _installed(name: str) -> Path:
    """The folder of a package and its dependencies, installed first where it is not."""
    home, wanted = CACHE / name, PACKAGES[name]
    package, _, version = wanted.rpartition("@")
    manifest = home / "node_modules" / package / "package.json"
    if manifest.exists() and json.loads(manifest.read_bytes())["version"] == version:
        return home / "node_modules"
    home.mkdir(parents=True, exist_ok=True)
    command = [require_program("npm", "npm"), "install", "--prefix", str(home), "--no-package-lock", "--no-audit"]
    command += ["--no-fund", "--omit=dev", "--ignore-scripts", wanted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    if done.returncode:
        raise LaunchError(f"npm could not install {wanted}: {done.stderr.strip()[-500:]}")
    return home / "node_modules"


_HARAKA: Final = {
    "smtp.ini": "listen={endpoint}\nnodes=0\ndaemonize=false\n",
    "plugins": "rcpt_to.in_host_list\nqueue/discard\n",
    "host_list": f"{DOMAIN}\n",
    "me": "mx.bench.test\n",
    "log.ini": "[main]\nlevel=ERROR\nformat=DEFAULT\n",
}


def _haraka(work: Path, modules: Path, endpoint: Endpoint) -> list[str]:
    """One process, no plugin but the two that any installation needs: who is served, and where mail goes."""
    home = work / "haraka"
    (home / "config").mkdir(parents=True)
    for name, text in _HARAKA.items():
        (home / "config" / name).write_text(text.format(endpoint=endpoint))
    shutil.copy(
        modules / "Haraka" / "config" / "connection.ini", home / "config"
    )  # it reads no other for what this lacks
    return [require_program("node", "nodejs"), str(modules / "Haraka" / "bin" / "haraka"), "-c", str(home)]


_SMTP_SERVER: Final = """\
const { SMTPServer } = require(process.argv[2]);
new SMTPServer({ authOptional: true, disableReverseLookup: true, disabledCommands: ['AUTH', 'STARTTLS'],
  maxClients: 10000,
  onData(stream, session, callback) { stream.on('end', () => callback(null, 'discarded')); stream.resume(); },
}).listen(Number(process.argv[3]), '127.0.0.1');
"""


def _smtp_server(work: Path, modules: Path, endpoint: Endpoint) -> list[str]:
    """Nodemailer's library, told to read mail and forget it."""
    script = work / "smtp-server.js"
    script.write_text(_SMTP_SERVER)
    return [require_program("node", "nodejs"), str(script), str(modules / "smtp-server"), str(endpoint.port)]


def _maildev(work: Path, modules: Path, endpoint: Endpoint) -> list[str]:
    """The mail catcher as it comes, without its pages: it parses each message and keeps it in memory and a file."""
    kept = work / "maildev"
    kept.mkdir()
    command = [require_program("node", "nodejs"), str(modules / "maildev" / "bin" / "maildev"), "--disable-web"]
    return [*command, "--silent", "--ip", endpoint.host, "-s", str(endpoint.port), "--mail-directory", str(kept)]


@contextmanager
def _receiver(
    name: str, command: Callable[[Path, Path, Endpoint], list[str]], shown: str, work: Path
) -> Iterator[Receiver]:
    endpoint = free_endpoint()
    made = command(work, _installed(name), endpoint)
    environment = {**os.environ, "YES_REALLY_DO_DISCARD": "1", "NODE_ENV": "production"}  # the first is Haraka's
    with running(made, work / f"{name}.log", lambda: accepts(endpoint), environment) as pid:
        yield Receiver(shown, endpoint, (f"box@{DOMAIN}",), (pid,))


ON_REQUEST: Final[dict[str, Callable[[Path], AbstractContextManager[Receiver]]]] = {
    "aiosmtpd-sink": aiosmtpd_sink,
    "haraka": partial(_receiver, "haraka", _haraka, "haraka-discard"),
    "smtp-server": partial(_receiver, "smtp-server", _smtp_server, "smtp-server-discard"),
    "maildev": partial(_receiver, "maildev", _maildev, "maildev"),
}
