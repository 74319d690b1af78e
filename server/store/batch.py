"""Arriving mail, written a batch at a time: one statement, which is one transaction, one commit and one round trip;
a transaction of two where webhooks listen.

Lives here: the statement's arguments and what its answer means. Must not know: who waits for which message; committing
in groups, bisecting and answering are services/ingest.py's.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg
import msgspec

from server.model import ids
from server.model.message import FOREVER, Details, Envelope, Stored, StoredAttachment
from server.model.mime import Mail
from server.store import arrivals
from server.store.deliveries import Listeners, copy_received
from server.store.pools import Connection, Database
from server.store.rows import moment, scrubbed
from server.store.sql import SQL

TEXT_CHARS: Final = 32_768  # of a body's text kept for search

_encode = msgspec.json.Encoder().encode


class Item(msgspec.Struct):
    """One message ready to be written: envelope, what was read of it, its packed bytes."""

    envelope: Envelope
    mail: Mail
    packed: bytes
    received_at: datetime
    is_read: bool = False


class Shortfall(Exception):
    """Inboxes that took nothing: mailbox id → room left (see ``deliver``), or None when it is gone."""

    def __init__(self, room: Mapping[str, int | None]) -> None:
        super().__init__(f"{len(room)} inboxes gone or full")
        self.room = room


async def write(
    database: Database,
    retention: float,
    items: Sequence[Item],
    now: datetime,
    recorded: Callable[[], None] = lambda: None,
) -> list[list[Stored]]:
    """Commit ``items``; for each, the row of each of its mailboxes. All or nothing.

    ``recorded`` is called after a commit that left something to deliver to webhooks.

    Raises Shortfall when nothing was written for want of an inbox, and the driver's own exceptions otherwise: then
    nothing is known of the commit unless the error is the server's (asyncpg.PostgresError), which means rolled back.
    """
    if any(item.envelope.id for item in items):
        return await _write_once(database, retention, items, now, recorded)
    prepared = _Prepared(items, retention, now)
    async with database.connection() as connection:
        given = await connection.fetch(SQL.deliver, *prepared.arguments, False)
        if _went(given):
            return prepared.stored(given)
        if not _heard_by(given):
            raise _shortfall(prepared.demand, given)
        async with connection.transaction():
            stored, _ = await _write_heard(connection, prepared, now)
    recorded()
    return stored


class _Prepared:
    """The arguments of ``deliver`` for some items, and what its answer makes of them."""

    def __init__(self, items: Sequence[Item], retention: float, now: datetime) -> None:
        self._items, self.demand = items, _demand(items)
        self._details = [_details(item.mail, item.envelope) for item in items]
        self._mails, self._rows = _columns(items, self._details)
        counts = self.demand.values()
        wanted = list(self.demand), [n for n, _ in counts], [fresh for _, fresh in counts]
        self.arguments = (*wanted, now, _drop_of_endless(retention, now), *self._mails, *self._rows)

    def stored(self, given: Sequence[asyncpg.Record]) -> list[list[Stored]]:
        return _stored(self._items, self._details, self._mails, self._rows, _granted(given))


async def _write_heard(connection: Connection, prepared: _Prepared, now: datetime) -> tuple[list[list[Stored]], bool]:
    """Inside a transaction: the items, and a delivery for each webhook that listens; whether any does."""
    given = await connection.fetch(SQL.deliver, *prepared.arguments, True)
    if not _went(given):
        raise _shortfall(prepared.demand, given)
    stored, heard = prepared.stored(given), _heard_by(given)
    if heard:
        heard_rows = [row for one in stored for row in one if row.mailbox_id in heard]
        await copy_received(connection, heard_rows, heard, now)
    return stored, bool(heard)


async def _write_once(
    database: Database, retention: float, items: Sequence[Item], now: datetime, recorded: Callable[[], None]
) -> list[list[Stored]]:
    """``write``, but what has an id is stored only if nothing of that id ever was; else it has no rows."""
    async with database.connection() as connection, connection.transaction():
        new = await arrivals.claim(connection, list({item.envelope.id for item in items} - {""}))
        fresh = []
        for nth, item in enumerate(items):
            if not item.envelope.id or item.envelope.id in new:
                new.discard(item.envelope.id)  # it may be in the batch twice
                fresh.append(nth)
        if not fresh:
            return [[] for _ in items]
        rows, heard = await _write_heard(connection, _Prepared([items[n] for n in fresh], retention, now), now)
    if heard:
        recorded()
    stored = dict(zip(fresh, rows, strict=True))
    return [stored.get(n, []) for n in range(len(items))]


def _went(given: Sequence[asyncpg.Record]) -> bool:
    return bool(given) and bool(given[0]["go"])


def _granted(given: Sequence[asyncpg.Record]) -> dict[str, tuple[int, datetime]]:
    """Mailbox id → the first number it gave, and when its mail may vanish."""
    return {str(row["mailbox_id"]): (row["first_seq"], moment(row["drop_after"])) for row in given}


def _heard_by(given: Sequence[asyncpg.Record]) -> dict[str, Listeners]:
    """Mailbox id → whose webhooks listen to it, for those that have any."""
    return {
        str(row["mailbox_id"]): (str(row["user_id"]), [str(one) for one in row["listeners"]])
        for row in given
        if row["listeners"]
    }


def _shortfall(demand: Iterable[str], given: Sequence[asyncpg.Record]) -> Shortfall:
    room: dict[str, int | None] = dict.fromkeys(demand)
    return Shortfall(room | {str(row["mailbox_id"]): row["room"] for row in given})


async def partitions_wanted(
    database: Database, retention: float, items: Sequence[Item], now: datetime
) -> list[tuple[datetime, datetime]]:
    """(drop_after, received_at) of every partition that ``items`` need."""
    endless = _drop_of_endless(retention, now)
    found = await database.fetch(SQL.inboxes_drop, list(_demand(items)), endless)
    received = {item.received_at for item in items}
    return [(moment(row["drop_after"]), at) for row in found for at in (min(received), max(received))]


def _drop_of_endless(retention: float, now: datetime) -> datetime:
    """When mail that comes now may vanish from a mailbox without an end: after the retention, or never."""
    return now + timedelta(seconds=retention) if retention else FOREVER


def _demand(items: Sequence[Item]) -> dict[str, tuple[int, int]]:
    """Mailbox id → how many messages are for it, and how many of them unread."""
    demand: dict[str, tuple[int, int]] = {}
    for item in items:
        for recipient in item.envelope.recipients:
            n, fresh = demand.get(recipient.mailbox_id, (0, 0))
            demand[recipient.mailbox_id] = (n + 1, fresh + (not item.is_read))
    return demand


_Columns = list[list[Any]]


def _columns(items: Sequence[Item], details: Sequence[Details]) -> tuple[_Columns, _Columns]:
    """The arguments of ``deliver``: a column a field of the mails, and a column a field of the rows."""
    mails: list[tuple[Any, ...]] = []
    rows: list[tuple[Any, ...]] = []
    places: dict[str, int] = {}
    for nth, item in enumerate(items, 1):
        mail, envelope = item.mail, item.envelope
        mails.append(_mail_fields(item, details[nth - 1]))
        for recipient in envelope.recipients:
            place = places.get(recipient.mailbox_id, 0)
            places[recipient.mailbox_id] = place + 1
            shown = scrubbed(mail.to or recipient.address, 2000)
            rows.append((nth, recipient.mailbox_id, place, ids.head(), shown))
    return [list(column) for column in zip(*mails, strict=True)], [list(column) for column in zip(*rows, strict=True)]


def _mail_fields(item: Item, details: Details) -> tuple[Any, ...]:
    mail, envelope = item.mail, item.envelope
    return (
        ids.new(),
        item.received_at,
        len(envelope.recipients),
        item.packed,
        scrubbed(mail.text, TEXT_CHARS),
        len(envelope.raw),
        item.is_read,
        scrubbed(envelope.sender, 320),
        scrubbed(mail.sender, 2000),
        scrubbed(mail.subject, 1000),
        scrubbed(mail.preview, 300),
        _encode(details).decode(),
    )


def _stored(
    items: Sequence[Item],
    details: Sequence[Details],
    mails: _Columns,
    rows: _Columns,
    granted: Mapping[str, tuple[int, datetime]],
) -> list[list[Stored]]:
    """What ``deliver`` has made of its arguments, as a reader would find it."""
    ids_, _, _, _, _, sizes, _, envelope_from, senders, subjects, previews, _ = mails
    stored: list[list[Stored]] = [[] for _ in items]
    for nth, mailbox, place, head, shown in zip(*rows, strict=True):
        item, i = items[nth - 1], nth - 1
        seq = granted[mailbox][0] + place
        stored[i].append(
            Stored(
                id=ids.with_seq(head, seq),
                mailbox_id=mailbox,
                seq=seq,
                received_at=item.received_at,
                envelope_from=envelope_from[i],
                sender=senders[i],
                to=shown,
                subject=subjects[i],
                preview=previews[i],
                size=sizes[i],
                is_read=item.is_read,
                details=details[i],
                body_id=ids_[i],
                body_drop_after=max(granted[r.mailbox_id][1] for r in item.envelope.recipients),
            )
        )
    return stored


def _details(mail: Mail, envelope: Envelope) -> Details:
    return Details(
        cc=scrubbed(mail.cc, 2000),
        reply_to=scrubbed(mail.reply_to, 2000),
        date=mail.date,
        message_id=scrubbed(mail.message_id, 1000),
        has_html=bool(mail.html),
        has_text=bool(mail.text),
        tls=envelope.tls,
        attachments=tuple(
            StoredAttachment(a.number, scrubbed(a.filename, 255), scrubbed(a.content_type, 255), a.size)
            for a in mail.attachments[:1000]
        ),
        codes=tuple(scrubbed(code, 64) for code in mail.codes),
        links=tuple(scrubbed(link, 2000) for link in mail.links),
        defect=mail.defect,
    )


def is_data_fault(error: BaseException) -> bool:
    """Whether the batch failed for something one of its messages holds, so that halving it can save the others."""
    return isinstance(error, (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, UnicodeError, ValueError))


def lacks_partition(error: BaseException) -> bool:
    """SQLSTATE 23514 from a partitioned table: the worker believed in a partition that has gone meanwhile."""
    return isinstance(error, asyncpg.CheckViolationError) and "partition" in str(error)
