"""What a change makes old: mail what is in a mailbox, a change of the mailbox itself everything known of it."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from server.cache import keys
from server.cache.generations import Generations, Writer
from server.cache.responses import CachedResponse, ResponseCache
from server.model.errors import Refused
from server.model.event import Hint, Kind
from server.services.coherence import Coherence

BOX = "0198c0de-0000-7000-8000-000000000001"


class Host:
    def __init__(self) -> None:
        table = Generations(2)
        self.told: list[Hint] = []
        self.local = ResponseCache(table, 1 << 20, 60)
        self.coherence = Coherence(table, Writer(table, 0), self._tell, 1.0)

    def _tell(self, hints: Sequence[Hint]) -> None:
        self.told += hints

    def known(self) -> list[bool]:
        """Whether what was read now would still stand after the change that the caller makes: contents, record."""
        return [self.local.stands(ticket) for ticket in self._tickets]

    def read(self) -> None:
        self._tickets = [self.local.ticket(keys.mailbox(BOX)), self.local.ticket(keys.record(BOX))]


@pytest.mark.parametrize(
    ("kind", "record"),
    [(Kind.MAIL, True), (Kind.UPDATE, True), (Kind.ADDRESS, False), (Kind.EXPIRED, False)],
)
def test_hint_of_another_host_makes_old_what_it_is_about(kind: Kind, record: bool) -> None:
    host = Host()
    host.read()
    host.coherence.heard([Hint(kind, BOX)])
    assert host.known() == [False, record]


def test_lost_hints_name_nothing() -> None:
    host = Host()
    host.read()
    host.coherence.heard([Hint(Kind.LOST, BOX)])
    assert host.known() == [True, True]


def test_write_makes_old_from_its_beginning_and_nothing_read_meanwhile_is_kept() -> None:
    host = Host()
    host.read()
    with host.coherence.writing([BOX]):
        assert host.known() == [False, True]
        assert not host.local.settled(host.local.ticket(keys.mailbox(BOX)))
    host.read()
    with host.coherence.writing(records=[BOX]):
        assert host.known() == [False, False]
        assert not host.local.settled(host.local.ticket(keys.record(BOX)))
    host.read()
    assert host.known() == [True, True]


async def test_nothing_is_kept_after_a_fault_until_its_commit_can_no_longer_come() -> None:
    host = Host()
    ticket = host.local.ticket(keys.mailbox(BOX))
    with pytest.raises(RuntimeError), host.coherence.writing([BOX]):
        raise RuntimeError("anything that is no verdict of the store")
    assert not host.local.stands(ticket)
    assert not host.local.settled(host.local.ticket(keys.mailbox(BOX)))
    async with asyncio.timeout(60):
        while not host.local.settled(host.local.ticket(keys.mailbox(BOX))):
            await asyncio.sleep(0.05)


async def test_a_doubted_outcome_puts_the_end_off() -> None:
    host = Host()
    with host.coherence.writing([BOX]) as write:
        write.doubt()
    assert not host.local.settled(host.local.ticket(keys.mailbox(BOX)))


async def test_a_refusal_is_certain_and_ends_the_write() -> None:
    host = Host()
    with pytest.raises(Refused), host.coherence.writing([BOX]):
        raise Refused("mailbox_not_found")
    assert host.local.settled(host.local.ticket(keys.mailbox(BOX)))


ANSWER = CachedResponse(b"{}", '"1"')


def test_an_answer_read_during_a_write_is_not_kept() -> None:
    host = Host()
    with host.coherence.writing([BOX]):
        host.local.put("list", host.local.ticket(keys.mailbox(BOX)), ANSWER)
        assert host.local.get("list") is None
    assert host.local.get("list") is None


def test_an_answer_is_kept_and_used_until_its_lifetime_ends() -> None:
    host = Host()
    ticket = host.local.ticket(keys.mailbox(BOX))
    host.local.put("ended", ticket, ANSWER, lifetime=0)
    host.local.put("lasting", ticket, ANSWER, lifetime=3600)
    assert host.local.get("ended") is None
    assert host.local.get("lasting") == ANSWER


def test_an_answer_outlives_no_ttl() -> None:
    host = Host()
    host.local = ResponseCache(Generations(2), 1 << 20, 0)
    host.local.put("list", host.local.ticket(keys.mailbox(BOX)), ANSWER)
    assert host.local.get("list") is None


def test_an_answer_read_before_other_hosts_fell_silent_is_not_used() -> None:
    host = Host()
    host.local.put("list", host.local.ticket(keys.mailbox(BOX)), ANSWER)
    host.local.forget_older(3600)
    assert host.local.get("list") == ANSWER
    host.local.forget_older(0)
    assert host.local.get("list") is None


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"mailboxes": [BOX]}, keys.mailbox(BOX)),
        ({"records": [BOX]}, keys.record(BOX)),
        ({"addresses": ["a@temp.mail"]}, keys.address("a@temp.mail")),
        ({"users": [BOX]}, keys.user(BOX)),
        ({"domains": True}, keys.domains()),
        ({"settings": True}, keys.settings()),
    ],
)
def test_an_answer_is_used_until_a_write_of_what_it_shows_begins(change: dict[str, Any], key: bytes) -> None:
    host = Host()
    host.local.put("answer", host.local.ticket(key), ANSWER)
    with host.coherence.writing(["another"], ["b@temp.mail"]):
        assert host.local.get("answer") == ANSWER
    with host.coherence.writing(**change):
        assert host.local.get("answer") is None
        host.local.put("answer", host.local.ticket(key), ANSWER)
    assert host.local.get("answer") is None


def test_who_holds_on_to_an_answer_that_was_replaced_looks_again() -> None:
    host = Host()
    ticket = host.local.ticket(keys.mailbox(BOX))
    host.local.put("list", ticket, ANSWER)
    held = host.local.find("list")
    assert held is not None
    assert host.local.valid(held, time.monotonic())
    host.local.put("list", ticket, ANSWER)
    assert not host.local.valid(held, time.monotonic())


ROOM, SIZE = 100_000, 5_000  # of a store, and of each answer in it


def filled(count: int, used: int | None = None) -> ResponseCache:
    """A store that was handed so many answers of SIZE; one of them was used after each."""
    host = Host()
    local = host.local = ResponseCache(Generations(2), ROOM, 60)
    for number in range(count):
        local.put(number, local.ticket(keys.mailbox(BOX)), CachedResponse(bytes(SIZE), '"1"'))
        if used is not None:
            local.find(used)
    return local


def kept(local: ResponseCache, numbers: range) -> list[int]:
    return [number for number in numbers if local.find(number) is not None]


def test_the_store_has_a_bound_and_the_oldest_go() -> None:
    left = kept(filled(100), range(100))
    assert 10 <= len(left) <= ROOM // SIZE
    assert left == list(range(100 - len(left), 100))


def test_an_answer_that_is_used_stays() -> None:
    left = kept(filled(100, used=0), range(100))
    assert 0 in left
    assert 10 <= len(left) <= ROOM // SIZE


def test_an_answer_that_is_put_again_takes_its_room_once() -> None:
    local = filled(10)
    for _ in range(100):
        local.put(0, local.ticket(keys.mailbox(BOX)), CachedResponse(bytes(SIZE), '"1"'))
    assert kept(local, range(10)) == list(range(10))


def test_one_large_answer_drives_out_no_others() -> None:
    local = filled(10)
    for size, is_kept in ((ROOM // 2, False), (ROOM // 8, False), (ROOM // 8 - 2_000, True)):
        local.put("large", local.ticket(keys.mailbox(BOX)), CachedResponse(bytes(size), '"1"'))
        assert (local.find("large") is not None) is is_kept
    assert kept(local, range(10)) == list(range(10))
