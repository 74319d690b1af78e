"""Messages of all of a user's mailboxes in one list."""

from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from server.web.description import describe
from server.web.objects import Summary
from server.web.query import IdCursor, Number, Text
from server.web.requests import Call
from server.web.responses import Reply, ok

_LIMIT: Final = Number("limit", "Messages on one page.", 50, 1, 100)
_CURSOR: Final = IdCursor("cursor", "`nextCursor` of the page before.")
_Q: Final = Text(
    "q",
    "As in a mailbox's search, but words are looked for in the subject, the addresses and the beginning of the text.",
)


class MessagesAcross(msgspec.Struct, rename="camel"):
    """A page, newest first. ``count`` is of all mailboxes together, absent where ``q`` was given; ``next_cursor`` is
    absent on the last page."""

    items: list[Summary]
    count: int | UnsetType = UNSET
    next_cursor: str | UnsetType = UNSET


@describe(
    "List or search the messages of all your mailboxes",
    detail="Newest first, each with its `mailboxId`; of an account with more than a thousand mailboxes that hold mail,"
    " the thousand with the latest.",
    gives=MessagesAcross,
    query=(_Q, _LIMIT, _CURSOR),
)
async def page(call: Call) -> Reply:
    q, limit, before = _Q.of(call), _LIMIT.of(call), _CURSOR.of(call)
    place = call.parts.limits.searching(call.user.id) if q else None
    try:
        found, total = await call.parts.across.page(call.user.id, q, before, limit)
    finally:
        call.parts.limits.leave(place)
    following = found[-1].id if len(found) == limit else UNSET
    return ok(call.language, MessagesAcross([Summary.of(one) for one in found], UNSET if q else total, following))
