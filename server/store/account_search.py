"""Messages of all mailboxes of one user, newest first. Must not know: whose a mailbox is, but by what its inbox says.

Bounded: the inboxes that were active last, and of each no more rows than the page takes.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from server.model.message import FOREVER
from server.model.query import Query
from server.store import rows
from server.store.messages import Candidate, candidate, conditions_of
from server.store.pools import Database
from server.store.sql import SQL

MAILBOXES_MAX: Final = 1_000  # looked into, those with the latest mail first
_LAST: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"  # the max UUID (RFC 9562 section 5.10)


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

    async def candidates(
        self, inboxes: Inboxes, wanted: Query, tags: Mapping[str, str], before: str, limit: int
    ) -> list[Candidate]:
        """What may match, newest first: all of it does unless the query has terms on the text. ``before``: only ids
        less than this one, "" for all. ``tags``: id by name, for the tags there are.
        """
        if not inboxes.ids:
            return []
        now = self._clock()
        # mail of a mailbox without an end may be dated any time ahead
        span = now if FOREVER in inboxes.ends else min(inboxes.ends), max(inboxes.ends)
        conditions = conditions_of(wanted, tags)
        found = await self._database.fetch(
            SQL.messages_across, inboxes.ids, inboxes.ends, *span, now, before or _LAST, *conditions, limit
        )
        return [candidate(row) for row in found]
