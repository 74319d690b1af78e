"""Messages of all mailboxes of one user, newest first. Must not know: whose a mailbox is, but by what its inbox says.

Bounded: the inboxes that were active last, and of each no more rows than the page takes. Words are looked for in what
the rows hold, never in the bodies: a mailbox's own search does that.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from server.model.message import FOREVER, Stored
from server.model.query import Query, Term
from server.store import rows
from server.store.messages import like
from server.store.pools import Database
from server.store.sql import SQL

MAILBOXES_MAX: Final = 1_000  # looked into, those with the latest mail first
_LAST: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"  # the max UUID (RFC 9562 section 5.10)
_NO_TAG: Final = "00000000-0000-0000-0000-000000000000"  # the nil UUID, which no tag has


class Inboxes(msgspec.Struct, frozen=True):
    """A user's living inboxes that hold mail: ids, when each one's mail may vanish, and how many messages in all."""

    ids: Sequence[str]
    ends: Sequence[datetime]
    total: int


class AcrossStore:
    """Every method raises Unavailable in trouble."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database, self._clock = database, clock

    async def inboxes(self, user_id: str) -> Inboxes:
        found = await self._database.fetch(SQL.inboxes_of_user, user_id, self._clock(), MAILBOXES_MAX)
        ends = [rows.moment(row["drop_after"]) for row in found]
        return Inboxes([str(row["mailbox_id"]) for row in found], ends, sum(row["total"] for row in found))

    async def page(
        self, inboxes: Inboxes, wanted: Query, tags: Mapping[str, str], before: str, limit: int
    ) -> list[Stored]:
        """``before``: only ids less than this one, "" for all. ``tags``: id by name, for the tags there are."""
        if not inboxes.ids:
            return []
        now = self._clock()
        # mail of a mailbox without an end may be dated any time ahead
        span = now if FOREVER in inboxes.ends else min(inboxes.ends), max(inboxes.ends)
        bounds = wanted.after, wanted.before, wanted.least, wanted.most
        kinds, values = [term.kind for term in wanted.terms], [_value(term, tags) for term in wanted.terms]
        terms = kinds, values, [term.negated for term in wanted.terms]
        found = await self._database.fetch(
            SQL.messages_across, inboxes.ids, inboxes.ends, *span, now, before or _LAST, *bounds, *terms, limit
        )
        return [rows.stored(row) for row in found]


def _value(term: Term, tags: Mapping[str, str]) -> str:
    if term.kind == "tag":
        return tags.get(term.value, _NO_TAG)
    return like(term.value) if term.kind in ("text", "from", "to", "subject") else term.value
