"""Outages: told once when they begin and once when they are over, by whichever worker, however many of them notice."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from server import log, outages
from server.outages import Outage

Captured = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Captured:
    log.configure("info")
    return lambda: [orjson.loads(line) for line in capfd.readouterr().err.splitlines()]


@pytest.fixture
def one() -> Iterator[Outage]:
    made = Outage("thing", "others wait")
    outages.begin(0)
    yield made
    made.back()
    outages._known.remove(made)
    outages.begin(0)


def test_one_line_when_it_begins_and_one_when_it_is_over(one: Outage, lines: Captured) -> None:
    one.back()
    for n in range(500):
        one.lost(f"cause {n}")
    one.back()
    one.back()
    lost, back = lines()
    assert (lost["msg"], lost["reason"], lost["level"]) == ("thing lost; others wait", "cause 0", "warning")
    assert (back["msg"], back["failures"]) == ("thing is back", 500)
    assert not one.doubted


def test_what_lasts_is_told_of_once_a_minute(one: Outage, lines: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    real, passed = outages.time.monotonic, 0.0
    monkeypatch.setattr(outages.time, "monotonic", lambda: real() + passed)
    for _ in range(300):
        one.lost("no route")
        passed += 1
    assert [line["msg"] for line in lines()] == ["thing lost; others wait"] + 4 * ["thing is still away"]


def test_a_few_failures_in_a_row_may_be_asked_for(one: Outage, lines: Captured) -> None:
    for _ in range(10):
        one.lost("late", after=3)
        one.lost("late", after=3)
        one.back()
    assert lines() == []
    for _ in range(3):
        one.lost("late", after=3)
    assert len(lines()) == 1


def test_all_workers_of_a_node_tell_it_once(one: Outage, lines: Captured) -> None:
    one.lost("here")
    begun, go = os.pipe()
    child = os.fork()
    if child == 0:
        outages.begin(1)
        one.lost("there")
        os.read(begun, 1)
        one.back()
        os._exit(0)
    one.back()  # for the other worker it is still away
    assert one.said or lines()
    os.write(go, b".")
    os.waitpid(child, 0)
    assert not one.said


def test_a_worker_that_ended_while_it_was_away_does_not_keep_it_away(one: Outage, lines: Captured) -> None:
    """As after a reload during an outage: the old worker's column may stay without a successor."""
    child = os.fork()
    if child == 0:
        outages.begin(2)
        one.lost("there")
        os._exit(0)
    os.waitpid(child, 0)
    one.back()
    assert one.said
    outages.forget(2)
    one.back()
    assert not one.said
    assert [line["msg"].partition(";")[0] for line in lines()][-1].endswith(" is back")


def test_questions_from_before_it_was_back_do_not_lose_it_again_when_their_time_runs_out(
    one: Outage, lines: Captured
) -> None:
    asked = time.monotonic()
    one.lost("no answer", asked=asked)
    one.back()
    for _ in range(9):
        one.lost("no answer", after=3, asked=asked)
    assert not one.said
    assert len(lines()) == 2
    for _ in range(3):
        one.lost("no answer", after=3, asked=time.monotonic())
    assert one.said


def test_what_all_workers_share_is_back_when_one_finds_it_back(lines: Captured) -> None:
    shared = Outage("thing", "others wait", common=True)
    outages.begin(0)
    try:
        child = os.fork()
        if child == 0:
            outages.begin(1)
            shared.lost("there")
            os._exit(0)
        os.waitpid(child, 0)
        assert shared.said
        shared.back()
        assert not shared.said
    finally:
        outages._known.remove(shared)
