"""How often a client may ask, and how many mailboxes it may make: exact over all workers of the host."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple, NoReturn

from server.cache.buckets import Buckets, Verdict
from server.cache.semaphore import SharedSemaphore
from server.config.settings import Config
from server.metrics import Counter
from server.model import client as clients
from server.model.account import User
from server.model.client import ClientNetwork
from server.model.errors import Refused

HITS = Counter("tempmail_rate_limit_hits_total", "Requests counted against a limit.", ("type",))
BLOCKS = Counter("tempmail_rate_limit_blocks_total", "Requests refused by a limit.", ("type",))

EXTENSIONS: Final = 10  # of one mailbox in an hour
SEARCHES: Final = 2  # of one mailbox, or of all of an account's, at a time; a search may read all of its text
SEARCHES_OF_CLIENT: Final = 4  # at a time, in whatever mailboxes
_DAY: Final = 86_400.0
_HOUR: Final = 3_600.0
_REMEMBERED: Final = 10_000
_OF_REQUESTS: Final = ("request",)


class _Limit(NamedTuple):
    """So many at once, refilled over ``period`` seconds."""

    limit: int
    period: float


_LOGINS_WITHIN: Final = 600.0  # seconds in which failures at one account from one network are counted
_LOGINS_OF_ACCOUNT: Final = 5  # times LOGIN_MAX_ATTEMPTS an hour, from all networks together
_LOGINS_OF_ADDRESS: Final = _Limit(30, 600.0)
_REGISTRATIONS: Final = _Limit(10, 3600.0)


class Attempt:
    """One attempt to log in, counted as a failure until it is forgiven."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._taken: list[tuple[bytes, _Limit]] = []
        self._retry_after = 0.0

    def take(self, key: bytes, limit: _Limit) -> None:
        """Count it against ``key`` too. Refused rate_limited, and counted nowhere, where that has failed too often."""
        if not self.fits(key, limit):
            self.refuse()

    def fits(self, key: bytes, limit: _Limit) -> bool:
        """Count it against ``key`` too; False, and not counted there, where that has failed too often."""
        verdict = self._buckets.take(key, limit=limit.limit, period=limit.period)
        if verdict.allowed:
            self._taken.append((key, limit))
        self._retry_after = verdict.retry_after
        return verdict.allowed

    def refuse(self) -> NoReturn:
        """Refused rate_limited, and counted nowhere."""
        self.forgive()
        BLOCKS.add(("login",))
        raise Refused("rate_limited", retry_after=self._retry_after)

    def forgive(self) -> None:
        """It was no failure: give back what it took."""
        for key, (limit, period) in self._taken:
            self._buckets.take(key, limit=limit, period=period, cost=-1)


class RateLimits:
    """A client is what ``model/client`` says: its wider networks have limits too. Implements contracts.Limits."""

    def __init__(self, config: Config, buckets: Buckets, places: SharedSemaphore) -> None:
        self._buckets, self._places = buckets, places
        self._counted = lru_cache(maxsize=_REMEMBERED)(self._networks)
        self.apply_settings(config)

    def apply_settings(self, config: Config) -> None:
        """Settings have changed."""
        self._config = config
        rate, burst = config.rate_requests_per_minute if config.rate_enabled else 0, config.rate_burst
        self._request = _Limit(burst, 60 * burst / rate) if rate else None

    def exempt(self, client: str) -> bool:
        """Whether the client's network is free of limits, as is a client on our own unix socket (an empty address)."""
        return not self._counted(client)

    def _networks(self, client: str) -> tuple[ClientNetwork, ...]:
        """The networks that a client is counted under; none where it is exempt."""
        free = not client or any(clients.parse(client) in network for network in self._config.rate_exempt)
        return () if free else clients.networks(client)

    def _take(self, kind: bytes, client: str, limit: _Limit, cost: int = 1) -> Verdict | None:
        """Take from the client's bucket of this kind, and from those of its wider networks; None where it is exempt.

        The answer is about the client's own limit, with what a wider network has left if that is less. One take for an
        IPv4 client, three for an IPv6 client.
        """
        counted = self._counted(client)
        if not counted:
            return None
        (most, period), take = limit, self._buckets.take
        own = verdict = take(kind + counted[0].prefix, limit=most, period=period, cost=cost)
        for nth, (prefix, times) in enumerate(counted[1:], 1):
            if not verdict.allowed:
                break
            verdict = take(kind + prefix, limit=most * times, period=period, cost=cost)
            if not verdict.allowed:
                for taken, multiple in counted[:nth]:
                    take(kind + taken, limit=most * multiple, period=period, cost=-cost)
            if verdict.remaining < own.remaining or not verdict.allowed:
                own = verdict._replace(limit=most, remaining=min(own.remaining, verdict.remaining))
        return own

    def shares(self, client: str, owner: str = "") -> tuple[ClientNetwork, ...]:
        """Under what a client's use of shared workers is counted (services/fair_queue.py): its networks and, where
        there is one, the mailbox or account it acts for. None for one that is exempt.
        """
        counted = self._counted(client)
        return (*counted, ClientNetwork(b"owner" + owner.encode(), 1)) if counted and owner else counted

    def request(self, client: str) -> Verdict | None:
        """Take one request from the client's minute; None where nothing limits it."""
        if self._request is None:
            return None
        verdict = self._take(b"r", client, self._request)
        if verdict is not None:
            HITS.add(_OF_REQUESTS)
            if not verdict.allowed:
                BLOCKS.add(_OF_REQUESTS)
        return verdict

    def failed_before(self, client: str) -> Verdict | None:
        """What is left of the client's minute, taking nothing; ``allowed`` says whether a request would be."""
        verdict = self._take(b"r", client, self._request, 0) if self._request is not None else None
        if verdict is None or verdict.remaining > 0:
            return verdict
        return verdict._replace(allowed=False, retry_after=max(verdict.retry_after, 1.0))

    def user(self, user: User, client: str) -> Verdict | None:
        """Take one request from the account's minute, which may be spent at once; None where nothing limits it."""
        limit = user.quota.max_requests_per_minute
        if not limit or self.exempt(client):
            return None
        HITS.add(("user",))
        verdict = self._buckets.take(b"u" + user.id.encode(), limit=limit, period=60.0)
        if not verdict.allowed:
            BLOCKS.add(("user",))
        return verdict

    def enter(self, user: User, client: str) -> int | None:
        """Take one of the account's concurrent requests; None where nothing limits them. Refused rate_limited."""
        limit = user.quota.max_concurrent
        if not limit or self.exempt(client):
            return None
        place = self._places.take(user.id.encode(), limit)
        if place is None:
            BLOCKS.add(("concurrent",))
            raise Refused("rate_limited", f"at most {limit} requests at once", retry_after=1.0)
        return place

    def leave(self, place: int | None) -> None:
        """Give back what ``enter`` took."""
        if place is not None:
            self._places.give_back(place)

    def login(self, client: str) -> Attempt:
        """Count an attempt against the address. Refused rate_limited while it has failed too often."""
        attempt, (most, period) = Attempt(self._buckets), _LOGINS_OF_ADDRESS
        for prefix, times in self._counted(client):
            attempt.take(b"a" + prefix, _Limit(most * times, period))
        return attempt

    def login_as(self, attempt: Attempt, account: str, client: str, *, exists: bool) -> bool:
        """Count it against the account as well, by its id or, where there is none, by the name that was given.

        Refused rate_limited where the client's network has failed at this account too often. False where all networks
        together have: then only one that has logged in before may go on. Taken before the password is looked at, so
        that any number at once are no more than so many in a row.
        """
        most = self._config.login_max_attempts
        # names without an account have a table of their own: whoever makes them up takes no room from accounts
        pair, total = (b"p", b"l") if exists else (b"kp", b"kl")
        whose = blake2b(account.encode("utf-8", "replace"), digest_size=16).digest()
        counted = self._counted(client)
        for prefix, times in counted or ((b"", 1),):
            attempt.take(pair + whose + prefix, _Limit(most * times, _LOGINS_WITHIN))
        return not counted or attempt.fits(total + whose, _Limit(most * _LOGINS_OF_ACCOUNT, _HOUR))

    def register(self, client: str) -> None:
        """Take one of the address's registrations. Refused rate_limited."""
        verdict = self._take(b"n", client, _REGISTRATIONS)
        if verdict is not None and not verdict.allowed:
            BLOCKS.add(("register",))
            raise Refused("rate_limited", retry_after=verdict.retry_after)

    def any_mailbox(self, client: str) -> None:
        """Take one of the client's mailboxes for the hour, a guest's or an account's. Refused too_many_mailboxes."""
        limit = self._config.rate_create_mailbox if self._config.rate_enabled else 0
        verdict = self._take(b"h", client, _Limit(limit, _HOUR)) if limit else None
        if verdict is not None and not verdict.allowed:
            BLOCKS.add(("mailbox",))
            raise Refused("too_many_mailboxes", f"{limit} an hour from here", retry_after=verdict.retry_after)

    def create_mailbox(self, client: str) -> None:
        """Take one of the guest's mailboxes for the day. Refused too_many_mailboxes."""
        limit = self._config.mailbox_max_per_ip
        verdict = self._take(b"m", client, _Limit(limit, _DAY)) if limit else None
        if verdict is None:
            return
        HITS.add(("mailbox",))
        if not verdict.allowed:
            BLOCKS.add(("mailbox",))
            detail = f"a guest may make {limit} mailboxes a day; use one you have, or sign in"
            raise Refused("too_many_mailboxes", detail, retry_after=verdict.retry_after)

    def extend_mailbox(self, mailbox_id: str) -> None:
        """An extension copies the mailbox's mail, so each mailbox has few of them. Refused rate_limited."""
        verdict = self._buckets.take(b"x" + mailbox_id.encode(), limit=EXTENSIONS, period=_HOUR)
        if not verdict.allowed:
            BLOCKS.add(("extend",))
            raise Refused("rate_limited", f"{EXTENSIONS} extensions an hour", retry_after=verdict.retry_after)

    @contextmanager
    def searching(self, whose: str, client: str) -> Iterator[None]:
        """Hold one of a mailbox's or an account's searches at a time, and one of the client's. Refused rate_limited."""
        held: list[int] = []
        try:
            self._search(held, b"s" + whose.encode(), SEARCHES)
            for prefix, times in self._counted(client):
                self._search(held, b"c" + prefix, SEARCHES_OF_CLIENT * times)
            yield
        finally:
            for place in held:
                self._places.give_back(place)

    def _search(self, held: list[int], key: bytes, most: int) -> None:
        place = self._places.take(key, most)
        if place is None:
            BLOCKS.add(("search",))
            raise Refused("rate_limited", f"at most {most} searches at once", retry_after=1.0)
        held.append(place)
