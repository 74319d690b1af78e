"""Mailboxes as administrators see them: found, looked at, extended, disabled and deleted; their mail is never shown."""

import ipaddress
from typing import Final, Self

import msgspec
from msgspec import UNSET, UnsetType

from server.model.admin import STATES, MailboxFacts, MailboxFilter, State
from server.model.errors import Refused
from server.model.message import Counts
from server.web import requests
from server.web.api.admin import PAGE, PAGE_SIZE, actor
from server.web.api.schemas import rfc3339
from server.web.description import describe
from server.web.query import Choice, Text
from server.web.requests import Call
from server.web.responses import NO_CONTENT, Reply, ok

ADDRESS: Final = Text("address", "an address of it, whole or a part; `*` stands for anything")
OWNER: Final = Text("owner", "the account that it belongs to: its id, email or username")
NETWORK: Final = Text("network", "the address or network that made it, such as `192.0.2.0/24`")
STATE: Final = Choice("state", "only active or disabled ones; or those that are gone, as long as it is known", STATES)


class FactsObject(msgspec.Struct, rename="camel"):
    """A mailbox without its mail. ``created_from`` is the client that made it, as long as that is kept; ``user_id``
    only where it belongs to an account. ``unread``, ``total`` and ``last_activity`` only where one is looked at.
    """

    id: str
    address: str
    state: State
    is_active: bool
    created_at: str
    expires_at: str | UnsetType = UNSET
    user_id: str | UnsetType = UNSET
    created_from: str | UnsetType = UNSET
    unread: int | UnsetType = UNSET
    total: int | UnsetType = UNSET
    last_activity: str | UnsetType = UNSET

    @classmethod
    def of(cls, facts: MailboxFacts, counts: Counts | None = None) -> Self:
        made = cls(facts.id, facts.address, facts.state, facts.state == "active", rfc3339(facts.created_at))
        made.expires_at = UNSET if facts.expires_at is None else rfc3339(facts.expires_at)
        made.user_id, made.created_from = facts.user_id or UNSET, facts.client or UNSET
        if counts is not None:
            made.unread, made.total = counts.unread, counts.total
            made.last_activity = UNSET if counts.last_activity is None else rfc3339(counts.last_activity)
        return made


class FactsList(msgspec.Struct, rename="camel"):
    """A page of mailboxes, newest first; ``total`` is of all pages."""

    items: list[FactsObject]
    total: int
    page: int
    page_size: int
    total_pages: int


class FactsBody(msgspec.Struct, rename="camel"):
    """What to change; what is not there stays."""

    expires_in: str | None = None
    is_active: bool | None = None


@describe(
    "List mailboxes",
    detail="Of everybody, and never their mail.",
    response=FactsList,
    query=(PAGE, PAGE_SIZE, ADDRESS, OWNER, NETWORK, STATE),
)
async def listed(call: Call) -> Reply:
    page, size, network = PAGE.of(call), PAGE_SIZE.of(call), NETWORK.of(call)
    wanted = MailboxFilter(ADDRESS.of(call), OWNER.of(call) or None, _network(network), STATE.of(call))
    found, total = await call.services.abuse.page(wanted, page, size)
    items = [FactsObject.of(one) for one in found]
    return ok(call.language, FactsList(items, total, page, size, -(-total // size)))


def _network(text: str) -> str | None:
    try:
        return str(ipaddress.ip_network(text, strict=False)) if text else None
    except ValueError as error:
        raise Refused("field_invalid", "an address or a network such as 192.0.2.0/24", field="network") from error


@describe("Look at a mailbox's facts", response=FactsObject, refuses=("mailbox_not_found",))
async def show(call: Call) -> Reply:
    return ok(call.language, FactsObject.of(*await call.services.abuse.one(call.segments[0])))


@describe(
    "Extend, disable or enable a mailbox",
    detail="A disabled mailbox takes no mail (550 5.2.1); its owner still reads what is there, and its address stays "
    "taken. It never ends sooner than before. Only a super user acts on mailboxes of administrators.",
    response=FactsObject,
    body=FactsBody,
    example={"isActive": False},
    refuses=("mailbox_not_found", "permission_denied", "duration_invalid"),
)
async def change(call: Call) -> Reply:
    given = await requests.body(call, FactsBody)
    ttl = requests.lifetime(given.expires_in) if given.expires_in is not None else None
    await call.services.abuse.change(actor(call), call.segments[0], ttl, given.is_active)
    return ok(call.language, FactsObject.of(*await call.services.abuse.one(call.segments[0])))


@describe(
    "Delete a mailbox and its mail",
    detail="Its address is free at once: a ban of the name keeps it from being taken again.",
    status=204,
    refuses=("mailbox_not_found", "permission_denied"),
)
async def delete(call: Call) -> Reply:
    await call.services.abuse.delete(actor(call), call.segments[0])
    return NO_CONTENT
