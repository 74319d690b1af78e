"""Mailboxes: made once, opened by their token alone, extended with their mail, ended in time by any sweeper."""

import asyncio
import time
from datetime import timedelta

import pytest

from server.cache.buckets import Buckets
from server.cache.generations import Generations, Writer
from server.cache.responses import ResponseCache
from server.cache.semaphore import SharedSemaphore
from server.config.settings import Config
from server.model import ids
from server.model.errors import Refused
from server.model.event import Hint, Kind
from server.model.message import FOREVER
from server.services.coherence import Coherence
from server.services.domains.served import ServedDomains
from server.services.limits import RateLimits
from server.services.mailboxes import mailboxes as mailboxes_module
from server.services.mailboxes.eraser import Eraser
from server.services.mailboxes.mailboxes import REFUSAL_BEAT, MailboxService
from server.services.mailboxes.retention import Retention
from server.services.webhooks.outbox import Outbox
from server.store import batch
from server.store.deliveries import DeliveryStore
from server.store.domains import DomainStore
from server.store.erasures import ErasureStore
from server.store.mailboxes import MailboxStore
from server.store.messages import MessageStore
from server.store.partitions import Partitions
from server.store.pools import Pools
from tests.integration.mail import item, now


class Host:
    """Two workers' mailbox services over one database and one shared memory, and what they told the world."""

    def __init__(self, config: Config, pools: Pools) -> None:
        self.told: list[Hint] = []
        self.generations, self.buckets = Generations(2), Buckets()
        self.pools, self.config = pools, config
        self.messages = MessageStore(pools.messages, now)
        self.partitions = Partitions(pools.messages, 3600)
        self.coherences = [
            Coherence(self.generations, Writer(self.generations, column), self.told.extend, 1) for column in range(2)
        ]
        self.services = [self._worker(coherence) for coherence in self.coherences]

    def _worker(self, coherence: Coherence) -> MailboxService:
        local = ResponseCache(self.generations, 1 << 20, 60)
        return MailboxService(
            self.config,
            MailboxStore(self.pools.mailboxes),
            self.messages,
            self.partitions,
            RateLimits(self.config, self.buckets, SharedSemaphore()),
            ServedDomains(DomainStore(self.pools.mailboxes), local, self.config.domains, self.config.cache_ttl),
            local,
            coherence,
            Outbox(DeliveryStore(self.pools.messages), now, lambda: None),
            now,
        )


@pytest.fixture
async def host(settings: Config, pools: Pools) -> Host:
    return Host(settings, pools)


async def test_one_address_is_given_once_however_many_ask(host: Host) -> None:
    asked = [host.services[n % 2].establish("wanted", "temp.mail", timedelta(hours=1), 0) for n in range(10)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    refused = [r for r in results if isinstance(r, Refused)]
    assert len(refused) == 9
    assert {r.word for r in refused} == {"mailbox_exists"}
    inboxes = await host.pools.messages.fetch("SELECT 1 FROM messages.inboxes")
    assert len(inboxes) == 1


async def test_address_of_an_expired_mailbox_is_free_before_the_sweep(host: Host) -> None:
    old = await host.services[0].establish("again", "temp.mail", timedelta(seconds=-1), 0)
    new = await host.services[1].establish("again", "temp.mail", timedelta(hours=1), 0)
    with pytest.raises(Refused):
        await host.services[0].authorise(old.mailbox.id, old.token)
    assert (await host.services[0].authorise(new.mailbox.id, new.token)).id == new.mailbox.id
    assert Hint(Kind.EXPIRED, old.mailbox.id) in host.told


async def test_only_the_token_opens_and_every_refusal_is_the_same(host: Host) -> None:
    one, two = [await host.services[0].establish(n * 4, "temp.mail", timedelta(hours=1), 0) for n in "ab"]
    attempts = [
        (one.mailbox.id, two.token),
        (one.mailbox.id, ""),
        (one.mailbox.id, "\ud800"),
        (ids.new(), one.token),
        ("x", one.token),
        ("' OR 1=1", one.token),
    ]
    for mailbox_id, token in attempts:
        began = time.perf_counter()
        with pytest.raises(Refused) as refused:
            await host.services[1].authorise(mailbox_id, token)
        assert (refused.value.word, refused.value.detail) == ("mailbox_not_found", "")
        assert time.perf_counter() - began > REFUSAL_BEAT / 2  # at the beat; the loop's clock counts milliseconds


async def test_rotated_token_is_known_to_every_worker_at_once(host: Host) -> None:
    first, second = host.services
    made = await first.establish("rotating", "temp.mail", timedelta(hours=1), 0)
    mailbox = await second.authorise(made.mailbox.id, made.token)
    rotated = await first.rotate_token(mailbox)
    assert (await second.authorise(mailbox.id, rotated.token)).id == mailbox.id
    with pytest.raises(Refused):
        await second.authorise(mailbox.id, made.token)


async def test_deleted_mailbox_is_gone_in_every_worker_at_once(host: Host) -> None:
    first, second = host.services
    made = await first.establish("deleted", "temp.mail", timedelta(hours=1), 0)
    await second.authorise(made.mailbox.id, made.token)
    await first.delete(made.mailbox)
    with pytest.raises(Refused):
        await second.authorise(made.mailbox.id, made.token)


async def test_extension_moves_the_mail_and_never_shortens(host: Host) -> None:
    made = await host.services[0].establish("longer", "temp.mail", timedelta(hours=2), 0)
    await host.partitions.ahead(now(), 7200)
    await batch.write(host.pools.messages, 0, [item(made.mailbox)], now())
    extended = await host.services[1].extend(made.mailbox, 20 * 3600)
    assert extended.expires_at is not None
    assert made.mailbox.expires_at is not None
    assert extended.expires_at > made.mailbox.expires_at
    assert await host.services[1].extend(extended, 60) == extended
    fresh = await host.services[0].authorise(made.mailbox.id, made.token)
    assert fresh.expires_at == extended.expires_at
    for known in (made.mailbox, fresh):
        assert len((await host.messages.page(known, 10, 0, 1 << 62))[0]) == 1


async def test_many_sweepers_end_each_mailbox_once(host: Host, settings: Config) -> None:
    over = [await host.services[0].establish(f"over{n:03}", "temp.mail", timedelta(seconds=-1), 0) for n in range(60)]
    kept = await host.services[0].establish("kept", "temp.mail", timedelta(hours=1), 0)
    host.told.clear()
    sweepers = [Retention(settings, s, host.messages, host.partitions, now) for s in host.services * 3]
    await asyncio.gather(*(sweeper.sweep() for sweeper in sweepers))
    ended = [hint.mailbox_id for hint in host.told if hint.kind is Kind.EXPIRED]
    assert sorted(ended) == sorted(made.mailbox.id for made in over)
    assert await host.services[1].authorise(kept.mailbox.id, kept.token)
    assert len(await host.pools.messages.fetch("SELECT 1 FROM messages.inboxes")) == 1


async def test_clockwork_ends_a_mailbox_in_time(host: Host, settings: Config) -> None:
    made = await host.services[0].establish("brief", "temp.mail", timedelta(seconds=0.5), 0)
    clockwork = Retention(settings, host.services[0], host.messages, host.partitions, now)
    clockwork.start()
    async with asyncio.timeout(60):
        while Hint(Kind.EXPIRED, made.mailbox.id) not in host.told:
            await asyncio.sleep(0.05)
    await clockwork.close()


async def test_inbox_of_a_mailbox_that_never_came_to_be_is_cleared_away(host: Host, settings: Config) -> None:
    from_crash = (await host.services[0].establish("orphan", "temp.mail", timedelta(minutes=-10), 0)).mailbox
    await host.pools.mailboxes.execute("DELETE FROM mailboxes.mailboxes WHERE id = $1", from_crash.id)
    await Retention(settings, host.services[0], host.messages, host.partitions, now).upkeep()
    assert await host.pools.messages.fetch("SELECT 1 FROM messages.inboxes") == []


async def test_guest_makes_no_more_than_the_days_mailboxes_whatever_worker_it_asks(host: Host) -> None:
    for n in range(3):
        await host.services[n % 2].create(None, None, None, "192.0.2.7")
    with pytest.raises(Refused) as refused:
        await host.services[1].create(None, None, None, "192.0.2.7")
    assert refused.value.word == "too_many_mailboxes"
    assert refused.value.retry_after > 3600
    await host.services[1].create(None, None, None, "192.0.2.8")


@pytest.mark.parametrize(
    ("prefix", "domain", "ttl", "word"),
    [
        ("ab", None, None, "prefix_invalid"),
        ("a..b", None, None, "prefix_invalid"),
        ("postmaster", None, None, "prefix_invalid"),
        ("Abuse", None, None, "prefix_invalid"),
        (None, "other.test", None, "domain_not_allowed"),
        (None, None, 1, "duration_invalid"),
        (None, None, 10**9, "duration_invalid"),
        (None, None, float("nan"), "duration_invalid"),
    ],
)
async def test_what_cannot_be_made_is_refused_by_word(
    host: Host, prefix: str | None, domain: str | None, ttl: float | None, word: str
) -> None:
    with pytest.raises(Refused) as refused:
        await host.services[0].create(prefix, domain, ttl, "192.0.2.1")
    assert refused.value.word == word
    assert refused.value.field


async def test_mail_of_a_mailbox_without_an_end_is_off_the_disk_with_it(host: Host) -> None:
    made = await host.services[0].establish("endless", "temp.mail", None, 0)
    other = await host.services[0].establish("another", "temp.mail", None, 0)
    await host.partitions.ensure([(FOREVER, now())])
    await batch.write(host.pools.messages, 0, [item(made.mailbox, other.mailbox), item(made.mailbox)], now())
    await host.services[0].delete(made.mailbox)
    await Eraser(ErasureStore(host.pools.messages)).round()
    assert len(await host.pools.messages.fetch("SELECT 1 FROM messages.messages")) == 1
    assert [row["refs"] for row in await host.pools.messages.fetch("SELECT refs FROM messages.bodies")] == [1]


async def test_the_record_known_by_its_address_is_the_living_mailboxs(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RCPT believes it: a mailbox that another worker has ended, or one that had the address before, must not be it."""
    reader, other = host.services
    first = await other.establish("often", "temp.mail", timedelta(hours=1), 0)
    address = first.mailbox.address
    assert reader.at(address) is None
    await reader.authorise(first.mailbox.id, first.token)
    assert reader.at(address) == first.mailbox
    await other.delete(first.mailbox)
    assert reader.at(address) is None
    second = await other.establish("often", "temp.mail", timedelta(minutes=1), 0)
    assert reader.at(address) is None
    await reader.authorise(second.mailbox.id, second.token)
    assert reader.at(address) == second.mailbox
    monkeypatch.setattr(reader, "_clock", lambda: now() + timedelta(minutes=2))
    assert reader.at(address) is None


async def test_no_more_addresses_are_known_than_records(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailboxes_module, "MAX_RECORDS", 2)
    reader = host.services[0]
    made = [await reader.establish(f"box{n}", "temp.mail", timedelta(hours=1), 0) for n in range(4)]
    for one in made:
        await reader.authorise(one.mailbox.id, one.token)
    assert [reader.at(one.mailbox.address) is not None for one in made] == [False, False, True, True]
