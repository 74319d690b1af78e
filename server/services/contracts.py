"""What the ways in (smtp, web, ws) may ask of the services. They import these Protocols, never the implementations.

Every coroutine raises Refused for what the caller did, Unavailable for trouble of ours, and nothing else on purpose.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from server.cache.buckets import Verdict
from server.model.account import Principal, User
from server.model.message import Counts, Envelope, Mailbox, Recipient, Stored


class Delivery(Protocol):
    """What SMTP needs: who takes mail, and the commit."""

    def route(self, address: str) -> Recipient | None:
        """The recipient for a canonical address if memory knows one now; None says nothing (ask ``resolve``)."""

    async def resolve(self, address: str) -> Recipient:
        """Ask memory, then the primary. Refused: domain_not_allowed, mailbox_not_found, mailbox_full."""

    def submit(self, envelope: Envelope, *, is_read: bool = False) -> "asyncio.Future[list[Stored]]":
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
    async def create(self, prefix: str | None, domain: str | None, ttl: float | None, client: str) -> NewMailbox:
        """Refused: prefix_invalid, domain_not_allowed, duration_invalid, mailbox_exists, too_many_mailboxes."""

    async def authorise(self, mailbox_id: str, token: str) -> Mailbox:
        """The living mailbox this token opens. Refused mailbox_not_found for unknown, expired and wrong alike."""

    async def delete(self, mailbox: Mailbox) -> None: ...

    async def extend(self, mailbox: Mailbox, ttl: float) -> Mailbox:
        """Let it live ``ttl`` seconds from now, moving its mail along; never shorter than before."""

    async def rotate_token(self, mailbox: Mailbox) -> NewMailbox: ...

    async def counts(self, mailbox: Mailbox) -> Counts: ...


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


class Content(msgspec.Struct, frozen=True):
    """A message with its body read: ``html`` as it came, ``safe_html`` sanitised."""

    stored: Stored
    text: str
    html: str
    safe_html: str
    headers: tuple[tuple[str, str], ...]


class File(msgspec.Struct, frozen=True):
    filename: str
    content_type: str
    content: bytes


class Messages(Protocol):
    async def page(self, mailbox: Mailbox, limit: int, offset: int, before: int | None) -> tuple[Sequence[Stored], int]:
        """Newest first, and the mailbox's total. ``before``: only messages with a smaller seq (the cursor)."""

    async def since(self, mailbox: Mailbox, after: int, limit: int) -> Sequence[Stored]:
        """Messages with seq > ``after``, oldest first."""

    async def read(self, mailbox: Mailbox, message_id: str, *, sanitised: bool = True) -> Content: ...

    async def raw(self, mailbox: Mailbox, message_id: str) -> bytes: ...

    async def attachment(self, mailbox: Mailbox, message_id: str, number: str) -> File: ...

    async def inject(self, mailbox: Mailbox, raw: bytes, sender: str, *, is_read: bool) -> Stored: ...

    async def mark_read(self, mailbox: Mailbox, message_id: str) -> None: ...

    async def delete(self, mailbox: Mailbox, message_id: str) -> None: ...

    async def delete_all(self, mailbox: Mailbox) -> None: ...

    async def search(self, mailbox: Mailbox, query: SearchQuery) -> tuple[Sequence[Stored], int]: ...


class Limits(Protocol):
    def request(self, client: str) -> Verdict | None:
        """Take one request of a client address's budget; None where nothing limits it."""

    def exempt(self, client: str) -> bool: ...


class Session(msgspec.Struct, frozen=True):
    """What a login gives: short-lived access, and the refresh token that gets the next; ``expires_in`` in seconds."""

    user: User
    access_token: str
    refresh_token: str
    expires_in: int


class Accounts(Protocol):
    """Accounts and who is acting. A wrong token of any kind is Refused token_invalid, one out of date token_expired."""

    async def register(self, email: str, password: str, username: str | None, client: str) -> Session:
        """Refused: field_invalid (email, password, username), user_exists, rate_limited."""

    async def login(self, name: str, password: str, client: str) -> Session:
        """``name``: email or username. Refused: credentials_invalid, account_disabled, rate_limited."""

    async def refresh(self, refresh_token: str) -> Session:
        """Rotates; a refresh token used twice revokes its whole family."""

    async def logout(self, principal: Principal, refresh_token: str | None) -> None: ...

    async def by_token(self, access_token: str) -> Principal: ...

    async def by_key(self, api_key: str) -> Principal: ...
