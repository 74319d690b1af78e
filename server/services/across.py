"""A user's mail, whatever mailbox it is in. Must not know: HTTP."""

from collections.abc import Sequence

from server.model.message import Stored
from server.model.query import parse
from server.store.across import AcrossStore
from server.store.tags import TagStore


class AcrossService:
    """Implements contracts.Across."""

    def __init__(self, store: AcrossStore, tags: TagStore) -> None:
        self._store, self._tags = store, tags

    async def page(self, user_id: str, q: str, before: str, limit: int) -> tuple[Sequence[Stored], int]:
        """Newest first, and how many there are in all, found or not. Refused field_invalid for an operator of ``q``."""
        wanted = parse(q)
        names = wanted.tags()
        tags = await self._tags.named(user_id, names) if names else {}
        inboxes = await self._store.inboxes(user_id)
        return await self._store.page(inboxes, wanted, tags, before, limit), inboxes.total
