"""Webhooks in the domain of users. Must not know: deliveries, which live in another domain."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec

from server.model.webhook import Webhook
from server.store.pools import Connection, Database
from server.store.sql import SQL


class Changing:
    """One user's webhooks, locked; what is done here is committed at the end of the block."""

    def __init__(self, connection: Connection, user_id: str) -> None:
        self._connection, self._user_id = connection, user_id

    async def all(self) -> list[Webhook]:
        return [_webhook(row) for row in await self._connection.fetch(SQL.webhooks_of_user, self._user_id)]

    async def insert(self, new: Webhook) -> None:
        await self._connection.execute(
            SQL.webhook_insert,
            *(new.id, new.user_id, new.url, list(new.events), new.secret, new.description, new.created_at),
        )

    async def update(self, one: Webhook) -> None:
        values = (one.url, list(one.events), one.is_active, one.description, one.secret, one.updated_at)
        await self._connection.execute(SQL.webhook_update, one.id, one.user_id, *values)

    async def disable(self, webhook_id: str, why: str) -> None:
        await self._connection.execute(SQL.webhook_disable, webhook_id, self._user_id, why)

    async def delete(self, webhook_id: str) -> None:
        await self._connection.execute(SQL.webhook_delete, webhook_id, self._user_id)


class WebhookStore:
    """Every method raises Unavailable in trouble."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def changing(self, user_id: str) -> AsyncIterator[Changing]:
        """A transaction that no other change of this user's webhooks runs beside."""
        async with self._database.transaction() as connection:
            await connection.execute(SQL.webhooks_lock, user_id)
            yield Changing(connection, user_id)

    async def of_user(self, user_id: str) -> list[Webhook]:
        return [_webhook(row) for row in await self._database.fetch(SQL.webhooks_of_user, user_id)]

    async def one(self, webhook_id: str, user_id: str) -> Webhook | None:
        row = await self._database.fetchrow(SQL.webhook_one, webhook_id, user_id)
        return _webhook(row) if row else None

    async def named(self, webhook_ids: Sequence[str]) -> dict[str, Webhook]:
        rows = await self._database.fetch(SQL.webhooks_named, list(webhook_ids))
        return {str(row["id"]): _webhook(row) for row in rows}

    async def succeeded(self, webhook_id: str) -> None:
        await self._database.execute(SQL.webhook_succeeded, webhook_id)

    async def failed(self, webhook_id: str, why: str) -> None:
        await self._database.execute(SQL.webhook_failed, webhook_id, why)


def _webhook(row: asyncpg.Record) -> Webhook:
    values: dict[str, Any] = dict(row)
    return msgspec.convert(values | {"id": str(values["id"]), "user_id": str(values["user_id"])}, Webhook)
