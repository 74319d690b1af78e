"""Partitions: made ahead and on demand by many at once, pruned by every read, dropped whole, mended after a crash."""

import asyncio
import re
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config.settings import Config
from server.model.message import FOREVER
from server.store import batch
from server.store.messages import MessageStore, span
from server.store.partitions import GRACE, PARENTS, Partitions, aligned, attached, month, parse
from server.store.pools import Pools
from server.store.sql import SQL
from tests.integration.mail import item, now, settled

moments = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2200, 1, 1)).map(
    lambda d: d.replace(tzinfo=UTC)
)


@given(moments, st.sampled_from([60, 300, 3600, 7200, 86400]))
def test_range_holds_its_moment_and_is_known_by_its_name(moment: datetime, width: int) -> None:
    found = aligned(moment, timedelta(seconds=width))
    assert found.start <= moment < found.end
    assert parse(found.suffix) == found
    monthly = month(moment)
    assert monthly.start <= moment < monthly.end
    assert parse(monthly.suffix) == monthly


async def test_workers_asking_at_once_make_each_partition_once(pools: Pools) -> None:
    keepers = [Partitions(pools.messages, 3600) for _ in range(8)]
    rows = [(now() + timedelta(hours=h), now()) for h in range(5)] + [(FOREVER, now())]
    await asyncio.gather(*(keeper.ensure(rows) for keeper in keepers))
    async with pools.messages.connection() as connection:
        assert len(await attached(connection)) == 6
    assert all(keeper.covered(*row) for keeper in keepers for row in rows)


async def test_far_mail_lies_in_days_and_never_overlaps_hours(pools: Pools) -> None:
    keeper = Partitions(pools.messages, 3600)
    far = (now() + timedelta(days=20)).replace(hour=12)
    await keeper.ensure([(far, now())])
    await keeper.ensure([(far + timedelta(hours=3), far - timedelta(days=1))])  # near now, in the same day
    hour = (now() + timedelta(days=2)).replace(hour=12)  # an hour later it is still the same day
    await keeper.ensure([(hour, now())])
    await keeper.ensure([(hour + timedelta(hours=1), now() - timedelta(days=30))])  # far, but the day has an hour
    async with pools.messages.connection() as connection:
        widths = sorted((r.end - r.start).total_seconds() for r in await attached(connection))
    assert widths == [3600, 3600, 86400]


async def planned(pools: Pools, statement: str, *args: object) -> str:
    rows = await pools.messages.fetch(f"EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF) {statement}", *args)
    return "\n".join(row[0] for row in rows)


async def test_every_read_of_a_mailbox_touches_one_partition(pools: Pools) -> None:
    store, keeper = MessageStore(pools.messages, now), Partitions(pools.messages, 3600)
    await keeper.ahead(now(), 86400)
    box = await settled(store, timedelta(hours=3))
    [[row]] = await batch.write(pools.messages, 0, [item(box)], now())
    where = span(box.expires_at, now())
    plans = {
        "message_pages": await planned(pools, SQL.message_pages, [box.id], [1 << 62], [50], [0], *where),
        "message_one": await planned(pools, SQL.message_one, box.id, *where, row.seq, row.id),
        "body": await planned(pools, SQL.body, row.body_id, row.body_drop_after),
        "search": await planned(
            pools, SQL.search, box.id, *where, *[None] * 4, ["tag"], [row.id], [True], ["%a%"], [False], 1 << 62, 20, 0
        ),
        "tags": await planned(pools, SQL.message_tags, box.id, *where, row.seq, row.id),
        "tag": await planned(pools, SQL.message_tag, box.id, *where, row.seq, row.id, row.id),
        "untag": await planned(pools, SQL.message_untag, box.id, *where, row.seq, row.id, row.id),
        "mark_read": await planned(pools, SQL.message_mark_read, box.id, *where, row.seq, row.id),
        "authenticated": await planned(
            pools, SQL.messages_authenticated, [box.id], [row.seq], [row.id], *where, '{"dmarc": "pass"}'
        ),
        "delete": await planned(pools, SQL.message_delete, box.id, *where, row.seq, row.id),
    }
    hour = aligned(row.body_drop_after, timedelta(hours=1)).suffix
    for name, plan in plans.items():
        run = [line for line in plan.split("\n") if "never executed" not in line]
        touched = set(re.findall(r"\b(?:messages|bodies|message_tags)_2\w+", "\n".join(run)))
        touched = {t for t in touched if not t.endswith(("_idx", "_pkey"))}
        assert touched <= {f"{parent}_{hour}" for parent in PARENTS}, f"{name}\n{plan}"
        assert touched, f"{name}\n{plan}"


async def test_all_mail_of_an_account_is_looked_for_where_its_mailboxes_end(pools: Pools) -> None:
    store, keeper = MessageStore(pools.messages, now), Partitions(pools.messages, 3600)
    await keeper.ahead(now(), 86400)
    one, two = await settled(store, timedelta(hours=3)), await settled(store, timedelta(hours=5))
    for box in (one, two):
        await batch.write(pools.messages, 0, [item(box)], now())
    ends = [one.expires_at, two.expires_at]
    last = "ffffffff-ffff-ffff-ffff-ffffffffffff"
    plan = await planned(
        pools,
        SQL.messages_across,
        [one.id, two.id],
        ends,
        *ends,
        now(),
        last,
        *[None] * 4,
        *[[]] * 3,
        ["%a%"],
        [False],
        50,
    )
    assert len(set(re.findall(r"\bmessages_2\d+_\d+\b(?!_)", plan))) == 3, plan  # what lies between the two ends
    scans = [
        line for line in plan.split("\n") if re.search(r"Scan.* on messages_2", line) and "never executed" not in line
    ]
    assert len(scans) == 2, plan


async def test_reads_for_many_mailboxes_prune_while_they_run(pools: Pools) -> None:
    store, keeper = MessageStore(pools.messages, now), Partitions(pools.messages, 3600)
    await keeper.ahead(now(), 86400)
    box = await settled(store, timedelta(hours=3))
    await batch.write(pools.messages, 0, [item(box)], now())
    plan = await planned(pools, SQL.messages_since, [box.id], [0])
    run = [
        line for line in plan.split("\n") if "messages_2" in line and "never executed" not in line and "Scan" in line
    ]
    assert len(run) == 1, plan
    assert len(await store.since([(box.id, 0)])) == 1


async def test_ended_partitions_go_whole_and_others_stay(pools: Pools) -> None:
    store, keeper = MessageStore(pools.messages, now), Partitions(pools.messages, 60)
    later = now() + timedelta(minutes=10)
    box, kept = await settled(store, timedelta(seconds=30)), await settled(store, timedelta(minutes=30))
    await keeper.ensure([(box.expires_at or FOREVER, now()), (kept.expires_at or FOREVER, now()), (FOREVER, now())])
    await batch.write(pools.messages, 0, [item(box), item(kept)], now())
    assert len(await keeper.drop_expired(later)) == len(PARENTS)
    assert len(await pools.messages.fetch("SELECT 1 FROM messages.bodies")) == 1
    assert len((await store.page(kept, 10, 0, 1 << 62))[0]) == 1
    assert await keeper.drop_expired(later) == []


@pytest.mark.parametrize("width", [60, 3600, 86400])
async def test_range_goes_when_its_end_and_the_grace_are_over_and_not_a_second_earlier(
    pools: Pools, width: int
) -> None:
    keeper = Partitions(pools.messages, width)
    over = aligned(now(), timedelta(seconds=width))
    await keeper.ensure([(over.start, over.start)])
    second = timedelta(seconds=1)
    for early in (over.start + GRACE, over.end - second, over.end, over.end + second, over.end + GRACE - second):
        assert await keeper.drop_expired(early) == [], early
    assert keeper.covered(over.start, over.start)
    gone = await keeper.drop_expired(over.end + GRACE)
    assert sorted(gone) == sorted(f"{parent}_{over.suffix}" for parent in PARENTS)
    assert not keeper.covered(over.start, over.start)


async def test_mail_kept_for_ever_is_never_dropped(pools: Pools) -> None:
    store, keeper = MessageStore(pools.messages, now), Partitions(pools.messages, 3600)
    box = await settled(store, None)
    await keeper.ensure([(FOREVER, now())])
    await batch.write(pools.messages, 0, [item(box)], now())
    assert await keeper.drop_expired(now() + timedelta(days=400)) == []
    [row] = (await store.page(box, 10, 0, 1 << 62))[0]
    assert await store.raw(row)


def test_grace_outlasts_a_commit_that_is_under_way() -> None:
    assert timedelta(seconds=10) <= GRACE <= timedelta(minutes=1)


async def test_drop_left_half_done_by_a_crash_is_finished(pools: Pools) -> None:
    keeper = Partitions(pools.messages, 60)
    old = [now() - timedelta(minutes=m) for m in (60, 50, 40)]
    await keeper.ensure([(moment, moment) for moment in old])
    names = [aligned(moment, timedelta(seconds=60)).suffix for moment in old]
    async with pools.messages.connection() as connection:
        await connection.execute(
            f"ALTER TABLE messages.messages DETACH PARTITION messages.messages_{names[0]} CONCURRENTLY"
        )
        await connection.execute(f"DROP TABLE messages.messages_{names[1]}")
    await _leave_pending(pools, names[2])
    await keeper.drop_expired(now())
    async with pools.messages.connection() as connection:
        left = await connection.fetch(
            "SELECT relname FROM pg_class"
            " WHERE relnamespace = 'messages'::regnamespace AND relkind = 'r' AND relname ~ '_2[0-9]{7}'"
        )
    assert left == []


async def _leave_pending(pools: Pools, name: str) -> None:
    """A DETACH CONCURRENTLY that was cut off while it waited for a reader."""
    async with pools.messages.connection() as reader:
        transaction = reader.transaction()
        await transaction.start()
        await reader.fetch("SELECT 1 FROM messages.messages")
        async with pools.messages.connection() as other:
            detach = f"ALTER TABLE messages.messages DETACH PARTITION messages.messages_{name} CONCURRENTLY"
            with pytest.raises((asyncpg.QueryCanceledError, TimeoutError)):
                await other.execute(detach, timeout=0.5)
        await transaction.rollback()


async def test_delivery_goes_on_while_partitions_come_and_go(pools: Pools, settings: Config) -> None:
    store, keeper = MessageStore(pools.messages, now), Partitions(pools.messages, 60)
    box = await settled(store, timedelta(minutes=30))
    await keeper.ensure([(box.expires_at or FOREVER, now())])
    done = asyncio.Event()

    async def churn() -> None:
        other = Partitions(pools.messages, 60)
        for minute in range(12):
            past = now() - timedelta(hours=2, minutes=minute)
            await other.ensure([(past, past)])
            await other.drop_expired(now())
        done.set()

    async def deliver() -> int:
        sent = 0
        while not done.is_set():
            await batch.write(pools.messages, 0, [item(box)], now())
            sent += 1
        return sent

    _, *sent = await asyncio.gather(churn(), deliver(), deliver())
    assert (await store.counts(box.id)).total == sum(sent)
