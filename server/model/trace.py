"""The trace of mail: one decision about a connection, a sender, a recipient or a message, and how it is asked for.

Lives here: the shapes that SMTP notes, the store keeps and readers see, and the sampling that bounds them. Must not
know: where decisions come from, or where they are kept.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, Literal, NamedTuple

import msgspec

from server.model.client import ClientNetwork, networks
from server.model.domain import ROLE_NAMES
from server.model.message import Recipient

Stage = Literal["connect", "mail", "rcpt", "data"]
STAGES: Final[tuple[Stage, ...]] = ("connect", "mail", "rcpt", "data")

Verdict = Literal["accepted", "deferred", "refused", "dropped"]
VERDICTS: Final[tuple[Verdict, ...]] = ("accepted", "deferred", "refused", "dropped")

RCPT_TAKEN: Final = "250 2.1.5 Recipient OK"
ABANDONED: Final = b"dropped: the client went away before the end of the message"
GONE: Final = "dropped: the mailbox was gone when the message was stored"
FULL: Final = "dropped: the mailbox was full when the queued message was stored"
DEAD: Final = "dropped: the queued message could not be stored and is a dead letter"

_REASON: Final = 9  # bytes of a reply that name its reason: code and enhanced code
_BURST: Final = 10.0  # s of the rate that may be used at once


class Noted(NamedTuple):
    """A decision as SMTP hands it over. ``recipients``: those it is about, or the address as the client wrote it.
    ``rcpt_at``: when those recipients were accepted, where this is the end of their message. ``made`` tells mailbox
    id → message id of what was stored, and is asked for the notes that are recorded; None where it is not known."""

    stage: Stage
    at: float
    client: str
    helo: str
    sender: str
    recipients: Sequence[Recipient] | str
    reply: bytes
    rcpt_at: float = 0.0
    made: Callable[[], Mapping[str, str]] | None = None

    @property
    def weight(self) -> int:
        """Rows that it takes."""
        return 1 if isinstance(self.recipients, str) else max(1, len(self.recipients))


def printable(text: str) -> str:
    """``text`` with U+FFFD for each character that moves a terminal's cursor, colours or reverses the text."""
    return text if text.isprintable() else "".join(one if one.isprintable() else "\ufffd" for one in text)


Reason = tuple[Stage, bytes]
"""The stage of a decision and the codes of its reply."""


def reason(noted: Noted) -> Reason:
    return noted.stage, noted.reply[:_REASON]


class Row(NamedTuple):
    """A decision about one address as the store keeps it. ``address``: the mailbox that the recipient means, or the
    sender where there is no recipient. ``unrecorded``: this row stands for so many decisions that were only counted."""

    at: float
    rcpt_at: float | None
    address: str
    stage: Stage
    client: str
    helo: str
    sender: str
    recipient: str
    mailbox_id: str | None
    message_id: str | None
    reply: str
    unrecorded: int | None = None


class Decision(msgspec.Struct, frozen=True):
    """One decision as readers see it."""

    at: datetime
    stage: Stage
    client: str
    helo: str
    sender: str
    recipient: str
    reply: str
    node: str
    message_id: str | None = None
    unrecorded: int | None = None

    @property
    def verdict(self) -> Verdict:
        return verdict(self.reply)


def verdict(reply: str) -> Verdict:
    first = reply[:1]
    return "accepted" if first == "2" else "deferred" if first == "4" else "refused" if first == "5" else "dropped"


class Question(msgspec.Struct, frozen=True):
    """Which decisions are wanted, newest first. ``address`` and ``sender`` (also a domain, with those below it) empty
    for all; ``before``: the place (moment and number) after which an earlier page ended."""

    address: str = ""
    sender: str = ""
    since: datetime | None = None
    until: datetime | None = None
    verdict: str | None = None
    limit: int = 100
    before: tuple[datetime, int] | None = None


class Page(msgspec.Struct, frozen=True):
    """``following`` is where the next page begins, None on the last; ``unrecorded`` counts the decisions of the same
    time that were only counted."""

    items: list[Decision]
    following: tuple[datetime, int] | None
    unrecorded: int


def candidates(address: str, administrator: str) -> list[str]:
    """The mailboxes that an address may mean: itself, without its tag, above its subdomains, the administrators'."""
    local, _, host = address.rpartition("@")
    labels = host.split(".")[:8]
    found = [address, f"{local.partition('+')[0]}@{host}"]
    found += [f"{'.'.join(labels[:cut])}@{'.'.join(labels[cut:])}" for cut in range(1, len(labels) - 1)]
    if local.partition("+")[0] in ROLE_NAMES:
        found.append(administrator)
    return list(dict.fromkeys(found))


class Sampler:
    """Keeps at most ``rate`` rows a second of each reason, and counts the rest. Clients share what there is evenly, so
    that a flood of one hides no decision about another."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._allowed: dict[Reason, float] = {}

    def sample(self, noted: Iterable[Noted], elapsed: float) -> tuple[list[Noted], Counter[Reason]]:
        """Those to be recorded, and how many rows of each reason are not. ``elapsed``: s since the last call."""
        most = self._rate * _BURST
        self._allowed = {why: left for why, had in self._allowed.items() if (left := had + self._rate * elapsed) < most}
        by_reason: dict[Reason, list[Noted]] = {}
        for one in noted:
            by_reason.setdefault(reason(one), []).append(one)
        kept: list[Noted] = []
        rest: Counter[Reason] = Counter()
        for why, its in by_reason.items():
            allowed = self._allowed.get(why, most)
            wanted = sum([one.weight for one in its])
            if wanted <= allowed:
                kept += its
                self._allowed[why] = allowed - wanted
            else:
                used = self._share(its, allowed, kept)
                self._allowed[why] = allowed - used
                rest[why] = wanted - used
        return kept, rest

    @staticmethod
    def _share(its: list[Noted], allowed: float, kept: list[Noted]) -> int:
        """Share ``allowed`` among the clients; how much was used."""
        share = max(1.0, allowed / _client_count({one.client for one in its}))
        used: Counter[bytes] = Counter()
        total = 0
        for one in its:
            if total + 1 > allowed:  # nothing fits any more
                break
            weight = one.weight
            counted = _networks(one.client)
            if total + weight <= allowed and all(used[net] + weight <= share * times for net, times in counted):
                for network, _ in counted:
                    used[network] += weight
                total += weight
                kept.append(one)
        return total


def _networks(client: str) -> tuple[ClientNetwork, ...]:
    """What a client is counted under; one without an address (LMTP) is a client too."""
    return networks(client) or (ClientNetwork(b"", 1),)


def _client_count(addresses: Iterable[str]) -> int:
    """How many clients share. The widest network that is counted is no more clients than it has the limits of."""
    narrowest: dict[ClientNetwork, set[bytes]] = {}
    for address in addresses:
        counted = _networks(address)
        narrowest.setdefault(counted[-1], set()).add(counted[0].prefix)
    return sum(min(len(clients), network.times) for network, clients in narrowest.items())


def rows(noted: Noted, meant: Callable[[str], str] = str) -> list[Row]:
    """A row for each recipient; ``meant`` finds the address of the mailbox that it means."""
    stage, at, client, helo, sender, recipients, reply, rcpt_at, made = noted
    said = reply.decode("ascii", "replace").rstrip("\r\n")
    taken = rcpt_at or None
    if isinstance(recipients, str) or not recipients:
        text = recipients if isinstance(recipients, str) else ""
        return [Row(at, None, meant(text) if text else sender, stage, client, helo, sender, text, None, None, said)]
    found = []
    ids = made() if made is not None else {}
    for one in recipients:
        address, mailbox = one.address, one.mailbox_id
        message = ids.get(mailbox)
        told = said if made is None or message is not None else GONE
        found.append(Row(at, taken, meant(address), stage, client, helo, sender, address, mailbox, message, told))
    return found


def counted(rest: Mapping[Reason, int], at: float) -> list[Row]:
    """A row for each reason whose decisions were only counted."""
    return [
        Row(at, None, "", stage, "", "", "", "", None, None, codes.decode("ascii", "replace"), count)
        for (stage, codes), count in rest.items()
    ]
