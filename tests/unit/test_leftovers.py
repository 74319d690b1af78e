"""What many connections left behind goes back to the system, and nobody is held up for the sake of a few."""

import os

from server.shards.leftovers import GONE, TRIMS, Leftovers

PAGE = os.sysconf("SC_PAGE_SIZE")
SIZE = 700  # malloc's: Python's own arenas take what has 512 bytes or less


def resident() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * PAGE


def test_memory_below_what_is_still_used_is_given_back() -> None:
    held = [bytes(SIZE) for _ in range(40_000)]
    last = bytes(SIZE)  # it keeps malloc from giving back what lies below it
    watch = Leftovers()
    watch.look(GONE)
    full = resident()
    held.clear()
    watch.look(0)
    assert full - resident() > 20_000 * SIZE
    assert last


def test_only_many_that_have_gone_are_worth_a_look_at_the_heap() -> None:
    watch, before = Leftovers(), TRIMS.values[()]
    for connections in (GONE, 1, GONE + 10, 11, 11, GONE, 12):
        watch.look(connections)
    assert TRIMS.values[()] == before
    watch.look(10)
    watch.look(10)
    assert TRIMS.values[()] == before + 1
