"""Where load may be aimed: parsing of ``--http`` and ``--smtp``, and the refusal of any host that is not this one.

Must not know: what is sent there.
"""

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit


class TargetError(ValueError):
    """The target is malformed, unknown, or not this machine; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A TCP address: ``host`` is an IP literal, resolved once, so that what was checked is what is connected to."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def base_url(self) -> str:
        """``http://host:port`` without a slash at the end."""
        return f"http://{self}"


@dataclass(frozen=True, slots=True)
class Target:
    """A running installation. ``pid`` is its supervisor when the bench started it: then CPU and memory can be read."""

    http: Endpoint
    smtp: Endpoint
    pid: int | None = None
    workers: int | None = None


def resolve(host: str, port: int, owned: bool) -> Endpoint:
    """Look the host up and return its first address.

    TargetError when it is unknown, or when any of its addresses is not loopback and ``owned`` is false.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TargetError(f"{host}: {error.strerror}") from error
    addresses = [str(item[4][0]) for item in found]
    if not owned and not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        raise TargetError(f"{host} is not this machine: load goes to loopback only, unless --i-own-this-target")
    return Endpoint(addresses[0], port)


def http_target(url: str, owned: bool) -> Endpoint:
    """Parse ``http://host[:port]``; TargetError when it is anything else (the generators speak plain HTTP)."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
        raise TargetError(f"{url!r} is not http://host:port")
    return resolve(parts.hostname, parts.port or 80, owned)


def smtp_target(text: str, owned: bool) -> Endpoint:
    """Parse ``host:port``; TargetError when it is anything else."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise TargetError(f"{text!r} is not host:port")
    return resolve(host.strip("[]"), int(port), owned)
