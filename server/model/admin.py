"""What administrators are shown and leave behind: acts in the audit trail, and the figures of the installation."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from server.model.account import Role, Tier


class Actor(msgspec.Struct, frozen=True):
    """Who administers: an account, or without a ``user_id`` the command line; ``name`` as it was at the time."""

    user_id: str | None
    name: str
    role: Role
    client: str


class Act(msgspec.Struct, frozen=True):
    """One act. ``action`` such as ``user.update``; ``target`` an id or name; ``before`` and ``after`` hold what it
    changed and no secret.
    """

    id: str
    at: datetime
    actor_id: str | None
    actor: str
    client: str
    action: str
    target: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


class Changes(msgspec.Struct, frozen=True):
    """What to change of an account; None leaves a field as it is."""

    role: Role | None = None
    tier: Tier | None = None
    is_active: bool | None = None
    is_email_verified: bool | None = None


State = Literal["active", "disabled", "gone"]
STATES: Final[tuple[State, ...]] = ("active", "disabled", "gone")


class MailboxFacts(msgspec.Struct, frozen=True):
    """What administrators see of a mailbox. ``client``: the address that made it, "" where that is not known (any
    more). One that is ``gone`` is known by who made it alone."""

    id: str
    address: str
    created_at: datetime
    expires_at: datetime | None
    state: State
    user_id: str | None
    client: str


class MailboxFilter(msgspec.Struct, frozen=True):
    """Conditions of a list of mailboxes, all optional: an address or a part of one, an owner, a network in CIDR form.
    Without ``state`` the living ones are meant."""

    address: str = ""
    owner: str | None = None
    network: str | None = None
    state: str | None = None


class UserFilter(msgspec.Struct, frozen=True):
    """Conditions of a list of accounts, all optional; ``search`` is part of the email or username."""

    search: str = ""
    role: str | None = None
    tier: str | None = None
    is_active: bool | None = None


class Statistics(msgspec.Struct, frozen=True):
    """Figures of the whole installation. Mailboxes and messages in all are those there have ever been; days are UTC."""

    total_users: int
    active_users: int
    total_mailboxes: int
    active_mailboxes: int
    total_messages: int
    messages_today: int
    users_by_tier: dict[str, int]
    users_by_role: dict[str, int]
    mailboxes_by_domain: dict[str, int]
