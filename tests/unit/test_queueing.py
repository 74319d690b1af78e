"""Faults of the capacity model: sums that contradict what is known of simple queues."""

import math
import random

import pytest

from bench.tools.queueing import dealt, exponential, mixture, simulate

_MANY = 200_000


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_worker_without_memory_waits_as_mm1_says(load: float) -> None:
    """M/M/1: the sojourn is exponential with mean service / (1 - load)."""
    found = simulate(load * 1000, exponential(0.001), (1.0,), _MANY, seed=1)
    mean = 0.001 / (1 - load)
    assert found.utilisation == pytest.approx(load, rel=0.02)
    assert found.sojourn.mean == pytest.approx(mean, rel=0.08)
    assert found.sojourn.p50 == pytest.approx(mean * math.log(2), rel=0.08)
    assert found.sojourn.p95 == pytest.approx(mean * math.log(20), rel=0.12)


def test_mixed_services_wait_as_pollaczek_and_khinchine_say() -> None:
    """M/G/1: the mean wait is rate * E[S^2] / (2 * (1 - load))."""
    shares = ((0.95, 0.0001, 0.0), (0.05, 0.002, 0.0))
    mean = sum(share * each for share, each, _ in shares)
    square = sum(share * each**2 for share, each, _ in shares)
    rate = 0.6 / mean
    found = simulate(rate, mixture(shares), (1.0,), _MANY, seed=2)
    assert found.sojourn.mean == pytest.approx(mean + rate * square / (2 * 0.4), rel=0.08)


def test_an_uneven_deal_shows_in_the_busiest_worker() -> None:
    even = simulate(1000, exponential(0.001), (0.5, 0.5), _MANY, seed=3)
    uneven = simulate(1000, exponential(0.001), (0.7, 0.3), _MANY, seed=3)
    assert even.utilisation == pytest.approx(0.5, rel=0.03)
    assert uneven.utilisation == pytest.approx(0.7, rel=0.03)
    assert uneven.sojourn.p95 > even.sojourn.p95


def test_a_seed_gives_the_same_result_and_shares_add_up() -> None:
    first, again = (simulate(500, exponential(0.001), (1.0,), 5_000, seed=7) for _ in range(2))
    assert first == again
    assert sum(dealt(97, 3, random.Random(1))) == pytest.approx(1.0)
