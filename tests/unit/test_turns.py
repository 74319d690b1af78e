"""Large work takes turns: the loop looks at its sockets between two pieces, and no one waits for ever."""

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from server.services.turns import Turns
from server.web.requests import LARGE, Call


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy()


class Rounds:
    """Counts the rounds of the loop while it is entered."""

    def __init__(self) -> None:
        self.now = 0

    def _count(self) -> None:
        self.now += 1
        self._next = asyncio.get_running_loop().call_soon(self._count)

    def __enter__(self) -> "Rounds":
        self._count()
        return self

    def __exit__(self, *_: object) -> None:
        self._next.cancel()


async def test_no_two_pieces_of_many_callers_share_a_round_of_the_loop() -> None:
    turns, pieces = Turns(), Counter[int]()

    async def large() -> None:
        for _ in range(20):
            await turns.take()
            pieces[rounds.now] += 1

    with Rounds() as rounds:
        await asyncio.gather(*(large() for _ in range(50)))
    assert pieces.total() == 1000
    assert len(pieces) >= 999  # the first one's round may be counted twice


async def test_callers_are_served_in_order_and_each_in_turn() -> None:
    turns, order = Turns(), list[int]()

    async def large(who: int) -> None:
        for _ in range(3):
            await turns.take()
            order.append(who)

    await asyncio.gather(*(large(who) for who in range(4)))
    assert order == [0, *[0, 1, 2, 3] * 2, 1, 2, 3]  # the first was alone when it came


async def test_who_goes_while_it_waits_holds_nobody_up_and_a_free_turn_costs_no_wait() -> None:
    turns = Turns()
    await turns.take()
    waiting = [asyncio.ensure_future(turns.take()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[1].cancel()
    async with asyncio.timeout(60):
        await waiting[2]
        for _ in range(3):
            await asyncio.sleep(0)
    taking = turns.take()
    with pytest.raises(StopIteration):
        taking.send(None)


async def test_work_of_a_request_takes_a_turn_where_it_is_large() -> None:
    parts: Any = SimpleNamespace(transfers=SimpleNamespace(turns=Turns()))
    target: Any = SimpleNamespace(raw_path="/", query={})
    call = Call(target, parts, "192.0.2.1", "en", ())
    with Rounds() as rounds:
        began = rounds.now
        for _ in range(20):
            await call.turn(LARGE)
        assert rounds.now == began
        for _ in range(20):
            await call.turn(LARGE + 1)
        assert rounds.now - began >= 19
