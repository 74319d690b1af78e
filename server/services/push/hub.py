"""Who watches which mailbox, and the one path by which mail reaches them.

Lives here: the subscriptions with the number each has reached, and the rule that moves it.
Must not know: sockets, what a token is, the bus or SQL; those are callables and an ``Outlet`` handed in.

A hint says that a mailbox changed, never what. The hub then asks the store for everything after the number a
subscription has reached and hands it on in order. Live push, coming back with ``after``, and the repair of a lost hint
are that same step, so a hint that is late, doubled or lost can delay a frame but not lose or repeat one. A number moves
only when its row was handed on; never because a hint claimed it.

A number without a row is a deleted message: there is nothing to hand on and nothing to announce. ``gap`` is said only
where rows that may exist are not replayed.
"""

import asyncio
import contextlib
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from server import clock
from server.metrics import Counter
from server.model.errors import Unavailable
from server.model.event import Hint, Kind
from server.model.message import Counts, Stored
from server.services.push import frames
from server.services.push.subscription import Subscription

PAGE: Final = 100
"""Rows of one mailbox a fetch brings at most; a full page means that there may be more."""

REPLAY_MAX: Final = 1000
"""Sequence numbers a returning client gets replayed; what lies further back is announced as a gap."""

MAILBOXES_A_CALL: Final = 200  # bounds a fetch to 20,000 rows
PUSHES_A_TURN: Final = 2000  # some 20 ms; when more are due the loop has its turn before the rest is fetched again
_RETRY_DELAY: Final = 1.0

FAILURES = Counter(
    "tempmail_push_failures_total", "Queries of the push hub that failed and are asked again.", ("call",)
)
HELD = Counter("tempmail_push_held_total", "Times a subscription waited for room or for its token to be checked.")

Fetch = Callable[[Sequence[tuple[str, int]]], Awaitable[Sequence[Stored]]]
"""[(mailbox id, after)] -> rows with seq > after, ordered by (mailbox, seq), the PAGE lowest of each mailbox.

It must see whatever was committed before it was called: ask the primary. Raises Unavailable.
"""

NextSeqs = Callable[[Sequence[str]], Awaitable[Mapping[str, int]]]
"""Mailbox ids -> the number each one's next message gets; ids without an inbox are left out. Raises Unavailable."""

ReadCounts = Callable[[Sequence[str]], Awaitable[Mapping[str, Counts]]]
"""Mailbox ids -> their counters; ids without an inbox are left out. Raises Unavailable."""

_T = TypeVar("_T")


class Hub:
    """All subscriptions of one worker; implements watching.Watching. Not thread-safe: everything runs on the worker's
    loop.
    """

    def __init__(
        self,
        fetch: Fetch,
        next_seqs: NextSeqs,
        counts: ReadCounts,
        attend: Callable[[str, bool], None] = lambda _mailbox, _watched: None,
    ) -> None:
        """``attend`` is told of each mailbox that gets its first watcher, before the store is asked about it, and of
        each that has lost its last.
        """
        self._fetch, self._next_seqs, self._counts, self._attend = fetch, next_seqs, counts, attend
        self._watched: dict[str, tuple[Subscription, ...]] = {}  # nearly always one, in less room than a list
        self._owned: dict[str, set[Subscription]] = {}
        self._joining: set[Subscription] = set()
        self._behind: set[str] = set()
        self._changed: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def subscribe(self, subscription: Subscription) -> None:
        """Watch. Answered through the outlet: ``subscribed``, then gap and missed mail; or an error, and ``ended``."""
        mailbox_id = subscription.mailbox_id
        watchers = self._watched.get(mailbox_id, ())
        self._watched[mailbox_id] = (*watchers, subscription)
        if not watchers:
            self._attend(mailbox_id, True)
        if subscription.user_id is not None:
            self._owned.setdefault(subscription.user_id, set()).add(subscription)
        self._joining.add(subscription)
        self._wake()

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop watching, at once; the outlet is not told."""
        if not subscription.live:
            return
        subscription.live = False
        self._joining.discard(subscription)
        watchers = self._watched[subscription.mailbox_id]
        if len(watchers) > 1:
            place = watchers.index(subscription)
            self._watched[subscription.mailbox_id] = watchers[:place] + watchers[place + 1 :]
        else:
            del self._watched[subscription.mailbox_id]
            self._attend(subscription.mailbox_id, False)
        if subscription.user_id is not None:
            owned = self._owned[subscription.user_id]
            owned.discard(subscription)
            if not owned:
                del self._owned[subscription.user_id]

    def release(self, subscriptions: Iterable[Subscription]) -> None:
        """There is room again, or the right was confirmed: bring them up to date."""
        for subscription in subscriptions:
            if subscription.held:
                subscription.held = False
                self._behind.add(subscription.mailbox_id)
            if subscription.uncounted:
                subscription.uncounted = False
                self._changed.add(subscription.mailbox_id)
        self._wake()

    def on_hints(self, hints: Iterable[Hint]) -> None:
        """What the bus brought, or this worker itself just did. Never waits; hints together cost one fetch."""
        for hint in hints:
            if hint.kind is Kind.ACCOUNT:
                _doubt(self._owned.get(hint.mailbox_id, ()))
                continue
            watchers = self._watched.get(hint.mailbox_id)
            if not watchers:
                continue
            if hint.kind is Kind.MAIL:
                if any(watcher.wants(hint.seq) for watcher in watchers):
                    self._behind.add(hint.mailbox_id)
            elif hint.kind is Kind.UPDATE:
                self._changed.add(hint.mailbox_id)
            elif hint.kind is Kind.EXPIRED:
                self._expire(watchers)
            else:
                _doubt(watchers)
        self._wake()

    def watches(self, mailbox_id: str) -> bool:
        return mailbox_id in self._watched

    def feed(self, rows: Sequence[Stored]) -> None:
        """Rows this host has just committed: handed on without a query wherever they are the next ones."""
        for row in rows:
            watchers = self._watched.get(row.mailbox_id)
            if not watchers:
                continue
            self._offer(row, [w for w in watchers if not w.held and w.last_seq == row.seq - 1])
            if any(watcher.wants(row.seq) for watcher in watchers):
                self._behind.add(row.mailbox_id)
        self._wake()

    def mailboxes_watched(self) -> list[tuple[str, int]]:
        """Each watched mailbox and the lowest number any of its watchers has reached."""
        return [(mailbox, min(w.last_seq or 0 for w in watchers)) for mailbox, watchers in self._watched.items()]

    async def poll(self) -> None:
        """Do without hints: ask where all watched mailboxes stand. For while the bus is down, and once when it is back.

        A mailbox the store no longer knows is over. Failure: counted; the next poll asks again.
        """
        watched = list(self._watched)
        for start in range(0, len(watched), MAILBOXES_A_CALL):
            chunk = watched[start : start + MAILBOXES_A_CALL]
            try:
                known = await self._next_seqs(chunk)
            except Unavailable:
                FAILURES.add(("poll",))
                return
            self.on_hints(Hint(Kind.MAIL, mailbox, next_seq - 1) for mailbox, next_seq in known.items())
            for mailbox in chunk:
                if mailbox not in known and mailbox in self._watched:
                    self._expire(self._watched[mailbox])

    async def close(self) -> None:
        """Stop asking the store. Subscriptions stay as they are; their connections are closed elsewhere."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _wake(self) -> None:
        if (self._joining or self._behind or self._changed) and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        """Until nothing is left to ask. One runs at a time: what arrives meanwhile is one more round."""
        while self._joining or self._behind or self._changed:
            try:
                await self._place_joining()
                await self._catch_up()
                await self._report_counts()
            except Unavailable:
                await asyncio.sleep(_RETRY_DELAY)

    async def _place_joining(self) -> None:
        joining = _take(self._joining)
        if not joining:
            return
        try:
            known = await self._next_seqs(list({subscription.mailbox_id for subscription in joining}))
        except Unavailable:
            FAILURES.add(("join",))
            self._joining.update(subscription for subscription in joining if subscription.live)
            raise
        for subscription in joining:
            if subscription.live:
                self._place(subscription, known.get(subscription.mailbox_id, 1) - 1)

    def _place(self, joining: Subscription, newest: int) -> None:
        """Answer a subscription, the mailbox's newest number being known, and begin where the client left off."""
        mailbox, after = joining.mailbox_id, newest if joining.after is None else joining.after
        if after > newest:
            detail = f"the mailbox has reached {newest}; subscribe without after"
            joining.outlet.tell(frames.error("field_invalid", mailbox, detail, "after"))
            self._drop(joining)
            return
        start = max(after, newest - REPLAY_MAX)
        joining.outlet.tell(frames.subscribed(mailbox, newest))
        if start > after:
            joining.outlet.tell(frames.gap(mailbox, after + 1, start))
        joining.last_seq, joining.replay_to = start, newest
        if start < newest:
            self._behind.add(mailbox)

    async def _catch_up(self) -> None:
        asked = self._positions(_take(self._behind))
        if not asked:
            return
        try:
            rows = await self._fetch(list(asked.items()))
        except Unavailable:
            FAILURES.add(("fetch",))
            self._behind.update(asked)
            raise
        pushed = 0
        for n, row in enumerate(rows):
            if pushed >= PUSHES_A_TURN:
                self._behind.update(row.mailbox_id for row in rows[n:])
                break
            # A watcher below the number asked from would skip what lies between: its own fetch is still to come.
            after = asked[row.mailbox_id]
            watchers = self._watched.get(row.mailbox_id, ())
            placed = [(w, w.last_seq) for w in watchers if w.last_seq is not None and not w.held]
            chosen = [w for w, reached in placed if after <= reached < row.seq]
            self._offer(row, chosen)
            pushed += len(chosen)
        self._behind.update(mailbox for mailbox, n in Tally(row.mailbox_id for row in rows).items() if n >= PAGE)

    def _positions(self, mailboxes: Iterable[str]) -> dict[str, int]:
        """The lowest number reached by those of a mailbox's watchers who can take more; left out where there are none.

        One not yet placed needs nothing here: the query that will place it is still to come.
        """
        reached: dict[str, int] = {}
        for mailbox in mailboxes:
            watchers = self._watched.get(mailbox, ())
            numbers = [w.last_seq for w in watchers if w.last_seq is not None and not w.held]
            if numbers:
                reached[mailbox] = min(numbers)
        return reached

    def _offer(self, row: Stored, watchers: Sequence[Subscription]) -> None:
        if not watchers:
            return
        frame, now = frames.new_mail(row), clock.wall()
        for watcher in watchers:
            live = row.seq > watcher.replay_to
            if _stopped(watcher, now):
                watcher.held = True
            elif watcher.outlet.push(frame, row.received_at if live else None):
                watcher.last_seq = row.seq
            else:
                watcher.held = True
            if watcher.held:
                HELD.add()

    async def _report_counts(self) -> None:
        changed = [mailbox for mailbox in _take(self._changed) if mailbox in self._watched]
        if not changed:
            return
        try:
            known = await self._counts(changed)
        except Unavailable:
            FAILURES.add(("counts",))
            self._changed.update(changed)
            raise
        now = clock.wall()
        for mailbox, counts in known.items():
            frame = frames.mailbox_update(mailbox, counts)
            for watcher in self._watched.get(mailbox, ()):
                if watcher.last_seq is None:
                    continue
                if _stopped(watcher, now):
                    watcher.uncounted = True
                else:
                    watcher.outlet.tell(frame)

    def _expire(self, watchers: Sequence[Subscription]) -> None:
        frame = frames.mailbox_expired(watchers[0].mailbox_id)
        for watcher in watchers:
            watcher.outlet.tell(frame)
            self._drop(watcher)

    def _drop(self, subscription: Subscription) -> None:
        self.unsubscribe(subscription)
        subscription.outlet.ended(subscription)


def _stopped(watcher: Subscription, now: float) -> bool:
    """Whether nothing may be handed on before the right was checked, which is asked for."""
    if not watcher.doubted and watcher.over(now):
        watcher.outlet.doubt(watcher)
        return True
    return watcher.doubted


def _doubt(watchers: Iterable[Subscription]) -> None:
    for watcher in list(watchers):
        watcher.doubted = True
        watcher.outlet.doubt(watcher)


def _take(pool: set[_T]) -> list[_T]:
    """Remove and return at most MAILBOXES_A_CALL members (set.pop goes round, so none waits for ever)."""
    return [pool.pop() for _ in range(min(len(pool), MAILBOXES_A_CALL))]
