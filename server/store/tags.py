"""The users domain's tags: names and colours. Must not know: which messages carry them, which is another domain's."""

from collections.abc import Iterable
from datetime import datetime

import asyncpg

from server.model.errors import Refused
from server.model.tag import Tag
from server.store.pools import Database, affected, translated
from server.store.sql import SQL


class TagStore:
    """Every method is bound to one user's tags."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, tag: Tag, most: int) -> None:
        """Refused tag_exists when the user has one of that name, quota_reached at ``most`` tags."""
        columns = (tag.id, tag.user_id, tag.name, tag.color, tag.description, tag.created_at, most)
        with translated():
            async with self._database.connection() as connection:
                try:
                    inserted = await connection.execute(SQL.tag_insert, *columns)
                except asyncpg.UniqueViolationError:
                    raise Refused("tag_exists", field="name") from None
        if not affected(inserted):
            raise Refused("quota_reached", f"at most {most} tags")

    async def all(self, user_id: str) -> list[Tag]:
        """Oldest first."""
        return [_tag(row) for row in await self._database.fetch(SQL.tags_of_user, user_id)]

    async def one(self, user_id: str, tag_id: str) -> Tag | None:
        row = await self._database.fetchrow(SQL.tag_one, user_id, tag_id)
        return _tag(row) if row else None

    async def named(self, user_id: str, names: Iterable[str]) -> dict[str, str]:
        """Ids by the name asked for, of those there are; case does not matter."""
        return {row["name"]: str(row["id"]) for row in await self._database.fetch(SQL.tags_named, user_id, list(names))}

    async def update(
        self, user_id: str, tag_id: str, name: str | None, color: str | None, description: str | None, now: datetime
    ) -> Tag | None:
        """None leaves a field as it is. Refused tag_exists."""
        with translated():
            async with self._database.connection() as connection:
                try:
                    row = await connection.fetchrow(SQL.tag_update, user_id, tag_id, name, color, description, now)
                except asyncpg.UniqueViolationError:
                    raise Refused("tag_exists", field="name") from None
        return _tag(row) if row else None

    async def delete(self, user_id: str, tag_id: str) -> bool:
        return affected(await self._database.execute(SQL.tag_delete, user_id, tag_id)) == 1


def _tag(row: asyncpg.Record) -> Tag:
    return Tag(
        str(row["id"]),
        str(row["user_id"]),
        row["name"],
        row["color"],
        row["description"],
        row["created_at"],
        row["updated_at"],
    )
