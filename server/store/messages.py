"""The messages domain, read and changed one mailbox at a time. Arriving mail is batch.py's.

A mailbox's mail lies in the partition of the moment the mailbox ends, which the caller's record names (the *span*). An
extension by another process may have moved it since the record was read: each statement brings the inbox's own
drop_after along, and when the two differ it is asked once more with the right span.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, Literal, NamedTuple

import asyncpg
import msgspec
import zstandard

from server.model import ids
from server.model.errors import Refused, Unavailable
from server.model.folding import sought
from server.model.message import FOREVER, Counts, Mailbox, Stored
from server.model.query import Query, Term
from server.model.webhook import written
from server.store import deliveries, rows
from server.store.coalescing import Coalescer
from server.store.pools import Connection, Database, affected, column
from server.store.sql import SQL

Span = tuple[datetime, datetime]

BATCH: Final = 500  # messages that one transaction deletes
_LAST = 1 << 62
_MAX_BODY = 256 << 20  # bytes a stored body may unpack to; far above any accepted message
PLANNED_ONCE_MAX = 200  # partitions that a list's statement may lock
ENDS_MAX = 1_000  # moments that a statement is told of one by one
_NO_TAG = "00000000-0000-0000-0000-000000000000"  # the nil UUID (RFC 9562 section 5.9), which no tag has


class Candidate(msgspec.Struct, frozen=True):
    """A message that a search's terms on the text may still let through or not: ``misses`` are those, counted from 1,
    that its row does not answer; ``packed`` is the beginning of its packed body, None where that says no more.
    """

    stored: Stored
    misses: Sequence[int]
    packed: bytes | None


class PageOf(NamedTuple):
    """One page that is asked for: of the mailbox whose mail lies in ``span``, the newest with a seq < ``before``."""

    mailbox_id: str
    span: Span
    before: int
    limit: int
    offset: int


def span(drop_after: datetime | None, now: datetime) -> Span:
    """Where the mail of a mailbox that ends at ``drop_after`` lies; without an end its mail may be dated any time
    ahead.
    """
    return (now, FOREVER) if drop_after is None or drop_after == FOREVER else (drop_after, drop_after)


def like(text: str) -> str:
    """A LIKE pattern for ``text`` anywhere, its wildcards escaped."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{rows.scrubbed(escaped, 1000)}%"


class MessageStore:
    """Every method raises Refused mailbox_not_found when the inbox is gone, Unavailable in trouble."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        pages: Database | None = None,
        partitions: Callable[[], int] = lambda: 0,
    ) -> None:
        """``pages``: where lists are asked for while there are not more than PLANNED_ONCE_MAX ``partitions``."""
        self._database, self._clock = database, clock
        self._planned_once, self._partitions = pages or database, partitions
        self._unpack = zstandard.ZstdDecompressor().decompress
        # apart, because a span without an end has many partitions, which all of a statement would be planned for
        self._ending, self._endless = (Coalescer(what, self._pages) for what in ("page", "endless page"))

    async def _spanned(
        self, mailbox: Mailbox, ask: Callable[[Span], Awaitable[list[asyncpg.Record]]]
    ) -> list[asyncpg.Record]:
        """Rows of ``ask`` for the span that is right now; each row carries the inbox's drop_after."""
        expected = mailbox.expires_at or FOREVER
        for _ in range(3):
            found = await ask(span(expected, self._clock()))
            actual = rows.moment(found[0]["inbox_drop_after"]) if found else (await self._inbox(mailbox.id))[1]
            if actual == expected:
                return found
            expected = actual
        raise Unavailable("a mailbox moved three times while it was read")

    async def _inbox(self, mailbox_id: str) -> tuple[Counts, datetime]:
        found = await self._database.read([mailbox_id], SQL.inbox_counts, mailbox_id, sure=bool)
        if not found:
            raise Refused("mailbox_not_found")
        return _counts(found[0]), rows.moment(found[0]["drop_after"])

    async def counts(self, mailbox_id: str) -> Counts:
        return (await self._inbox(mailbox_id))[0]

    async def counts_of(self, mailbox_ids: Sequence[str]) -> dict[str, Counts]:
        found = await self._database.fetch(SQL.inboxes_counts, list(mailbox_ids))
        return {str(row["mailbox_id"]): _counts(row) for row in found}

    async def page(self, mailbox: Mailbox, limit: int, offset: int, before: int) -> tuple[list[Stored], int]:
        """Newest first, seq < ``before``; and the mailbox's total."""

        async def ask(where: Span) -> list[asyncpg.Record]:
            question = PageOf(mailbox.id, where, before, limit, offset)
            if offset or self._database.copied:  # who skips much takes long, and nobody else shall wait for it
                return (await self._pages([question]))[0]
            return await (self._endless if where[1] == FOREVER else self._ending).answer(question)

        found = await self._spanned(mailbox, ask)
        return [rows.stored(row) for row in found if row["id"] is not None], found[0]["total"] if found else 0

    async def _pages(self, asked: Sequence["PageOf"]) -> list[list[asyncpg.Record]]:
        """The rows of each page; none where there is no inbox."""
        ids_, before = [one.mailbox_id for one in asked], [one.before for one in asked]
        limits, offsets = [one.limit for one in asked], [one.offset for one in asked]
        least, most = min(one.span[0] for one in asked), max(one.span[1] for one in asked)
        few = self._partitions() <= PLANNED_ONCE_MAX
        database = self._planned_once if few else self._database
        found = await database.read(ids_, SQL.message_pages, ids_, before, limits, offsets, least, most)
        pages: list[list[asyncpg.Record]] = [[] for _ in asked]
        for row in found:
            pages[row["n"] - 1].append(row)
        return pages

    async def one(self, mailbox: Mailbox, message_id: str) -> Stored:
        """Refused message_not_found."""
        which = _which(message_id)
        found = await self._spanned(
            mailbox,
            lambda s: self._database.read([mailbox.id], SQL.message_one, mailbox.id, *s, *which, sure=_holds_message),
        )
        if not _holds_message(found):
            raise Refused("message_not_found")
        return rows.stored(found[0])

    async def since(self, readers: Sequence[tuple[str, int]]) -> list[Stored]:
        """For each (mailbox id, after): up to 100 messages with a greater seq, by mailbox, oldest first."""
        ids_, after = [r[0] for r in readers], [r[1] for r in readers]
        return [rows.stored(row) for row in await self._database.read(ids_, SQL.messages_since, ids_, after)]

    async def raw(self, message: Stored) -> bytes:
        """The bytes as they came, unpacked."""
        which = (message.body_id, message.body_drop_after)
        found = await self._database.read([message.mailbox_id], SQL.body, *which, sure=bool)
        if not found:
            raise Refused("message_not_found")
        return self._unpack(found[0]["raw"], max_output_size=_MAX_BODY)

    async def search(
        self, mailbox: Mailbox, wanted: Query, tags: Mapping[str, str], limit: int, offset: int
    ) -> tuple[list[Stored], int]:
        """Newest first, and how many there are in all, of a query without terms on the text. ``tags``: id by name, for
        the tags there are.
        """
        found = await self._search(mailbox, wanted, tags, _LAST, limit, offset)
        if not found and offset:  # beyond the last page no row carries the count
            first = await self._search(mailbox, wanted, tags, _LAST, 1, 0)
            return [], first[0]["found"] if first else 0
        return [rows.stored(row) for row in found], found[0]["found"] if found else 0

    async def candidates(
        self, mailbox: Mailbox, wanted: Query, tags: Mapping[str, str], below: int | None, limit: int
    ) -> list[Candidate]:
        """Newest first, at most ``limit`` with seq < ``below``: what may match a query with terms on the text."""
        found = await self._search(mailbox, wanted, tags, _LAST if below is None else below, limit, 0)
        return [candidate(row) for row in found]

    async def _search(
        self, mailbox: Mailbox, wanted: Query, tags: Mapping[str, str], below: int, limit: int, offset: int
    ) -> list[asyncpg.Record]:
        conditions = conditions_of(wanted, tags)
        return await self._spanned(
            mailbox,
            lambda s: self._database.read([mailbox.id], SQL.search, mailbox.id, *s, *conditions, below, limit, offset),
        )

    async def mark_read(self, mailbox: Mailbox, message_id: str) -> bool:
        """True when it was unread until now, False when it was read already. Refused message_not_found."""
        which, now = _which(message_id), self._clock()
        async with self._database.transaction() as connection:
            where = await _lock(connection, mailbox.id, now)
            if affected(await connection.execute(SQL.message_mark_read, mailbox.id, *where, *which)):
                await connection.execute(SQL.inbox_subtract, mailbox.id, 0, 1, now)
                if mailbox.user_id is not None:
                    read = written({"messageId": message_id, "mailboxId": mailbox.id, "seq": which[0]})
                    await deliveries.record(connection, mailbox.user_id, "mail.read", read, now)
                return True
        await self.one(mailbox, message_id)
        return False

    async def authenticated(self, stored: Sequence[Stored], results: Mapping[str, str]) -> None:
        """Join the results to the details of a message's rows; those that have gone are passed over."""
        ends = await self._database.fetch(SQL.inboxes_end, [one.mailbox_id for one in stored])
        where = {str(row["mailbox_id"]): span(rows.moment(row["drop_after"]), self._clock()) for row in ends}
        for one in set(where.values()):
            here = [row for row in stored if where.get(row.mailbox_id) == one]
            which = [row.mailbox_id for row in here], [row.seq for row in here], [row.id for row in here]
            await self._database.execute(SQL.messages_authenticated, *which, *one, written(results))

    async def delete(self, mailbox: Mailbox, message_id: str) -> None:
        """Refused message_not_found."""
        if not (await self._delete(mailbox, SQL.message_delete, *_which(message_id)))[0]:
            raise Refused("message_not_found")

    async def delete_all(self, mailbox: Mailbox) -> int:
        """As many as there are now, BATCH in a transaction, the oldest first."""
        gone, left = await self._delete(mailbox, SQL.message_delete_some, BATCH)
        count = gone
        while gone and left:
            gone, _ = await self._delete(mailbox, SQL.message_delete_some, min(BATCH, left))
            count, left = count + gone, left - gone
        return count

    async def _delete(self, mailbox: Mailbox, statement: str, *which: object) -> tuple[int, int]:
        """How many went, and how many are left."""
        now = self._clock()
        async with self._database.transaction() as connection:
            inbox = await _locked(connection, mailbox.id)
            where = span(rows.moment(inbox["drop_after"]), now)
            gone = await connection.fetch(statement, mailbox.id, *where, *which)
            if gone:
                await release(connection, [(row["body_id"], rows.moment(row["body_drop_after"])) for row in gone])
                unread = sum(not row["is_read"] for row in gone)
                await connection.execute(SQL.inbox_subtract, mailbox.id, len(gone), unread, now)
        return len(gone), inbox["total"] - len(gone)

    async def tag(self, mailbox: Mailbox, message_id: str, tag_id: str) -> None:
        """Again is no error. Refused message_not_found."""
        which = _which(message_id)
        async with self._database.transaction() as connection:
            where = await _lock(connection, mailbox.id, self._clock())
            if await connection.fetchrow(SQL.message_tag, mailbox.id, *where, *which, tag_id) is None:
                raise Refused("message_not_found")

    async def tags_of(self, mailbox: Mailbox, message_id: str) -> list[str]:
        """Ids of the tags a message carries, of whoever put them there. Refused message_not_found."""
        which = _which(message_id)
        found = await self._spanned(
            mailbox,
            lambda s: self._database.read([mailbox.id], SQL.message_tags, mailbox.id, *s, *which, sure=_holds_message),
        )
        if not _holds_message(found):
            raise Refused("message_not_found")
        return [str(row["tag_id"]) for row in found if row["tag_id"] is not None]

    async def untag(self, mailbox: Mailbox, message_id: str, tag_id: str) -> None:
        """Refused message_not_found; tag_not_found when the message does not carry it."""
        which = _which(message_id)
        async with self._database.transaction() as connection:
            where = await _lock(connection, mailbox.id, self._clock())
            if affected(await connection.execute(SQL.message_untag, mailbox.id, *where, *which, tag_id)):
                return
        await self.one(mailbox, message_id)
        raise Refused("tag_not_found")

    async def ends_of(self, user_id: str) -> list[datetime] | None:
        """When the mail of a user's living mailboxes may vanish; None where that is no short list."""
        found = await self._database.fetch(SQL.ends_of_user, user_id, self._clock(), ENDS_MAX + 1)
        ends = [rows.moment(row["drop_after"]) for row in found]
        # kept for a time only, mail of a mailbox without an end may be dated any time ahead
        return None if len(ends) > ENDS_MAX or FOREVER in ends else ends

    async def tagged(
        self, tag_id: str, before: str, limit: int, ends: Sequence[datetime] | None = None
    ) -> list[Stored]:
        """Messages that carry a tag, newest first, in whatever mailbox; ``before``: only ids less than this. ``ends``:
        see ``ends_of``, of the tag's owner.
        """
        found = await self._database.fetch(SQL.tag_messages, tag_id, self._clock(), before, limit, ends)
        return [rows.stored(row) for row in found]

    async def tag_counts(self, tag_ids: Sequence[str], ends: Sequence[datetime] | None = None) -> dict[str, int]:
        """How many messages carry each; a tag that none carries is missing. ``ends`` as for ``tagged``."""
        found = await self._database.fetch(SQL.tag_counts, list(tag_ids), self._clock(), ends)
        return {str(row["tag_id"]): row["n"] for row in found}

    async def clear_tag(self, tag_id: str) -> None:
        await self._database.execute(SQL.tag_clear, tag_id)

    async def create_inbox(self, mailbox: Mailbox, capacity: int) -> None:
        drop_after = mailbox.expires_at or FOREVER
        await self._database.execute(SQL.inbox_insert, mailbox.id, drop_after, capacity, mailbox.user_id)

    async def delete_inboxes(self, mailbox_ids: Sequence[str]) -> None:
        await self._database.execute(SQL.inbox_delete, list(mailbox_ids), True)

    async def end(self, addresses: Mapping[str, str], reason: Literal["deleted", "expired"]) -> None:
        """Delete the inboxes of mailboxes that are no more (id → address), telling their users' webhooks."""
        async with self._database.transaction() as connection:
            for row in await connection.fetch(SQL.inbox_delete, list(addresses), reason == "deleted"):
                if row["user_id"] is not None:
                    mailbox_id = str(row["mailbox_id"])
                    gone = {"mailboxId": mailbox_id, "address": addresses[mailbox_id], "reason": reason}
                    user_id, now = str(row["user_id"]), self._clock()
                    await deliveries.record(connection, user_id, "mailbox.deleted", written(gone), now)

    async def delete_orphans(self, before: datetime, limit: int) -> None:
        await self._database.execute(SQL.inboxes_expired, before, limit)

    async def move(self, mailbox_id: str, drop_after: datetime) -> None:
        """Let the mailbox's mail vanish at ``drop_after`` and not before: rows move, bodies are copied, in one
        transaction.

        The partition must be there. Does nothing when the mail lies later already. Refused mailbox_not_found.
        """
        async with self._database.transaction() as connection:
            where = await _lock(connection, mailbox_id, self._clock())
            if where[1] >= drop_after:
                return
            held = await connection.fetch(SQL.messages_held, mailbox_id, *where, drop_after)
            await connection.execute(SQL.bodies_copy, mailbox_id, *where, drop_after)
            await connection.execute(SQL.messages_move, mailbox_id, *where, drop_after)
            await connection.execute(SQL.message_tags_move, mailbox_id, *where, drop_after)
            await release(connection, [(row["body_id"], rows.moment(row["body_drop_after"])) for row in held])
            await connection.execute(SQL.inbox_move, mailbox_id, drop_after)


def _holds_message(found: Sequence[asyncpg.Record]) -> bool:
    """Whether the message that was asked for is among rows that hold the inbox in any case."""
    return bool(found) and found[0]["id"] is not None


def _which(message_id: str) -> tuple[int, str]:
    """A message's seq and id. Refused message_not_found for what cannot be an id."""
    if not ids.valid(message_id):
        raise Refused("message_not_found")
    return ids.seq_of(message_id), message_id


def candidate(row: asyncpg.Record) -> Candidate:
    return Candidate(rows.stored(row), row["misses"], row["raw"])


def conditions_of(wanted: Query, tags: Mapping[str, str]) -> Sequence[object]:
    """A searching statement's arguments: four bounds; kinds, values and negations of what rows answer; values and
    negations of what is text. ``tags``: id by name, for the tags there are.
    """
    plain = [term for term in wanted.terms if term.kind != "text"]
    text = wanted.texts()
    return (
        *(wanted.after, wanted.before, wanted.least, wanted.most),
        [term.kind for term in plain],
        [_value(term, tags) for term in plain],
        [term.negated for term in plain],
        [like(sought(term.value)) for term in text],
        [term.negated for term in text],
    )


def _value(term: Term, tags: Mapping[str, str]) -> str:
    if term.kind == "tag":
        return tags.get(term.value, _NO_TAG)
    return like(sought(term.value)) if term.kind in ("from", "to", "subject") else term.value


def _counts(row: asyncpg.Record) -> Counts:
    return Counts(row["total"], row["unread"], row["next_seq"], row["last_activity"])


async def _lock(connection: Connection, mailbox_id: str, now: datetime) -> Span:
    return span(rows.moment((await _locked(connection, mailbox_id))["drop_after"]), now)


async def _locked(connection: Connection, mailbox_id: str) -> asyncpg.Record:
    row = await connection.fetchrow(SQL.inbox_lock, mailbox_id)
    if row is None:
        raise Refused("mailbox_not_found")
    return row


async def release(connection: Connection, held: Sequence[tuple[object, datetime]]) -> list[str]:
    """Give references to bodies (id, drop_after) back; the partitions from which the last reference took bodies."""
    if not held:
        return []
    dropped, counted = [at for _, at in held], Counter(body for body, _ in held)
    least, most = min(dropped), max(dropped)
    gone = await connection.fetch(SQL.bodies_release, list(counted), list(counted.values()), least, most)
    return column(gone, "leaf")
