"""Watching a mailbox, as a way in sees it: what it shows the hub, and what it may ask of it.

Lives here: the contract between connections and the hub. Must not know: either of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from typing import Final, Protocol

from server import clock
from server.metrics import LATENCY, Histogram

RECHECK_INTERVAL: Final = 300.0
"""Longest a subscription goes on without its right being checked, in s: bounds the loss of the hint of a rotation."""

PUSH_DELAY = Histogram("tempmail_push_delay_seconds", "From a message's receipt until its frame was written.", LATENCY)


def observe_push(received_at: datetime | None) -> None:
    """A message's frame was written just now; None for a replayed one, whose delay says nothing."""
    if received_at is not None:
        PUSH_DELAY.observe(max(0.0, clock.wall() - received_at.timestamp()))


class Outlet(Protocol):
    """A connection, as the hub sees it. No method blocks or raises."""

    def push(self, frame: bytes, received_at: datetime | None) -> bool:
        """Queue a message; False when there is no room, and then ``Hub.release`` is called once there is.

        ``received_at`` is None for a replayed message, whose delay says nothing.
        """

    def tell(self, frame: bytes) -> None:
        """Queue a word about the subscription itself; a connection that has no room for it is dropped."""

    def doubt(self, subscription: "Subscription") -> None:
        """Check the subscription's right again; ``Hub.release`` or ``Hub.unsubscribe`` tells the outcome."""

    def ended(self, subscription: "Subscription") -> None:
        """The hub has dropped the subscription."""


@dataclass(slots=True, eq=False)
class Subscription:
    """One connection's interest in one mailbox. ``expires_at`` and ``checked_at`` are POSIX seconds."""

    mailbox_id: str
    token: str = field(repr=False)
    outlet: Outlet
    after: int | None
    expires_at: float
    checked_at: float
    right_until: float = inf  # POSIX s at which what the mailbox was opened with ends by itself
    user_id: str | None = None  # whose mailbox it is: when something changes about the account, the right is checked
    last_seq: int | None = None  # everything up to here was handed on or is gone; None until the store was asked
    replay_to: int = 0
    held: bool = False
    uncounted: bool = False  # was not told of changed counters
    doubted: bool = False  # the right may have ended: nothing is handed on before a check that began since
    live: bool = True

    def over(self, now: float) -> bool:
        """The mailbox or the right has ended, as far as is known: nothing may be handed on before it was checked."""
        return self.expires_at <= now or self.right_until <= now

    def wants(self, seq: int) -> bool:
        return self.last_seq is None or (not self.held and self.last_seq < seq)


class Watching(Protocol):
    """The hub, as a connection sees it."""

    def subscribe(self, subscription: Subscription) -> None:
        """Watch. Answered through the outlet: ``subscribed``, then gap and missed mail; or an error, and ``ended``."""

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop watching, at once; the outlet is not told."""

    def release(self, subscriptions: Iterable[Subscription]) -> None:
        """There is room again, or the right was confirmed: bring them up to date."""
