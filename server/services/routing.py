"""Which mailbox an address leads to, answered from memory wherever that is still true.

Lives here: the answer to RCPT. Must not know: SMTP, or how mail is stored.

Cost: a hit is two dictionary look-ups and one slice of shared memory; a miss is one query to the primary.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Final, NamedTuple

from server.cache import keys
from server.cache.local import Local, Ticket
from server.model.errors import Refused
from server.model.message import Recipient
from server.store.mailboxes import MailboxStore

KNOWN_FOR: Final = 60.0  # s; a mailbox deleted on another host is found out at the commit at the latest
UNKNOWN_FOR: Final = 1.0  # s; a mailbox made on another host takes mail after this at the latest
FULL_FOR: Final = 5.0  # s; then the next commit finds out again
MAX_ROUTES: Final = 100_000


class _Route(NamedTuple):
    ticket: Ticket
    until: float
    recipient: Recipient | None


class Routes:
    """Addresses of the served ``domains`` (exact, lower case) and the mailboxes behind them."""

    def __init__(
        self, store: MailboxStore, local: Local, domains: Collection[str], clock: Callable[[], datetime]
    ) -> None:
        self._store, self._local, self._domains, self._clock = store, local, frozenset(domains), clock
        self._routes: OrderedDict[str, _Route] = OrderedDict()
        self._full: dict[str, tuple[Ticket, float]] = {}

    def route(self, address: str) -> Recipient | None:
        """The recipient if memory knows one that takes mail now; None says nothing."""
        known = self._known(address)
        if known is None or known.recipient is None or self._is_full(known.recipient.mailbox_id):
            return None
        return known.recipient

    def _known(self, address: str) -> _Route | None:
        route = self._routes.get(address)
        if route is None or (route.until > time.monotonic() and self._local.stands(route.ticket)):
            return route
        del self._routes[address]
        return None

    async def resolve(self, address: str) -> Recipient:
        """Refused domain_not_allowed, mailbox_not_found, mailbox_full; Unavailable."""
        local_part, _, domain = address.rpartition("@")
        if domain not in self._domains:
            raise Refused("domain_not_allowed")
        route = self._known(address) or await self._look_up(local_part, domain)
        if route.recipient is None:
            raise Refused("mailbox_not_found")
        if self._is_full(route.recipient.mailbox_id):
            raise Refused("mailbox_full")
        return route.recipient

    async def _look_up(self, local_part: str, domain: str) -> _Route:
        address = f"{local_part}@{domain}"
        ticket = self._local.ticket(keys.address(address))
        mailbox = await self._store.by_address(local_part, domain)
        now = self._clock()
        if mailbox is None or mailbox.expired(now):
            route = _Route(ticket, time.monotonic() + UNKNOWN_FOR, None)
        else:
            life = min(KNOWN_FOR, (mailbox.expires_at - now).total_seconds()) if mailbox.expires_at else KNOWN_FOR
            route = _Route(ticket, time.monotonic() + life, Recipient(address, mailbox.id))
        if self._local.settled(ticket):
            self._routes[address] = route
            if len(self._routes) > MAX_ROUTES:
                self._routes.popitem(last=False)
        return route

    def mark_full(self, mailbox_id: str, ticket: Ticket) -> None:
        """A commit found no room; RCPT says so until the mailbox changes. ``ticket`` is from before the commit's
        answer.
        """
        if len(self._full) > MAX_ROUTES // 10:
            self._full.clear()
        self._full[mailbox_id] = (ticket, time.monotonic() + FULL_FOR)

    def _is_full(self, mailbox_id: str) -> bool:
        full = self._full.get(mailbox_id)
        if full is None:
            return False
        if full[1] > time.monotonic() and self._local.stands(full[0]):
            return True
        del self._full[mailbox_id]
        return False
