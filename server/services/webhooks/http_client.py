"""Requests to addresses that users chose, made so that they reach nothing but the public Internet.

Lives here: which URLs and addresses are allowed, and the one way out. Must not know: what is sent, or when again.

The defence (OWASP calls the attack SSRF): a host is resolved here, every address it has is checked against an explicit
list, and the connection goes to a checked address as a literal, so nothing resolves a second time and rebinding gains
nothing. No redirect is followed, no proxy, cookie or netrc of the environment is used, nothing is decompressed, and of
the answer no more than a few kilobytes are read, within a deadline over everything.
"""

import asyncio
import ipaddress
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NamedTuple

import aiohttp
import idna
from yarl import URL

from server.config.parsing import Network
from server.model.errors import Refused, Unavailable
from server.model.webhook import Outcome

TIMEOUT: Final = 10.0  # s for everything: DNS, connecting, TLS, sending, status and headers
CONNECT_TIMEOUT: Final = 4.0  # s of it until the next address of the host is tried
BODY_TIMEOUT: Final = 2.0  # s of it that the answer's body may take; by then the status has said all that counts
BODY_KEPT: Final = 4096  # bytes of the answer's body that are read
URL_MAX: Final = 2048
_ADDRESSES_TRIED: Final = 3  # of one host, one after the other

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_V4: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # "this network", RFC 791: the host itself to many systems
        "10.0.0.0/8",  # private, RFC 1918
        "100.64.0.0/10",  # carrier-grade NAT, RFC 6598
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's metadata under a public address
        "169.254.0.0/16",  # link-local, RFC 3927: where clouds keep their metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments, RFC 6890
        "192.0.2.0/24",  # documentation, RFC 5737
        "192.88.99.0/24",  # 6to4 relays, RFC 7526
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks, RFC 2544
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and 255.255.255.255
    )
)
_V6: Final = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "::/3",  # unspecified, loopback, IPv4-compatible, local NAT64 (64:ff9b:1::/48), discard (100::/64), unassigned
        "2001::/23",  # protocol assignments, RFC 2928: Teredo (2001::/32), benchmarks, ORCHID
        "2001:db8::/32",  # documentation, RFC 3849
        "2002::/16",  # 6to4, RFC 7526: an IPv4 address inside, and no relay that anybody should use
        "3fff::/20",  # documentation, RFC 9637
        "4000::/2",  # unassigned
        "8000::/1",  # unassigned, unique local fc00::/7, link-local fe80::/10, site-local fec0::/10, multicast ff00::/8
    )
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: reaches the IPv4 address in its last 32 bits

# Besides 80 and 443 nothing below 1024, and of the rest none of those that browsers refuse (the Fetch standard, section
# "bad ports"): services that take a POST for a dialogue of their own.
_BAD_PORTS: Final = frozenset(
    {1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, *range(6665, 6670), 6679, 6697, 10080}
)
_SHAPE: Final = re.compile(
    r"(https?)://(\[[0-9A-Fa-f:.]+\]|[^\s/?#\\@:%\[\]]+)(?::([0-9]{1,5}))?([/?][!\"$-\[\]-~]*)?", re.I
)
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"0x[0-9a-f]*|[0-9]+")

Resolve = Callable[[str], Awaitable[Sequence[str]]]


class Target(NamedTuple):
    """A URL taken apart. ``host``: ASCII, lower case, no final dot. ``literal``: the address it is, if it is one."""

    secure: bool
    host: str
    port: int
    path: str
    literal: Address | None

    @property
    def place(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"


def effective(address: Address) -> Address:
    """The address that would be reached: IPv4 where IPv6 only wraps it (mapped, or through NAT64)."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(address.packed[12:])
    return address


def forbidden(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether nothing may be sent there; ``allowed`` networks are exceptions."""
    real = effective(address)
    if any(real in network for network in allowed):
        return False
    denied: Sequence[Network] = _V4 if isinstance(real, ipaddress.IPv4Address) else _V6
    return any(real in network for network in denied)


def target(url: str, allowed: Sequence[Network]) -> Target:
    """``url`` taken apart and checked, as far as that needs no DNS. Refused field_invalid, naming ``url``."""
    shape = _SHAPE.fullmatch(url) if len(url) <= URL_MAX and url.isprintable() else None
    if shape is None:
        raise _invalid("http or https, host, port, path and query, and no credentials")
    secure = shape[1].lower() == "https"
    port = int(shape[3]) if shape[3] else (443 if secure else 80)
    if not (port in (80, 443) or 1024 <= port <= 65535) or port in _BAD_PORTS:
        raise _invalid("port 80, 443 or one from 1024 that no other protocol uses")
    host, literal = _host(shape[2])
    if literal is not None and forbidden(literal, allowed):
        raise _invalid("an address of the public Internet")
    path = shape[4] or ""
    return Target(secure, host, port, path if path.startswith("/") else "/" + path, literal)


def _invalid(detail: str) -> Refused:
    return Refused("field_invalid", detail, field="url")


def _host(text: str) -> tuple[str, Address | None]:
    if text.startswith("["):
        try:
            address = ipaddress.IPv6Address(text[1:-1])
        except ValueError as error:
            raise _invalid("an IPv6 address between the brackets") from error
        return str(address), address
    name = _ascii(text)
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):  # the URL standard, "ends in a number": an address in some notation, or nothing
        four = _ipv4(labels)
        return str(four), four
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _invalid("a host name")
    if labels[-1] == "localhost":
        raise _invalid("a host of the public Internet")
    return name, None


def _ascii(text: str) -> str:
    """Lower case, A-labels, full-width digits and dots made plain, no final dot."""
    try:
        name = text.lower() if text.isascii() else idna.encode(text, uts46=True).decode()
    except idna.IDNAError as error:
        raise _invalid("a host name") from error
    return name.removesuffix(".")


def _ipv4(labels: Sequence[str]) -> ipaddress.IPv4Address:
    """As inet_aton and browsers read it: up to four numbers, decimal, octal or hex; the last fills what is left."""
    try:
        numbers = [_number(label) for label in labels]
        *first, last = numbers
        if len(numbers) > 4 or any(number > 255 for number in first) or last >= 256 ** (5 - len(numbers)):
            raise ValueError(labels)
        return ipaddress.IPv4Address(sum(number << 8 * (3 - place) for place, number in enumerate(first)) + last)
    except ValueError as error:
        raise _invalid("a host name or an address") from error


def _number(label: str) -> int:
    if label.startswith("0x"):
        return int(label[2:] or "0", 16)
    return int(label, 8) if len(label) > 1 and label.startswith("0") else int(label)


class NotAllowed(Exception):
    """The host leads where nothing may be sent. The text is for whoever chose the host, and names no address."""


class Outbound:
    """The way out. ``allowed`` networks are exceptions to the deny list, ``timeout`` (s) covers one request whole.

    To be made inside a running loop.
    """

    def __init__(self, resolve: Resolve, allowed: Sequence[Network], timeout: float = TIMEOUT) -> None:
        self._resolve, self._allowed, self._timeout = resolve, tuple(allowed), timeout
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0, use_dns_cache=False),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            raise_for_status=False,
            read_bufsize=2 * BODY_KEPT,
        )

    def target(self, url: str) -> Target:
        return target(url, self._allowed)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """Send it, once. Whatever becomes of it is an outcome: nothing is raised but cancellation."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                status, text = await self._post(self.target(url), body, headers)
        except TimeoutError:
            return Outcome(_since(began), error=f"no answer within {self._timeout:g} s")
        except Refused as refused:
            return Outcome(_since(began), error=f"the URL is not allowed: {refused.detail}")
        except NotAllowed as error:
            return Outcome(_since(began), error=str(error))
        except Unavailable:
            return Outcome(_since(began), error="the host could not be resolved")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome(_since(began), error=_explained(error))
        return Outcome(_since(began), status_code=status, response=text)

    async def _post(self, where: Target, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        addresses = await self._addresses(where)
        for address in addresses[:-1]:
            try:
                return await self._post_to(address, where, body, headers)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):  # nothing was sent: try the next
                continue
        return await self._post_to(addresses[-1], where, body, headers)

    async def _addresses(self, where: Target) -> list[Address]:
        """What may be connected to: every address of the host, if every one of them is allowed."""
        if where.literal is not None:
            return [where.literal]
        found = [ipaddress.ip_address(text) for text in await self._resolve(where.host)]
        if not found:
            raise NotAllowed("the host has no address")
        if any(forbidden(address, self._allowed) for address in found):
            raise NotAllowed("the host resolves to an address that is not public")
        return found[:_ADDRESSES_TRIED]

    async def _post_to(
        self, address: Address, where: Target, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, str]:
        host = _bracketed(str(address))
        url = URL(f"{'https' if where.secure else 'http'}://{host}:{where.port}{where.path}", encoded=True)
        sent = {"Host": _host_header(where), "Accept-Encoding": "identity", **headers}
        async with self._session.post(
            url,
            data=body,
            headers=sent,
            allow_redirects=False,
            server_hostname=where.host if where.secure else None,
            timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=CONNECT_TIMEOUT),
        ) as response:
            try:
                return response.status, await _beginning(response)
            finally:
                response.close()  # whatever else it would send, to nobody

    async def close(self) -> None:
        await self._session.close()


def _bracketed(host: str) -> str:
    """As a URL has it: IPv6 in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def _host_header(where: Target) -> str:
    host = _bracketed(where.host)
    return host if where.port == (443 if where.secure else 80) else f"{host}:{where.port}"


async def _beginning(response: aiohttp.ClientResponse) -> str:
    """As much of the body as comes in time, undecoded where it is compressed."""
    pieces = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            while len(pieces) < BODY_KEPT and (piece := await response.content.read(BODY_KEPT - len(pieces))):
                pieces += piece
    except (TimeoutError, aiohttp.ClientError, OSError):
        return _text(pieces)  # the status came whole, and it is what counts
    return _text(pieces)


def _text(body: bytearray) -> str:
    return body.decode("utf-8", "replace")


def _explained(error: Exception) -> str:
    """What its owner may know of a failure: its kind, not what our network looks like from inside."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return "the TLS certificate was not accepted, or TLS failed"
    if isinstance(error, aiohttp.ClientConnectorError | ConnectionRefusedError):
        return "could not connect"
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionError):
        return "the connection was closed before an answer came"
    return "the answer was not HTTP, or beyond its bounds"


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
