"""Messages of all of a user's mailboxes in one list."""

from contextlib import nullcontext
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from server.model.query import Query
from server.web.api import search_params
from server.web.api.schemas import Summary
from server.web.description import describe
from server.web.query import IdCursor, Number
from server.web.requests import Call
from server.web.responses import Reply, ok

_LIMIT: Final = Number("limit", "Messages on one page.", 50, 1, 100)
_CURSOR: Final = IdCursor("cursor", "`nextCursor` of the page before.")


class MessagesAcross(msgspec.Struct, rename="camel"):
    """A page, newest first. ``count`` is of all mailboxes together, absent from a search; ``next_cursor`` is absent on
    the last page."""

    items: list[Summary]
    count: int | UnsetType = UNSET
    next_cursor: str | UnsetType = UNSET


@describe(
    "List or search the messages of all your mailboxes",
    detail="Newest first, each with its `mailboxId`; of an account with more than a thousand mailboxes that hold mail,"
    " the thousand with the latest. Every parameter narrows the result as in a mailbox's search. A search that has run"
    " for long answers with what it found so far, be it nothing: it goes on from `nextCursor`.",
    response=MessagesAcross,
    query=(*search_params.CONDITIONS, _LIMIT, _CURSOR),
)
async def page(call: Call) -> Reply:
    asked, limit, before = search_params.asked(call), _LIMIT.of(call), _CURSOR.of(call)
    wanted = asked.wanted()
    is_search = wanted != Query()
    shares = call.services.limits.shares(call.client, call.user.id)
    with call.services.limits.searching(call.user.id, call.client) if is_search else nullcontext():
        found = await call.services.across.page(call.user.id, wanted, before, limit, shares)
    items = [Summary.of(one) for one in found.messages]
    count = UNSET if is_search else found.total
    return ok(call.language, MessagesAcross(items, count, found.following or UNSET))
