"""Domains: claims, proofs, and the set that takes mail. Must not know: DNS, or who may do what."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg

from server.model import ids
from server.model.domain import Domain, Mode, Served, new_verify_token
from server.model.errors import Refused
from server.store.pools import Connection, Database, affected, translated
from server.store.rows import scrubbed
from server.store.sql import SQL


class ServedRow(NamedTuple):
    domain: Served
    is_default: bool
    configured: bool


_CONFIGURING = 0x646F6D61  # pg_advisory_xact_lock key
_CLAIMING = 0x636C


class DomainStore:
    """All reads go to the primary: a domain proved a moment ago must take mail now."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def served(self, revision: int) -> tuple[int, list[ServedRow] | None]:
        """The set's revision now, and what is in it, oldest first; None when ``revision`` is still the one."""
        rows = await self._database.fetch(SQL.domains_served, revision)
        current: int = rows[0]["revision"]
        return current, None if current == revision else [_served(row) for row in rows if row["name"] is not None]

    async def insert(self, domain: Domain) -> None:
        """Refused domain_exists when its owner has it already, or somebody proved it."""
        with translated():
            async with self._database.connection() as connection:
                await _insert(connection, domain)

    async def insert_claim(self, domain: Domain, user_id: str, most: int) -> None:
        """The same for a user's claim, of which there may be ``most``. Refused quota_reached as well."""
        async with self._database.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", _CLAIMING, user_id)
            if await connection.fetchval(SQL.domains_count_of_user, user_id) >= most:
                raise Refused("quota_reached", f"at most {most} domains")
            await _insert(connection, domain)

    async def _unique(self, sql: str, *args: object) -> None:
        with translated():
            async with self._database.connection() as connection:
                try:
                    await connection.execute(sql, *args)
                except asyncpg.UniqueViolationError:
                    raise Refused("domain_exists") from None

    async def is_proved(self, name: str) -> bool:
        return await self._database.fetchrow(SQL.domain_proved_by_another, name) is not None

    async def by_id(self, domain_id: str) -> Domain | None:
        row = await self._database.fetchrow(SQL.domain_by_id, domain_id)
        return _domain(row) if row else None

    async def system_by_name(self, name: str) -> Domain | None:
        row = await self._database.fetchrow(SQL.domain_system, name)
        return _domain(row) if row else None

    async def of_user(self, user_id: str, limit: int) -> list[Domain]:
        return [_domain(row) for row in await self._database.fetch(SQL.domains_of_user, user_id, limit)]

    async def of_system(self, limit: int) -> list[Domain]:
        return [_domain(row) for row in await self._database.fetch(SQL.domains_of_system, limit)]

    async def record_check(self, domain: Domain) -> None:
        """Keep what a check found. Refused domain_exists when somebody else proved the name first."""
        await self._unique(
            SQL.domain_checked,
            domain.id,
            domain.status,
            domain.method,
            domain.verify_token,
            domain.verified_at,
            domain.last_check_at,
            domain.expires_at,
            list(domain.mx_records),
        )

    async def set_mode(self, domain_id: str, mode: Mode) -> bool:
        return affected(await self._database.execute(SQL.domain_mode, domain_id, mode)) == 1

    async def set_active(self, domain_id: str, active: bool) -> bool:
        return affected(await self._database.execute(SQL.domain_active, domain_id, active)) == 1

    async def set_default(self, domain_id: str) -> None:
        """Refused domain_unverified, and nothing done, unless it is a verified, active system domain."""
        async with self._database.transaction() as connection:
            await connection.execute(SQL.domain_default_lock)
            await connection.execute(SQL.domain_no_default, domain_id)
            if affected(await connection.execute(SQL.domain_become_default, domain_id)) != 1:
                raise Refused("domain_unverified", "only a verified and active system domain can be the default")

    async def delete(self, domain_id: str) -> bool:
        """False when it has gone already, or mailboxes live there."""
        return affected(await self._database.execute(SQL.domain_delete, domain_id)) == 1

    async def configure(self, names: Sequence[str], now: datetime) -> None:
        """Make ``names`` verified system domains, and no other that only the settings vouched for."""
        identities, tokens = [ids.new() for _ in names], [new_verify_token() for _ in names]
        async with self._database.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _CONFIGURING)  # every worker does this at boot
            await connection.execute(SQL.domains_displace, names)
            await connection.execute(SQL.domains_retire, names)
            await connection.execute(SQL.domains_configure, identities, names, tokens, now)

    async def take_due(self, now: datetime, before: datetime, limit: int) -> list[Domain]:
        """Users' verified domains last checked before ``before``, marked as checked now: each is handed out once."""
        return [_domain(row) for row in await self._database.fetch(SQL.domains_due, now, before, limit)]

    async def mailboxes_of_domain(self, name: str) -> int:
        return await self._count(SQL.mailboxes_count_of_domain, name)

    async def _count(self, sql: str, *args: object) -> int:
        row = await self._database.fetchrow(sql, *args)
        return int(row["n"]) if row else 0


def _served(row: asyncpg.Record) -> ServedRow:
    owner = str(row["user_id"]) if row["user_id"] else None
    return ServedRow(Served(row["name"], row["mode"], owner), row["is_default"], row["method"] == "configuration")


def _domain(row: asyncpg.Record) -> Domain:
    return Domain(
        id=str(row["id"]),
        name=row["name"],
        user_id=str(row["user_id"]) if row["user_id"] else None,
        mode=row["mode"],
        status=row["status"],
        method=row["method"],
        verify_token=row["verify_token"],
        created_at=row["created_at"],
        created_by=str(row["created_by"]) if row["created_by"] else None,
        verified_at=row["verified_at"],
        last_check_at=row["last_check_at"],
        expires_at=row["expires_at"],
        is_active=row["is_active"],
        is_default=row["is_default"],
        mx_records=tuple(row["mx_records"]),
        notes=row["notes"],
        mailbox_count=int(row["mailbox_count"]),
    )


async def _insert(connection: Connection, domain: Domain) -> None:
    try:
        await connection.execute(
            SQL.domain_insert,
            domain.id,
            domain.name,
            domain.user_id,
            domain.mode,
            domain.status,
            domain.method,
            domain.verify_token,
            domain.created_at,
            domain.created_by,
            domain.verified_at,
            domain.last_check_at,
            list(domain.mx_records),
            scrubbed(domain.notes, 500),
        )
    except asyncpg.UniqueViolationError:
        raise Refused("domain_exists") from None
