"""Saying that something changed: to the workers of this host through the generations, to other hosts through the bus.

Lives here: the one order that keeps promise 5 (a reader who saw a write sees it in every later read): generations are
*begun* before the database is asked to commit and *ended* after it has answered, whatever it answered; hints follow.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from server.cache import keys
from server.cache.generations import Generations, Writer
from server.model.errors import Refused
from server.model.event import Hint, Kind, Step
from server.model.message import Stored

_OF_CONTENTS: Final = (Kind.MAIL, Kind.UPDATE)  # hints that leave a mailbox's record as it was


class Write:
    """A write in progress. ``doubt`` says that nobody knows whether it was or will be committed.

    ``followed``: the mailboxes of which some worker keeps what it can bring up to date; their slots, and the rows of
    those before the write began. ``alone``: slots in which nothing else of this worker was under way. See ``steps``.
    """

    __slots__ = ("alone", "doubted", "followed")

    def __init__(self, followed: dict[str, tuple[int, bytes]]) -> None:
        self.doubted = False
        self.followed, self.alone = followed, set[int]()

    def doubt(self) -> None:
        self.doubted = True


class Coherence:
    """This worker's hand on the generations and the bus. ``publish`` must return at once and never fail.

    ``uncertain`` is the time in seconds after which a statement whose answer was lost has surely ended on the server.
    """

    def __init__(
        self,
        generations: Generations,
        writer: Writer,
        publish: Callable[[Sequence[Hint]], None],
        uncertain: float,
    ) -> None:
        self._generations, self._writer, self._publish = generations, writer, publish
        self._uncertain = uncertain

    @contextmanager
    def writing(
        self,
        mailboxes: Iterable[str] = (),
        addresses: Iterable[str] = (),
        users: Iterable[str] = (),
        *,
        records: Iterable[str] = (),
        domains: bool = False,
        settings: bool = False,
    ) -> Iterator[Write]:
        """While the block runs nothing read of these may be kept, and what was kept before is void. ``mailboxes``:
        what is in them changes; ``records``: they themselves do, and with them all that is known of what is in them.

        The block must contain the COMMIT. When its outcome is unknown (doubted, or the block raised anything but
        Refused) the end is put off until the server has surely finished, because the change may become visible at any
        moment.
        """
        contents = {m: self._generations.slot(keys.mailbox(m)) for m in mailboxes}
        slots = set(contents.values()) | self._slots_of_records(records)
        slots |= {self._generations.slot(keys.address(a)) for a in addresses}
        slots |= {self._generations.slot(keys.user(u)) for u in users}
        if domains:
            slots.add(self._generations.slot(keys.domains()))
        if settings:
            slots.add(self._generations.slot(keys.settings()))
        write = Write(self._followed(contents))
        self._writer.begin(slots)
        try:
            yield write
        except Refused:
            raise
        except BaseException:
            write.doubt()
            raise
        finally:
            if write.doubted:
                asyncio.get_running_loop().call_later(self._uncertain, self._writer.end, slots)
            else:
                write.alone = self._writer.end(slots)

    def _followed(self, contents: Mapping[str, int]) -> dict[str, tuple[int, bytes]]:
        table = self._generations
        return {m: (slot, table.snapshot(slot)) for m, slot in contents.items() if table.followers(slot)}

    def steps(self, write: Write, rows: Iterable[Stored]) -> list[Step]:
        """What the write, which is over and stored ``rows`` and did nothing else, did to mailboxes that are followed.
        Those are left out in whose slot anything else happened meanwhile: what is kept of them has to be read again.
        """
        came: dict[str, list[Stored]] = {}
        for row in rows:
            if row.mailbox_id in write.followed:
                came.setdefault(row.mailbox_id, []).append(row)
        steps = []
        for mailbox_id, its in came.items():
            slot, before = write.followed[mailbox_id]
            after = self._writer.since(slot, before) if slot in write.alone else None
            if after is not None:
                steps.append(Step(mailbox_id, slot, before, after, its))
        return steps

    def tell(self, hints: Sequence[Hint]) -> None:
        """After the write: let the readers know, here and elsewhere."""
        self._publish(hints)

    def _slots_of_records(self, mailbox_ids: Iterable[str]) -> set[int]:
        slot = self._generations.slot
        return {slot(key(mailbox_id)) for mailbox_id in mailbox_ids for key in (keys.mailbox, keys.record)}

    def heard(self, hints: Iterable[Hint]) -> None:
        """Another host wrote: what this host kept of it is old. (A host's own workers share the generations.)"""
        told = [hint for hint in hints if hint.kind is not Kind.LOST]
        slots = {self._generations.slot(keys.mailbox(hint.mailbox_id)) for hint in told}
        slots |= self._slots_of_records(hint.mailbox_id for hint in told if hint.kind not in _OF_CONTENTS)
        self._writer.bump(slots)


def domain_set() -> Hint:
    return Hint(Kind.DOMAINS, keys.domains().decode())


def settings_changed() -> Hint:
    return Hint(Kind.SETTINGS, keys.settings().decode())


def account(user_id: str) -> Hint:
    return Hint(Kind.ACCOUNT, user_id)


def mail(mailbox_id: str, seq: int) -> Hint:
    return Hint(Kind.MAIL, mailbox_id, seq)
