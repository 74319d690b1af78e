"""Limits count every client by the one rule of model/client, wherever a client is counted."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from server.cache.buckets import Buckets
from server.cache.semaphore import SharedSemaphore
from server.config.settings import load
from server.model.client import networks
from server.model.errors import Refused
from server.services.limits import RateLimits
from server.services.push.connection_limit import SHARE, ConnectionLimit
from server.smtp.listener_state import Seats

SETTINGS = {
    "TEMPMAIL_RATE_LIMIT_EXEMPT": "198.51.100.0/24,2001:db8:ffff::/48,::ffff:203.0.113.0/120",
    "TEMPMAIL_RATE_LIMIT_REQUESTS_PER_MINUTE": "1",  # a refill every minute: none within a test
    "TEMPMAIL_RATE_LIMIT_BURST": "30",
    "TEMPMAIL_RATE_LIMIT_CREATE_MAILBOX": "12",
    "TEMPMAIL_MAILBOX_MAX_PER_IP": "3",
}

Take = Callable[[str], bool]
"""Takes one for a client; whether it was given."""


def _limits() -> RateLimits:
    return RateLimits(load(SETTINGS), Buckets(), SharedSemaphore())


def _unless_refused(take: Callable[[str], object]) -> Take:
    def taken(client: str) -> bool:
        try:
            take(client)
        except Refused:
            return False
        return True

    return taken


def _requests() -> Take:
    limits = _limits()

    def taken(client: str) -> bool:
        verdict = limits.request(client)
        return verdict is None or verdict.allowed

    return taken


def _requests_that_fail() -> Take:
    """A request with a credential that turns out to be wrong: it is looked at first and counted after."""
    limits = _limits()

    def taken(client: str) -> bool:
        before = limits.failed_before(client)
        limits.request(client)
        return before is None or before.allowed

    return taken


def _room(what: str) -> Take:
    room = ConnectionLimit(what, 200 * SHARE, _limits().exempt)
    return _unless_refused(lambda client: room.take(room.admit(client)))


def _seats() -> Take:
    seats = Seats(10_000, 50, load(SETTINGS).rate_exempt)
    return lambda client: seats.take(client) is not None


PLACES: dict[str, tuple[Callable[[], Take], int]] = {
    "requests": (_requests, 30),
    "requests with a wrong credential": (_requests_that_fail, 30),
    "logins": (lambda: _unless_refused(_limits().login), 30),
    "registrations": (lambda: _unless_refused(_limits().register), 10),
    "mailboxes an hour": (lambda: _unless_refused(_limits().any_mailbox), 12),
    "mailboxes a day": (lambda: _unless_refused(_limits().create_mailbox), 3),
    "streams": (lambda: _room("streams"), 200),
    "WebSockets": (lambda: _room("WebSockets"), 200),
    "SMTP connections": (_seats, 50),
}


def _one(address: str) -> Iterator[str]:
    while True:
        yield address


def _of_48() -> Iterator[str]:
    """One client of each /56 of a /48, in a ring."""
    while True:
        for nth in range(256):
            yield f"2001:db8:7:{nth:02x}00::{nth + 1:x}"


def _given(take: Take, clients: Iterator[str], tries: int) -> int:
    return sum(take(next(clients)) for _ in range(tries))


@pytest.mark.parametrize("name", PLACES)
def test_a_client_is_one_whichever_of_its_addresses_it_uses(name: str) -> None:
    made, most = PLACES[name]
    take = made()
    assert _given(take, _one("192.0.2.1"), most) == most
    assert not take("192.0.2.1")
    assert not take("::ffff:192.0.2.1")
    assert take("192.0.2.2")
    assert _given(take, (f"2001:db8::{n:x}" for n in range(1, 10_000)), most + 50) == most


@pytest.mark.parametrize("name", PLACES)
def test_an_owner_of_a_48_gets_a_bounded_multiple(name: str) -> None:
    made, most = PLACES[name]
    half = {"streams": 1000, "WebSockets": 1000, "SMTP connections": 5000}.get(name, 1 << 30)
    assert _given(made(), (f"2001:db8:0:{n % 256:x}::1" for n in range(1 << 20)), 5 * most) == min(4 * most, half)
    assert _given(made(), _of_48(), 17 * most) == min(16 * most, half)


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("client", ["198.51.100.7", "::ffff:198.51.100.7", "2001:db8:ffff::7", "203.0.113.7", ""])
def test_an_exempt_network_is_not_counted(name: str, client: str) -> None:
    made, most = PLACES[name]
    take = made()
    assert _given(take, _one(client), most + 1) == most + 1


def test_what_a_wider_network_refuses_is_not_taken_from_the_client() -> None:
    limits, spent = _limits(), 0
    for nth in range(256):
        verdict = limits.request(f"2001:db8:0:{nth:x}::1")
        spent += verdict is not None and verdict.allowed
    assert spent == 120
    refused = limits.request("2001:db8:0:fe::1")
    assert refused is not None
    assert refused[:3] == (False, 30, 0)
    assert refused.retry_after > 0
    own = limits._buckets.take(b"r" + networks("2001:db8:0:fe::1")[0].prefix, limit=30, period=1800.0, cost=0)
    assert own.remaining == 30, "the /64 itself has asked for nothing that was given"


def test_a_login_that_succeeds_gives_back_what_every_network_was_charged() -> None:
    limits = _limits()
    with ExitStack() as stack:
        for _ in range(30):
            stack.callback(limits.login("2001:db8:0:1::1").forgive)
        with pytest.raises(Refused):
            limits.login("2001:db8:0:1::2")
    assert _given(_unless_refused(limits.login), (f"2001:db8:0:{n:x}::1" for n in range(256)), 130) == 120


def _counts() -> dict[str, Take]:
    """Every count of one client, of one and the same RateLimits."""
    limits = _limits()

    def request(client: str) -> bool:
        verdict = limits.request(client)
        return verdict is not None and verdict.allowed

    return {
        "requests": request,
        "logins": _unless_refused(limits.login),
        "registrations": _unless_refused(limits.register),
        "mailboxes an hour": _unless_refused(limits.any_mailbox),
        "mailboxes a day": _unless_refused(limits.create_mailbox),
    }


@pytest.mark.parametrize("spent", _counts())
def test_what_is_spent_of_one_count_is_left_of_every_other(spent: str) -> None:
    counts = _counts()
    while counts[spent]("192.0.2.1"):
        pass
    for name, take in counts.items():
        _, most = PLACES[name]
        assert _given(take, _one("192.0.2.1"), most + 1) == (0 if name == spent else most), name


@pytest.mark.parametrize(
    ("name", "most", "period"),
    [("login", 30, 600), ("register", 10, 3600), ("any_mailbox", 12, 3600), ("create_mailbox", 3, 86_400)],
)
def test_who_is_refused_is_told_when_the_next_comes_back(name: str, most: int, period: int) -> None:
    """Some seconds of it may have passed meanwhile, but never half of them."""
    take = getattr(_limits(), name)
    for _ in range(most):
        take("192.0.2.1")
    with pytest.raises(Refused) as refused:
        take("192.0.2.1")
    assert refused.value.retry_after is not None
    assert period / most / 2 < refused.value.retry_after <= period / most
