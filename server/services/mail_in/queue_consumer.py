"""What the queue hands out, stored: every message goes through the one Ingest and is acknowledged after its COMMIT.

Lives here: what becomes of a message that is stored, comes twice, has nobody left to want it, or cannot be stored. Must
not know: the broker's protocol, or SQL.

Trouble of ours is waited out here: handing the message back would count against it, and an outage would bury good mail.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Protocol

from server.log import event
from server.metrics import Counter
from server.model import queued
from server.model.errors import Refused, Unstorable
from server.model.message import Envelope, Recipient, Stored
from server.model.trace import DEAD, FULL, GONE
from server.services.contracts import MailSink
from server.services.mail_in.decisions import Decisions
from server.services.periodic import every

RETRY: Final = (0.1, 5.0)  # s between attempts to store: at first, at most
FORGET_EVERY: Final = 60.0  # s

TAKEN = Counter(
    "tempmail_queue_taken_total",
    "Messages taken from the queue: stored, duplicate (stored before), dropped (no mailbox left that takes it), dead.",
    ("result",),
)


class QueuedMessage(Protocol):
    """A message that the queue handed out, to be settled once."""

    body: bytes
    redelivered: bool

    @property
    def gone(self) -> bool: ...
    def accept(self) -> None: ...
    def dead_letter(self) -> None: ...


class QueueConsumer:
    """``memory`` is how long an id is known after it was made; ``forget`` lets those go that are older."""

    def __init__(
        self,
        ingest: MailSink,
        memory: timedelta,
        forget: Callable[[], Awaitable[object]],
        clock: Callable[[], datetime],
        decisions: Decisions | None = None,
    ) -> None:
        self._decisions = decisions or Decisions(on=False)
        self._ingest, self._memory, self._forget, self._clock = ingest, memory, forget, clock
        self._loop = asyncio.get_running_loop()
        self._forgetting: asyncio.Task[None] | None = None
        self._told: dict[str, float] = {}

    def start(self) -> None:
        self._forgetting = asyncio.create_task(every(FORGET_EVERY, self._forget_old))

    async def _forget_old(self) -> None:
        await self._forget()

    def take(self, handed: QueuedMessage) -> None:
        """Called in the loop; returns at once."""
        try:
            envelope = queued.unpack(handed.body)
        except queued.FrameError as error:
            self._bury(handed, f"unreadable: {error}")
            return
        handed.body = b""
        received = envelope.received_at
        if handed.redelivered and received is not None and self._clock() - received > self._memory:
            self._bury(handed, "comes again, and too late to know whether it was stored")
            return
        self._submit(envelope, handed, RETRY[0])

    def _submit(self, envelope: Envelope, handed: QueuedMessage, delay: float) -> None:
        if handed.gone:
            return
        try:
            future = self._ingest.submit(envelope)
        except Exception as error:  # a fault of ours that this message brings out: it is kept, and holds up no other
            self._bury(handed, type(error).__name__)
        else:
            future.add_done_callback(partial(self._decided, envelope, handed, delay))

    def _decided(
        self, envelope: Envelope, handed: QueuedMessage, delay: float, future: "asyncio.Future[Sequence[Stored]]"
    ) -> None:
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is None:
            TAKEN.add(("stored" if future.result() else "duplicate",))
            self._note_dropped(envelope)
            handed.accept()
        elif isinstance(error, Refused):
            TAKEN.add(("dropped",))
            self._tell("queued message dropped", error.word)
            self._note_dropped(envelope)
            handed.accept()
        elif isinstance(error, Unstorable):
            self._note(envelope, envelope.recipients, DEAD)
            self._bury(handed, str(error))
        else:
            self._tell("queued message waits", type(error).__name__)
            apart = delay * random.uniform(0.5, 1.5)  # so that one which fails its batch meets others each time
            self._loop.call_later(apart, self._submit, envelope, handed, min(2 * delay, RETRY[1]))

    def _note_dropped(self, envelope: Envelope) -> None:
        """Its sender has heard 250: why it is not in these mailboxes only the trace can say."""
        for recipient, full in envelope.dropped:
            self._note(envelope, [recipient], FULL if full else GONE)

    def _note(self, envelope: Envelope, recipients: Sequence[Recipient], why: str) -> None:
        client, helo, sender = envelope.client, envelope.helo, envelope.sender
        self._decisions.note("data", client, helo, sender, recipients, why.encode())

    def _bury(self, handed: QueuedMessage, reason: str) -> None:
        TAKEN.add(("dead",))
        self._tell("queued message is a dead letter", reason)
        handed.dead_letter()

    def _tell(self, what: str, reason: str) -> None:
        """A line a second for each kind: an outage must not fill the disk too."""
        now = time.monotonic()
        if now - self._told.get(what, -1.0) >= 1.0:
            self._told[what] = now
            event("warning", what, reason=reason)

    async def close(self) -> None:
        if self._forgetting is not None:
            self._forgetting.cancel()
            await asyncio.gather(self._forgetting, return_exceptions=True)
