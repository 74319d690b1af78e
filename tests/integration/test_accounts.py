"""Accounts over a real database: logins and renewal, brute force, quotas and revocation, whatever worker is asked."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Iterable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from server.cache.buckets import Buckets
from server.cache.generations import Generations, Writer
from server.cache.responses import ResponseCache
from server.cache.semaphore import SharedSemaphore
from server.config.settings import Config
from server.model import ids
from server.model.account import Principal, User
from server.model.errors import Refused
from server.model.event import Hint
from server.services.accounts import passwords
from server.services.accounts.accounts import MAX_SESSIONS, AccountService, new_user
from server.services.accounts.api_keys import MAX_KEYS, KeyService
from server.services.accounts.passwords import Passwords
from server.services.coherence import Coherence
from server.services.contracts import Session, Shares
from server.services.limits import RateLimits
from server.store.accounts import UserStore
from server.store.pools import Pools

PASSWORD = "correct horse"
ABROAD = "192.0.2.7"
ALL = frozenset({"mailbox:read", "mailbox:write", "mail:read", "mail:write"})


class Counting(Passwords):
    """Counts what it checks."""

    checked = 0

    async def verify(self, known: str, password: str, shares: Shares = ()) -> bool:
        self.checked += 1
        return await super().verify(known, password, shares)


class Worker:
    """One worker's services; ``ahead`` moves its clock."""

    def __init__(self, host: "Host", column: int) -> None:
        self.ahead = timedelta()
        coherence = Coherence(host.generations, Writer(host.generations, column), host.told.extend, 1)
        local, limits = (
            ResponseCache(host.generations, 1 << 20, 60),
            RateLimits(host.config, host.buckets, SharedSemaphore()),
        )
        config = msgspec.structs.replace(host.config, cache_ttl=3600.0)  # what ends sooner ends by revocation
        self.accounts = AccountService(config, host.store, host.hasher, limits, local, coherence, self.now)
        self.keys = KeyService(host.store, coherence, self.accounts.used, self.now)
        self.coherence = coherence

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class Host:
    """Three workers over one database and one shared memory."""

    def __init__(self, config: Config, pools: Pools, hasher: Counting) -> None:
        self.config = msgspec.structs.replace(config, jwt_secret=secrets.token_urlsafe(48))
        self.store, self.hasher, self.pools = UserStore(pools.users), hasher, pools
        self.generations, self.buckets = Generations(3), Buckets()
        self.told: list[Hint] = []
        self.workers = [Worker(self, column) for column in range(3)]
        self.one = self.workers[0].accounts

    async def register(self, name: str = "") -> Session:
        name = name or f"u{secrets.token_hex(6)}"
        return await self.one.register(f"{name}@example.org", PASSWORD, name, "")

    async def everywhere(self, token: str) -> list[str]:
        """What each worker makes of an access token: its account's email, or the word of refusal."""
        return [await _seen(worker.accounts.by_token(token)) for worker in self.workers]


async def _seen(asked: Awaitable[Principal]) -> str:
    try:
        principal = await asked
    except Refused as refused:
        return refused.word
    return principal.user.email


async def refusal(asked: Awaitable[object]) -> str:
    with pytest.raises(Refused) as refused:
        await asked
    return refused.value.word


@pytest.fixture
async def host(settings: Config, pools: Pools) -> AsyncIterator[Host]:
    hasher = Counting()
    yield Host(settings, pools, hasher)
    hasher.close()


async def test_names_are_one_whatever_their_case(host: Host) -> None:
    made = await host.one.register("Alice@EXAMPLE.org", PASSWORD, "Alice", "")
    assert (made.user.email, made.user.username) == ("alice@example.org", "Alice")
    for name in ("alice@example.org", "ALICE@example.ORG", "alice", "ALICE", " alice "):
        assert (await host.one.login(name, PASSWORD, "")).user.id == made.user.id
    for email, username in (("ALICE@example.org", None), ("other@example.org", "aLiCe")):
        with pytest.raises(Refused) as refused:
            await host.one.register(email, PASSWORD, username, "")
        assert (refused.value.word, refused.value.field) == ("user_exists", "username" if username else "email")


async def test_one_name_is_given_once_however_many_ask(host: Host) -> None:
    asked = [worker.accounts.register("x@example.org", PASSWORD, None, "") for worker in host.workers * 2]
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(result, Session) for result in results) == 1
    assert {result.word for result in results if isinstance(result, Refused)} == {"user_exists"}


@pytest.mark.parametrize(
    ("email", "password", "username", "field"),
    [
        ("nobody", PASSWORD, None, "email"),
        ("a@localhost", PASSWORD, None, "email"),
        ("a@b@example.org", PASSWORD, None, "email"),
        ("a b@example.org", PASSWORD, None, "email"),
        ("a@example.org\r\nBcc: x@example.org", PASSWORD, None, "email"),
        ("a\0@example.org", PASSWORD, None, "email"),
        ("\ud800@example.org", PASSWORD, None, "email"),
        ("a@example.org> SIZE=1 <x", PASSWORD, None, "email"),
        ("a" * 65 + "@example.org", PASSWORD, None, "email"),
        ("", PASSWORD, None, "email"),
        ("a@example.org", "short77", None, "password"),
        ("a@example.org", "x" * 73, None, "password"),
        ("a@example.org", "\ud800" * 10, None, "password"),
        ("a@example.org", PASSWORD, "ab", "username"),
        ("a@example.org", PASSWORD, "a" * 33, "username"),
        ("a@example.org", PASSWORD, "bob@example.org", "username"),
        ("a@example.org", PASSWORD, "a..b", "username"),
        ("a@example.org", PASSWORD, "-ab", "username"),
        ("a@example.org", PASSWORD, "аlice", "username"),
    ],
)
async def test_what_no_account_can_have_names_the_field(
    host: Host, email: str, password: str, username: str | None, field: str
) -> None:
    with pytest.raises(Refused) as refused:
        await host.one.register(email, password, username, "")
    assert (refused.value.word, refused.value.field) == ("field_invalid", field)


async def test_a_password_is_kept_as_argon2id_and_its_neighbours_open_nothing(host: Host) -> None:
    long = "é" * 71 + "x"
    await host.one.register("long@example.org", long, None, "")
    kept = (await host.pools.users.fetch("SELECT password_hash FROM users.users"))[0][0]
    assert kept.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await host.one.login("long@example.org", long, "")
    for wrong in (long[:-1], long[:-1] + "y", long + "x", "", "\0", "\ud800"):
        assert await refusal(host.one.login("long@example.org", wrong, "")) == "credentials_invalid"


async def test_names_that_nobody_has_are_refused_as_wrong_passwords_are(host: Host) -> None:
    await host.register("known")
    for name in ("unknown", "a@example.org", "", "\0", "\ud800", "x" * 10_000, "' OR ''='"):
        assert await refusal(host.one.login(name, PASSWORD, "")) == "credentials_invalid"


async def test_an_unknown_name_costs_as_much_as_a_wrong_password(host: Host) -> None:
    """One argon2 with the same parameters for either; the clock is asked by the bench, not here."""
    await host.register("known")
    for name in ("known", "unknown", "a@example.org", "", "\0", "x" * 10_000):
        checked = host.hasher.checked
        await refusal(host.one.login(name, "wrong horse", ""))
        assert host.hasher.checked == checked + 1, name
    with pytest.raises(VerifyMismatchError):  # it was computed, not refused for its form
        PasswordHasher().verify(passwords.NOBODY, "wrong horse")
    assert not host.hasher.outdated(passwords.NOBODY)


async def test_an_old_hash_is_renewed_at_the_next_login(host: Host) -> None:
    made = await host.register("old")
    weak = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(PASSWORD)
    await host.pools.users.execute("UPDATE users.users SET password_hash = $1", weak)
    assert (await host.one.login("old", PASSWORD, "")).user.id == made.user.id
    kept = (await host.pools.users.fetch("SELECT password_hash FROM users.users"))[0][0]
    assert "m=19456,t=2" in kept
    assert await host.one.login("old", PASSWORD, "")


async def test_a_refresh_token_is_good_for_once_and_its_reuse_ends_the_login_everywhere(host: Host) -> None:
    first = await host.register()
    await host.everywhere(first.access_token)
    second = await host.workers[1].accounts.refresh(first.refresh_token)
    assert await host.everywhere(second.access_token) == [first.user.email] * 3
    assert await refusal(host.workers[2].accounts.refresh(first.refresh_token)) == "token_invalid"
    for token in (first.access_token, second.access_token):
        assert await host.everywhere(token) == ["token_invalid"] * 3
    assert await refusal(host.one.refresh(second.refresh_token)) == "token_invalid"
    assert (await host.one.login(first.user.email, PASSWORD, "")).user.id == first.user.id


async def test_of_many_that_refresh_at_once_no_two_go_on(host: Host) -> None:
    session = await host.register()
    asked = [worker.accounts.refresh(session.refresh_token) for worker in host.workers * 3]
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(result, Session) for result in results) == 1
    assert await host.everywhere(session.access_token) == ["token_invalid"] * 3


async def test_reuse_ends_one_login_and_not_the_others(host: Host) -> None:
    mine = await host.register()
    other = await host.one.login(mine.user.email, PASSWORD, "")
    await host.one.refresh(mine.refresh_token)
    await refusal(host.one.refresh(mine.refresh_token))
    assert await host.everywhere(other.access_token) == [mine.user.email] * 3


async def test_logout_ends_access_and_refresh_on_every_worker_at_once(host: Host) -> None:
    session = await host.register()
    other = await host.one.login(session.user.email, PASSWORD, "")
    for _ in range(3):
        assert await host.everywhere(session.access_token) == [session.user.email] * 3
    principal = await host.one.by_token(session.access_token)
    await host.workers[2].accounts.logout(principal, None)
    assert all(worker.accounts.recall("jwt", session.access_token) is None for worker in host.workers)
    assert await host.everywhere(session.access_token) == ["token_invalid"] * 3
    assert await refusal(host.one.refresh(session.refresh_token)) == "token_invalid"
    assert await host.everywhere(other.access_token) == [session.user.email] * 3


async def test_logout_can_end_another_login_of_ones_own_and_of_nobody_else(host: Host) -> None:
    mine, theirs = await host.register(), await host.register()
    other = await host.one.login(mine.user.email, PASSWORD, "")
    principal = await host.one.by_token(mine.access_token)
    await host.one.logout(principal, theirs.refresh_token)
    assert await host.everywhere(theirs.access_token) == [theirs.user.email] * 3
    principal = await host.one.by_token(other.access_token)
    again = await host.one.login(mine.user.email, PASSWORD, "")
    await host.one.logout(principal, again.refresh_token)
    assert await host.everywhere(again.access_token) == ["token_invalid"] * 3


async def test_a_token_remembered_ends_in_time(host: Host) -> None:
    session = await host.register()
    await host.everywhere(session.access_token)
    for worker in host.workers:
        worker.ahead = timedelta(minutes=16)
        assert worker.accounts.recall("jwt", session.access_token) is None


async def test_who_is_shut_out_is_out_on_every_worker_at_once(host: Host) -> None:
    session = await host.register()
    key = await host.workers[0].keys.create(session.user, "k", ALL, None)
    for worker in host.workers:
        assert (await worker.accounts.by_key(key.whole)).user.id == session.user.id
    await host.everywhere(session.access_token)
    with host.workers[1].coherence.writing(users=[session.user.id]):
        await host.pools.users.execute("UPDATE users.users SET is_active = false WHERE id = $1", session.user.id)
    assert await host.everywhere(session.access_token) == ["token_invalid"] * 3
    for worker in host.workers:
        assert await refusal(worker.accounts.by_key(key.whole)) == "token_invalid"
    assert await refusal(host.one.login(session.user.email, PASSWORD, "")) == "account_disabled"
    assert await refusal(host.one.login(session.user.email, "wrong horse", "")) == "credentials_invalid"
    assert await refusal(host.one.refresh(session.refresh_token)) == "account_disabled"


async def test_what_was_read_before_a_change_is_not_remembered_after_it(host: Host) -> None:
    session = await host.register()
    with host.workers[1].coherence.writing(users=[session.user.id]):
        await host.one.by_token(session.access_token)
        assert host.one.recall("jwt", session.access_token) is None
    assert host.one.recall("jwt", session.access_token) is None


async def failures(host: Host, name: str, networks: Iterable[str]) -> list[str]:
    """What one wrong login from each of ``networks`` is refused with, in turn at all workers."""
    words = []
    for number, client in enumerate(networks):
        words.append(await refusal(host.workers[number % 3].accounts.login(name, "wrong horse", client)))
    return words


async def test_failures_are_slowed_for_a_network_at_an_account_in_all_workers(host: Host) -> None:
    await host.register("victim")
    assert await failures(host, "victim", ["198.51.100.1"] * 14) == ["credentials_invalid"] * 10 + ["rate_limited"] * 4
    with pytest.raises(Refused) as refused:
        await host.one.login("VICTIM", PASSWORD, "198.51.100.1")
    assert refused.value.retry_after > 0
    words = [await refusal(host.one.login(f"nobody{number}", PASSWORD, ABROAD)) for number in range(32)]
    assert words.count("rate_limited") == 2


async def test_a_stranger_in_one_network_cannot_shut_an_account_out_anywhere_else(host: Host) -> None:
    await host.register("victim")
    await failures(host, "victim", ["198.51.100.1"] * 20)
    assert (await host.one.login("victim", PASSWORD, "192.0.2.99")).user.username == "victim"


@pytest.mark.parametrize("name", ["victim", "nobody at all"])
async def test_guessing_from_many_networks_is_slowed_for_the_account(host: Host, name: str) -> None:
    await host.register("victim")
    words = await failures(host, name, [f"198.51.{number}.1" for number in range(60)])
    assert words == ["credentials_invalid"] * 50 + ["rate_limited"] * 10


@pytest.mark.parametrize("home", ["192.0.2.99", "2001:db8:0:9::1"])
async def test_strangers_in_many_networks_cannot_shut_an_account_out_of_a_network_it_has_logged_in_from(
    host: Host, home: str
) -> None:
    await host.register("victim")
    await host.one.login("victim", PASSWORD, home)
    await failures(host, "victim", [f"198.51.{number}.1" for number in range(60)])
    assert await refusal(host.one.login("victim", PASSWORD, "203.0.113.5")) == "rate_limited", "not from anywhere new"
    for worker in host.workers:
        assert await worker.accounts.login("victim", PASSWORD, home)
    assert await failures(host, "victim", [home] * 11) == ["credentials_invalid"] * 10 + ["rate_limited"]


async def test_the_networks_of_an_account_are_few_and_hold_no_address(host: Host) -> None:
    session = await host.register("mobile")
    for number in range(30):
        await host.one.login("mobile", PASSWORD, f"198.51.100.{number}")
    rows = await host.pools.users.fetch("SELECT network FROM users.login_networks WHERE user_id = $1", session.user.id)
    assert 20 <= len(rows) <= 21
    assert all(bytes([198, 51, 100]) not in row[0] for row in rows)
    await host.one.login("mobile", PASSWORD, "198.51.100.29")
    again = await host.pools.users.fetch("SELECT network FROM users.login_networks WHERE user_id = $1", session.user.id)
    assert len(again) <= 20


async def test_many_at_once_are_no_more_than_so_many_in_a_row(host: Host) -> None:
    await host.register("victim")
    asked = [host.workers[n % 3].accounts.login("victim", f"wrong {n} horse", "") for n in range(40)]
    words = [r.word for r in await asyncio.gather(*asked, return_exceptions=True) if isinstance(r, Refused)]
    assert words.count("credentials_invalid") == 10


async def test_successes_are_not_counted(host: Host) -> None:
    await host.register("busy")
    for _ in range(35):
        await host.one.login("busy", PASSWORD, ABROAD)


async def test_an_address_makes_so_many_accounts_an_hour(host: Host) -> None:
    for number in range(10):
        await host.one.register(f"r{number}@example.org", PASSWORD, None, ABROAD)
    assert await refusal(host.workers[1].accounts.register("r10@example.org", PASSWORD, None, ABROAD)) == "rate_limited"


async def test_logins_of_one_account_are_bounded_and_the_oldest_end(host: Host) -> None:
    first = await host.register()
    for _ in range(MAX_SESSIONS):
        last = await host.one._open(first.user, "")
    assert await host.everywhere(first.access_token) == ["token_invalid"] * 3
    assert await host.everywhere(last.access_token) == [first.user.email] * 3
    assert (await host.pools.users.fetch("SELECT count(*) FROM users.sessions"))[0][0] == MAX_SESSIONS


async def test_a_key_is_kept_as_a_hash_and_shown_whole_once(host: Host) -> None:
    user = (await host.register()).user
    made = await host.workers[0].keys.create(user, "ci", frozenset({"mail:read"}), None)
    assert made.whole.startswith("tm_")
    assert len(made.whole) == 46
    row = str(tuple((await host.pools.users.fetch("SELECT * FROM users.api_keys"))[0]))
    assert made.whole not in row
    assert made.whole[8:-4] not in row
    listed = (await host.workers[1].keys.own(user))[0]
    assert listed.shown == f"{made.whole[:8]}****{made.whole[-4:]}"
    principal = await host.one.by_key(made.whole)
    assert (principal.via, principal.scopes) == ("key", frozenset({"mail:read"}))


async def test_a_revoked_key_opens_nothing_on_any_worker_at_once(host: Host) -> None:
    user = (await host.register()).user
    made, kept = [await host.workers[0].keys.create(user, name, ALL, None) for name in ("a", "b")]
    for worker in host.workers:
        await worker.accounts.by_key(made.whole)
        await worker.accounts.by_key(kept.whole)
    await host.workers[1].keys.revoke(user, made.key.id)
    for worker in host.workers:
        assert worker.accounts.recall("key", made.whole) is None
        assert await refusal(worker.accounts.by_key(made.whole)) == "token_invalid"
        assert (await worker.accounts.by_key(kept.whole)).credential == kept.key.id


async def test_a_key_ends_in_time(host: Host) -> None:
    user = (await host.register()).user
    made = await host.workers[0].keys.create(user, "brief", ALL, 60.0)
    await host.one.by_key(made.whole)
    host.workers[0].ahead = timedelta(seconds=61)
    assert host.one.recall("key", made.whole) is None
    assert await refusal(host.one.by_key(made.whole)) == "token_expired"


async def test_a_foreign_key_is_not_found_and_not_revoked(host: Host) -> None:
    mine, theirs = (await host.register()).user, (await host.register()).user
    made = await host.workers[0].keys.create(theirs, "theirs", ALL, None)
    for key_id in (made.key.id, ids.new(), "x", made.key.id.upper()):
        assert await refusal(host.workers[0].keys.one(mine, key_id)) == "api_key_not_found"
        assert await refusal(host.workers[0].keys.revoke(mine, key_id)) == "api_key_not_found"
    assert (await host.one.by_key(made.whole)).user.id == theirs.id
    assert await host.workers[0].keys.own(mine) == []


async def test_keys_of_one_account_are_bounded_however_many_ask_at_once(host: Host) -> None:
    user = (await host.register()).user
    asked = [host.workers[n % 3].keys.create(user, "k", ALL, None) for n in range(MAX_KEYS + 8)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert {result.word for result in results if isinstance(result, Refused)} == {"quota_reached"}
    assert len(await host.workers[0].keys.own(user)) == MAX_KEYS


async def test_last_use_is_written_once_for_many_requests_and_never_goes_back(host: Host) -> None:
    user = (await host.register()).user
    made = await host.workers[0].keys.create(user, "k", ALL, None)
    for _ in range(100):
        await host.one.by_key(made.whole)
    assert (await host.workers[0].keys.own(user))[0].last_used_at is None
    await host.workers[0].keys.flush()
    used = (await host.workers[0].keys.own(user))[0].last_used_at
    assert used is not None
    assert host.one.used == {}
    await host.workers[0].keys.flush()
    await host.store.keys_used({made.key.id: used - timedelta(hours=1), ids.new(): used})
    assert (await host.workers[0].keys.own(user))[0].last_used_at == used


async def test_an_administrators_quota_goes_before_the_tiers(host: Host) -> None:
    session = await host.register()
    assert session.user.quota.max_mailboxes == 3
    with host.workers[2].coherence.writing(users=[session.user.id]):
        await host.pools.users.execute("INSERT INTO users.quotas VALUES ($1, 7, 8, 9, 10)", session.user.id)
    quota = (await host.one.by_token(session.access_token)).user.quota
    assert msgspec.structs.astuple(quota) == (7, 8, 9, 10)


def user_with(per_minute: int, concurrent: int) -> User:
    user = new_user("q@example.org", None, datetime.now(UTC))
    quota = msgspec.structs.replace(user.quota, max_requests_per_minute=per_minute, max_concurrent=concurrent)
    return msgspec.structs.replace(user, quota=quota)


async def test_requests_are_counted_for_the_account_and_not_for_each_of_its_addresses(host: Host) -> None:
    user, limits = user_with(5, 0), [RateLimits(host.config, host.buckets, SharedSemaphore()) for _ in range(2)]
    verdicts = [limits[n % 2].user(user, f"192.0.2.{n}") for n in range(7)]
    assert [verdict is not None and verdict.allowed for verdict in verdicts] == [True] * 5 + [False] * 2
    assert limits[0].user(user_with(0, 0), ABROAD) is None
    assert limits[0].user(user, "") is None
