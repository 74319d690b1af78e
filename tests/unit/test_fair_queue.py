"""A queue of many clients: none fills it, none is passed over for ever, and nothing is counted that has gone."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.model.client import networks
from server.services.fair_queue import FairQueue, QueueFull, ShareUsed
from tests.clients import of


def taken(queue: FairQueue[str]) -> list[str]:
    """What may run now, in order."""
    found = []
    while (one := queue.take()) is not None:
        found.append(one[1])
    return found


def test_client_with_its_share_leaves_room_for_others() -> None:
    queue: FairQueue[str] = FairQueue(most=10, share=3, at_once=1)
    for n in range(3):
        queue.put(of("a"), str(n))
    with pytest.raises(ShareUsed):
        queue.put(of("a"), "4")
    queue.put(of("b"), "other")
    assert taken(queue) == ["0", "other"]


def test_one_mailbox_asked_from_many_networks_has_one_share() -> None:
    queue: FairQueue[str] = FairQueue(most=10, share=3, at_once=1)
    for n in range(3):
        queue.put(of(f"network {n}", "box"), str(n))
    with pytest.raises(ShareUsed):
        queue.put(of("network 4", "box"), "4")
    assert taken(queue) == ["0"]


def test_all_together_fill_it() -> None:
    queue: FairQueue[str] = FairQueue(most=4, share=2, at_once=2)
    for n in range(4):
        queue.put(of(str(n)), "")
    with pytest.raises(QueueFull):
        queue.put(of(str(5)), "")
    queue.done(queue.take()[0])  # type: ignore[index]
    queue.put(of(str(5)), "")


def test_clients_take_turns_however_many_items_one_has() -> None:
    queue: FairQueue[str] = FairQueue(most=100, share=50, at_once=50)
    for n in range(3):
        queue.put(of("a"), f"a{n}")
    queue.put(of("b"), "b0")
    queue.put((), "free")
    assert taken(queue) == ["a0", "b0", "free", "a1", "a2"]


def test_clients_without_limits_have_no_share() -> None:
    queue: FairQueue[str] = FairQueue(most=9, share=1, at_once=1)
    for n in range(9):
        queue.put((), str(n))
    assert len(taken(queue)) == 9


def test_first_item_may_be_larger_than_a_share() -> None:
    queue: FairQueue[str] = FairQueue(most=9, share=2, at_once=1)
    queue.put(of("a"), "large", 5)
    with pytest.raises(ShareUsed):
        queue.put(of("a"), "more", 1)


def test_owner_of_many_networks_holds_half_and_runs_as_one_client() -> None:
    queue: FairQueue[str] = FairQueue(most=20, share=3, at_once=1)
    held = 0
    for n in range(20):
        try:
            queue.put(networks(f"2001:db8:0:{n}::1"), str(n))
            held += 1
        except ShareUsed:
            break
    assert held == 10
    assert taken(queue) == ["0"]
    queue.put(networks("2001:db9::1"), "other")
    assert taken(queue) == ["other"]


@given(st.lists(st.tuples(st.sampled_from(["put", "take", "remove"]), st.integers(0, 3), st.integers(1, 3))))
def test_bounds_hold_and_nothing_is_left_behind(steps: list[tuple[str, int, int]]) -> None:
    queue: FairQueue[int] = FairQueue(most=12, share=6, at_once=2)
    waiting: list[tuple[Any, int, int]] = []
    running: list[tuple[Any, int, int]] = []
    for number, (step, client, weight) in enumerate(steps):
        clients = of(str(client), "all") if client == 3 else of(str(client))
        if step == "put":
            try:
                queue.put(clients, number, weight)
                waiting.append((clients, number, weight))
            except (ShareUsed, QueueFull):
                pass
        elif step == "take":
            one = queue.take()
            if one is not None:
                waiting.remove(one)
                running.append(one)
        elif waiting:
            queue.remove(*waiting.pop(weight % len(waiting)))
        held = waiting + running
        assert len(queue) == len(waiting)
        assert sum(weight for _, _, weight in held) <= 12
        assert max(Counter(key for clients, _, _ in running for key, _ in clients).values(), default=0) <= 2
    for clients, _, weight in running:
        queue.done(clients, weight)
    queue.clear()
    for client in range(4):
        queue.put(of(str(client)), 0, 3)  # nothing of the past counts
