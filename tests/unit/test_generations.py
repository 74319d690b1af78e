"""Generations: no cached answer is used once the change that outdates it is visible, whoever dies in between."""

import mmap
import multiprocessing
import os
import signal
import time
from collections.abc import Callable

import pytest

from server.cache.generations import Generations, Writer

fork = multiprocessing.get_context("fork")


def run_forked(*bodies: Callable[[], None]) -> None:
    """Run each body in a process of its own; a failed assertion there fails here."""
    children = [fork.Process(target=body) for body in bodies]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * len(bodies)


def killed_while_writing(table: Generations, column: int, slots: list[int]) -> None:
    """A writer process that is killed with -9 between begin and end."""
    reader, writer = os.pipe()

    def write_for_ever() -> None:
        Writer(table, column).begin(slots)
        os.write(writer, b"!")
        signal.pause()

    child = fork.Process(target=write_for_ever)
    child.start()
    os.read(reader, 1)
    child.kill()
    child.join(10)
    os.close(reader)
    os.close(writer)
    assert child.exitcode == -signal.SIGKILL


def test_a_write_outdates_what_was_kept_from_its_beginning() -> None:
    table = Generations(3, 64)
    writer, slot = Writer(table, 1), table.slot(b"mailbox")
    before = table.snapshot(slot)
    writer.begin([slot])
    during = table.snapshot(slot)
    writer.end([slot])
    after = table.snapshot(slot)
    assert [table.settled(row) for row in (before, during, after)] == [True, False, True]
    assert len({before, during, after}) == 3


def test_overlapping_writes_stay_unsettled_until_the_last_ends() -> None:
    table = Generations(2, 64)
    writer = Writer(table, 0)
    writer.begin([5, 6, 5])  # two keys of one write may share a slot
    writer.begin([5])
    writer.end([5, 6, 5])
    assert not table.settled(table.snapshot(5))
    assert table.settled(table.snapshot(6))
    writer.end([5])
    assert table.settled(table.snapshot(5))


def test_writes_within_one_tick_of_the_clock_leave_different_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic_ns", lambda: 1_000_000)
    table = Generations(2, 64)
    writer, seen = Writer(table, 0), set()
    for _ in range(3):
        writer.begin([5])
        writer.end([5])
        seen.add(table.snapshot(5))
    assert len(seen) == 3


def test_the_moment_of_a_change_is_unknown_while_one_is_under_way() -> None:
    table = Generations(2)
    writer, other, slot = Writer(table, 0), Writer(table, 1), table.slot(b"mailbox")
    assert table.changed(b"mailbox") == 0
    writer.begin([slot])
    assert table.changed(b"mailbox") is None
    before = time.monotonic_ns()
    writer.end([slot])
    first = table.changed(b"mailbox")
    assert first is not None
    assert before - 1 <= first <= time.monotonic_ns()
    other.begin([slot])
    assert table.changed(b"mailbox") is None
    other.end([slot])
    second = table.changed(b"mailbox")
    assert second is not None
    assert second >= first


def test_an_answer_is_not_carried_on_over_the_write_of_another_worker() -> None:
    table = Generations(3, 64)
    mine, other = Writer(table, 1), Writer(table, 2)

    def write(writer: Writer) -> None:
        writer.begin([5])
        writer.end([5])

    before = table.snapshot(5)
    write(mine)
    assert mine.since(5, before) == table.snapshot(5)
    before = table.snapshot(5)
    write(other)  # begun and ended meanwhile
    write(mine)
    assert mine.since(5, before) is None
    other.begin([5])
    before = table.snapshot(5)  # under way before and after
    write(mine)
    assert mine.since(5, before) is None
    other.end([5])
    before = table.snapshot(5)
    other.begin([5])  # begun meanwhile
    write(mine)
    assert mine.since(5, before) is None


def test_only_a_write_that_no_other_of_its_process_overlapped_ends_alone() -> None:
    writer = Writer(Generations(2, 64), 0)
    writer.begin([5, 6])
    assert writer.end([5, 6]) == {5, 6}
    writer.begin([5, 6])
    writer.begin([5])
    assert writer.end([5]) == set()  # the other goes on
    assert writer.end([5, 6]) == {6}  # a write of 5 was over meanwhile
    writer.begin([5])
    assert writer.end([5]) == {5}


def test_end_without_begin_is_refused() -> None:
    with pytest.raises(KeyError):
        Writer(Generations(1, 64), 0).end([1])


def test_news_from_another_host_outdates_even_during_a_write() -> None:
    table = Generations(2, 64)
    writer = Writer(table, 1)
    before = table.snapshot(9)
    writer.bump(iter([9]))
    after = table.snapshot(9)
    assert table.settled(after)
    assert after != before
    writer.begin([9])
    writer.bump([9])
    assert not table.settled(table.snapshot(9))
    writer.end([9])
    assert table.snapshot(9) not in (before, after)


@pytest.mark.parametrize("columns", [1, 2, 4, 66])
def test_every_column_alone_unsettles_and_changes_the_row(columns: int) -> None:
    table = Generations(columns, 16)
    seen = {table.snapshot(15)}
    for column in range(columns):
        writer = Writer(table, column)
        writer.begin([15])
        assert not table.settled(table.snapshot(15))
        writer.end([15])
        assert table.settled(table.snapshot(15))
        seen.add(table.snapshot(15))
    assert len(seen) == columns + 1
    assert table.snapshot(14) == bytes(8 * columns)


def test_forked_processes_agree_on_slots_and_see_each_others_writes() -> None:
    table = Generations(2)
    keys = [os.urandom(16) for _ in range(1000)]
    before = {key: table.snapshot(table.slot(key)) for key in keys}
    run_forked(lambda: Writer(table, 1).bump(table.slot(key) for key in keys))
    assert all(table.snapshot(table.slot(key)) != before[key] for key in keys)


def test_a_killed_writers_slot_is_not_cached_until_healed_and_no_value_returns() -> None:
    table = Generations(2, 64)
    seen = {table.snapshot(7)}
    for _ in range(5):
        killed_while_writing(table, 1, [7, 8])
        successor = Writer(table, 1)
        assert not table.settled(table.snapshot(7))  # the dead writer's backend may still be committing
        successor.begin([7])
        successor.end([7])
        assert not table.settled(table.snapshot(7))
        successor.heal()
        successor.heal()
        row = table.snapshot(7)
        assert table.settled(row)
        assert table.settled(table.snapshot(8))
        assert row not in seen
        seen.add(row)


@pytest.mark.parametrize(("columns", "slots"), [(1, 0), (1, 3), (0, 4)])
def test_impossible_tables_are_refused(columns: int, slots: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Generations(columns, slots)


def test_a_column_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="column 2"):
        Writer(Generations(2, 4), 2)


def test_no_reader_ever_uses_an_answer_older_than_what_it_has_already_seen() -> None:
    """Two writers commit numbers to a shared "database", two readers cache them: the seen may never go back."""
    table = Generations(4, 16)
    database = memoryview(mmap.mmap(-1, 8 * 4)).cast("Q")
    tallies = memoryview(mmap.mmap(-1, 8 * 8)).cast("Q")
    slot = table.slot(b"key")
    end, latest = time.monotonic() + 3, time.monotonic() + 50

    def going_on() -> bool:
        """For three seconds, and on a busy machine until each has done enough for the others to meet it."""
        now = time.monotonic()
        return now < end or (now < latest and any(tallies[place] <= 100 for place in range(4)))

    def write(column: int) -> None:
        writer = Writer(table, column)
        while going_on():
            writer.begin([slot])
            database[column] += 1  # COMMIT becomes visible
            writer.end([slot])
            tallies[column] += 1
            if tallies[column] % 50 == 0:
                time.sleep(0.0005)  # gives the readers something to keep

    def read(place: int) -> None:
        kept, answer = b"", (0, 0)
        while going_on():
            visible = (database[0], database[1])
            row = table.snapshot(slot)
            if row == kept:
                assert answer[0] >= visible[0]
                assert answer[1] >= visible[1]
                tallies[place] += 1
                continue
            fresh = (database[0], database[1])
            if table.settled(row):
                kept, answer = row, fresh

    run_forked(lambda: write(0), lambda: write(1), lambda: read(2), lambda: read(3))
    assert all(tallies[place] > 100 for place in range(4)), tallies.tolist()
