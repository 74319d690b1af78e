"""The users domain: accounts, their logins and their API keys.

Must not know: passwords and tokens, or how they are checked.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import asyncpg

from server.model.account import QUOTAS, ApiKey, Quota, Role, User
from server.model.errors import Refused
from server.store.pools import Connection, Database, affected, translated
from server.store.sql import SQL


class Keyed(NamedTuple):
    """The account a key stands for, and what the key itself allows."""

    user: User
    key_id: str
    scopes: frozenset[str]
    expires_at: datetime | None


def user(row: asyncpg.Record) -> User:
    """A row of users.users joined with users.quotas."""
    granted = row["max_mailboxes"] is not None
    return User(
        id=str(row["id"]),
        email=row["email"],
        username=row["username"],
        tier=row["tier"],
        role=row["role"],
        is_active=row["is_active"],
        is_email_verified=row["is_email_verified"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        last_login_at=row["last_login_at"],
        quota=Quota(*(row[name] for name in Quota.__struct_fields__)) if granted else QUOTAS[row["tier"]],
    )


def _key(row: asyncpg.Record) -> ApiKey:
    return ApiKey(
        id=str(row["id"]),
        user_id=str(row["user_id"]),
        name=row["name"],
        shown=row["shown"],
        scopes=frozenset(row["scopes"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
    )


class UserStore:
    """All reads go to the primary: who was shut out a moment ago must stay out now."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, new: User, password_hash: str) -> None:
        """Refused user_exists, naming the field that is taken."""
        with translated():
            async with self._database.connection() as connection:
                await _insert(connection, new, password_hash)

    async def by_id(self, user_id: str) -> User | None:
        row = await self._database.fetchrow(SQL.user_by_id, user_id)
        return user(row) if row else None

    async def by_name(self, name: str) -> tuple[User, str] | None:
        """The account whose email or username is ``name`` (lower case), and its password's hash."""
        row = await self._database.fetchrow(SQL.user_by_name, name)
        return (user(row), row["password_hash"]) if row else None

    async def rehash(self, user_id: str, old: str, new: str) -> None:
        await self._database.execute(SQL.user_rehash, user_id, old, new)

    async def set_role(self, user_id: str, role: Role, now: datetime) -> None:
        """Also lets the account in again."""
        await self._database.execute(SQL.user_set_role, user_id, role, now)

    async def set_password(self, user_id: str, password_hash: str, now: datetime) -> None:
        """Every login of the account ends with the old password."""
        async with self._database.transaction() as connection:
            await connection.execute(SQL.user_set_password, user_id, password_hash, now)
            await connection.execute(SQL.sessions_delete, user_id)

    # Logins.

    async def open_session(
        self,
        session_id: str,
        user_id: str,
        refresh_hash: bytes,
        now: datetime,
        expires_at: datetime,
        most: int,
        network: bytes | None,
    ) -> None:
        """A new login, from ``network`` (a digest); of an account's logins the newest ``most`` stay."""
        async with self._database.transaction() as connection:
            await connection.execute(SQL.session_insert, session_id, user_id, refresh_hash, now, expires_at)
            await connection.execute(SQL.sessions_trim, user_id, now, most)
            await connection.execute(SQL.user_logged_in, user_id, now, network)

    async def knows_network(self, user_id: str, network: bytes) -> bool:
        """Whether the account has logged in from ``network`` (a digest)."""
        row = await self._database.fetchrow(SQL.network_known, user_id, network)
        return row is not None and bool(row[0])

    async def rotate_session(
        self, session_id: str, user_id: str, old: bytes, new: bytes, now: datetime, expires_at: datetime
    ) -> bool:
        """Whether ``old`` was the newest refresh token; ``new`` is then."""
        status = await self._database.execute(SQL.session_rotate, session_id, user_id, old, new, expires_at, now)
        return affected(status) == 1

    async def close_session(self, session_id: str, user_id: str) -> None:
        await self._database.execute(SQL.session_delete, session_id, user_id)

    async def by_session(self, session_id: str, user_id: str) -> User | None:
        """The account if the login stands and the account may come in."""
        row = await self._database.fetchrow(SQL.session_user, session_id, user_id)
        return user(row) if row else None

    # API keys.

    async def insert_key(self, key: ApiKey, key_hash: bytes, most: int) -> bool:
        """Whether there was room among the account's ``most`` keys."""
        async with self._database.transaction() as connection:
            await connection.execute(SQL.user_lock, key.user_id)
            status = await connection.execute(
                SQL.api_key_insert,
                key.id,
                key.user_id,
                key.name,
                key_hash,
                key.shown,
                sorted(key.scopes),
                key.created_at,
                key.expires_at,
                most,
            )
        return affected(status) == 1

    async def keys(self, user_id: str) -> list[ApiKey]:
        """Newest first."""
        return [_key(row) for row in await self._database.fetch(SQL.api_keys_of, user_id)]

    async def key(self, key_id: str, user_id: str) -> ApiKey | None:
        row = await self._database.fetchrow(SQL.api_key_one, key_id, user_id)
        return _key(row) if row else None

    async def delete_key(self, key_id: str, user_id: str) -> bool:
        return affected(await self._database.execute(SQL.api_key_delete, key_id, user_id)) == 1

    async def owner_of_key(self, key_hash: bytes) -> str | None:
        row = await self._database.fetchrow(SQL.api_key_owner, key_hash)
        return str(row["user_id"]) if row else None

    async def by_key(self, key_hash: bytes) -> Keyed | None:
        """The account if the key is there and the account may come in; the key itself may be out of date."""
        row = await self._database.fetchrow(SQL.api_key_user, key_hash)
        if row is None:
            return None
        return Keyed(user(row), str(row["key_id"]), frozenset(row["scopes"]), row["key_expires_at"])

    async def keys_used(self, used: Mapping[str, datetime]) -> None:
        """When each key (by id) was last used."""
        await self._database.execute(SQL.api_keys_used, list(used), list(used.values()))


async def _insert(connection: Connection, new: User, password_hash: str) -> None:
    try:
        await connection.execute(
            SQL.user_insert, new.id, new.email, new.username, password_hash, new.tier, new.role, new.created_at
        )
    except asyncpg.UniqueViolationError as error:
        field = "username" if error.constraint_name == "users_username" else "email"
        raise Refused("user_exists", field=field) from None
