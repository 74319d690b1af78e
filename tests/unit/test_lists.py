"""A kept list that grew with what came is byte for byte the list that a reader would have been given."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from server.cache import keys
from server.cache.generations import Generations, Writer
from server.cache.responses import UNSEEN_MAX, CachedResponse, ResponseCache
from server.model import ids
from server.model.event import Hint, Step
from server.model.message import Details, Stored
from server.services.coherence import Coherence
from server.web.api.message_list import first_page

BOX, OTHER = ids.new(), ids.new()


def letter(seq: int, mailbox_id: str = BOX) -> Stored:
    return Stored(
        *(ids.new(seq), mailbox_id, seq, datetime.now(UTC), "a@b.c", "Ä <a@b.c>", "x@y.z", f'"{seq},', "☃" * (seq % 7)),
        *(1, False, Details(codes=("1",))),
    )


class Worker:
    """One worker's memory; ``mail`` is the mailbox's, which all workers see."""

    def __init__(self, table: Generations, column: int, mail: list[Stored]) -> None:
        self.local = ResponseCache(table, 1 << 20, 60, column)
        self.writer = Writer(table, column)
        self.coherence = Coherence(table, self.writer, self._told, 1.0)
        self._mail = mail

    def _told(self, hints: Sequence[Hint]) -> None:
        """No other host listens here."""

    def fresh(self, limit: int) -> CachedResponse:
        reply = first_page("en", BOX, limit, self._mail[: -limit - 1 : -1], len(self._mail))
        return CachedResponse(reply.body, reply.etag)

    def read(self, limit: int) -> None:
        ticket = self.local.ticket(keys.mailbox(BOX))
        reply = first_page("en", BOX, limit, self._mail[: -limit - 1 : -1], len(self._mail))
        self.local.put(limit, ticket, CachedResponse(reply.body, reply.etag), growth=reply.growth)

    def deliver(self, *came: Stored) -> list[Step]:
        with self.coherence.writing({BOX}) as write:
            self._mail.extend(came)
        return self.coherence.steps(write, came)


@pytest.fixture
def mail() -> list[Stored]:
    return [letter(1), letter(2)]


@pytest.fixture
def table() -> Generations:
    return Generations(2)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 50])
def test_list_grows_to_what_a_read_would_give(table: Generations, mail: list[Stored], limit: int) -> None:
    one, two = Worker(table, 0, mail), Worker(table, 1, mail)
    one.read(limit)
    two.read(limit)
    for came in ([letter(3)], [letter(4), letter(5), letter(6)], [letter(7)]):
        steps = one.deliver(*came)
        one.local.follow(*steps)
        two.local.follow(*steps)
        assert one.local.get(limit) == one.fresh(limit)
    assert two.local.get(limit) == two.fresh(limit)  # which nobody had looked at meanwhile


def test_empty_list_grows_from_the_first_message_only(table: Generations) -> None:
    for first, grows in ((1, True), (2, False)):  # number 1 may have been deleted, or not be heard of yet
        mail: list[Stored] = []
        one = Worker(table, 0, mail)
        one.read(3)
        one.local.follow(*one.deliver(letter(first)))
        assert one.local.get(3) == (one.fresh(3) if grows else None)


def test_missing_number_is_read_again(table: Generations, mail: list[Stored]) -> None:
    one = Worker(table, 0, mail)
    one.read(3)
    one.local.follow(*one.deliver(letter(4)))
    assert one.local.get(3) is None


def test_whatever_else_happened_is_read_again(table: Generations, mail: list[Stored]) -> None:
    one, two = Worker(table, 0, mail), Worker(table, 1, mail)
    slot = table.slot(keys.mailbox(BOX))
    one.read(3)
    with two.coherence.writing([BOX]):  # another worker's change under way
        assert one.deliver(letter(3)) == []
    assert one.local.get(3) is None

    one.read(3)
    with one.coherence.writing([BOX]):  # one of this worker's, begun before
        assert one.deliver(letter(4)) == []
    assert one.local.get(3) is None

    one.read(3)
    with one.coherence.writing({BOX}) as write:  # one of this worker's, begun and ended meanwhile
        one.writer.begin([slot])
        one.writer.end([slot])
    assert one.coherence.steps(write, [letter(5)]) == []

    mail.append(letter(5))
    one.read(3)
    steps = one.deliver(letter(6))
    two.writer.bump([slot])  # another worker's change that was over before the step was heard of
    one.local.follow(*steps)
    assert one.local.get(3) is None


def test_read_that_already_shows_the_mail_does_not_show_it_twice(table: Generations, mail: list[Stored]) -> None:
    one = Worker(table, 0, mail)
    one.read(3)
    ticket, came = one.local.ticket(keys.mailbox(BOX)), letter(3)
    with one.coherence.writing({BOX}) as write:
        mail.append(came)
        reply = first_page("en", BOX, 3, mail[::-1], 3)
        one.local.put(3, ticket, CachedResponse(reply.body, reply.etag), growth=reply.growth)
    one.local.follow(*one.coherence.steps(write, [came]))
    assert one.local.get(3) is None


def test_step_that_comes_late_leaves_what_was_read_since(table: Generations, mail: list[Stored]) -> None:
    one, two = Worker(table, 0, mail), Worker(table, 1, mail)
    two.read(3)
    steps = one.deliver(letter(3))
    two.read(3)
    two.local.follow(*steps)
    assert two.local.get(3) == two.fresh(3)
    assert one.deliver(letter(4))  # and is told again


def test_list_that_nobody_looks_at_stops_growing(table: Generations, mail: list[Stored]) -> None:
    one = Worker(table, 0, mail)
    one.read(50)
    for seq in range(3, 3 + UNSEEN_MAX):
        one.local.follow(*one.deliver(letter(seq)))
    one.local.follow(*one.deliver(letter(3 + UNSEEN_MAX)))  # one more than it grows by
    assert one.local.get(50) is None
    assert one.deliver(letter(4 + UNSEEN_MAX)) == []  # no worker follows any more


def test_list_grows_by_as_many_as_the_bound_lets_in(table: Generations, mail: list[Stored]) -> None:
    one = Worker(table, 0, mail)
    one.read(50)
    for seq in range(3, 3 + UNSEEN_MAX):
        one.local.follow(*one.deliver(letter(seq)))
    assert one.local.get(50) == one.fresh(50)


def test_growing_outlives_no_ttl(table: Generations, mail: list[Stored], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    one = Worker(table, 0, mail)  # keeps for 60 s
    one.read(3)
    now[0] += 59
    one.local.follow(*one.deliver(letter(3)))
    assert one.local.get(3) == one.fresh(3)
    now[0] += 2
    assert one.local.get(3) is None


def test_a_step_of_before_another_write_is_no_step(table: Generations, mail: list[Stored]) -> None:
    one, two = Worker(table, 0, mail), Worker(table, 1, mail)
    one.read(3)
    with one.coherence.writing({BOX}) as first:
        mail.append(letter(3))
    with one.coherence.writing({BOX}) as second:
        mail.append(letter(4))
    del first
    one.local.follow(*one.coherence.steps(second, [mail[-1]]))
    assert one.local.get(3) is None
    assert two.local.get(3) is None


def test_growing_prolongs_no_life(table: Generations, mail: list[Stored]) -> None:
    one = Worker(table, 0, mail)
    one.read(3)
    one.local.forget_older(0)
    one.local.follow(*one.deliver(letter(3)))
    assert one.local.get(3) is None


def test_dropped_lists_leave_nothing_behind(table: Generations, mail: list[Stored]) -> None:
    one = Worker(table, 0, mail)
    for limit in (1, 2, 3):
        one.read(limit)
        one.read(limit)
    slot = table.slot(keys.mailbox(BOX))
    one.writer.begin([slot])
    assert [one.local.find(limit) for limit in (1, 2, 3)] == [None] * 3
    assert one.local._growing  # what is being written may be mail, and then they go on
    one.writer.end([slot])
    assert [one.local.find(limit) for limit in (1, 2, 3)] == [None] * 3
    assert not one.local._growing
    assert one.local._bytes == 0


async def test_reader_waits_for_the_mail_that_is_being_stored(table: Generations, mail: list[Stored]) -> None:
    one = Worker(table, 0, mail)
    assert one.local.coming(3) is None
    one.read(3)
    assert one.local.coming(3) is None
    came = letter(3)
    with one.coherence.writing({BOX}) as write:
        waiting = [one.local.coming(3) for _ in range(2)]
        mail.append(came)
    one.local.follow(*one.coherence.steps(write, [came]))
    for future in waiting:
        assert future is not None
        await future
    assert one.local.get(3) == one.fresh(3)


async def test_reader_does_not_wait_for_long_nor_for_what_brings_no_step(
    table: Generations, mail: list[Stored]
) -> None:
    one = Worker(table, 0, mail)
    one.read(3)
    with one.coherence.writing([BOX]):
        future = one.local.coming(3)
        assert future is not None
        await future  # though it is still being written
        future = one.local.coming(3)
        assert future is not None
    await future  # a write that is over without a step
    assert one.local.find(3) is None
    assert one.local.coming(3) is None
