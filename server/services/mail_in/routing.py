"""Which mailbox an address leads to, answered from memory wherever that is still true.

Lives here: the answer to RCPT. Must not know: SMTP, or how mail is stored, or how a mailbox is made.

What is kept stands under the address as it was given (``box+tag@domain``) and holds while the set of domains, and the
generation of the address it leads to, are those it was found under.

Cost: a hit is two dictionary look-ups and two slices of shared memory; a miss is one query to the primary, unless the
mailbox's record is remembered here anyway, because somebody reads it.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, NamedTuple

from server.cache import keys
from server.cache.responses import ResponseCache, Ticket
from server.model.domain import Rules, ServedSet, Target
from server.model.errors import Refused, Word
from server.model.message import Mailbox, Recipient
from server.services.domains.served import ServedDomains
from server.store.mailboxes import MailboxStore

KNOWN_FOR: Final = 60.0  # s; a mailbox deleted on another host is found out at the commit at the latest
ALIAS_KNOWN_FOR: Final = 5.0  # s; one switched off on another host takes mail until then: no commit finds it out
UNKNOWN_FOR: Final = 1.0  # s; a mailbox made on another host takes mail after this at the latest
FULL_FOR: Final = 5.0  # s; then the next commit finds out again
MAX_ROUTES: Final = 100_000


Provide = Callable[[Target], Awaitable[bool]]
"""Makes the mailbox a target means, if mail to it makes one. Refused mailbox_full when there is no room for it."""

Recall = Callable[[str], Mailbox | None]
"""The living mailbox with this address of its own, if this worker knows one just now."""


class _Route(NamedTuple):
    served: ServedSet
    ticket: Ticket
    until: float
    recipient: Recipient | None
    refusal: Word = "mailbox_not_found"  # where there is no recipient


class Routes:
    """Addresses of the served domains and the mailboxes behind them."""

    def __init__(
        self,
        store: MailboxStore,
        local: ResponseCache,
        domains: ServedDomains,
        rules: Rules,
        provide: Provide,
        recall: Recall,
        clock: Callable[[], datetime],
    ) -> None:
        self._store, self._local, self._domains, self._clock = store, local, domains, clock
        self._rules, self._provide, self._recall = rules, provide, recall
        self._routes: OrderedDict[str, _Route] = OrderedDict()
        self._full: dict[str, tuple[Ticket, float]] = {}

    def route(self, address: str) -> Recipient | None:
        """The recipient if memory knows one that takes mail now; None says nothing."""
        served = self._domains.known()
        known = (self._known(address, served) or self._recalled(address, served)) if served is not None else None
        if known is None or known.recipient is None or self._is_full(known.recipient.mailbox_id):
            return None
        return known.recipient

    def _known(self, address: str, served: ServedSet) -> _Route | None:
        route = self._routes.get(address)
        if route is None:
            return None
        if route.served is served and route.until > time.monotonic() and self._local.stands(route.ticket):
            return route
        del self._routes[address]
        return None

    def _recalled(self, address: str, served: ServedSet) -> _Route | None:
        target = self._rules.target(address, served)
        if target is None:
            return None
        ticket = self._local.ticket(keys.address(target.address))
        mailbox = self._recall(target.address)  # after the ticket: what ends it from here on ends the ticket too
        return None if mailbox is None else self._keep(address, target, served, ticket, mailbox)

    async def resolve(self, address: str) -> Recipient:
        """Refused domain_not_allowed, mailbox_not_found, mailbox_disabled, mailbox_full; Unavailable."""
        served = await self._domains.current()
        target = self._rules.target(address, served)
        if target is None:
            raise Refused("domain_not_allowed")
        route = self._known(address, served) or await self._look_up(address, target, served)
        if route.recipient is None:
            raise Refused(route.refusal)
        if self._is_full(route.recipient.mailbox_id):
            raise Refused("mailbox_full")
        return route.recipient

    async def _look_up(self, address: str, target: Target, served: ServedSet) -> _Route:
        ticket, mailbox = await self._find(target)
        if mailbox is None and (target.role or target.domain.mode == "catch_all") and await self._provide(target):
            ticket, mailbox = await self._find(target)
        return self._keep(address, target, served, ticket, mailbox)

    def _keep(self, address: str, target: Target, served: ServedSet, ticket: Ticket, mailbox: Mailbox | None) -> _Route:
        """What is known of an address, remembered unless a write was under way when the ticket was taken."""
        if mailbox is None:
            route = _Route(served, ticket, time.monotonic() + UNKNOWN_FOR, None)
        else:
            most = KNOWN_FOR if mailbox.address == target.address else ALIAS_KNOWN_FOR
            life = min(most, (mailbox.expires_at - self._clock()).total_seconds()) if mailbox.expires_at else most
            recipient = None if mailbox.disabled else Recipient(address, mailbox.id)
            route = _Route(served, ticket, time.monotonic() + life, recipient, "mailbox_disabled")
        if self._local.settled(ticket):
            self._routes[address] = route
            if len(self._routes) > MAX_ROUTES:
                self._routes.popitem(last=False)
        return route

    async def _find(self, target: Target) -> tuple[Ticket, Mailbox | None]:
        """The living mailbox of a target, and where its generation stood before that was asked."""
        ticket = self._local.ticket(keys.address(target.address))
        mailbox = await self._store.by_address(target.local_part, target.domain.name)
        return ticket, None if mailbox is None or mailbox.expired(self._clock()) else mailbox

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
