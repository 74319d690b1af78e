"""Decisions about mail between the session that takes them and the trace that records them.

Lives here: this worker's buffer. Must not know: SMTP, or what becomes of what is taken.

Cost: a decision is one tuple appended to one list.
"""

from collections import Counter
from collections.abc import Sequence
from time import time
from typing import Final

from server.model.message import Recipient, Stored
from server.model.trace import Noted, Reason, Stage, reason
from server.store.batch import Rows

BUFFER_MAX: Final = 20_000  # decisions that wait for the next second; more are counted


class Decisions:
    """Bounded: beyond ``BUFFER_MAX`` decisions are counted by reason and forgotten."""

    __slots__ = ("_noted", "_over", "on")

    def __init__(self, *, on: bool = True) -> None:
        self.on = on
        self._noted: list[Noted] = []
        self._over: Counter[Reason] = Counter()

    def note(
        self,
        stage: Stage,
        client: str,
        helo: str,
        sender: str,
        recipients: Sequence[Recipient] | str,
        reply: bytes,
        rcpt_at: float = 0.0,
        stored: Sequence[Stored] | None = None,
    ) -> None:
        """``stored``: the rows of a message that was committed; empty where they come to be elsewhere."""
        if not self.on:
            return
        made = stored.ids if isinstance(stored, Rows) else None
        noted = Noted(stage, time(), client, helo, sender, recipients, reply, rcpt_at, made)
        if len(self._noted) < BUFFER_MAX:
            self._noted.append(noted)
        else:
            self._over[reason(noted)] += noted.weight

    def take(self) -> tuple[list[Noted], Counter[Reason]]:
        """What was noted since the last call, and what of it was only counted."""
        taken = self._noted, self._over
        self._noted, self._over = [], Counter()
        return taken
