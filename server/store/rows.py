"""How rows become values and values rows, and the one place where text is scrubbed before PostgreSQL sees it.

PostgreSQL refuses NUL in text and UTF-8 refuses lone surrogates; one such value would fail a whole batch,
so everything that came from outside passes ``scrubbed`` here, whatever its parser promised.
"""

from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from server.model.message import FOREVER, Details, Mailbox, Stored

_details = msgspec.json.Decoder(Details)


def scrubbed(text: str, limit: int) -> str:
    """``text`` cut to ``limit`` characters, without NUL and lone surrogates (each becomes U+FFFD)."""
    text = text[:limit]
    if text.isascii():
        return text.replace("\0", "�") if "\0" in text else text
    return text.replace("\0", "�").encode("utf-8", "replace").decode("utf-8")


def moment(value: datetime) -> datetime:
    """asyncpg reads ``infinity`` as a naive datetime.max; ours is FOREVER."""
    return FOREVER if value.tzinfo is None else value


def mailbox(row: asyncpg.Record) -> Mailbox:
    return Mailbox(
        str(row["id"]),
        row["local_part"],
        row["domain"],
        row["token_hash"],
        row["created_at"],
        row["expires_at"],
        str(row["user_id"]) if row["user_id"] else None,
        row["disabled"],
    )


def stored(row: asyncpg.Record) -> Stored:
    details: Any = row["details"]
    return Stored(
        id=str(row["id"]),
        mailbox_id=str(row["mailbox_id"]),
        seq=row["seq"],
        received_at=row["received_at"],
        envelope_from=row["envelope_from"],
        sender=row["sender"],
        to=row["recipient"],
        subject=row["subject"],
        preview=row["preview"],
        size=row["size"],
        is_read=row["is_read"],
        details=_details.decode(details),
        body_id=str(row["body_id"]),
        body_drop_after=moment(row["body_drop_after"]),
    )
