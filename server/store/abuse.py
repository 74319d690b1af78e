"""Mailboxes as administrators see them: who made them, whose they are, whether they take mail. Must not know: mail, or
who may look."""

from collections.abc import Sequence
from datetime import timedelta

import asyncpg

from server.model.admin import MailboxFacts, MailboxFilter
from server.store.messages import like
from server.store.pools import Database, affected
from server.store.sql import SQL


class AbuseStore:
    """Lists may come from replicas, as of now; what an act is judged by comes from the primary."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, wanted: MailboxFilter, limit: int, offset: int) -> tuple[Sequence[MailboxFacts], int]:
        """Newest first, and how many there are in all pages."""
        local, at, domain = wanted.address.lower().rpartition("@")
        whole = at and local and domain and "*" not in wanted.address
        exact = (local, domain) if whole else (None, None)
        part = None if whole or not wanted.address else (like(wanted.address.lower()) or "").replace("*", "%")
        asked = [part, *exact, wanted.owner, wanted.network]
        sql = SQL.admin_mailboxes_gone if wanted.state == "gone" else SQL.admin_mailboxes
        if wanted.state != "gone":
            asked.append(None if wanted.state is None else wanted.state == "disabled")
        rows = await self._database.survey(sql, *asked, limit, offset)
        if not rows and offset:  # past the last page no row carries the count
            rows = await self._database.survey(sql, *asked, 1, 0)
            return [], rows[0]["found"] if rows else 0
        return [_facts(row) for row in rows], rows[0]["found"] if rows else 0

    async def one(self, mailbox_id: str) -> MailboxFacts | None:
        """A living one."""
        row = await self._database.fetchrow(SQL.admin_mailbox, mailbox_id)
        return _facts(row) if row else None

    async def disable(self, mailbox_id: str, disabled: bool) -> bool:
        return affected(await self._database.execute(SQL.mailbox_disable, mailbox_id, disabled)) == 1

    async def forget_creators(self, retention: float, limit: int) -> int:
        """Erase who made mailboxes longer ago than ``retention`` seconds; how many."""
        span = timedelta(seconds=retention)
        return affected(await self._database.execute(SQL.creators_forget, span, limit))


def _facts(row: asyncpg.Record) -> MailboxFacts:
    return MailboxFacts(
        id=str(row["id"]),
        address=f"{row['local_part']}@{row['domain']}",
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        state="gone" if row["gone"] else "disabled" if row["disabled"] else "active",
        user_id=str(row["user_id"]) if row["user_id"] else None,
        client=row["client"] or "",
    )
