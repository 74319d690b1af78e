"""Buckets: the limit holds exactly, across processes, deaths and neighbours in the table."""

import fcntl
import multiprocessing
import os
import signal
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.cache.buckets import SIZES, Buckets, Verdict

fork = multiprocessing.get_context("fork")


def test_a_burst_is_allowed_whole_and_then_refused() -> None:
    buckets = Buckets(64)
    verdicts = [buckets.take(b"a", limit=10, period=60.0, now=1000.0) for _ in range(11)]
    assert [v.allowed for v in verdicts] == [True] * 10 + [False]
    assert [v.remaining for v in verdicts] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0]
    assert verdicts[-1] == Verdict(False, 10, 0, 60.0, 6.0)


def test_tokens_come_back_one_by_one_and_a_refusal_costs_nothing() -> None:
    buckets = Buckets(64)
    for _ in range(20):
        buckets.take(b"a", limit=10, period=60.0, now=0.0)
    assert not buckets.take(b"a", limit=10, period=60.0, now=5.999).allowed
    assert buckets.take(b"a", limit=10, period=60.0, now=6.0).allowed
    assert not buckets.take(b"a", limit=10, period=60.0, now=6.0).allowed
    assert buckets.take(b"a", limit=10, period=60.0, now=500.0) == Verdict(True, 10, 9, 6.0, 0.0)


def test_cost_counts_and_nothing_is_taken_by_a_look_or_by_too_much() -> None:
    buckets = Buckets(64)
    assert buckets.take(b"a", limit=10, period=10.0, now=0.0, cost=8).remaining == 2
    assert buckets.take(b"a", limit=10, period=10.0, now=0.0, cost=3) == Verdict(False, 10, 2, 8.0, 1.0)
    assert not buckets.take(b"b", limit=10, period=10.0, now=0.0, cost=11).allowed
    assert buckets.take(b"b", limit=10, period=10.0, now=0.0, cost=0).remaining == 10
    assert buckets.take(b"a", limit=10, period=10.0, now=0.0, cost=2).remaining == 0


@given(
    st.integers(1, 100_000),
    st.floats(0.001, 86400.0),
    st.lists(st.tuples(st.floats(0, 100.0), st.integers(0, 5)), max_size=50),
)
def test_never_more_than_a_burst_plus_the_refill(limit: int, period: float, requests: list[tuple[float, int]]) -> None:
    buckets, now, taken = Buckets(8), 0.0, 0
    for pause, cost in requests:
        now += pause
        verdict = buckets.take(b"a", limit=limit, period=period, now=now, cost=cost)
        taken += cost * verdict.allowed
        assert 0 <= verdict.remaining <= limit
        assert verdict.reset <= period + 1e-6
        assert (verdict.retry_after == 0) == verdict.allowed
        assert taken <= limit + now * limit / period * 1.001 + 1


def test_a_shortened_period_does_not_inherit_a_long_debt() -> None:
    buckets = Buckets(64)
    buckets.take(b"a", limit=1, period=86400.0, now=0.0)
    assert buckets.take(b"a", limit=1, period=1.0, now=0.0).retry_after == pytest.approx(1.0)


def test_neighbours_do_not_throttle_each_other() -> None:
    buckets = Buckets()  # 131,072 entries for 8,000 clients: nine in a set of eight are one chance in 20,000
    for _ in range(3):
        for client in range(8_000):
            assert buckets.take(b"r%d" % client, limit=3, period=60.0, now=0.0).allowed
    assert not any(buckets.take(b"r%d" % client, limit=3, period=60.0, now=0.0).allowed for client in range(8_000))


def test_a_newcomer_takes_the_place_and_the_debt_of_the_one_that_owes_least() -> None:
    buckets = Buckets(8)  # a single set
    for client, cost in zip(b"abcdefgh", (5, 4, 2, 3, 4, 5, 5, 5), strict=True):
        buckets.take(b"o%c" % client, limit=5, period=50.0, now=0.0, cost=cost)
    assert buckets.take(b"onew", limit=5, period=50.0, now=0.0).remaining == 2  # c owed 2 of 5
    left = {client: buckets.take(b"o%c" % client, limit=5, period=50.0, now=0.0, cost=0).remaining for client in b"abd"}
    assert left == {ord("a"): 0, ord("b"): 1, ord("d"): 2}
    assert buckets.take(b"oc", limit=5, period=50.0, now=0.0, cost=0).remaining == 2, "c has gone; the least owe 3"


def test_in_a_table_full_of_spent_clients_a_newcomer_has_one_request_and_nobody_a_fresh_budget() -> None:
    buckets = Buckets(8)
    for client in range(8):
        buckets.take(b"m%d" % client, limit=3, period=86_400.0, now=0.0, cost=3)
    taken = [buckets.take(b"mnew", limit=3, period=86_400.0, now=0.0).allowed for _ in range(3)]
    assert taken == [True, False, False]
    evicted = sum(
        buckets.take(b"m%d" % client, limit=3, period=86_400.0, now=0.0).allowed
        for _ in range(3)
        for client in range(8)
    )
    assert evicted <= 24, "each return costs a place and gives one request, never three"
    assert buckets.take(b"mhonest", limit=3, period=86_400.0, now=0.0).allowed


@pytest.mark.parametrize("kind", [kind for kind in SIZES if kind and kind != "m"])
def test_guests_whose_day_is_spent_weaken_no_other_limit(kind: str) -> None:
    buckets = Buckets(1 << 10)
    for guest in range(4 << 10):
        buckets.take(b"m%d" % guest, limit=3, period=86_400.0, now=0.0, cost=3)
    for account in range(100):
        key = f"{kind}{account}".encode()
        assert [buckets.take(key, limit=5, period=600.0, now=1.0).allowed for _ in range(6)] == [True] * 5 + [False]
    for guest in range(4 << 10):
        buckets.take(b"m%d" % guest, limit=3, period=86_400.0, now=1.0)
    assert not any(
        buckets.take(f"{kind}{account}".encode(), limit=5, period=600.0, now=1.0).allowed for account in range(100)
    )


def test_a_day_has_room_for_hundreds_of_thousands_of_guests() -> None:
    buckets = Buckets()
    for guest in range(60_000):
        buckets.take(b"m%d" % guest, limit=3, period=86_400.0, now=0.0, cost=3)
    again = sum(buckets.take(b"m%d" % guest, limit=3, period=86_400.0, now=0.0).allowed for guest in range(60_000))
    assert again < 30  # a set of eight holds one on average: nine in one set are one chance in thirty


def test_what_a_forgotten_client_gives_back_is_nobodys() -> None:
    buckets = Buckets(8)
    for client in range(8):
        buckets.take(b"l%d" % client, limit=5, period=600.0, now=0.0, cost=3)
    buckets.take(b"lgone", limit=5, period=600.0, now=0.0, cost=-1)
    left = [buckets.take(b"l%d" % client, limit=5, period=600.0, now=0.0, cost=0).remaining for client in range(8)]
    assert left == [2] * 8


def test_the_limit_is_exact_across_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.cache.buckets._LOCK_PATIENCE", 60.0)  # however busy the machine
    buckets, limit = Buckets(), 20_000
    results = fork.Queue()

    def take_many() -> None:
        results.put(sum(buckets.take(b"shared", limit=limit, period=1e6, now=0.0).allowed for _ in range(15_000)))

    children = [fork.Process(target=take_many) for _ in range(4)]
    for child in children:
        child.start()
    assert sum(results.get(timeout=60) for _ in children) == limit
    for child in children:
        child.join(10)


def held_by(buckets: Buckets, end: signal.Signals) -> multiprocessing.process.BaseProcess:
    """A process that has locked the only set and was then killed or stopped."""
    reader, writer = os.pipe()

    def hold() -> None:
        fcntl.lockf(buckets._fd, fcntl.LOCK_EX, 1, 0)
        os.write(writer, b"!")
        signal.pause()

    child = fork.Process(target=hold)
    child.start()
    os.read(reader, 1)
    assert child.pid is not None
    os.kill(child.pid, end)
    os.close(reader)
    os.close(writer)
    return child


def test_the_lock_of_a_killed_worker_is_free() -> None:
    buckets = Buckets(8)
    held_by(buckets, signal.SIGKILL).join(10)
    assert buckets._lock(0)


def test_a_stopped_worker_holding_the_lock_delays_others_only_shortly() -> None:
    buckets = Buckets(8)
    child = held_by(buckets, signal.SIGSTOP)
    try:
        assert not buckets._lock(0)
        began = time.monotonic()
        verdicts = [buckets.take(b"a", limit=2, period=60.0, now=0.0).allowed for _ in range(3)]
        assert verdicts == [True, True, False]
        assert time.monotonic() - began < 60  # three times its patience of a tenth of a second
    finally:
        child.kill()
        child.join(10)


@pytest.mark.parametrize("slots", [0, 4, 12])
def test_impossible_tables_are_refused(slots: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Buckets(slots)
