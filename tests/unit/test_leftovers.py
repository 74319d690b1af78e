"""What connections and transfers left behind goes back to the system, and a little holds up nothing."""

import gc
import weakref

from server.shards.heap_trim import COLLECTIONS, GONE, GROWN, LONGEST, SOONEST, TRIMS, Leftovers, resident

SIZE = 700  # malloc's: Python's own arenas take what has 512 bytes or less


class Process:
    """A clock and a size that are the test's to set."""

    def __init__(self) -> None:
        self.time, self.size = 0.0, 100 << 20
        self.leftovers = Leftovers(lambda: self.size, lambda: self.time)

    def counts(self, size: int, seconds: float = 0.0) -> tuple[int, int]:
        """How often it collected and gave back while it looked once, ``seconds`` later, at ``size`` bytes."""
        collections, trims = COLLECTIONS.values[()], TRIMS.values[()]
        self.time += seconds
        self.size = size
        self.leftovers.look(0)
        return int(COLLECTIONS.values[()] - collections), int(TRIMS.values[()] - trims)


class Cycle:
    def __init__(self) -> None:
        self.itself = self
        self.held = bytearray(GROWN)


def test_memory_below_what_is_still_used_is_given_back() -> None:
    held = [bytes(SIZE) for _ in range(40_000)]
    last = bytes(SIZE)  # it keeps malloc from giving back what lies below it
    watch = Leftovers(lambda: 0)
    watch.look(GONE)
    full = resident()
    held.clear()
    watch.look(0)
    assert full - resident() > 20_000 * SIZE
    assert last


def test_only_many_that_have_gone_are_worth_a_look_at_the_heap() -> None:
    watch, before = Leftovers(lambda: 0), TRIMS.values[()]
    for connections in (GONE, 1, GONE + 10, 11, 11, GONE, 12):
        watch.look(connections)
    assert TRIMS.values[()] == before
    watch.look(10)
    watch.look(10)
    assert TRIMS.values[()] == before + 1


def test_cycle_that_holds_much_goes_once_the_process_has_grown_by_it() -> None:
    gc.collect()
    gc.disable()
    try:
        watch = Leftovers()
        cycle = Cycle()
        cycle.held[::4096] = b"x" * len(cycle.held[::4096])  # the kernel gives a page once it is written to
        gone = weakref.ref(cycle)
        del cycle
        for _ in range(2):
            watch.look(0)
        assert gone() is None
    finally:
        gc.enable()


def test_growth_is_counted_from_where_the_last_collection_left_the_process() -> None:
    process = Process()
    assert process.counts(process.size + GROWN - 1) == (0, 0)
    assert process.counts(process.size + 1) == (1, 1)
    assert process.counts(process.size + GROWN - 1, 1.0) == (0, 0)
    assert process.counts(process.size + 1, 1.0) == (1, 1)
    assert process.counts(process.size - GROWN, 1.0) == (0, 0)
    assert process.counts(process.size + GROWN, 1.0) == (1, 1)


def test_what_was_in_use_when_a_process_grew_is_given_back_later_and_less_often_in_vain() -> None:
    process = Process()
    large = process.size + 2 * GROWN
    assert process.counts(large) == (1, 1)
    pauses, since = [], 0.0
    while len(pauses) < 8:
        since += 1.0
        if process.counts(large, 1.0) == (0, 1):
            pauses.append(since)
            since = 0.0
    assert pauses == sorted(pauses)
    assert SOONEST < pauses[0] <= 2 * SOONEST + 1
    assert pauses[-1] == LONGEST
    process.counts(large - GROWN, 1.0)
    assert process.counts(large - GROWN - 1, LONGEST) == (0, 0)  # near enough to its least
