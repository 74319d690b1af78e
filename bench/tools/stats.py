"""The arithmetic of a benchmark: percentiles, histograms, paired ratios and the schedule of an open loop.

Pure functions over numbers. Must not know: sockets, clocks, processes, or what was measured.
"""

import math
import random
import statistics
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

HISTOGRAM_BINS = 11


@dataclass(frozen=True, slots=True)
class Bin:
    """``count`` durations were at most ``upper`` seconds and above the bin before."""

    upper: float
    count: int


@dataclass(frozen=True, slots=True)
class Latency:
    """A distribution of durations in seconds; all zero when nothing was measured."""

    count: int
    mean: float
    minimum: float
    p50: float
    p95: float
    p99: float
    maximum: float
    bins: tuple[Bin, ...] = ()


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """The nearest-rank percentile of an ascending sequence: a value that was really seen, never interpolated."""
    if not ordered:
        raise ValueError("a percentile of nothing")
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction {fraction} is not in (0, 1]")
    # round() first: 0.95 * 100 is 95.00000000000001 in binary and would ask for one rank too many.
    return ordered[max(math.ceil(round(fraction * len(ordered), 9)), 1) - 1]


def summarise(values: Sequence[float]) -> Latency:
    """Condense durations in seconds."""
    if not values:
        return Latency(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    ordered = sorted(values)
    return Latency(
        count=len(ordered),
        mean=statistics.fmean(ordered),
        minimum=ordered[0],
        p50=percentile(ordered, 0.50),
        p95=percentile(ordered, 0.95),
        p99=percentile(ordered, 0.99),
        maximum=ordered[-1],
        bins=tuple(histogram(ordered)),
    )


def histogram(values: Sequence[float], bins: int = HISTOGRAM_BINS) -> list[Bin]:
    """Bins whose bounds grow by one factor from the least to the greatest value, so that a long tail stays readable."""
    if not values:
        return []
    low, high = max(min(values), 1e-9), max(values)
    if high <= low:
        return [Bin(high, len(values))]
    factor = (high / low) ** (1 / bins)
    counts = [0] * bins
    for value in values:
        position = math.log(max(value, low) / low) / math.log(factor)
        counts[min(max(math.ceil(round(position, 9)) - 1, 0), bins - 1)] += 1
    uppers = [low * factor ** (i + 1) for i in range(bins - 1)] + [high]
    return [Bin(upper, count) for upper, count in zip(uppers, counts, strict=True)]


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the per-run ratios: run i of both was measured side by side, so noise of the moment cancels."""
    if len(ours) != len(theirs) or not ours:
        raise ValueError("a ratio needs equally many runs of both")
    if min(theirs) <= 0:
        raise ValueError("a ratio to a run that did nothing")
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def cpu_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """How many times more CPU they spend on one operation than we do, by medians; None when either was not measured.

    It moves far less than a wall-clock ratio when other work shares the machine.
    """
    if not ours or not theirs or statistics.median(ours) <= 0:
        return None
    return statistics.median(theirs) / statistics.median(ours)


class Schedule:
    """Send times of an open loop: request ``i`` is due at ``start + i / rate``, earlier ones answered or not.

    Latency counted from the due time and not from the moment of sending charges a stall of the server to every request
    that should have gone out during it; a closed loop would leave those out (coordinated omission).
    """

    __slots__ = ("_rate", "_start", "total")

    def __init__(self, start: float, rate: float, seconds: float) -> None:
        """``start`` on any clock, in seconds; ``rate`` per second; ValueError unless both extents are > 0."""
        if rate <= 0 or seconds <= 0:
            raise ValueError("an open loop needs a rate and a duration above 0")
        self._start = start
        self._rate = rate
        self.total = max(round(rate * seconds), 1)

    def due_by(self, now: float) -> int:
        """How many requests should have been sent by ``now``, in all."""
        if now < self._start:
            return 0
        return min(int((now - self._start) * self._rate) + 1, self.total)

    def time_of(self, index: int) -> float:
        """When request ``index`` is due."""
        return self._start + index / self._rate


class RandomSchedule(Schedule):
    """The same number of requests at random moments: the gaps are exponential, as in a Poisson process."""

    __slots__ = ("_times",)

    def __init__(self, start: float, rate: float, seconds: float, seed: int) -> None:
        super().__init__(start, rate, seconds)
        rng = random.Random(seed)
        self._times = [start + gap for gap in accumulate(rng.expovariate(rate) for _ in range(self.total))]

    def due_by(self, now: float) -> int:
        return bisect_right(self._times, now)

    def time_of(self, index: int) -> float:
        return self._times[index]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether two samples differ: ``effect`` is how much likelier a value of the first is the greater than the smaller
    (-1 to 1, 0 is none), ``p`` how probable so great an effect would be if there were no difference.
    """

    effect: float
    p: float


def mann_whitney(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """The two-sided rank-sum test with its normal approximation and the correction for ties (Mann and Whitney, 1947).

    The effect is the rank-biserial correlation. ValueError for a sample under 20, which the approximation is not for.
    """
    n, m = len(first), len(second)
    if min(n, m) < 20:
        raise ValueError("the normal approximation wants at least 20 values on each side")
    ordered = sorted([(value, 0) for value in first] + [(value, 1) for value in second])
    rank_sum, ties, start = 0.0, 0, 0
    while start < n + m:
        end = start
        while end < n + m and ordered[end][0] == ordered[start][0]:
            end += 1
        same = end - start
        rank_sum += (start + 1 + end) / 2 * sum(1 for _, side in ordered[start:end] if side == 0)
        ties += same**3 - same
        start = end
    u = rank_sum - n * (n + 1) / 2
    variance = n * m / 12 * (n + m + 1 - ties / ((n + m) * (n + m - 1)))
    z = (u - n * m / 2) / math.sqrt(variance) if variance else 0.0
    return Comparison(2 * u / (n * m) - 1, math.erfc(abs(z) / math.sqrt(2)))
