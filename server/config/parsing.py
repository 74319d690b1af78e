"""How the text of a setting becomes a value: numbers, durations, addresses, names.

Must not know: which settings there are. Every function raises ValueError whose text says what would be right.
"""

import ipaddress
import re
from collections.abc import Callable
from typing import Final

import msgspec

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Address(msgspec.Struct, frozen=True):
    """A TCP address to listen on, or a unix socket when ``path`` is set."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def text(value: str) -> str:
    return value.strip()


def integer(value: str) -> int:
    if not re.fullmatch(r"\s*-?\d{1,18}\s*", value):
        raise ValueError(f"{value!r} is not a whole number")
    return int(value)


def count(value: str) -> int:
    """A whole number of things, 0 included."""
    if integer(value) < 0:
        raise ValueError(f"{value.strip()} is less than 0")
    return int(value)


def positive(value: str) -> int:
    if integer(value) < 1:
        raise ValueError(f"{value.strip()} is less than 1")
    return int(value)


def port(value: str) -> int:
    if not 0 <= integer(value) <= 65535:
        raise ValueError(f"{value} is not between 0 and 65535")
    return int(value)


def host_name(value: str) -> str:
    name = value.strip().rstrip(".")
    if len(name) > 253 or not re.fullmatch(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*", name):
        raise ValueError(f"{value!r} is not a host name such as mx.example.net")
    return name


def name_servers(value: str) -> tuple[str, ...]:
    """``address`` or ``address:port``, IPv6 in brackets where a port follows."""
    for item in names(value):
        address = re.fullmatch(r"\[([^\]]+)\](?::\d{1,5})?|([^:]+)(?::\d{1,5})?|(.*:.*:.*)", item)
        try:
            ipaddress.ip_address(next(filter(None, address.groups())) if address else item)
        except ValueError:
            raise ValueError(f"{item!r} is not an address such as 192.0.2.53 or 192.0.2.53:5353") from None
    return names(value)


_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(value: str) -> float:
    """``90``, ``90s``, ``15m``, ``48h``, ``7d`` or a sum like ``1h30m`` in seconds; ValueError when malformed."""
    value = value.strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", value)
    if not parts or "".join(n + u for n, u in parts) != value:
        raise ValueError(f"{value!r} is not a duration such as 30s, 15m, 48h or 7d")
    return sum(float(n) * _UNITS[u] for n, u in parts)


def span(value: str) -> float:
    """A duration that is not nothing."""
    if not (seconds := duration(value)):
        raise ValueError(f"{value.strip()} is no time at all; a duration such as 30s or 15m")
    return seconds


def duration_text(seconds: float) -> str:
    """The largest unit that says it in a whole number: ``15m``, ``500ms``; what ``duration`` reads as the same."""
    for unit, size in reversed(_UNITS.items()):
        if seconds and round(seconds / size, 6).is_integer():
            return f"{round(seconds / size)}{unit}"
    return f"{seconds:g}s"


def boolean(value: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if value.strip().lower() not in known:
        raise ValueError(f"{value!r} is not true or false")
    return known[value.strip().lower()]


def names(value: str) -> tuple[str, ...]:
    return tuple(item for item in (part.strip() for part in value.split(",")) if item)


def node(value: str) -> str:
    """``host:port``, IPv6 in brackets; the port is Redis's where none is given."""
    value = value.strip()
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::(\d{1,5}))?", value)
    if value and not found:
        raise ValueError(f"{value!r} is not host:port such as redis.example.net:6379")
    return f"{found[1]}:{found[2] or 6379}" if found else ""


def nodes(value: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(node(item) for item in names(value)))


def queue_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", value.strip()):
        raise ValueError(f"{value!r} is not a name of letters, digits, dots, dashes and underscores")
    return value.strip()


def domains(value: str) -> tuple[str, ...]:
    found = tuple(name.lower().rstrip(".") for name in names(value))
    for name in found:
        if len(name) > 253 or not re.fullmatch(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})+", name):
            raise ValueError(f"{name!r} is not a domain name such as temp.mail (non-ASCII names: give the xn-- form)")
    return found


def mailbox(value: str) -> str:
    address = value.strip().lower()
    if address and not re.fullmatch(r"[a-z0-9]+(?:[._-][a-z0-9]+)*@[a-z0-9.-]+", address):
        raise ValueError(f"{address!r} is not an address such as postmaster@temp.mail")
    return address


def durations(value: str) -> tuple[float, ...]:
    return tuple(duration(item) for item in names(value))


def networks(value: str) -> tuple[Network, ...]:
    try:
        return tuple(_plain(ipaddress.ip_network(item, strict=False)) for item in names(value))
    except ValueError as error:
        raise ValueError(f"{error}, such as 10.0.0.0/8 or ::1") from None


def _plain(network: Network) -> Network:
    """IPv4 written as IPv6 (``::ffff:10.0.0.0/104``) is IPv4: that is how clients' addresses are compared."""
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is None or network.prefixlen < 96:
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - 96))


def address(value: str) -> Address:
    value = value.strip()
    if value.startswith("unix:"):
        return Address(path=value.removeprefix("unix:"))
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{value!r} is not host:port, :port or unix:/path")
    return Address(host=host.strip("[]") or "0.0.0.0", port=int(port))


def optional_address(value: str) -> Address | None:
    return address(value) if value.strip() else None


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def size_text(size: int) -> str:
    """Bytes as people read them: ``0 B``, ``512 B``, ``1.5 MiB``."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def public_url(value: str) -> str:
    """An http or https URL without a slash at its end, a query or a fragment; empty for none."""
    value = value.strip().rstrip("/")
    if value and not re.fullmatch(r"https?://[A-Za-z0-9.\-:\[\]]+(?:/[A-Za-z0-9._~\-]+)*", value):
        raise ValueError(f"{value!r} is not a URL such as https://example.org or https://example.org/mail")
    return value


def is_global(host: str) -> bool:
    """Whether it is an address that the Internet reaches. One for all interfaces, or a name, says nothing."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return False


def one_of(*allowed: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.strip().lower() not in allowed:
            raise ValueError(f"{value!r} is not one of {', '.join(allowed)}")
        return value.strip().lower()

    return parse
