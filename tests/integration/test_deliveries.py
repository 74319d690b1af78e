"""The outbox: recorded with what it tells of or not at all, taken by one worker at a time, kept for a while only."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import asyncpg
import msgspec
import pytest

from server.config.settings import Config
from server.model import ids
from server.model.account import QUOTAS, User
from server.model.message import Mailbox
from server.model.webhook import TEST, Delivery, Event, Outcome, Webhook, mail_received, payload
from server.services.contracts import WebhookChange
from server.services.webhooks.http_client import TIMEOUT, Outbound
from server.services.webhooks.outbox import Outbox
from server.services.webhooks.sender import LEASE, MAX_SENDING_EACH, Deliverer
from server.services.webhooks.webhooks import WebhookService
from server.store import batch
from server.store.accounts import UserStore
from server.store.deliveries import EXPIRE_BATCH, DeliveryStore
from server.store.messages import MessageStore
from server.store.partitions import Partitions
from server.store.pools import Pools
from server.store.webhooks import WebhookStore
from tests.integration.mail import item, mailbox, now
from tests.receiving import Receiver, receiving, status

ALL: tuple[Event, ...] = ("mail.received", "mail.read", "mailbox.created", "mailbox.deleted")


class Told:
    """The stores and services over one database, and an account."""

    def __init__(self, pools: Pools, config: Config, user: User) -> None:
        self.pools, self.user = pools, user
        self.messages = MessageStore(pools.messages, now)
        self.partitions = Partitions(pools.messages, 3600)
        self.store, self.deliveries = WebhookStore(pools.users), DeliveryStore(pools.messages)
        self.outbound = Outbound(self._nowhere, [ip_network("127.0.0.1")])
        self.deliverer = Deliverer(config, self.deliveries, self.store, self.outbound, now)
        self.webhooks = WebhookService(self.store, self.deliveries, self.deliverer, self.outbound, now)
        self.outbox = Outbox(self.deliveries, now, self.deliverer.wake)
        self.woken = 0

    async def _nowhere(self, _host: str) -> list[str]:
        return []

    async def hook(self, *events: Event, url: str = "https://example.org/") -> Webhook:
        return await self.webhooks.create(self.user.id, url, events or ("mail.received",), "")

    async def box(self) -> Mailbox:
        made = msgspec.structs.replace(mailbox(), user_id=self.user.id)
        await self.messages.create_inbox(made, 0)
        return made

    async def receive(self, *boxes: Mailbox, subject: str = "hello") -> None:
        def wake() -> None:
            self.woken += 1

        one = item(*boxes, subject=subject)
        await batch.write(self.pools.messages, 0, [one], now(), wake)

    async def rows(self, columns: str = "*") -> list[Any]:
        return await self.pools.messages.fetch(f"SELECT {columns} FROM messages.deliveries ORDER BY id")

    async def listeners(self) -> dict[str, list[str]]:
        found = await self.pools.messages.fetch("SELECT webhook_id, events FROM messages.listeners")
        return {str(row["webhook_id"]): sorted(row["events"]) for row in found}


@pytest.fixture
async def told(pools: Pools, settings: Config) -> AsyncIterator[Told]:
    moment = now()
    user = User(ids.new(), "a@example.org", None, "free", "user", True, False, moment, moment, None, QUOTAS["free"])
    await UserStore(pools.users).insert(user, "no password")
    made = Told(pools, settings, user)
    await made.partitions.ahead(now(), 7200)
    yield made
    await made.deliverer.close()
    await made.outbound.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as started:
        yield started


async def test_one_row_for_each_mailbox_that_is_listened_to_and_each_that_listens(told: Told) -> None:
    first, second = await told.hook("mail.received"), await told.hook(*ALL)
    await told.hook("mail.read")
    mine, also, guest = await told.box(), await told.box(), mailbox()
    await told.messages.create_inbox(guest, 0)
    await told.receive(mine, also, guest)
    rows = await told.rows("webhook_id, event, data->>'mailboxId' AS box, data->>'seq' AS seq, user_id")
    expected = {(hook.id, box.id) for hook in (first, second) for box in (mine, also)}
    assert {(str(row["webhook_id"]), row["box"]) for row in rows} == expected
    assert len(rows) == 4
    assert {(row["event"], row["seq"], str(row["user_id"])) for row in rows} == {("mail.received", "1", told.user.id)}
    assert told.woken == 1


async def test_mail_that_nobody_listens_to_leaves_nothing_and_wakes_nobody(told: Told) -> None:
    await told.hook("mail.read")
    await told.receive(await told.box())
    assert (await told.rows(), told.woken) == ([], 0)


async def test_mail_that_cannot_be_told_of_is_not_stored_either(told: Told) -> None:
    await told.hook()
    box = await told.box()
    await told.pools.messages.execute("ALTER TABLE messages.deliveries ADD CHECK (event <> 'mail.received')")
    with pytest.raises(asyncpg.CheckViolationError):
        await told.receive(box)
    assert (await told.rows(), told.woken) == ([], 0)
    assert await told.messages.page(box, 10, 0, 1 << 62) == ([], 0)


async def test_what_the_log_quotes_goes_with_the_mailbox(told: Told, receiver: Receiver) -> None:
    """At once where the delivery is over, and with its last attempt where it was still to come."""
    await told.hook(url=f"http://127.0.0.1:{receiver.port}/")
    box, other = await told.box(), await told.box()
    await told.receive(box, subject="SECRET sent")
    await told.receive(other, subject="kept")
    for one in await told.deliveries.take([], 10, 10, 60):
        await told.deliveries.tried(one, Outcome(1, 200, "I got SECRET"), None)
    await told.receive(box, subject="SECRET waiting")
    await told.receive(box, subject="SECRET dropped")
    await told.messages.end({box.id: box.address}, "deleted")
    sent, kept, *waiting = await told.rows("data::text, response")
    assert (json.loads(sent["data"]), sent["response"]) == ({**json.loads(sent["data"]), "mailboxId": box.id}, None)
    assert set(json.loads(sent["data"])) == {"messageId", "mailboxId", "seq"}
    assert "kept" in kept["data"]
    assert ["SECRET" in row["data"] for row in waiting] == [True, True]
    first, second = await told.deliveries.take([], 10, 10, 60)
    assert await told.deliveries.tried(first, Outcome(1, error="refused"), 60)
    assert sum("SECRET" in row["data"] for row in await told.rows("data::text")) == 2
    await told.deliveries.tried(msgspec.structs.replace(first), Outcome(1, 200), None)
    await told.deliveries.drop([second], "gone")
    assert not [row for row in await told.rows("data::text") if "SECRET" in row["data"]]


async def test_missing_partition_tells_nobody_until_there_is_one(told: Told) -> None:
    await told.hook()
    far = msgspec.structs.replace(mailbox(timedelta(days=3)), user_id=told.user.id)
    await told.messages.create_inbox(far, 0)
    with pytest.raises(asyncpg.CheckViolationError):
        await told.receive(far)
    assert (await told.rows(), told.woken) == ([], 0)
    await told.partitions.ensure(await batch.partitions_wanted(told.pools.messages, 0, [item(far)], now()))
    await told.receive(far)
    assert len(await told.rows()) == 1


async def test_reading_is_told_once_and_in_its_own_transaction(told: Told) -> None:
    await told.hook("mail.read")
    box = await told.box()
    await told.receive(box)
    [message] = (await told.messages.page(box, 10, 0, 1 << 62))[0]
    done = await asyncio.gather(*(told.messages.mark_read(box, message.id) for _ in range(5)))
    assert sorted(done) == [False] * 4 + [True]
    assert [row["event"] for row in await told.rows()] == ["mail.read"]


async def test_end_of_a_mailbox_is_told_to_its_owner_alone(told: Told) -> None:
    await told.hook("mailbox.deleted")
    mine, guest = await told.box(), mailbox()
    await told.messages.create_inbox(guest, 0)
    await told.messages.end({mine.id: mine.address, guest.id: guest.address}, "expired")
    [row] = await told.rows("data->>'mailboxId' AS box, data->>'address' AS address, data->>'reason' AS reason")
    assert tuple(row) == (mine.id, mine.address, "expired")


async def test_nobody_takes_what_another_holds(told: Told) -> None:
    for _ in range(6):
        await told.hook()
    box = await told.box()
    for _ in range(10):
        await told.receive(box)
    taken = await asyncio.gather(*(told.deliveries.take([], 100, 7, 60) for _ in range(12)))
    names = [one.id for some in taken for one in some]
    assert len(names) == len(set(names))
    rest = await told.deliveries.take([], 100, 100, 60)
    assert {*names, *(one.id for one in rest)} == {str(row["id"]) for row in await told.rows("id")}
    assert len(names) + len(rest) == 60
    assert await told.deliveries.take([], 100, 100, 60) == []


async def test_long_queue_of_one_webhook_leaves_room_for_the_others(told: Told) -> None:
    busy, box = await told.hook(), await told.box()
    for _ in range(30):
        await told.receive(box)
    other = await told.hook("mail.read")
    [message, *_] = (await told.messages.page(box, 10, 0, 1 << 62))[0]
    await told.messages.mark_read(box, message.id)
    taken = await told.deliveries.take([], 4, 64, 60)
    assert sorted(one.webhook_id for one in taken) == sorted([busy.id] * 4 + [other.id])
    assert await told.deliveries.take([busy.id], 4, 64, 60) == []
    assert len(await told.deliveries.take([], 4, 64, 60)) == 4


async def test_lease_that_is_over_gives_the_row_to_the_next_and_shuts_out_the_late(told: Told) -> None:
    await told.hook()
    await told.receive(await told.box())
    [late] = await told.deliveries.take([], 4, 64, 0)
    [heir] = await told.deliveries.take([], 4, 64, 60)
    assert (heir.id, heir.fence) == (late.id, late.fence + 1)
    assert await told.deliveries.tried(late, Outcome(1, status_code=200), None) is None
    await told.deliveries.give_back([late])
    await told.deliveries.drop([late], "late")
    assert await told.deliveries.take([], 4, 64, 60) == []
    done = await told.deliveries.tried(heir, Outcome(7, 200, "nul \0"), None)
    assert done
    assert (done.success, done.attempts, done.due_at, done.duration, done.response) == (True, 1, None, 7, "nul �")


async def test_every_attempt_waits_for_its_own_delay_and_the_last_for_none(told: Told) -> None:
    await told.hook()
    failed = Outcome(1, status_code=500)
    one = Delivery(ids.new(), ids.new(), told.user.id, "mail.received", "{}", now())
    delays = [told.deliverer._retry(msgspec.structs.replace(one, attempts=n), failed) for n in range(6)]
    assert delays[5] is None
    for delay, promised in zip(delays, (60, 300, 900, 3600, 21600), strict=False):
        assert delay is not None
        assert promised * 0.9 <= delay <= promised * 1.1
    assert len({told.deliverer._retry(one, failed) for _ in range(20)}) > 1  # jitter
    trial = msgspec.structs.replace(one, event=TEST)
    for what, outcome in ((one, Outcome(1, status_code=204)), (one, Outcome(1, status_code=410)), (trial, failed)):
        assert told.deliverer._retry(what, outcome) is None


async def test_copy_of_who_listens_follows_every_change(told: Told) -> None:
    user = told.user.id
    hook = await told.hook("mail.received")
    assert await told.listeners() == {hook.id: ["mail.received"]}
    await told.webhooks.update(user, hook.id, WebhookChange(events=("mail.read", "mailbox.created")))
    assert await told.listeners() == {hook.id: ["mail.read", "mailbox.created"]}
    await told.webhooks.update(user, hook.id, WebhookChange(is_active=False))
    assert await told.listeners() == {}
    await told.webhooks.update(user, hook.id, WebhookChange(is_active=True))
    assert await told.listeners() == {hook.id: ["mail.read", "mailbox.created"]}
    await told.webhooks.disable(user, hook.id, "410")
    assert await told.listeners() == {}
    await told.webhooks.update(user, hook.id, WebhookChange(is_active=True))
    await told.webhooks.delete(user, hook.id)
    assert await told.listeners() == {}


async def test_changes_at_once_never_leave_the_copy_narrower_than_the_truth(told: Told) -> None:
    hook = await told.hook("mail.received")
    rivals = [WebhookService(told.store, told.deliveries, told.deliverer, told.outbound, now) for _ in range(4)]
    for turn in range(10):
        wanted: list[tuple[Event, ...]] = [(ALL[turn % 4],), ALL, (ALL[(turn + 1) % 4],), ("mail.read",)]
        await asyncio.gather(
            *(
                rival.update(told.user.id, hook.id, WebhookChange(events=events))
                for rival, events in zip(rivals, wanted, strict=True)
            )
        )
        truth = await told.webhooks.one(told.user.id, hook.id)
        assert await told.listeners() == {hook.id: sorted(truth.events)}


async def test_copy_that_a_crash_left_too_wide_is_narrowed_by_the_first_row_that_shows_it(
    told: Told, receiver: Receiver
) -> None:
    hook = await told.hook(url=f"http://127.0.0.1:{receiver.port}/")
    ghost = msgspec.structs.replace(hook, id=ids.new())
    await told.deliveries.widen(ghost)  # and the process died
    await told.deliveries.widen(msgspec.structs.replace(hook, events=("mail.read",)))
    box = await told.box()
    await told.receive(box)
    [message] = (await told.messages.page(box, 10, 0, 1 << 62))[0]
    await told.messages.mark_read(box, message.id)
    assert len(await told.rows()) == 3
    told.deliverer.obey(told.webhooks.disable, told.webhooks.narrow)
    told.deliverer.start()
    told.deliverer.wake()
    await receiver.until(lambda r: len(r.requests) == 1)
    async with asyncio.timeout(60):
        while await told.listeners() != {hook.id: ["mail.received"]}:
            await asyncio.sleep(0.02)
        while any(row["due_at"] for row in await told.rows()):
            await asyncio.sleep(0.02)
    errors = [row["error"] for row in await told.rows()]
    assert sorted(error or "" for error in errors)[0] == ""
    assert sum("gone" in (error or "") for error in errors) == 2
    assert len(receiver.requests) == 1


async def test_webhooks_of_an_account_that_is_switched_off_stay_silent(told: Told, receiver: Receiver) -> None:
    await told.hook(url=f"http://127.0.0.1:{receiver.port}/")
    await told.pools.users.execute("UPDATE users.users SET is_active = false")
    await told.receive(await told.box())
    told.deliverer.obey(told.webhooks.disable, told.webhooks.narrow)
    told.deliverer.start()
    told.deliverer.wake()
    async with asyncio.timeout(60):
        while any(row["due_at"] for row in await told.rows()):
            await asyncio.sleep(0.02)
    assert receiver.connections == 0


async def test_one_host_gets_few_requests_at_once_whatever_webhooks_lead_there(told: Told, receiver: Receiver) -> None:
    for n in range(5):
        await told.hook(url=f"http://127.0.0.1:{receiver.port}/{n}")
    most, open_now = 0, 0
    answered = status(200)

    async def answer(request: Any, writer: asyncio.StreamWriter) -> None:
        nonlocal most, open_now
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0.05)
        open_now -= 1
        await answered(request, writer)

    receiver.answer = answer
    box = await told.box()
    for _ in range(4):
        await told.receive(box)
    told.deliverer.obey(told.webhooks.disable, told.webhooks.narrow)
    told.deliverer.start()
    told.deliverer.wake()
    await receiver.until(lambda r: len(r.requests) == 20)
    assert 1 < most <= MAX_SENDING_EACH
    async with asyncio.timeout(60):
        while not all(row["success"] for row in await told.rows()):
            await asyncio.sleep(0.02)
    assert len(receiver.requests) == 20


async def test_ending_worker_leaves_what_it_was_sending_to_others_at_once(told: Told, receiver: Receiver) -> None:
    async def hang(_: Any, __: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)

    receiver.answer = hang
    await told.hook(url=f"http://127.0.0.1:{receiver.port}/")
    await told.receive(await told.box())
    told.deliverer.obey(told.webhooks.disable, told.webhooks.narrow)
    told.deliverer.start()
    told.deliverer.wake()
    await receiver.until(lambda r: len(r.requests) == 1)
    await told.deliverer.close()
    [one] = await told.deliveries.take([], 4, 64, 60)
    assert (one.attempts, one.success) == (0, False)


async def test_log_goes_back_as_far_as_it_is_kept_and_no_further(told: Told) -> None:
    hook = await told.hook()
    await told.receive(await told.box())
    old = [(ids.floor(now() - timedelta(hours=73))[:-12] + f"{n:012x}",) for n in range(EXPIRE_BATCH + 5)]
    async with told.pools.messages.connection() as connection:
        await connection.executemany(
            "INSERT INTO messages.deliveries (id, webhook_id, user_id, event, data, created_at, due_at)"
            f" VALUES ($1, '{hook.id}', '{told.user.id}', 'mail.read', '{{}}', now(), now())",
            old,
        )
    await told.deliverer.expire()
    [kept] = await told.rows()
    assert kept["event"] == "mail.received"


async def test_event_that_cannot_be_recorded_undoes_nothing(told: Told) -> None:
    await told.hook("mailbox.created")
    await told.pools.messages.execute("DROP TABLE messages.deliveries")
    await told.outbox.record(told.user.id, "mailbox.created", {})
    await told.outbox.record(None, "mailbox.created", {})


async def test_payload_stays_within_its_bound_whatever_the_mail_holds(told: Told) -> None:
    box = await told.box()
    [[row]] = await batch.write(told.pools.messages, 0, [item(box)], now())
    details = msgspec.structs.replace(row.details, links=("\x01" * 2000,) * 5000, codes=("123456",))
    huge = msgspec.structs.replace(row, subject="\U0001f4e7" * 1000, details=details)
    body = payload(Delivery(ids.new(), ids.new(), told.user.id, "mail.received", mail_received(huge), now()))
    assert len(body) <= 1_000_000
    assert msgspec.json.decode(body)["data"]["codes"] == ["123456"]


def test_a_lease_outlasts_the_longest_attempt_and_the_writing_of_its_outcome() -> None:
    """Else another worker sends the same delivery while the first still waits for the answer."""
    assert LEASE >= TIMEOUT + 5
