"""Administrators' side of the users domain: accounts changed under guard, quotas, the audit trail, settings, counters.

Lives here: the transactions that hold an act and its entry in the trail together. Must not know: who may do what; that
is a function handed in and asked inside the transaction.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import asyncpg
import msgspec

from server.model import ids
from server.model.account import Quota, User
from server.model.admin import Act, Actor, Changes, Statistics, UserFilter
from server.model.ban import Ban
from server.model.errors import Refused
from server.store import accounts as users
from server.store.messages import like
from server.store.pools import Connection, Pools
from server.store.rows import scrubbed
from server.store.sql import SQL

Judge = Callable[[User, bool], None]
"""(the account as it is, whether it is the last super user that can act) -> raises Refused where the act may not be."""

_encode = msgspec.json.Encoder().encode
_bans = msgspec.json.Decoder(list[Ban])


class Overrides(msgspec.Struct, frozen=True):
    """What administrators set: path -> JSON value, when and by whom last; and the bans in force."""

    values: Mapping[str, Any]
    updated_at: datetime | None
    updated_by: str | None
    bans: list[Ban] = []


class AdministrationStore:
    """Lists and figures may come from replicas, as of now; what an act is judged by comes from the primary."""

    def __init__(self, pools: Pools) -> None:
        self._pools, self._database = pools, pools.users

    # Accounts.

    async def users(self, wanted: UserFilter, limit: int, offset: int) -> tuple[list[User], int]:
        """A page, newest first, and how many there are in all pages."""
        conditions = (like(wanted.search), wanted.role, wanted.tier, wanted.is_active)
        rows = await self._database.survey(SQL.admin_users, *conditions, limit, offset)
        if not rows and offset:  # past the last page no row carries the count
            rows = await self._database.survey(SQL.admin_users, *conditions, 1, 0)
            return [], rows[0]["found"] if rows else 0
        return [users.user(row) for row in rows], rows[0]["found"] if rows else 0

    async def change(self, actor: Actor, user_id: str, changes: Changes, judge: Judge, now: datetime) -> User:
        """The account as it is then. Refused user_not_found, and what ``judge`` raises."""
        async with self._database.transaction() as connection:
            before = await _judged(connection, user_id, judge)
            given = {name: value for name, value in msgspec.structs.asdict(changes).items() if value is not None}
            moved = {name: value for name, value in given.items() if getattr(before, name) != value}
            if not moved:
                return before
            after = msgspec.structs.replace(before, **moved, updated_at=now)
            kept = (after.tier, after.role, after.is_active, after.is_email_verified)
            await connection.execute(SQL.admin_user_set, user_id, *kept, now)
            was = {name: getattr(before, name) for name in moved}
            await write_act(connection, actor, "user.update", user_id, was, moved, now)
            row = await connection.fetchrow(SQL.user_by_id, user_id)
            return users.user(row) if row else after

    async def set_quota(
        self, actor: Actor, user_id: str, given: Mapping[str, int], judge: Judge, now: datetime
    ) -> Quota:
        """The quota with the ``given`` fields of it changed. Refused user_not_found, and what ``judge`` raises."""
        async with self._database.transaction() as connection:
            before = await _judged(connection, user_id, judge)
            quota = msgspec.structs.replace(before.quota, **given)
            granted = msgspec.structs.asdict(quota)
            await connection.execute(SQL.admin_quota_set, user_id, *granted.values())
            await write_act(connection, actor, "quota.set", user_id, msgspec.structs.asdict(before.quota), granted, now)
        return quota

    async def delete(self, actor: Actor, user_id: str, judge: Judge, now: datetime) -> None:
        """Refused user_not_found, and what ``judge`` raises. What the account has elsewhere is noted as still to go."""
        async with self._database.transaction() as connection:
            before = await _judged(connection, user_id, judge)
            await connection.execute(SQL.admin_user_delete, user_id)
            await connection.execute(SQL.departure_insert, user_id, now)
            was = {"email": before.email, "username": before.username, "role": before.role, "tier": before.tier}
            await write_act(connection, actor, "user.delete", user_id, was, None, now)

    # The trail.

    async def record(
        self,
        actor: Actor,
        action: str,
        target: str,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
        now: datetime,
    ) -> None:
        """An act that is in another domain."""
        async with self._database.transaction() as connection:
            await write_act(connection, actor, action, target, before, after, now)

    async def acts(self, limit: int, offset: int) -> list[Act]:
        """Newest first."""
        rows = await self._database.survey(SQL.audit_page, limit, offset)
        return [
            Act(
                id=str(row["id"]),
                at=row["at"],
                actor_id=str(row["actor_id"]) if row["actor_id"] else None,
                actor=row["actor"],
                client=row["client"],
                action=row["action"],
                target=row["target"],
                before=_read(row["before"]),
                after=_read(row["after"]),
            )
            for row in rows
        ]

    async def count_acts(self) -> int:
        rows = await self._database.survey(SQL.audit_count)
        return int(rows[0]["n"]) if rows else 0

    # Settings.

    async def overrides(self) -> Overrides:
        """With the bans in force, in one query: both are read again when either has changed."""
        row = await self._database.fetchrow(SQL.settings_read)
        found = _overrides(row)
        return found if row is None else msgspec.structs.replace(found, bans=_bans.decode(row["bans"]))

    async def newest_act(self) -> str | None:
        """The id of what an administrator did last, here or elsewhere."""
        row = await self._database.fetchrow(SQL.acts_newest)
        return None if row is None else str(row["id"])

    async def override(
        self, actor: Actor, action: str, decide: Callable[[Mapping[str, Any]], Mapping[str, Any]], now: datetime
    ) -> Overrides:
        """Let ``decide`` make the new values of the old, which nobody else changes meanwhile. Refused as it raises."""
        async with self._database.transaction() as connection:
            before = _overrides(await connection.fetchrow(SQL.settings_lock)).values
            after = decide(before)
            await connection.execute(SQL.settings_write, _encode(after).decode(), now, actor.name)
            moved = {path for path in {*before, *after} if before.get(path) != after.get(path)}
            was = {path: value for path, value in before.items() if path in moved}
            is_now = {path: value for path, value in after.items() if path in moved}
            await write_act(connection, actor, action, "settings", was, is_now, now)
        return Overrides(after, now, actor.name)

    # Figures.

    async def statistics(self, day: date) -> Statistics:
        """From the counters that every change keeps: three short reads, however much there is."""
        accounts = await self._pools.users.survey(SQL.accounts_counted)
        domains = await self._pools.mailboxes.survey(SQL.mailboxes_counted)
        counted = await self._pools.messages.survey(SQL.messages_counted, day)
        messages = counted[0] if counted else None
        return Statistics(
            total_users=sum(row["accounts"] for row in accounts),
            active_users=sum(row["accounts"] for row in accounts if row["is_active"]),
            total_mailboxes=domains[0]["made_in_all"] if domains else 0,
            active_mailboxes=domains[0]["living_in_all"] if domains else 0,
            total_messages=messages["received"] if messages else 0,
            messages_today=(messages["today"] or 0) if messages else 0,
            users_by_tier=_summed(accounts, "tier"),
            users_by_role=_summed(accounts, "role"),
            mailboxes_by_domain={row["domain"]: row["living"] for row in domains if row["living"]},
        )


def _summed(rows: Sequence[asyncpg.Record], name: str) -> dict[str, int]:
    sums: dict[str, int] = {}
    for row in rows:
        sums[row[name]] = sums.get(row[name], 0) + row["accounts"]
    return sums


async def _judged(connection: Connection, user_id: str, judge: Judge) -> User:
    """The account, locked, after the super users were: so locks are taken in one order."""
    supers = {str(row["id"]) for row in await connection.fetch(SQL.admin_super_lock)}
    row = await connection.fetchrow(SQL.admin_user_lock, user_id)
    if row is None:
        raise Refused("user_not_found")
    user = users.user(row)
    judge(user, supers == {user_id})
    return user


async def write_act(
    connection: Connection,
    actor: Actor,
    action: str,
    target: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    now: datetime,
) -> None:
    await connection.execute(
        SQL.audit_insert,
        ids.new(),
        now,
        actor.user_id,
        scrubbed(actor.name, 320),
        scrubbed(actor.client, 64),
        action,
        scrubbed(target, 320),
        None if before is None else _encode(before).decode(),
        None if after is None else _encode(after).decode(),
    )


def _read(text: str | None) -> Mapping[str, Any] | None:
    return None if text is None else msgspec.json.decode(text)


def _overrides(row: Any) -> Overrides:
    if row is None:
        return Overrides({}, None, None)
    return Overrides(msgspec.json.decode(row["overrides"]), row["updated_at"], row["updated_by"])
