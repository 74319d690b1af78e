"""One event stream while its right is looked up: what happens meanwhile, in orders no server can be forced into."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from math import inf
from typing import Any, cast

import pytest

from server.model import ids
from server.model.errors import Refused
from server.model.event import Hint, Kind
from server.model.message import Counts, Details, Mailbox, Stored
from server.services.push.hub import Hub
from server.web.api.events import EventStream


class Response:
    """What was written."""

    def __init__(self) -> None:
        self.written = b""

    async def write(self, piece: bytes) -> None:
        self.written += piece

    def kinds(self) -> list[str]:
        return [line[7:].decode() for line in self.written.split(b"\n") if line.startswith(b"event: ")]


async def _none(_: Any) -> Sequence[Any]:
    return []


async def _counts(_: Any) -> Mapping[str, Counts]:
    return {}


@pytest.fixture
def hub() -> Hub:
    async def next_seqs(boxes: Sequence[str]) -> Mapping[str, int]:
        return dict.fromkeys(boxes, 1)

    return Hub(_none, next_seqs, _counts)


async def told(hub: Hub, box: str, reopen: Callable[[], Awaitable[Mailbox]], then: Callable[[], None]) -> list[str]:
    """The kinds of a stream's events until its end: ``then`` happens once it has subscribed."""
    response = Response()
    mailbox = Mailbox(box, "a", "temp.mail", b"", datetime.now(UTC), None)
    stream = EventStream(hub, reopen, mailbox, 0, inf)
    running = asyncio.create_task(stream.run(cast(Any, response), cast(Any, None)))
    while "subscribed" not in response.kinds():
        await asyncio.sleep(0)
    then()
    async with asyncio.timeout(60):
        await running
    return response.kinds()


def opened_once(box: str) -> Callable[[], Awaitable[Mailbox]]:
    """A right that ends after the look at the stream's beginning."""
    looks = []

    async def reopen() -> Mailbox:
        looks.append(box)
        if len(looks) > 1:
            raise Refused("mailbox_not_found")
        return Mailbox(box, "a", "temp.mail", b"", datetime.now(UTC), None)

    return reopen


async def test_a_right_that_ended_before_the_stream_began_is_told_nothing(hub: Hub) -> None:
    box = ids.new()
    ended = opened_once(box)
    await ended()
    response = Response()
    stream = EventStream(hub, ended, Mailbox(box, "a", "temp.mail", b"", datetime.now(UTC), None), 0, inf)
    running = asyncio.create_task(stream.run(cast(Any, response), cast(Any, None)))
    await asyncio.sleep(0)
    hub.feed([Stored(ids.new(1), box, 1, datetime.now(UTC), "", "", "", "", "", 1, False, Details())])
    async with asyncio.timeout(60):
        await running
    assert "new_mail" not in response.kinds()
    assert response.kinds()[-1] == "unsubscribed"


async def test_mail_behind_the_end_of_a_right_is_not_told(hub: Hub) -> None:
    box = ids.new()

    reopen = opened_once(box)

    def then() -> None:
        hub.on_hints([Hint(Kind.ADDRESS, box)])
        hub.feed([Stored(ids.new(1), box, 1, datetime.now(UTC), "", "", "", "", "", 1, False, Details())])

    assert await told(hub, box, reopen, then) == ["subscribed", "unsubscribed"]


async def test_a_mailbox_that_ends_while_the_right_is_looked_up_is_told_once(hub: Hub) -> None:
    box, looked = ids.new(), asyncio.Event()
    first = opened_once(box)

    async def reopen() -> Mailbox:
        try:
            return await first()
        except Refused:
            hub.on_hints([Hint(Kind.EXPIRED, box)])
            looked.set()
            raise

    kinds = await told(hub, box, reopen, lambda: hub.on_hints([Hint(Kind.ADDRESS, box)]))
    assert looked.is_set()
    assert kinds == ["subscribed", "mailbox_expired"]
