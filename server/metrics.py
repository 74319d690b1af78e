"""Counters, gauges and histograms of this process, and one exposition for all workers of the host.

Lives here: the kinds of metric, the shared board on which each worker lays its figures once a second, and the text that
``/metrics`` answers. The metrics themselves are declared in the modules that count. Must not know: what is counted.

A metric is a plain dict and an increment one dictionary write (about 0.1 µs), because the hot paths count on every
message and request; prometheus_client, whose increment costs 10 times that, only writes the exposition. A label may
never hold an address, an id or a token.
"""

import bisect
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Literal

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

Labels = tuple[str, ...]
Kind = Literal["counter", "gauge", "histogram"]


class Counter:
    """Only ever grows; ``gauge`` says that it may fall too and that workers' values are summed all the same."""

    kind: Kind = "counter"

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:
        self.name, self.help, self.labels = name, help, labels
        self.values: dict[Labels, float] = {} if labels else {(): 0.0}
        _declared[name] = self

    def add(self, labels: Labels = (), n: float = 1) -> None:
        values = self.values
        values[labels] = values.get(labels, 0.0) + n


class Gauge(Counter):
    """A level of this process. The exposition sums the workers; what concerns the whole host, one of them sets."""

    kind: Kind = "gauge"

    def set(self, value: float, labels: Labels = ()) -> None:
        self.values[labels] = value


class Histogram:
    """Counts by upper bound, with a sum. ``bounds`` in the metric's unit, ascending."""

    kind: Kind = "histogram"

    def __init__(self, name: str, help: str, bounds: Sequence[float], labels: Labels = ()) -> None:
        self.name, self.help, self.labels = name, help, labels
        self.bounds = tuple(bounds)
        self.values: dict[Labels, list[float]] = {}
        _declared[name] = self

    def observe(self, value: float, labels: Labels = (), n: int = 1) -> None:
        """Count ``value`` ``n`` times."""
        cells = self.values.get(labels)
        if cells is None:  # one cell a bucket, one for +Inf, one for the sum
            cells = self.values[labels] = [0.0] * (len(self.bounds) + 2)
        cells[bisect.bisect_left(self.bounds, value)] += n
        cells[-1] += value * n


class Tally:
    """Events counted in one integer, ``n``, where even a dictionary write is too dear, and where one event concerns
    several metrics: ``fold`` adds that many to them whenever the figures are laid down.
    """

    __slots__ = ("_fold", "n")

    def __init__(self, fold: Callable[[int], None]) -> None:
        self.n, self._fold = 0, fold
        _tallies.append(self)

    def settle(self) -> None:
        n, self.n = self.n, 0
        if n:
            self._fold(n)


_declared: Final[dict[str, Counter | Histogram]] = {}
_tallies: Final[list[Tally]] = []

LATENCY: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bucket bounds in seconds that suit everything from a cached read to a slow commit."""

Snapshot = dict[str, list[tuple[Labels, Any]]]


def snapshot() -> bytes:
    """This process's figures, packed for the board."""
    for tally in _tallies:
        tally.settle()
    return msgspec.msgpack.encode({name: list(metric.values.items()) for name, metric in _declared.items()})


def restore(packed: bytes) -> None:
    """Begin from a predecessor's counters and histograms (gauges died with it), so no counter falls."""
    for name, rows in _unpack(packed).items():
        metric = _declared.get(name)
        if metric is not None and metric.kind != "gauge":
            metric.values = dict(rows)


def _unpack(packed: bytes) -> Snapshot:
    return msgspec.msgpack.decode(packed, type=Snapshot) if packed else {}


class Board:
    """Shared memory in which every worker keeps its last snapshot; mapped before the fork, one column a live worker.

    A column is: sequence (odd while being written), length, pid, bytes. One process writes a column, so no lock is
    needed; a reader that meets an odd or changed sequence reads again.
    """

    _HEAD = struct.Struct("=QQQ")

    def __init__(self, columns: int, size: int = 1 << 18) -> None:
        self._columns, self._size = columns, size
        self._memory = mmap.mmap(-1, columns * size)

    def publish(self, column: int, packed: bytes) -> bool:
        """Lay ``packed`` down; False (and nothing written) when it is larger than a column."""
        if len(packed) > self._size - self._HEAD.size:
            return False
        at = column * self._size
        sequence = self._HEAD.unpack_from(self._memory, at)[0] | 1
        self._HEAD.pack_into(self._memory, at, sequence, len(packed), os.getpid())
        self._memory[at + self._HEAD.size : at + self._HEAD.size + len(packed)] = packed
        self._HEAD.pack_into(self._memory, at, sequence + 1, len(packed), os.getpid())
        return True

    def read(self, column: int) -> bytes:
        """A column's last whole snapshot; empty when it never had one or its writer died while writing."""
        at = column * self._size
        for _ in range(100):
            sequence, length, _ = self._HEAD.unpack_from(self._memory, at)
            packed = self._memory[at + self._HEAD.size : at + self._HEAD.size + length]
            if sequence % 2 == 0 and self._HEAD.unpack_from(self._memory, at)[0] == sequence:
                return packed
        return b""

    def bury(self, pid: int) -> None:
        """A worker is gone: keep what it counted, forget its levels. Called by whoever reaped it."""
        for column in range(self._columns):
            if self._HEAD.unpack_from(self._memory, column * self._size)[2] == pid:
                rows = _unpack(self.read(column))
                kept = {name: row for name, row in rows.items() if _declared[name].kind != "gauge"}
                self.publish(column, msgspec.msgpack.encode(kept))

    def all(self) -> Iterator[bytes]:
        return (self.read(column) for column in range(self._columns))


def exposition(snapshots: Iterable[bytes]) -> bytes:
    """The Prometheus text format (0.0.4) of the sums over ``snapshots``."""
    sums: dict[str, dict[Labels, Any]] = {}
    for packed in snapshots:
        for name, rows in _unpack(packed).items():
            into = sums.setdefault(name, {})
            for labels, value in rows:
                into[labels] = _plus(into.get(labels), value)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Sums(sums))
    return generate_latest(registry)


def _plus(one: Any, other: Any) -> Any:
    if one is None:
        return other
    return [a + b for a, b in zip(one, other, strict=True)] if isinstance(other, list) else one + other


class _Sums(Collector):
    def __init__(self, sums: dict[str, dict[Labels, Any]]) -> None:
        self._sums = sums

    def collect(self) -> Iterator[Metric]:
        for name, metric in _declared.items():
            yield _family(metric, self._sums.get(name, {}))


def _family(metric: Counter | Histogram, rows: dict[Labels, Any]) -> Metric:
    if isinstance(metric, Histogram):
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, cells in rows.items():
            histogram.add_metric(labels, _buckets(metric.bounds, cells), cells[-1])
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in rows.items():
        family.add_metric(labels, value)
    return family


def _buckets(bounds: Sequence[float], cells: Sequence[float]) -> list[tuple[str, float]]:
    total, rows = 0.0, []
    for bound, cell in zip([*map(str, bounds), "+Inf"], cells, strict=False):
        total += cell
        rows.append((bound, total))
    return rows
