"""Arriving mail, written a batch at a time: one statement, which is one transaction, one commit and one round trip;
a transaction of two where webhooks listen.

Lives here: the statement's arguments and what its answer means. Must not know: who waits for which message; committing
in groups, bisecting and answering are services/mail_in/ingest.py's.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import overload

import asyncpg
import msgspec

from server.model import ids
from server.model.links import MAX_LINK
from server.model.message import FOREVER, Details, Envelope, Recipient, Stored, StoredAttachment, delivered_to_lines
from server.model.mime import Mail
from server.store import queued_ids
from server.store.binary_rows import Row
from server.store.deliveries import Listeners, copy_received
from server.store.pools import Connection, Database
from server.store.rows import moment, scrubbed
from server.store.sql import SQL

_SENDER_MAX = 1_000  # characters of an envelope's sender: as many as a line of SMTP holds
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


_Row = tuple[str, int, str]
"""Mailbox id, place from the first number the batch is given there, and the head of the message's id."""


_Granted = Mapping[str, tuple[int, datetime]]
"""Mailbox id → the first number it gave, and when its mail may vanish."""


class Rows(Sequence[Stored]):
    """The rows of one message, made when somebody looks: most are never looked at here."""

    __slots__ = ("_body_id", "_granted", "_item", "_made", "_rows")

    def __init__(self, item: Item, rows: Sequence[_Row], body_id: str, granted: _Granted) -> None:
        self._item, self._rows, self._body_id, self._granted = item, rows, body_id, granted
        self._made: list[Stored] | None = None

    def numbers(self) -> list[tuple[str, int]]:
        """(mailbox id, seq) of each."""
        return [(mailbox, self._granted[mailbox][0] + place) for mailbox, place, _ in self._rows]

    @property
    def ids(self) -> Callable[[], dict[str, str]]:
        """Tells mailbox id → the id of its message, and keeps nothing of the message."""
        return partial(_ids, self._rows, self._granted)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Stored: ...
    @overload
    def __getitem__(self, index: slice) -> list[Stored]: ...
    def __getitem__(self, index: int | slice) -> Stored | list[Stored]:
        if self._made is None:
            self._made = _stored(self._item, self._rows, self._body_id, self._granted)
        return self._made[index]


def _ids(rows: Sequence[_Row], granted: _Granted) -> dict[str, str]:
    return {mailbox: ids.with_seq(head, granted[mailbox][0] + place) for mailbox, place, head in rows}


async def write(
    database: Database,
    retention: float,
    items: Sequence[Item],
    now: datetime,
    recorded: Callable[[], None] = lambda: None,
) -> list[Rows]:
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
        self._items = items
        self.demand: dict[str, list[int]] = {}  # mailbox id -> how many messages are for it, how many of them unread
        self._rows: list[tuple[list[_Row], str]] = []
        letters: list[Row] = []
        heads = iter(ids.heads(sum([len(item.envelope.recipients) for item in items])))
        for item, body_id in zip(items, ids.several(len(items)), strict=True):
            rows = [self._place(one.mailbox_id, item, next(heads)) for one in item.envelope.recipients]
            self._rows.append((rows, body_id))
            _append(letters, item, rows, body_id)
        wanted = list(self.demand), [n for n, _ in self.demand.values()], [fresh for _, fresh in self.demand.values()]
        self.arguments = (*wanted, now, _drop_of_endless(retention, now), letters)

    def _place(self, mailbox: str, item: Item, head: str) -> _Row:
        count = self.demand.get(mailbox)
        if count is None:
            count = self.demand[mailbox] = [0, 0]
        place = count[0]
        count[0] = place + 1
        count[1] += not item.is_read
        return mailbox, place, head

    def stored(self, given: Sequence[asyncpg.Record]) -> list[Rows]:
        granted = _granted(given)
        return [Rows(item, *made, granted) for item, made in zip(self._items, self._rows, strict=True)]


def _append(letters: list[Row], item: Item, rows: Sequence[_Row], body_id: str) -> None:
    """One message's rows as ``deliver`` takes them; the first brings the body."""
    mail, envelope = item.mail, item.envelope
    sharers = None if len(rows) == 1 else [mailbox for mailbox, _, _ in rows]
    first = (body_id, len(rows), item.received_at)
    then = (
        *(item.is_read, sharers),
        *(scrubbed(envelope.sender, _SENDER_MAX), scrubbed(mail.sender, 2000), scrubbed(mail.subject, 1000)),
        scrubbed(mail.preview, 300),
    )
    apart = _apart(envelope)
    details = _details(mail, envelope, envelope.recipients[0], apart=apart)
    raw: bytes | None = item.packed
    for row, recipient in zip(rows, envelope.recipients, strict=True):
        its = details if raw is not None else _delivered(details, recipient)
        size = len(envelope.raw) + (_lines_size(recipient) if apart else 0)
        letters.append((*row, *first, size, *then, _encode(its).decode(), _shown(mail, recipient), raw))
        raw = None


def _apart(envelope: Envelope) -> bool:
    """Whether SMTP brought it for several mailboxes: its bytes then name no recipient (smtp/trace.py)."""
    if not envelope.helo:
        return False
    raw = envelope.raw
    return not raw.startswith(b"Delivered-To: ", raw.find(b"\r\n") + 2)


def _delivered(details: Details, recipient: Recipient) -> Details:
    """What another mailbox is told: its own addresses and no other's."""
    return msgspec.structs.replace(details, delivered_to=_addresses(recipient))


def _addresses(recipient: Recipient) -> tuple[str, ...]:
    if not recipient.others:
        return (scrubbed(recipient.address, 320),)
    return tuple([scrubbed(address, 320) for address in recipient.delivered_to])


def _lines_size(recipient: Recipient) -> int:
    """Bytes that the message has more as that mailbox reads it."""
    return len(delivered_to_lines(recipient.delivered_to))


def _shown(mail: Mail, recipient: Recipient) -> str:
    return scrubbed(mail.to or recipient.address, 2000)


async def _write_heard(connection: Connection, prepared: _Prepared, now: datetime) -> tuple[list[Rows], bool]:
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
) -> list[Rows]:
    """``write``, but what has an id is stored only if nothing of that id ever was; else it has no rows."""
    async with database.connection() as connection, connection.transaction():
        new = await queued_ids.claim(connection, list({item.envelope.id for item in items} - {""}))
        fresh = []
        for nth, item in enumerate(items):
            if not item.envelope.id or item.envelope.id in new:
                new.discard(item.envelope.id)  # it may be in the batch twice
                fresh.append(nth)
        if not fresh:
            return [Rows(item, (), "", {}) for item in items]
        rows, heard = await _write_heard(connection, _Prepared([items[n] for n in fresh], retention, now), now)
    if heard:
        recorded()
    stored = dict(zip(fresh, rows, strict=True))
    return [stored.get(n, Rows(item, (), "", {})) for n, item in enumerate(items)]


def _went(given: Sequence[asyncpg.Record]) -> bool:
    return bool(given) and bool(given[0]["go"])


def _granted(given: Sequence[asyncpg.Record]) -> _Granted:
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
    wanted = {recipient.mailbox_id for item in items for recipient in item.envelope.recipients}
    found = await database.fetch(SQL.inboxes_drop, list(wanted), endless)
    received = {item.received_at for item in items}
    return [(moment(row["drop_after"]), at) for row in found for at in (min(received), max(received))]


def _drop_of_endless(retention: float, now: datetime) -> datetime:
    """When mail that comes now may vanish from a mailbox without an end: after the retention, or never."""
    return now + timedelta(seconds=retention) if retention else FOREVER


def _stored(item: Item, rows: Sequence[_Row], body_id: str, granted: _Granted) -> list[Stored]:
    """What ``deliver`` has made of a message, as a reader would find it."""
    mail, envelope = item.mail, item.envelope
    apart = _apart(envelope)
    details = _details(mail, envelope, envelope.recipients[0], apart=apart)
    return [
        Stored(
            id=ids.with_seq(head, granted[mailbox][0] + place),
            mailbox_id=mailbox,
            seq=granted[mailbox][0] + place,
            received_at=item.received_at,
            envelope_from=scrubbed(envelope.sender, _SENDER_MAX),
            sender=scrubbed(mail.sender, 2000),
            to=_shown(mail, recipient),
            subject=scrubbed(mail.subject, 1000),
            preview=scrubbed(mail.preview, 300),
            size=len(envelope.raw) + (_lines_size(recipient) if apart else 0),
            is_read=item.is_read,
            details=_delivered(details, recipient),
            body_id=body_id,
            body_drop_after=max(granted[each][1] for each, _, _ in rows),
        )
        for (mailbox, place, head), recipient in zip(rows, envelope.recipients, strict=True)
    ]


def _details(mail: Mail, envelope: Envelope, recipient: Recipient, *, apart: bool) -> Details:
    return Details(
        cc=scrubbed(mail.cc, 2000),
        reply_to=scrubbed(mail.reply_to, 2000),
        date=mail.date,
        message_id=scrubbed(mail.message_id, 1000),
        has_html=bool(mail.html),
        has_text=bool(mail.text),
        tls=envelope.tls,
        attachments=tuple(
            [
                StoredAttachment(
                    *(a.number, scrubbed(a.filename, 255), scrubbed(a.content_type, 255), a.size),
                    *(scrubbed(a.content_id, 500), a.disposition, a.inline),
                )
                for a in mail.attachments[:1000]
            ]
        )
        if mail.attachments
        else (),
        codes=tuple([scrubbed(code, 64) for code in mail.codes]) if mail.codes else (),
        extracted=mail.extracted,
        delivered_to=_addresses(recipient),
        delivered_apart=apart,
        links=tuple([scrubbed(link, MAX_LINK) for link in mail.links]) if mail.links else (),
        defect=mail.defect,
        invite=mail.invite,
    )


def is_data_fault(error: BaseException) -> bool:
    """Whether the batch failed for something one of its messages holds, so that halving it can save the others."""
    return isinstance(error, (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, UnicodeError, ValueError))


def lacks_partition(error: BaseException) -> bool:
    """SQLSTATE 23514 from a partitioned table: the worker believed in a partition that has gone meanwhile."""
    return isinstance(error, asyncpg.CheckViolationError) and "partition" in str(error)
