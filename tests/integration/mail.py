"""Mailboxes and mail for the tests of the store, made without SMTP or HTTP."""

from datetime import UTC, datetime, timedelta

import zstandard

from server.model import ids
from server.model.message import Envelope, Mailbox, Recipient
from server.model.mime import parse
from server.store.batch import Item
from server.store.messages import MessageStore


def now() -> datetime:
    return datetime.now(UTC)


def mailbox(life: timedelta | None = timedelta(hours=1)) -> Mailbox:
    identity = ids.new()
    return Mailbox(identity, identity.replace("-", ""), "temp.mail", bytes(32), now(), now() + life if life else None)


async def settled(store: MessageStore, life: timedelta | None = timedelta(hours=1), capacity: int = 0) -> Mailbox:
    """A mailbox with its inbox."""
    made = mailbox(life)
    await store.create_inbox(made, capacity)
    return made


def item(*boxes: Mailbox, subject: str = "hello", text: str = "a line") -> Item:
    raw = f"From: a@example.org\r\nTo: b@temp.mail\r\nSubject: {subject}\r\n\r\n{text}\r\n".encode()
    envelope = Envelope("a@example.org", [Recipient(box.address, box.id) for box in boxes], raw)
    return Item(envelope, parse(raw), zstandard.compress(raw, 1), now())
