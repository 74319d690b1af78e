"""Mailboxes: making, opening with a token, extending, deleting, and ending them when their time is over.

Lives here: the rules of API.md about addresses, tokens and lifetimes. Must not know: HTTP.

A token is 256 bits from ``secrets``; only its SHA-256 is stored (a fast hash is enough for a random key), and it is
compared in constant time. Unknown mailbox and wrong token take the same time to the same answer.
"""

import asyncio
import hmac
import math
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import chain
from typing import Final

import msgspec

from server.cache import keys
from server.cache.responses import ResponseCache, Ticket
from server.config.settings import MAILBOX_MIN_TTL, Config
from server.metrics import Counter
from server.model import ids
from server.model.account import Quota, User
from server.model.address import RESERVED, chosen_prefix, random_prefix, valid_prefix
from server.model.domain import to_ascii
from server.model.errors import Refused
from server.model.event import Hint, Kind
from server.model.message import Counts, Mailbox
from server.model.webhook import mailbox_created
from server.services.admin.guard import Guard
from server.services.coherence import Coherence
from server.services.contracts import NewMailbox
from server.services.domains.served import ServedDomains
from server.services.limits import RateLimits
from server.services.webhooks.outbox import Outbox
from server.store.mailboxes import MailboxStore
from server.store.messages import MessageStore
from server.store.partitions import Partitions

MAX_RECORDS: Final = 50_000  # mailbox records a worker remembers
REFUSAL_BEAT: Final = 0.004  # s: a refusal comes at a multiple of this after the question, whatever it took to know
_NAMED: Final = 20  # domains that a refusal names

CREATED = Counter("tempmail_mailboxes_created_total", "Mailboxes made.")
DELETED = Counter("tempmail_mailboxes_deleted_total", "Mailboxes deleted by their holder.")
EXPIRED = Counter("tempmail_mailboxes_expired_total", "Mailboxes whose time was over.")
_NO_QUOTA: Final = Quota(0, 0, 0, 0)


class MailboxService:
    """Implements contracts.Mailboxes for guests."""

    def __init__(
        self,
        config: Config,
        mailboxes: MailboxStore,
        messages: MessageStore,
        partitions: Partitions,
        limits: RateLimits,
        domains: ServedDomains,
        local: ResponseCache,
        coherence: Coherence,
        outbox: Outbox,
        clock: Callable[[], datetime],
        deleted: Callable[[], None] = lambda: None,
        guard: Guard | None = None,
    ) -> None:
        """``deleted`` is called when a mailbox was deleted, whose mail has then to go."""
        self._config, self._mailboxes, self._messages, self._deleted = config, mailboxes, messages, deleted
        self._partitions, self._limits, self._domains, self._local = partitions, limits, domains, local
        self._coherence, self._outbox, self._clock = coherence, outbox, clock
        self._guard = guard
        self._records: OrderedDict[str, tuple[Ticket, Mailbox]] = OrderedDict()
        self._ids: dict[str, str] = {}  # of those records, by address

    def apply_settings(self, config: Config) -> None:
        """Settings have changed."""
        self._config = config

    async def create(
        self, prefix: str | None, domain: str | None, ttl: float | None, client: str, owner: User | None = None
    ) -> NewMailbox:
        """``owner``'s mailbox, or a guest's; ``ttl`` infinity for one without an end, which only accounts may have.
        Refused: client_banned, prefix_invalid, domain_not_allowed, duration_invalid, mailbox_exists,
        too_many_mailboxes, quota_reached."""
        if self._guard is not None:
            self._guard.check_client(client, owner)
        local_part = random_prefix() if prefix is None else self.chosen_name(prefix, "prefix")
        domain = await self.usable_domain(domain, owner.id if owner else None)
        if f"{local_part}@{domain}" == self._config.administrator:
            raise Refused("prefix_invalid", f"{local_part} is reserved", field="prefix")
        ttl = self._config.mailbox_default_ttl if ttl is None else ttl
        self._limits.any_mailbox(client)
        if owner is not None:
            if self._config.mailbox_require_verification and not owner.is_email_verified:
                raise Refused("permission_denied", "only accounts with a verified email make mailboxes")
            life = None if ttl == math.inf else self._life(ttl, self._config.mailbox_user_max_ttl)
            quota = owner.quota if not self._config.dev else _NO_QUOTA
            return await self.establish(
                local_part, domain, life, quota.max_messages, owner.id, quota.max_mailboxes, client
            )
        life = self._life(ttl, self._config.mailbox_max_ttl)
        self._limits.create_mailbox(client)
        return await self.establish(local_part, domain, life, self._config.mailbox_max_messages, client=client)

    def chosen_name(self, text: str, field: str) -> str:
        """``text`` as the name of a new mailbox or alias. Refused prefix_invalid, naming ``field``."""
        name = chosen_prefix(text, field)
        if self._guard is not None:
            self._guard.check_name(name, field)
        return name

    def may_be_caught(self, local_part: str) -> bool:
        """Whether mail may make a mailbox of this name."""
        free = valid_prefix(local_part) and local_part not in RESERVED
        return free and not (self._guard is not None and self._guard.holds_name(local_part))

    async def usable_domain(self, domain: str | None, user_id: str | None, field: str = "domain") -> str:
        """A domain where this user (None: a guest) may have addresses, as its name stands in the set. Refused
        domain_not_allowed, naming ``field``."""
        served = await self._domains.current()
        if domain is None:
            return served.default
        found = served.get(to_ascii(domain))
        if found is None or (found.mode != "shared" and (user_id is None or found.user_id != user_id)):
            raise Refused("domain_not_allowed", f"one of {', '.join(served.public[:_NAMED])}", field=field)
        return found.name

    def _life(self, ttl: float, most: float) -> timedelta:
        if not MAILBOX_MIN_TTL <= ttl <= most:
            raise Refused("duration_invalid", f"from 1 minute to {most / 3600:g} hours", field="expiresIn")
        return timedelta(seconds=ttl)

    async def establish(
        self,
        local_part: str,
        domain: str,
        life: timedelta | None,
        capacity: int,
        user_id: str | None = None,
        most: int = 0,
        client: str = "",
    ) -> NewMailbox:
        """Make the mailbox; ``life`` None for one without an end, ``capacity`` 0 for one without a quota. ``most``: how
        many the user may have (0: any number). ``client``: the address
        that asks for it, "" for mail. Refused mailbox_exists, quota_reached."""
        token, now = secrets.token_urlsafe(32), self._clock()
        expires = _to_millisecond(now + life) if life else None
        mailbox = Mailbox(ids.new(), local_part, domain, _hash(token), now, expires, user_id)
        with self._coherence.writing(addresses=[mailbox.address], records=[mailbox.id]):
            await self._messages.create_inbox(mailbox, capacity)
            try:
                await self._insert(mailbox, now, most, client if self._config.creator_retention else None)
            except Refused:
                await self._messages.delete_inboxes([mailbox.id])
                raise
        self._coherence.tell([Hint(Kind.ADDRESS, mailbox.id)])
        CREATED.add()
        await self._outbox.record(user_id, "mailbox.created", mailbox_created(mailbox))
        return NewMailbox(mailbox, token)

    async def _insert(self, mailbox: Mailbox, now: datetime, most: int, client: str | None) -> None:
        try:
            await self._mailboxes.insert(mailbox, most, client)
        except Refused as refused:
            if refused.word != "mailbox_exists" or not await self.free(mailbox.local_part, mailbox.domain, now):
                raise
            await self._mailboxes.insert(mailbox, most, client)

    async def free(self, local_part: str, domain: str, now: datetime) -> bool:
        """End whichever mailbox still has this address though its time is over; whether there was one."""
        over = await self._mailboxes.take_expired_at(local_part, domain, now)
        if over:
            await self._bury(over)
        return bool(over)

    async def authorise(self, mailbox_id: str, token: str, *, remember: bool = True) -> Mailbox:
        """The living mailbox this token opens. Refused mailbox_not_found for unknown, expired and wrong alike.

        Its record is kept for who asks again within a minute, unless ``remember`` says that nobody will.
        """
        digest = _hash(token)
        return await self._opened(mailbox_id, lambda mailbox: hmac.compare_digest(digest, mailbox.token_hash), remember)

    async def owned(self, mailbox_id: str, user: User, *, remember: bool = True) -> Mailbox:
        """The living mailbox, if it is the user's, or the administrators' and the user is one. Refused
        mailbox_not_found for unknown, expired and foreign alike."""
        return await self._opened(mailbox_id, lambda mailbox: self._may_open(mailbox, user), remember)

    async def _opened(self, mailbox_id: str, right: Callable[[Mailbox], bool], remember: bool) -> Mailbox:
        """The living mailbox, if ``right`` says so. A refusal costs one query and changes nothing in memory, be the
        mailbox unknown or another's, and it comes at a beat counted from the question: neither what there is nor what
        is remembered must be heard in its time."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        known = self._remembered(mailbox_id)
        if known is not None and right(known) and not known.expired(self._clock()):
            return known
        found = await self._record(mailbox_id, right, remember) if ids.valid(mailbox_id) else None
        if found is None or found.expired(self._clock()):
            await asyncio.sleep(REFUSAL_BEAT - (loop.time() - began) % REFUSAL_BEAT)
            raise Refused("mailbox_not_found")
        return found

    def _may_open(self, mailbox: Mailbox, user: User) -> bool:
        if mailbox.user_id is None:
            return mailbox.address == self._config.administrator and user.role != "user"
        return mailbox.user_id == user.id

    async def administrators(self, user: User) -> Mailbox | None:
        """The mailbox of postmaster@ and abuse@, where the user may open it and mail has made it."""
        local_part, _, domain = self._config.administrator.rpartition("@")
        mailbox = await self._mailboxes.by_address(local_part, domain) if user.role != "user" else None
        return mailbox if mailbox is not None and mailbox.user_id is None and self._may_open(mailbox, user) else None

    async def page(self, user: User, limit: int, before: str | None) -> tuple[Sequence[Mailbox], int]:
        """A user's living mailboxes, newest first, and how many there are. ``before``: only ids less than this one."""
        now = self._clock()
        mailboxes = await self._mailboxes.of_user(user.id, now, limit, before)
        return mailboxes, await self._mailboxes.count_of_user(user.id, now)

    def _remembered(self, mailbox_id: str) -> Mailbox | None:
        """The record while its generation stands; None says nothing."""
        known = self._records.get(mailbox_id)
        return known[1] if known is not None and self._local.current(known[0]) else None

    async def _record(self, mailbox_id: str, right: Callable[[Mailbox], bool], remember: bool) -> Mailbox | None:
        """The record as the primary knows it, if ``right`` says so; remembered from here on where that is asked."""
        ticket = self._local.ticket(keys.record(mailbox_id))
        mailbox = await self._mailboxes.by_id(mailbox_id)
        if mailbox is None or not right(mailbox):
            return None
        if remember and self._local.settled(ticket):
            self._remember(ticket, mailbox)
        return mailbox

    def _remember(self, ticket: Ticket, mailbox: Mailbox) -> None:
        self._records[mailbox.id] = (ticket, mailbox)
        self._ids[mailbox.address] = mailbox.id
        if len(self._records) > MAX_RECORDS:
            mailbox_id, (_, oldest) = self._records.popitem(last=False)
            if self._ids.get(oldest.address) == mailbox_id:  # a later mailbox may have the address
                del self._ids[oldest.address]

    def at(self, address: str) -> Mailbox | None:
        """The living mailbox with this address of its own, if its record is remembered; None says nothing."""
        mailbox_id = self._ids.get(address)
        known = self._remembered(mailbox_id) if mailbox_id is not None else None
        return known if known is not None and not known.expired(self._clock()) else None

    async def delete(self, mailbox: Mailbox) -> None:
        """Its mail can be reached no more, and is deleted within a minute (FLOW.md, "Data").

        The mail first: whoever repeats a deletion that failed between the two still finds the record.
        """
        addresses = await self._mailboxes.addresses(mailbox.id)
        with self._coherence.writing(addresses=[mailbox.address, *addresses], records=[mailbox.id]):
            await self._messages.end({mailbox.id: mailbox.address}, "deleted")
            if await self._mailboxes.delete(mailbox.id):
                DELETED.add()
        self._coherence.tell([Hint(Kind.EXPIRED, mailbox.id)])
        self._deleted()

    async def extend(self, mailbox: Mailbox, ttl: float, granted: float | None = None) -> Mailbox:
        """Let it live ``ttl`` seconds from now, its mail moving along; never shorter than before. ``granted``: what an
        administrator may give, instead of what its holder may take. Refused duration_invalid."""
        if mailbox.expires_at is None:
            return mailbox
        config = self._config
        most = config.mailbox_max_ttl if mailbox.user_id is None else config.mailbox_user_max_ttl
        most = most if granted is None else granted
        expires = _to_millisecond(self._clock() + self._life(ttl, most))
        if expires <= mailbox.expires_at:
            return mailbox
        if granted is None:
            self._limits.extend_mailbox(mailbox.id)
        if not self._partitions.covered(expires, self._clock()):  # the check of all takes turns over all workers
            await self._partitions.ensure([(expires, self._clock())])
        with self._coherence.writing(addresses=[mailbox.address], records=[mailbox.id]):
            await self._messages.move(mailbox.id, expires)
            extended = await self._mailboxes.extend(mailbox.id, expires)
        self._coherence.tell([Hint(Kind.ADDRESS, mailbox.id)])
        if extended is None:
            raise Refused("mailbox_not_found")
        return extended

    async def rotate_token(self, mailbox: Mailbox) -> NewMailbox:
        """A new token; the old one opens nothing from now on."""
        token = secrets.token_urlsafe(32)
        with self._coherence.writing(records=[mailbox.id]):
            if not await self._mailboxes.set_token(mailbox.id, _hash(token)):
                raise Refused("mailbox_not_found")
        self._coherence.tell([Hint(Kind.ADDRESS, mailbox.id)])
        return NewMailbox(msgspec.structs.replace(mailbox, token_hash=_hash(token)), token)

    async def counts(self, mailbox: Mailbox) -> Counts:
        return await self._messages.counts(mailbox.id)

    async def counts_of(self, mailboxes: Sequence[Mailbox]) -> Mapping[str, Counts]:
        """By mailbox id; one that goes just now is missing."""
        return await self._messages.counts_of([mailbox.id for mailbox in mailboxes])

    async def sweep(self, limit: int) -> int:
        """End up to ``limit`` mailboxes whose time is over; how many. Safe in any number of processes at once."""
        over = await self._mailboxes.take_expired(self._clock(), limit)
        if over:
            await self._bury(over)
        return len(over)

    async def _bury(self, over: Mapping[str, Sequence[str]]) -> None:
        """``over``: the addresses that have become free, by mailbox, its own first."""
        gone = list(over)
        with self._coherence.writing(addresses=chain.from_iterable(over.values()), records=gone):
            await self._messages.end({mailbox_id: own for mailbox_id, [own, *_] in over.items()}, "expired")
        EXPIRED.add(n=len(gone))
        self._coherence.tell([Hint(Kind.EXPIRED, mailbox_id) for mailbox_id in gone])


def _hash(token: str) -> bytes:
    return sha256(token.encode("utf-8", "replace")).digest()


def _to_millisecond(moment: datetime) -> datetime:
    """As the API shows it, so that a client's reading of expiresAt is the truth."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
