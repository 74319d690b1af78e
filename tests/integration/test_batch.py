"""A batch is one transaction: sequence numbers without holes or repeats, counters that agree, all or nothing."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import asyncpg
import pytest

from server.model.errors import Refused
from server.model.message import FOREVER, Mailbox, Stored
from server.store import batch
from server.store.batch import Item, Shortfall
from server.store.messages import MessageStore
from server.store.partitions import Partitions
from server.store.pools import Pools
from tests.integration.mail import item, mailbox, now, settled


@pytest.fixture
async def store(pools: Pools) -> MessageStore:
    return MessageStore(pools.messages, now)


@pytest.fixture
async def partitions(pools: Pools) -> Partitions:
    made = Partitions(pools.messages, 3600)
    await made.ahead(now(), 7200)
    return made


async def write(
    pools: Pools, partitions: Partitions, items: Sequence[Item], retention: float = 0
) -> list[list[Stored]]:
    return await batch.write(pools.messages, retention, items, now())


async def listed(store: MessageStore, box: Mailbox) -> list[Stored]:
    return (await store.page(box, 100, 0, 1 << 62))[0]


async def test_one_message_to_three_mailboxes_is_one_body(
    pools: Pools, store: MessageStore, partitions: Partitions
) -> None:
    boxes = [await settled(store) for _ in range(3)]
    [rows] = await write(pools, partitions, [item(*boxes, subject="to all")])
    assert len({row.body_id for row in rows}) == 1
    for box in boxes:
        [found] = await listed(store, box)
        assert found.subject == "to all"
        assert b"Subject: to all" in await store.raw(found)
    assert await pools.messages.fetch("SELECT refs FROM messages.bodies") == [(3,)]


async def test_mailboxes_of_different_lives_share_a_body_that_outlives_the_shortest(
    pools: Pools, store: MessageStore, partitions: Partitions
) -> None:
    short, long = await settled(store, timedelta(minutes=5)), await settled(store, timedelta(hours=2))
    await write(pools, partitions, [item(short, long)])
    for box in (short, long):
        [found] = await listed(store, box)
        assert found.body_drop_after == long.expires_at
        assert await store.raw(found)


async def test_contending_batches_number_without_holes_or_repeats(
    pools: Pools, store: MessageStore, partitions: Partitions
) -> None:
    boxes = [await settled(store) for _ in range(4)]
    orders = [boxes, boxes[::-1], [boxes[2], boxes[0]], [boxes[3], boxes[1], boxes[0]]]
    await asyncio.gather(*(write(pools, partitions, [item(*orders[(n + k) % 4]) for k in range(5)]) for n in range(24)))
    for box in boxes:
        seqs = [
            row["seq"]
            for row in await pools.messages.fetch(
                "SELECT seq FROM messages.messages WHERE mailbox_id = $1 ORDER BY seq", box.id
            )
        ]
        counts = await store.counts(box.id)
        assert seqs == list(range(1, len(seqs) + 1))
        assert (counts.total, counts.unread, counts.next_seq) == (len(seqs), len(seqs), len(seqs) + 1)


async def test_inboxes_are_locked_in_the_order_of_their_ids(
    pools: Pools, store: MessageStore, partitions: Partitions
) -> None:
    """Whatever order a batch names them in, and whatever order they were made in: else two batches deadlock."""
    low, middle, high = sorted((mailbox() for _ in range(3)), key=lambda box: box.id)
    for box in (high, low, middle):
        await store.create_inbox(box, 0)
    lock = "SELECT mailbox_id FROM messages.inboxes WHERE mailbox_id = ANY($1::uuid[]) FOR UPDATE"
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with pools.messages.connection() as holder, pools.messages.connection() as looker:
        async with holder.transaction():
            await holder.execute(lock, [middle.id])
            delivery = asyncio.create_task(write(pools, partitions, [item(high), item(middle), item(low)]))
            while not await looker.fetchval(waiting):
                assert not delivery.done()
                await asyncio.sleep(0.01)
            free = await looker.fetch(f"{lock} SKIP LOCKED", [low.id, middle.id, high.id])
            assert [str(row["mailbox_id"]) for row in free] == [high.id]
        await delivery


async def test_mail_that_came_read_is_not_counted_as_unread(
    pools: Pools, store: MessageStore, partitions: Partitions
) -> None:
    box = await settled(store)
    read = item(box)
    read.is_read = True
    await write(pools, partitions, [read, item(box), item(box)])
    counts = await store.counts(box.id)
    assert (counts.total, counts.unread) == (3, 2)
    assert [row.is_read for row in await listed(store, box)] == [False, False, True]


async def test_mailbox_that_has_ended_takes_no_mail_though_its_partition_is_there(
    pools: Pools, store: MessageStore, partitions: Partitions
) -> None:
    over = await settled(store, timedelta(seconds=-1))
    await partitions.ensure(await batch.partitions_wanted(pools.messages, 0, [item(over)], now()))
    with pytest.raises(Shortfall) as short:
        await write(pools, partitions, [item(over)])
    assert short.value.room == {over.id: None}
    assert await pools.messages.fetch("SELECT 1 FROM messages.messages") == []


async def test_full_mailbox_stops_the_batch_before_anything_is_written(
    pools: Pools, store: MessageStore, partitions: Partitions
) -> None:
    full, other = await settled(store, capacity=2), await settled(store)
    await write(pools, partitions, [item(full)])
    with pytest.raises(Shortfall) as short:
        await write(pools, partitions, [item(full), item(full), item(other)])
    assert short.value.room == {full.id: 1, other.id: -1}
    assert (await store.counts(full.id)).total == 1
    assert (await store.counts(other.id)).total == 0


async def test_vanished_mailbox_is_named(pools: Pools, store: MessageStore, partitions: Partitions) -> None:
    gone, over = mailbox(), await settled(store, timedelta(seconds=-1))
    with pytest.raises(Shortfall) as short:
        await write(pools, partitions, [item(gone), item(over)])
    assert short.value.room == {gone.id: None, over.id: None}


async def test_missing_partition_is_named_and_nothing_is_counted(
    pools: Pools, store: MessageStore, partitions: Partitions
) -> None:
    far = await settled(store, timedelta(days=3))
    with pytest.raises(asyncpg.CheckViolationError) as missing:
        await write(pools, partitions, [item(far)])
    assert batch.lacks_partition(missing.value)
    assert (await store.counts(far.id)).total == 0
    await partitions.ensure(await batch.partitions_wanted(pools.messages, 0, [item(far)], now()))
    await write(pools, partitions, [item(far)])
    assert (await store.counts(far.id)).total == 1


async def test_mail_kept_for_ever_and_mail_with_a_retention_are_both_found(pools: Pools, store: MessageStore) -> None:
    keeper = Partitions(pools.messages, 3600)
    forever = await settled(store, None)
    for retention in (0.0, 30 * 86400.0, 7200.0):
        await keeper.ensure(await batch.partitions_wanted(pools.messages, retention, [item(forever)], now()))
        await write(pools, keeper, [item(forever)], retention)
    found = await listed(store, forever)
    assert [row.seq for row in found] == [3, 2, 1]
    assert found[2].body_drop_after == FOREVER
    assert all([await store.raw(row) for row in found])


async def test_text_that_postgresql_refuses_is_scrubbed_at_the_edge(
    pools: Pools, store: MessageStore, partitions: Partitions
) -> None:
    box = await settled(store)
    hostile = item(box, subject="plain")
    hostile.mail = type(hostile.mail)(
        **{field: getattr(hostile.mail, field) for field in hostile.mail.__struct_fields__}
        | {"subject": "nul \0 and \ud800", "text": "t\0\udfff", "preview": "p\0", "codes": ("\0", "\ud801")}
    )
    hostile.envelope.sender = "a\0@b"
    await write(pools, partitions, [hostile, item(box)])
    assert [row.subject for row in await listed(store, box)] == ["hello", "nul � and ?"]


async def test_extended_mailbox_takes_its_mail_along_and_leaves_others_theirs(
    pools: Pools, store: MessageStore, partitions: Partitions
) -> None:
    moving, staying = await settled(store), await settled(store)
    await write(pools, partitions, [item(moving, staying, subject="shared"), item(moving, subject="own")])
    later = now() + timedelta(days=2)
    await partitions.ensure([(later, now())])
    await store.move(moving.id, later)
    for known in (moving, type(moving)(moving.id, "x", "y", bytes(32), now(), later)):  # an old record and a new one
        found = await listed(store, known)
        assert [row.subject for row in found] == ["own", "shared"]
        assert {row.body_drop_after for row in found} == {later}
        assert all([await store.raw(row) for row in found])
    [left] = await listed(store, staying)
    assert await store.raw(left)
    refs = await pools.messages.fetch("SELECT refs FROM messages.bodies ORDER BY drop_after, refs")
    assert [row["refs"] for row in refs] == [1, 1, 1]
    await store.delete_all(staying)
    assert len(await pools.messages.fetch("SELECT 1 FROM messages.bodies")) == 2
    left = await listed(store, moving)
    assert [row.subject for row in left] == ["own", "shared"]
    assert all([await store.raw(row) for row in left])


async def test_delivery_and_extension_at_once_lose_nothing(
    pools: Pools, store: MessageStore, partitions: Partitions
) -> None:
    box = await settled(store)
    ends = [now() + timedelta(hours=hours) for hours in range(2, 6)]
    await partitions.ensure([(end, now()) for end in ends])

    async def deliver() -> None:
        for _ in range(20):
            await write(pools, partitions, [item(box)])

    async def extend() -> None:
        for end in ends:
            await store.move(box.id, end)
            await asyncio.sleep(0.02)

    await asyncio.gather(deliver(), deliver(), extend())
    found = await listed(store, box)
    assert [row.seq for row in found] == list(range(40, 0, -1))
    assert all([await store.raw(row) for row in found])


async def test_deleting_takes_the_body_with_the_last_reference(
    pools: Pools, store: MessageStore, partitions: Partitions
) -> None:
    one, two = await settled(store), await settled(store)
    [[in_one, in_two]] = await write(pools, partitions, [item(one, two)])
    await store.delete(one, in_one.id)
    assert await store.raw(in_two)
    await store.delete(two, in_two.id)
    assert await pools.messages.fetch("SELECT 1 FROM messages.bodies") == []
    with pytest.raises(Refused):
        await store.delete(two, in_two.id)
    counts = await store.counts(one.id)
    assert (counts.total, counts.unread) == (0, 0)


async def test_reading_twice_counts_once(pools: Pools, store: MessageStore, partitions: Partitions) -> None:
    box = await settled(store)
    [[row], _] = await write(pools, partitions, [item(box), item(box)])
    assert await store.mark_read(box, row.id) is True
    assert await store.mark_read(box, row.id) is False
    assert (await store.counts(box.id)).unread == 1
