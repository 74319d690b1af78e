"""Saying that something changed: to the workers of this host through the generations, to other hosts through the bus.

Lives here: the one order that keeps promise 5 (a reader who saw a write sees it in every later read): generations are
*begun* before the database is asked to commit and *ended* after it has answered, whatever it answered; hints follow.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from server.cache import keys
from server.cache.generations import Generations, Writer
from server.model.event import Hint, Kind


class Coherence:
    """This worker's hand on the generations and the bus. ``publish`` must return at once and never fail."""

    def __init__(self, generations: Generations, writer: Writer, publish: Callable[[Sequence[Hint]], None]) -> None:
        self._generations, self._writer, self._publish = generations, writer, publish

    @contextmanager
    def writing(self, mailboxes: Iterable[str], addresses: Iterable[str] = ()) -> Iterator[None]:
        """While the block runs nothing read of these may be kept, and what was kept before is void."""
        slots = {self._generations.slot(keys.mailbox(m)) for m in mailboxes}
        slots |= {self._generations.slot(keys.address(a)) for a in addresses}
        self._writer.begin(slots)
        try:
            yield
        finally:
            self._writer.end(slots)

    def tell(self, hints: Sequence[Hint]) -> None:
        """After the write: let the readers know, here and elsewhere."""
        self._publish(hints)

    def heard(self, hints: Iterable[Hint]) -> None:
        """Another host wrote: what this host kept of it is old. (A host's own workers share the generations.)"""
        self._writer.bump({self._generations.slot(keys.mailbox(hint.mailbox_id)) for hint in hints})


def mail(mailbox_id: str, seq: int) -> Hint:
    return Hint(Kind.MAIL, mailbox_id, seq)
