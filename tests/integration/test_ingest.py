"""Group commit: each message of a batch learns its own fate, whatever its neighbours are."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest

from server.cache.generations import Generations, Writer
from server.cache.responses import ResponseCache
from server.model import ids
from server.model.domain import Rules, Target
from server.model.errors import Refused, Unavailable
from server.model.event import Hint
from server.model.message import Envelope, Mailbox, Recipient, Stored
from server.model.queued import pack
from server.model.trace import DEAD, FULL, GONE, rows
from server.services import sandbox
from server.services.coherence import Coherence
from server.services.domains.served import ServedDomains
from server.services.mail_in import ingest
from server.services.mail_in.authentication import CHECKS, CHECKS_MAX, DROPPED, Authentication
from server.services.mail_in.decisions import Decisions
from server.services.mail_in.ingest import Ingest
from server.services.mail_in.queue_consumer import QueueConsumer
from server.services.mail_in.routing import Routes
from server.services.sandbox import Sandbox
from server.store import queued_ids
from server.store.domains import DomainStore
from server.store.mailboxes import MailboxStore
from server.store.messages import MessageStore
from server.store.partitions import Partitions
from server.store.pools import Pools
from tests.clients import of
from tests.integration.mail import now, settled


class Bench:
    """An Ingest over a real database, and what it told the world."""

    def __init__(self, pools: Pools) -> None:
        self.pools = pools
        self.generations = Generations(2)
        self.local = ResponseCache(self.generations, 1 << 20, 60)
        self.told: list[Hint] = []
        self.committed: list[Stored] = []
        self.outcomes: list[str] = []
        self.store = MessageStore(pools.messages, now)
        self.mailboxes = MailboxStore(pools.mailboxes)
        self.sandbox = Sandbox()
        self.coherence = Coherence(self.generations, Writer(self.generations, 0), self.told.extend, uncertain=0.5)
        served = ServedDomains(DomainStore(pools.mailboxes), self.local, ["temp.mail"], ttl=60)
        rules = Rules(plus=True, subdomains=False, administrator="postmaster@temp.mail")
        self.routes = Routes(self.mailboxes, self.local, served, rules, self.provide, lambda _: None, now)
        self.ingest = Ingest(
            pools.arrivals,
            Partitions(pools.messages, 3600),
            0,
            self.routes,
            self.local,
            self.coherence,
            self.sandbox,
            lambda client: of(client) if client else (),
            lambda mailbox: True,
            self.committed.extend,
            lambda steps: None,
            lambda: None,
            self.outcomes.append,
            now,
        )

    async def provide(self, target: Target) -> bool:
        """Mail makes no mailboxes here."""
        return False

    def submit(self, *boxes: Mailbox, subject: str = "x", sender: str = "a@b.c") -> "asyncio.Future[Sequence[Stored]]":
        raw = f"Subject: {subject}\r\n\r\ntext\r\n".encode()
        return self.ingest.submit(Envelope(sender, [Recipient(b.address, b.id) for b in boxes], raw))

    async def subjects(self, box: Mailbox) -> list[str]:
        return [row.subject for row in (await self.store.page(box, 100, 0, 1 << 62))[0]][::-1]


@pytest.fixture
async def bench(pools: Pools) -> AsyncIterator[Bench]:
    made = Bench(pools)
    yield made
    await made.sandbox.close()


async def outcomes(futures: Sequence["asyncio.Future[Sequence[Stored]]"]) -> list[str]:
    results = await asyncio.gather(*futures, return_exceptions=True)
    return [type(r).__name__ if isinstance(r, BaseException) else "stored" for r in results]


async def test_message_that_cannot_be_stored_as_read_is_stored_as_bytes(bench: Bench) -> None:
    box = await settled(bench.store)
    await bench.pools.messages.execute(
        "ALTER TABLE messages.messages ADD CONSTRAINT no_poison CHECK (subject <> 'poison')"
    )
    futures = [bench.submit(box, subject="poison" if n == 37 else f"good {n}") for n in range(100)]
    assert await outcomes(futures) == ["stored"] * 100
    found = await bench.subjects(box)
    assert sorted(found) == sorted(["", *(f"good {n}" for n in range(100) if n != 37)])


async def test_message_that_cannot_be_stored_at_all_fails_alone(bench: Bench) -> None:
    box = await settled(bench.store)
    await bench.pools.messages.execute(
        "ALTER TABLE messages.messages ADD CONSTRAINT no_poison CHECK (envelope_from <> 'poison@b.c')"
    )
    futures = [bench.submit(box, sender="poison@b.c" if n in (3, 4, 60) else "a@b.c") for n in range(64)]
    fates = await outcomes(futures)
    assert [n for n, fate in enumerate(fates) if fate == "Unstorable"] == [3, 4, 60]
    assert len(await bench.subjects(box)) == 61


async def test_full_and_vanished_mailboxes_do_not_touch_their_neighbours(bench: Bench) -> None:
    good, full, gone = await settled(bench.store), await settled(bench.store, capacity=2), await settled(bench.store)
    await bench.store.delete_inboxes([gone.id])
    futures = [
        bench.submit(good),
        bench.submit(full, subject="1"),
        bench.submit(gone),
        bench.submit(full, good, subject="2"),
        bench.submit(gone, good, subject="only to the living"),
        bench.submit(full, subject="3"),
    ]
    assert await outcomes(futures) == ["stored", "stored", "Refused", "stored", "stored", "Refused"]
    with pytest.raises(Refused) as refused:
        await futures[2]
    assert refused.value.word == "mailbox_not_found"
    with pytest.raises(Refused) as refused:
        await futures[5]
    assert refused.value.word == "mailbox_full"
    assert await bench.subjects(full) == ["1", "2"]
    assert await bench.subjects(good) == ["x", "2", "only to the living"]
    assert (await bench.store.counts(good.id)).total == 3


async def test_rcpt_says_full_until_the_mailbox_changes(bench: Bench) -> None:
    full = await settled(bench.store, capacity=1)
    await bench.mailboxes.insert(full)
    assert (await bench.ingest.resolve(full.address)).mailbox_id == full.id
    await outcomes([bench.submit(full), bench.submit(full)])
    assert bench.ingest.route(full.address) is None
    with pytest.raises(Refused) as refused:
        await bench.ingest.resolve(full.address)
    assert refused.value.word == "mailbox_full"
    Writer(bench.generations, 1).bump([bench.generations.slot(full.id.encode())])
    assert (await bench.ingest.resolve(full.address)).mailbox_id == full.id


async def test_far_mailbox_gets_its_partition_on_demand(bench: Bench) -> None:
    boxes = [await settled(bench.store, timedelta(hours=30 * n)) for n in range(1, 5)]
    assert await outcomes([bench.submit(box) for box in boxes]) == ["stored"] * 4


async def test_waiter_that_goes_away_changes_nothing(bench: Bench) -> None:
    box = await settled(bench.store)
    futures = [bench.submit(box, subject=str(n)) for n in range(20)]
    for future in futures[::2]:
        future.cancel()
    await bench.ingest.drain()
    assert await bench.subjects(box) == [str(n) for n in range(20)]


async def test_lost_database_is_try_again_and_nothing_cached_meanwhile(bench: Bench) -> None:
    box = await settled(bench.store)
    await asyncio.gather(bench.submit(box))
    name = await bench.pools.messages.fetchrow("SELECT current_database() AS name")
    assert name
    bench.pools.arrivals.lender.pool.terminate()
    with pytest.raises(Unavailable):
        await bench.submit(box)
    ticket = bench.local.ticket(box.id.encode())
    assert not bench.local.settled(ticket)  # the COMMIT may still arrive
    async with asyncio.timeout(60):
        while not bench.local.settled(bench.local.ticket(box.id.encode())):
            await asyncio.sleep(0.02)


async def test_readers_are_told_once_a_batch_with_the_newest_number(bench: Bench) -> None:
    box = await settled(bench.store)
    await asyncio.gather(*(bench.submit(box) for _ in range(50)))
    assert [row.seq for row in bench.committed] == list(range(1, 51))
    assert len(bench.told) < 10
    assert bench.told[-1].seq == 50


async def test_hostile_message_is_read_apart_and_stored(bench: Bench) -> None:
    box = await settled(bench.store)
    nested = b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (n, n) for n in range(2000))
    headers = b"".join(b"X-%d: y\r\n" % n for n in range(100_000))
    for raw in (nested, headers + b"\r\nbody", b"To: " + b"a@b.c, " * 100_000 + b"\r\n\r\nbody"):
        await bench.ingest.submit(Envelope("a@b.c", [Recipient(box.address, box.id)], raw))
    rows, total = await bench.store.page(box, 10, 0, 1 << 62)
    assert total == len(rows) == 3
    for row in rows:
        assert len(await bench.store.raw(row)) == row.size


def queued(*boxes: Mailbox, mail_id: str, subject: str = "queued") -> Envelope:
    """A message as it comes out of the queue."""
    raw = f"Subject: {subject}\r\n\r\ntext\r\n".encode()
    received = ids.made_at(mail_id)
    return Envelope("a@b.c", [Recipient(b.address, b.id) for b in boxes], raw, id=mail_id, received_at=received)


async def test_queued_message_that_comes_again_is_not_stored_again(bench: Bench) -> None:
    box = await settled(bench.store)
    one, other = ids.new(), ids.new()
    first = await bench.ingest.submit(queued(box, mail_id=one))
    again = [bench.ingest.submit(queued(box, mail_id=mail_id)) for mail_id in (one, other, other, one)]
    fates = await asyncio.gather(*again, bench.submit(box, subject="injected"))
    assert [len(rows) for rows in fates] == [0, 1, 0, 0, 1]
    assert first[0].received_at == ids.made_at(one)
    assert await bench.subjects(box) == ["queued", "queued", "injected"]


async def test_queued_message_that_was_rolled_back_is_stored_when_it_comes_again(bench: Bench) -> None:
    box, gone = await settled(bench.store), await settled(bench.store)
    await bench.store.delete_inboxes([gone.id])
    mail_id = ids.new()
    with pytest.raises(Refused):
        await bench.ingest.submit(queued(gone, mail_id=mail_id))
    assert len(await bench.ingest.submit(queued(gone, box, mail_id=mail_id))) == 1
    assert await bench.subjects(box) == ["queued"]


async def test_queued_message_reaches_the_mailboxes_that_have_room(bench: Bench) -> None:
    box, full = await settled(bench.store), await settled(bench.store, capacity=1)
    await bench.submit(full, subject="fills it")
    rows = await bench.ingest.submit(queued(full, box, mail_id=ids.new()))
    assert [row.mailbox_id for row in rows] == [box.id]
    with pytest.raises(Refused):
        await bench.ingest.submit(queued(full, mail_id=ids.new()))
    assert await bench.subjects(full) == ["fills it"]


async def test_ids_of_queued_mail_are_forgotten_after_a_day_and_not_before(bench: Bench) -> None:
    box, database = await settled(bench.store), bench.pools.messages
    made = [now() - timedelta(hours=hours) for hours in (0, 12, 23, 27)]
    made_ids = [ids.floor(moment)[:14] + "7000-8000-000000000000" for moment in made]
    await asyncio.gather(*(bench.ingest.submit(queued(box, mail_id=mail_id)) for mail_id in made_ids))
    assert await queued_ids.forget(database, now()) == 1
    assert await queued_ids.forget(database, now()) == 0
    again = await asyncio.gather(*(bench.ingest.submit(queued(box, mail_id=mail_id)) for mail_id in made_ids))
    assert [len(rows) for rows in again] == [0, 0, 0, 1]


async def test_sender_is_kept_whole_whatever_its_shape(bench: Bench) -> None:
    box = await settled(bench.store)
    for sender in ("bounces+" + "v" * 700 + "@b.c", "..dots@under_score.", "root"):
        rows = await bench.submit(box, sender=sender)
        assert (rows[0].envelope_from, (await bench.store.one(box, rows[0].id)).envelope_from) == (sender, sender)


BIG = b"Subject: big\r\nContent-Type: application/pdf\r\n\r\n" + b"text " * 250_000


async def occupied(bench: Bench, *clients: tuple[str, ...]) -> list["asyncio.Task[None]"]:
    """Children of the pool at work for these clients until the tasks are cancelled."""
    tasks = [asyncio.create_task(bench.sandbox.run(time.sleep, 3600, wait=60, clients=of(*keys))) for keys in clients]
    await asyncio.sleep(0)
    return tasks


async def ended(tasks: list["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_mail_that_finds_no_room_to_be_read_is_not_stored_and_read_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "PARSE_WAIT", 0.1)
    box = await settled(bench.store)
    working = await occupied(bench, (), ())
    envelope = Envelope("a@b.c", [Recipient(box.address, box.id)], BIG, client="192.0.2.1")
    assert await outcomes([bench.ingest.submit(envelope)]) == ["Unavailable"]
    assert await bench.subjects(box) == []
    await ended(working)
    monkeypatch.setattr(ingest, "PARSE_WAIT", 60)
    rows = await bench.ingest.submit(envelope)
    assert (rows[0].subject, rows[0].details.defect) == ("big", None)


async def test_sender_with_its_share_of_readers_harms_no_other_sender(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "PARSE_WAIT", 60)
    box = await settled(bench.store)
    working = await occupied(bench, *[("192.0.2.1",)] * 8)
    refused = bench.ingest.submit(Envelope("a@b.c", [Recipient(box.address, box.id)], BIG, client="192.0.2.1"))
    taken = bench.ingest.submit(Envelope("a@b.c", [Recipient(box.address, box.id)], BIG, client="192.0.2.2"))
    assert await outcomes([refused, taken]) == ["Unavailable", "stored"]
    assert (await taken)[0].details.defect is None
    await ended(working)


async def test_mail_whose_own_reading_breaks_a_bound_is_stored_with_a_defect(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "STARVED", 1000)  # however busy this machine is
    monkeypatch.setattr(ingest, "PARSE_TIMEOUT", 0.05)
    monkeypatch.setattr(ingest, "parse", _endless)
    box = await settled(bench.store)
    rows = await bench.ingest.submit(Envelope("a@b.c", [Recipient(box.address, box.id)], BIG))
    assert rows[0].details.defect == "SandboxTimeout"


def _endless(raw: bytes) -> bytes:
    while raw:
        pass
    return raw


async def test_mail_waiting_to_be_read_is_bounded_in_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "MAX_QUEUE_BYTES", len(BIG))
    monkeypatch.setattr(ingest, "PARSE_WAIT", 60)
    box = await settled(bench.store)
    working = await occupied(bench, (), ())
    first = bench.ingest.submit(Envelope("a@b.c", [Recipient(box.address, box.id)], BIG))
    await asyncio.sleep(0)
    second = bench.ingest.submit(Envelope("a@b.c", [Recipient(box.address, box.id)], BIG))
    await ended(working)
    assert await outcomes([first, second]) == ["stored", "Unavailable"]


async def test_client_whose_names_answer_slowly_leaves_checks_for_others(bench: Bench) -> None:
    box = await settled(bench.store)
    slow = asyncio.Event()

    async def ask(name: str, kind: str) -> Sequence[str]:
        if name.endswith("slow.example"):
            await slow.wait()
        return []

    checking = Authentication(bench.ingest, ask, bench.store, bench.coherence, of)
    try:
        before = dict(CHECKS.values)
        for n in range(CHECKS_MAX + 8):
            raw = f"From: a@{n}.slow.example\r\n\r\n".encode()
            await checking.submit(Envelope("", [Recipient(box.address, box.id)], raw, client="192.0.2.1"))
        raw = b"From: a@fast.example\r\n\r\n"
        await checking.submit(Envelope("", [Recipient(box.address, box.id)], raw, client="192.0.2.2"))
        async with asyncio.timeout(60):
            while CHECKS.values.get(("none",), 0) == before.get(("none",), 0):
                await asyncio.sleep(0.01)
    finally:
        slow.set()
        await checking.close()


async def test_client_that_fills_the_queue_of_checks_leaves_a_part_of_it(bench: Bench) -> None:
    box = await settled(bench.store)
    checking = Authentication(bench.ingest, _never, bench.store, bench.coherence, of)
    raw = b"From: a@b.example\r\nContent-Type: application/pdf\r\n\r\n" + b"x" * 900_000
    try:
        before = DROPPED.values[()]
        for _ in range(30):  # of 900 kB each, where one client may have 16 MiB
            await checking.submit(Envelope("", [Recipient(box.address, box.id)], raw, client="192.0.2.1"))
        mine = DROPPED.values[()] - before
        await checking.submit(Envelope("", [Recipient(box.address, box.id)], raw, client="192.0.2.2"))
        assert (mine, DROPPED.values[()] - before) == (mine, mine)
        assert mine > 0
    finally:
        await checking.close()


async def _never(name: str, kind: str) -> Sequence[str]:
    await asyncio.Event().wait()
    return []


class Handed:
    """A message as the queue hands it out."""

    def __init__(self, body: bytes) -> None:
        self.body, self.redelivered, self.gone = body, False, False
        self.settled = asyncio.Event()

    def accept(self) -> None:
        self.settled.set()

    def dead_letter(self) -> None:
        self.settled.set()


async def test_the_trace_says_which_mailboxes_a_queued_message_did_not_reach_and_why(bench: Bench) -> None:
    good, full, gone = await settled(bench.store), await settled(bench.store, capacity=1), await settled(bench.store)
    await bench.store.delete_inboxes([gone.id])
    await bench.submit(full)
    decisions = Decisions()
    intake = QueueConsumer(bench.ingest, timedelta(hours=24), lambda: asyncio.sleep(0), now, decisions)

    async def take(*boxes: Mailbox, sender: str = "s@example.com") -> list[tuple[str, str]]:
        recipients = [Recipient(box.address, box.id) for box in boxes]
        raw = b"Subject: x\r\n\r\ntext\r\n"
        handed = Handed(pack(Envelope(sender, recipients, raw, client="192.0.2.1", helo="h"), ids.new()))
        intake.take(handed)
        await asyncio.wait_for(handed.settled.wait(), 30)
        noted, _ = decisions.take()
        made = [row for one in noted for row in rows(one)]
        assert all((row.stage, row.client, row.sender) == ("data", "192.0.2.1", sender) for row in made)
        return sorted((row.mailbox_id or "", row.reply) for row in made)

    assert await take(good, full, gone) == sorted([(full.id, FULL), (gone.id, GONE)])
    assert await take(gone) == [(gone.id, GONE)]
    assert await take(good) == []
    await bench.pools.messages.execute(
        "ALTER TABLE messages.messages ADD CONSTRAINT no_poison CHECK (envelope_from <> 'poison@b.c')"
    )
    assert await take(good, sender="poison@b.c") == [(good.id, DEAD)]
