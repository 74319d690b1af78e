"""Tags in the store: they move and vanish with their messages, and no reader of a mailbox sees those of another."""

from datetime import datetime, timedelta

import pytest

from server.model import ids
from server.model.errors import Refused
from server.model.message import FOREVER, Mailbox, Stored
from server.model.query import parse
from server.store import batch, migrate
from server.store.messages import MessageStore
from server.store.partitions import PARENTS, Partitions, aligned
from server.store.pools import Pools
from tests.integration.mail import item, now, settled

LAST = "ffffffff-ffff-ffff-ffff-ffffffffffff"


@pytest.fixture
def store(pools: Pools) -> MessageStore:
    return MessageStore(pools.messages, now)


@pytest.fixture
async def keeper(pools: Pools) -> Partitions:
    partitions = Partitions(pools.messages, 3600)
    await partitions.ahead(now(), 86400)
    return partitions


async def deliver(pools: Pools, keeper: Partitions, *boxes: Mailbox, retention: float = 0) -> list[Stored]:
    [stored] = await batch.write(pools.messages, retention, [item(*boxes)], now())
    return stored


async def where(pools: Pools) -> list[datetime]:
    return [row["drop_after"] for row in await pools.messages.fetch("SELECT drop_after FROM messages.message_tags")]


async def test_tags_move_with_an_extended_mailbox(pools: Pools, store: MessageStore, keeper: Partitions) -> None:
    box, tag = await settled(store, timedelta(hours=2)), ids.new()
    [mail] = await deliver(pools, keeper, box)
    await store.tag(box, mail.id, tag)
    later = now() + timedelta(hours=9)
    await store.move(box.id, later)
    assert await where(pools) == [later]
    assert await store.tags_of(box, mail.id) == [tag]  # by a record from before
    assert [one.id for one in await store.tagged(tag, LAST, 10)] == [mail.id]
    assert (await store.search(box, parse("tag:x"), {"x": tag}, 10, 0))[1] == 1
    await store.untag(box, mail.id, tag)
    assert await store.tagged(tag, LAST, 10) == []


@pytest.mark.parametrize("life", [timedelta(minutes=20), None])
async def test_a_tag_vanishes_with_the_partition_of_its_message(
    pools: Pools, store: MessageStore, life: timedelta | None
) -> None:
    keeper, tag = Partitions(pools.messages, 60), ids.new()
    box, kept = await settled(store, life), await settled(store, timedelta(hours=3))
    soon = now() + timedelta(minutes=20)
    rows = [(soon + timedelta(minutes=m), now()) for m in range(-1, 2)]
    await keeper.ensure([*rows, (kept.expires_at or FOREVER, now()), (FOREVER, now())])
    [mail] = await deliver(pools, keeper, box, retention=1200)
    [other] = await deliver(pools, keeper, kept)
    for where_, message in ((box, mail), (kept, other)):
        await store.tag(where_, message.id, tag)
    assert (await store.tag_counts([tag])) == {tag: 2}
    dropped = await keeper.drop_expired(now() + timedelta(hours=1))
    assert {name.rpartition("_2")[0] for name in dropped} == set(PARENTS)
    assert await where(pools) == [kept.expires_at]
    assert (await store.tag_counts([tag])) == {tag: 1}


async def test_tags_on_mail_kept_for_ever_lie_by_month(pools: Pools, store: MessageStore, keeper: Partitions) -> None:
    box, tag = await settled(store, None), ids.new()
    [mail] = await deliver(pools, keeper, box)
    for _ in range(2):
        await store.tag(box, mail.id, tag)
    [row] = await pools.messages.fetch("SELECT tableoid::regclass::text AS part FROM messages.message_tags")
    assert row["part"] == f"messages.message_tags_forever_{now():%Y%m}"
    assert [one.id for one in await store.tagged(tag, LAST, 10)] == [mail.id]


async def test_a_deleted_message_leaves_no_tag(pools: Pools, store: MessageStore, keeper: Partitions) -> None:
    box, other, tags = await settled(store), await settled(store), [ids.new(), ids.new()]
    mine, theirs = await deliver(pools, keeper, box, other)
    [second] = await deliver(pools, keeper, box)
    for tag in tags:
        await store.tag(box, mine.id, tag)
        await store.tag(box, second.id, tag)
        await store.tag(other, theirs.id, tag)
    await store.delete(box, mine.id)
    assert len(await where(pools)) == 4
    await store.delete_all(box)
    assert len(await where(pools)) == 2
    assert set(await store.tags_of(other, theirs.id)) == set(tags)


async def test_a_message_of_another_mailbox_cannot_be_tagged(
    pools: Pools, store: MessageStore, keeper: Partitions
) -> None:
    box, other, tag = await settled(store), await settled(store), ids.new()
    [theirs] = await deliver(pools, keeper, other)
    for attempt in (
        store.tag(box, theirs.id, tag),
        store.tags_of(box, theirs.id),
        store.untag(box, theirs.id, tag),
        store.tag(other, ids.new(theirs.seq), tag),
        store.tag(other, "x", tag),
    ):
        with pytest.raises(Refused, match="message_not_found"):
            await attempt
    assert await where(pools) == []


async def test_a_tags_messages_are_those_of_living_mailboxes(
    pools: Pools, store: MessageStore, keeper: Partitions
) -> None:
    box, gone, tag = await settled(store), await settled(store), ids.new()
    mine, theirs = await deliver(pools, keeper, box, gone)
    await store.tag(box, mine.id, tag)
    await store.tag(gone, theirs.id, tag)
    await store.delete_inboxes([gone.id])
    assert [one.id for one in await store.tagged(tag, LAST, 10)] == [mine.id]
    assert await store.tag_counts([tag, ids.new()]) == {tag: 1}
    await store.clear_tag(tag)
    assert await where(pools) == []


async def test_mail_of_an_older_release_can_be_tagged(empty: str, pools: Pools, store: MessageStore) -> None:
    """Partitions that were there before tags were get one for tags, whatever their width."""
    text = next(m.text for m in migrate.available("messages") if m.number == 2)
    keeper = Partitions(pools.messages, 3600)
    far, near = now() + timedelta(days=20), now() + timedelta(hours=2)
    await keeper.ensure([(far, now()), (near, now()), (FOREVER, now())])
    async with pools.messages.connection() as connection:
        await connection.execute("DROP TABLE messages.message_tags CASCADE")
        await connection.execute(text)
        found = await connection.fetch(
            "SELECT inhrelid::regclass::text AS name FROM pg_catalog.pg_inherits"
            " WHERE inhparent IN ('messages.message_tags'::regclass, 'messages.message_tags_forever'::regclass)"
        )
    names = {row["name"] for row in found}
    assert names == {
        "messages.message_tags_forever",
        f"messages.message_tags_forever_{now():%Y%m}",
        f"messages.message_tags_{aligned(near, timedelta(hours=1)).suffix}",
        f"messages.message_tags_{aligned(far, timedelta(days=1)).suffix}",
    }
    fresh = Partitions(pools.messages, 3600)
    await fresh.ensure([(near, now())])
    assert all(fresh.covered(drop, now()) for drop in (far, near, FOREVER))


async def test_a_part_of_a_range_that_is_missing_is_made(pools: Pools) -> None:
    keeper, near = Partitions(pools.messages, 3600), now() + timedelta(hours=2)
    await keeper.ensure([(near, now())])
    name = aligned(near, timedelta(hours=1)).suffix
    for parent in PARENTS:
        async with pools.messages.connection() as connection:
            await connection.execute(f"DROP TABLE messages.{parent}_{name}")
        fresh = Partitions(pools.messages, 3600)
        await fresh.ensure([(near, now())])
        assert fresh.covered(near, now())
