"""Webhooks as values: the events there are, who listens to them, and what is sent.

Lives here: the names, the shapes and the bytes of a payload. Must not know: where they are kept, or how they are sent.
"""

from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

import msgspec

from server.model.message import Mailbox, Stored
from server.model.tag import Tag

Event = Literal[
    "mail.received",
    "mail.read",
    "mailbox.created",
    "mailbox.deleted",
    "tag.created",
    "tag.updated",
    "tag.deleted",
    "message.tagged",
]
EVENTS: Final[tuple[Event, ...]] = get_args(Event)
MAX_WEBHOOKS: Final = 10  # of one user

TEST: Final = "webhook.test"
"""What only its owner's request for a test sends; nobody listens to it by name."""

PAYLOAD_MAX: Final = 1_000_000  # bytes
_LISTED_MAX: Final = 100  # links and attachments of one message that a payload names

_encode: Final = msgspec.json.Encoder().encode


class Webhook(msgspec.Struct, frozen=True):
    """Where a user wants to be told. ``retry_count``: failures since the last success. ``is_live``: it and its owner
    are active."""

    id: str
    user_id: str
    url: str
    events: tuple[Event, ...]
    secret: str
    description: str
    is_active: bool
    retry_count: int
    last_error: str | None
    last_success: datetime | None
    created_at: datetime
    updated_at: datetime
    is_live: bool = True


class Delivery(msgspec.Struct, frozen=True):
    """One event for one webhook, and how far telling it has come.

    ``data`` is JSON. ``due_at`` is when it is tried next, None once it is over. ``duration`` in ms. ``fence`` counts
    how often somebody took it on, so that whoever lost its lease cannot write over its successor's result.
    """

    id: str
    webhook_id: str
    user_id: str
    event: str
    data: str
    created_at: datetime
    due_at: datetime | None = None
    fence: int = 0
    attempts: int = 0
    success: bool = False
    status_code: int | None = None
    response: str | None = None
    duration: int | None = None
    error: str | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What one attempt came to: a status with the beginning of the body, or an ``error`` without."""

    duration: int
    status_code: int | None = None
    response: str | None = None
    error: str | None = None

    @property
    def success(self) -> bool:
        return self.status_code is not None and 200 <= self.status_code < 300


def payload(delivery: Delivery) -> bytes:
    """The request's body, the same at every attempt: {id, event, timestamp, data}."""
    head = _encode({"id": delivery.id, "event": delivery.event, "timestamp": _rfc3339(delivery.created_at)})
    return head[:-1] + b',"data":' + delivery.data.encode() + b"}"


def mail_received(row: Stored) -> str:
    """The data of ``mail.received``: the message as a list shows it, with its number in the mailbox's one sequence."""
    details = row.details
    data: dict[str, Any] = {
        "messageId": row.id,
        "mailboxId": row.mailbox_id,
        "seq": row.seq,
        "from": row.sender,
        "to": row.to,
        "deliveredTo": details.delivered_to,
        "subject": row.subject,
        "preview": row.preview,
        "hasHtml": details.has_html,
        "hasText": details.has_text,
        "createdAt": _rfc3339(row.received_at),
        "size": row.size,
        "codes": details.codes,
        "links": details.links[:_LISTED_MAX],
        "hasAttachments": details.has_attachments,
        "attachments": details.attachments[:_LISTED_MAX],
    }
    if details.invite is not None:
        data["invite"] = details.invite
    text = written(data)
    if len(text) > PAYLOAD_MAX // 4:  # a character may take four bytes
        text = written(data | {"links": (), "attachments": ()})
    return text


def mailbox_created(mailbox: Mailbox) -> dict[str, Any]:
    """The data of ``mailbox.created``."""
    return {
        "mailboxId": mailbox.id,
        "address": mailbox.address,
        "createdAt": _rfc3339(mailbox.created_at),
        "expiresAt": None if mailbox.expires_at is None else _rfc3339(mailbox.expires_at),
    }


def tag_described(tag: Tag) -> dict[str, Any]:
    """What events say of a tag."""
    return {"tagId": tag.id, "name": tag.name, "color": tag.color, "description": tag.description}


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def written(data: Any) -> str:
    """``data`` as JSON."""
    return _encode(data).decode()
