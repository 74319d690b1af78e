"""Mailboxes: making, opening with a token, extending, deleting, and ending them when their time is over.

Lives here: the rules of API.md about addresses, tokens and lifetimes. Must not know: HTTP.

A token is 256 bits from ``secrets``; only its SHA-256 is stored (a fast hash is enough for a random key), and it is
compared in constant time. Unknown mailbox and wrong token take the same path to the same answer.
"""

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

import msgspec

from server.cache import keys
from server.cache.local import Local, Ticket
from server.config import Config
from server.metrics import Counter
from server.model import ids
from server.model.address import RESERVED, random_prefix, valid_prefix
from server.model.errors import Refused
from server.model.event import Hint, Kind
from server.model.message import Counts, Mailbox
from server.services.coherence import Coherence
from server.services.contracts import NewMailbox
from server.services.limits import RateLimits
from server.store.mailboxes import MailboxStore
from server.store.messages import MessageStore
from server.store.partitions import Partitions

MIN_TTL: Final = 60.0  # s
MAX_RECORDS: Final = 50_000  # mailbox records a worker remembers
_NOBODY: Final = bytes(32)  # compared with when there is no mailbox, so that the answer costs the same

CREATED = Counter("tempmail_mailboxes_created_total", "Mailboxes made.")
DELETED = Counter("tempmail_mailboxes_deleted_total", "Mailboxes deleted by their holder.")
EXPIRED = Counter("tempmail_mailboxes_expired_total", "Mailboxes whose time was over.")


class MailboxService:
    """Implements contracts.Mailboxes for guests."""

    def __init__(
        self,
        config: Config,
        mailboxes: MailboxStore,
        messages: MessageStore,
        partitions: Partitions,
        limits: RateLimits,
        local: Local,
        coherence: Coherence,
        clock: Callable[[], datetime],
    ) -> None:
        self._config, self._mailboxes, self._messages = config, mailboxes, messages
        self._partitions, self._limits, self._local = partitions, limits, local
        self._coherence, self._clock = coherence, clock
        self._records: OrderedDict[str, tuple[Ticket, Mailbox]] = OrderedDict()

    async def create(self, prefix: str | None, domain: str | None, ttl: float | None, client: str) -> NewMailbox:
        """A guest's mailbox. Refused: prefix_invalid, domain_not_allowed, duration_invalid, mailbox_exists,
        too_many_mailboxes."""
        local_part = self._prefix(prefix)
        domain = self._domain(domain)
        life = self._life(self._config.mailbox_default_ttl if ttl is None else ttl)
        self._limits.create_mailbox(client)
        return await self.establish(local_part, domain, life, self._config.mailbox_max_messages)

    def _prefix(self, prefix: str | None) -> str:
        if prefix is None:
            return random_prefix()
        if not valid_prefix(prefix.lower()):
            detail = "3 to 64 of a-z and 0-9, with single . _ - between them"
            raise Refused("prefix_invalid", detail, field="prefix")
        if prefix.lower() in RESERVED:
            raise Refused("prefix_invalid", f"{prefix.lower()} is reserved", field="prefix")
        return prefix.lower()

    def _domain(self, domain: str | None) -> str:
        if domain is None:
            return self._config.domains[0]
        if domain.lower() not in self._config.domains:
            raise Refused("domain_not_allowed", f"one of {', '.join(self._config.domains)}", field="domain")
        return domain.lower()

    def _life(self, ttl: float) -> timedelta:
        if not MIN_TTL <= ttl <= self._config.mailbox_max_ttl:
            most = timedelta(seconds=self._config.mailbox_max_ttl)
            raise Refused("duration_invalid", f"from 1 minute to {most}", field="expiresIn")
        return timedelta(seconds=ttl)

    async def establish(self, local_part: str, domain: str, life: timedelta | None, capacity: int) -> NewMailbox:
        """Make the mailbox; ``life`` None for one without an end, ``capacity`` 0 for one without a quota."""
        token, now = secrets.token_urlsafe(32), self._clock()
        expires = _to_millisecond(now + life) if life else None
        mailbox = Mailbox(ids.new(), local_part, domain, _hash(token), now, expires)
        with self._coherence.writing([mailbox.id], [mailbox.address]):
            await self._messages.create_inbox(mailbox, capacity)
            try:
                await self._insert(mailbox, now)
            except Refused:
                await self._messages.delete_inboxes([mailbox.id])
                raise
        self._coherence.tell([Hint(Kind.ADDRESS, mailbox.id)])
        CREATED.add()
        return NewMailbox(mailbox, token)

    async def _insert(self, mailbox: Mailbox, now: datetime) -> None:
        try:
            await self._mailboxes.insert(mailbox)
        except Refused:
            over = await self._mailboxes.take_expired_at(mailbox.local_part, mailbox.domain, now)
            if not over:
                raise
            await self._bury(over)
            await self._mailboxes.insert(mailbox)

    async def authorise(self, mailbox_id: str, token: str) -> Mailbox:
        """The living mailbox this token opens. Refused mailbox_not_found for unknown, expired and wrong alike."""
        mailbox = await self.record(mailbox_id) if ids.valid(mailbox_id) else None
        known = mailbox.token_hash if mailbox else _NOBODY
        if not hmac.compare_digest(_hash(token), known) or mailbox is None or mailbox.expired(self._clock()):
            raise Refused("mailbox_not_found")
        return mailbox

    async def record(self, mailbox_id: str) -> Mailbox | None:
        """The mailbox as the primary knows it, from memory while its generation stands."""
        known = self._records.get(mailbox_id)
        if known is not None and self._local.current(known[0]):
            return known[1]
        ticket = self._local.ticket(keys.mailbox(mailbox_id))
        mailbox = await self._mailboxes.by_id(mailbox_id)
        if mailbox is not None and self._local.settled(ticket):
            self._records[mailbox_id] = (ticket, mailbox)
            if len(self._records) > MAX_RECORDS:
                self._records.popitem(last=False)
        return mailbox

    async def delete(self, mailbox: Mailbox) -> None:
        """Its mail can be reached no more, and is off the disk within one partition interval."""
        with self._coherence.writing([mailbox.id], [mailbox.address]):
            if await self._mailboxes.delete(mailbox.id):
                DELETED.add()
            await self._messages.delete_inboxes([mailbox.id])
        self._coherence.tell([Hint(Kind.EXPIRED, mailbox.id)])

    async def extend(self, mailbox: Mailbox, ttl: float) -> Mailbox:
        """Let it live ``ttl`` seconds from now, its mail moving along; never shorter than before. Refused
        duration_invalid."""
        if mailbox.expires_at is None:
            return mailbox
        expires = _to_millisecond(self._clock() + self._life(ttl))
        if expires <= mailbox.expires_at:
            return mailbox
        await self._partitions.ensure([(expires, self._clock())])
        with self._coherence.writing([mailbox.id], [mailbox.address]):
            await self._messages.move(mailbox.id, expires)
            extended = await self._mailboxes.extend(mailbox.id, expires)
        self._coherence.tell([Hint(Kind.ADDRESS, mailbox.id)])
        if extended is None:
            raise Refused("mailbox_not_found")
        return extended

    async def rotate_token(self, mailbox: Mailbox) -> NewMailbox:
        """A new token; the old one opens nothing from now on."""
        token = secrets.token_urlsafe(32)
        with self._coherence.writing([mailbox.id]):
            if not await self._mailboxes.set_token(mailbox.id, _hash(token)):
                raise Refused("mailbox_not_found")
        self._coherence.tell([Hint(Kind.ADDRESS, mailbox.id)])
        return NewMailbox(msgspec.structs.replace(mailbox, token_hash=_hash(token)), token)

    async def counts(self, mailbox: Mailbox) -> Counts:
        return await self._messages.counts(mailbox.id)

    async def sweep(self, limit: int) -> int:
        """End up to ``limit`` mailboxes whose time is over; how many. Safe in any number of processes at once."""
        over = await self._mailboxes.take_expired(self._clock(), limit)
        if over:
            await self._bury(over)
        return len(over)

    async def _bury(self, over: list[tuple[str, str]]) -> None:
        gone = [mailbox_id for mailbox_id, _ in over]
        with self._coherence.writing(gone, [address for _, address in over]):
            await self._messages.delete_inboxes(gone)
        EXPIRED.add(n=len(gone))
        self._coherence.tell([Hint(Kind.EXPIRED, mailbox_id) for mailbox_id in gone])


def _hash(token: str) -> bytes:
    return sha256(token.encode("utf-8", "replace")).digest()


def _to_millisecond(moment: datetime) -> datetime:
    """As the API shows it, so that a client's reading of expiresAt is the truth."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
