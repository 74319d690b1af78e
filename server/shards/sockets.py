"""Listening sockets, one HTTP and, where mail is taken, one SMTP socket per worker slot, bound before the fork and kept
across workers.

Lives here: binding, and what to tell the administrator when it fails.
Must not know: who accepts on them. Whoever does must pass ``backlog=BACKLOG`` on: listening again with a smaller number
shrinks the queue of the socket for all who share it.

Each slot has a socket of its own (SO_REUSEPORT; the kernel spreads connections over them), so what waits in the
backlog of a dead worker waits for its successor. SO_REUSEPORT would as silently let a second server in: a trial bind
without it finds that one out. Sockets that the service manager kept while we restarted are taken up again, so that
nobody was refused meanwhile; one that no slot takes up must not stay, for the kernel would go on filling its backlog.
"""

import errno
import itertools
import os
import re
import socket
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.config.parsing import Address
from server.config.settings import PREFIX, Config, ConfigError

BACKLOG: Final = 4096
_UNIX_UMASK: Final = 0o117  # the socket's mode is 0660 from its first moment on
_PRIVILEGED: Final = 1024
_TCP_LISTEN: Final = "0A"  # include/net/tcp_states.h, as /proc/net/tcp shows it


@dataclass(frozen=True, slots=True)
class SlotSockets:
    """The listening, non-blocking sockets of one slot."""

    http: socket.socket
    smtp: socket.socket | None = None
    lmtp: socket.socket | None = None

    def _all(self) -> list[socket.socket]:
        return [sock for sock in (self.http, self.smtp, self.lmtp) if sock is not None]

    def named(self, slot: int) -> dict[str, socket.socket]:
        """The sockets by the names under which a service manager keeps them."""
        named = {"http": self.http, "smtp": self.smtp, "lmtp": None if slot else self.lmtp}  # all slots share the last
        return {f"{kind}.{slot}": sock for kind, sock in named.items() if sock is not None}

    def close(self) -> None:
        """Drop this process's copies."""
        for sock in self._all():
            sock.close()

    def withdraw(self, *, kept: bool = False) -> None:
        """Close for good: the paths of unix sockets go too, unless the sockets are ``kept`` by someone else."""
        for sock in self._all():
            if kept:
                sock.close()
            else:
                _withdraw(sock)


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """An address and the settings to name when it cannot be had."""

    address: Address
    host_setting: str
    port_setting: str

    def refused(self, setting: str, problem: str) -> ConfigError:
        return ConfigError(f"{PREFIX}{setting}: {self.address}: {problem}")


def bind_slots(config: Config, count: int, kept: Mapping[str, socket.socket] | None = None) -> list[SlotSockets]:
    """Bind ``count`` sockets for ``config.http``, and as many for ``config.smtp`` where the node takes mail; port 0 is
    chosen once and shared by all slots. LMTP has one socket, whose connections whichever slot is free takes.

    A unix socket's path gets ``.N`` appended, N the slot, when there are several. ``kept`` sockets, by the names of
    ``SlotSockets.named``, serve again where the address is still theirs. ConfigError names setting and remedy.
    """
    bound = [_bind(_Endpoint(config.http, "SERVER_HOST", "SERVER_PORT"), _of("http", count, kept))]
    if "smtp" not in config.roles:
        return [SlotSockets(sock) for sock in bound[0]]
    try:
        bound.append(_bind(_Endpoint(config.smtp, "SMTP_BIND_ADDR", "SMTP_BIND_ADDR"), _of("smtp", count, kept)))
        if config.lmtp is not None:
            lmtp = _Endpoint(config.lmtp, "LMTP_BIND_ADDR", "LMTP_BIND_ADDR")
            bound.append(_shared(_bind(lmtp, _of("lmtp", 1, kept)), count))
    except ConfigError:
        for sock in itertools.chain(*bound):
            _withdraw(sock)
        raise
    return [SlotSockets(*sockets) for sockets in zip(*bound, strict=True)]


def _shared(bound: list[socket.socket], count: int) -> list[socket.socket]:
    """One listening socket for all slots, because whoever connects to a path knows one path."""
    return bound + [bound[0].dup() for _ in range(count - 1)]


_Kept = list[socket.socket | None]
"""What was kept for each slot."""


def _of(kind: str, count: int, kept: Mapping[str, socket.socket] | None) -> _Kept:
    return [(kept or {}).get(f"{kind}.{slot}") for slot in range(count)]


def _bind(endpoint: _Endpoint, kept: _Kept) -> list[socket.socket]:
    bound: list[socket.socket] = []
    try:
        for sock in _unix(endpoint, kept) if endpoint.address.path else _tcp(endpoint, kept):
            bound.append(sock)  # noqa: PERF402 - what was bound before a failure must be let go
    except OSError as error:
        for sock in bound:
            _withdraw(sock)
        raise _explained(endpoint, error) from error
    return bound


def _tcp(endpoint: _Endpoint, kept: _Kept) -> Iterator[socket.socket]:
    family, host = _resolved(endpoint)
    port = endpoint.address.port
    ours = [sock for sock in kept if sock is not None and _stands(sock, family, host, port)]
    if ours:
        port = ours[0].getsockname()[1]
    elif port:
        _tcp_socket(family, host, port, shared=False).close()
    for old in kept:
        if old is not None and old in ours and old.getsockname()[1] == port:
            yield old
            continue
        sock = _tcp_socket(family, host, port, shared=True)
        sock.listen(BACKLOG)
        port = sock.getsockname()[1]
        yield sock


def _stands(sock: socket.socket, family: int, host: str, port: int) -> bool:
    """Whether a kept socket listens where it is wanted."""
    return sock.family == family and sock.getsockname()[0] == host and port in (0, sock.getsockname()[1])


def _resolved(endpoint: _Endpoint) -> tuple[int, str]:
    host = endpoint.address.host.strip("[]")
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise endpoint.refused(endpoint.host_setting, f"unknown host ({error.strerror})") from error
    return found[0][0], str(found[0][4][0])


def _tcp_socket(family: int, host: str, port: int, *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # "::" serves IPv4 as well
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def _unix(endpoint: _Endpoint, kept: _Kept) -> Iterator[socket.socket]:
    for slot, old in enumerate(kept):
        path = f"{endpoint.address.path}.{slot}" if len(kept) > 1 else endpoint.address.path
        reachable = (
            old is not None and old.family == socket.AF_UNIX and old.getsockname() == path and os.path.exists(path)
        )
        yield old if old is not None and reachable else _unix_socket(path)


def _unix_socket(path: str) -> socket.socket:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(_UNIX_UMASK)
    try:
        sock.setblocking(False)
        sock.bind(path)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def _remove_stale(path: str) -> None:
    """Remove the socket a killed server left at ``path``; OSError EADDRINUSE if someone still answers there."""
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise OSError(errno.EEXIST, "is there and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        answer = probe.connect_ex(path)
    if answer != errno.ECONNREFUSED:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    os.unlink(path)


def _withdraw(sock: socket.socket) -> None:
    if sock.family == socket.AF_UNIX and sock.fileno() >= 0:
        # before closing: while we still listen nobody takes the path for a stale one and binds what we then remove
        Path(sock.getsockname()).unlink(missing_ok=True)
    sock.close()


def _explained(endpoint: _Endpoint, error: OSError) -> ConfigError:
    address, port_setting, host_setting = endpoint.address, endpoint.port_setting, endpoint.host_setting
    if error.errno == errno.EADDRINUSE:
        holder = None if address.path else _holder(address.port)
        who = f"process {holder}" if holder else "another process"
        where = "path" if address.path else "port"
        return endpoint.refused(
            host_setting if address.path else port_setting,
            f"address already in use by {who}; if that is another tempmail stop it, else choose another {where}",
        )
    if error.errno == errno.EACCES and not address.path and address.port < _PRIVILEGED:
        return endpoint.refused(
            port_setting,
            f"ports below {_PRIVILEGED} need a privilege: under systemd AmbientCapabilities=CAP_NET_BIND_SERVICE, "
            "elsewhere start as root, or choose a higher port and redirect to it",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return endpoint.refused(host_setting, "no interface of this host has that address; 0.0.0.0 or [::] takes all")
    return endpoint.refused(host_setting, error.strerror or str(error))


def _holder(port: int) -> int | None:
    """The process that listens on TCP ``port``, the oldest if several share it; None if /proc does not say."""
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    holders = {int(link.parts[2]) for link in Path("/proc").glob("[0-9]*/fd/*") if _target(link) in wanted}
    return min(holders, default=None)


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:  # closed since it was listed, or not ours to read
        return ""


def _listening_inodes(port: int) -> Iterator[str]:
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if not table.exists():  # a kernel without IPv6
            continue
        for line in table.read_text().splitlines()[1:]:
            fields = re.split(r"\s+", line.strip())
            if fields[3] == _TCP_LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]
