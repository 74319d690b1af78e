"""Aliases of a mailbox: further addresses whose mail lies in it."""

from typing import Self

import msgspec

from server.model.message import Alias
from server.web import requests
from server.web.api.schemas import rfc3339
from server.web.description import describe
from server.web.requests import Call
from server.web.responses import NO_CONTENT, Reply, created, ok


class NewAliasBody(msgspec.Struct):
    """``address``: a local part, under the mailbox's own domain then, or a whole address."""

    address: str


class AliasSwitchBody(msgspec.Struct, rename="camel"):
    is_active: bool


class AliasObject(msgspec.Struct, rename="camel"):
    """An alias; mail to one that is not active is refused."""

    id: str
    mailbox_id: str
    address: str
    created_at: str
    is_active: bool

    @classmethod
    def of(cls, alias: Alias) -> Self:
        return cls(alias.id, alias.mailbox_id, alias.address, rfc3339(alias.created_at), alias.is_active)


class AliasList(msgspec.Struct):
    """All aliases of a mailbox, oldest first."""

    items: list[AliasObject]
    count: int


@describe(
    "Give a mailbox another address",
    detail="Its mail lies in the mailbox, with `to` as it was sent. It goes with the mailbox. An address that anybody "
    "has, as a mailbox or as an alias, is taken.",
    response=AliasObject,
    status=201,
    body=NewAliasBody,
    example={"address": "also.me"},
    refuses=("prefix_invalid", "domain_not_allowed", "alias_exists", "too_many_aliases"),
)
async def create(call: Call) -> Reply:
    wanted = await requests.body(call, NewAliasBody)
    alias = await call.services.aliases.create(call.mailbox, wanted.address)
    return created(call.language, AliasObject.of(alias))


@describe("List the aliases of a mailbox", response=AliasList)
async def own(call: Call) -> Reply:
    items = [AliasObject.of(alias) for alias in await call.services.aliases.all(call.mailbox)]
    return ok(call.language, AliasList(items, len(items)))


@describe("Look at an alias", response=AliasObject, refuses=("alias_not_found",))
async def show(call: Call) -> Reply:
    alias = await call.services.aliases.one(call.mailbox, call.segments[1])
    return ok(call.language, AliasObject.of(alias))


@describe(
    "Switch an alias on or off",
    detail="Off, mail to it is refused as to an address that nobody has; the address stays taken.",
    response=AliasObject,
    body=AliasSwitchBody,
    example={"isActive": False},
    refuses=("alias_not_found",),
)
async def switch(call: Call) -> Reply:
    wanted = await requests.body(call, AliasSwitchBody)
    alias = await call.services.aliases.switch(call.mailbox, call.segments[1], active=wanted.is_active)
    return ok(call.language, AliasObject.of(alias))


@describe("Delete an alias", detail="The address is free at once.", status=204, refuses=("alias_not_found",))
async def delete(call: Call) -> Reply:
    await call.services.aliases.delete(call.mailbox, call.segments[1])
    return NO_CONTENT
