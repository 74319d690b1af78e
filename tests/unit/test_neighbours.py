"""Mail told to the other workers of a host: what arrives, what is left to the hint, and that nothing ever waits."""

import asyncio
import socket
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest

from server.bus.local_bus import LOST, RECORD_MAX, TOLD, LocalBus, SocketPairs
from server.model import ids
from server.model.event import Hint, Kind, Step
from server.model.message import FOREVER, Details, Stored, StoredAttachment

BOX, OTHER = ids.new(), ids.new()


def stored(seq: int, preview: str = "", mailbox: str = BOX) -> Stored:
    details = Details(codes=("123456",), has_text=True, attachments=(StoredAttachment("2", "é.pdf", "a/b", 3),))
    now = datetime.now(UTC)
    return Stored(
        ids.new(seq), mailbox, seq, now, "a@b.c", "Ä <a@b.c>", "x@y.z", "☃", preview, 1, False, details, "b", FOREVER
    )


class Worker:
    """One worker's hand, and what it heard."""

    def __init__(self, lines: SocketPairs, column: int) -> None:
        self.heard: list[Sequence[Stored]] = []
        self.order: list[str] = []
        self.steps: list[Step] = []
        self.hand = LocalBus(lines, column, self._fed, self._hinted, self.steps.extend)
        self.hand.start()

    def _fed(self, rows: Sequence[Stored]) -> None:
        self.heard.append(rows)
        self.order.append("mail")

    def _hinted(self, hints: Sequence[Hint]) -> None:
        self.order += [hint.kind.name for hint in hints]


@pytest.fixture
async def lines() -> Iterator[SocketPairs]:
    made = SocketPairs(3)
    yield made
    for sock in made.ends + made.ways:
        sock.close()


async def told(worker: Worker, count: int) -> list[Stored]:
    async with asyncio.timeout(60):
        while sum(map(len, worker.heard)) < count:
            await asyncio.sleep(0)
    return [row for rows in worker.heard for row in rows]


async def test_rows_arrive_whole_at_those_who_have_readers_and_nobody_else(lines: SocketPairs) -> None:
    one, two, three = (Worker(lines, column) for column in range(3))
    one.hand.attend(BOX, True)
    two.hand.attend(BOX, True)
    three.hand.attend(OTHER, True)
    rows = [stored(1), stored(2)]
    before = TOLD.values[()]
    assert one.hand.feed([*rows, stored(1, mailbox=OTHER), stored(1, mailbox=ids.new())])
    assert await told(two, 2) == rows
    assert [row.mailbox_id for row in await told(three, 1)] == [OTHER]
    assert TOLD.values[()] == before + 2
    two.hand.attend(BOX, False)
    three.hand.attend(BOX, True)
    one.hand.feed([stored(3)])
    await told(three, 2)
    assert len(two.heard) == 1
    assert not one.heard
    for worker in (one, two, three):
        worker.hand.close()
    assert not any(lines.listening[:])
    assert not any(lines.marks[:])


async def test_a_slot_that_many_mailboxes_share_is_never_forgotten_too_early(lines: SocketPairs) -> None:
    one, two = Worker(lines, 0), Worker(lines, 1)
    for _ in range(300):  # as if as many mailboxes were hashed alike
        two.hand.attend(BOX, True)
    for _ in range(299):
        two.hand.attend(BOX, False)
    assert one.hand.watched(BOX)
    assert not two.hand.watched(BOX)
    two.hand.close()
    assert not one.hand.watched(BOX)
    one.hand.close()


async def test_much_goes_in_several_records_in_order_and_what_is_too_big_is_left_out(lines: SocketPairs) -> None:
    one, two = Worker(lines, 0), Worker(lines, 1)
    two.hand.attend(BOX, True)
    rows = [stored(n, "p" * 1000) for n in range(1, 100)]
    assert not one.hand.feed([*rows, stored(100, "p" * RECORD_MAX), stored(101)])
    assert [row.seq for row in await told(two, 100)] == [*range(1, 100), 101]
    one.hand.close()
    two.hand.close()


async def test_the_end_of_a_right_is_heard_before_mail_that_came_after_it(lines: SocketPairs) -> None:
    one, two, three = (Worker(lines, column) for column in range(3))
    three.hand.attend(BOX, True)
    one.hand.tell([Hint(Kind.ADDRESS, BOX), Hint(Kind.MAIL, BOX, 1), Hint(Kind.UPDATE, BOX)])
    two.hand.feed([stored(1)])
    one.hand.tell([Hint(Kind.EXPIRED, BOX)] * 500)
    async with asyncio.timeout(60):
        while len(three.order) < 502:
            await asyncio.sleep(0)
    assert three.order == ["ADDRESS", "mail", *["EXPIRED"] * 500]
    for worker in (one, two, three):
        worker.hand.close()


async def test_a_worker_that_does_not_read_keeps_nobody_waiting(lines: SocketPairs) -> None:
    one, before = Worker(lines, 0), LOST.values[()]
    stalled = LocalBus(lines, 1, lambda _: None, lambda _: None, lambda _: None)
    stalled.attend(BOX, True)
    taken = [one.hand.feed([stored(n)]) for n in range(2000)]
    assert not all(taken)
    assert LOST.values[()] > before
    two = Worker(lines, 1)  # its successor finds what still waits, and hears what is new
    two.hand.attend(BOX, True)
    old = await told(two, 1)
    assert old[0].seq == 0
    one.hand.close()
    two.hand.close()


async def test_what_a_dead_worker_listened_to_is_not_believed_of_its_successor(lines: SocketPairs) -> None:
    LocalBus(lines, 1, lambda _: None, lambda _: None, lambda _: None).attend(BOX, True)
    assert any(lines.marks[:])
    two = Worker(lines, 1)
    assert not lines.listening[1]
    assert not any(lines.marks[:])
    two.hand.close()


def test_a_record_is_one_message_on_the_socket() -> None:
    lines = SocketPairs(1)
    assert lines.ends[0].type & socket.SOCK_SEQPACKET == socket.SOCK_SEQPACKET
    for sock in lines.ends + lines.ways:
        assert not sock.getblocking()
        sock.close()


async def test_steps_go_to_the_one_that_keeps_what_they_change(lines: SocketPairs) -> None:
    one, two, three = (Worker(lines, column) for column in range(3))
    steps = [Step(BOX, n, b"\0" * 24, b"\2" * 24, [stored(n, "p" * 1000)]) for n in range(1, 60)]
    one.hand.follow(1, steps)
    async with asyncio.timeout(60):
        while len(two.steps) < len(steps):
            await asyncio.sleep(0)
    assert two.steps == steps
    assert not three.steps
    for worker in (one, two, three):
        worker.hand.close()
