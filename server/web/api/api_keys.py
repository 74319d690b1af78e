"""API keys as their owners see them: made, listed, looked at, revoked."""

from typing import Self

import msgspec
from msgspec import UNSET, UnsetType

from server import clock
from server.model.account import SCOPES, ApiKey, Scope
from server.web import requests
from server.web.api.schemas import rfc3339
from server.web.description import describe
from server.web.requests import Call
from server.web.responses import NO_CONTENT, Reply, created, ok


class NewKeyBody(msgspec.Struct, rename="camel"):
    """``scopes`` left out means all of them, ``expiresIn`` left out a key without an end."""

    name: str
    expires_in: str | None = None
    scopes: list[Scope] | None = None


class ApiKeyObject(msgspec.Struct, rename="camel"):
    """A key; ``key`` is whole only where it was just made."""

    id: str
    key: str
    name: str
    is_active: bool
    scopes: list[str]
    created_at: str
    expires_at: str | UnsetType = UNSET
    last_used_at: str | UnsetType = UNSET

    @classmethod
    def of(cls, key: ApiKey, is_active: bool, whole: str = "") -> Self:
        return cls(
            id=key.id,
            key=whole or key.shown,
            name=key.name,
            is_active=is_active,
            scopes=sorted(key.scopes),
            created_at=rfc3339(key.created_at),
            expires_at=UNSET if key.expires_at is None else rfc3339(key.expires_at),
            last_used_at=UNSET if key.last_used_at is None else rfc3339(key.last_used_at),
        )


class ApiKeyList(msgspec.Struct):
    """Every key of the account, newest first."""

    items: list[ApiKeyObject]
    count: int


@describe(
    "Make an API key",
    detail="The key is shown whole in this answer and never again. It sees the account's own mailboxes only.",
    response=ApiKeyObject,
    status=201,
    body=NewKeyBody,
    example={"name": "test suite", "expiresIn": "30d", "scopes": ["mail:read"]},
    refuses=("duration_invalid", "quota_reached"),
)
async def create(call: Call) -> Reply:
    wanted = await requests.body(call, NewKeyBody)
    life = requests.lifetime(wanted.expires_in) if wanted.expires_in else None
    scopes = frozenset(SCOPES if wanted.scopes is None else wanted.scopes)
    made = await call.services.api_keys.create(call.user, wanted.name, scopes, life)
    return created(call.language, ApiKeyObject.of(made.key, True, made.whole))


@describe("List one's API keys", response=ApiKeyList)
async def page(call: Call) -> Reply:
    keys = await call.services.api_keys.own(call.user)
    return ok(call.language, ApiKeyList([ApiKeyObject.of(key, _is_active(key)) for key in keys], len(keys)))


@describe("Look at an API key", response=ApiKeyObject, refuses=("api_key_not_found",))
async def show(call: Call) -> Reply:
    key = await call.services.api_keys.one(call.user, call.segments[0])
    return ok(call.language, ApiKeyObject.of(key, _is_active(key)))


@describe("Revoke an API key", status=204, refuses=("api_key_not_found",))
async def delete(call: Call) -> Reply:
    await call.services.api_keys.revoke(call.user, call.segments[0])
    return NO_CONTENT


def _is_active(key: ApiKey) -> bool:
    return key.expires_at is None or key.expires_at > clock.now()
