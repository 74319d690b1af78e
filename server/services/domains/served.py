"""The domains that take mail now: the same in every worker the moment one of them changes the set.

Lives here: this worker's copy of the set, valid while the set's generation stands and for a minute at most (another
host changes it without moving this host's generations, and its hint may be lost). Must not know: who owns what, or
DNS.

What the settings name is always in it, whatever the database says.
"""

import asyncio
import time
from collections.abc import Sequence

from server.cache import keys
from server.cache.responses import ResponseCache, Ticket
from server.model.domain import Served, ServedSet
from server.store.domains import DomainStore, ServedRow


class ServedDomains:
    """``configured``: the names of MAILBOX_ALLOWED_DOMAINS, the default first. ``ttl`` in seconds. ``all_names``: any
    other name takes mail as well.
    """

    def __init__(
        self,
        store: DomainStore,
        local: ResponseCache,
        configured: Sequence[str],
        ttl: float,
        *,
        all_names: bool = False,
    ) -> None:
        self._all_names = all_names
        self._store, self._local, self._configured, self._ttl = store, local, tuple(configured), ttl
        self._set = self._assembled([])
        self._revision = 0
        self._ticket: Ticket | None = None
        self._asked = 0.0
        self._asking = asyncio.Lock()

    def known(self) -> ServedSet | None:
        """The set if memory knows it now, without a query; None says nothing (ask ``current``)."""
        ticket = self._ticket
        if ticket is None or self._asked + self._ttl < time.monotonic() or not self._local.current(ticket):
            return None
        return self._set

    async def current(self) -> ServedSet:
        """The set as the primary knows it; one small query where memory does not. Unavailable."""
        known = self.known()
        if known is not None:
            return known
        arrived = time.monotonic()
        async with self._asking:
            if self._asked < arrived:  # else somebody asked after we came: that answer is as good as our own
                await self._ask()
            return self._set

    async def _ask(self) -> None:
        ticket, asked = self._local.ticket(keys.domains()), time.monotonic()
        revision, rows = await self._store.served(self._revision)
        if rows is not None:
            self._set, self._revision = self._assembled(rows), revision
        self._ticket = ticket if self._local.settled(ticket) else None
        self._asked = asked

    def _assembled(self, rows: Sequence[ServedRow]) -> ServedSet:
        """The configured ones first, in their order; no claim, however well proved, changes what the settings say."""
        served = {name: Served(name) for name in self._configured}
        default = self._configured[0]
        for row in rows:
            if row.domain.name not in served and not row.configured:
                served[row.domain.name] = row.domain
            if row.is_default and row.domain.name in served:
                default = row.domain.name
        return ServedSet(served.values(), default, all_names=self._all_names)
