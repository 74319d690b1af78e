"""The push hub: whatever hints are lost, late, doubled or disordered, a watcher gets each message once, in order."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.model import ids
from server.model.errors import Unavailable
from server.model.event import Hint, Kind
from server.model.message import Counts, Details, Stored
from server.services.push import hub as hub_module
from server.services.push.hub import MAILBOXES_A_CALL, PAGE, REPLAY_MAX, Hub
from server.services.push.subscription import Subscription

FOREVER = float("inf")


def stored(mailbox_id: str, seq: int) -> Stored:
    now = datetime.now(UTC)
    return Stored(ids.new(seq), mailbox_id, seq, now, "a@b.c", "A", "x@y.z", f"mail {seq}", "", 1, False, Details())


class Store:
    """Committed rows, and how many queries were asked of them. ``gate`` holds answers back after they were read."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Stored]] = {}
        self.next: dict[str, int] = {}
        self.fetches: list[list[tuple[str, int]]] = []
        self.counted: list[list[str]] = []
        self.down = False
        self.failed = asyncio.Event()  # somebody asked while it was down
        self.gate = asyncio.Event()
        self.gate.set()

    def commit(self, mailbox_id: str) -> Stored:
        row = stored(mailbox_id, self.next.get(mailbox_id, 1))
        self.next[mailbox_id] = row.seq + 1
        self.rows.setdefault(mailbox_id, []).append(row)
        return row

    async def _answer(self) -> None:
        await self.gate.wait()
        if self.down:
            self.failed.set()
            raise Unavailable("the store is down")

    async def fetch(self, asked: Sequence[tuple[str, int]]) -> Sequence[Stored]:
        self.fetches.append(list(asked))
        found = [row for box, after in asked for row in self._after(box, after)]
        await self._answer()
        return found

    def _after(self, mailbox_id: str, after: int) -> list[Stored]:
        return [row for row in self.rows.get(mailbox_id, []) if row.seq > after][:PAGE]

    async def next_seqs(self, mailboxes: Sequence[str]) -> Mapping[str, int]:
        assert len(mailboxes) <= MAILBOXES_A_CALL
        found = {box: self.next[box] for box in mailboxes if box in self.next}
        await self._answer()
        return found

    async def counts(self, mailboxes: Sequence[str]) -> Mapping[str, Counts]:
        self.counted.append(list(mailboxes))
        found = {
            box: Counts(len(self.rows[box]), len(self.rows[box]), self.next[box], None)
            for box in mailboxes
            if box in self.next
        }
        await self._answer()
        return found


class Client:
    """A connection with room for ``room`` messages, keeping every frame it was handed."""

    def __init__(self, hub: Hub, room: int = 10**6) -> None:
        self.hub, self.room = hub, room
        self.frames: list[dict[str, Any]] = []
        self.doubted: list[Subscription] = []
        self.live: dict[str, Subscription] = {}
        self.delays = 0

    def watch(
        self, mailbox_id: str, after: int | None = None, expires_at: float = FOREVER, user_id: str | None = None
    ) -> Subscription:
        subscription = Subscription(mailbox_id, "token", self, after, expires_at, 0.0, user_id=user_id)
        self.live[mailbox_id] = subscription
        self.hub.subscribe(subscription)
        return subscription

    def unwatch(self, mailbox_id: str) -> None:
        self.hub.unsubscribe(self.live.pop(mailbox_id))

    def push(self, frame: bytes, received_at: datetime | None) -> bool:
        if not self.room:
            return False
        self.room -= 1
        self.delays += received_at is not None
        self.frames.append(orjson.loads(frame))
        return True

    def tell(self, frame: bytes) -> None:
        self.frames.append(orjson.loads(frame))

    def doubt(self, subscription: Subscription) -> None:
        self.doubted.append(subscription)

    def ended(self, subscription: Subscription) -> None:
        self.live.pop(subscription.mailbox_id, None)

    def kinds(self) -> list[str]:
        return [frame["type"] for frame in self.frames]

    def seqs(self, mailbox_id: str) -> list[int]:
        return [f["seq"] for f in self.frames if f["type"] == "new_mail" and f["mailboxId"] == mailbox_id]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def hub(store: Store, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setattr(hub_module, "_RETRY_DELAY", 0.0)
    return Hub(store.fetch, store.next_seqs, store.counts)


async def settle(hub: Hub) -> None:
    """Until the hub has nothing left to ask."""
    while hub._task is not None and not hub._task.done():
        await asyncio.wait([hub._task])


def mail(row: Stored) -> Hint:
    return Hint(Kind.MAIL, row.mailbox_id, row.seq)


async def test_a_hint_brings_what_the_store_holds_and_not_what_the_hint_says(hub: Hub, store: Store) -> None:
    box, client = ids.new(), Client(hub)
    client.watch(box)
    await settle(hub)
    hub.on_hints([Hint(Kind.MAIL, box, 10**9)])
    await settle(hub)
    assert client.kinds() == ["subscribed"]
    row = store.commit(box)
    hub.on_hints([mail(row)])
    await settle(hub)
    assert client.frames[-1]["seq"] == 1
    assert client.frames[-1]["data"]["messageId"] == row.id
    assert client.frames[-1]["data"]["createdAt"].endswith("Z")
    assert client.frames[0]["seq"] == 0


async def test_hints_of_many_mailboxes_cost_one_fetch(hub: Hub, store: Store) -> None:
    client, boxes = Client(hub), [ids.new() for _ in range(50)]
    for box in boxes:
        client.watch(box)
    await settle(hub)
    hub.on_hints([mail(store.commit(box)) for box in boxes for _ in range(3)])
    await settle(hub)
    assert len(store.fetches) == 1
    assert all(client.seqs(box) == [1, 2, 3] for box in boxes)


async def test_a_doubled_hint_costs_nothing(hub: Hub, store: Store) -> None:
    box, client = ids.new(), Client(hub)
    client.watch(box)
    await settle(hub)
    hint = mail(store.commit(box))
    for _ in range(3):
        hub.on_hints([hint, hint])
        await settle(hub)
    assert client.seqs(box) == [1]
    assert len(store.fetches) == 1


async def test_fed_rows_need_no_query_unless_something_lies_between(hub: Hub, store: Store) -> None:
    box, client = ids.new(), Client(hub)
    client.watch(box)
    await settle(hub)
    hub.feed([store.commit(box), store.commit(box)])
    assert client.seqs(box) == [1, 2]
    store.commit(box)
    hub.feed([store.commit(box)])
    assert client.seqs(box) == [1, 2]
    await settle(hub)
    assert client.seqs(box) == [1, 2, 3, 4]
    assert store.fetches == [[(box, 2)]]


async def test_a_row_committed_while_the_subscription_is_placed_is_not_lost(hub: Hub, store: Store) -> None:
    box, client = ids.new(), Client(hub)
    store.commit(box)
    store.gate.clear()
    client.watch(box)
    await asyncio.sleep(0)  # the query has read "next is 2" and waits
    row = store.commit(box)
    hub.feed([row])
    hub.on_hints([mail(row)])
    store.gate.set()
    await settle(hub)
    assert client.seqs(box) == [2]


async def test_one_released_below_a_running_fetch_skips_nothing(hub: Hub, store: Store) -> None:
    box, slow, fast = ids.new(), Client(hub, room=2), Client(hub)
    slow.watch(box)
    fast.watch(box)
    await settle(hub)
    hub.feed([store.commit(box) for _ in range(5)])
    store.gate.clear()
    hub.on_hints([mail(store.commit(box))])
    await asyncio.sleep(0)  # asked from 5, the answer waits
    slow.room = 10
    hub.release(slow.live.values())
    store.gate.set()
    await settle(hub)
    assert fast.seqs(box) == slow.seqs(box) == [1, 2, 3, 4, 5, 6]


async def test_coming_back_pages_through_what_was_missed(hub: Hub, store: Store) -> None:
    box, client = ids.new(), Client(hub)
    for _ in range(PAGE * 2 + 7):
        store.commit(box)
    client.watch(box, after=3)
    await settle(hub)
    assert client.frames[0]["type"] == "subscribed"
    assert client.frames[0]["seq"] == PAGE * 2 + 7
    assert client.seqs(box) == list(range(4, PAGE * 2 + 8))
    assert client.delays == 0, "replayed mail says nothing about the delay of a push"


async def test_a_crowd_that_comes_back_lets_the_loop_have_its_turns(
    hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "PUSHES_A_TURN", 100)
    box, clients = ids.new(), [Client(hub) for _ in range(30)]
    for _ in range(20):
        store.commit(box)
    for client in clients:
        client.watch(box, after=0)
    await settle(hub)
    assert all(client.seqs(box) == list(range(1, 21)) for client in clients)
    assert len(store.fetches) == 5, "four rows to each of thirty at a time"


async def test_what_lies_too_far_back_is_a_gap(hub: Hub, store: Store) -> None:
    box, client = ids.new(), Client(hub)
    for _ in range(REPLAY_MAX + 10):
        store.commit(box)
    client.watch(box, after=4)
    await settle(hub)
    gap = client.frames[1]
    assert (gap["type"], gap["data"], gap["seq"]) == ("gap", {"from": 5, "to": 10}, 10)
    assert client.seqs(box) == list(range(11, REPLAY_MAX + 11))


async def test_deleted_messages_leave_no_gap(hub: Hub, store: Store) -> None:
    box, client = ids.new(), Client(hub)
    for _ in range(6):
        store.commit(box)
    del store.rows[box][1:4]
    del store.rows[box][-1]
    client.watch(box, after=0)
    await settle(hub)
    assert client.kinds() == ["subscribed", "new_mail", "new_mail"]
    assert client.seqs(box) == [1, 5]
    hub.feed([store.commit(box)])
    await settle(hub)
    assert client.seqs(box) == [1, 5, 7]


async def test_after_beyond_the_newest_is_an_error(hub: Hub, store: Store) -> None:
    box, client = ids.new(), Client(hub)
    store.commit(box)
    client.watch(box, after=2)
    await settle(hub)
    assert client.frames[0]["error"] == "field_invalid"
    assert client.frames[0]["data"]["field"] == "after"
    assert hub.mailboxes_watched() == []
    assert client.live == {}


async def test_one_without_room_falls_behind_alone_and_catches_up(hub: Hub, store: Store) -> None:
    box, slow, fast = ids.new(), Client(hub, room=2), Client(hub)
    slow.watch(box)
    fast.watch(box)
    await settle(hub)
    for _ in range(5):
        hub.feed([store.commit(box)])
    hub.on_hints([mail(store.commit(box))])
    await settle(hub)
    assert (slow.seqs(box), fast.seqs(box)) == ([1, 2], [1, 2, 3, 4, 5, 6])
    assert store.fetches == [[(box, 5)]], "the slow one's place must not make the others' fetches longer"
    slow.room = 10
    hub.release(slow.live.values())
    await settle(hub)
    assert slow.seqs(box) == [1, 2, 3, 4, 5, 6]


async def test_one_that_is_held_is_offered_nothing_before_it_is_released(hub: Hub, store: Store) -> None:
    box, client = ids.new(), Client(hub, room=0)
    client.watch(box)
    await settle(hub)
    row = store.commit(box)
    hub.feed([row])
    client.room = 10  # the connection has not said so yet
    hub.feed([row])
    await settle(hub)
    assert client.seqs(box) == []
    hub.release(client.live.values())
    await settle(hub)
    assert client.seqs(box) == [1]


async def test_a_crowd_is_asked_for_in_calls_of_a_bounded_size(hub: Hub, store: Store) -> None:
    boxes, client = [ids.new() for _ in range(2 * MAILBOXES_A_CALL + 1)], Client(hub)
    for box in boxes:
        store.commit(box)
        client.watch(box, after=0)
    await settle(hub)
    hub.on_hints([Hint(Kind.UPDATE, box) for box in boxes])
    await settle(hub)
    assert all(client.seqs(box) == [1] for box in boxes)
    assert {box for call in store.counted for box in call} == set(boxes)
    assert max(len(call) for call in [*store.fetches, *store.counted]) <= MAILBOXES_A_CALL


async def test_mail_past_the_mailboxs_known_end_waits_for_the_right(hub: Hub, store: Store) -> None:
    box, client = ids.new(), Client(hub)
    past = (datetime.now(UTC) - timedelta(seconds=1)).timestamp()
    subscription = client.watch(box, expires_at=past)
    await settle(hub)
    hub.feed([store.commit(box)])
    await settle(hub)
    assert client.seqs(box) == []
    assert client.doubted == [subscription]
    subscription.expires_at = FOREVER
    hub.release([subscription])
    await settle(hub)
    assert client.seqs(box) == [1]


async def test_counters_are_asked_once_for_many_updates(hub: Hub, store: Store) -> None:
    box, other, client = ids.new(), ids.new(), Client(hub)
    store.commit(box)
    client.watch(box)
    await settle(hub)
    hub.on_hints([Hint(Kind.UPDATE, box), Hint(Kind.UPDATE, other), Hint(Kind.UPDATE, box)])
    await settle(hub)
    assert store.counted == [[box]]
    assert client.frames[-1]["type"] == "mailbox_update"
    assert client.frames[-1]["data"] == {"mailboxId": box, "unreadCount": 1, "totalCount": 1, "lastActivity": None}


async def test_counters_are_not_told_behind_the_end_of_a_right_and_not_forgotten(hub: Hub, store: Store) -> None:
    box, client = ids.new(), Client(hub)
    store.commit(box)
    subscription = client.watch(box)
    await settle(hub)
    subscription.right_until = 0.0
    hub.on_hints([Hint(Kind.UPDATE, box)])
    await settle(hub)
    assert client.doubted == [subscription]
    assert client.kinds() == ["subscribed"]
    subscription.right_until = FOREVER
    hub.release([subscription])
    await settle(hub)
    assert client.kinds() == ["subscribed", "mailbox_update"]


async def test_the_end_of_a_mailbox_ends_its_subscriptions(hub: Hub, store: Store) -> None:
    box, one, two = ids.new(), Client(hub), Client(hub)
    one.watch(box)
    two.watch(box)
    await settle(hub)
    hub.on_hints([Hint(Kind.EXPIRED, box), Hint(Kind.EXPIRED, box), Hint(Kind.MAIL, box, 1)])
    await settle(hub)
    assert one.kinds() == two.kinds() == ["subscribed", "mailbox_expired"]
    assert hub.mailboxes_watched() == []


async def test_a_changed_record_has_the_right_checked(hub: Hub) -> None:
    box, client = ids.new(), Client(hub)
    subscription = client.watch(box)
    hub.on_hints([Hint(Kind.ADDRESS, box)])
    assert client.doubted == [subscription]


@pytest.mark.parametrize("kind", [Kind.ADDRESS, Kind.ACCOUNT])
async def test_mail_behind_a_doubt_waits_for_the_check_whoever_has_room(hub: Hub, store: Store, kind: Kind) -> None:
    """Else a token that was rotated a moment ago would still be told of new mail."""
    box, owner, client = ids.new(), ids.new(), Client(hub)
    subscription = client.watch(box, user_id=owner)
    await settle(hub)
    hub.on_hints([Hint(kind, box if kind is Kind.ADDRESS else owner)])
    hub.feed([store.commit(box)])
    hub.release([subscription])  # only room
    await settle(hub)
    assert client.seqs(box) == []
    subscription.doubted = False
    hub.release([subscription])
    await settle(hub)
    assert client.seqs(box) == [1]


async def test_polling_finds_what_no_hint_told(hub: Hub, store: Store) -> None:
    box, gone, client = ids.new(), ids.new(), Client(hub)
    client.watch(box)
    vanished = client.watch(gone)
    await settle(hub)
    store.commit(box)
    await hub.poll()
    await settle(hub)
    assert client.seqs(box) == [1]
    assert "mailbox_expired" in client.kinds()
    assert not vanished.live


async def test_trouble_of_the_store_delays_and_loses_nothing(hub: Hub, store: Store) -> None:
    box, client = ids.new(), Client(hub)
    store.down = True
    client.watch(box, after=0)
    await asyncio.wait_for(store.failed.wait(), 60)
    store.down = False
    await settle(hub)
    store.down = True
    store.failed.clear()
    hub.on_hints([mail(store.commit(box)), Hint(Kind.UPDATE, box)])
    await hub.poll()
    await asyncio.wait_for(store.failed.wait(), 60)
    assert client.kinds() == ["subscribed"]
    store.down = False
    await settle(hub)
    assert client.kinds() == ["subscribed", "new_mail", "mailbox_update"]


async def test_counters_are_asked_again_after_trouble(hub: Hub, store: Store) -> None:
    box, client = ids.new(), Client(hub)
    store.commit(box)
    client.watch(box)
    await settle(hub)
    store.down = True
    hub.on_hints([Hint(Kind.UPDATE, box)])
    await asyncio.wait_for(store.failed.wait(), 60)
    store.down = False
    await settle(hub)
    assert client.kinds() == ["subscribed", "mailbox_update"]


async def test_unsubscribed_means_silence_even_for_an_answer_on_its_way(hub: Hub, store: Store) -> None:
    box, client = ids.new(), Client(hub)
    client.watch(box)
    await settle(hub)
    store.gate.clear()
    hub.on_hints([mail(store.commit(box)), Hint(Kind.UPDATE, box)])
    await asyncio.sleep(0)
    client.unwatch(box)
    store.gate.set()
    await settle(hub)
    assert client.kinds() == ["subscribed"]


async def test_close_stops_a_hub_that_waits_for_the_store(hub: Hub, store: Store) -> None:
    store.gate.clear()
    Client(hub).watch(ids.new())
    await asyncio.sleep(0)
    await hub.close()
    assert hub._task is not None
    assert hub._task.done()


BOXES = tuple(ids.new() for _ in range(2))
boxes = st.sampled_from(BOXES)


class HubMachine(RuleBasedStateMachine):
    """Commits, hints in any order or not at all, feeds, comings and goings, full queues, a slow and a failing store."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.was_delay, hub_module._RETRY_DELAY = hub_module._RETRY_DELAY, 0.0  # type: ignore[misc]
        self.run(self._start())

    async def _start(self) -> None:
        self.store = Store()
        self.hub = Hub(self.store.fetch, self.store.next_seqs, self.store.counts)
        self.clients = [Client(self.hub) for _ in range(2)]
        for client in self.clients:
            client.watch(BOXES[0])
        await settle(self.hub)
        self.fed: list[Stored] = []
        self.told: list[Hint] = []
        self.deleted: set[tuple[str, int]] = set()

    def run(self, what: Any) -> None:
        self.loop.run_until_complete(what)

    async def _steps(self, n: int) -> None:
        for _ in range(n):
            await asyncio.sleep(0)

    @rule(box=boxes, n=st.integers(1, 6) | st.just(PAGE + 20), here=st.booleans())
    def commit(self, box: str, n: int, here: bool) -> None:
        rows = [self.store.commit(box) for _ in range(n)]
        self.told += [mail(rows[0]), mail(rows[-1])]
        if here:  # else another worker's
            self.fed += rows

    @precondition(lambda self: self.told)
    @rule(data=st.data(), again=st.booleans())
    def hint(self, data: st.DataObject, again: bool) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.told), min_size=1, max_size=4))
        self.run(self._call(lambda: self.hub.on_hints(chosen)))
        if not again:
            self.told = [hint for hint in self.told if hint not in chosen]

    @precondition(lambda self: self.fed)
    @rule(data=st.data())
    def feed(self, data: st.DataObject) -> None:
        n = data.draw(st.integers(1, len(self.fed)))
        rows, self.fed = self.fed[:n], self.fed[n:]
        self.run(
            self._call(lambda: self.hub.feed([row for row in rows if (row.mailbox_id, row.seq) not in self.deleted]))
        )

    async def _call(self, what: Any) -> None:
        what()
        await self._steps(1)

    @rule(box=boxes, who=st.integers(0, 1), back=st.none() | st.integers(0, 150))
    def come_back(self, box: str, who: int, back: int | None) -> None:
        self.run(self._come_back(box, who, back))

    async def _come_back(self, box: str, who: int, back: int | None) -> None:
        client = self.clients[who]
        if box in client.live:
            client.unwatch(box)
        client.frames = [frame for frame in client.frames if frame["mailboxId"] != box]
        client.watch(box, None if back is None else max(0, self.store.next.get(box, 1) - 1 - back))
        await self._steps(1)

    @rule(box=boxes, who=st.integers(0, 1))
    def leave(self, box: str, who: int) -> None:
        if box in self.clients[who].live:
            self.clients[who].unwatch(box)

    @rule(box=boxes, data=st.data())
    def delete(self, box: str, data: st.DataObject) -> None:
        rows = self.store.rows.get(box)
        if rows:
            row = rows.pop(data.draw(st.integers(0, len(rows) - 1)))
            self.deleted.add((box, row.seq))

    @rule(who=st.integers(0, 1), room=st.integers(0, 8) | st.just(10**6))
    def room(self, who: int, room: int) -> None:
        self.clients[who].room = room
        self.run(self._call(lambda: self.hub.release(list(self.clients[who].live.values()))))

    @rule(down=st.booleans(), slow=st.booleans())
    def trouble(self, down: bool, slow: bool) -> None:
        self.store.down = down
        if slow:
            self.store.gate.clear()
        else:
            self.store.gate.set()

    @rule(n=st.integers(1, 10))
    def time(self, n: int) -> None:
        self.run(self._steps(n))

    @invariant()
    def no_watcher_sees_a_message_twice_or_out_of_order(self) -> None:
        for client, box in self._pairs():
            seqs = client.seqs(box)
            assert seqs == sorted(set(seqs))

    def _pairs(self) -> Iterator[tuple[Client, str]]:
        return ((client, box) for client in self.clients for box in BOXES)

    def teardown(self) -> None:
        self.run(self._everything_arrives())
        self.loop.close()
        hub_module._RETRY_DELAY = self.was_delay  # type: ignore[misc]

    async def _everything_arrives(self) -> None:
        """The store answers, queues have room, and one poll stands for all the hints that were lost."""
        self.store.down = False
        self.store.gate.set()
        await settle(self.hub)
        for client in self.clients:
            client.room = 10**6
            self.hub.release(list(client.live.values()))
        await self.hub.poll()
        await settle(self.hub)
        for client, box in self._pairs():
            if box in client.live:
                self._check(client, box)

    def _check(self, client: Client, box: str) -> None:
        frames = [frame for frame in client.frames if frame["mailboxId"] == box]
        assert [kind for kind, _ in groupby(frame["type"] for frame in frames)] in (
            ["subscribed"],
            ["subscribed", "new_mail"],
        )
        asked = client.live[box].after
        start = frames[0]["seq"] if asked is None else asked
        left = {row.seq for row in self.store.rows.get(box, []) if row.seq > start}
        got = set(client.seqs(box))
        assert left <= got, "a message that still exists was never pushed"
        assert all(seq > start for seq in got)
        assert all((box, seq) in self.deleted for seq in got - left), "something was pushed that was never stored"


TestHubMachine = HubMachine.TestCase
TestHubMachine.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
