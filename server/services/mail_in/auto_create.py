"""Mailboxes that mail itself makes: any address of a catch_all domain, and the administrators'.

Lives here: whether there is room for one more, and whose it is. Must not know: SMTP, or how an address is read.

The administrators' mailbox belongs to no account, has no end, and opens to every administrator. A domain that catches
all makes mailboxes for its owner, within the owner's quota of mailboxes and ``MAX_CAUGHT``: whoever guesses addresses
fills the owner's quota and nothing more.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from server.config.settings import Config
from server.metrics import Counter
from server.model.account import User
from server.model.domain import Target
from server.model.errors import Refused
from server.services.mailboxes.mailboxes import MailboxService
from server.store.domains import DomainStore

MAX_CAUGHT: Final = 10_000  # mailboxes of one catch_all domain
ADMIN_CAPACITY: Final = 10_000  # messages the administrators' mailbox holds

CAUGHT = Counter("tempmail_mailboxes_caught_total", "Mailboxes made by mail to a catch_all domain.", ("result",))


class AutoCreate:
    """``owner`` finds an account by id, None when it is gone."""

    def __init__(
        self,
        config: Config,
        mailboxes: MailboxService,
        domains: DomainStore,
        owner: Callable[[str], Awaitable[User | None]],
    ) -> None:
        self._life = timedelta(seconds=config.mailbox_max_ttl)
        self._mailboxes, self._domains, self._owner = mailboxes, domains, owner

    async def provide(self, target: Target) -> bool:
        """Make the mailbox ``target`` means; False when mail makes none there. Refused mailbox_full when there is no
        room."""
        try:
            return await (self._administrator(target) if target.role else self._caught(target))
        except Refused as refused:
            if refused.word == "mailbox_exists":  # somebody was faster, and it is there
                return True
            if refused.word == "quota_reached":
                CAUGHT.add(("quota",))
                raise Refused("mailbox_full") from refused
            raise

    async def _administrator(self, target: Target) -> bool:
        await self._mailboxes.establish(target.local_part, target.domain.name, None, ADMIN_CAPACITY)
        return True

    async def _caught(self, target: Target) -> bool:
        domain, local_part = target.domain, target.local_part
        if not self._mailboxes.may_be_caught(local_part) or domain.user_id is None:
            return False
        owner = await self._owner(domain.user_id)
        if owner is None or not owner.is_active:
            return False
        if await self._domains.mailboxes_of_domain(domain.name) >= MAX_CAUGHT:
            CAUGHT.add(("bound",))
            raise Refused("mailbox_full")
        quota = owner.quota
        await self._mailboxes.establish(
            local_part, domain.name, self._life, quota.max_messages, owner.id, quota.max_mailboxes
        )
        CAUGHT.add(("made",))
        return True
