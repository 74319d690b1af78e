"""The product's nouns: mailbox, envelope, stored message. Frozen values, no behaviour beyond their own shape."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from server.model.codes import Code
from server.model.mime.invites import Invite

FOREVER = datetime.max.replace(tzinfo=UTC)
"""PostgreSQL's ``infinity``: mail that is kept until someone deletes it."""


class Mailbox(msgspec.Struct, frozen=True):
    """An address somebody holds a token for. ``expires_at`` is None for one kept for ever;
    ``disabled`` by administrators, it takes no mail."""

    id: str
    local_part: str
    domain: str
    token_hash: bytes
    created_at: datetime
    expires_at: datetime | None
    user_id: str | None = None
    disabled: bool = False

    @property
    def address(self) -> str:
        return f"{self.local_part}@{self.domain}"

    def expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class Alias(msgspec.Struct, frozen=True):
    """Another address of a mailbox; one that is not active takes no mail, and still nobody else can have it."""

    id: str
    mailbox_id: str
    local_part: str
    domain: str
    created_at: datetime
    is_active: bool = True

    @property
    def address(self) -> str:
        return f"{self.local_part}@{self.domain}"


ADDRESSES_MAX = 20
"""Addresses of one mailbox that a message is known to have come by; more are still accepted."""


class Recipient(msgspec.Struct, frozen=True):
    """A mailbox of a message, and the address of its RCPT as given (canonical form). ``others``: further addresses of
    the same mailbox that the message came by.
    """

    address: str
    mailbox_id: str
    others: tuple[str, ...] = ()

    def after(self, earlier: "Recipient") -> "Recipient":
        """This one, when ``earlier`` was accepted before it for the same mailbox."""
        others = tuple(dict.fromkeys((*earlier.others, earlier.address)))[: ADDRESSES_MAX - 1]
        return Recipient(self.address, self.mailbox_id, tuple(one for one in others if one != self.address))

    @property
    def delivered_to(self) -> tuple[str, ...]:
        return (*self.others, self.address)


def delivered_to_lines(addresses: Sequence[str]) -> bytes:
    """The trace header that names them, a line for each."""
    return b"".join([b"Delivered-To: %b\r\n" % address.encode() for address in addresses])


class Envelope(msgspec.Struct):
    """One message as SMTP handed it over: who, to whom, and the bytes (CRLF lines, dots unstuffed, trace header in
    front). ``client`` and ``helo``: its address and what it called itself, where a client brought it. ``crlf``: it is
    known that no CR or LF stands alone in the bytes.

    ``id`` and ``received_at`` are set of mail that comes through the queue: it was answered 250 then, is stored once
    for its id, and a mailbox that has filled up meanwhile is dropped from it as one that has gone is.
    ``dropped``: the recipients that it lost that way, and whether their mailbox was full.
    """

    sender: str
    recipients: list[Recipient]
    raw: bytes
    tls: bool = False
    client: str = ""
    helo: str = ""
    id: str = ""
    received_at: datetime | None = None
    crlf: bool = False
    dropped: list[tuple[Recipient, bool]] = []


class Stored(msgspec.Struct, frozen=True):
    """A row of a mailbox's list, everything but the body. ``details`` is kept as JSON."""

    id: str
    mailbox_id: str
    seq: int
    received_at: datetime
    envelope_from: str
    sender: str
    to: str
    subject: str
    preview: str
    size: int
    is_read: bool
    details: "Details"
    body_id: str = ""
    body_drop_after: datetime = FOREVER


class StoredAttachment(msgspec.Struct, frozen=True, rename="camel"):
    """What a list says of an attachment. ``id`` is the MIME part number (RFC 3501 section 6.4.5), ``size`` counts
    decoded bytes, ``content_id`` stands in HTML as ``cid:...``, ``disposition`` is "inline", "attachment" or "".
    ``inline``: the HTML of the message shows it.
    """

    id: str
    filename: str
    content_type: str
    size: int
    content_id: str = ""
    disposition: str = ""
    inline: bool = False


class Details(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What only some readers need of a message, kept as one JSON value beside its row. ``spf``, ``dkim`` and ``dmarc``
    are joined to it later, once DNS has answered (services/mail_in/authentication.py). ``delivered_to``: the addresses
    that were used, none for mail of earlier releases. ``delivered_apart``: its bytes, which other mailboxes share, do
    not name them.
    """

    cc: str = ""
    reply_to: str = ""
    date: datetime | None = None
    message_id: str = ""
    has_html: bool = False
    has_text: bool = False
    tls: bool = False
    spf: str = "none"
    dkim: str = "none"
    dmarc: str = "none"
    attachments: tuple[StoredAttachment, ...] = ()
    codes: tuple[str, ...] = ()
    extracted: tuple[Code, ...] = ()
    links: tuple[str, ...] = ()
    delivered_to: tuple[str, ...] = ()
    delivered_apart: bool = False
    defect: str | None = None
    invite: Invite | None = None

    @property
    def has_attachments(self) -> bool:
        """Whether there is anything to download that the HTML does not show in its place."""
        return any(not attachment.inline for attachment in self.attachments)


class Counts(msgspec.Struct, frozen=True):
    """A mailbox's counters; ``next_seq`` is the number its next message gets."""

    total: int
    unread: int
    next_seq: int
    last_activity: datetime | None
