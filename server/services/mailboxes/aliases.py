"""Aliases: further addresses of a mailbox. Their mail lies in the mailbox, and they end with it.

Lives here: which addresses may be one. Must not know: HTTP. Who gets an address that several want at the same moment,
mailbox or alias, the database decides.
"""

from collections.abc import Callable
from datetime import datetime

from server.config.settings import Config
from server.model import ids
from server.model.errors import Refused
from server.model.event import Hint, Kind
from server.model.message import Alias, Mailbox
from server.services.coherence import Coherence
from server.services.mailboxes.mailboxes import MailboxService
from server.store.mailboxes import MailboxStore


class AliasService:
    """Implements contracts.Aliases."""

    def __init__(
        self,
        config: Config,
        store: MailboxStore,
        mailboxes: MailboxService,
        coherence: Coherence,
        clock: Callable[[], datetime],
    ) -> None:
        self._config, self._store, self._mailboxes = config, store, mailboxes
        self._coherence, self._clock = coherence, clock

    def apply_settings(self, config: Config) -> None:
        """Settings have changed."""
        self._config = config

    async def create(self, mailbox: Mailbox, address: str) -> Alias:
        """``address``: a local part, under the mailbox's own domain then, or a whole address. Refused: prefix_invalid,
        domain_not_allowed, alias_exists, too_many_aliases."""
        local_part, at, domain = address.strip().partition("@")
        local_part = self._mailboxes.chosen_name(local_part, "address")
        domain = await self._mailboxes.usable_domain(domain, mailbox.user_id, "address") if at else mailbox.domain
        if f"{local_part}@{domain}" == self._config.administrator:
            raise Refused("prefix_invalid", f"{local_part} is reserved", field="address")
        alias = Alias(ids.new(), mailbox.id, local_part, domain, self._clock())
        with self._coherence.writing([mailbox.id], [alias.address]):
            await self._insert(alias)
        self._tell(mailbox)
        return alias

    async def _insert(self, alias: Alias) -> None:
        try:
            await self._store.insert_alias(alias, self._config.mailbox_max_aliases)
        except Refused as refused:
            if refused.word != "alias_exists":
                raise
            if not await self._mailboxes.free(alias.local_part, alias.domain, alias.created_at):
                raise
            await self._store.insert_alias(alias, self._config.mailbox_max_aliases)

    async def all(self, mailbox: Mailbox) -> list[Alias]:
        """Oldest first."""
        return await self._store.aliases(mailbox.id)

    async def one(self, mailbox: Mailbox, alias_id: str) -> Alias:
        """Refused alias_not_found."""
        alias = await self._store.alias(mailbox.id, alias_id) if ids.valid(alias_id) else None
        if alias is None:
            raise Refused("alias_not_found")
        return alias

    async def switch(self, mailbox: Mailbox, alias_id: str, *, active: bool) -> Alias:
        """Off, mail to it is refused as for an address that nobody has. Refused alias_not_found."""
        known = await self.one(mailbox, alias_id)
        with self._coherence.writing([mailbox.id], [known.address]):
            alias = await self._store.switch_alias(mailbox.id, alias_id, active)
        self._tell(mailbox)
        if alias is None:
            raise Refused("alias_not_found")
        return alias

    async def delete(self, mailbox: Mailbox, alias_id: str) -> None:
        """The address is free at once. Refused alias_not_found."""
        known = await self.one(mailbox, alias_id)
        with self._coherence.writing([mailbox.id], [known.address]):
            deleted = await self._store.delete_alias(mailbox.id, alias_id)
        self._tell(mailbox)
        if not deleted:
            raise Refused("alias_not_found")

    def _tell(self, mailbox: Mailbox) -> None:
        self._coherence.tell([Hint(Kind.ADDRESS, mailbox.id)])
