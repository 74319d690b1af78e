"""The outbox and log of webhooks, and the copy of who listens, all in the domain of messages.

Lives here: recording events beside or inside a transaction, leases, results. Must not know: HTTP, or the webhooks
themselves, which live in another domain.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec

from server.model import ids
from server.model.message import Stored
from server.model.webhook import MAX_WEBHOOKS, Delivery, Event, Outcome, Webhook, mail_received
from server.store.pools import Connection, Database
from server.store.rows import scrubbed
from server.store.sql import SQL

EXPIRE_BATCH: Final = 1000  # log rows that one statement deletes
_COLUMNS: Final = ("id", "webhook_id", "user_id", "event", "data", "created_at", "due_at", "mailbox_id")

Listeners = tuple[str, Sequence[str]]
"""A user, and the webhooks of that user that listen."""


async def copy_received(
    connection: Connection, rows: Iterable[Stored], heard: Mapping[str, Listeners], now: datetime
) -> None:
    """Inside a batch's transaction: one row for each message of ``rows`` and each listener of its mailbox."""
    records = []
    for row in rows:
        data = mail_received(row)
        user_id, listeners = heard[row.mailbox_id]
        records += [(ids.new(), one, user_id, "mail.received", data, now, now, row.mailbox_id) for one in listeners]
    await connection.copy_records_to_table("deliveries", schema_name="messages", records=records, columns=_COLUMNS)


async def record(connection: Connection, user_id: str, event: Event, data: str, now: datetime) -> bool:
    """Inside the caller's transaction: one row for each webhook of the user that listens; whether there was any."""
    names = [ids.new() for _ in range(MAX_WEBHOOKS)]
    status = await connection.execute(SQL.deliveries_record, names, user_id, event, data, now)
    return not status.endswith(" 0")


class DeliveryStore:
    """Every method raises Unavailable in trouble."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, user_id: str, event: Event, data: str, now: datetime) -> bool:
        async with self._database.transaction() as connection:
            return await record(connection, user_id, event, data, now)

    async def insert(self, delivery: Delivery) -> None:
        one = delivery
        await self._database.execute(
            SQL.delivery_insert,
            *(one.id, one.webhook_id, one.user_id, one.event, one.data, one.created_at, one.due_at, one.fence),
        )

    async def widen(self, webhook: Webhook) -> None:
        """From here on everything the webhook listens to is recorded, beside what was."""
        await self._database.execute(SQL.listener_widen, webhook.id, webhook.user_id, list(webhook.events))

    async def narrow(self, user_id: str, active: Collection[Webhook]) -> None:
        """From here on nothing is recorded for the user but what ``active`` listen to."""
        names, events = [one.id for one in active], [",".join(one.events) for one in active]
        await self._database.execute(SQL.listeners_narrow, user_id, names, events)

    async def take(self, busy: Collection[str], each: int, limit: int, lease: float) -> list[Delivery]:
        """Up to ``limit`` that are due, at most ``each`` of one webhook and none of the webhooks ``busy``; ours for
        ``lease`` seconds."""
        rows = await self._database.fetch(SQL.deliveries_take, list(busy), each, limit, lease)
        return [_delivery(row) for row in rows]

    async def give_back(self, held: Sequence[Delivery]) -> None:
        """Not tried after all; due for anybody now."""
        names, fences = [one.id for one in held], [one.fence for one in held]
        await self._database.execute(SQL.deliveries_return, names, fences)

    async def drop(self, held: Sequence[Delivery], why: str) -> None:
        """They are not to be sent any more."""
        names, fences = [one.id for one in held], [one.fence for one in held]
        await self._database.execute(SQL.deliveries_dropped, names, fences, why)

    async def tried(self, held: Delivery, outcome: Outcome, retry: float | None) -> Delivery | None:
        """Write an attempt down; due again in ``retry`` seconds, or over. None when the lease was lost meanwhile."""
        row = await self._database.fetchrow(
            SQL.delivery_tried,
            held.id,
            held.fence,
            retry,
            outcome.success,
            outcome.status_code,
            None if outcome.response is None else scrubbed(outcome.response, len(outcome.response)),
            outcome.duration,
            outcome.error,
        )
        return _delivery(row) if row else None

    async def of(self, webhook_id: str, limit: int) -> list[Delivery]:
        """The newest first."""
        return [_delivery(row) for row in await self._database.survey(SQL.deliveries_of, webhook_id, limit)]

    async def one(self, delivery_id: str, user_id: str) -> Delivery | None:
        row = await self._database.fetchrow(SQL.delivery_one, delivery_id, user_id)
        return _delivery(row) if row else None

    async def replay(self, delivery_id: str, user_id: str) -> Delivery | None:
        """Due now, as if never tried."""
        row = await self._database.fetchrow(SQL.delivery_replay, delivery_id, user_id)
        return _delivery(row) if row else None

    async def expire(self, before: datetime) -> int:
        """Delete up to ``EXPIRE_BATCH`` rows made before then; how many."""
        status = await self._database.execute(SQL.deliveries_expire, ids.floor(before), EXPIRE_BATCH)
        return int(status.rsplit(" ", 1)[1])


def _delivery(row: asyncpg.Record) -> Delivery:
    values: dict[str, Any] = dict(row)
    named = {name: str(values[name]) for name in ("id", "webhook_id", "user_id")}
    return msgspec.convert(values | named, Delivery)
