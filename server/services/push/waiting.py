"""Waiting for a message: answered as soon as one that matches is there, be it now or later.

Lives here: what matches, and the order in which mail is looked at. Must not know: HTTP.

A waiter watches the mailbox through the hub like any reader, but asks the store what came: a frame does not hold all
that may be asked for. So a hint that is late or lost costs a waiter time and nothing else, as it does every reader.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

import msgspec

from server import clock
from server.cache.marks import Marks
from server.model.errors import Refused
from server.model.folding import folded, sought
from server.model.message import Mailbox, Stored
from server.services.contracts import NOW, Messages, Wanted
from server.services.push.subscription import Subscription, Watching

PAGE: Final = 100  # messages looked at in one query
RECENT: Final = 300.0  # s for which mail that nobody has seen counts as new


class Waiting:
    """Implements contracts.Waiting."""

    def __init__(self, hub: Watching, messages: Messages, marks: Marks) -> None:
        self._hub, self._messages, self._marks = hub, messages, marks

    async def first(
        self,
        mailbox: Mailbox,
        wanted: Wanted,
        after: int | None,
        timeout: float,
        reopen: Callable[[], Awaitable[Mailbox]],
        until: float,
    ) -> Stored | None:
        """See contracts.Waiting."""
        search = _Search(self._messages, mailbox, wanted)
        if after is not None:
            found = await (search.coming(clock.now()) if after == NOW else search.later(after))
            return found or await self._next(search, timeout, reopen, until)
        question = msgspec.json.encode((mailbox.id, wanted))
        newest = await search.newest()
        if newest is None or _old(newest, self._marks.get(question)):
            newest = await self._next(search, timeout, reopen, until) or newest
        if newest is not None:
            self._marks.put(question, newest.seq)
        return newest

    async def _next(
        self, search: "_Search", timeout: float, reopen: Callable[[], Awaitable[Mailbox]], until: float
    ) -> Stored | None:
        """The first match to come behind what was looked at."""
        if timeout <= 0:
            return None
        bell, mailbox = _Wakeup(), search.mailbox
        watch = Subscription(mailbox.id, "", bell, None, _end(mailbox), clock.wall(), until, user_id=mailbox.user_id)
        self._hub.subscribe(watch)
        watch.doubted = True  # what happened to the right since it was checked, nobody was told here
        bell.doubt(watch)
        try:
            async with asyncio.timeout(timeout):
                return await self._listen(search, bell, watch, reopen)
        except TimeoutError:
            return None
        finally:
            self._hub.unsubscribe(watch)

    async def _listen(
        self, search: "_Search", bell: "_Wakeup", watch: Subscription, reopen: Callable[[], Awaitable[Mailbox]]
    ) -> Stored:
        """The bell also rings when the hub has placed the watch: what came between the first look and that is found."""
        while True:
            await bell.rung()
            await self._confirm(search, bell, watch, reopen)
            found = await search.later(search.reached)
            await self._confirm(search, bell, watch, reopen)  # it may have ended before what was found came
            if found is not None:
                return found

    async def _confirm(
        self, search: "_Search", bell: "_Wakeup", watch: Subscription, reopen: Callable[[], Awaitable[Mailbox]]
    ) -> None:
        """Look the right up as often as it is in doubt. Refused when it has ended."""
        while bell.doubted:
            bell.doubted = False
            search.mailbox = await reopen()
            watch.expires_at, watch.doubted = _end(search.mailbox), bell.doubted
            self._hub.release([watch])
        if not watch.live:
            raise Refused("mailbox_not_found")


class _Search:
    """Looks through a mailbox, no message twice. ``reached``: the highest number that was looked at."""

    def __init__(self, messages: Messages, mailbox: Mailbox, wanted: Wanted) -> None:
        self._messages, self.mailbox, self._wanted = messages, mailbox, wanted
        self.reached = 0

    async def newest(self) -> Stored | None:
        """The newest match of all there is: of two codes it is the later that still holds."""
        before: int | None = None
        while True:
            page, _ = await self._messages.page(self.mailbox, PAGE, 0, before)
            if before is None and page:
                self.reached = page[0].seq
            for stored in page:
                if matches(self._wanted, stored):
                    return stored
            if len(page) < PAGE:
                return None
            before = page[-1].seq

    async def coming(self, began: datetime) -> Stored | None:
        """The oldest match of what came while the question was on its way; what is older is passed over."""
        page, _ = await self._messages.page(self.mailbox, PAGE, 0, None)
        return await self.later(max((stored.seq for stored in page if stored.received_at < began), default=0))

    async def later(self, after: int) -> Stored | None:
        """The oldest match after number ``after``: who goes on from each answer misses none."""
        self.reached = after
        while True:
            page = await self._messages.since(self.mailbox, self.reached, PAGE)
            for stored in page:
                self.reached = stored.seq
                if matches(self._wanted, stored):
                    return stored
            if len(page) < PAGE:
                return None


def _old(stored: Stored, answered: int) -> bool:
    """Whether the message that is there is hardly the one that is waited for: the same question was answered with it,
    somebody has read it, or it came long ago.
    """
    return stored.seq <= answered or stored.is_read or (clock.now() - stored.received_at).total_seconds() > RECENT


def matches(wanted: Wanted, stored: Stored) -> bool:
    """Sender (header or envelope) and subject contain what is wanted, as a search compares text, and there is what to
    extract.
    """
    sender, subject = sought(wanted.sender), sought(wanted.subject)
    if sender not in folded(stored.sender) and sender not in folded(stored.envelope_from):
        return False
    return subject in folded(stored.subject) and (wanted.extract is None or bool(wanted.extracted(stored)))


class _Wakeup:
    """The hub's outlet of one waiter: whatever is said rings, and what it said is asked of the store."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.doubted = False

    async def rung(self) -> None:
        await self._event.wait()
        self._event.clear()

    def push(self, frame: bytes, received_at: datetime | None) -> bool:
        self._event.set()
        return True

    def tell(self, frame: bytes) -> None:
        self._event.set()

    def doubt(self, subscription: Subscription) -> None:
        self.doubted = True
        self._event.set()

    def ended(self, subscription: Subscription) -> None:
        self._event.set()


def _end(mailbox: Mailbox) -> float:
    return float("inf") if mailbox.expires_at is None else mailbox.expires_at.timestamp()
