"""What readers are told as it happens, as ready bytes: ``{type, mailboxId?, data?, error?, timestamp, seq?}``.

Lives here: how each frame is spelt, for WebSockets and event streams alike. Must not know: who gets one, when, or how.
A frame is built once and its bytes are shared by everyone who is owed it.
"""

from typing import Any

import orjson

from server import clock
from server.model.message import Counts, Stored


def _frame(kind: str, mailbox_id: str = "", **rest: Any) -> bytes:
    head = {"type": kind, "mailboxId": mailbox_id} if mailbox_id else {"type": kind}
    return orjson.dumps({**head, **rest, "timestamp": clock.now()}, option=orjson.OPT_UTC_Z)


def ping() -> bytes:
    return _frame("ping")


def error(word: str, mailbox_id: str = "", detail: str = "", field: str = "") -> bytes:
    """``data`` (``{field?, detail?}``) is there only when there is something to say in it."""
    said = {name: text for name, text in (("field", field), ("detail", detail)) if text}
    return _frame("error", mailbox_id, error=word, **({"data": said} if said else {}))


def subscribed(mailbox_id: str, seq: int) -> bytes:
    """``seq`` is the mailbox's newest number; what is missed up to it follows."""
    return _frame("subscribed", mailbox_id, seq=seq)


def unsubscribed(mailbox_id: str, word: str = "") -> bytes:
    """With ``word`` it was not the client's wish: the token no longer opens the mailbox."""
    return _frame("unsubscribed", mailbox_id, **({"error": word} if word else {}))


def gap(mailbox_id: str, first: int, last: int) -> bytes:
    """The numbers ``first`` to ``last`` are not replayed: list them over HTTP. Replay goes on after ``seq``."""
    return _frame("gap", mailbox_id, data={"from": first, "to": last}, seq=last)


def mailbox_expired(mailbox_id: str) -> bytes:
    return _frame("mailbox_expired", mailbox_id)


def mailbox_update(mailbox_id: str, counts: Counts) -> bytes:
    data = {
        "mailboxId": mailbox_id,
        "unreadCount": counts.unread,
        "totalCount": counts.total,
        "lastActivity": counts.last_activity,
    }
    return _frame("mailbox_update", mailbox_id, data=data)


def new_mail(row: Stored) -> bytes:
    """``row``'s text was scrubbed at the store's edge, so it is always encodable."""
    data = {
        "messageId": row.id,
        "mailboxId": row.mailbox_id,
        "from": row.sender,
        "to": row.to,
        "deliveredTo": row.details.delivered_to,
        "subject": row.subject,
        "preview": row.preview,
        "hasHtml": row.details.has_html,
        "hasText": row.details.has_text,
        "createdAt": row.received_at,
        "codes": row.details.codes,
    }
    return _frame("new_mail", row.mailbox_id, data=data, seq=row.seq)
