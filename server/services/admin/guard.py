"""Who and what is let in: the bans in force, asked from memory, and what administrators do to them.

Lives here: the acts, and the questions of those who let in. Must not know: HTTP, SMTP, or how bans are matched.

A network's ban stops its mail, its new mailboxes and its new accounts. It stops nothing else, and nothing that an
administrator asks for: so it shuts none out. postmaster@ and abuse@ stay open to everybody (RFC 2142).
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from server.model import ids
from server.model.account import User
from server.model.admin import Actor
from server.model.ban import Ban, Kind, canonical
from server.model.domain import ROLE_NAMES
from server.model.errors import Refused
from server.services.admin.settings import Settings
from server.services.coherence import Coherence, settings_changed
from server.store.bans import BanStore


class Guard:
    """The bans in force are part of the settings in force, and known as soon."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def stale(self) -> bool:
        """Whether the bans known may be old; never waits."""
        return self._settings.stale()

    async def refresh(self) -> None:
        await self._settings.refresh()

    def refuses_mail(self, client: str, sender: str) -> bool:
        """Whether mail of this client or sender is refused, but for what ``always_open`` says."""
        bans = self._settings.bans
        return bool(bans) and (bans.client(client) or bans.sender(sender))

    def bans_client(self, client: str) -> bool:
        """Whether the network of ``client`` is banned."""
        bans = self._settings.bans
        return bool(bans) and bans.client(client)

    def always_open(self, address: str) -> bool:
        return address.rpartition("@")[0].partition("+")[0] in ROLE_NAMES

    def check_client(self, client: str, user: User | None = None) -> None:
        """Refused client_banned, unless an administrator acts."""
        if (user is None or user.role == "user") and self._settings.bans.client(client):
            raise Refused("client_banned")

    def check_name(self, local_part: str, field: str) -> None:
        """Refused prefix_invalid for a name that is reserved by setting or banned."""
        if self.holds_name(local_part):
            raise Refused("prefix_invalid", f"{local_part} is not given away here", field=field)

    def holds_name(self, local_part: str) -> bool:
        return self._settings.reserved.hold(local_part) or self._settings.bans.name(local_part)


class BanService:
    """Implements contracts.Bans."""

    def __init__(
        self, store: BanStore, settings: Settings, coherence: Coherence, clock: Callable[[], datetime]
    ) -> None:
        self._store, self._settings, self._coherence, self._clock = store, settings, coherence, clock

    async def page(self, kind: str | None, page: int, page_size: int) -> tuple[Sequence[Ban], int]:
        return await self._store.page(kind, page_size, (page - 1) * page_size)

    async def add(self, actor: Actor, kind: Kind, value: str, reason: str, life: float | None) -> Ban:
        """In force in every worker of the host once this returns. Refused field_invalid, ban_exists, quota_reached."""
        value = canonical(kind, value)
        with self._coherence.writing(settings=True):
            made = await self._store.add(actor, kind, value, reason, life, self._clock())
        await self._follow()
        return made

    async def remove(self, actor: Actor, ban_id: str) -> None:
        """Refused ban_not_found."""
        if not ids.valid(ban_id):
            raise Refused("ban_not_found")
        with self._coherence.writing(settings=True):
            await self._store.remove(actor, ban_id, self._clock())
        await self._follow()

    async def _follow(self) -> None:
        self._coherence.tell([settings_changed()])
        await self._settings.refresh()
