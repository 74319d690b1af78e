"""Mailboxes of people without an account: made, seen, extended, given a new token, deleted."""

import msgspec

from server.model.errors import Refused
from server.web import requests
from server.web.objects import MailboxObject
from server.web.requests import Call
from server.web.responses import NO_CONTENT, Reply, created, ok


class NewMailboxBody(msgspec.Struct, rename="camel"):
    prefix: str | None = None
    domain: str | None = None
    expires_in: str | None = None


class ExtensionBody(msgspec.Struct, rename="camel"):
    expires_in: str


async def create(call: Call) -> Reply:
    wanted = await requests.body(call.request, NewMailboxBody, empty=True)
    ttl = requests.lifetime(wanted.expires_in) if wanted.expires_in else None
    made = await call.parts.mailboxes.create(wanted.prefix or None, wanted.domain or None, ttl, call.client)
    return created(call.language, MailboxObject.of(made.mailbox, 0, 0, made.token))


async def own(call: Call) -> Reply:
    """The caller's mailboxes: of an account, so nothing without one."""
    raise Refused("token_required")


async def show(call: Call) -> Reply:
    counts = await call.parts.mailboxes.counts(call.mailbox)
    return ok(call.language, MailboxObject.of(call.mailbox, counts.unread, counts.total))


async def extend(call: Call) -> Reply:
    wanted = await requests.body(call.request, ExtensionBody)
    mailbox = await call.parts.mailboxes.extend(call.mailbox, requests.lifetime(wanted.expires_in))
    counts = await call.parts.mailboxes.counts(mailbox)
    return ok(call.language, MailboxObject.of(mailbox, counts.unread, counts.total))


async def rotate(call: Call) -> Reply:
    """A new token; the old one opens nothing from here on."""
    made = await call.parts.mailboxes.rotate_token(call.mailbox)
    counts = await call.parts.mailboxes.counts(made.mailbox)
    return ok(call.language, MailboxObject.of(made.mailbox, counts.unread, counts.total, made.token))


async def delete(call: Call) -> Reply:
    await call.parts.mailboxes.delete(call.mailbox)
    return NO_CONTENT
