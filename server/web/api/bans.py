"""Bans over HTTP: listed, made and taken back by administrators."""

from typing import Final, Self

import msgspec
from msgspec import UNSET, UnsetType

from server.model.ban import KINDS, Ban, Kind
from server.model.errors import Refused
from server.web import requests
from server.web.api.admin import PAGE, PAGE_SIZE, actor
from server.web.api.schemas import rfc3339
from server.web.description import describe
from server.web.query import Choice
from server.web.requests import Call
from server.web.responses import NO_CONTENT, Reply, created, ok

KIND: Final = Choice("kind", "only bans of this kind", KINDS)
_REASON_MAX: Final = 500


class BanBody(msgspec.Struct, rename="camel"):
    """``value`` is an address or a network (`network`), an address (`sender`), a domain, which means its subdomains too
    (`senderDomain`), or a name of mailboxes in which `*` stands for any letters (`localPart`)."""

    kind: Kind
    value: str
    reason: str
    expires_in: str | None = None


class BanObject(msgspec.Struct, rename="camel"):
    """A ban in force; ``expires_at`` only where it ends by itself."""

    id: str
    kind: Kind
    value: str
    reason: str
    created_at: str
    created_by: str
    expires_at: str | UnsetType = UNSET

    @classmethod
    def of(cls, ban: Ban) -> Self:
        end = UNSET if ban.expires_at is None else rfc3339(ban.expires_at)
        return cls(ban.id, ban.kind, ban.value, ban.reason, rfc3339(ban.created_at), ban.created_by, end)


class BanList(msgspec.Struct, rename="camel"):
    """A page of bans, newest first; ``total`` is of all pages."""

    items: list[BanObject]
    total: int
    page: int
    page_size: int
    total_pages: int


@describe("List the bans in force", response=BanList, query=(PAGE, PAGE_SIZE, KIND))
async def listed(call: Call) -> Reply:
    page, size = PAGE.of(call), PAGE_SIZE.of(call)
    found, total = await call.services.bans.page(KIND.of(call), page, size)
    return ok(call.language, BanList([BanObject.of(ban) for ban in found], total, page, size, -(-total // size)))


@describe(
    "Ban a network, a sender, a sender's domain or a name",
    detail="In force in every worker at once. A `network` may send no mail and make no mailbox or account; it still "
    "reads what it has, and administrators are never touched. All banned networks together get a few SMTP sessions; "
    "further ones hear 554 5.7.1 in place of a greeting. `sender` and `senderDomain` are refused at RCPT with 550 "
    "5.7.1. postmaster@ and abuse@ stay open to all. `localPart` keeps names from being taken by new mailboxes and "
    "aliases, however they are spelt: case, tags, dots, dashes and what looks alike (`paypa1`) make no difference.",
    response=BanObject,
    status=201,
    body=BanBody,
    example={"kind": "localPart", "value": "paypal*", "reason": "phishing", "expiresIn": "30d"},
    refuses=("ban_exists", "quota_reached", "duration_invalid"),
)
async def add(call: Call) -> Reply:
    given = await requests.body(call, BanBody)
    if not 0 < len(given.reason.strip()) <= _REASON_MAX or not given.reason.strip().isprintable():
        raise Refused("field_invalid", f"why, in 1 to {_REASON_MAX} characters of one line", field="reason")
    life = requests.lifetime(given.expires_in) if given.expires_in else None
    made = await call.services.bans.add(actor(call), given.kind, given.value, given.reason.strip(), life)
    return created(call.language, BanObject.of(made))


@describe("Take a ban back", status=204, refuses=("ban_not_found",))
async def remove(call: Call) -> Reply:
    await call.services.bans.remove(actor(call), call.segments[0])
    return NO_CONTENT
