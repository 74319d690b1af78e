"""The nodes' common time: the database's, whatever this machine's clock says, before and between measurements."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from server import clock
from server.model import ids

DAYS = 259_200.0


@pytest.fixture(autouse=True)
def standing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both clocks of this machine stand still, and no measurement is known: a busy machine makes no difference."""
    wall, steady = time.time(), time.monotonic()
    monkeypatch.setattr(time, "time", lambda: wall)
    monkeypatch.setattr(time, "monotonic", lambda: steady)
    clock.forget()
    yield
    clock.forget()


def measure(told: float, took: float = 0.0) -> None:
    """The database answers ``told`` to a question that took so long."""
    answered = time.monotonic()
    clock.measured(answered - took, told, answered)


def test_before_a_measurement_the_machines_clock_counts_and_nothing_may_be_destroyed() -> None:
    assert abs(clock.wall() - time.time()) < 1
    assert not clock.agrees()


@pytest.mark.parametrize("off", [DAYS, -DAYS, 6.0, -6.0])
def test_a_machine_that_is_off_lives_by_the_databases_time_and_destroys_nothing(off: float) -> None:
    measure(time.time() - off)
    assert clock.offset() == pytest.approx(off, abs=1)
    here = datetime.fromtimestamp(time.time(), UTC)
    assert clock.now() - here == pytest.approx(timedelta(seconds=-off), abs=timedelta(seconds=1))
    assert abs(ids.made_at(ids.new()).timestamp() - clock.wall()) < 1
    assert not clock.agrees()


@pytest.mark.parametrize("off", [0.0, 3.0, -3.0])
def test_a_machine_that_is_nearly_right_may_destroy(off: float) -> None:
    measure(time.time() - off)
    assert clock.agrees()


def test_a_clock_that_is_set_between_measurements_changes_no_time_and_stops_destruction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measure(time.time())
    real, before = time.time, clock.wall()
    monkeypatch.setattr(time, "time", lambda: real() + DAYS)
    assert abs(clock.wall() - before) < 5
    assert not clock.agrees()


def test_a_slow_answer_moves_no_time_that_it_leaves_open() -> None:
    measure(1_000_000.0)
    measure(1_000_000.0 - 3, took=10)
    assert clock.wall() == pytest.approx(1_000_000.0, abs=1)
    measure(1_000_000.0 - 30, took=10)
    assert clock.wall() == pytest.approx(1_000_000.0 - 25, abs=1)


def test_an_old_measurement_lets_nothing_be_destroyed(monkeypatch: pytest.MonkeyPatch) -> None:
    measure(time.time())
    real, steady = time.time, time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: steady() + 61)
    monkeypatch.setattr(time, "time", lambda: real() + 61)
    assert abs(clock.offset()) < 1
    assert not clock.agrees()
