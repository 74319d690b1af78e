"""Tags: a user's labels, and putting them on messages of the user's mailboxes."""

from typing import Final, Self

import msgspec
from msgspec import UNSET, UnsetType

from server.model import ids
from server.model.errors import Refused
from server.model.tag import Tag
from server.web import requests
from server.web.api.schemas import MessageList, Summary, rfc3339
from server.web.description import describe
from server.web.query import IdCursor, Number
from server.web.requests import Call
from server.web.responses import NO_CONTENT, Reply, created, ok

_LIMIT: Final = Number("limit", "Messages on one page.", 50, 1, 100)
_CURSOR: Final = IdCursor("cursor", "`nextCursor` of the page before.")


class NewTagBody(msgspec.Struct):
    name: str
    color: str
    description: str = ""


class TagChangeBody(msgspec.Struct):
    """What is left out stays as it is."""

    name: str | None = None
    color: str | None = None
    description: str | None = None


class TaggingBody(msgspec.Struct, rename="camel"):
    tag_id: str


class TagObject(msgspec.Struct, rename="camel"):
    """A tag; ``message_count`` only in the list of all tags."""

    id: str
    user_id: str
    name: str
    color: str
    description: str
    created_at: str
    updated_at: str
    message_count: int | UnsetType = UNSET

    @classmethod
    def of(cls, tag: Tag, message_count: int | UnsetType = UNSET) -> Self:
        return cls(
            id=tag.id,
            user_id=tag.user_id,
            name=tag.name,
            color=tag.color,
            description=tag.description,
            created_at=rfc3339(tag.created_at),
            updated_at=rfc3339(tag.updated_at),
            message_count=message_count,
        )


class TagList(msgspec.Struct):
    """Oldest first."""

    items: list[TagObject]
    count: int


@describe(
    "Make a tag",
    detail="No two tags of an account have the same name, whatever its case.",
    response=TagObject,
    status=201,
    body=NewTagBody,
    example={"name": "invoices", "color": "#336699", "description": "to be paid"},
    refuses=("tag_exists", "quota_reached"),
)
async def create(call: Call) -> Reply:
    wanted = await requests.body(call, NewTagBody)
    tag = await call.services.tags.create(call.user.id, wanted.name, wanted.color, wanted.description)
    return created(call.language, TagObject.of(tag))


@describe("List your tags", detail="With the number of messages that carry each.", response=TagList)
async def own(call: Call) -> Reply:
    items = [TagObject.of(tag, count) for tag, count in await call.services.tags.all(call.user.id)]
    return ok(call.language, TagList(items, len(items)))


@describe("Look at a tag", response=TagObject, refuses=("tag_not_found",))
async def show(call: Call) -> Reply:
    return ok(call.language, TagObject.of(await call.services.tags.one(call.user.id, call.segments[0])))


@describe(
    "Change a tag",
    detail="Fields that are left out stay as they are.",
    response=TagObject,
    body=TagChangeBody,
    example={"name": "paid"},
    refuses=("tag_not_found", "tag_exists"),
)
async def change(call: Call) -> Reply:
    wanted = await requests.body(call, TagChangeBody)
    user_id, tag_id = call.user.id, call.segments[0]
    tag = await call.services.tags.update(user_id, tag_id, wanted.name, wanted.color, wanted.description)
    return ok(call.language, TagObject.of(tag))


@describe("Delete a tag", detail="No message carries it any more.", status=204, refuses=("tag_not_found",))
async def delete(call: Call) -> Reply:
    await call.services.tags.delete(call.user.id, call.segments[0])
    return NO_CONTENT


@describe(
    "List the messages that carry a tag",
    detail="Newest first, from all of your mailboxes; `count` is of all pages.",
    response=MessageList,
    query=(_LIMIT, _CURSOR),
    refuses=("tag_not_found",),
)
async def messages(call: Call) -> Reply:
    limit, before = _LIMIT.of(call), _CURSOR.of(call)
    found, total = await call.services.tags.messages(call.user.id, call.segments[0], limit, before)
    following = found[-1].id if len(found) == limit else UNSET
    return ok(call.language, MessageList([Summary.of(one) for one in found], total, following))


def _acting(call: Call) -> str:
    """Whose tags are meant: a mailbox's token alone is nobody's account."""
    if call.principal is None:
        raise Refused("token_required", "tags belong to an account")
    return call.principal.user.id


def _message_id(call: Call) -> str:
    message_id = call.segments[1]
    if not ids.valid(message_id):
        raise Refused("message_not_found")
    return message_id


@describe(
    "Tag a message",
    detail="Again is no error. Needs an account: a mailbox's token alone is not enough.",
    response=TagObject,
    body=TaggingBody,
    example={"tagId": "01890000-0000-7000-8000-000000000000"},
    refuses=("tag_not_found", "message_not_found"),
)
async def attach(call: Call) -> Reply:
    user_id, message_id = _acting(call), _message_id(call)
    wanted = await requests.body(call, TaggingBody)
    tag = await call.services.tags.attach(user_id, call.mailbox, message_id, wanted.tag_id)
    return ok(call.language, TagObject.of(tag))


@describe("List your tags on a message", response=TagList, refuses=("message_not_found",))
async def of_message(call: Call) -> Reply:
    tags = await call.services.tags.of_message(_acting(call), call.mailbox, _message_id(call))
    return ok(call.language, TagList([TagObject.of(tag) for tag in tags], len(tags)))


@describe("Take a tag off a message", status=204, refuses=("tag_not_found", "message_not_found"))
async def detach(call: Call) -> Reply:
    await call.services.tags.detach(_acting(call), call.mailbox, _message_id(call), call.segments[2])
    return NO_CONTENT
