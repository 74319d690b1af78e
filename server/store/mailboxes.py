"""The mailboxes domain: records by id and by address. Must not know: mail, which lives in another domain."""

from datetime import datetime

import asyncpg

from server.model.errors import Refused
from server.model.message import Mailbox
from server.store import rows
from server.store.pools import Database, affected, translated
from server.store.sql import SQL


class MailboxStore:
    """All reads go to the primary: a mailbox made a moment ago must take mail now."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, mailbox: Mailbox) -> None:
        """Refused mailbox_exists when a living mailbox has the address."""
        with translated():
            async with self._database.connection() as connection:
                try:
                    await connection.execute(
                        SQL.mailbox_insert,
                        mailbox.id,
                        mailbox.local_part,
                        mailbox.domain,
                        mailbox.token_hash,
                        mailbox.user_id,
                        mailbox.created_at,
                        mailbox.expires_at,
                    )
                except asyncpg.UniqueViolationError:
                    raise Refused("mailbox_exists", "choose another prefix", field="prefix") from None

    async def by_id(self, mailbox_id: str) -> Mailbox | None:
        row = await self._database.fetchrow(SQL.mailbox_by_id, mailbox_id)
        return rows.mailbox(row) if row else None

    async def by_address(self, local_part: str, domain: str) -> Mailbox | None:
        row = await self._database.fetchrow(SQL.mailbox_by_address, local_part, domain)
        return rows.mailbox(row) if row else None

    async def set_token(self, mailbox_id: str, token_hash: bytes) -> bool:
        return affected(await self._database.execute(SQL.mailbox_token, mailbox_id, token_hash)) == 1

    async def extend(self, mailbox_id: str, expires_at: datetime) -> Mailbox | None:
        row = await self._database.fetchrow(SQL.mailbox_extend, mailbox_id, expires_at)
        return rows.mailbox(row) if row else None

    async def delete(self, mailbox_id: str) -> bool:
        return affected(await self._database.execute(SQL.mailbox_delete, mailbox_id)) == 1

    async def take_expired(self, now: datetime, limit: int) -> list[tuple[str, str]]:
        """Delete up to ``limit`` records whose time is over; their (id, address)."""
        found = await self._database.fetch(SQL.mailboxes_expired, now, limit)
        return [(str(row["id"]), f"{row['local_part']}@{row['domain']}") for row in found]

    async def take_expired_at(self, local_part: str, domain: str, now: datetime) -> list[tuple[str, str]]:
        """The same for one address."""
        found = await self._database.fetch(SQL.mailbox_expired_at, local_part, domain, now)
        return [(str(row["id"]), f"{row['local_part']}@{row['domain']}") for row in found]
