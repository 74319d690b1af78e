"""Bans: networks, senders, senders' domains and names of mailboxes that are not let in, and how they are matched.

Lives here: what a ban's value may be, when two spellings are the same, and the set that is asked. Must not know: where
bans are kept, or what is refused because of one.
"""

import ipaddress
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import repeat
from typing import Final, Literal

import msgspec

from server import clock
from server.model.domain import to_ascii
from server.model.errors import Refused

Kind = Literal["network", "sender", "senderDomain", "localPart"]
KINDS: Final[tuple[Kind, ...]] = ("network", "sender", "senderDomain", "localPart")

MAX: Final = 10_000  # bans in all: every worker holds them
VALUE_MAX: Final = 320  # characters
_LITERALS_MIN: Final = 3  # letters of a pattern beside its stars
_STARS_MAX: Final = 3
_PREFIX_MIN: Final = {4: 8, 6: 16}  # bits of the widest network: more is a mistake
_PEERS: Final = 4096  # clients whose answer is remembered

_HOST: Final = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_ALIKE: Final = str.maketrans(
    "0134578i" + "авеіјкмнорсѕтухαικνορτυχ",
    "oleastbl" + "abeljkmhopcstyxalkvoptux",
)
"""What looks alike: digits for letters, and letters of other alphabets."""


class Ban(msgspec.Struct, frozen=True):
    """``value`` in the form of ``canonical``; without ``expires_at`` it stays until it is taken back."""

    id: str
    kind: Kind
    value: str
    reason: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None


def folded(name: str) -> str:
    """A name as a careless reader sees it: without case, tag, dots and dashes, and with what looks alike the same."""
    text = unicodedata.normalize("NFKC", name).casefold().partition("+")[0]
    text = re.sub(r"[^\w*]|_", "", text).translate(_ALIKE)
    return text.replace("rn", "m").replace("vv", "w")


def canonical(kind: Kind, value: str) -> str:
    """``value`` as it is kept, so that two of one meaning are one. Refused field_invalid, saying what would do."""
    text = value.strip()
    if len(text) > VALUE_MAX:
        raise Refused("field_invalid", f"at most {VALUE_MAX} characters", field="value")
    if not text.isprintable():
        raise Refused("field_invalid", "no control characters", field="value")
    found = {"network": _network, "sender": _sender, "senderDomain": _domain, "localPart": _pattern}[kind](text)
    if found is None:
        raise Refused("field_invalid", _EXPECTED[kind], field="value")
    return found


_EXPECTED: Final[dict[Kind, str]] = {
    "network": "an address or a network such as 192.0.2.0/24 or 2001:db8::/32, no wider than /8 or for IPv6 /16",
    "sender": "an address such as spam@example.org",
    "senderDomain": "a domain such as example.org; its subdomains are meant too",
    "localPart": "a name such as paypal or paypal*, with three letters or more and at most three *",
}


def _network(text: str) -> str | None:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    if isinstance(network, ipaddress.IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= 96:
            network = ipaddress.ip_network((mapped, network.prefixlen - 96), strict=False)
    return str(network) if network.prefixlen >= _PREFIX_MIN[network.version] else None


def _sender(text: str) -> str | None:
    local, at, domain = text.rpartition("@")
    host = _domain(domain)
    return f"{local.lower()}@{host}" if at and local and host and not re.search(r"[\s<>]", local) else None


def _domain(text: str) -> str | None:
    name = to_ascii(text.removeprefix("@").removeprefix("*."))
    return name if _HOST.fullmatch(name) and "." in name else None


def _pattern(text: str) -> str | None:
    name = re.sub(r"\*+", "*", text.lower())
    letters = folded(name).replace("*", "")
    fits = len(letters) >= _LITERALS_MIN and name.count("*") <= _STARS_MAX and not re.search(r"[\s@<>]", name)
    return name if fits else None


class Names:
    """Patterns of names, asked about one name. ``*`` matches any letters. ``ends``: until when each pattern counts.

    A name is looked up in dictionaries by what it begins with. Only patterns that begin with ``*`` are tried in turn, a
    few searches of text each. One regular expression of them all took seconds of the loop to compile.
    """

    def __init__(self, patterns: Iterable[str], ends: Iterable[float] = repeat(math.inf)) -> None:
        self._whole: dict[str, float] = {}
        self._by_head: dict[str, list[tuple[tuple[str, ...], float]]] = {}
        for pattern, end in zip(patterns, ends, strict=False):
            head, *rest = pieces = _pieces(pattern)
            if rest:
                self._by_head.setdefault(head, []).append((pieces, end))
            else:
                self._whole[head] = max(end, self._whole.get(head, 0.0))

    def hold(self, name: str) -> bool:
        text, now = folded(name), clock.wall()
        if self._whole.get(text, 0.0) > now:
            return True
        heads = [text[:length] for length in range(len(text) + 1)] if self._by_head else []
        return any(
            end > now and _fits(pieces, text) for head in heads for pieces, end in self._by_head.get(head, _NONE)
        )


_NONE: Final[list[tuple[tuple[str, ...], float]]] = []


@lru_cache(maxsize=2 * MAX)  # so that a change of one ban folds one pattern
def _pieces(pattern: str) -> tuple[str, ...]:
    """The text between the stars."""
    return tuple(folded(pattern).split("*"))


def _fits(pieces: tuple[str, ...], text: str) -> bool:
    """Whether ``text``, which begins with the first piece, has the others in this order and ends with the last."""
    position, end = len(pieces[0]), len(text) - len(pieces[-1])
    if position > end or not text.endswith(pieces[-1]):
        return False
    for piece in pieces[1:-1]:
        found = text.find(piece, position, end)
        if found < 0:
            return False
        position = found + len(piece)
    return True


class BanSet:
    """All bans of a moment. Each question is a few look-ups in dictionaries, however many bans there are. A ban that is
    over, by the database's clock, counts no more."""

    def __init__(self, bans: Sequence[Ban] = ()) -> None:
        self._senders = {ban.value: _until(ban) for ban in bans if ban.kind == "sender"}
        self._domains = {ban.value: _until(ban) for ban in bans if ban.kind == "senderDomain"}
        names = [ban for ban in bans if ban.kind == "localPart"]
        self._names = Names([ban.value for ban in names], map(_until, names)) if names else None
        self._networks: dict[tuple[int, int], dict[int, float]] = {}
        for ban in bans:
            if ban.kind == "network":
                network = ipaddress.ip_network(ban.value)
                shift = network.max_prefixlen - network.prefixlen
                level = self._networks.setdefault((network.version, shift), {})
                level[int(network.network_address) >> shift] = _until(ban)
        self._clients: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._senders or self._domains or self._names is not None or self._networks)

    def client(self, address: str) -> bool:
        """Whether a client's network is banned; ``address`` is an IP address, or empty for a client without one."""
        if not self._networks or not address:
            return False
        until = self._clients.get(address)
        if until is None:
            if len(self._clients) >= _PEERS:
                self._clients.clear()
            until = self._clients[address] = self._looked_up(address)
        return until > clock.wall()

    def _looked_up(self, address: str) -> float:
        """Until when."""
        try:
            found = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return 0.0
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        number, version = int(found), found.version
        return max(
            (level.get(number >> shift, 0.0) for (of, shift), level in self._networks.items() if of == version),
            default=0.0,
        )

    def sender(self, address: str) -> bool:
        """Whether a sender is banned, by its address with or without its tag, or by its domain or one above."""
        if not address or not (self._senders or self._domains):
            return False
        local, _, domain = address.rpartition("@")
        local, domain = local.lower(), to_ascii(domain)
        known = self._senders
        until = max(known.get(f"{local}@{domain}", 0.0), known.get(f"{local.partition('+')[0]}@{domain}", 0.0))
        labels = domain.split(".")[-127:]
        for cut in range(len(labels) if self._domains else 0):
            until = max(until, self._domains.get(".".join(labels[cut:]), 0.0))
        return until > clock.wall()

    def name(self, local_part: str) -> bool:
        """Whether a mailbox or an alias may not have this name."""
        return self._names is not None and self._names.hold(local_part)


def _until(ban: Ban) -> float:
    return math.inf if ban.expires_at is None else ban.expires_at.timestamp()
