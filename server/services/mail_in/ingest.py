"""Group commit: messages join the open batch, a batch is one transaction, and each message learns its own fate.

Lives here: the order of promise 1 (COMMIT, then generations, then the answer, then the hint) and the bisection that
keeps one bad message from failing its neighbours. Must not know: who waits for the answer; a waiter that goes away
changes nothing, because the batch holds the message and the future is only told.

There is no timer: a batch is whatever arrived while the previous one was being committed, and in a few turns of the
loop thereafter, so a slow disk makes batches larger, not queues longer. What one mail costs: one parse, one zstd, its
share of one round trip.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

import zstandard

from server.cache import keys
from server.cache.responses import ResponseCache
from server.log import event, wants
from server.metrics import LATENCY, Counter, Gauge, Histogram
from server.model.errors import Refused, Unavailable, Unstorable
from server.model.event import Step
from server.model.message import Envelope, Recipient, Stored
from server.model.mime import Mail, is_cheap, parse
from server.outages import STORAGE
from server.services.coherence import Coherence, mail
from server.services.contracts import Shares
from server.services.mail_in.routing import Routes
from server.services.sandbox import Sandbox, SandboxBusy, SandboxError
from server.store import batch
from server.store.batch import Item, Rows, Shortfall
from server.store.partitions import Partitions
from server.store.pools import DATABASE_ERRORS, ERRORS, Database, away, spoken

_LOST_AFTER: Final = 2  # commits in a row that failed; one may be the fault of what it held
MAX_BATCH: Final = 500  # messages in one transaction
MAX_BATCH_BYTES: Final = 16 << 20  # packed bytes in one transaction
MAX_QUEUE: Final = 5_000  # messages waiting in one worker; more are answered "try again later"
MAX_QUEUE_BYTES: Final = 128 << 20
READ_SLICE: Final = 0.01  # s that reading messages may hold the loop; one message takes 0.02 at the very worst
PARSE_TIMEOUT: Final = 5.0  # s of the processor for a message that is not cheap; then it is stored unread, shown raw
PARSE_WAIT: Final = 10.0  # s for a child to read it; then it is not stored, and its sender tries again
GATHER: Final = (
    6  # turns of the loop after a batch of several in which the next one grows: half of it costs by the batch
)
_ATTEMPTS: Final = 4  # times a batch may be begun again for want of partitions or room

RECEIVED = Counter(
    "tempmail_messages_received_total", "Messages committed, counted once for each mailbox they reached."
)
BATCH_SIZE = Histogram("tempmail_commit_batch_size", "Messages in one commit.", (1, 2, 5, 10, 20, 50, 100, 200, 500))
COMMIT = Histogram("tempmail_commit_seconds", "From a batch's BEGIN to the answer to its COMMIT.", LATENCY)
PROCESSING = Histogram("tempmail_email_processing_duration_seconds", "Reading one message's MIME.", LATENCY)
ATTACHMENTS = Histogram(
    "tempmail_attachment_size_bytes", "Attachments of arriving mail, decoded.", [4**n for n in range(5, 13)]
)
WAITING = Gauge("tempmail_ingest_queue", "Messages waiting for the open batch.")

Committed = Callable[[Sequence[Stored]], None]
"""Called with rows just committed of watched mailboxes, before the loop's next turn answers their senders."""

Outcome = Callable[[str], None]
"""Called after each commit, with "" or what may be shown of its failure. What one message holds is no failure."""

Followed = Callable[[Sequence[Step]], None]
"""The same for mailboxes of which answers are kept that can be brought up to date."""


class _Pending:
    """A message in the batch and the future of whoever waits for it."""

    __slots__ = ("future", "item", "lost", "stripped")

    def __init__(self, item: Item, future: "asyncio.Future[Sequence[Stored]]") -> None:
        self.item, self.future = item, future
        self.stripped = False  # reduced to its bytes, because what was read of it could not be stored
        self.lost = False  # its commit may or may not have happened

    def accept(self, rows: Rows) -> None:
        if not self.future.done():
            self.future.set_result(rows)

    def refuse(self, error: Refused | Unavailable) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # a waiter that has gone must not leave "exception was never retrieved" behind


class Ingest:
    """The one way in for mail, whatever protocol brought it. Implements contracts.MailSink together with Routes."""

    def __init__(
        self,
        database: Database,
        partitions: Partitions,
        retention: float,
        routes: Routes,
        local: ResponseCache,
        coherence: Coherence,
        sandbox: Sandbox,
        shares: Callable[[str], Shares],
        watched: Callable[[str], bool],
        committed: Committed,
        followed: Followed,
        recorded: Callable[[], None],
        outcome: Outcome,
        clock: Callable[[], datetime],
    ) -> None:
        self._database, self._partitions, self._retention = database, partitions, retention
        self._routes, self._local, self._coherence = routes, local, coherence
        self._sandbox, self._shares = sandbox, shares
        self._watched, self._committed, self._followed = watched, committed, followed
        self._recorded, self._outcome, self._clock = recorded, outcome, clock
        self._pack = zstandard.ZstdCompressor(level=1).compress
        self._loop = asyncio.get_running_loop()  # asked for once: in Python 3.11 asking is a system call
        self._queue: list[_Pending] = []
        self._queued_bytes = 0
        self._reading_bytes = 0  # of messages that wait for a child, or are being read by one
        self._reading: set[asyncio.Task[None]] = set()
        self._writer: asyncio.Task[None] | None = None
        self._full: set[str] = set()
        self._arrived: list[tuple[Envelope, bool, asyncio.Future[Sequence[Stored]]]] = []

    def route(self, address: str) -> Recipient | None:
        return self._routes.route(address)

    async def resolve(self, address: str) -> Recipient:
        return await self._routes.resolve(address)

    def submit(self, envelope: Envelope, *, is_read: bool = False) -> "asyncio.Future[Sequence[Stored]]":
        """Queue one message; the future is settled once its fate is certain."""
        future: asyncio.Future[Sequence[Stored]] = self._loop.create_future()
        if (
            len(self._queue) + len(self._reading) + len(self._arrived) >= MAX_QUEUE
            or self._queued_bytes + self._reading_bytes >= MAX_QUEUE_BYTES
        ):
            ERRORS.add(("overload", "ingest"))
            future.set_exception(Unavailable("ingest queue is full"))
            return future
        if is_cheap(envelope.raw):
            self._arrived.append((envelope, is_read, future))
            if len(self._arrived) == 1:
                self._loop.call_soon(self._read_arrived)
        else:
            task = asyncio.create_task(self._read_apart(envelope, is_read, future))
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)
        return future

    def _read_arrived(self) -> None:
        """Read what this turn of the loop has brought, in one go: that way the parser stays in the processor's caches,
        which halves its cost. After ``READ_SLICE`` the loop gets its turn.
        """
        clock = time.perf_counter
        started = clock()
        until, now = started + READ_SLICE, self._clock()
        arrived, done = self._arrived, 0
        for envelope, is_read, future in arrived:
            self._join(envelope, parse(envelope.raw, crlf=envelope.crlf), is_read, future, now)
            done += 1
            ended = clock()
            PROCESSING.observe(ended - started)
            if ended > until:
                break
            started = ended
        self._arrived = arrived[done:]
        if self._arrived:
            self._loop.call_soon(self._read_arrived)

    async def _read_apart(self, envelope: Envelope, is_read: bool, future: "asyncio.Future[Sequence[Stored]]") -> None:
        """Parse in a process that can be killed. A message that breaks a bound of reading is stored unread; one for
        which there is no room is not stored at all, for room will come.
        """
        started, size = time.perf_counter(), len(envelope.raw)
        self._reading_bytes += size
        try:
            read = await self._sandbox.run(
                parse, envelope.raw, timeout=PARSE_TIMEOUT, wait=PARSE_WAIT, clients=self._shares(envelope.client)
            )
        except SandboxBusy as error:
            ERRORS.add(("overload", "ingest"))
            if not future.done():
                future.set_exception(Unavailable(f"no room to read a message: {error}"))
            return
        except SandboxError as error:
            event("warning", "message stored unread", reason=type(error).__name__, size=size)
            read = _unread(type(error).__name__)
        finally:
            self._reading_bytes -= size
        PROCESSING.observe(time.perf_counter() - started)
        self._join(envelope, read, is_read, future, self._clock())

    def _join(
        self,
        envelope: Envelope,
        read: Mail,
        is_read: bool,
        future: "asyncio.Future[Sequence[Stored]]",
        now: datetime,
    ) -> None:
        for attachment in read.attachments:
            ATTACHMENTS.observe(attachment.size)
        item = Item(envelope, read, self._pack(envelope.raw), envelope.received_at or now, is_read)
        self._queue.append(_Pending(item, future))
        self._queued_bytes += len(item.packed)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())

    async def _write_all(self) -> None:
        pending: list[_Pending] = []
        while self._queue:
            if len(pending) > 1:  # many senders: those just answered are in the middle of their next message
                for _ in range(GATHER):
                    await asyncio.sleep(0)
            pending = self._next_batch()
            WAITING.set(len(self._queue))
            BATCH_SIZE.observe(len(pending))
            try:
                await self._commit(pending)
            except Exception as error:  # the loop must outlive any fault: nobody would take mail otherwise
                ERRORS.add((type(error).__name__, "ingest"))
                if not away(error):
                    event("error", "batch failed", reason=_kind(error))
                self._outcome(spoken(error))
                for one in pending:
                    one.refuse(Unavailable("batch failed"))

    def _next_batch(self) -> list[_Pending]:
        size = count = 0
        for one in self._queue[:MAX_BATCH]:
            size += len(one.item.packed)
            if count and size > MAX_BATCH_BYTES:
                size -= len(one.item.packed)
                break
            count += 1
        taken, self._queue = self._queue[:count], self._queue[count:]
        self._queued_bytes -= size
        return taken

    async def _commit(self, pending: list[_Pending]) -> None:
        mailboxes = {r.mailbox_id for one in pending for r in one.item.envelope.recipients}
        settled: list[tuple[_Pending, Rows]] = []
        with self._coherence.writing(mailboxes) as write:
            await self._store(pending, settled)
            if wants("debug"):
                event("debug", "batch committed", messages=len(settled), of=len(pending), mailboxes=len(mailboxes))
            if any(one.lost for one in pending):
                write.doubt()
        while self._full:
            mailbox = self._full.pop()
            self._routes.mark_full(mailbox, self._local.ticket(keys.mailbox(mailbox)))
        newest: dict[str, int] = {}
        for one, stored in settled:
            numbers = stored.numbers()
            RECEIVED.add(n=len(numbers))
            for mailbox, seq in numbers:
                if seq > newest.get(mailbox, 0):
                    newest[mailbox] = seq
            one.accept(stored)
        if not newest:
            return
        watched = {mailbox for mailbox in newest if self._watched(mailbox)}
        told = watched | write.followed.keys()
        rows = [row for _, stored in settled for row in stored if row.mailbox_id in told] if told else []
        if watched:
            self._committed([row for row in rows if row.mailbox_id in watched])
        if write.followed:
            self._followed(self._coherence.steps(write, rows))
        self._coherence.tell([mail(mailbox, seq) for mailbox, seq in newest.items()])

    async def _store(self, pending: list[_Pending], settled: list[tuple[_Pending, Rows]]) -> None:
        """Write ``pending``, telling those apart that cannot be written; what is written joins ``settled``."""
        for _ in range(_ATTEMPTS):
            if not pending:
                return
            started = time.perf_counter()
            items = [one.item for one in pending]
            try:
                written = await batch.write(self._database, self._retention, items, self._clock(), self._recorded)
                COMMIT.observe(time.perf_counter() - started)
                self._outcome("")
                if STORAGE.doubted:
                    STORAGE.back()
                settled += zip(pending, written, strict=True)
                return
            except Shortfall as short:
                pending = self._without(pending, short.room)
            except (*DATABASE_ERRORS, ValueError) as error:
                if batch.lacks_partition(error):
                    await self._make_partitions(items)
                elif batch.is_data_fault(error):
                    await self._bisect(pending, settled, error)
                    return
                else:
                    self._give_up(pending, error)
                    return
        self._give_up(pending, TimeoutError("no room or partition after several attempts"))

    async def _make_partitions(self, items: Sequence[Item]) -> None:
        """Trouble here is left to the next attempt, which meets it again and gives up for the right reason."""
        with suppress(Unavailable):
            wanted = await batch.partitions_wanted(self._database, self._retention, items, self._clock())
            await self._partitions.ensure(wanted)

    def _without(self, pending: list[_Pending], short: Mapping[str, int | None]) -> list[_Pending]:
        """Those that can still be stored: a gone mailbox is dropped from its messages, a full one refuses them."""
        rest = []
        room = dict(short)
        for one in pending:
            envelope = one.item.envelope
            gone = [r for r in envelope.recipients if room.get(r.mailbox_id, 0) is None]
            if envelope.id:  # there is nobody left to try again later
                gone += [r for r in envelope.recipients if room.get(r.mailbox_id) == 0]
            if gone:
                envelope.dropped += [(r, room.get(r.mailbox_id) == 0) for r in gone]
                envelope.recipients = [r for r in envelope.recipients if r not in gone]
            full = [r.mailbox_id for r in envelope.recipients if room.get(r.mailbox_id) == 0]
            if not envelope.recipients:
                one.refuse(Refused("mailbox_not_found"))
            elif full:
                self._full.update(full)
                one.refuse(Refused("mailbox_full"))
            else:
                for recipient in envelope.recipients:
                    left = room.get(recipient.mailbox_id)
                    if left is not None and left > 0:
                        room[recipient.mailbox_id] = left - 1
                rest.append(one)
        return rest

    async def _bisect(
        self, pending: list[_Pending], settled: list[tuple[_Pending, Rows]], error: BaseException
    ) -> None:
        """Halve until the culprit stands alone; alone, it is stored as bytes only, and refused when even that fails."""
        if len(pending) > 1:
            middle = len(pending) // 2
            await self._store(pending[:middle], settled)
            await self._store(pending[middle:], settled)
            return
        one = pending[0]
        event("error", "message could not be stored as read", reason=_kind(error), size=len(one.item.envelope.raw))
        if one.stripped:
            ERRORS.add((type(error).__name__, "ingest"))
            one.refuse(Unstorable(f"refused by the database: {type(error).__name__}"))
            return
        one.stripped = True
        one.item.mail = _unread(type(error).__name__)
        one.item.envelope.sender = one.item.envelope.sender.encode("ascii", "replace").decode()
        await self._store([one], settled)

    def _give_up(self, pending: Sequence[_Pending], error: BaseException) -> None:
        """Nothing is known to be stored: the sender keeps the message and tries again."""
        if not pending:
            return
        ERRORS.add((type(error).__name__, "ingest"))
        if not away(error):
            STORAGE.lost(spoken(error), after=_LOST_AFTER)
            level = "debug" if STORAGE.said else "error"
            event(level, "commit failed", reason=spoken(error), messages=len(pending))
        self._outcome(spoken(error))
        for one in pending:
            one.lost = True
            one.refuse(Unavailable(f"commit failed: {type(error).__name__}"))

    async def drain(self) -> None:
        """Wait until everything submitted is settled."""
        while self._arrived or self._reading or (self._writer is not None and not self._writer.done()):
            await asyncio.gather(*self._reading, *([self._writer] if self._writer else []), return_exceptions=True)
            await asyncio.sleep(0)  # the turn in which what has arrived is read


def _kind(error: BaseException) -> str:
    """What may be logged of an error: not its text, which may quote the mail it was about."""
    return " ".join(filter(None, (type(error).__name__, getattr(error, "sqlstate", ""))))


def _unread(why: str) -> Mail:
    """A message nobody could read: it is kept and shown raw."""
    return Mail(
        subject="",
        sender="",
        to="",
        cc="",
        reply_to="",
        date=None,
        message_id="",
        text="",
        html="",
        attachments=(),
        preview="",
        codes=(),
        links=(),
        defect=why,
    )
