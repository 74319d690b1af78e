"""The trace: what was decided about mail, written once a second beside the mail itself, and read for people.

Lives here: the rhythm, the bounds, the log lines, and what trouble of the trace means: nothing for mail. Must not know:
SMTP, SQL or HTTP.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Final

from server import log, metrics
from server.config.settings import Config
from server.model.errors import Unavailable
from server.model.message import Alias, Mailbox
from server.model.trace import Noted, Page, Question, Reason, Row, Sampler, counted, rows, verdict
from server.outages import put_off
from server.services.mail_in.decisions import Decisions
from server.services.periodic import every
from server.store.trace import TraceStore

EVERY: Final = 1.0  # s from one write to the next
UPKEEP_EVERY: Final = 60.0  # s
WAITING_MAX: Final = 5_000  # rows that wait for a database that is away; more are counted
LINES_MAX: Final = 200  # lines of log for each write; more are counted

RECORDED = metrics.Counter(
    "tempmail_trace_decisions_total",
    "Decisions about mail: written to the trace, counted only (too many at once), or lost (no database for long).",
    ("result",),
)


class MailTrace:
    """``address`` finds the mailbox that a recipient means, by what memory knows."""

    def __init__(self, config: Config, decisions: Decisions, store: TraceStore, address: Callable[[str], str]) -> None:
        self._decisions, self._store, self._address = decisions, store, address
        self._kept = config.trace_retention > 0
        self._log = Lines(config)
        self._sampler = Sampler(config.trace_rate)
        self._waiting: list[Row] = []
        self._uncounted: Counter[Reason] = Counter()
        self._written = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._write_for_ever()),
            asyncio.create_task(every(UPKEEP_EVERY, self.upkeep)),
        ]

    async def _write_for_ever(self) -> None:
        with suppress(Unavailable):  # the first write makes what it lacks
            await self.upkeep()
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.flush()
            except Exception as error:  # a fault in one round must not end the trace
                log.event("error", "trace not written", reason=type(error).__name__)

    async def upkeep(self) -> None:
        """Hours ahead and past."""
        dropped = await self._store.upkeep()
        if dropped:
            log.event("info", "trace dropped", hours=len(dropped), last=dropped[-1])

    async def flush(self) -> None:
        """Write what was decided since the last call. Trouble leaves it for the next, within ``WAITING_MAX``."""
        noted, over = self._decisions.take()
        self._log.write(noted)
        if not self._kept:
            return
        now = time.monotonic()
        chosen, rest = self._sampler.sample(noted, now - self._written)
        self._written = now
        self._uncounted += over + rest
        RECORDED.add(("counted",), (over + rest).total())
        self._wait([row for one in chosen for row in rows(one, self._address)])
        if not self._waiting and not self._uncounted:
            return
        waiting, uncounted = self._waiting, self._uncounted
        self._waiting, self._uncounted = [], Counter()
        try:
            await self._store.write(waiting + counted(uncounted, time.time()))
        except Unavailable as error:
            put_off("trace waits for the database", error)
            self._uncounted += uncounted
            self._waiting = waiting + self._waiting
            self._wait([])
        else:
            RECORDED.add(("written",), len(waiting))

    def _wait(self, more: list[Row]) -> None:
        """The oldest stay: they are of the moment at which trouble began."""
        self._waiting += more
        if len(self._waiting) <= WAITING_MAX:
            return
        for row in self._waiting[WAITING_MAX:]:
            self._uncounted[(row.stage, row.reply[:9].encode("ascii", "replace"))] += 1
            RECORDED.add(("lost",))
        del self._waiting[WAITING_MAX:]

    async def close(self) -> None:
        """Write the last of it; give up where there is no database."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(Unavailable):
            await self.flush()

    # For people

    async def page(self, question: Question) -> Page:
        """Decisions of the installation, or about one address. Unavailable."""
        return await self._store.page(question)

    async def of_mailbox(self, mailbox: Mailbox, aliases: Sequence[Alias], question: Question) -> Page:
        """Decisions about a mailbox's own addresses, each since it was its own. Unavailable."""
        return await self._store.of_mailbox(mailbox, aliases, question)


class Lines:
    """A line of log for each decision, where the settings ask for it. Local parts of addresses are hashed with a key of
    this installation unless they may stand plain: equal ones stay equal, and no one can find out which they are."""

    def __init__(self, config: Config) -> None:
        self._which, self._plain = config.smtp_log, config.smtp_log_addresses == "plain"
        self._key = blake2b(config.jwt_secret.encode(), digest_size=32, person=b"smtp log").digest()

    def write(self, noted: Sequence[Noted]) -> None:
        level = "info" if self._which != "off" else "debug"
        if not noted or not log.wants(level):
            return
        lines = 0
        for row in (row for one in noted for row in rows(one)):
            word = verdict(row.reply)
            if self._which == "refused" and word == "accepted":
                continue
            lines += 1
            if lines <= LINES_MAX:
                self._line(level, row, word)
        if lines > LINES_MAX:
            log.event(level, "smtp decisions not logged", count=lines - LINES_MAX)

    def _line(self, level: str, row: Row, word: str) -> None:
        log.event(
            *(level, "smtp decision"),
            stage=row.stage,
            verdict=word,
            reply=row.reply,
            client=row.client,
            helo=row.helo,
            sender=self.shown(row.sender),
            recipient=self.shown(row.recipient),
            message=row.message_id,
        )

    def shown(self, address: str) -> str:
        """``address`` as it may be logged."""
        if self._plain or not address:
            return address
        local, at, domain = address.rpartition("@")
        digest = blake2b((local if at else address).lower().encode("utf-8", "replace"), key=self._key, digest_size=6)
        return f"#{digest.hexdigest()}{at}{domain if at else ''}"
