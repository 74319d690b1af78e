"""What a change makes old: mail what is in a mailbox, a change of the mailbox itself everything known of it."""

from collections.abc import Sequence

import pytest

from server.cache import keys
from server.cache.generations import Generations, Writer
from server.cache.local import Local
from server.model.event import Hint, Kind
from server.services.coherence import Coherence

BOX = "0198c0de-0000-7000-8000-000000000001"


class Host:
    def __init__(self) -> None:
        table = Generations(2)
        self.told: list[Hint] = []
        self.local = Local(table, 1 << 20, 60)
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
