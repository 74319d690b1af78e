"""What deleted accounts leave in each domain, found and ended. Must not know: in which order, or who is told."""

from collections.abc import Sequence
from datetime import datetime

from server.store.pools import Pools, affected
from server.store.sql import SQL


class DepartureStore:
    """Every method may be repeated: what is gone already is no matter."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools

    async def take(self, now: datetime, due: datetime) -> tuple[str, datetime] | None:
        """(account, when it was deleted) of one that is due, which is next due at ``due``; None when there is none."""
        row = await self._pools.users.fetchrow(SQL.departure_take, now, due)
        return (str(row["user_id"]), row["departed_at"]) if row else None

    async def forget(self, user_id: str) -> None:
        """Nothing of it is left."""
        await self._pools.users.execute(SQL.departure_delete, user_id)

    async def mailboxes(self, user_id: str, limit: int) -> dict[str, list[str]]:
        """Up to ``limit`` of the account's mailboxes with all their addresses."""
        found: dict[str, list[str]] = {}
        for row in await self._pools.mailboxes.fetch(SQL.mailboxes_of_user, user_id, limit):
            found.setdefault(str(row["mailbox_id"]), []).append(f"{row['local_part']}@{row['domain']}")
        return found

    async def end(self, mailbox_ids: Sequence[str]) -> None:
        """Their mail first: a mailbox whose record has gone would not be found by the next round."""
        await self._pools.messages.execute(SQL.inbox_delete, list(mailbox_ids), True)
        await self._pools.mailboxes.execute(SQL.mailboxes_delete, list(mailbox_ids))

    async def silence(self, user_id: str) -> None:
        """No webhook of the account is told anything any more."""
        await self._pools.messages.execute(SQL.listeners_delete_of_user, user_id)
        await self._pools.messages.execute(SQL.deliveries_delete_of_user, user_id)

    async def end_domains(self, user_id: str) -> int:
        """How many there were."""
        return affected(await self._pools.mailboxes.execute(SQL.domains_delete_of_user, user_id))
