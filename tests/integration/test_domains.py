"""Domains over a real database and a real name server: proved, refused, forgotten; where addresses under them lead."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta

import msgspec
import pytest

from server.cache.buckets import Buckets
from server.cache.generations import Generations, Writer
from server.cache.responses import ResponseCache
from server.cache.semaphore import SharedSemaphore
from server.config import settings as configuration
from server.config.settings import Config
from server.model.account import QUOTAS, Quota, User
from server.model.domain import Domain, Mode, Rules, Served, ServedSet, domain_name
from server.model.errors import Refused, Unavailable
from server.model.event import Hint, Kind
from server.services.accounts.accounts import new_user
from server.services.coherence import Coherence
from server.services.domains.resolver import Resolver
from server.services.domains.served import ServedDomains
from server.services.domains.verification import GRACE, RECHECK_AFTER, DomainVerification
from server.services.limits import RateLimits
from server.services.mail_in.auto_create import AutoCreate
from server.services.mail_in.routing import Routes
from server.services.mailboxes.mailboxes import MailboxService
from server.services.webhooks.outbox import Outbox
from server.store.accounts import UserStore
from server.store.deliveries import DeliveryStore
from server.store.domains import DomainStore
from server.store.mailboxes import MailboxStore
from server.store.messages import MessageStore
from server.store.partitions import Partitions
from server.store.pools import Pools
from tests.integration.mail import now
from tests.nameserver import Zones, name_server

HOUR = timedelta(hours=1)


class Clock:
    """Time as the services are told it, which a test may turn forward."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return now() + self.ahead


class Worker:
    """One process's services: its own memory of the set and of routes, the generations shared with the other's."""

    def __init__(self, config: Config, pools: Pools, generations: Generations, column: int, clock: Clock) -> None:
        self.told: list[Hint] = []
        local = ResponseCache(generations, 1 << 20, 60)
        self.coherence = Coherence(generations, Writer(generations, column), self.told.extend, 0.2)
        self.store = DomainStore(pools.mailboxes)
        self.served = ServedDomains(self.store, local, config.domains, config.cache_ttl)
        self.resolver = Resolver(config.dns_servers)
        self.claims = DomainVerification(config, self.store, self.served, self.resolver, self.coherence, clock)
        self.mailboxes = MailboxService(
            config,
            MailboxStore(pools.mailboxes),
            MessageStore(pools.messages, now),
            Partitions(pools.messages, 3600),
            RateLimits(config, Buckets(), SharedSemaphore()),
            self.served,
            local,
            self.coherence,
            Outbox(DeliveryStore(pools.messages), now, lambda: None),
            now,
        )
        provision = AutoCreate(config, self.mailboxes, self.store, UserStore(pools.users).by_id)
        rules = Rules(config.plus_addressing, config.subdomain_mailboxes, config.administrator)
        self.routes = Routes(
            MailboxStore(pools.mailboxes), local, self.served, rules, provision.provide, self.mailboxes.at, now
        )

    async def leads(self, address: str) -> str:
        """The mailbox an address leads to, asked as RCPT does, or the word it is refused with."""
        known = self.routes.route(address)
        try:
            return known.mailbox_id if known else (await self.routes.resolve(address)).mailbox_id
        except Refused as refused:
            return refused.word


class Host:
    def __init__(self, config: Config, pools: Pools, zones: Zones) -> None:
        self.config, self.pools, self.zones, self.clock = config, pools, zones, Clock()
        generations = Generations(2)
        self.one, self.two = [Worker(config, pools, generations, column, self.clock) for column in range(2)]

    async def user(self, quota: Quota = QUOTAS["free"], tier: str = "free") -> User:
        user = msgspec.structs.replace(
            new_user(f"{id(object())}-{now().timestamp()}@example.org", None, now()), quota=quota, tier=tier
        )
        await UserStore(self.pools.users).insert(user, "no password")
        return user

    async def proved(self, user: User, name: str, mode: Mode = "shared") -> Domain:
        claimed = await self.one.claims.claim(user, name, mode)
        self.zones.prove(name, claimed.verify_token)
        return await self.one.claims.verify(claimed)


@pytest.fixture
def zones() -> Iterator[Zones]:
    with name_server() as running:
        yield running


def configured(settings: Config, zones: Zones, **changes: object) -> Config:
    return msgspec.structs.replace(
        settings,
        **({"domains": ("temp.mail", "second.test"), "dns_servers": (zones.address,), "cache_ttl": 60.0} | changes),
    )


@pytest.fixture
async def host(settings: Config, pools: Pools, zones: Zones) -> AsyncIterator[Host]:
    running = Host(configured(settings, zones, subdomain_mailboxes=True), pools, zones)
    await running.one.claims.configure(running.config.domains)
    yield running
    for worker in (running.one, running.two):
        await worker.resolver.close()


async def refusal(waited: object) -> Refused:
    with pytest.raises(Refused) as caught:
        await waited  # type: ignore[misc]
    return caught.value


# Proof


@pytest.mark.parametrize("below", [False, True])
async def test_token_and_exchange_prove_a_domain(host: Host, below: bool) -> None:
    claimed = await host.one.claims.claim(await host.user(), "box.example", "exclusive")
    assert (claimed.status, claimed.verified_at, len(claimed.verify_token)) == ("pending", None, 64)
    host.zones.prove("box.example", claimed.verify_token, "TEMP.mail.", below=below)
    host.zones.texts["box.example"] = [*host.zones.texts.get("box.example", []), "v=spf1 -all"]
    host.zones.exchanges["box.example"].append((20, "elsewhere.example"))
    verified = await host.one.claims.verify(claimed)
    assert verified.status == "verified"
    assert verified.mx_records == ("10 temp.mail", "20 elsewhere.example")
    assert verified.expires_at is not None
    assert verified.verified_at == verified.last_check_at
    kept = await host.two.claims.of_user(await_user(claimed), claimed.id)
    assert kept == msgspec.structs.replace(verified, mailbox_count=0)


def await_user(domain: Domain) -> User:
    """The owner of a domain, as far as ownership is asked."""
    assert domain.user_id is not None
    return msgspec.structs.replace(new_user("owner@example.org", None, now()), id=domain.user_id)


@pytest.mark.parametrize(
    ("texts", "exchanges", "missing"),
    [
        ([], [(10, "temp.mail")], "TXT"),
        (["tempmail-verify=" + "0" * 64], [(10, "temp.mail")], "TXT"),
        (["tempmail-verify={token}x"], [(10, "temp.mail")], "TXT"),
        (["x tempmail-verify={token}"], [(10, "temp.mail")], "TXT"),
        (["{token}"], [(10, "temp.mail")], "TXT"),
        (["tempmail-verify={token}"], [], "MX"),
        (["tempmail-verify={token}"], [(10, "mx.elsewhere.example")], "MX"),
        (["tempmail-verify={token}"], [(10, "temp.mail.evil.example")], "MX"),
        (["tempmail-verify={token}"], [(10, "eviltemp.mail")], "MX"),
        (["tempmail-verify={token}"], [(0, ".")], "MX"),
    ],
)
async def test_what_is_missing_or_wrong_proves_nothing(
    host: Host, texts: list[str], exchanges: list[tuple[int, str]], missing: str
) -> None:
    claimed = await host.one.claims.claim(await host.user(), "box.example", "shared")
    host.zones.texts["box.example"] = [text.format(token=claimed.verify_token) for text in texts]
    host.zones.exchanges["box.example"] = exchanges
    refused = await refusal(host.one.claims.verify(claimed))
    assert refused.word == "domain_unverified"
    assert missing in refused.detail
    kept = await host.one.claims.any(claimed.id)
    assert (kept.status, kept.verified_at) == ("failed", None)
    assert kept.last_check_at is not None
    assert await host.two.leads("somebody@box.example") == "domain_not_allowed"


async def test_a_name_that_does_not_exist_is_unproved(host: Host) -> None:
    claimed = await host.one.claims.claim(await host.user(), "nowhere.example", "shared")
    assert "TXT" in (await refusal(host.one.claims.verify(claimed))).detail


@pytest.mark.parametrize("fault", ["silence", "servfail", "refused", "garbage", "wrong_id"])
async def test_trouble_with_dns_neither_proves_nor_disproves(host: Host, fault: str) -> None:
    claimed = await host.one.claims.claim(await host.user(), "box.example", "shared")
    host.zones.prove("box.example", claimed.verify_token)
    host.zones.faults["box.example"] = fault
    began = asyncio.get_running_loop().time()
    refused = await refusal(host.one.claims.verify(claimed))
    assert asyncio.get_running_loop().time() - began < 60
    assert (refused.word, (await host.one.claims.any(claimed.id)).status) == ("domain_unverified", "pending")
    del host.zones.faults["box.example"]
    assert (await host.one.claims.verify(claimed)).status == "verified"


async def test_an_oversize_answer_is_read_over_tcp_and_bounded(host: Host) -> None:
    claimed = await host.one.claims.claim(await host.user(), "box.example", "shared")
    host.zones.prove("box.example", claimed.verify_token)
    proof = host.zones.texts["box.example"][0]
    host.zones.texts["box.example"] = [*("filler " * 60 for _ in range(30)), proof]  # 13 kB
    host.zones.exchanges["box.example"] += [(100 + n, f"mx{n}.{'x' * 60}.example") for n in range(500)]
    verified = await host.one.claims.verify(claimed)
    assert verified.status == "verified"
    assert len(verified.mx_records) == 50
    host.zones.texts["box.example"] = ["filler"] * 3000 + [proof]
    await refusal(host.one.claims.verify(claimed))


async def test_octets_that_are_no_text_are_shown_without_harm(host: Host) -> None:
    claimed = await host.one.claims.claim(await host.user(), "box.example", "shared")
    host.zones.texts["box.example"] = ["\x00\xff\udc00".encode("utf-8", "replace").decode("latin-1"), "\x00"]
    host.zones.exchanges["box.example"] = [(5, "a\x00b\x1b[31m.example")]
    await refusal(host.one.claims.verify(claimed))
    shown = (await host.one.claims.any(claimed.id)).mx_records
    assert shown
    assert all(record.isascii() and record.isprintable() for record in shown)


async def test_a_wrong_answer_is_not_remembered_once_dns_is_mended(host: Host) -> None:
    claimed = await host.one.claims.claim(await host.user(), "box.example", "shared")
    await refusal(host.one.claims.verify(claimed))
    host.zones.prove("box.example", claimed.verify_token)
    assert (await host.one.claims.verify(await host.one.claims.any(claimed.id))).status == "verified"


# Who owns what


async def test_a_claim_does_not_keep_the_owner_from_proving(host: Host) -> None:
    squatter, owner = await host.user(), await host.user()
    first = await host.one.claims.claim(squatter, "box.example", "catch_all")
    second = await host.two.claims.claim(owner, "BOX.example.", "exclusive")
    host.zones.prove("box.example", second.verify_token)
    assert (await refusal(host.one.claims.verify(first))).word == "domain_unverified"
    assert (await host.two.claims.verify(second)).user_id == owner.id
    third = await host.user()
    assert (await refusal(host.one.claims.claim(third, "box.example", "shared"))).word == "domain_exists"
    host.zones.texts["box.example"].append(f"tempmail-verify={first.verify_token}")
    assert (await refusal(host.one.claims.verify(first))).word == "domain_exists"
    await host.one.claims.delete(await host.one.claims.of_user(squatter, first.id))
    assert (await refusal(host.one.claims.of_user(squatter, second.id))).word == "domain_not_found"


async def test_two_who_prove_one_name_at_once_do_not_both_get_it(host: Host) -> None:
    claims = [await host.one.claims.claim(await host.user(), "box.example", "shared") for _ in range(4)]
    host.zones.texts["box.example"] = [f"tempmail-verify={claim.verify_token}" for claim in claims]
    host.zones.exchanges["box.example"] = [(10, "temp.mail")]
    workers = [host.one, host.two, host.one, host.two]
    asked = [worker.claims.verify(claim) for worker, claim in zip(workers, claims, strict=True)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert sorted(r.word if isinstance(r, Refused) else r.status for r in results if not isinstance(r, OSError)) == [
        "domain_exists",
        "domain_exists",
        "domain_exists",
        "verified",
    ]


async def test_the_same_claim_twice_and_too_many_are_refused(host: Host) -> None:
    user = await host.user()
    await host.one.claims.claim(user, "d0.example", "shared")
    assert (await refusal(host.one.claims.claim(user, "D0.example", "shared"))).word == "domain_exists"
    for n in range(1, 20):
        await host.one.claims.claim(user, f"d{n}.example", "shared")
    assert (await refusal(host.one.claims.claim(user, "d20.example", "shared"))).word == "quota_reached"


@pytest.mark.parametrize("name", ["temp.mail", "second.test"])
async def test_a_configured_domain_can_neither_be_claimed_nor_removed(host: Host, name: str) -> None:
    assert (await refusal(host.one.claims.claim(await host.user(), name, "shared"))).word == "domain_exists"
    domain = next(d for d in await host.one.claims.system() if d.name == name)
    assert (domain.status, domain.method, domain.is_default) == ("verified", "configuration", name == "temp.mail")
    assert (await refusal(host.one.claims.delete(domain))).word == "domain_protected"
    assert (await refusal(host.one.claims.toggle(domain, False))).word == "domain_protected"


async def test_what_the_settings_name_is_the_operators_whoever_proved_it(host: Host) -> None:
    owner = await host.user()
    proved = await host.proved(owner, "box.example", "exclusive")
    await host.one.claims.configure(["temp.mail", "box.example"])
    assert (await host.one.claims.of_user(owner, proved.id)).status == "expired"
    names = {d.name: d.status for d in await host.one.claims.system()}
    assert names == {"temp.mail": "verified", "box.example": "verified", "second.test": "pending"}
    await host.one.claims.configure(["temp.mail", "second.test"])
    names = {d.name: d.status for d in await host.one.claims.system()}
    assert names == {"temp.mail": "verified", "box.example": "pending", "second.test": "verified"}


async def test_a_lost_system_domain_is_recovered_by_the_token_in_its_zone(host: Host) -> None:
    administrator = await host.user()
    assert (await refusal(host.one.claims.recover(administrator, "lost.example"))).word == "domain_unverified"
    host.zones.prove("lost.example", "ab" * 32)
    recovered = await host.one.claims.recover(administrator, "lost.example")
    assert (recovered.status, recovered.verify_token, recovered.user_id) == ("verified", "ab" * 32, None)
    assert await host.two.leads("somebody@lost.example") == "mailbox_not_found"
    await host.one.claims.delete(recovered)
    assert await host.two.leads("somebody@lost.example") == "domain_not_allowed"
    host.zones.exchanges["lost.example"] = [(10, "elsewhere.example")]
    assert "MX" in (await refusal(host.one.claims.recover(administrator, "lost.example"))).detail


# Believed for how long


async def test_a_users_domain_is_believed_for_a_while_without_proof_and_no_longer(host: Host) -> None:
    owner = await host.user()
    proved = await host.proved(owner, "box.example")
    await host.two.claims.recheck()
    assert host.zones.asked.count(("box.example", "MX")) == 1, "checked again on the same day"
    del host.zones.texts["box.example"]
    host.clock.ahead = RECHECK_AFTER + HOUR
    await host.two.claims.recheck()
    assert (await host.one.claims.of_user(owner, proved.id)).status == "verified"
    assert await host.one.leads("somebody@box.example") == "mailbox_not_found"
    host.clock.ahead = GRACE + HOUR
    await host.two.claims.recheck()
    assert (await host.one.claims.of_user(owner, proved.id)).status == "expired"
    assert await host.one.leads("somebody@box.example") == "domain_not_allowed"
    host.zones.prove("box.example", proved.verify_token)
    assert (await host.one.claims.verify(await host.one.claims.of_user(owner, proved.id))).status == "verified"
    assert await host.two.leads("somebody@box.example") == "mailbox_not_found"


async def test_silent_name_servers_expire_nothing(host: Host) -> None:
    owner = await host.user()
    proved = await host.proved(owner, "box.example")
    host.zones.faults["box.example"] = "servfail"
    host.clock.ahead = GRACE + HOUR
    await host.one.claims.recheck()
    assert (await host.one.claims.of_user(owner, proved.id)).status == "verified"


# The same in every worker at once


async def test_every_change_of_the_set_is_seen_by_the_other_worker_at_once(host: Host) -> None:
    owner = await host.user()
    assert await host.two.leads("chosen@box.example") == "domain_not_allowed"
    for _ in range(3):
        proved = await host.proved(owner, "box.example")
        made = await host.two.mailboxes.create("chosen", "box.example", None, "127.0.0.1")
        for worker in (host.two, host.one):
            assert await worker.leads("chosen@box.example") == made.mailbox.id
            assert worker.routes.route("chosen@box.example") is not None, "not answered from memory"
        await host.one.claims.toggle(proved, False)
        for worker in (host.two, host.one):
            assert await worker.leads("chosen@box.example") == "domain_not_allowed"
        await host.two.claims.toggle(proved, True)
        for worker in (host.one, host.two):
            assert await worker.leads("chosen@box.example") == made.mailbox.id
        assert (await refusal(host.one.claims.delete(proved))).word == "domain_in_use"
        await host.two.mailboxes.delete(made.mailbox)
        await host.one.claims.delete(proved)
        for worker in (host.two, host.one):
            assert await worker.leads("chosen@box.example") == "domain_not_allowed"


async def test_a_change_on_another_host_is_seen_when_its_hint_comes(host: Host) -> None:
    far = Worker(host.config, host.pools, Generations(1), 0, host.clock)
    assert await far.leads("chosen@box.example") == "domain_not_allowed"
    host.one.told.clear()
    await host.proved(await host.user(), "box.example")
    assert await far.leads("chosen@box.example") == "domain_not_allowed"
    assert {hint.kind for hint in host.one.told} == {Kind.DOMAINS}
    far.coherence.heard(host.one.told)
    assert await far.leads("chosen@box.example") == "mailbox_not_found"
    await far.resolver.close()


async def test_the_set_is_not_read_again_while_nothing_changes(host: Host) -> None:
    await host.proved(await host.user(), "box.example")
    first = await host.two.served.current()
    assert host.two.served.known() is first
    with host.one.coherence.writing(domains=True):
        assert host.two.served.known() is None
    assert await host.two.served.current() is first, "a set that did not change is the same, so that routes stand"


async def test_the_set_is_not_kept_while_a_write_is_in_doubt(host: Host) -> None:
    with pytest.raises(Unavailable), host.one.coherence.writing(domains=True):
        raise Unavailable("the answer to COMMIT was lost")
    await host.two.served.current()
    assert host.two.served.known() is None


# Where addresses lead


@pytest.mark.parametrize("mode", ["exclusive", "whitelist", "catch_all"])
async def test_only_the_owner_makes_mailboxes_at_a_domain_that_is_not_shared(host: Host, mode: Mode) -> None:
    owner, other = await host.user(), await host.user()
    await host.proved(owner, "box.example", mode)
    assert (await refusal(host.two.mailboxes.usable_domain("box.example", None))).word == "domain_not_allowed"
    assert (await refusal(host.two.mailboxes.usable_domain("box.example", other.id))).word == "domain_not_allowed"
    assert await host.two.mailboxes.usable_domain("BOX.example", owner.id) == "box.example"
    assert "box.example" not in (await host.two.served.current()).public


async def test_a_default_is_chosen_among_the_systems_own(host: Host) -> None:
    owner = await host.user()
    users = await host.proved(owner, "box.example")
    assert (await refusal(host.one.claims.set_default(users))).word == "domain_unverified"
    second = next(d for d in await host.one.claims.system() if d.name == "second.test")
    assert (await host.one.claims.set_default(second)).is_default
    assert (await host.two.served.current()).public == ("second.test", "temp.mail", "box.example")
    made = await host.two.mailboxes.create(None, None, None, "127.0.0.1")
    assert made.mailbox.domain == "second.test"
    assert [d.name for d in await host.two.claims.system()] == ["second.test", "temp.mail"]


async def test_tags_after_a_plus_lead_to_the_mailbox(host: Host) -> None:
    made = (await host.one.mailboxes.create("chosen", None, None, "127.0.0.1")).mailbox
    for address in ("chosen+news@temp.mail", "chosen+a+b@temp.mail", "chosen+@temp.mail"):
        assert await host.two.leads(address) == made.id
        recipient = host.two.routes.route(address)
        assert recipient is not None
        assert recipient.address == address
    assert await host.two.leads("+news@temp.mail") == "mailbox_not_found"
    assert await host.two.leads("chosen-news@temp.mail") == "mailbox_not_found"
    await host.one.mailboxes.delete(made)
    assert await host.two.leads("chosen+news@temp.mail") == "mailbox_not_found", "a kept tag outlived its mailbox"


async def test_a_subdomain_leads_to_the_mailbox_of_its_name_and_nothing_else_does(host: Host) -> None:
    made = (await host.one.mailboxes.create("chosen", None, None, "127.0.0.1")).mailbox
    dotted = (await host.one.mailboxes.create("a.dotted", None, None, "127.0.0.1")).mailbox
    assert await host.two.leads("whatever@chosen.temp.mail") == made.id
    assert await host.two.leads("whatever+x@a.dotted.temp.mail") == dotted.id
    assert await host.two.leads("whatever@nobody.temp.mail") == "mailbox_not_found"
    for foreign in ("chosen@eviltemp.mail", "chosen@temp.mail.evil.example", "x@chosen.evil.mail", "chosen@mail"):
        assert await host.two.leads(foreign) == "domain_not_allowed"


async def test_a_served_subdomain_is_itself_and_not_a_mailbox(host: Host) -> None:
    parent = await host.proved(await host.user(), "box.example")
    await host.proved(await host.user(), "sub.box.example")
    made = (await host.one.mailboxes.create("sub", parent.name, None, "127.0.0.1")).mailbox
    assert await host.two.leads("sub@box.example") == made.id
    assert await host.two.leads("sub@sub.box.example") == "mailbox_not_found"


async def test_settings_switch_tags_and_subdomains_off(settings: Config, pools: Pools, zones: Zones) -> None:
    host = Host(configured(settings, zones, plus_addressing=False), pools, zones)
    await host.one.mailboxes.create("chosen", None, None, "127.0.0.1")
    assert await host.two.leads("chosen+news@temp.mail") == "mailbox_not_found"
    assert await host.two.leads("whatever@chosen.temp.mail") == "domain_not_allowed"


async def test_mail_makes_mailboxes_where_all_is_caught_within_the_owners_quota(host: Host) -> None:
    owner = await host.user()  # free: three mailboxes
    await host.proved(owner, "box.example", "catch_all")
    caught = [await host.two.leads(f"box{n}@box.example") for n in range(3)]
    assert len(set(caught)) == 3
    assert await host.one.leads("box0+tag@box.example") == caught[0]
    assert await host.two.leads("box3@box.example") == "mailbox_full"
    record = await host.one.mailboxes.owned(caught[0], owner)
    assert record.user_id == owner.id
    assert record.expires_at is not None
    await host.one.mailboxes.delete(record)
    assert await host.two.leads("box3@box.example") not in {*caught, "mailbox_full"}


@pytest.mark.parametrize("local_part", ["ab", "a..b", "webmaster", "a'b", "-abc", "ünï", '"quo ted"'])
async def test_what_nobody_may_choose_mail_does_not_make_either(host: Host, local_part: str) -> None:
    await host.proved(await host.user(), "box.example", "catch_all")
    assert await host.two.leads(f"{local_part}@box.example") == "mailbox_not_found"


async def test_two_mails_at_once_make_one_mailbox(host: Host) -> None:
    await host.proved(await host.user(), "box.example", "catch_all")
    asked = [worker.leads("wanted@box.example") for worker in (host.one, host.two) * 5]
    assert len(set(await asyncio.gather(*asked))) == 1


async def test_a_quota_is_kept_when_many_addresses_are_tried_at_once(host: Host) -> None:
    owner = await host.user()
    await host.proved(owner, "box.example", "catch_all")
    asked = [worker.leads(f"try{n}@box.example") for n in range(10) for worker in (host.one, host.two)]
    made = {found for found in await asyncio.gather(*asked) if found != "mailbox_full"}
    assert len(made) == owner.quota.max_mailboxes


async def test_an_owner_who_is_gone_catches_nothing(host: Host) -> None:
    owner = await host.user()
    await host.proved(owner, "box.example", "catch_all")
    await host.pools.users.execute("UPDATE users.users SET is_active = false WHERE id = $1", owner.id)
    assert await host.two.leads("wanted@box.example") == "mailbox_not_found"


@pytest.mark.parametrize("mode", ["shared", "exclusive", "whitelist"])
async def test_mail_makes_no_mailbox_where_not_all_is_caught(host: Host, mode: Mode) -> None:
    await host.proved(await host.user(), "box.example", mode)
    assert await host.two.leads("wanted@box.example") == "mailbox_not_found"


async def test_postmaster_and_abuse_of_every_domain_reach_one_mailbox_that_administrators_open(host: Host) -> None:
    user = await host.user()
    await host.proved(user, "box.example", "whitelist")
    addresses = [
        f"{name}@{domain}" for name in ("postmaster", "abuse") for domain in ("temp.mail", "second.test", "box.example")
    ]
    asked = [
        worker.leads(address) for address in (*addresses, "postmaster+x@temp.mail") for worker in (host.one, host.two)
    ]
    found = set(await asyncio.gather(*asked))
    assert len(found) == 1
    box = found.pop()
    record = await host.one.mailboxes.owned(box, msgspec.structs.replace(user, role="admin"))
    assert (record.address, record.expires_at, record.user_id) == ("postmaster@temp.mail", None, None)
    assert (await refusal(host.two.mailboxes.owned(box, user))).word == "mailbox_not_found"
    assert await host.two.leads("abuse@box.example") == box
    assert host.two.routes.route("abuse@box.example") is not None, "not answered from memory"


async def test_the_administrators_mailbox_is_where_the_setting_says(
    settings: Config, pools: Pools, zones: Zones
) -> None:
    host = Host(configured(settings, zones, admin_mailbox="ops@second.test"), pools, zones)
    refused = await refusal(host.one.mailboxes.create("ops", "second.test", None, "127.0.0.1"))
    assert refused.word == "prefix_invalid", "anybody could read the administrators' mail"
    box = await host.one.leads("abuse@temp.mail")
    assert await host.two.leads("postmaster@second.test") == box == await host.two.leads("ops@second.test")


def test_an_administrators_mailbox_elsewhere_is_refused_at_start() -> None:
    with pytest.raises(configuration.ConfigError, match="ADMIN_MAILBOX"):
        configuration.load({"TEMPMAIL_ADMIN_MAILBOX": "ops@elsewhere.example"})


# Names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Mail.Example.ORG.", "mail.example.org"),
        ("münchen.example", "xn--mnchen-3ya.example"),
        ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
        ("例え.jp", "xn--r8jz45g.jp"),
        ("r3---sn.example.com", "r3---sn.example.com"),
    ],
)
def test_names_become_a_labels(text: str, name: str) -> None:
    assert domain_name(text) == name


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "localhost", "com", "co.uk", "github.io", "xn--p1ai", "192.0.2.1", "[192.0.2.1]", "::1", "0x7f.1"),
        *(
            "a_b.example.org",
            "-a.example.org",
            "a..example.org",
            "a\0b.example.org",
            "a b.example.org",
            "a@example.org",
        ),
        *(
            "example.org/x",
            "xn--zzzzzzzz.org",
            "x" * 64 + ".org",
            "x." * 130 + "org",
            "ex\udc00ample.org",
            "ü" * 300 + ".de",
        ),
    ],
)
def test_what_nobody_owns_is_no_domain(text: str) -> None:
    with pytest.raises(Refused) as caught:
        domain_name(text)
    assert (caught.value.word, caught.value.field) == ("field_invalid", "domain")


def test_a_domain_above_is_found_label_by_label() -> None:
    served = ServedSet([Served("temp.mail"), Served("deep.temp.mail")], "temp.mail")
    assert served.above("a.b.temp.mail") == ("a.b", Served("temp.mail"))
    assert served.above("a.deep.temp.mail") == ("a", Served("deep.temp.mail"))
    for name in ("temp.mail", "mail", "xtemp.mail", "temp.mail.x", ""):
        assert served.above(name) is None


async def test_mail_for_a_mailbox_that_is_read_here_is_routed_without_a_query(host: Host) -> None:
    """And no longer once another worker has ended it, though nothing but its generations says so."""
    made = await host.two.mailboxes.establish("read", "temp.mail", HOUR, 0)
    assert await host.one.served.current() is not None
    assert host.one.routes.route("read@temp.mail") is None
    await host.one.mailboxes.authorise(made.mailbox.id, made.token)
    for address in ("read@temp.mail", "read+tag@temp.mail"):
        recipient = host.one.routes.route(address)
        assert recipient is not None
        assert (recipient.mailbox_id, recipient.address) == (made.mailbox.id, address)
    await host.two.mailboxes.delete(made.mailbox)
    assert host.one.routes.route("read@temp.mail") is None
    assert await host.one.leads("read@temp.mail") == "mailbox_not_found"
