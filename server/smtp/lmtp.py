"""LMTP (RFC 2033): how a mail server of this host hands mail over. SMTP but for its hello, and an answer for each
recipient after the end of a message, since there is no queue here to remember who got it.

Must not know: how recipients are found or messages stored.
"""

import asyncio
from typing import Any, Final

import msgspec

from server.model.errors import Refused
from server.model.message import Envelope, Recipient
from server.smtp import replies
from server.smtp.session import Session, Transaction


class LmtpSession(Session):
    """One LMTP session. Its client has no address of its own that says anything: mail came to it from elsewhere."""

    __slots__ = ("_envelope", "_order")

    WORD = "LMTP"

    def __init__(self, *wired: Any) -> None:
        super().__init__(*wired)
        self._order: list[str] = []  # the mailbox of each accepted RCPT: each is owed an answer
        self._envelope: Envelope | None = None

    def begin(self, wire: asyncio.Transport, peer: str) -> None:
        super().begin(wire, "")

    def _mail(self, argument: bytes) -> bytes:
        self._order = []
        return super()._mail(argument)

    def _accept(self, recipient: Recipient) -> bytes:
        if len(self._order) >= self._shared.recipients_max:  # the same one again, too: each is owed an answer
            self._note("rcpt", recipient.address, replies.TOO_MANY_RECIPIENTS)
            return replies.TOO_MANY_RECIPIENTS
        self._order.append(recipient.mailbox_id)
        return super()._accept(recipient)

    def _conclude(self, reply: bytes, transaction: Transaction) -> None:
        if transaction.recipients:
            self._note_data(transaction, reply)
        self._say(reply * max(len(self._order), 1))

    def _hand_over(self, envelope: Envelope) -> "asyncio.Future[Any]":
        self._envelope = envelope
        return super()._hand_over(envelope)

    def _committed(self, future: "asyncio.Future[Any]") -> None:
        envelope, self._envelope = self._envelope, None
        assert envelope is not None
        error = None if future.cancelled() else future.exception()
        if len(set(self._order)) > 1 and isinstance(error, Refused):
            self._shared.spawn(self._each_alone(envelope))
            return
        reply = self._outcome(future)
        self._note_outcome(future, reply)
        there = {row.mailbox_id for row in future.result()} if reply[0] == _SUCCESS else set()
        self._resume(
            b"".join(replies.MAILBOX_NOT_FOUND if there and box not in there else reply for box in self._order)
        )

    async def _each_alone(self, envelope: Envelope) -> None:
        """One mailbox refused the message, which was stored in none: offer it to each by itself."""
        sent, self._sent = self._sent, None
        outcomes = {}
        for recipient in {box.mailbox_id: box for box in envelope.recipients}.values():
            try:
                future = self._shared.delivery.submit(msgspec.structs.replace(envelope, recipients=[recipient]))
                await asyncio.wait([future])
                outcomes[recipient.mailbox_id] = self._outcome(future)
            except Exception as error:
                outcomes[recipient.mailbox_id] = self._explain(error, "message")
            if sent is not None:
                stored = future.result() if outcomes[recipient.mailbox_id][0] == _SUCCESS else None
                self._note_data(sent, outcomes[recipient.mailbox_id], stored, [recipient])
        self._resume(b"".join(outcomes.get(box, replies.MAILBOX_NOT_FOUND) for box in self._order))


_SUCCESS: Final = ord("2")
_HELLOS: Final = (b"HELO", b"EHLO")
LmtpSession.COMMANDS = {
    **{verb: command for verb, command in Session.COMMANDS.items() if verb not in _HELLOS},
    b"LHLO": Session._ehlo,
    b"MAIL": LmtpSession._mail,
}
LmtpSession.PROMPT = {**Session.PROMPT, b"MAIL ": LmtpSession._mail}
