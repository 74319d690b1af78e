"""Questions put to the database together: those of one turn of the loop, and those that came while all lanes were busy,
share a statement, so that a burst of reads costs one round trip and one plan. The same question is put once.

A question never joins a statement that is under way already, so what it is answered was read after it was put: a
caller's ticket (cache/responses.py), taken before, holds. There is no timer: a single one goes at once.

Must not know: SQL, or what is asked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import chain, islice
from typing import Final, Generic, TypeVar

from server.metrics import Counter
from server.model.errors import Unavailable

QUESTIONS = Counter("tempmail_reads_total", "Questions put to the database together with others.", ("what",))
STATEMENTS = Counter("tempmail_read_statements_total", "Statements that answered them.", ("what",))

LANES: Final = 2  # statements under way at a time: one is being answered while the next is put
MOST: Final = 64  # questions of one statement
WAITING_MAX: Final = 10_000  # questions that wait; more are refused, as when no connection can be had

Question = TypeVar("Question")
Reply = TypeVar("Reply")


class Coalescer(Generic[Question, Reply]):
    """``ask`` answers each of the questions, in their order, or raises for all of them. Who asked the same get the same
    object.
    """

    def __init__(self, what: str, ask: Callable[[Sequence[Question]], Awaitable[Sequence[Reply]]]) -> None:
        self._labels, self._ask = (what,), ask
        self._waiting: dict[Question, list[asyncio.Future[Reply]]] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._awake = False

    async def answer(self, question: Question) -> Reply:
        """Unavailable when the statement failed, or when too many wait."""
        if len(self._waiting) >= WAITING_MAX:
            raise Unavailable(f"{WAITING_MAX} reads wait for the database")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        self._waiting.setdefault(question, []).append(future)
        if not self._awake:
            self._awake = True
            loop.call_soon(self._send)  # whoever asks in this turn comes along
        return await future

    def _send(self) -> None:
        self._awake = False
        while self._waiting and len(self._under_way) < LANES:
            batch = {question: self._waiting.pop(question) for question in list(islice(self._waiting, MOST))}
            task = asyncio.ensure_future(self._answered(batch))
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        self._send()

    async def _answered(self, batch: Mapping[Question, Sequence["asyncio.Future[Reply]"]]) -> None:
        QUESTIONS.add(self._labels, len(batch))
        STATEMENTS.add(self._labels)
        try:
            replies = await self._ask(list(batch))
        except BaseException as error:
            for future in chain.from_iterable(batch.values()):
                if not future.done():  # its asker may have gone
                    future.set_exception(_again(error))
            if not isinstance(error, Exception):
                raise
            return
        for futures, reply in zip(batch.values(), replies, strict=True):
            for future in futures:
                if not future.done():
                    future.set_result(reply)


def _again(error: BaseException) -> Exception:
    """The same failure for one of many: an exception raised in several places collects their traces."""
    return Unavailable(*error.args) if isinstance(error, Unavailable) or not isinstance(error, Exception) else error
