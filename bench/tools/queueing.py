"""A model of the workers: each takes whole requests in the order of their arrival, one after another (M/G/1, FIFO), and
is roused at a cost by one that finds it idle (P. D. Welch, 1964: a queue whose first service of a busy period differs).

Requests arrive at random moments (a Poisson process). SO_REUSEPORT gives a connection to one worker for its life, so
each worker gets the share of the arrivals that its connections bring. Pure: a seed gives the same result. Must not
know: servers, sockets, or where the service times came from.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.tools.stats import Latency, summarise


@dataclass(frozen=True, slots=True)
class Foretold:
    """``utilisation`` is the busiest worker's share of time at work; ``sojourn`` waiting and service, in seconds."""

    utilisation: float
    sojourn: Latency


Service = Callable[[random.Random], tuple[float, float]]
"""What one request takes, in seconds: of the worker, and of others (the database) while it does the next."""


def exponential(mean: float) -> Service:
    """Work without memory, as M/M/1 has it."""
    return lambda rng: (rng.expovariate(1 / mean), 0.0)


def mixture(shares: Sequence[tuple[float, float, float]]) -> Service:
    """One of several kinds of request: ``(share, work, away)``, shares adding up to 1."""
    weights, kinds = [share for share, _, _ in shares], [(work, away) for _, work, away in shares]
    return lambda rng: rng.choices(kinds, weights)[0]


def dealt(connections: int, workers: int, rng: random.Random) -> list[float]:
    """Shares of the connections that each worker gets when the kernel deals them out by a hash of their addresses."""
    counts = [0] * workers
    for _ in range(connections):
        counts[rng.randrange(workers)] += 1
    return [count / connections for count in counts]


def simulate(
    rate: float, service: Service, shares: Sequence[float], requests: int, seed: int, *, rouse: float = 0.0
) -> Foretold:
    """``requests`` arrivals at ``rate`` a second in all, dealt to workers by ``shares``; the first tenth only warms up.
    ``rouse``: seconds of work more for a request that comes to an idle worker.

    By Lindley's recursion (1952): a request waits for what was left of the work before it when it came.
    """
    rng = random.Random(seed)
    free = [0.0] * len(shares)  # when each worker has done all it was given
    busy = [0.0] * len(shares)
    workers = range(len(shares))
    now, sojourns = 0.0, []
    for number in range(requests):
        now += rng.expovariate(rate)
        worker = rng.choices(workers, shares)[0]
        takes, away = service(rng)
        if free[worker] <= now:
            takes += rouse
        free[worker] = max(free[worker], now) + takes
        busy[worker] += takes
        if number >= requests // 10:
            sojourns.append(free[worker] - now + away)
    return Foretold(max(busy) / max(now, 1e-9), summarise(sojourns))
