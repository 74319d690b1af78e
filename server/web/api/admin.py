"""Administration: accounts and their quotas, the installation's figures, and the trail of what administrators did."""

from typing import Any, Final, Self

import msgspec
from msgspec import UNSET, UnsetType

from server.model.account import ROLES, TIERS, Quota, Role, Tier, User
from server.model.admin import Act, Actor, Changes, UserFilter
from server.web import requests
from server.web.api.auth import UserObject
from server.web.api.schemas import rfc3339
from server.web.description import describe
from server.web.query import Choice, Flag, Number, Text
from server.web.requests import Call
from server.web.responses import NO_CONTENT, Reply, ok

_PAGE_MAX: Final = 100
_PAGES_MAX: Final = 10_000
_QUOTA_MAX: Final = 1_000_000_000

PAGE: Final = Number("page", "which page, counted from 1", 1, 1, _PAGES_MAX)
PAGE_SIZE: Final = Number("pageSize", "how many on a page", 20, 1, _PAGE_MAX)
SEARCH: Final = Text("search", "part of the email or username")
ROLE: Final = Choice("role", "only accounts of this role", ROLES)
TIER: Final = Choice("tier", "only accounts of this tier", TIERS)
IS_ACTIVE: Final = Flag("isActive", "only accounts that are active, or only those that are not")


class AccountObject(UserObject, rename="camel"):
    """An account as administrators see it."""

    role: Role = "user"
    created_at: str = ""
    updated_at: str = ""
    last_login_at: str | UnsetType = UNSET

    @classmethod
    def of(cls, user: User) -> Self:
        account = super().of(user)
        account.role = user.role
        account.created_at, account.updated_at = rfc3339(user.created_at), rfc3339(user.updated_at)
        account.last_login_at = UNSET if user.last_login_at is None else rfc3339(user.last_login_at)
        return account


class AccountList(msgspec.Struct, rename="camel"):
    """A page of accounts, newest first; ``total`` is of all pages."""

    users: list[AccountObject]
    total: int
    page: int
    page_size: int
    total_pages: int


class AccountBody(msgspec.Struct, rename="camel"):
    """What to change; what is not there stays."""

    role: Role | UnsetType = UNSET
    tier: Tier | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET
    is_email_verified: bool | UnsetType = UNSET


class QuotaBody(msgspec.Struct, rename="camel"):
    """What an account may use; 0 is without limit, and what is left out stays as it is."""

    max_mailboxes: int | UnsetType = UNSET
    max_messages_per_mailbox: int | UnsetType = UNSET
    max_api_requests_per_minute: int | UnsetType = UNSET
    max_concurrent_requests: int | UnsetType = UNSET


class QuotaObject(msgspec.Struct, rename="camel"):
    """What an account may use, its own or its tier's; 0 is without limit."""

    user_id: str
    max_mailboxes: int
    max_messages_per_mailbox: int
    max_api_requests_per_minute: int
    max_concurrent_requests: int

    @classmethod
    def of(cls, user_id: str, quota: Quota) -> Self:
        return cls(user_id, *msgspec.structs.astuple(quota))


_SHOWN: Final = {
    "is_active": "isActive",
    "is_email_verified": "isEmailVerified",
    "max_mailboxes": "maxMailboxes",
    "max_messages": "maxMessagesPerMailbox",
    "max_requests_per_minute": "maxApiRequestsPerMinute",
    "max_concurrent": "maxConcurrentRequests",
}
"""What an act changed, as this API calls it elsewhere."""


class ActObject(msgspec.Struct, rename="camel"):
    """One act of an administrator; ``before`` and ``after`` hold what it changed."""

    id: str
    created_at: str
    actor: str
    action: str
    target: str
    client: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    actor_id: str | UnsetType = UNSET

    @classmethod
    def of(cls, act: Act) -> Self:
        before, after = (
            None if values is None else {_SHOWN.get(name, name): value for name, value in values.items()}
            for values in (act.before, act.after)
        )
        at, actor_id = rfc3339(act.at), act.actor_id or UNSET
        return cls(act.id, at, act.actor, act.action, act.target, act.client, before, after, actor_id)


class ActList(msgspec.Struct, rename="camel"):
    """A page of the trail, newest first; ``total`` is of all pages."""

    items: list[ActObject]
    total: int
    page: int
    page_size: int
    total_pages: int


class StatisticsObject(msgspec.Struct, rename="camel"):
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
    recent_activity: list[ActObject]


def actor(call: Call) -> Actor:
    """Who administers in this request."""
    return Actor(call.user.id, call.user.email, call.user.role, call.client)


def _pages(total: int, size: int) -> int:
    return -(-total // size)


@describe("List accounts", response=AccountList, query=(PAGE, PAGE_SIZE, SEARCH, ROLE, TIER, IS_ACTIVE))
async def users(call: Call) -> Reply:
    page, size = PAGE.of(call), PAGE_SIZE.of(call)
    wanted = UserFilter(SEARCH.of(call), ROLE.of(call), TIER.of(call), IS_ACTIVE.of(call))
    found, total = await call.services.administration.users(wanted, page, size)
    shown = [AccountObject.of(one) for one in found]
    return ok(call.language, AccountList(shown, total, page, size, _pages(total, size)))


@describe("Look at an account", response=AccountObject, refuses=("user_not_found",))
async def user(call: Call) -> Reply:
    return ok(call.language, AccountObject.of(await call.services.administration.user(call.segments[0])))


@describe(
    "Change an account",
    detail="Only a super user gives roles or acts on administrators. Nobody changes his own role or shuts himself out.",
    response=AccountObject,
    body=AccountBody,
    example={"tier": "pro"},
    refuses=("user_not_found", "permission_denied"),
)
async def change_user(call: Call) -> Reply:
    given = await requests.body(call, AccountBody)
    named = {name: value for name, value in msgspec.structs.asdict(given).items() if value is not UNSET}
    changed = await call.services.administration.change(actor(call), call.segments[0], Changes(**named))
    return ok(call.language, AccountObject.of(changed))


@describe(
    "Delete an account",
    detail="It can do nothing more at once; its mailboxes, domains, tags and webhooks go with it.",
    status=204,
    refuses=("user_not_found", "permission_denied"),
)
async def delete_user(call: Call) -> Reply:
    await call.services.administration.delete(actor(call), call.segments[0])
    return NO_CONTENT


@describe("Show what an account may use", response=QuotaObject, refuses=("user_not_found",))
async def quota(call: Call) -> Reply:
    found = await call.services.administration.user(call.segments[0])
    return ok(call.language, QuotaObject.of(found.id, found.quota))


@describe(
    "Set what an account may use",
    detail="Counts instead of what its tier allows, from this answer on. Fields that are left out stay as they are.",
    response=QuotaObject,
    body=QuotaBody,
    example={
        "maxMailboxes": 5,
        "maxMessagesPerMailbox": 200,
        "maxApiRequestsPerMinute": 100,
        "maxConcurrentRequests": 10,
    },
    refuses=("user_not_found", "permission_denied", "field_invalid"),
)
async def set_quota(call: Call) -> Reply:
    given = await requests.body(call, QuotaBody)
    wanted = {}
    for field, name in zip(msgspec.structs.fields(QuotaBody), Quota.__struct_fields__, strict=True):
        value = getattr(given, field.name)
        if value is not UNSET:
            requests.within(value, 0, _QUOTA_MAX, field.encode_name)
            wanted[name] = value
    granted = await call.services.administration.set_quota(actor(call), call.segments[0], wanted)
    return ok(call.language, QuotaObject.of(call.segments[0], granted))


@describe("Show the installation's figures", response=StatisticsObject)
async def statistics(call: Call) -> Reply:
    figures, acts = await call.services.administration.statistics()
    recent = [ActObject.of(act) for act in acts]
    return ok(call.language, StatisticsObject(**msgspec.structs.asdict(figures), recent_activity=recent))


@describe("Show what administrators did", response=ActList, query=(PAGE, PAGE_SIZE))
async def audit(call: Call) -> Reply:
    page, size = PAGE.of(call), PAGE_SIZE.of(call)
    acts, total = await call.services.administration.acts(page, size)
    return ok(call.language, ActList([ActObject.of(act) for act in acts], total, page, size, _pages(total, size)))
