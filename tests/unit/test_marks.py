"""Marks: a number for each key, shared by processes, and never another's."""

import multiprocessing

import pytest

from server.cache.marks import Marks

fork = multiprocessing.get_context("fork")


def test_the_highest_number_stands_and_an_unknown_key_has_none() -> None:
    marks = Marks()
    assert marks.get(b"a") == 0
    for number in (3, 7, 5):
        marks.put(b"a", number)
    assert (marks.get(b"a"), marks.get(b"b")) == (7, 0)


def test_another_process_sees_it() -> None:
    marks = Marks()
    child = fork.Process(target=marks.put, args=(b"a", 9))
    child.start()
    child.join(30)
    assert marks.get(b"a") == 9


def test_a_full_table_forgets_and_confuses_nothing() -> None:
    marks = Marks(8)
    for number in range(1, 101):
        marks.put(b"%d" % number, number)
    found = {number: marks.get(b"%d" % number) for number in range(1, 101)}
    assert set(found.values()) - {0} == {number for number, mark in found.items() if mark == number}
    assert sum(mark != 0 for mark in found.values()) == 8


@pytest.mark.parametrize("slots", [0, 4, 12])
def test_impossible_tables_are_refused(slots: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Marks(slots)
