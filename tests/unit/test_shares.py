"""One client's share of what all use: searches at a time, threads for passwords, children that search."""

import asyncio
import threading
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest

from server.cache.buckets import Buckets
from server.cache.semaphore import SharedSemaphore
from server.config.settings import load
from server.model.errors import Refused
from server.model.message import Details, Stored
from server.model.query import Term
from server.services.accounts import passwords
from server.services.accounts.passwords import Passwords
from server.services.limits import SEARCHES, SEARCHES_OF_CLIENT, RateLimits
from server.services.mailboxes.text_search import TextSearch
from server.services.sandbox import Sandbox
from server.store.messages import Candidate
from tests.clients import of

LARGE = Stored("", "box", 1, datetime.now(UTC), "", "", "", "", "", 100_000, False, Details())
GUEST, OTHER, FREE = "198.51.100.1", "198.51.100.2", "192.0.2.1"


@pytest.fixture
def limits() -> RateLimits:
    return RateLimits(
        load(
            {
                "TEMPMAIL_RATE_LIMIT_EXEMPT": f"{FREE}/32",
                "TEMPMAIL_DATABASE_DSN": "postgresql:///x",
                "TEMPMAIL_JWT_SECRET": "x" * 32,
            }
        ),
        Buckets(),
        SharedSemaphore(),
    )


def test_client_is_counted_by_its_network_and_the_mailbox_it_reads(limits: RateLimits) -> None:
    assert limits.shares(GUEST, "box") != limits.shares(GUEST, "other box")
    assert limits.shares(GUEST, "box")[-1] == limits.shares(OTHER, "box")[-1]
    assert limits.shares("2001:db8::1") == limits.shares("2001:db8::ffff")
    near, nearby = limits.shares("2001:db8::1"), limits.shares("2001:db8:0:1::1")
    assert (near[0] != nearby[0], near[1:] == nearby[1:]) == (True, True)
    assert limits.shares(FREE, "box") == ()


def test_guest_with_many_mailboxes_has_no_more_searches(limits: RateLimits) -> None:
    with ExitStack() as held:
        for n in range(SEARCHES_OF_CLIENT):
            held.enter_context(limits.searching(f"box {n}", GUEST))
        with pytest.raises(Refused) as refused, limits.searching("one more", GUEST):
            pass
        assert (refused.value.word, refused.value.retry_after) == ("rate_limited", 1.0)
        with limits.searching("one more", OTHER), limits.searching("two more", FREE):
            pass
    with limits.searching("one more", GUEST):
        pass


def test_mailbox_searched_from_everywhere_has_no_more_searches(limits: RateLimits) -> None:
    with ExitStack() as held:
        for n in range(SEARCHES):
            held.enter_context(limits.searching("box", f"198.51.100.{n}"))
        with pytest.raises(Refused), limits.searching("box", "198.51.100.9"):
            pass
    with limits.searching("box", "198.51.100.9"):
        pass


async def test_guest_with_many_passwords_leaves_threads_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()
    monkeypatch.setattr(passwords, "hashed", lambda password: free.wait(60) and password)
    hasher = Passwords()
    held = [asyncio.create_task(hasher.hash("x", of("guest"))) for _ in range(10)]
    await asyncio.sleep(0)
    with pytest.raises(Refused) as refused:
        await hasher.hash("x", of("guest"))
    assert (refused.value.word, refused.value.retry_after) == ("rate_limited", 1.0)
    other = asyncio.create_task(hasher.hash("y", of("other")))
    free.set()
    assert await asyncio.gather(*held, other) == [*["x"] * 10, "y"]
    assert await hasher.hash("x", of("guest")) == "x"
    hasher.close()


async def test_guest_whose_search_has_the_children_is_refused_alone() -> None:
    finder = Sandbox("search")
    looker = TextSearch(finder)
    page = [Candidate(LARGE, [1], b"")]
    try:
        await finder.run(abs, 1, timeout=60)
        waiting = [asyncio.create_task(finder.run(abs, 1, timeout=60, clients=of("guest"))) for _ in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(Refused) as refused:
            await looker.filter(page, [Term("text", "x")], of("guest"))
        assert refused.value.word == "rate_limited"
        await asyncio.gather(*waiting)
    finally:
        await finder.close()
