"""What administrators do about mailboxes: find them, see who made them, extend, disable and delete them.

Lives here: who may do what to which. Must not know: HTTP, or any mail.

A disabled mailbox takes no mail, over SMTP (550 5.2.1) or the API; its owner still reads what is there, and its address
stays taken. On mailboxes of administrators only a super user acts, and the mailbox of postmaster@ and abuse@ is
everybody's way to the administrators: it is neither disabled nor deleted.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from server.config.settings import Config
from server.model import ids
from server.model.admin import Actor, MailboxFacts, MailboxFilter
from server.model.errors import Refused
from server.model.event import Hint, Kind
from server.model.message import Counts, Mailbox
from server.services.admin.administration import check_rank
from server.services.coherence import Coherence
from server.services.mailboxes.mailboxes import MailboxService
from server.store.abuse import AbuseStore
from server.store.accounts import UserStore
from server.store.admin import AdministrationStore
from server.store.mailboxes import MailboxStore


class AbuseService:
    """Implements contracts.Abuse."""

    def __init__(
        self,
        config: Config,
        store: AbuseStore,
        mailboxes: MailboxStore,
        living: MailboxService,
        users: UserStore,
        trail: AdministrationStore,
        coherence: Coherence,
        clock: Callable[[], datetime],
    ) -> None:
        self._config, self._store, self._mailboxes, self._living = config, store, mailboxes, living
        self._users, self._trail, self._coherence, self._clock = users, trail, coherence, clock

    async def page(self, wanted: MailboxFilter, page: int, page_size: int) -> tuple[Sequence[MailboxFacts], int]:
        """``wanted.owner`` is an account's id, email or username; of an unknown one there is nothing."""
        if wanted.owner and not ids.valid(wanted.owner):
            found = await self._users.by_name(wanted.owner.lower())
            if found is None:
                return [], 0
            wanted = MailboxFilter(wanted.address, found[0].id, wanted.network, wanted.state)
        return await self._store.page(wanted, page_size, (page - 1) * page_size)

    async def one(self, mailbox_id: str) -> tuple[MailboxFacts, Counts]:
        """Refused mailbox_not_found."""
        facts, mailbox = await self._found(mailbox_id)
        return facts, await self._living.counts(mailbox)

    async def change(self, actor: Actor, mailbox_id: str, ttl: float | None, active: bool | None) -> None:
        """``ttl`` in seconds from now, within what accounts may have; it never ends sooner than before. Refused
        mailbox_not_found, permission_denied, duration_invalid."""
        facts, mailbox = await self._judged(actor, mailbox_id)
        if ttl is not None:
            extended = await self._living.extend(mailbox, ttl, self._config.mailbox_user_max_ttl)
            before, after = ({"expiresAt": one.expires_at} for one in (mailbox, extended))
            await self._trail.record(actor, "mailbox.extend", mailbox_id, before, after, self._clock())
        if active is not None and active != (facts.state == "active"):
            addresses = await self._mailboxes.addresses(mailbox_id)
            with self._coherence.writing(addresses=[mailbox.address, *addresses], records=[mailbox_id]):
                if not await self._store.disable(mailbox_id, not active):
                    raise Refused("mailbox_not_found")
            self._coherence.tell([Hint(Kind.ADDRESS, mailbox_id)])
            states = {"isActive": not active}, {"isActive": active}
            action = "mailbox.enable" if active else "mailbox.disable"
            await self._trail.record(actor, action, mailbox_id, *states, self._clock())

    async def delete(self, actor: Actor, mailbox_id: str) -> None:
        """Refused mailbox_not_found, permission_denied."""
        facts, mailbox = await self._judged(actor, mailbox_id)
        await self._living.delete(mailbox)
        was = {"address": facts.address, "userId": facts.user_id, "creator": facts.client}
        await self._trail.record(actor, "mailbox.delete", mailbox_id, was, None, self._clock())

    async def _judged(self, actor: Actor, mailbox_id: str) -> tuple[MailboxFacts, Mailbox]:
        facts, mailbox = await self._found(mailbox_id)
        if mailbox.address == self._config.administrator:
            raise Refused("permission_denied", "it is the way to the administrators: postmaster@ and abuse@")
        owner = await self._users.by_id(mailbox.user_id) if mailbox.user_id else None
        if owner is not None:
            check_rank(actor, owner)
        return facts, mailbox

    async def _found(self, mailbox_id: str) -> tuple[MailboxFacts, Mailbox]:
        facts = await self._store.one(mailbox_id) if ids.valid(mailbox_id) else None
        mailbox = await self._mailboxes.by_id(mailbox_id) if facts is not None else None
        if facts is None or mailbox is None or mailbox.expired(self._clock()):
            raise Refused("mailbox_not_found")
        return facts, mailbox
