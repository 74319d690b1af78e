"""Arriving mail as one value, ``messages.letter[]``, a row for each mailbox, packed in PostgreSQL's binary form.

Lives here: the layout of a row, and teaching a connection to take rows packed. The driver's own way, column by column,
cost as much as reading the mail did; row by row it costs half of that. Must not know: what is done with the value.

The form is that of array_recv and record_recv (src/backend/utils/adt/arrayfuncs.c, rowtypes.c): big-endian, before each
field its type, whose number is fixed for built-in ones (src/include/catalog/pg_type.dat), and its length.

asyncpg lets programs encode scalar and composite types themselves but not arrays, so this asks the settings that its
``set_type_codec`` asks. Where they do not answer as the reviewed release does, the driver encodes the same rows itself.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from struct import Struct
from typing import Any, Final

import asyncpg

REVIEWED: Final = ("0.32.0",)  # of asyncpg

Row = tuple[str, int, str, str, int, datetime, int, bool, list[str] | None, str, str, str, str, str, str, bytes | None]
"""mailbox_id; place, from the first number the batch is given there; id_head; body_id, refs, received_at, size,
is_read, sharers, envelope_from, sender, subject, preview, details, recipient, raw."""

_BOOL, _BYTEA, _INT, _TEXT, _JSON, _UUID, _UUIDS, _TIME = 16, 17, 23, 25, 114, 2950, 2951, 1184
_COLUMNS: Final = 16
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)

_ARRAY: Final = Struct(">iiIii")  # dimensions, whether there are NULLs, type of elements, how many, first index
_FIELD: Final = Struct(">Ii")
# Length and columns of the row, and the fields whose length is fixed.
_ROW: Final = Struct(">iiIi16sIiiIi28sIi16sIiiIiqIiiIi?")
_REST: Final = 8  # fields of any length, sharers first and raw last
_FRAME: Final = _ROW.size - 4 + _REST * _FIELD.size
_NULL: Final = -1


def packed(rows: Sequence[Row], row_type: int) -> bytes:
    """The array; ``row_type`` is the number of ``messages.letter`` in that database."""
    parts = [_ARRAY.pack(1, 0, row_type, len(rows), 1)]
    ids: dict[str, bytes] = {}
    field = _FIELD.pack
    for row in rows:
        mailbox_id, place, head, body_id, refs, received_at, size, is_read, sharers, *texts, details, recipient, raw = (
            row
        )
        mailbox = ids.get(mailbox_id)
        if mailbox is None:
            mailbox = ids[mailbox_id] = _uuid(mailbox_id)
        several = b"" if sharers is None else _uuids(sharers)
        a, b, c, d, e, f = [text.encode() for text in (*texts, details, recipient)]
        body = raw or b""
        length = _FRAME + len(several) + len(a) + len(b) + len(c) + len(d) + len(e) + len(f) + len(body)
        parts += (
            _ROW.pack(
                *(length, _COLUMNS, _UUID, 16, mailbox, _INT, 4, place, _TEXT, 28, head.encode()),
                *(_UUID, 16, _uuid(body_id), _INT, 4, refs, _TIME, 8, _microseconds(received_at)),
                *(_INT, 4, size, _BOOL, 1, is_read),
            ),
            field(_UUIDS, _NULL if sharers is None else len(several)),
            several,
            field(_TEXT, len(a)),
            a,
            field(_TEXT, len(b)),
            b,
            field(_TEXT, len(c)),
            c,
            field(_TEXT, len(d)),
            d,
            field(_JSON, len(e)),
            e,
            field(_TEXT, len(f)),
            f,
            field(_BYTEA, _NULL if raw is None else len(body)),
            body,
        )
    return b"".join(parts)


def _uuid(text: str) -> bytes:
    return bytes.fromhex(text.replace("-", ""))


def _uuids(members: Sequence[str]) -> bytes:
    elements = b"".join(b"\0\0\0\x10" + _uuid(member) for member in members)
    return _ARRAY.pack(1, 0, _UUID, len(members), 1) + elements


def _microseconds(moment: datetime) -> int:
    """Since the year 2000, which is how a timestamptz goes."""
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


async def teach(connection: "asyncpg.Connection[Any]") -> None:
    """Have a new connection take rows packed, where its database has the type (yet) and the driver is as reviewed."""
    if asyncpg.__version__ not in REVIEWED:
        return
    found = await connection.fetchrow(
        "SELECT oid, typarray FROM pg_catalog.pg_type WHERE oid = pg_catalog.to_regtype('messages.letter')"
    )
    if found is None:
        return
    row_type = found["oid"]
    settings = connection._protocol.get_settings()  # type: ignore[attr-defined]
    settings.add_python_codec(
        *(found["typarray"], "letter[]", "messages", [], "scalar"),
        *(lambda rows: packed(rows, row_type), bytes, "binary"),
    )
