"""Administration over a real database: counters that never drift, acts noted or undone whole, what deletion leaves."""

import asyncio
import random
import secrets
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from server.cache.generations import Generations, Writer
from server.cache.responses import ResponseCache
from server.config.settings import Config
from server.model import ids
from server.model.account import ROLES, TIERS, User
from server.model.admin import Actor, Changes, MailboxFilter
from server.model.errors import Refused, Unavailable
from server.model.event import Hint, Kind
from server.model.message import Mailbox
from server.services.accounts.account_cleanup import GRACE, Departures
from server.services.accounts.accounts import new_user
from server.services.admin.administration import AdministrationService
from server.services.admin.settings import Settings, written
from server.services.coherence import Coherence
from server.store import admin as administration_store
from server.store import batch
from server.store.abuse import AbuseStore
from server.store.account_cleanup import DepartureStore
from server.store.accounts import UserStore
from server.store.admin import AdministrationStore
from server.store.bans import BanStore
from server.store.mailboxes import MailboxStore
from server.store.messages import MessageStore
from server.store.partitions import Partitions
from server.store.pools import Pools
from tests.integration.mail import item, mailbox, now

ROOT = Actor(None, "command line", "super", "")


class Host:
    """Two workers over one database and one shared memory, and what they told the world."""

    def __init__(self, config: Config, pools: Pools) -> None:
        self.pools, self.config, self.told = pools, config, list[Hint]()
        self.generations = Generations(2)
        self.store, self.users = AdministrationStore(pools), UserStore(pools.users)
        self.mailboxes, self.messages = MailboxStore(pools.mailboxes), MessageStore(pools.messages, now)
        self.coherences = [
            Coherence(self.generations, Writer(self.generations, n), self.told.extend, 1) for n in (0, 1)
        ]
        self.services = [AdministrationService(self.store, self.users, c, lambda: None, now) for c in self.coherences]

    def settings(self, worker: int) -> Settings:
        local = ResponseCache(self.generations, 1 << 20, 60)
        return Settings(self.config, self.store, self._served, local, self.coherences[worker], now)

    async def _served(self) -> list[str]:
        return ["temp.mail"]

    async def user(self, **fields: Any) -> User:
        made = msgspec.structs.replace(new_user(f"{secrets.token_hex(8)}@example.org", None, now()), **fields)
        await self.users.insert(made, "hash")
        return made

    async def box(self, user: User | None = None, life: timedelta | None = timedelta(hours=1)) -> Any:
        made = msgspec.structs.replace(mailbox(life), user_id=user.id if user else None)
        await self.messages.create_inbox(made, 0)
        await self.mailboxes.insert(made)
        return made


@pytest.fixture
async def host(settings: Config, pools: Pools) -> Host:
    return Host(settings, pools)


# Counters.


async def test_counters_are_the_truth_after_any_work(host: Host) -> None:
    dice = random.Random(7)
    partitions = Partitions(host.pools.messages, 3600)
    await partitions.ahead(now(), 7200)
    users: list[User] = [await host.user(role="super")]
    boxes: list[Any] = []
    received = 0

    async def account() -> None:
        users.append(await host.user(role=dice.choice(ROLES)))

    async def change() -> None:
        changes = Changes(dice.choice(ROLES), dice.choice(TIERS), dice.choice([True, False]))
        await asyncio.gather(
            *(service.change(ROOT, dice.choice(users).id, changes) for service in host.services),
            return_exceptions=True,  # the last super user stays one
        )

    async def remove() -> None:
        gone = dice.choice(users[1:] or users)
        with_refusal = await asyncio.gather(host.services[0].delete(ROOT, gone.id), return_exceptions=True)
        if with_refusal == [None]:
            users.remove(gone)

    async def make() -> None:
        lives = [timedelta(hours=1), timedelta(seconds=-1)]
        boxes.extend(await asyncio.gather(*(host.box(life=dice.choice(lives)) for _ in range(8))))

    async def receive() -> None:
        nonlocal received
        reached = [b for b in dice.sample(boxes, min(5, len(boxes))) if b.expires_at > now()]
        if reached:
            items = [item(box) for box in reached] + [item(*reached)]
            await batch.write(host.pools.messages, 0, items, now())
            received += 2 * len(reached)

    async def fail() -> None:
        living = [b for b in boxes if b.expires_at > now()][:1]
        if living:
            with pytest.raises(batch.Shortfall):
                await batch.write(host.pools.messages, 0, [item(*living, mailbox())], now())

    async def end() -> None:
        await host.mailboxes.take_expired(now(), dice.randrange(1, 5))
        gone = dice.sample(boxes, min(2, len(boxes)))
        for box in gone:
            await host.mailboxes.delete(box.id)
            boxes.remove(box)
            await host.messages.delete_inboxes([box.id])

    for _ in range(120):
        await dice.choice((account, change, remove, make, receive, fail, end))()
    await compare(host, received)


async def compare(host: Host, received: int) -> None:
    found = await host.store.statistics(now().date())
    people = await host.pools.users.fetch("SELECT tier, role, is_active FROM users.users")
    living = await host.pools.mailboxes.fetch("SELECT domain FROM mailboxes.mailboxes")
    assert found.total_users == len(people)
    assert found.active_users == sum(row["is_active"] for row in people)
    assert Counter(found.users_by_tier) == Counter(row["tier"] for row in people)
    assert Counter(found.users_by_role) == Counter(row["role"] for row in people)
    assert found.active_mailboxes == len(living)
    assert found.mailboxes_by_domain == Counter(row["domain"] for row in living)
    assert found.total_mailboxes >= found.active_mailboxes
    assert (found.total_messages, found.messages_today) == (received, received)


async def test_yesterdays_messages_are_not_todays(host: Host) -> None:
    partitions, box = Partitions(host.pools.messages, 3600), await host.box()
    await partitions.ahead(now(), 7200)
    for day, count in ((now() - timedelta(days=1), 3), (now(), 2)):
        for _ in range(count):
            await batch.write(host.pools.messages, 0, [item(box)], day)
    today, tomorrow = now().date(), (now() + timedelta(days=1)).date()
    assert (await host.store.statistics(today)).messages_today == 2
    assert (await host.store.statistics(tomorrow)).messages_today == 0
    assert (await host.store.statistics(tomorrow)).total_messages == 5


async def test_opposite_changes_of_many_accounts_do_not_deadlock(host: Host) -> None:
    people = [await host.user() for _ in range(8)]
    changes = [Changes(tier="pro"), Changes(tier="free")]
    for turn in range(6):
        acts = [host.services[n % 2].change(ROOT, one.id, changes[(n + turn) % 2]) for n, one in enumerate(people)]
        await asyncio.gather(*acts)
    await compare(host, 0)


# Acts and their trail.


async def test_an_act_that_cannot_be_noted_is_not_done(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    user = await host.user()

    async def unable(*_: object) -> None:
        raise asyncpg.PostgresError("the trail cannot be written")

    monkeypatch.setattr(administration_store, "write_act", unable)
    service, quota = host.services[0], {"max_mailboxes": 1}
    for act in (
        service.change(ROOT, user.id, Changes(tier="pro")),
        service.set_quota(ROOT, user.id, quota),
        service.delete(ROOT, user.id),
        host.settings(0).change(ROOT, {"mailbox.maxAliases": 9}),
    ):
        with pytest.raises(Unavailable):
            await act
    assert await service.user(user.id) == msgspec.structs.replace(user)
    assert (await host.store.overrides()).values == {}
    assert await host.pools.users.fetch("SELECT 1 FROM users.departures") == []


async def test_of_super_users_who_remove_each_other_at_once_one_is_left(host: Host) -> None:
    for changes in (Changes(role="user"), Changes(is_active=False)):
        supers = [await host.user(role="super") for _ in range(6)]
        await host.pools.users.execute("UPDATE users.users SET role = 'user' WHERE NOT id = ANY($1)", _ids(supers))
        acts = [
            host.services[n % 2].change(Actor(one.id, one.email, "super", ""), supers[n - 1].id, changes)
            for n, one in enumerate(supers)
        ]
        done = await asyncio.gather(*acts, return_exceptions=True)
        assert sum(isinstance(one, Refused) for one in done) == 1
        left = await host.pools.users.fetch("SELECT 1 FROM users.users WHERE role = 'super' AND is_active")
        assert len(left) == 1


def _ids(users: list[User]) -> list[str]:
    return [user.id for user in users]


async def test_a_deletion_leaves_nothing_of_the_account_in_its_own_domain(host: Host) -> None:
    user = await host.user()
    await host.services[0].set_quota(ROOT, user.id, {"max_mailboxes": 1})
    await host.services[0].delete(ROOT, user.id)
    for table in ("users", "quotas"):
        assert await host.pools.users.fetch(f"SELECT 1 FROM users.{table}") == []
    acts, total = await host.services[1].acts(1, 10)
    assert ([act.action for act in acts], total) == (["user.delete", "quota.set"], 2)


# What a deleted account leaves elsewhere.


async def test_what_a_deleted_account_had_goes_though_the_deleting_worker_died(host: Host) -> None:
    user, other = await host.user(), await host.user()
    boxes = [await host.box(user, life) for life in (None, timedelta(hours=1)) for _ in range(3)]
    kept = await host.box(other)
    await host.services[0].delete(ROOT, user.id)  # and its worker dies before anything else
    ends = [Departures(DepartureStore(host.pools), coherence, now) for coherence in host.coherences]
    host.told.clear()
    await asyncio.gather(*(departures.round() for departures in ends))
    assert {hint.mailbox_id for hint in host.told if hint.kind is Kind.EXPIRED} == {box.id for box in boxes}
    assert [str(row["id"]) for row in await host.pools.mailboxes.fetch("SELECT id FROM mailboxes.mailboxes")] == [
        kept.id
    ]
    assert len(await host.pools.messages.fetch("SELECT 1 FROM messages.inboxes")) == 1


async def test_a_mailbox_made_while_its_owner_was_being_deleted_goes_too(host: Host) -> None:
    user, ahead = await host.user(), timedelta()
    departures = Departures(DepartureStore(host.pools), host.coherences[0], lambda: now() + ahead)
    await host.services[0].delete(ROOT, user.id)
    await departures.round()
    late = await host.box(user)
    ahead = GRACE + timedelta(seconds=1)
    await departures.round()
    assert await host.mailboxes.by_id(late.id) is None
    assert await host.pools.users.fetch("SELECT 1 FROM users.departures") == []


async def test_a_round_that_breaks_off_is_taken_up_by_another_worker(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, ahead = await host.user(), timedelta()
    box = await host.box(user)
    await host.services[0].delete(ROOT, user.id)
    first, second = (Departures(DepartureStore(host.pools), c, lambda: now() + ahead) for c in host.coherences)

    async def broken(*_: object) -> None:
        raise Unavailable("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(first._store, "end", broken)
        with pytest.raises(Unavailable):
            await first.round()
    assert await host.mailboxes.by_id(box.id) is not None
    ahead = timedelta(seconds=20)
    await second.round()
    assert await host.mailboxes.by_id(box.id) is None


# Settings.


async def test_a_change_is_stale_in_every_other_worker_before_it_is_answered(host: Host) -> None:
    writer, reader = host.settings(0), host.settings(1)
    await asyncio.gather(writer.load(), reader.load())
    adopted: list[Config] = []
    reader.on_change(adopted.append)
    for aliases in range(1, 30):
        assert not reader.stale()
        await writer.change(ROOT, {"mailbox.maxAliases": aliases})
        assert writer.current.mailbox_max_aliases == aliases
        assert reader.stale()
        await asyncio.gather(*(reader.refresh() for _ in range(5)))
        assert reader.current.mailbox_max_aliases == aliases
    changed = [config.mailbox_max_aliases for config in adopted]
    assert changed == sorted(set(changed))


async def test_readers_that_race_a_change_never_go_back(host: Host) -> None:
    writer, reader = host.settings(0), host.settings(1)
    await asyncio.gather(writer.load(), reader.load())
    answered, seen = 0, 0

    async def write() -> None:
        nonlocal answered
        for aliases in range(6, 60):
            await writer.change(ROOT, {"mailbox.maxAliases": aliases})
            answered = aliases

    task = asyncio.create_task(write())
    while not task.done():
        known = answered
        if reader.stale():
            await reader.refresh()
        assert reader.current.mailbox_max_aliases >= max(known, seen)
        seen = reader.current.mailbox_max_aliases
        await asyncio.sleep(0)
    await task


async def test_settings_hold_while_the_database_is_away(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = host.settings(0)
    await settings.change(ROOT, {"mailbox.maxAliases": 9})

    async def away() -> None:
        raise Unavailable("the database is away")

    monkeypatch.setattr(host.store, "overrides", away)
    Writer(host.generations, 1).bump([host.generations.slot(b"ffffffff-ffff-ffff-ffff-ffffffffffff")])
    assert settings.stale()
    await settings.refresh()
    assert settings.current.mailbox_max_aliases == 9
    assert not settings.stale()  # asked again in a second, not with every request


async def test_only_what_differs_from_the_configuration_is_kept(host: Host) -> None:
    settings = host.settings(0)
    await settings.change(ROOT, {"mailbox.maxAliases": 9, "mailbox.maxPerIp": host.config.mailbox_max_per_ip})
    assert (await host.store.overrides()).values == {"mailbox.maxAliases": 9}
    await settings.change(ROOT, {"mailbox.maxAliases": host.config.mailbox_max_aliases})
    assert (await host.store.overrides()).values == {}
    await settings.change(ROOT, {"smtp.readTimeout": "45s"})
    await asyncio.sleep(0.002)  # acts are sorted by the millisecond
    await settings.reset(ROOT)
    assert settings.current == host.config
    acts, _ = await host.services[0].acts(1, 2)
    assert [(act.action, act.before, act.after) for act in acts] == [
        ("settings.reset", {"smtp.readTimeout": "45s"}, {}),
        ("settings.update", {}, {"smtp.readTimeout": "45s"}),
    ]


async def test_what_another_release_kept_is_left_out_and_not_in_the_way(host: Host) -> None:
    kept = '{"mailbox.maxAliases": 9, "mailbox.colour": "red", "smtp.maxSize": -5}'
    await host.pools.users.execute("UPDATE users.settings SET overrides = $1", kept)
    settings = host.settings(0)
    await settings.load()
    assert settings.current == msgspec.structs.replace(host.config, mailbox_max_aliases=9)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.25, "250ms"), (90, "1m30s"), (900, "15m"), (3600, "1h"), (604800, "7d"), (90061, "1d1h1m1s")],
)
def test_durations_are_written_as_they_are_read(seconds: float, text: str) -> None:
    assert written(seconds) == text


async def test_what_the_command_line_bans_is_known_to_all_workers_once_one_has_looked(host: Host) -> None:
    workers = [host.settings(0), host.settings(1)]
    await workers[0].follow()
    for worker in workers:
        await worker.load()
    store = BanStore(host.pools.users)
    made = await store.add(ROOT, "network", "2001:db8::/48", "floods", None, now())
    assert not any(worker.stale() for worker in workers), "the command line moves no generation"
    await workers[0].follow()
    for worker in workers:
        assert worker.stale()
        await worker.refresh()
        assert worker.bans.client("2001:db8::7")
    await workers[0].follow()
    assert not any(worker.stale() for worker in workers), "nothing more was done"
    await store.remove(ROOT, made.id, now())
    await workers[0].follow()
    assert all(worker.stale() for worker in workers)


async def test_an_id_that_is_none_is_an_unknown_account(host: Host) -> None:
    for user_id in ("", "x", ids.new()):
        with pytest.raises(Refused) as refused:
            await host.services[0].delete(ROOT, user_id)
        assert refused.value.word == "user_not_found"


async def test_who_made_a_mailbox_is_known_for_the_days_of_the_setting_by_the_databases_clock(pools: Pools) -> None:
    store, mailboxes = AbuseStore(pools.mailboxes), MailboxStore(pools.mailboxes)
    old, new, unnoted = (
        Mailbox(ids.new(), f"box{n}", "temp.mail", b"0" * 32, datetime.now(UTC), None) for n in range(3)
    )
    await mailboxes.insert(old, client="192.0.2.1")
    await mailboxes.insert(new, client="fe80::1%eth0")
    await mailboxes.insert(unnoted)
    async with pools.mailboxes.connection() as connection:
        await connection.execute(
            "UPDATE mailboxes.creators SET at = now() - interval '8 days' WHERE mailbox_id = $1", old.id
        )
    found, _ = await store.page(MailboxFilter(), 10, 0)
    assert {one.id: one.client for one in found} == {old.id: "192.0.2.1", new.id: "fe80::1", unnoted.id: ""}
    assert await store.forget_creators(7 * 86400.0, 1000) == 1
    found, _ = await store.page(MailboxFilter(), 10, 0)
    assert {one.id: one.client for one in found} == {old.id: "", new.id: "fe80::1", unnoted.id: ""}
    assert await store.forget_creators(0.0, 1000) == 1
