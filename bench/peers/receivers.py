"""Other people's servers to stand beside ours: smtp-sink, aiosmtpd's Mailbox, Postfix to Maildir, a bare aiohttp
route, nginx `return 200`.

Lives here: their configuration and how to count what they stored. Must not know: our server, or how load is made.
"""

import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from bench.peers.servers import READY
from bench.tools.launch import LaunchError, accepts, free_endpoint, require_program, running
from bench.tools.target import Endpoint

DOMAIN = "bench.test"


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Receiver:
    """Something that takes mail.

    ``stored`` counts the messages it holds now, and is None for one that keeps none; ``clear`` empties it between runs.
    ``pids`` are the roots of its process trees, empty when it was started by someone else.
    """

    name: str
    smtp: Endpoint
    recipients: tuple[str, ...]
    pids: tuple[int, ...] = ()
    stored: Callable[[], int] | None = None
    clear: Callable[[], None] = field(default=_nothing)


def _says_ready(log: Path) -> bool:
    return READY in log.read_text()


def _maildir_files(maildir: Path) -> list[Path]:
    return [Path(entry.path) for part in ("new", "cur") for entry in os.scandir(maildir / part)]


def _empty(maildir: Path) -> None:
    for path in _maildir_files(maildir):
        path.unlink()


def _make_maildir(path: Path) -> Path:
    for part in ("tmp", "new", "cur"):
        (path / part).mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def smtp_sink(work: Path) -> Iterator[Receiver]:
    """Postfix's smtp-sink: C, discards; the ceiling for one process that speaks SMTP."""
    endpoint = free_endpoint()
    command = [require_program("smtp-sink", "postfix"), "-h", "mx.bench.test"]
    if os.geteuid() == 0:
        command += ["-u", "nobody"]
    command += [str(endpoint), "4096"]
    with running(command, work / "smtp-sink.log", lambda: accepts(endpoint)) as pid:
        yield Receiver("smtp-sink", endpoint, (f"box@{DOMAIN}",), (pid,))


@contextmanager
def aiosmtpd_mailbox(work: Path) -> Iterator[Receiver]:
    """aiosmtpd with its Mailbox handler on uvloop, one process."""
    endpoint, maildir = free_endpoint(), _make_maildir(work / "aiosmtpd-maildir")
    command = [sys.executable, "-m", "bench.peers.servers", "aiosmtpd", str(endpoint.port), str(maildir)]
    log = work / "aiosmtpd.log"
    with running(command, log, partial(_says_ready, log)) as pid:
        yield Receiver(
            "aiosmtpd-mailbox",
            endpoint,
            (f"box@{DOMAIN}",),
            (pid,),
            lambda: len(_maildir_files(maildir)),
            lambda: _empty(maildir),
        )


@contextmanager
def aiosmtpd_sink(work: Path) -> Iterator[Receiver]:
    """aiosmtpd with its Sink handler, which discards, on uvloop, one process."""
    endpoint, log = free_endpoint(), work / "aiosmtpd-sink.log"
    command = [sys.executable, "-m", "bench.peers.servers", "aiosmtpd-sink", str(endpoint.port)]
    with running(command, log, partial(_says_ready, log)) as pid:
        yield Receiver("aiosmtpd-sink", endpoint, (f"box@{DOMAIN}",), (pid,))


_MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.{domain}
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
alias_maps =
alias_database =
maillog_file = {log}
maillog_file_prefixes = {home}
virtual_mailbox_domains = {domain}
virtual_mailbox_base = {home}/mail
virtual_mailbox_maps = static:box/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
virtual_mailbox_limit = 0
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_peername_lookup = {lookup}
message_size_limit = 33554432
"""

_MASTER_CF = """\
{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
postlog unix-dgram n - n - 1 postlogd
"""


def _postfix_home(home: Path, endpoint: Endpoint, *, tuned: bool) -> Path:
    """Lay out a private Postfix; returns the Maildir it will deliver to."""
    user = pwd.getpwnam("postfix")
    nobody = pwd.getpwnam("nobody")
    for part in ("config", "queue", "data", "mail"):
        (home / part).mkdir(parents=True)
    os.chown(home / "data", user.pw_uid, user.pw_gid)
    os.chown(home / "mail", nobody.pw_uid, nobody.pw_gid)
    maildir = _make_maildir(home / "mail" / "box")
    for path in (maildir, *maildir.iterdir()):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    values = {"home": home, "domain": DOMAIN, "uid": nobody.pw_uid, "gid": nobody.pw_gid}
    values |= {"log": "", "lookup": "no"} if tuned else {"log": home / "log", "lookup": "yes"}
    (home / "config" / "main.cf").write_text(_MAIN_CF.format(**values))
    (home / "config" / "master.cf").write_text(_MASTER_CF.format(port=endpoint))
    return maildir


@contextmanager
def postfix(work: Path, *, tuned: bool) -> Iterator[Receiver]:
    """A private Postfix that delivers to a Maildir: queue file and delivery both synced; needs root.

    As it comes it logs every message and looks the client's name up; ``tuned`` it does neither, which no installation
    that must answer for its mail would do, but which shows what the rest costs.
    """
    program, master = require_program("postfix", "postfix"), "/usr/lib/postfix/sbin/master"
    if os.geteuid() != 0:
        raise LaunchError("Postfix can only be started by root")
    endpoint, home = free_endpoint(), work / ("postfix-tuned" if tuned else "postfix")
    maildir = _postfix_home(home, endpoint, tuned=tuned)
    checked = subprocess.run(
        [program, "-c", str(home / "config"), "check"], capture_output=True, text=True, timeout=30, check=False
    )
    if checked.returncode:
        raise LaunchError(f"postfix check: {checked.stderr.strip()[-500:]}")
    # The master itself, in the foreground: it ends its daemons on SIGTERM, which `postfix start-fg` does not pass on.
    command = [master, "-d", "-c", str(home / "config")]
    with running(command, work / "postfix.log", lambda: accepts(endpoint)) as pid:
        yield Receiver(
            "postfix-tuned" if tuned else "postfix-maildir",
            endpoint,
            (f"box@{DOMAIN}",),
            (pid,),
            lambda: len(_maildir_files(maildir)),
            lambda: _empty(maildir),
        )


RECEIVERS: Final[dict[str, Callable[[Path], AbstractContextManager[Receiver]]]] = {
    "smtp-sink": smtp_sink,
    "aiosmtpd-mailbox": aiosmtpd_mailbox,
    "postfix-maildir": partial(postfix, tuned=False),
    "postfix-tuned": partial(postfix, tuned=True),
}


@contextmanager
def bare_aiohttp(work: Path, workers: int, path: str, body: bytes) -> Iterator[tuple[Endpoint, tuple[int, ...]]]:
    """``workers`` processes that answer ``path`` with ``body`` on one SO_REUSEPORT port; yields it and their pids."""
    endpoint = free_endpoint()
    stored = work / "aiohttp-body"
    stored.write_bytes(body)
    command = [sys.executable, "-m", "bench.peers.servers", "aiohttp", str(endpoint.port), path, str(stored)]
    with ExitStack() as stack:
        pids = []
        for number in range(workers):
            log = work / f"aiohttp-{number}.log"
            pids.append(stack.enter_context(running(command, log, partial(_says_ready, log))))
        yield endpoint, tuple(pids)


_NGINX_CONF = """\
worker_processes {workers};
daemon off;
pid {home}/pid;
error_log {home}/error.log;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    server_tokens off;
    keepalive_requests 1000000000;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    server {{
        listen {endpoint} reuseport;
        location / {{
            default_type "application/json; charset=utf-8";
            return 200 '{body}';
        }}
    }}
}}
"""
_NGINX_WORD_MAX = 4000  # bytes of one word of its configuration


@contextmanager
def nginx_return(work: Path, workers: int, body: bytes) -> Iterator[tuple[Endpoint, tuple[int, ...]]]:
    """nginx with ``workers`` processes that answers everything with ``body``, out of its configuration: no look-up, no
    file; yields its endpoint and pid."""
    if len(body) > _NGINX_WORD_MAX or any(char in body for char in b"'\\$"):
        raise LaunchError(f"nginx cannot be told to return these {len(body)} bytes")
    program, home, endpoint = require_program("nginx", "nginx-light"), work / "nginx", free_endpoint()
    home.mkdir()
    text = _NGINX_CONF.format(workers=workers, home=home, endpoint=endpoint, body=body.decode())
    (home / "nginx.conf").write_text(text)
    command = [program, "-p", str(home), "-c", str(home / "nginx.conf"), "-e", str(home / "error.log")]
    with running(command, work / "nginx.log", lambda: accepts(endpoint)) as pid:
        yield endpoint, (pid,)
