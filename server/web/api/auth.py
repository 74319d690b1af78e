"""Accounts as their owners use them: registered, logged in, renewed, logged out, seen."""

from typing import Self

import msgspec
from msgspec import UNSET, UnsetType

from server.model.account import Tier, User
from server.services.contracts import Session
from server.web import requests
from server.web.description import describe
from server.web.requests import Call
from server.web.responses import NO_CONTENT, Reply, created, ok


class RegistrationBody(msgspec.Struct):
    email: str
    password: str
    username: str | None = None


class LoginBody(msgspec.Struct):
    """``email`` or ``username``; either may hold the other."""

    password: str
    email: str | None = None
    username: str | None = None


class RefreshBody(msgspec.Struct, rename="camel"):
    refresh_token: str


class LogoutBody(msgspec.Struct, rename="camel"):
    refresh_token: str | None = None


class UserObject(msgspec.Struct, rename="camel"):
    """An account as its owner sees it."""

    id: str
    email: str
    tier: Tier
    is_active: bool
    is_email_verified: bool
    username: str | UnsetType = UNSET

    @classmethod
    def of(cls, user: User) -> Self:
        return cls(
            id=user.id,
            email=user.email,
            tier=user.tier,
            is_active=user.is_active,
            is_email_verified=user.is_email_verified,
            username=user.username or UNSET,
        )


class SessionObject(msgspec.Struct, rename="camel"):
    """A login; ``expiresIn`` is the access token's life in seconds."""

    user: UserObject
    access_token: str
    refresh_token: str
    expires_in: int

    @classmethod
    def of(cls, session: Session) -> Self:
        return cls(UserObject.of(session.user), session.access_token, session.refresh_token, session.expires_in)


@describe(
    "Make an account",
    detail="The answer is a login already. The password has 8 to 72 characters.",
    response=SessionObject,
    status=201,
    body=RegistrationBody,
    example={"email": "you@example.org", "password": "correct horse battery", "username": "you.too"},
    refuses=("client_banned", "user_exists"),
)
async def register(call: Call) -> Reply:
    wanted = await requests.body(call, RegistrationBody)
    session = await call.services.accounts.register(wanted.email, wanted.password, wanted.username, call.client)
    return created(call.language, SessionObject.of(session))


@describe(
    "Log in",
    detail="By `email` or `username`. Whether the name or the password was wrong is not said; attempts are limited by "
    "name and by address.",
    response=SessionObject,
    body=LoginBody,
    example={"email": "you@example.org", "password": "correct horse battery"},
    refuses=("credentials_invalid", "account_disabled"),
)
async def login(call: Call) -> Reply:
    said = await requests.body(call, LoginBody)
    session = await call.services.accounts.login(said.email or said.username or "", said.password, call.client)
    return _private(ok(call.language, SessionObject.of(session)))


@describe(
    "Renew a login",
    detail="Gives new tokens for a refresh token, which is good once: used again, it ends the login it belongs to.",
    response=SessionObject,
    body=RefreshBody,
    example={"refreshToken": "what the login gave"},
    refuses=("token_invalid", "token_expired", "account_disabled"),
)
async def refresh(call: Call) -> Reply:
    said = await requests.body(call, RefreshBody)
    return _private(ok(call.language, SessionObject.of(await call.services.accounts.refresh(said.refresh_token))))


@describe(
    "Log out",
    detail="Ends the login that asks, and the one whose refresh token is named.",
    status=204,
    body=LogoutBody,
    example={},
    body_optional=True,
)
async def logout(call: Call) -> Reply:
    """End the login that acts; where the body names a refresh token of another login of the account, that one too."""
    said = await requests.body(call, LogoutBody, empty=True)
    if call.principal is not None:
        await call.services.accounts.logout(call.principal, said.refresh_token)
    return NO_CONTENT


@describe("Show the account that asks", response=UserObject)
async def me(call: Call) -> Reply:
    return ok(call.language, UserObject.of(call.user))


def _private(reply: Reply) -> Reply:
    """Without an entity tag: what holds a secret is never asked for again by it."""
    return reply._replace(etag="")
