"""Figures of many workers: sums are right, nothing falls on a restart, the dead leave no levels behind."""

import os

from prometheus_client.parser import text_string_to_metric_families

from server import metrics
from server.metrics import Board, Counter, Gauge, Histogram

COUNTER = Counter("test_things_total", "Things.", ("kind",))
GAUGE = Gauge("test_level", "Level.")
HISTOGRAM = Histogram("test_seconds", "Time.", (0.1, 1.0))


def reset() -> None:
    COUNTER.values, GAUGE.values, HISTOGRAM.values = {}, {(): 0.0}, {}


def parsed(board: Board) -> dict[str, float]:
    families = text_string_to_metric_families(metrics.exposition(board.all()).decode())
    samples = (s for family in families for s in family.samples)
    return {f"{s.name}{sorted(s.labels.items())}": s.value for s in samples if s.name.startswith("test_")}


def test_workers_are_summed() -> None:
    reset()
    board = Board(3)
    COUNTER.add(("a",), 2)
    GAUGE.set(5)
    HISTOGRAM.observe(0.1)
    HISTOGRAM.observe(7)
    for column in (0, 2):
        assert board.publish(column, metrics.snapshot())
    found = parsed(board)
    assert found["test_things_total[('kind', 'a')]"] == 4
    assert found["test_level[]"] == 10
    assert found["test_seconds_bucket[('le', '0.1')]"] == 2
    assert found["test_seconds_bucket[('le', '+Inf')]"] == found["test_seconds_count[]"] == 4
    assert found["test_seconds_sum[]"] == 14.2


def test_successor_goes_on_counting_and_the_dead_have_no_level() -> None:
    reset()
    board = Board(1)
    COUNTER.add(("a",), 7)
    GAUGE.set(3)
    board.publish(0, metrics.snapshot())
    board.bury(os.getpid())
    assert "test_level[]" not in parsed(board)
    reset()
    metrics.restore(board.read(0))
    COUNTER.add(("a",))
    board.publish(0, metrics.snapshot())
    assert parsed(board)["test_things_total[('kind', 'a')]"] == 8
    assert parsed(board)["test_level[]"] == 0


def test_figures_too_large_for_the_board_are_refused_whole() -> None:
    board = Board(1, size=64)
    assert board.publish(0, b"x" * 1000) is False
    assert board.read(0) == b""
