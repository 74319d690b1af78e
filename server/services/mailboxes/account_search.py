"""A user's mail, whatever mailbox it is in. Must not know: HTTP."""

import asyncio
from collections.abc import Mapping

from server.config.settings import Config
from server.model.errors import Unavailable
from server.model.message import Stored
from server.model.query import Query
from server.services.contracts import Found, Shares
from server.services.mailboxes.text_search import LOOKED_THROUGH, TextSearch
from server.store.account_search import AcrossStore, Inboxes
from server.store.tags import TagStore


class AcrossService:
    """Implements contracts.Across."""

    def __init__(self, config: Config, store: AcrossStore, tags: TagStore, looker: TextSearch) -> None:
        self._config, self._store, self._tags, self._looker = config, store, tags, looker

    async def page(self, user_id: str, wanted: Query, before: str, limit: int, shares: Shares = ()) -> Found:
        """What was found when its time is up is a page too, and the next goes on from there; Unavailable when that is
        nothing at all."""
        names = wanted.tags()
        tags = await self._tags.named(user_id, names) if names else {}
        inboxes = await self._store.inboxes(user_id)
        if not wanted.texts():
            rows = await self._store.candidates(inboxes, wanted, tags, before, limit)
            found = [one.stored for one in rows]
            return Found(found, found[-1].id if len(found) == limit else "", inboxes.total)
        found, following = await self._look(inboxes, wanted, tags, before, limit, shares)
        return Found(found, following, inboxes.total)

    async def _look(
        self, inboxes: Inboxes, wanted: Query, tags: Mapping[str, str], before: str, limit: int, shares: Shares
    ) -> tuple[list[Stored], str]:
        found: list[Stored] = []
        below = before
        try:
            async with asyncio.timeout(self._config.database_statement_timeout):
                while True:
                    page = await self._store.candidates(inboxes, wanted, tags, below, LOOKED_THROUGH)
                    found += await self._looker.filter(page, wanted.texts(), shares)
                    if len(found) >= limit:
                        return found[:limit], found[limit - 1].id
                    if len(page) < LOOKED_THROUGH:
                        return found, ""
                    below = page[-1].stored.id
        except TimeoutError as error:
            if below == before:
                raise Unavailable("the search took too long") from error
            return found, below
