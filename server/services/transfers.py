"""Bytes in flight over HTTP: bodies that arrive, and answers that their clients have not taken yet.

Lives here: how many a worker and a client may hold, and how slowly a transfer may go. Must not know: requests, sockets,
or how a refusal looks. What a client is ``model/client`` says.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, Self

from server.config.settings import Config
from server.metrics import Counter, Gauge
from server.model.client import Holdings
from server.model.errors import Crowded, Refused
from server.services.turns import Turns

WINDOW: Final = 30.0  # s over which a transfer's rate is judged
MARK_EVERY: Final = 5.0  # s
HURRY: Final = 8  # times the rate is asked for while more than half of a worker's bytes are taken
AGAIN: Final = 2.0  # s after which a refused client may try again

Direction = Literal["in", "out"]

BYTES = Gauge("tempmail_http_in_flight_bytes", "Bytes of bodies that arrive and of answers not yet taken.")
REFUSED = Counter(
    "tempmail_http_in_flight_refused_total",
    "Transfers refused or cut for want of room, by whose was used up: worker, client.",
    ("bound",),
)
SLOW = Counter("tempmail_http_slow_total", "Transfers cut for being too slow: in (bodies), out (answers).", ("way",))


class Transfer:
    """One body or answer. ``moved`` says how many bytes of it have gone through; ``cut`` ends it."""

    __slots__ = ("_all", "_held", "client", "cut", "marks", "moved", "way")

    def __init__(
        self, transfers: "Transfers", client: str, way: Direction, moved: Callable[[], int], cut: Callable[[], None]
    ) -> None:
        self._all, self.client, self.way, self.moved, self.cut = transfers, client, way, moved, cut
        self._held = 0
        self.marks: deque[tuple[float, int]] = deque(maxlen=1 + int(WINDOW / MARK_EVERY))

    def hold(self, amount: int) -> None:
        """It holds ``amount`` bytes more, whether there is room or not."""
        self._held += amount
        self._all.take(self.client, amount)

    @property
    def held(self) -> int:
        """Bytes that it holds."""
        return self._held

    def grow(self, amount: int) -> None:
        """It is to hold ``amount`` bytes more. Refused rate_limited, Crowded: it then does not."""
        self._all.admit(self.client, amount)
        self.hold(amount)

    def arrived(self) -> None:
        """All of it has gone through: what it holds counts on, its rate no more."""
        self._all.judge_no_more(self)

    def done(self) -> None:
        """It holds nothing any more. Again is harmless."""
        self._all.end(self, self._held)
        self._held = 0


class Transfers:
    """Those of one worker: ``most`` bytes, ``share`` of them for one client, at least ``rate`` bytes a second each.
    ``exempt`` says which clients have no share of their own. One look at a figure for an answer that is small.
    ``turns`` are those of the event loop that large work takes.
    """

    def __init__(
        self,
        most: int,
        share: int,
        rate: int,
        exempt: Callable[[str], bool],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self._rate, self._exempt, self._now = most, rate, exempt, now
        self._held = Holdings(share, most)
        self._open: set[Transfer] = set()
        self._next = 0.0
        self.bytes = 0
        self.turns = Turns()

    def admit(self, client: str, amount: int, *, always: bool = False) -> None:
        """Whether there is room for ``amount`` bytes more. Refused rate_limited when the client's share is used up,
        Crowded when the worker's is; ``always`` is for what must be answered all the same while clients keep to theirs.

        A client that holds nothing has room for one answer, however large.
        """
        counted = self._counted(client)
        if counted and not self._held.fits(counted, min(amount, self._held.share)):
            REFUSED.add(("client",))
            detail = "too much is under way from here; wait until a transfer has ended"
            raise Refused("rate_limited", detail, retry_after=AGAIN)
        if self.bytes + amount > self._most and not always:
            REFUSED.add(("worker",))
            raise Crowded("too many bytes in flight", AGAIN)

    def begin(self, client: str, way: Direction, moved: Callable[[], int], cut: Callable[[], None]) -> Transfer:
        """One that holds nothing yet."""
        transfer = Transfer(self, self._counted(client), way, moved, cut)
        transfer.marks.append((self._now(), moved()))
        self._open.add(transfer)
        return transfer

    @classmethod
    def of(cls, config: Config, exempt: Callable[[str], bool]) -> Self:
        """Bounded as the settings say."""
        return cls(config.http_in_flight_bytes, config.http_in_flight_client, config.http_min_rate, exempt)

    def take(self, client: str, amount: int) -> None:
        """A transfer of a counted client holds more."""
        self.bytes += amount
        self._held.take(client, amount)
        BYTES.set(self.bytes)

    def judge_no_more(self, transfer: Transfer) -> None:
        self._open.discard(transfer)

    def end(self, transfer: Transfer, held: int) -> None:
        """A transfer is over."""
        self._open.discard(transfer)
        if held:
            self.bytes -= held
            self._held.give_back(transfer.client, held)
            BYTES.set(self.bytes)

    def look(self) -> None:
        """Cut what went slower than it may over the last ``WINDOW``. Called once a second."""
        now = self._now()
        if now < self._next:
            return
        self._next = now + MARK_EVERY
        rate = self._rate * (HURRY if 2 * self.bytes > self._most else 1)
        for transfer in list(self._open):
            moved, (since, before) = transfer.moved(), transfer.marks[0]
            if now - since >= WINDOW and moved - before < rate * (now - since):
                SLOW.add((transfer.way,))
                transfer.cut()
            transfer.marks.append((now, moved))

    def _counted(self, client: str) -> str:
        return "" if not client or self._exempt(client) else client
