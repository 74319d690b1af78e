"""API keys: made, listed, revoked, and when each was last used. Who stands behind one, ``services/accounts`` answers.

Lives here: the form of a key and the rules about it. Must not know: HTTP.

A key is 256 bits from ``secrets`` behind a prefix by which scanners of source code can know it; only its SHA-256 is
stored. Last uses are gathered in memory and written once a minute, so that no request costs a write.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from server.model import ids
from server.model.account import KEY_PREFIX, ApiKey, User, checked_key_name
from server.model.errors import Refused
from server.services.accounts.tokens import digest
from server.services.coherence import Coherence, account
from server.services.contracts import NewApiKey
from server.services.periodic import every
from server.store.accounts import UserStore

MAX_KEYS: Final = 50  # of one account
FLUSH_EVERY: Final = 60.0  # s


class KeyService:
    """Implements contracts.ApiKeys. ``used``: key id -> its last use, filled by whoever checks keys, emptied here."""

    def __init__(
        self, store: UserStore, coherence: Coherence, used: dict[str, datetime], clock: Callable[[], datetime]
    ) -> None:
        self._store, self._coherence, self._used, self._clock = store, coherence, used, clock
        self._task: asyncio.Task[None] | None = None

    async def create(self, user: User, name: str, scopes: frozenset[str], life: float | None) -> NewApiKey:
        """A key; ``life`` in seconds, None for one without an end. Refused field_invalid (name), quota_reached."""
        whole, now = KEY_PREFIX + secrets.token_urlsafe(32), self._clock()
        key = ApiKey(
            id=ids.new(),
            user_id=user.id,
            name=checked_key_name(name),
            shown=f"{whole[:8]}****{whole[-4:]}",
            scopes=scopes,
            created_at=now,
            expires_at=None if life is None else now + timedelta(seconds=life),
        )
        if not await self._store.insert_key(key, digest(whole), MAX_KEYS):
            raise Refused("quota_reached", f"at most {MAX_KEYS} keys")
        return NewApiKey(key, whole)

    async def own(self, user: User) -> Sequence[ApiKey]:
        """Newest first."""
        return await self._store.keys(user.id)

    async def one(self, user: User, key_id: str) -> ApiKey:
        """Refused api_key_not_found for unknown and foreign alike."""
        key = await self._store.key(key_id, user.id) if ids.valid(key_id) else None
        if key is None:
            raise Refused("api_key_not_found")
        return key

    async def revoke(self, user: User, key_id: str) -> None:
        """It opens nothing from now on. Refused api_key_not_found for unknown and foreign alike."""
        await self.one(user, key_id)
        with self._coherence.writing(users=[user.id]):
            gone = await self._store.delete_key(key_id, user.id)
        self._coherence.tell([account(user.id)])
        if not gone:
            raise Refused("api_key_not_found")

    def start(self) -> None:
        self._task = asyncio.create_task(every(FLUSH_EVERY, self.flush))

    async def flush(self) -> None:
        """Write down what was used since the last time."""
        used = dict(self._used)
        self._used.clear()
        if used:
            await self._store.keys_used(used)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self.flush()
