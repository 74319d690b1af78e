"""Arriving mail, written a batch at a time: one transaction, two COPYs, one commit.

Lives here: the transaction, and what it says when it cannot be. Must not know: who waits for which message; committing
in groups, bisecting and answering are services/ingest.py's.

What one batch costs: BEGIN, one UPDATE ... RETURNING for all its inboxes, COPY of bodies, COPY of messages, COMMIT; and
one COPY more when a webhook listens to mail of one of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg
import msgspec

from server.model import ids
from server.model.message import FOREVER, Details, Envelope, Stored, StoredAttachment
from server.model.mime import Mail
from server.store.deliveries import Listeners, copy_received
from server.store.partitions import Partitions
from server.store.pools import Connection, Database
from server.store.rows import moment, scrubbed
from server.store.sql import SQL

TEXT_CHARS: Final = 32_768  # of a body's text kept for search

_BODY_COLUMNS: Final = ("id", "drop_after", "received_at", "refs", "raw", "text")
_MESSAGE_COLUMNS: Final = (
    "mailbox_id",
    "seq",
    "id",
    "drop_after",
    "received_at",
    "body_id",
    "body_drop_after",
    "size",
    "is_read",
    "envelope_from",
    "sender",
    "recipient",
    "subject",
    "preview",
    "details",
)
_encode = msgspec.json.Encoder().encode


class Item(msgspec.Struct):
    """One message ready to be written: envelope, what was read of it, its packed bytes."""

    envelope: Envelope
    mail: Mail
    packed: bytes
    received_at: datetime
    is_read: bool = False


class Shortfall(Exception):
    """Inboxes that took nothing: mailbox id → room left (see ``inboxes_room``), or None when it is gone."""

    def __init__(self, room: Mapping[str, int | None]) -> None:
        super().__init__(f"{len(room)} inboxes gone or full")
        self.room = room


class NoPartition(Exception):
    """(drop_after, received_at) pairs for which no partition is known."""

    def __init__(self, rows: Iterable[tuple[datetime, datetime]]) -> None:
        super().__init__("partitions missing")
        self.rows = list(rows)


class Granted(msgspec.Struct):
    """What a batch was given of one inbox: the next number to hand out, its end, and who listens to its mail."""

    seq: int
    drop_after: datetime
    heard_by: Listeners | None


async def write(
    database: Database,
    partitions: Partitions,
    retention: float,
    items: Sequence[Item],
    now: datetime,
    recorded: Callable[[], None] = lambda: None,
) -> list[list[Stored]]:
    """Commit ``items``; for each, the row of each of its mailboxes. All or nothing.

    ``recorded`` is called after a commit that left something to deliver to webhooks.

    Raises Shortfall or NoPartition before anything is written, and the driver's own exceptions otherwise: then nothing
    is known of the commit unless the error is the server's (asyncpg.PostgresError), which means rolled back.
    """
    async with database.connection() as connection, connection.transaction():
        granted = await _take(connection, items, now)
        lifetimes = {one.drop_after for one in granted.values()}
        dated = {drop: _drop_after(drop, retention, now) for drop in lifetimes}
        received = {now, min(item.received_at for item in items)}  # a month may have ended while they waited
        missing = [(d, r) for d in dated.values() for r in received if not partitions.covered(d, r)]
        if missing:
            raise NoPartition(missing)
        written = [_rows(item, granted, dated) for item in items]
        await connection.copy_records_to_table(
            "bodies", schema_name="messages", records=[body for body, _ in written], columns=_BODY_COLUMNS
        )
        await connection.copy_records_to_table(
            "messages",
            schema_name="messages",
            records=[_record(row, drop) for _, rows in written for row, drop in rows],
            columns=_MESSAGE_COLUMNS,
        )
        heard = {mailbox: one.heard_by for mailbox, one in granted.items() if one.heard_by}
        if heard:
            rows = [row for _, rows in written for row, _ in rows if row.mailbox_id in heard]
            await copy_received(connection, rows, heard, now)
    if heard:
        recorded()
    return [[row for row, _ in rows] for _, rows in written]


async def _take(connection: Connection, items: Sequence[Item], now: datetime) -> dict[str, Granted]:
    """Lock and count in, by mailbox id. Raises Shortfall."""
    demand: dict[str, list[int]] = {}
    for item in items:
        for recipient in item.envelope.recipients:
            counts = demand.setdefault(recipient.mailbox_id, [0, 0])
            counts[0] += 1
            counts[1] += not item.is_read
    wanted = list(demand)
    counted = [demand[m][0] for m in wanted], [demand[m][1] for m in wanted]
    rows = await connection.fetch(SQL.inboxes_take, wanted, *counted, now)
    granted = {str(row["mailbox_id"]): _granted(row) for row in rows}
    if len(granted) < len(demand):
        room: dict[str, int | None] = {m: None for m in wanted if m not in granted}
        found = await connection.fetch(SQL.inboxes_room, list(room), now)
        room |= {str(row["mailbox_id"]): row["room"] for row in found}
        raise Shortfall(room)
    return granted


def _granted(row: asyncpg.Record) -> Granted:
    listeners = [str(one) for one in row["listeners"] or ()]
    return Granted(row["first_seq"], moment(row["drop_after"]), (str(row["user_id"]), listeners) if listeners else None)


def _drop_after(drop: datetime, retention: float, now: datetime) -> datetime:
    """When mail of an inbox that ends at ``drop`` may vanish; one without an end keeps it for the retention, if any."""
    return drop if drop != FOREVER or not retention else now + timedelta(seconds=retention)


def _rows(
    item: Item, granted: Mapping[str, Granted], dated: Mapping[datetime, datetime]
) -> tuple[tuple[Any, ...], list[tuple[Stored, datetime]]]:
    """The body's record, and the row and drop_after for each mailbox, sequence numbers handed out in arrival order."""
    mail, envelope = item.mail, item.envelope
    body_id = ids.new()
    mailboxes = [recipient.mailbox_id for recipient in envelope.recipients]
    drops = [dated[granted[mailbox].drop_after] for mailbox in mailboxes]
    body_drop = max(drops)
    details = _details(mail, envelope)
    rows = []
    for recipient, drop in zip(envelope.recipients, drops, strict=True):
        inbox = granted[recipient.mailbox_id]
        seq, inbox.seq = inbox.seq, inbox.seq + 1
        row = Stored(
            id=ids.new(seq),
            mailbox_id=recipient.mailbox_id,
            seq=seq,
            received_at=item.received_at,
            envelope_from=scrubbed(envelope.sender, 320),
            sender=scrubbed(mail.sender, 2000),
            to=scrubbed(mail.to or recipient.address, 2000),
            subject=scrubbed(mail.subject, 1000),
            preview=scrubbed(mail.preview, 300),
            size=len(envelope.raw),
            is_read=item.is_read,
            details=details,
            body_id=body_id,
            body_drop_after=body_drop,
        )
        rows.append((row, drop))
    text = scrubbed(mail.text, TEXT_CHARS)
    return (body_id, body_drop, item.received_at, len(rows), item.packed, text), rows


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


def _record(row: Stored, drop_after: datetime) -> tuple[Any, ...]:
    return (
        row.mailbox_id,
        row.seq,
        row.id,
        drop_after,
        row.received_at,
        row.body_id,
        row.body_drop_after,
        row.size,
        row.is_read,
        row.envelope_from,
        row.sender,
        row.to,
        row.subject,
        row.preview,
        _encode(row.details).decode(),
    )


def is_data_fault(error: BaseException) -> bool:
    """Whether the batch failed for something one of its messages holds, so that halving it can save the others."""
    return isinstance(error, (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, UnicodeError, ValueError))


def lacks_partition(error: BaseException) -> bool:
    """SQLSTATE 23514 from a partitioned table: the worker believed in a partition that has gone meanwhile."""
    return isinstance(error, asyncpg.CheckViolationError) and "partition" in str(error)
