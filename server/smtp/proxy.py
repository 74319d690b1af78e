"""The PROXY protocol, versions 1 and 2 (HAProxy's specification of 2020): who is behind the proxy that connects.

Lives here: the header, and the protocol that reads it before a session begins. Must not know: commands, or what a
session does with an address. A header is read only from peers that the operator trusts, and from those it is required:
guessing whether one is there would let anyone write it.
"""

import asyncio
import ipaddress
import re
from collections.abc import Callable
from typing import Final, NamedTuple, cast

from server.smtp.connection import Connection, Member
from server.smtp.listener_state import DROPPED, Shared

_V1: Final = b"PROXY "
_V1_MAX: Final = 107  # octets with CR LF, by the specification
_V1_LINE: Final = re.compile(rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f:.]{2,45}) ([0-9A-Fa-f:.]{2,45}) (\d{1,5}) (\d{1,5})")
_V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEAD: Final = 16
_V2_MAX: Final = 4096  # addresses take 216 at most; the rest are TLVs, which say nothing that we need
_LOCAL, _PROXY = 0x20, 0x21  # version 2 and a command
_TCP4, _TCP6, _UNIX = 0x11, 0x21, 0x31


class ProxyError(ValueError):
    """No PROXY header, or one that is malformed."""


class Header(NamedTuple):
    """``size`` octets of header; ``client`` is an IP address, empty for a unix socket's, None where the header speaks
    for no client and the connection's own address stands (a proxy's check of our health)."""

    size: int
    client: str | None


def parse(data: bytes) -> Header | None:
    """The header that ``data`` begins with, None as long as it is not whole. Raises ProxyError."""
    if data[:12] == _V2[: len(data)]:
        return _binary(data) if len(data) >= _V2_HEAD else None
    if data[:6] == _V1[: len(data)]:
        return _text(data)
    raise ProxyError("no PROXY header")


def _text(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, _V1_MAX)
    if end < 0:
        if len(data) >= _V1_MAX:
            raise ProxyError("no end of the header line")
        return None
    line, size = data[:end], end + 2
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return Header(size, None)
    match = _V1_LINE.fullmatch(line)
    if match is None or max(int(match[4]), int(match[5])) > 65535:
        raise ProxyError("malformed header line")
    kind = ipaddress.IPv4Address if match[1] == b"TCP4" else ipaddress.IPv6Address
    try:
        kind(match[3].decode())
        return Header(size, _plain(kind(match[2].decode())))
    except ValueError as error:
        raise ProxyError("malformed address") from error


def _binary(data: bytes) -> Header | None:
    command, family, length = data[12], data[13], int.from_bytes(data[14:16], "big")
    if command not in (_LOCAL, _PROXY) or length > _V2_MAX:
        raise ProxyError("unknown version or command, or too long")
    size = _V2_HEAD + length
    if len(data) < size:
        return None
    if command == _LOCAL or family == 0:
        return Header(size, None)
    return Header(size, _address(family, data[_V2_HEAD:size]))


def _address(family: int, block: bytes) -> str:
    if family == _TCP4 and len(block) >= 12:
        return str(ipaddress.IPv4Address(block[:4]))
    if family == _TCP6 and len(block) >= 36:
        return _plain(ipaddress.IPv6Address(block[:16]))
    if family == _UNIX and len(block) >= 216:
        return ""
    raise ProxyError("addresses of a family that is no stream's, or too short")


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


class Proxied(asyncio.Protocol):
    """Reads the header of one connection, then lets a session have it. The header came in no time from a proxy that is
    well: one that is not there after the read timeout, or is wrong, ends the connection without a word."""

    def __init__(
        self, shared: Shared, sessions: set[Member], trusts: Callable[[str], bool], session: Callable[[], Connection]
    ) -> None:
        self._shared, self._sessions, self._trusts, self._session = shared, sessions, trusts, session
        self._since = shared.now()
        self._buffer = b""
        self._peer = ""
        self._seated = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast(asyncio.Transport, transport)
        peername = transport.get_extra_info("peername")
        self._peer = str(peername[0]) if isinstance(peername, tuple) else ""
        if not self._trusts(self._peer):
            self._hand_over(self._peer)
        elif self._shared.seats.take("") is None:
            self._refuse("connections")
        else:
            self._seated = True
            self._sessions.add(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            header = parse(self._buffer)
        except ProxyError:
            self._refuse("proxy")
            return
        if header is not None:
            self._leave()
            session = self._hand_over(self._peer if header.client is None else header.client)
            rest, self._buffer = self._buffer[header.size :], b""
            if rest:
                session.data_received(rest)

    def _hand_over(self, peer: str) -> Connection:
        session = self._session()
        self._wire.set_protocol(session)
        session.begin(self._wire, peer)
        return session

    def _refuse(self, reason: str) -> None:
        DROPPED.add((reason,))
        self._wire.abort()

    def _leave(self) -> None:
        self._sessions.discard(self)
        if not self._sessions:
            self._shared.empty.set()
        if self._seated:
            self._seated = False
            self._shared.seats.give_back("")

    def connection_lost(self, error: Exception | None) -> None:
        self._leave()

    def check(self, now: float) -> None:
        if now - self._since > self._shared.read_timeout:
            self._refuse("proxy")

    def end_if_idle(self) -> None:
        self.abort()

    def abort(self) -> None:
        self._wire.abort()
