"""Bans in the users domain: an act and its entry in the audit trail are one transaction.

Must not know: what a ban does.
"""

from datetime import datetime, timedelta

import asyncpg

from server.model import ids
from server.model.admin import Actor
from server.model.ban import MAX, Ban, Kind
from server.model.errors import Refused
from server.store.admin import write_act
from server.store.pools import Database
from server.store.rows import scrubbed
from server.store.sql import SQL


class BanStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, actor: Actor, kind: Kind, value: str, reason: str, life: float | None, now: datetime) -> Ban:
        """``life`` in seconds, None for one without an end. Refused ban_exists, quota_reached."""
        span = None if life is None else timedelta(seconds=life)
        async with self._database.transaction() as connection:
            await connection.execute(SQL.bans_over)
            if await connection.fetchval(SQL.bans_count) >= MAX:
                raise Refused("quota_reached", f"at most {MAX:,} bans: take some back, or ban wider networks")
            values = (ids.new(), kind, scrubbed(value, 320), scrubbed(reason, 500), scrubbed(actor.name, 320), span)
            try:
                [row] = await connection.fetch(SQL.ban_insert, *values)
            except asyncpg.UniqueViolationError:
                raise Refused("ban_exists", "delete it first to give it another end or reason", field="value") from None
            made = _ban(row)
            await write_act(connection, actor, "ban.create", made.id, None, _said(made), now)
        return made

    async def remove(self, actor: Actor, ban_id: str, now: datetime) -> None:
        """Refused ban_not_found."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(SQL.ban_delete, ban_id)
            if row is None:
                raise Refused("ban_not_found")
            await write_act(connection, actor, "ban.delete", ban_id, _said(_ban(row)), None, now)

    async def find(self, kind: Kind, value: str) -> str | None:
        """The id of the ban of this value."""
        row = await self._database.fetchrow(SQL.ban_of_value, kind, value)
        return str(row["id"]) if row else None

    async def page(self, kind: str | None, limit: int, offset: int) -> tuple[list[Ban], int]:
        """Those in force, newest first, and how many there are in all pages."""
        rows = await self._database.survey(SQL.bans_page, kind, limit, offset)
        if not rows and offset:  # past the last page no row carries the count
            rows = await self._database.survey(SQL.bans_page, kind, 1, 0)
            return [], rows[0]["found"] if rows else 0
        return [_ban(row) for row in rows], rows[0]["found"] if rows else 0


def _ban(row: asyncpg.Record) -> Ban:
    made = (row["created_at"], row["created_by"], row["expires_at"])
    return Ban(str(row["id"]), row["kind"], row["value"], row["reason"], *made)


def _said(ban: Ban) -> dict[str, str | None]:
    """A ban as the trail has it."""
    end = ban.expires_at.isoformat() if ban.expires_at else None
    return {"kind": ban.kind, "value": ban.value, "reason": ban.reason, "expiresAt": end}
