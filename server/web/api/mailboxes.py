"""Mailboxes, of guests and of accounts: made, listed, seen, extended, given a new token, deleted."""

import math
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from server.model.account import User
from server.web import requests
from server.web.api.schemas import MailboxObject
from server.web.description import describe
from server.web.query import IdCursor, Number
from server.web.requests import Call
from server.web.responses import NO_CONTENT, Reply, created, ok

LIMIT: Final = Number("limit", "how many mailboxes at most", 1000, 1, 1000)
CURSOR: Final = IdCursor("cursor", "the `nextCursor` of the page before")
_FOR_EVER: Final = ("0", "never")


class NewMailboxBody(msgspec.Struct, rename="camel"):
    prefix: str | None = None
    domain: str | None = None
    expires_in: str | None = None


class ExtensionBody(msgspec.Struct, rename="camel"):
    expires_in: str


@describe(
    "Make a mailbox",
    detail="All fields may be left out, and so may the body. The token in the answer opens the mailbox; it is shown "
    "only this once, and not to an API key that lacks a scope. An account may ask for `expiresIn` `never`. Only a "
    "request without any credential is a guest's; one with a credential that is no account's is refused.",
    response=MailboxObject,
    status=201,
    body=NewMailboxBody,
    example={"expiresIn": "2h"},
    body_optional=True,
    refuses=(
        "client_banned",
        "prefix_invalid",
        "domain_not_allowed",
        "duration_invalid",
        "mailbox_exists",
        "too_many_mailboxes",
        "quota_reached",
    ),
)
async def create(call: Call) -> Reply:
    wanted = await requests.body(call, NewMailboxBody, empty=True)
    owner = call.principal.user if call.principal else None
    prefix, domain, ttl = wanted.prefix or None, wanted.domain or None, _life(wanted.expires_in, owner)
    made = await call.services.mailboxes.create(prefix, domain, ttl, call.client, owner)
    token = made.token if call.principal is None or call.principal.may_open() else UNSET
    return created(call.language, MailboxObject.of(made.mailbox, 0, 0, token))


def _life(text: str | None, owner: User | None) -> float | None:
    if owner is not None and text in _FOR_EVER:
        return math.inf
    return requests.lifetime(text) if text else None


class MailboxList(msgspec.Struct, rename="camel"):
    """An account's mailboxes, newest first; ``count`` is of all of them, ``next_cursor`` absent on the last page."""

    items: list[MailboxObject]
    count: int
    next_cursor: str | UnsetType = UNSET


@describe(
    "List one's mailboxes",
    detail="Newest first, without their tokens: the account opens them.",
    response=MailboxList,
    query=(LIMIT, CURSOR),
)
async def own(call: Call) -> Reply:
    """The account's mailboxes; nobody else's, and nothing without an account."""
    limit = LIMIT.of(call)
    cursor = CURSOR.of(call) or None
    mailboxes, total = await call.services.mailboxes.page(call.user, limit, cursor)
    following = mailboxes[-1].id if len(mailboxes) == limit else UNSET
    ours = await call.services.mailboxes.administrators(call.user) if cursor is None else None
    shown = [ours, *mailboxes] if ours else mailboxes
    counts = await call.services.mailboxes.counts_of(shown)
    items = [MailboxObject.of(box, counts[box.id].unread, counts[box.id].total) for box in shown if box.id in counts]
    return ok(call.language, MailboxList(items, total + bool(ours), following))


@describe("Look at a mailbox", response=MailboxObject)
async def show(call: Call) -> Reply:
    counts = await call.services.mailboxes.counts(call.mailbox)
    return ok(call.language, MailboxObject.of(call.mailbox, counts.unread, counts.total))


@describe(
    "Let a mailbox live longer",
    detail="`expiresIn` counts from now. It never ends sooner than before.",
    response=MailboxObject,
    body=ExtensionBody,
    example={"expiresIn": "2h"},
    refuses=("duration_invalid",),
)
async def extend(call: Call) -> Reply:
    wanted = await requests.body(call, ExtensionBody)
    mailbox = await call.services.mailboxes.extend(call.mailbox, requests.lifetime(wanted.expires_in))
    counts = await call.services.mailboxes.counts(mailbox)
    return ok(call.language, MailboxObject.of(mailbox, counts.unread, counts.total))


@describe(
    "Give a mailbox a new token",
    detail="The old one opens nothing from then on. An API key needs every scope for this, since the token gives all.",
    response=MailboxObject,
)
async def rotate(call: Call) -> Reply:
    """A new token; the old one opens nothing from here on."""
    made = await call.services.mailboxes.rotate_token(call.mailbox)
    counts = await call.services.mailboxes.counts(made.mailbox)
    return ok(call.language, MailboxObject.of(made.mailbox, counts.unread, counts.total, made.token))


@describe("Delete a mailbox and its mail", status=204)
async def delete(call: Call) -> Reply:
    await call.services.mailboxes.delete(call.mailbox)
    return NO_CONTENT
