"""What the ways in (smtp, web, ws) may ask of the services. They import these Protocols, never the implementations.

Every coroutine raises Refused for what the caller did, Unavailable for trouble of ours, and nothing else on purpose.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Final, Literal, Protocol

import msgspec

from server.cache.buckets import Verdict
from server.config.settings import Config
from server.model.account import ApiKey, Principal, Quota, User
from server.model.admin import Act, Actor, Changes, MailboxFacts, MailboxFilter, Statistics, UserFilter
from server.model.ban import Ban
from server.model.ban import Kind as BanKind
from server.model.client import ClientNetwork
from server.model.domain import Domain, Mode, ServedSet
from server.model.message import Alias, Counts, Envelope, Mailbox, Recipient, Stored
from server.model.query import Query, Term, both, parse
from server.model.tag import Tag
from server.model.trace import Page, Question
from server.model.webhook import Delivery as WebhookDelivery
from server.model.webhook import Event, Webhook

Shares = tuple[ClientNetwork, ...]
"""Whose shares of a pool of workers a request counts for: ``Limits.shares``. None for one without limits."""


class MailSink(Protocol):
    """What SMTP needs: who takes mail, and the commit."""

    def route(self, address: str) -> Recipient | None:
        """The recipient for a canonical address if memory knows one now; None says nothing (ask ``resolve``)."""

    async def resolve(self, address: str) -> Recipient:
        """Ask memory, then the primary. Refused: domain_not_allowed, mailbox_not_found, mailbox_full."""

    def submit(self, envelope: Envelope, *, is_read: bool = False) -> "asyncio.Future[Sequence[Stored]]":
        """Queue one message for the open batch; resolves once its COMMIT is certain, raises Refused or Unavailable if
        not.

        The result is its row in each recipient's mailbox. Whoever answers for it must handle both exceptions.

        Cancelling or dropping the future changes nothing for the batch: the message is stored all the same.
        """


class NewMailbox(msgspec.Struct, frozen=True):
    """A mailbox and the one sight of its token."""

    mailbox: Mailbox
    token: str


class Mailboxes(Protocol):
    async def create(
        self, prefix: str | None, domain: str | None, ttl: float | None, client: str, owner: User | None = None
    ) -> NewMailbox:
        """``owner``'s mailbox, or a guest's. ``ttl`` in s, None for the default, infinity for one without an end, which
        only accounts may have. Refused: prefix_invalid, domain_not_allowed, duration_invalid, mailbox_exists,
        too_many_mailboxes (guests), quota_reached (accounts).
        """

    async def page(self, user: User, limit: int, before: str | None) -> tuple[Sequence[Mailbox], int]:
        """A user's living mailboxes, newest first, and how many there are. ``before``: only ids less than this one."""

    async def authorise(self, mailbox_id: str, token: str) -> Mailbox:
        """The living mailbox this token opens. Refused mailbox_not_found for unknown, expired and wrong alike."""

    async def administrators(self, user: User) -> Mailbox | None:
        """The mailbox of postmaster@ and abuse@, where the user may open it and mail has made it."""

    async def owned(self, mailbox_id: str, user: User) -> Mailbox:
        """The living mailbox, if it is the user's, or the administrators' and the user is one. Refused
        mailbox_not_found for unknown, expired and foreign alike.
        """

    async def delete(self, mailbox: Mailbox) -> None: ...

    async def extend(self, mailbox: Mailbox, ttl: float) -> Mailbox:
        """Let it live ``ttl`` seconds from now, moving its mail along; never shorter than before."""

    async def rotate_token(self, mailbox: Mailbox) -> NewMailbox: ...

    async def counts(self, mailbox: Mailbox) -> Counts: ...

    async def counts_of(self, mailboxes: Sequence[Mailbox]) -> Mapping[str, Counts]:
        """By mailbox id; one that goes just now is missing."""


class Domains(Protocol):
    """Domains: those that take mail, those a user claims, and the installation's own (``user_id`` None)."""

    async def served(self) -> ServedSet:
        """Those that take mail now."""

    async def claim(self, user: User, name: str, mode: Mode) -> Domain:
        """Refused field_invalid, domain_exists (the user has it, or somebody proved it), quota_reached."""

    async def own(self, user: User) -> list[Domain]: ...

    async def of_user(self, user: User, domain_id: str) -> Domain:
        """Refused domain_not_found for unknown and foreign alike."""

    async def set_mode(self, domain: Domain, mode: Mode) -> Domain: ...

    async def verify(self, domain: Domain) -> Domain:
        """Ask DNS now. Refused domain_unverified (saying what is missing), domain_exists (another proved it first)."""

    async def delete(self, domain: Domain) -> None:
        """Refused domain_protected (default, configured), domain_in_use while mailboxes live there."""

    async def system(self) -> list[Domain]:
        """The installation's own, the default first."""

    async def any(self, domain_id: str) -> Domain:
        """A domain of whomever. Refused domain_not_found."""

    async def add(self, user: User, name: str, notes: str) -> Domain:
        """A system domain, to be proved. Refused field_invalid, domain_exists."""

    async def recover(self, user: User, name: str) -> Domain:
        """A system domain whose DNS still carries a token of ours. Refused field_invalid, domain_unverified,
        domain_exists."""

    async def toggle(self, domain: Domain, active: bool) -> Domain:
        """Off: it takes no mail and no new mailboxes. Refused domain_protected (default, configured)."""

    async def set_default(self, domain: Domain) -> Domain:
        """Refused domain_unverified unless it is a verified, active system domain."""


class SearchQuery(msgspec.Struct, frozen=True):
    """Search parameters, validated; ``page`` counts from 1."""

    q: str = ""
    sender: str = ""
    subject: str = ""
    start: datetime | None = None
    end: datetime | None = None
    is_read: bool | None = None
    has_attachment: bool | None = None
    page: int = 1
    page_size: int = 20

    def wanted(self) -> Query:
        """What ``q`` and the parameters beside it ask for together. Refused field_invalid for an operator of ``q``."""
        terms = []
        if self.sender:
            terms.append(Term("from", self.sender))
        if self.subject:
            terms.append(Term("subject", self.subject))
        if self.is_read is not None:
            terms.append(Term("read", negated=not self.is_read))
        if self.has_attachment is not None:
            terms.append(Term("attachment", negated=not self.has_attachment))
        return both(parse(self.q), Query(tuple(terms), self.start, self.end))


class Content(msgspec.Struct, frozen=True):
    """A message with its body read: ``html`` as it came, ``safe_html`` sanitised."""

    stored: Stored
    text: str
    html: str
    safe_html: str
    headers: tuple[tuple[str, str], ...]

    def size(self) -> int:
        """Characters of its texts: about the bytes of an answer with all of them."""
        return len(self.text) + len(self.html) + len(self.safe_html)


class File(msgspec.Struct, frozen=True):
    filename: str
    content_type: str
    content: bytes


class Messages(Protocol):
    async def page(self, mailbox: Mailbox, limit: int, offset: int, before: int | None) -> tuple[Sequence[Stored], int]:
        """Newest first, and the mailbox's total. ``before``: only messages with a smaller seq (the cursor)."""

    async def since(self, mailbox: Mailbox, after: int, limit: int) -> Sequence[Stored]:
        """Messages with seq > ``after``, oldest first."""

    async def read(self, mailbox: Mailbox, message_id: str, shares: Shares = (), *, sanitised: bool = True) -> Content:
        """Refused message_not_found, and rate_limited where the client's share of the readers is used."""

    async def raw(self, mailbox: Mailbox, message_id: str) -> bytes: ...

    async def just_stored(self, mailbox: Mailbox, stored: Stored, shares: Shares = ()) -> Content:
        """As ``read``, of a message that ``inject`` has stored. Where there is no room to read it, without its text."""

    async def attachment(self, mailbox: Mailbox, message_id: str, number: str, shares: Shares = ()) -> File: ...

    async def inject(self, mailbox: Mailbox, raw: bytes, sender: str, client: str = "", *, is_read: bool) -> Stored: ...

    async def mark_read(self, mailbox: Mailbox, message_id: str) -> None: ...

    async def delete(self, mailbox: Mailbox, message_id: str) -> None: ...

    async def delete_all(self, mailbox: Mailbox) -> None: ...

    async def search(
        self, mailbox: Mailbox, query: SearchQuery, user_id: str | None, shares: Shares = ()
    ) -> tuple[Sequence[Stored], int]:
        """Newest first, and how many there are. Refused: field_invalid for an operator of ``q`` (model/query.py says
        which there are), token_required for ``tag:`` where ``user_id`` is None, rate_limited.
        """


class Found(msgspec.Struct, frozen=True):
    """Part of what was looked for. ``following``: where to go on, "" at the end; ``total``: messages there are in all,
    found or not."""

    messages: Sequence[Stored]
    following: str
    total: int


class Across(Protocol):
    async def page(self, user_id: str, wanted: Query, before: str, limit: int, shares: Shares = ()) -> Found:
        """Messages of all of a user's mailboxes, newest first. ``before``: only ids less than this one, "" for all."""


class Wanted(msgspec.Struct, frozen=True):
    """What a message must be like to be waited for; "" and None leave a condition out."""

    sender: str = ""
    subject: str = ""
    extract: Literal["code", "link"] | None = None

    def extracted(self, stored: Stored) -> str:
        """The first code or link of a message, "" where it has none or none is wanted."""
        found = {"code": stored.details.codes, "link": stored.details.links, None: ()}[self.extract]
        return found[0] if found else ""


class Trace(Protocol):
    """What was decided about mail, newest first."""

    async def page(self, question: Question) -> Page:
        """Of the installation, or about one address."""

    async def of_mailbox(self, mailbox: Mailbox, aliases: Sequence[Alias], question: Question) -> Page:
        """About a mailbox's own addresses, each since it was its own."""


NOW: Final = -1
"""The ``after`` of a wait for what comes once it was called."""


class Waiting(Protocol):
    async def first(
        self,
        mailbox: Mailbox,
        wanted: Wanted,
        after: int | None,
        timeout: float,
        reopen: Callable[[], Awaitable[Mailbox]],
        until: float,
    ) -> Stored | None:
        """A message that matches; None when none does within ``timeout`` seconds.

        With ``after`` the oldest whose seq is greater, with NOW the first that comes from here on. Without it the
        newest that is there if it is new (see services/waiting); else the next to come, and only when none does the
        newest that is there.

        ``reopen`` opens the mailbox again with what opened it first, and is asked when its right may have ended; that
        ends by itself at ``until`` (POSIX s, or infinity). Refused mailbox_not_found when the mailbox goes meanwhile,
        and whatever ``reopen`` raises.
        """


class WebhookChange(msgspec.Struct, frozen=True):
    """What is to be different; None leaves a thing as it is."""

    url: str | None = None
    events: Sequence[Event] | None = None
    description: str | None = None
    is_active: bool | None = None


class Webhooks(Protocol):
    """A user's webhooks. Refused webhook_not_found and delivery_not_found for unknown and foreign alike."""

    async def create(self, user_id: str, url: str, events: Sequence[Event], description: str) -> Webhook:
        """Refused: field_invalid (url, events, description), quota_reached."""

    async def own(self, user_id: str) -> list[Webhook]: ...

    async def one(self, user_id: str, webhook_id: str) -> Webhook: ...

    async def update(self, user_id: str, webhook_id: str, wanted: WebhookChange) -> Webhook:
        """Refused: webhook_not_found, field_invalid (url, events, description)."""

    async def rotate_secret(self, user_id: str, webhook_id: str) -> Webhook: ...

    async def delete(self, user_id: str, webhook_id: str) -> None: ...

    async def deliveries(self, user_id: str, webhook_id: str, limit: int) -> list[WebhookDelivery]:
        """Newest first."""

    async def test(self, user_id: str, webhook_id: str) -> WebhookDelivery:
        """Send an event of its own, once and now; what came of it."""

    async def replay(self, user_id: str, delivery_id: str) -> WebhookDelivery:
        """Deliver it again, under the id it had."""


class ShownSettings(msgspec.Struct, frozen=True):
    """What administrators see: path such as ``mailbox.defaultTtl`` -> JSON value; who set any last, and when."""

    values: Mapping[str, Any]
    updated_at: datetime | None
    updated_by: str | None


class Settings(Protocol):
    """``current``: the settings in force, the configured ones overlaid by what administrators set."""

    current: Config

    def stale(self) -> bool:
        """Whether ``current`` may be old; never waits."""

    async def refresh(self) -> None:
        """Bring ``current`` up to date; in trouble it stays."""

    async def shown(self) -> ShownSettings: ...

    async def change(self, actor: Actor, given: Mapping[str, Any]) -> ShownSettings:
        """Set what is ``given``, leave the rest. Refused field_invalid, naming the path."""

    async def reset(self, actor: Actor) -> ShownSettings: ...


class Abuse(Protocol):
    """Mailboxes as administrators see them. Refused mailbox_not_found, and permission_denied where the rank is too low
    or the mailbox is the administrators' own."""

    async def page(self, wanted: MailboxFilter, page: int, page_size: int) -> tuple[Sequence[MailboxFacts], int]:
        """A page, counted from 1, newest first, and how many there are in all."""

    async def one(self, mailbox_id: str) -> tuple[MailboxFacts, Counts]: ...

    async def change(self, actor: Actor, mailbox_id: str, ttl: float | None, active: bool | None) -> None:
        """Refused duration_invalid, too."""

    async def delete(self, actor: Actor, mailbox_id: str) -> None: ...


class Bans(Protocol):
    async def page(self, kind: str | None, page: int, page_size: int) -> tuple[Sequence[Ban], int]:
        """Those in force, newest first, and how many there are in all."""

    async def add(self, actor: Actor, kind: BanKind, value: str, reason: str, life: float | None) -> Ban:
        """``life`` in s, None for one without an end. Refused field_invalid, ban_exists, quota_reached."""

    async def remove(self, actor: Actor, ban_id: str) -> None:
        """Refused ban_not_found."""


class Administration(Protocol):
    """What administrators do and see. Refused user_not_found, and permission_denied where the rank is too low."""

    async def users(self, wanted: UserFilter, page: int, page_size: int) -> tuple[Sequence[User], int]:
        """A page, counted from 1, newest first, and how many there are in all."""

    async def user(self, user_id: str) -> User: ...

    async def change(self, actor: Actor, user_id: str, changes: Changes) -> User: ...

    async def set_quota(self, actor: Actor, user_id: str, given: Mapping[str, int]) -> Quota: ...

    async def delete(self, actor: Actor, user_id: str) -> None: ...

    async def record(
        self,
        actor: Actor,
        action: str,
        target: str,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
    ) -> None:
        """Note an act in another domain in the trail."""

    async def acts(self, page: int, page_size: int) -> tuple[Sequence[Act], int]: ...

    async def statistics(self) -> tuple[Statistics, Sequence[Act]]:
        """The figures, and the latest acts."""


class Limits(Protocol):
    def request(self, client: str) -> Verdict | None:
        """Take one request of a client address's budget; None where nothing limits it."""

    def exempt(self, client: str) -> bool: ...

    def failed_before(self, client: str) -> Verdict | None:
        """What is left of the address's budget, taking nothing: asked before a credential is looked up."""

    def user(self, user: User, client: str) -> Verdict | None:
        """Take one request of an account's minute; None where its quota is without limit or the client is exempt."""

    def enter(self, user: User, client: str) -> int | None:
        """Take one of an account's concurrent requests; give it back with ``leave``. Refused rate_limited."""

    def shares(self, client: str, owner: str = "") -> Shares:
        """Under which keys a client's use of shared workers is counted, acting for a mailbox or account ``owner``."""

    def searching(self, whose: str, client: str) -> AbstractContextManager[None]:
        """Hold one of a mailbox's or an account's searches at a time, and one of the client's. Refused rate_limited."""

    def leave(self, place: int | None) -> None: ...


class Aliases(Protocol):
    """Further addresses of a mailbox. An alias of another mailbox is Refused alias_not_found, as an unknown one."""

    async def create(self, mailbox: Mailbox, address: str) -> Alias:
        """``address``: a local part, under the mailbox's own domain then, or a whole address. Refused: prefix_invalid,
        domain_not_allowed, alias_exists, too_many_aliases.
        """

    async def all(self, mailbox: Mailbox) -> Sequence[Alias]: ...

    async def one(self, mailbox: Mailbox, alias_id: str) -> Alias: ...

    async def switch(self, mailbox: Mailbox, alias_id: str, *, active: bool) -> Alias: ...

    async def delete(self, mailbox: Mailbox, alias_id: str) -> None: ...


class Tags(Protocol):
    """A user's labels. A tag of another user is Refused tag_not_found, as an unknown one."""

    async def create(self, user_id: str, name: str, color: str, description: str) -> Tag:
        """Refused: field_invalid (name, color, description), tag_exists, quota_reached."""

    async def all(self, user_id: str) -> Sequence[tuple[Tag, int]]:
        """Each with how many messages carry it."""

    async def one(self, user_id: str, tag_id: str) -> Tag: ...

    async def update(
        self, user_id: str, tag_id: str, name: str | None, color: str | None, description: str | None
    ) -> Tag:
        """None leaves a field as it is. Refused: field_invalid, tag_exists."""

    async def delete(self, user_id: str, tag_id: str) -> None: ...

    async def messages(self, user_id: str, tag_id: str, limit: int, before: str) -> tuple[Sequence[Stored], int]:
        """Those that carry it, newest first, and how many there are; ``before``: only ids below this, "" for all."""

    async def attach(self, user_id: str, mailbox: Mailbox, message_id: str, tag_id: str) -> Tag:
        """Again is no error. Refused message_not_found."""

    async def of_message(self, user_id: str, mailbox: Mailbox, message_id: str) -> Sequence[Tag]: ...

    async def detach(self, user_id: str, mailbox: Mailbox, message_id: str, tag_id: str) -> None:
        """Refused message_not_found; tag_not_found also when the message does not carry it."""


class Session(msgspec.Struct, frozen=True):
    """What a login gives: short-lived access, and the refresh token that gets the next; ``expires_in`` in seconds."""

    user: User
    access_token: str
    refresh_token: str
    expires_in: int


class NewApiKey(msgspec.Struct, frozen=True):
    """A key and the one sight of it whole."""

    key: ApiKey
    whole: str


class ApiKeys(Protocol):
    """An account's keys. A key of another account is Refused api_key_not_found, as an unknown one."""

    async def create(self, user: User, name: str, scopes: frozenset[str], life: float | None) -> NewApiKey:
        """``life`` in seconds, None for a key without an end. Refused field_invalid (name), quota_reached."""

    async def own(self, user: User) -> Sequence[ApiKey]:
        """Newest first."""

    async def one(self, user: User, key_id: str) -> ApiKey: ...

    async def revoke(self, user: User, key_id: str) -> None: ...


CredentialKind = Literal["jwt", "key"]


class Accounts(Protocol):
    """Accounts and who is acting. A wrong token of any kind is Refused token_invalid, one out of date token_expired."""

    def recall(self, kind: CredentialKind, secret: str) -> Principal | None:
        """Who stands behind a credential, if memory knows it now; None says nothing (ask ``by_token``, ``by_key``)."""

    async def register(self, email: str, password: str, username: str | None, client: str) -> Session:
        """Refused: field_invalid (email, password, username), user_exists, rate_limited."""

    async def login(self, name: str, password: str, client: str) -> Session:
        """``name``: email or username. Refused: credentials_invalid, account_disabled, rate_limited."""

    async def refresh(self, refresh_token: str) -> Session:
        """Rotates; a refresh token used twice revokes its whole family."""

    async def logout(self, principal: Principal, refresh_token: str | None) -> None: ...

    async def by_token(self, access_token: str) -> Principal: ...

    async def by_key(self, api_key: str) -> Principal: ...
