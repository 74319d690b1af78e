"""People with an account: who they are, what their tier allows, and who is acting in a request. Pure values."""

from datetime import datetime
from typing import Final, Literal

import msgspec

from server.model.errors import Refused

Tier = Literal["free", "basic", "pro", "enterprise"]
Role = Literal["user", "admin", "super"]
Scope = Literal["mailbox:read", "mailbox:write", "mail:read", "mail:write"]

TIERS: Final[tuple[Tier, ...]] = ("free", "basic", "pro", "enterprise")
ROLES: Final[tuple[Role, ...]] = ("user", "admin", "super")
SCOPES: Final[tuple[Scope, ...]] = ("mailbox:read", "mailbox:write", "mail:read", "mail:write")


class Quota(msgspec.Struct, frozen=True):
    """What an account may use; 0 is without limit."""

    max_mailboxes: int
    max_messages: int
    max_requests_per_minute: int
    max_concurrent: int


QUOTAS: Final[dict[Tier, Quota]] = {
    "free": Quota(3, 30, 30, 5),
    "basic": Quota(10, 100, 100, 20),
    "pro": Quota(50, 500, 500, 50),
    "enterprise": Quota(0, 0, 0, 100),
}


class User(msgspec.Struct, frozen=True):
    """An account; ``quota`` is the tier's unless an administrator gave it one of its own."""

    id: str
    email: str
    username: str | None
    tier: Tier
    role: Role
    is_active: bool
    is_email_verified: bool
    created_at: datetime
    updated_at: datetime
    last_login_at: datetime | None
    quota: Quota


class ApiKey(msgspec.Struct, frozen=True):
    """A key for programs, without the key itself: ``shown`` is its beginning and end."""

    id: str
    user_id: str
    name: str
    shown: str
    scopes: frozenset[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = None


KEY_PREFIX: Final = "tm_"  # what every API key begins with
KEY_NAME_MAX: Final = 64  # characters


def checked_key_name(text: str) -> str:
    """Without space around it. Refused field_invalid."""
    text = text.strip()
    if not 1 <= len(text) <= KEY_NAME_MAX or not text.isprintable():
        raise Refused("field_invalid", f"one line of 1 to {KEY_NAME_MAX} characters", field="name")
    return text


class Principal(msgspec.Struct, frozen=True):
    """Who acts in a request: a user, by access token or by API key (then ``scopes`` are the key's, else all)."""

    user: User
    via: Literal["jwt", "key"]
    scopes: frozenset[str] = frozenset(SCOPES)
    credential: str = ""  # the login's id or the key's
    expires_at: datetime | None = None

    def may_open(self) -> bool:
        """Whether it may be given what opens a mailbox, which allows all that is done with one."""
        return self.scopes.issuperset(SCOPES)

    def is_at_least(self, role: Role) -> bool:
        return ROLES.index(self.user.role) >= ROLES.index(role)
