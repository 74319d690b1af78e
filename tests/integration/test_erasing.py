"""Deleted mail leaves the database: rows, bodies, tags, quotes, whoever shares them and whatever crashes meanwhile."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from server.model import ids
from server.model.account import QUOTAS, User
from server.model.message import FOREVER, Mailbox
from server.services.mailboxes import eraser as eraser_module
from server.services.mailboxes.eraser import Eraser
from server.store import batch, erasures
from server.store import messages as messages_module
from server.store.account_cleanup import DepartureStore
from server.store.deliveries import DeliveryStore
from server.store.erasures import ErasureStore
from server.store.mailboxes import MailboxStore
from server.store.messages import MessageStore, span
from server.store.partitions import Partitions
from server.store.pools import Pools
from server.store.sql import SQL
from tests.integration.mail import item, mailbox, now, settled
from tests.integration.test_partitions import planned

TABLES = ("messages", "bodies", "message_tags", "erasures")


class Bench:
    def __init__(self, pools: Pools) -> None:
        self.pools, self.store, self.keeper = pools, MessageStore(pools.messages, now), Partitions(pools.messages, 3600)
        self.erasures = ErasureStore(pools.messages)
        self.eraser = Eraser(self.erasures)

    async def box(self, life: timedelta | None = timedelta(hours=1)) -> Mailbox:
        return await settled(self.store, life)

    async def owned(self) -> Mailbox:
        made = msgspec.structs.replace(mailbox(), user_id=ids.new())
        await self.store.create_inbox(made, 0)
        await self.pools.messages.execute(
            "INSERT INTO messages.listeners VALUES ($1, $2, ARRAY['mail.received'])", ids.new(), made.user_id
        )
        return made

    async def receive(self, *boxes: Mailbox, n: int = 1, retention: float = 0) -> list[Any]:
        items = [item(*boxes, subject=f"SECRET {i}") for i in range(n)]
        await self.keeper.ensure(await batch.partitions_wanted(self.pools.messages, retention, items, now()))
        return [row for rows in await batch.write(self.pools.messages, retention, items, now()) for row in rows]

    async def delete(self, *boxes: Mailbox) -> None:
        await self.store.end({box.id: box.address for box in boxes}, "deleted")

    async def left(self) -> dict[str, int]:
        return {
            table: (await self.pools.messages.fetch(f"SELECT count(*) FROM messages.{table}"))[0][0] for table in TABLES
        }

    async def quotes(self) -> list[bool]:
        rows = await self.pools.messages.fetch("SELECT data::text FROM messages.deliveries ORDER BY id")
        return sorted("SECRET" in row["data"] for row in rows)


NOTHING = dict.fromkeys(TABLES, 0)


@pytest.fixture
async def bench(pools: Pools) -> AsyncIterator[Bench]:
    made = Bench(pools)
    yield made
    await made.eraser.close()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of three."""
    for module in (eraser_module, erasures, messages_module):
        monkeypatch.setattr(module, "BATCH", 3)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("life", [timedelta(hours=1), None])
async def test_nothing_of_a_deleted_mailbox_is_left(bench: Bench, life: timedelta | None) -> None:
    box = await bench.box(life)
    for row in await bench.receive(box, n=7):
        await bench.store.tag(box, row.id, ids.new())
    await bench.delete(box)
    await bench.eraser.round()
    assert await bench.left() == NOTHING


async def test_nothing_is_left_of_a_mailbox_without_an_end_whose_mail_has_one(bench: Bench) -> None:
    box = await bench.box(None)
    for days in (1, 20):
        await bench.receive(box, n=2, retention=days * 86400)
    await bench.delete(box)
    await bench.eraser.round()
    assert await bench.left() == NOTHING


async def test_a_shared_body_stays_until_the_last_goes(bench: Bench) -> None:
    boxes = [await bench.box(timedelta(hours=hours)) for hours in (1, 2, 5)]
    *_, last = await bench.receive(*boxes)
    await bench.delete(boxes[0])
    await bench.eraser.round()
    assert await bench.left() == NOTHING | {"messages": 2, "bodies": 1}
    await bench.store.delete_all(boxes[1])
    assert b"SECRET" in await bench.store.raw(last)
    await bench.delete(boxes[2])
    await bench.eraser.round()
    assert await bench.left() == NOTHING


async def test_what_a_killed_worker_had_begun_another_ends(bench: Bench) -> None:
    box = await bench.box()
    await bench.receive(box, n=3)
    await bench.delete(box)
    assert await bench.erasures.take(10, lease=60)
    assert await bench.erasures.take(10, lease=60) == []
    await bench.pools.messages.execute("UPDATE messages.erasures SET due_at = now()")  # the lease is over
    await bench.eraser.round()
    assert await bench.left() == NOTHING


async def test_mailboxes_that_share_all_their_mail_are_erased_side_by_side(bench: Bench) -> None:
    boxes = [await bench.box() for _ in range(12)]
    for turn in range(6):
        await bench.receive(*(boxes if turn % 2 else boxes[::-1]), n=20)
    await asyncio.gather(*(bench.delete(box) for box in boxes))
    await asyncio.gather(*(Eraser(bench.erasures).round() for _ in range(4)), bench.eraser.round())
    assert await bench.left() == NOTHING


@pytest.mark.usefixtures("small")
async def test_deleting_all_goes_in_bounded_transactions_and_counts_right(bench: Bench) -> None:
    box, other = await bench.box(), await bench.box()
    await bench.receive(box, n=6)
    await bench.receive(box, other)
    assert await bench.store.delete_all(box) == 7
    counts = await bench.store.counts(box.id)
    assert (counts.total, counts.unread) == (0, 0)
    assert await bench.left() == NOTHING | {"messages": 1, "bodies": 1}
    assert await bench.store.delete_all(box) == 0


async def test_an_expired_mailbox_waits_for_its_partition(bench: Bench) -> None:
    box = await bench.box()
    await bench.receive(box)
    await bench.store.end({box.id: box.address}, "expired")
    assert (await bench.left())["erasures"] == 0


async def test_deliveries_forget_deleted_mail_soon(bench: Bench) -> None:
    box = await bench.owned()
    await bench.receive(box, n=2)
    deliveries = DeliveryStore(bench.pools.messages)
    [done, _] = await deliveries.take([], 10, 10, 60)
    await deliveries.drop([done], "over")
    await bench.store.delete(box, json.loads(done.data)["messageId"])
    assert await bench.quotes() == [False, True]
    await bench.delete(box)
    await bench.eraser.round()
    assert await bench.quotes() == [False, True]  # it came just now, and may be on its way
    await bench.pools.messages.execute("UPDATE messages.deliveries SET created_at = created_at - interval '1 minute'")
    await bench.eraser.round()
    assert await bench.quotes() == [False, False]
    rows = await bench.pools.messages.fetch("SELECT data->>'mailboxId' AS box, due_at FROM messages.deliveries")
    assert {row["box"] for row in rows} == {box.id}
    assert len([row for row in rows if row["due_at"]]) == 1  # it is still told that there was a message


async def test_a_delivery_under_way_forgets_a_deleted_message_soon(bench: Bench) -> None:
    box = await bench.owned()
    gone, kept = await bench.receive(box, n=2)
    await bench.store.delete(box, gone.id)
    await bench.pools.messages.execute("UPDATE messages.deliveries SET created_at = created_at - interval '1 minute'")
    await bench.eraser.round()
    rows = await bench.pools.messages.fetch("SELECT data::text FROM messages.deliveries")
    assert {json.loads(row["data"])["messageId"]: "SECRET" in row["data"] for row in rows} == {
        gone.id: False,
        kept.id: True,
    }


async def test_the_mail_of_a_deleted_account_goes_even_if_its_end_was_cut_in_two(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = User(ids.new(), "a@example.org", None, "free", "user", True, False, now(), now(), None, QUOTAS["free"])
    box = msgspec.structs.replace(mailbox(), user_id=user.id)
    mailboxes, departures = MailboxStore(bench.pools.mailboxes), DepartureStore(bench.pools)
    await mailboxes.insert(box)
    await bench.store.create_inbox(box, 0)
    await bench.receive(box)

    async def killed(*_: object) -> str:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(bench.pools.mailboxes, "execute", killed)
        with pytest.raises(asyncio.CancelledError):
            await departures.end([box.id])
    assert list(await departures.mailboxes(user.id, 10)) == [box.id]  # the next round finds it
    await departures.end([box.id])
    await bench.eraser.round()
    assert await bench.left() == NOTHING
    assert await departures.mailboxes(user.id, 10) == {}


async def test_deleting_touches_the_partitions_of_what_is_deleted_alone(bench: Bench) -> None:
    await bench.keeper.ahead(now(), 86400)
    await bench.keeper.ensure([(FOREVER, now())])
    box = await bench.box()
    [row] = await bench.receive(box)
    where = span(box.expires_at, now())
    some = await planned(bench.pools, SQL.message_delete_some, box.id, *where, 10)
    at = row.body_drop_after
    released = await planned(bench.pools, SQL.bodies_release, [row.body_id], [1], at, at)
    assert await bench.left() == NOTHING
    for plan, table in ((some, "messages"), (released, "bodies")):
        names = {word for line in plan.splitlines() for word in line.split() if word.startswith(f"{table}_")}
        assert len({name for name in names if name[-1].isdigit()} - {f"{table}_1"}) <= 2, plan


async def test_space_of_deleted_mail_is_given_back_to_the_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition whose mail was all deleted is empty on the disk too, not full of rows that no query sees."""
    monkeypatch.setattr(eraser_module, "VACUUM_AFTER", 0.0)
    size = (
        "SELECT coalesce(sum(pg_catalog.pg_table_size(tree.relid)), 0)::int FROM pg_catalog.pg_partition_tree($1) tree"
    )
    empty = [(await bench.pools.messages.fetch(size, f"messages.{table}"))[0][0] for table in TABLES[:2]]
    assert empty == [0, 0]
    async with asyncio.timeout(60):
        while True:
            box = await bench.box()
            await bench.receive(box, n=50)
            await bench.delete(box)
            await bench.eraser.round()
            left = [
                (await bench.pools.messages.fetch(f"{size} WHERE tree.isleaf", f"messages.{table}"))[0][0]
                for table in TABLES[:2]
            ]
            if max(left) <= 3 * 8192:  # maps of what is free, no page of rows
                return
            await asyncio.sleep(0.5)  # autovacuum, or a snapshot of another test's, may have been in the way
