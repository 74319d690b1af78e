"""Questions put together: each gets its own answer, a later one never an older answer, and a fault is told."""

import asyncio
from collections.abc import Sequence

import pytest

from server.model.errors import Unavailable
from server.store import coalescing
from server.store.coalescing import LANES, MOST, Coalescer


class Database:
    """Answers when it is told to; remembers what it was asked."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.value = 0
        self.failure: Exception | None = None

    async def ask(self, questions: Sequence[int]) -> list[tuple[int, int]]:
        self.batches.append(list(questions))
        read = self.value
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return [(question, read) for question in questions]


async def asked_for(database: Database, count: int) -> None:
    """Until so many statements have begun."""
    async with asyncio.timeout(60):
        while len(database.batches) < count:
            await asyncio.sleep(0)


async def test_questions_of_one_turn_share_a_statement_and_each_gets_its_own_answer() -> None:
    database = Database()
    database.gate.set()
    asked = Coalescer("test", database.ask)
    assert await asyncio.gather(*[asked.answer(n % 7) for n in range(20)]) == [(n % 7, 0) for n in range(20)]
    assert database.batches == [list(range(7))]
    assert await asked.answer(1) == (1, 0)
    assert len(database.batches) == 2


async def test_later_question_is_never_answered_by_a_statement_under_way() -> None:
    database = Database()
    asked = Coalescer("test", database.ask)
    first = asyncio.create_task(asked.answer(1))
    await asked_for(database, 1)
    database.value = 1  # a write
    later = [asyncio.create_task(asked.answer(n)) for n in range(LANES * MOST * 2)]
    await asked_for(database, LANES)
    await asyncio.sleep(0.01)  # and no more
    assert len(database.batches) == LANES
    assert all(len(batch) <= MOST for batch in database.batches)
    database.gate.set()
    assert await first == (1, 0)
    assert await asyncio.gather(*later) == [(n, 1) for n in range(LANES * MOST * 2)]


async def test_asker_who_goes_harms_no_other() -> None:
    database = Database()
    asked = Coalescer("test", database.ask)
    tasks = [asyncio.create_task(asked.answer(n)) for n in range(3)]
    await asked_for(database, 1)
    tasks[1].cancel()
    database.gate.set()
    assert await tasks[0] == (0, 0)
    assert await tasks[2] == (2, 0)


async def test_failure_is_told_to_all_and_the_next_question_is_asked_anew() -> None:
    database = Database()
    database.gate.set()
    database.failure = Unavailable("down")
    asked = Coalescer("test", database.ask)
    answers = await asyncio.gather(*[asked.answer(n) for n in range(3)], return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 3
    assert len({id(answer) for answer in answers}) == 3
    database.failure = None
    assert await asked.answer(5) == (5, 0)


async def test_too_many_waiting_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalescing, "WAITING_MAX", 3)
    database = Database()
    asked = Coalescer("test", database.ask)
    tasks = [asyncio.create_task(asked.answer(n)) for n in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await asked.answer(9)
    database.gate.set()
    await asyncio.gather(*tasks)
