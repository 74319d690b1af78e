"""What a client is, wherever clients are counted: the one rule for limits, places, connections and bytes in flight.

Lives here: the networks that an address is counted under, and a count of what each of them holds. Must not know: what
is counted, or which networks the operator exempts.

An IPv4 client is its address. An IPv6 client is its /64, the smallest network that a subscriber gets. Providers hand
out a /56 or a /48 as well, which hold 256 and 65,536 of them: so the wider networks are counted too, and may use four
times as much at each step. Whoever owns a /48 has the limits of 16 clients, not of 65,536. IPv4 inside IPv6
(``::ffff:192.0.2.1``) is IPv4.
"""

import ipaddress
from functools import lru_cache
from typing import Final, NamedTuple

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

STEPS: Final = ((8, 1), (7, 4), (6, 16))
"""Octets of an IPv6 prefix that are counted (/64, /56, /48), and how many clients' limits such a network may use."""

_REMEMBERED: Final = 16_384  # addresses whose networks are kept


class ClientNetwork(NamedTuple):
    """A network that a client is counted under: its prefix, packed, and how many clients' limits it may use."""

    prefix: bytes
    times: int


def parse(text: str) -> IPAddress:
    """The address, without a zone; IPv4 inside IPv6 comes out as IPv4. ValueError for anything else."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


@lru_cache(maxsize=_REMEMBERED)
def networks(client: str) -> tuple[ClientNetwork, ...]:
    """The networks that the address ``client`` is counted under, the narrowest first. None for "", which is a client
    on a unix socket. ValueError for what is no address.
    """
    if not client:
        return ()
    packed = parse(client).packed
    if len(packed) == 4:
        return (ClientNetwork(packed, 1),)
    return tuple(ClientNetwork(packed[:size], times) for size, times in STEPS)


class Holdings:
    """How much of something bounded each client holds now: places, connections, bytes.

    ``share`` is what one client may hold, ``total`` what there is. A network of several clients may hold more, but
    never over half of ``total``, unless one client's share is more than that. "" (a unix socket's client, or one that
    the operator exempts) is not counted. The table is no larger than three entries for each client that holds anything.
    """

    __slots__ = ("_half", "_held", "share")

    def __init__(self, share: int, total: int) -> None:
        self.share, self._half = share, max(share, total // 2)
        self._held: dict[bytes, int] = {}

    def fits(self, client: str, amount: int = 1) -> bool:
        """Whether ``client`` may hold ``amount`` more."""
        held, share, half = self._held, self.share, self._half
        return all(held.get(prefix, 0) + amount <= min(share * times, half) for prefix, times in networks(client))

    def take(self, client: str, amount: int = 1) -> None:
        """``client`` holds ``amount`` more, whether that fits or not."""
        for prefix, _ in networks(client):
            self._held[prefix] = self._held.get(prefix, 0) + amount

    def give_back(self, client: str, amount: int = 1) -> None:
        """``client`` holds ``amount`` less. KeyError if it held nothing."""
        for prefix, _ in networks(client):
            left = self._held[prefix] - amount
            if left:
                self._held[prefix] = left
            else:
                del self._held[prefix]

    def held(self, client: str) -> int:
        """What ``client`` holds itself."""
        counted = networks(client)
        return self._held.get(counted[0].prefix, 0) if counted else 0

    def __bool__(self) -> bool:
        """Whether any client holds anything."""
        return bool(self._held)
