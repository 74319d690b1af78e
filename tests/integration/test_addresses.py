"""Addresses: one holder each whatever races for it, free the moment the holder ends, filled from older databases."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from server.config.settings import Config
from server.model import ids
from server.model.errors import Refused
from server.model.message import Alias
from server.services.mailboxes.aliases import AliasService
from server.store import migrate
from server.store.mailboxes import MailboxStore
from server.store.pools import SCHEMAS, Pools
from tests.integration.mail import now
from tests.integration.test_mailboxes import Host

HOUR = timedelta(hours=1)


@pytest.fixture
def host(settings: Config, pools: Pools) -> Host:
    return Host(settings, pools)


@pytest.fixture
def aliases(host: Host) -> list[AliasService]:
    """One for each worker of the host."""
    store = MailboxStore(host.pools.mailboxes)
    workers = zip(host.services, host.coherences, strict=True)
    return [AliasService(host.config, store, service, coherence, now) for service, coherence in workers]


async def rows(host: Host) -> int:
    return len(await host.pools.mailboxes.fetch("SELECT 1 FROM mailboxes.addresses"))


async def test_an_alias_and_a_mailbox_that_race_for_an_address_never_both_get_it(
    host: Host,
    aliases: list[AliasService],
) -> None:
    boxes = [(await host.services[n].establish(f"owner{n}", "temp.mail", HOUR, 0)).mailbox for n in range(2)]
    for turn in range(20):
        wanted = f"wanted{turn}"
        results = await asyncio.gather(
            aliases[0].create(boxes[0], wanted),
            host.services[1].establish(wanted, "temp.mail", HOUR, 0),
            aliases[1].create(boxes[1], f"{wanted}@temp.mail"),
            return_exceptions=True,
        )
        words = [r.word for r in results if isinstance(r, Refused)]
        assert len(words) == 2, results
        assert set(words) <= {"alias_exists", "mailbox_exists"}
        made = [r for r in results if isinstance(r, Alias)]
        for alias in made:  # makes room below the cap
            await aliases[0].delete(next(box for box in boxes if box.id == alias.mailbox_id), alias.id)
    inboxes = await host.pools.messages.fetch("SELECT 1 FROM messages.inboxes")
    mailboxes = await host.pools.mailboxes.fetch("SELECT 1 FROM mailboxes.mailboxes")
    assert len(inboxes) == len(mailboxes) == await rows(host)


async def test_aliases_asked_for_at_once_never_pass_the_cap(host: Host, aliases: list[AliasService]) -> None:
    box = (await host.services[0].establish("owner", "temp.mail", HOUR, 0)).mailbox
    asked = [aliases[n % 2].create(box, f"alias{n}") for n in range(12)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert [r.word for r in results if isinstance(r, Refused)] == ["too_many_aliases"] * 7
    assert len(await aliases[0].all(box)) == host.config.mailbox_max_aliases == 5


async def test_an_alias_never_outlives_a_mailbox_deleted_at_the_same_moment(
    host: Host,
    aliases: list[AliasService],
) -> None:
    for turn in range(20):
        box = (await host.services[0].establish(f"brief{turn}", "temp.mail", HOUR, 0)).mailbox
        results = await asyncio.gather(
            *(aliases[n % 2].create(box, f"alias{turn}-{n}") for n in range(4)),
            host.services[1].delete(box),
            return_exceptions=True,
        )
        assert all(r is None or isinstance(r, Alias | Refused) for r in results), results
    assert await rows(host) == 0


async def test_the_sweep_frees_aliases_with_their_mailbox(host: Host, aliases: list[AliasService]) -> None:
    over = (await host.services[0].establish("over", "temp.mail", timedelta(milliseconds=1), 0)).mailbox
    kept = (await host.services[0].establish("kept", "temp.mail", HOUR, 0)).mailbox
    await aliases[0].create(over, "gone")
    await aliases[0].create(kept, "stays")
    slots = [host.generations.slot(f"{name}@temp.mail".encode()) for name in ("over", "gone")]
    before = [host.generations.snapshot(slot) for slot in slots]
    assert await host.services[1].sweep(500) == 1
    assert [host.generations.snapshot(slot) for slot in slots] != before
    assert await rows(host) == 2
    store = MailboxStore(host.pools.mailboxes)
    assert await store.by_address("gone", "temp.mail") is None
    assert await store.by_address("stays", "temp.mail") == kept


@pytest.mark.parametrize("address", ["over", "gone"])
async def test_an_expired_mailbox_blocks_neither_mailbox_nor_alias_before_the_sweep(
    host: Host,
    aliases: list[AliasService],
    address: str,
) -> None:
    for prefix, take in (("m", False), ("a", True)):
        over = (await host.services[0].establish(f"{prefix}over", "temp.mail", timedelta(milliseconds=1), 0)).mailbox
        await aliases[0].create(over, f"{prefix}gone")
        if take:
            owner = (await host.services[1].establish("owner", "temp.mail", HOUR, 0)).mailbox
            assert (await aliases[1].create(owner, prefix + address)).mailbox_id == owner.id
        else:
            await host.services[1].establish(prefix + address, "temp.mail", HOUR, 0)
        assert await MailboxStore(host.pools.mailboxes).by_id(over.id) is None
    assert await rows(host) == 3


async def test_an_alias_of_a_mailbox_that_is_gone_is_refused(host: Host, aliases: list[AliasService]) -> None:
    box = (await host.services[0].establish("brief", "temp.mail", HOUR, 0)).mailbox
    alias = await aliases[0].create(box, "alias")
    await host.services[0].delete(box)
    for attempt in (
        aliases[1].create(box, "later"),
        aliases[1].one(box, alias.id),
        aliases[1].switch(box, alias.id, active=False),
        aliases[1].delete(box, alias.id),
    ):
        with pytest.raises(Refused) as refused:
            await attempt
        assert refused.value.word in ("mailbox_not_found", "alias_not_found")


async def test_mailboxes_of_an_older_release_keep_their_addresses(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    every = migrate.available
    with monkeypatch.context() as older:
        older.setattr(migrate, "available", lambda domain: every(domain)[:1])
        await migrate.migrate(dict.fromkeys(SCHEMAS, empty))
    connection = await asyncpg.connect(empty)
    await connection.execute(
        "INSERT INTO mailboxes.mailboxes VALUES ($1, 'old', 'temp.mail', $2, NULL, now(), NULL)", ids.new(), bytes(32)
    )
    await migrate.migrate(dict.fromkeys(SCHEMAS, empty))
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute(
            "INSERT INTO mailboxes.addresses (local_part, domain, mailbox_id, created_at)"
            " SELECT 'old', 'temp.mail', id, now() FROM mailboxes.mailboxes"
        )
    await connection.close()


async def test_addresses_asked_for_at_once_each_lead_to_their_own(host: Host, aliases: list[AliasService]) -> None:
    store = MailboxStore(host.pools.mailboxes)
    boxes = [(await host.services[0].establish(f"box{n}", "temp.mail", HOUR, 0)).mailbox for n in range(3)]
    alias = await aliases[0].create(boxes[0], "alias")
    off = await aliases[0].create(boxes[1], "off")
    await aliases[0].switch(boxes[1], off.id, active=False)
    assert await store.by_address("alias", "temp.mail") == boxes[0]
    assert await store.by_address("off", "temp.mail") is None
    names = ["box2", "nobody", "alias", "box0", "off", "box1", "alias"]
    found = await asyncio.gather(*(store.by_address(name, "temp.mail") for name in names))
    assert found == [boxes[2], None, boxes[0], boxes[0], None, boxes[1], boxes[0]]
    assert alias.mailbox_id == boxes[0].id
