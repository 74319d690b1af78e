"""The mailboxes domain: records by id and by address, aliases. Must not know: mail, which lives in another domain."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from server.model.errors import Refused
from server.model.message import Alias, Mailbox
from server.store import rows
from server.store.coalescing import Coalescer
from server.store.pools import Connection, Database, affected, translated
from server.store.sql import SQL


class MailboxStore:
    """What mail is routed by is asked of the primary: a mailbox made a moment ago, by whatever host, takes mail now."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._records = Coalescer("mailbox", self._by_ids)
        self._routes = Coalescer("address", self._by_addresses)

    async def insert(self, mailbox: Mailbox, most: int = 0, client: str | None = None) -> None:
        """Refused mailbox_exists when a mailbox has the address, as its own or as an alias; quota_reached when its user
        has ``most`` living ones already (0: any number may be). ``client``: the IP address that makes it, or empty;
        None where that is not to be noted.
        """
        if mailbox.user_id is None or not most:
            with translated():
                async with self._database.connection() as connection:
                    await _insert(connection, mailbox, client)
            return
        async with self._database.transaction() as connection:
            await connection.execute(SQL.mailboxes_own_lock, mailbox.user_id)
            if await connection.fetchval(SQL.mailboxes_own_count, mailbox.user_id, mailbox.created_at) >= most:
                raise Refused("quota_reached", f"at most {most} mailboxes")
            await _insert(connection, mailbox, client)

    async def of_user(self, user_id: str, now: datetime, limit: int, before: str | None) -> list[Mailbox]:
        """The living ones, newest first; ``before``: only ids less than this one."""
        found = await self._database.fetch(SQL.mailboxes_own, user_id, now, limit, before)
        return [rows.mailbox(row) for row in found]

    async def count_of_user(self, user_id: str, now: datetime) -> int:
        found = await self._database.fetch(SQL.mailboxes_own_count, user_id, now)
        return int(found[0][0])

    async def by_id(self, mailbox_id: str) -> Mailbox | None:
        """The record; one that is not there takes as long."""
        if self._database.copied:
            return (await self._by_ids([mailbox_id]))[0]
        return await self._records.answer(mailbox_id)

    async def _by_ids(self, mailbox_ids: Sequence[str]) -> list[Mailbox | None]:
        alone = len(mailbox_ids) == 1
        asked = (SQL.mailbox_by_id, mailbox_ids[0]) if alone else (SQL.mailboxes_by_id, mailbox_ids)
        found = await self._database.read(mailbox_ids, *asked, sure=_knows)
        read = [(row["known"], rows.mailbox(row)) for row in found]
        return [mailbox if known else None for known, mailbox in read]

    async def by_address(self, local_part: str, domain: str) -> Mailbox | None:
        """The mailbox that mail to this address reaches: it is the mailbox's own or an alias that is switched on."""
        return await self._routes.answer((local_part, domain))

    async def _by_addresses(self, wanted: Sequence[tuple[str, str]]) -> list[Mailbox | None]:
        if len(wanted) == 1:
            row = await self._database.fetchrow(SQL.mailbox_by_address, *wanted[0])
            return [rows.mailbox(row) if row else None]
        local_parts, domains = zip(*wanted, strict=True)
        found = await self._database.fetch(SQL.mailboxes_by_address, local_parts, domains)
        known = {row["n"]: rows.mailbox(row) for row in found}
        return [known.get(n) for n in range(1, len(wanted) + 1)]

    async def any_by_address(self, local_part: str, domain: str) -> str | None:
        """The id of the mailbox that has this address, be it switched off or disabled."""
        row = await self._database.fetchrow(SQL.mailbox_of_address, local_part, domain)
        return str(row["mailbox_id"]) if row else None

    async def set_token(self, mailbox_id: str, token_hash: bytes) -> bool:
        return affected(await self._database.execute(SQL.mailbox_token, mailbox_id, token_hash)) == 1

    async def extend(self, mailbox_id: str, expires_at: datetime) -> Mailbox | None:
        row = await self._database.fetchrow(SQL.mailbox_extend, mailbox_id, expires_at)
        return rows.mailbox(row) if row else None

    async def delete(self, mailbox_id: str) -> bool:
        return affected(await self._database.execute(SQL.mailbox_delete, mailbox_id)) == 1

    async def addresses(self, mailbox_id: str) -> list[str]:
        """Every address that leads to it, switched on or not."""
        found = await self._database.fetch(SQL.mailbox_addresses, mailbox_id)
        return [f"{row['local_part']}@{row['domain']}" for row in found]

    async def take_expired(self, now: datetime, limit: int) -> dict[str, list[str]]:
        """Delete up to ``limit`` mailboxes whose time is over; the addresses free now, by mailbox, its own first."""
        return _freed(await self._database.fetch(SQL.mailboxes_expired, now, limit))

    async def take_expired_at(self, local_part: str, domain: str, now: datetime) -> dict[str, list[str]]:
        """The same for whichever mailbox has one address."""
        return _freed(await self._database.fetch(SQL.mailbox_expired_at, local_part, domain, now))

    async def insert_alias(self, alias: Alias, most: int) -> None:
        """Refused alias_exists when any mailbox has the address, too_many_aliases, mailbox_not_found."""
        async with self._database.transaction() as connection:
            if await connection.fetchrow(SQL.alias_owner_lock, alias.mailbox_id) is None:
                raise Refused("mailbox_not_found")
            if await connection.fetchval(SQL.alias_count, alias.mailbox_id) >= most:
                raise Refused("too_many_aliases", f"at most {most} for one mailbox")
            place = (alias.local_part, alias.domain, alias.mailbox_id, alias.id, alias.created_at)
            try:
                await connection.execute(SQL.alias_insert, *place)
            except asyncpg.UniqueViolationError:
                raise Refused("alias_exists", "choose another address", field="address") from None

    async def aliases(self, mailbox_id: str) -> list[Alias]:
        """Oldest first."""
        return [_alias(row) for row in await self._database.read([mailbox_id], SQL.aliases_of_mailbox, mailbox_id)]

    async def alias(self, mailbox_id: str, alias_id: str) -> Alias | None:
        found = await self._database.read([mailbox_id], SQL.alias_one, mailbox_id, alias_id, sure=bool)
        return _alias(found[0]) if found else None

    async def switch_alias(self, mailbox_id: str, alias_id: str, active: bool) -> Alias | None:
        row = await self._database.fetchrow(SQL.alias_switch, mailbox_id, alias_id, active)
        return _alias(row) if row else None

    async def delete_alias(self, mailbox_id: str, alias_id: str) -> bool:
        return affected(await self._database.execute(SQL.alias_delete, mailbox_id, alias_id)) == 1


def _knows(found: Sequence[asyncpg.Record]) -> bool:
    return all(row["known"] for row in found)


async def _insert(connection: Connection, mailbox: Mailbox, client: str | None) -> None:
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
            (client or "").partition("%")[0] or None,
            client is not None,
        )
    except asyncpg.UniqueViolationError:
        raise Refused("mailbox_exists", "choose another prefix", field="prefix") from None


def _freed(found: list[asyncpg.Record]) -> dict[str, list[str]]:
    freed: dict[str, list[str]] = {}
    for row in found:
        freed.setdefault(str(row["id"]), []).append(f"{row['local_part']}@{row['domain']}")
    return freed


def _alias(row: asyncpg.Record) -> Alias:
    return Alias(
        str(row["alias_id"]),
        str(row["mailbox_id"]),
        row["local_part"],
        row["domain"],
        row["created_at"],
        row["is_active"],
    )
