"""Decisions in a real PostgreSQL: found by address, told apart by owner, and gone when the database's clock says so."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.model import ids
from server.model.message import Alias, Mailbox
from server.model.trace import Question, Row
from server.store.pools import Pools
from server.store.trace import TraceStore

DAY = 86400.0


def row(recipient: str = "box@temp.mail", age: float = 0.0, **more: Any) -> Row:
    now = time.time()
    values: dict[str, Any] = {
        **{"at": now - age, "rcpt_at": None, "address": recipient, "stage": "rcpt", "client": "192.0.2.1"},
        **{"helo": "h", "sender": "s@example.com", "recipient": recipient, "mailbox_id": None, "message_id": None},
        "reply": "550 5.1.1 No such mailbox",
    }
    return Row(**(values | more))


@pytest.fixture
def store(pools: Pools) -> TraceStore:
    return TraceStore(pools.messages, DAY, "host/0", "postmaster@temp.mail")


async def found(store: TraceStore, **asked: Any) -> list[str]:
    return [one.reply for one in (await store.page(Question(**asked))).items]


async def test_decisions_are_written_where_no_table_was_made_ahead(store: TraceStore) -> None:
    await store.write([row(), row(age=1800)])
    assert len(await found(store, address="box@temp.mail")) == 2


async def test_a_stored_mail_is_two_decisions(store: TraceStore) -> None:
    message = ids.new(1)
    accepted = {"stage": "data", "reply": "250 2.0.0 OK", "message_id": message, "mailbox_id": ids.new()}
    at = time.time()
    await store.write([row(at=at - 1, rcpt_at=at - 3, **accepted)])
    data, rcpt = (await store.page(Question(address="box@temp.mail"))).items
    assert (data.stage, data.reply, data.message_id, data.node) == ("data", "250 2.0.0 OK", message, "host/0")
    assert (rcpt.stage, rcpt.reply, rcpt.message_id) == ("rcpt", "250 2.1.5 Recipient OK", None)
    assert data.at - rcpt.at == pytest.approx(timedelta(seconds=2), abs=timedelta(milliseconds=1))


async def test_pages_lead_through_all_of_one_moment_without_gap_or_repetition(store: TraceStore) -> None:
    at = time.time()
    await store.write([row(at=at, reply=f"550 {number}") for number in range(25)])
    seen: list[str] = []
    place = None
    while True:
        page = await store.page(Question(address="box@temp.mail", limit=10, before=place))
        seen += [one.reply for one in page.items]
        place = page.following
        if place is None:
            break
    assert sorted(seen) == sorted(f"550 {number}" for number in range(25))


async def test_a_sender_is_found_whoever_it_wrote_to_and_so_is_a_domain_of_senders(store: TraceStore) -> None:
    await store.write(
        [
            row(sender="Bill@Shop.example", reply="550 1"),
            row("other@temp.mail", sender="news@mail.shop.example", reply="550 2"),
            row(sender="a@notshop.example", reply="550 3"),
            row(sender="", reply="550 4"),
            row("", address="x@shop.example", sender="x@shop.example", stage="mail", reply="552 5"),
        ]
    )
    assert await found(store, sender="bill@shop.example") == ["550 1"]
    assert set(await found(store, sender="shop.example")) == {"550 1", "550 2", "552 5"}
    assert await found(store, sender="shop.example", address="other@temp.mail") == ["550 2"]
    assert await found(store, sender="shop.example", verdict="accepted") == []
    assert await found(store, sender=".a@notshop.example") == []
    assert await found(store, sender="%") == []


async def test_verdicts_and_times_choose(store: TraceStore) -> None:
    await store.write(
        [row(age=3000, reply="452 4.2.2 Mailbox full"), row(), row(reply="dropped: the mailbox was gone")]
    )
    await store.write([row(stage="data", rcpt_at=time.time(), reply="552 5.3.4 Message too big")])
    box = {"address": "box@temp.mail"}
    assert await found(store, verdict="deferred", **box) == ["452 4.2.2 Mailbox full"]
    assert set(await found(store, verdict="refused", **box)) == {
        "550 5.1.1 No such mailbox",
        "552 5.3.4 Message too big",
    }
    assert await found(store, verdict="dropped", **box) == ["dropped: the mailbox was gone"]
    assert await found(store, verdict="accepted", **box) == ["250 2.1.5 Recipient OK"]
    now = datetime.now(UTC)
    assert await found(store, until=now - timedelta(minutes=30), **box) == ["452 4.2.2 Mailbox full"]
    assert len(await found(store, since=now - timedelta(minutes=30), **box)) == 4


async def test_tags_are_found_under_their_base_and_by_themselves(store: TraceStore) -> None:
    await store.write([row("box+a@temp.mail", address="box@temp.mail", reply="550 a"), row(reply="550 plain")])
    assert set(await found(store, address="box@temp.mail")) == {"550 a", "550 plain"}
    assert await found(store, address="box+a@temp.mail") == ["550 a"]
    assert await found(store, address="box+b@temp.mail") == []


async def test_an_owner_sees_nothing_of_another_owner_of_the_same_address(store: TraceStore) -> None:
    now, mine, before = datetime.now(UTC), ids.new(), ids.new()
    mailbox = Mailbox(mine, "box", "temp.mail", b"0" * 32, now - timedelta(seconds=60), None)
    alias = Alias(ids.new(), mine, "also", "temp.mail", now - timedelta(seconds=30))
    await store.write(
        [
            row(age=10, mailbox_id=mine, reply="250 mine"),
            row(age=20, reply="451 mine"),
            row(age=50, mailbox_id=before, reply="250 stored late for the one before"),
            row(age=90, reply="550 before it was made"),
            row("also@temp.mail", age=5, reply="550 alias"),
            row("also@temp.mail", age=40, reply="550 before the alias was made"),
            row("other@temp.mail", age=1, reply="550 another"),
            row("", age=1, address="box@temp.mail", stage="mail", reply="552 sent by somebody who claims the address"),
        ]
    )
    page = await store.of_mailbox(mailbox, [alias], Question())
    assert [one.reply for one in page.items] == ["550 alias", "250 mine", "451 mine"]


async def test_what_was_only_counted_is_said(store: TraceStore) -> None:
    await store.write([row(), row("", address="", reply="550 5.1.1", unrecorded=960)])
    page = await store.page(Question(address="box@temp.mail"))
    assert (len(page.items), page.unrecorded) == (1, 960)
    lines = (await store.page(Question())).items
    assert [one.unrecorded for one in lines if one.unrecorded] == [960]


async def test_hours_go_by_the_clock_of_the_database_and_none_too_early(
    store: TraceStore, pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.upkeep()
    monkeypatch.setattr(time, "time", lambda: 4e9)  # this node is decades ahead
    assert await store.upkeep() == []
    await store.write([row(at=4e9 - 5)])
    [late] = (await store.page(Question(address="box@temp.mail"))).items
    assert timedelta(seconds=4) < datetime.now(UTC) - late.at < timedelta(seconds=60), "its clock was put right"
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    async with pools.messages.connection() as connection:
        for hours in (24, 26, 30):
            start = now - timedelta(hours=hours)
            name = f"messages.trace_{start:%Y%m%d%H}"
            await connection.execute(f"CREATE TABLE {name} (LIKE messages.trace INCLUDING ALL)")
            if hours != 30:  # one that a crash left detached
                bounds = f"FROM ('{start.isoformat()}') TO ('{(start + timedelta(hours=1)).isoformat()}')"
                await connection.execute(f"ALTER TABLE messages.trace ATTACH PARTITION {name} FOR VALUES {bounds}")
    gone = await store.upkeep()
    assert sorted(gone) == [f"trace_{now - timedelta(hours=hours):%Y%m%d%H}" for hours in (30, 26)]


async def test_a_flood_shortens_the_trace_before_it_fills_the_disk(pools: Pools) -> None:
    store = TraceStore(pools.messages, DAY, "host/0", "postmaster@temp.mail", room=400_000)
    await store.upkeep()
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    starts = [now - timedelta(hours=hours) for hours in (1, 2, 3, 4)]
    names = [f"trace_{start:%Y%m%d%H}" for start in starts]
    async with pools.messages.connection() as connection:
        for start, name in list(zip(starts, names, strict=True))[1:]:  # upkeep made the first
            await connection.execute(f"CREATE TABLE messages.{name} (LIKE messages.trace INCLUDING ALL)")
            bounds = f"FROM ('{start.isoformat()}') TO ('{(start + timedelta(hours=1)).isoformat()}')"
            await connection.execute(f"ALTER TABLE messages.trace ATTACH PARTITION messages.{name} FOR VALUES {bounds}")
        await connection.execute(
            f"INSERT INTO messages.{names[2]} (at, id, address, stage, client, helo, sender, recipient, reply, node)"
            f" SELECT '{starts[2].isoformat()}', n, n || '@temp.mail', 'rcpt', '192.0.2.1', repeat('h', 200), '', '',"
            " '550 5.1.1', 'a' FROM generate_series(1, 3000) n"
        )
    assert sorted(await store.upkeep()) == sorted(names[2:]), "the hour that is too large, and those before it"
    assert await store.upkeep() == []


async def test_text_that_no_database_takes_harms_nothing(store: TraceStore) -> None:
    await store.write([row("a\0\ud800" + "x" * 1000, address="k", helo="\0")])
    assert len(await found(store)) == 1
