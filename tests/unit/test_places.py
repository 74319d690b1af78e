"""Places: never more than the limit over all processes, each given back when it ends, however it ends."""

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection

import pytest

from server.cache.semaphore import MOST, SharedSemaphore

forking = multiprocessing.get_context("fork")


def _hold(places: SharedSemaphore, key: bytes, limit: int, wanted: int, pipe: Connection) -> None:
    """Take what can be had, say how much that was, and hold it."""
    pipe.send(sum(places.take(key, limit) is not None for _ in range(wanted)))
    pipe.recv()


class Holder:
    def __init__(self, places: SharedSemaphore, key: bytes, limit: int, wanted: int) -> None:
        self._pipe, theirs = forking.Pipe()
        self.process = forking.Process(target=_hold, args=(places, key, limit, wanted, theirs))
        self.process.start()
        self.taken: int = self._pipe.recv()

    def end(self, signal_number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signal_number)
        self.process.join()


def test_processes_share_an_accounts_places() -> None:
    places = SharedSemaphore()
    holders = [Holder(places, b"user", 5, wanted) for wanted in (2, 2, 2)]
    assert [holder.taken for holder in holders] == [2, 2, 1]
    assert places.take(b"user", 5) is None
    assert places.take(b"another", 5) is not None
    for holder in holders:
        holder.end(signal.SIGKILL)


def test_a_killed_process_keeps_no_place() -> None:
    places = SharedSemaphore()
    holder = Holder(places, b"user", 3, 3)
    assert (holder.taken, places.take(b"user", 3)) == (3, None)
    holder.end(signal.SIGKILL)
    taken = [places.take(b"user", 3) for _ in range(4)]
    assert None not in taken[:3]
    assert taken[3] is None


def test_a_place_given_back_can_be_taken_again_here_and_elsewhere() -> None:
    places = SharedSemaphore()
    for _ in range(3):
        place = places.take(b"user", 1)
        assert place is not None
        assert places.take(b"user", 1) is None
        places.give_back(place)
        holder = Holder(places, b"user", 1, 1)
        assert holder.taken == 1
        holder.end(signal.SIGKILL)


def test_giving_back_what_is_not_held_is_a_fault() -> None:
    places = SharedSemaphore()
    with pytest.raises(KeyError):
        places.give_back(7)


def test_places_of_one_account_are_bounded_whatever_the_limit() -> None:
    places = SharedSemaphore()
    assert sum(places.take(b"user", 10 * MOST) is not None for _ in range(MOST + 5)) == MOST


def test_ending_one_process_takes_nothing_from_another() -> None:
    places = SharedSemaphore()
    place = places.take(b"user", 2)
    holder = Holder(places, b"user", 2, 2)
    assert (place is not None, holder.taken) == (True, 1)
    holder.end(signal.SIGTERM)
    following = Holder(places, b"user", 2, 2)
    assert following.taken == 1
    following.end(signal.SIGKILL)
