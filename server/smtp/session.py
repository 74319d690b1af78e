"""One SMTP session: receives mail, relays nothing (RFC 5321, pipelining RFC 2920, STARTTLS RFC 3207, SMTPUTF8 RFC
6531, chunks RFC 3030).

Lives here: the commands, their order, and what a mail is between MAIL and its end. Must not know: how a recipient is
found or a message stored (``Delivery``), how bytes become lines (``Connection``), or how connections are accepted.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from time import time
from typing import Any, ClassVar, Final

from server import log
from server.model import ids
from server.model.errors import Refused
from server.model.message import Envelope, Recipient, Stored
from server.model.trace import ABANDONED, Stage
from server.smtp import arguments, replies, trace
from server.smtp.arguments import Declined, Sender
from server.smtp.body import BdatBody, BodyReader, DataBody
from server.smtp.connection import BUSY, CLOSING, Connection, Member
from server.smtp.listener_state import ACCEPTED, BYTES_TAKEN, MESSAGES, RCPT_TAKEN, RECIPIENTS, TLS, Shared

_CHUNK: Final = re.compile(rb"(\d{1,20})( [Ll][Aa][Ss][Tt])? *").fullmatch

_FREE_CHUNK: Final = 1024
"""Bytes of a chunk that costs nothing of the budget: senders exist that cut a large mail into thousands."""

_HELO_MAX: Final = 255  # characters of a client's name that are kept

Command = Callable[[Any, bytes], bytes]
"""What a session answers to a verb and its argument; empty where the reply comes later."""


class Transaction:
    """A mail between MAIL and its end. Recipients by mailbox: two addresses of one are one delivery. ``rcpt_at``: when
    the last of them was accepted. ``noted``: the trace has them. ``banned``: its client or sender is, and only who is
    always open takes it."""

    __slots__ = ("banned", "noted", "rcpt_at", "recipients", "sender")

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.recipients: dict[str, Recipient] = {}
        self.rcpt_at = 0.0
        self.noted = self.banned = False


class Session(Connection):
    """An SMTP session. ``COMMANDS`` are its verbs; ``PROMPT`` has those of each mail as a line begins with them."""

    __slots__ = ("_extended", "_helo", "_mail_id", "_origin", "_sent", "_transaction")

    COMMANDS: ClassVar[Mapping[bytes, Command]]
    PROMPT: ClassVar[Mapping[bytes, Command]]
    WORD: ClassVar = "SMTP"

    def __init__(self, shared: Shared, sessions: set[Member]) -> None:
        super().__init__(shared, sessions)
        self._transaction: Transaction | None = None
        self._sent: Transaction | None = None  # the one whose commit is waited for
        self._helo, self._extended = "", False
        self._origin = self._mail_id = b""  # no origin: EHLO is due

    def _begun(self) -> bool:
        return self._transaction is not None

    def _forget(self) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None and transaction.recipients and not transaction.noted:
            self._note_abandoned(transaction)
        if self._body is not None:
            super()._forget()

    # The trace

    def _note(self, stage: Stage, recipients: Sequence[Recipient] | str, reply: bytes, sender: str = "") -> None:
        transaction = self._transaction
        sender = sender if transaction is None else transaction.sender.address
        self._shared.decisions.note(stage, self.peer, self._helo, sender, recipients, reply)

    def _note_refused(self, line: bytes, reply: bytes) -> None:
        """A MAIL or RCPT was refused for what it says."""
        verb, address = line[:4].upper(), arguments.shown(line[5:])
        if verb == b"MAIL":
            self._note("mail", "", reply, address)
        elif verb == b"RCPT":
            self._note("rcpt", address, reply)

    def _note_data(
        self,
        transaction: Transaction,
        reply: bytes,
        stored: Sequence[Stored] | None = None,
        recipients: Sequence[Recipient] | None = None,
    ) -> None:
        """The end of a message: of all its ``recipients``, or of some."""
        transaction.noted = True
        its = list(transaction.recipients.values()) if recipients is None else recipients
        sender = transaction.sender.address
        self._shared.decisions.note("data", self.peer, self._helo, sender, its, reply, transaction.rcpt_at, stored)

    def _note_abandoned(self, transaction: Transaction) -> None:
        """A mail ended before its message did."""
        body = self._body
        if body is not None:
            self._note_data(transaction, body.refusal or ABANDONED)
            return
        its, sender = list(transaction.recipients.values()), transaction.sender.address
        self._shared.decisions.note("rcpt", self.peer, self._helo, sender, its, replies.RECIPIENT_OK)

    def _drop(self, reason: str, reply: bytes) -> None:
        transaction = self._transaction
        if transaction is not None and transaction.recipients:
            self._note_data(transaction, reply)
        else:
            self._note("mail" if self._origin else "connect", "", reply)
        super()._drop(reason, reply)

    def _answer(self, line: bytes) -> bytes:
        command = self.PROMPT.get(line[:5])
        if command is not None:
            argument = line[5:]
        else:
            verb, _, argument = line.partition(b" ")
            command = self.COMMANDS.get(verb.upper())
            if command is None:
                return replies.UNKNOWN_COMMAND
        try:
            return command(self, argument)
        except Exception as error:
            return self._failed(error, line)

    def _failed(self, error: Exception, line: bytes) -> bytes:
        """The reply to a command that ended in ``error``."""
        if isinstance(error, Declined):
            reply = error.reply
        else:
            reply = self._explain(error, "command")
            if not isinstance(error, Refused):
                self._forget()
        self._note_refused(line, reply)
        return reply

    def _explain(self, error: BaseException, stage: str) -> bytes:
        """The reply to what a command ended in; the text of trouble is for the log alone."""
        if isinstance(error, Refused):
            return replies.of(error.word)
        self._shared.trouble(stage, error)
        return replies.TROUBLE

    # Hello

    def _ehlo(self, argument: bytes) -> bytes:
        self._hello(argument, extended=True)
        return self._shared.ehlo_secure if self.tls else self._shared.ehlo

    def _helo_command(self, argument: bytes) -> bytes:
        self._hello(argument, extended=False)
        return self._shared.hello

    def _hello(self, argument: bytes, *, extended: bool) -> None:
        """Note the name, which is not judged: it says nothing that could be relied on. Controls are no name."""
        name = argument.replace(b"\t", b" ").strip(b" ").decode("utf-8", "replace")
        if not name or not name.isprintable():
            raise Refused("field_invalid", "expected a domain name or address literal")
        name = name[:_HELO_MAX]
        self._forget()
        self._helo, self._extended = name, extended
        self._origin = self._make_origin(utf8=False)

    def _make_origin(self, *, utf8: bool) -> bytes:
        protocol = trace.protocol(self.WORD, extended=self._extended, tls=self.tls, utf8=utf8)
        return trace.origin(self._helo, self.peer, self._shared.name, protocol)

    def _out_of_order(self) -> bytes:
        """The reply to what needs a mail begun."""
        return replies.MAIL_FIRST if self._origin else replies.HELLO_FIRST

    # Envelope

    def _mail(self, argument: bytes) -> bytes:
        if not self._origin:
            return replies.HELLO_FIRST
        if self._transaction is not None:
            return replies.NESTED_MAIL
        if self._shared.draining:
            self.end_if_idle()
            return b""
        guard = self._shared.guard
        if guard is not None and guard.stale():
            self._hold |= BUSY
            self._shared.spawn(self._mail_later(argument))
            return b""
        return self._begin(argument)

    async def _mail_later(self, argument: bytes) -> None:
        """What administrators ban has changed, or may have: ask first."""
        assert self._shared.guard is not None
        await self._shared.guard.refresh()
        try:
            reply = self._begin(argument)
        except Exception as error:
            reply = self._failed(error, b"MAIL " + argument)
        self._resume(reply)

    def _begin(self, argument: bytes) -> bytes:
        sender = arguments.sender(argument)
        if sender.size > self._shared.size:
            self._note("mail", "", replies.TOO_BIG, sender.address)
            return replies.TOO_BIG
        self._transaction = transaction = Transaction(sender)
        guard = self._shared.guard
        if guard is not None:
            transaction.banned = guard.refuses_mail(self.peer, sender.address)
        return replies.SENDER_OK

    def _rcpt(self, argument: bytes) -> bytes:
        transaction, shared = self._transaction, self._shared
        if transaction is None:
            return self._out_of_order()
        if self._body is not None:
            return replies.CHUNKS_BEGUN
        if len(transaction.recipients) >= shared.recipients_max:
            self._note("rcpt", arguments.shown(argument), replies.TOO_MANY_RECIPIENTS)
            return replies.TOO_MANY_RECIPIENTS
        address = arguments.recipient(argument, transaction.sender.utf8, shared.default_domain)
        if transaction.banned and shared.guard is not None and not shared.guard.always_open(address):
            RECIPIENTS.add(("5",))
            self._note("rcpt", address, replies.BANNED)
            return replies.BANNED
        recipient = shared.delivery.route(address)
        if recipient is not None:
            return self._accept(recipient)
        self._hold |= BUSY
        shared.spawn(self._resolve(address))
        return b""

    def _accept(self, recipient: Recipient) -> bytes:
        transaction = self._transaction
        if transaction is not None:
            earlier = transaction.recipients.get(recipient.mailbox_id)
            if earlier is not None and earlier.address != recipient.address:
                self._note("rcpt", [earlier], replies.RECIPIENT_OK)
                recipient = recipient.after(earlier)
            elif earlier is not None:
                recipient = earlier
            transaction.recipients[recipient.mailbox_id] = recipient
            transaction.rcpt_at = time()
        RCPT_TAKEN.n += 1
        return replies.RECIPIENT_OK

    async def _resolve(self, address: str) -> None:
        """Memory does not know: ask. Each statement of that has a deadline of its own."""
        try:
            reply = self._accept(await self._shared.delivery.resolve(address))
        except Exception as error:
            reply = self._explain(error, "recipient")
            RECIPIENTS.add((reply[:1].decode(),))
            self._note("rcpt", address, reply)
        self._resume(reply)

    def _rset(self, argument: bytes) -> bytes:
        if argument.strip(b" "):
            return replies.BAD_ARGUMENT
        self._forget()
        return replies.RESET

    def _quit(self, argument: bytes) -> bytes:
        self._finish(replies.BYE)
        return b""

    def _http(self, argument: bytes) -> bytes:
        self._drop("http", replies.NOT_HTTP)
        return b""

    # The message

    def _data(self, argument: bytes) -> bytes:
        transaction = self._transaction
        if transaction is None:
            return self._out_of_order()
        if self._body is not None:
            return replies.CHUNKS_BEGUN
        if argument.strip(b" "):
            return replies.BAD_ARGUMENT
        if not transaction.recipients:
            self._note("data", "", self._shared.no_recipients)
            return self._shared.no_recipients
        self._body, self._reading = DataBody(self._shared, self._seat or ""), True
        return replies.GO_AHEAD

    def _bdat(self, argument: bytes) -> bytes:
        """A chunk comes. Its bytes are taken whatever the answer will be (RFC 3030 section 2), or they would be read as
        commands; where their number cannot be known or is past listening to, the session ends."""
        match = _CHUNK(argument)
        if match is None:
            self._drop("chunk", replies.BAD_ARGUMENT)
            return b""
        size, last = int(match[1]), match[2] is not None
        if size > 2 * self._shared.size:
            self._drop("size", replies.TOO_BIG)
            return b""
        body = self._body
        if body is None:
            body = self._body = BdatBody(self._shared, self._seat or "", self._refuse_chunk())
        assert isinstance(body, BdatBody)
        body.expect(size, last=last)
        if body.complete:
            self._finish_body(body)
        else:
            self._reading = True
        return b""

    def _refuse_chunk(self) -> bytes:
        if self._transaction is None:
            return self._out_of_order()
        if self._transaction.recipients:
            return b""
        self._note("data", "", self._shared.no_recipients)
        return self._shared.no_recipients

    def _finish_body(self, body: BodyReader) -> None:
        transaction = self._transaction
        if transaction is None:
            self._say(body.refusal)
            self._forget()
            return
        if not body.last:
            if isinstance(body, BdatBody) and body.size >= _FREE_CHUNK:
                self._budget += 1
            self._say(body.refusal or replies.CHUNK_OK)
            return
        try:
            self._submit(transaction, body)
        except Exception as error:
            self._conclude(self._explain(error, "message"), transaction)
        finally:
            self._forget()

    def _conclude(self, reply: bytes, transaction: Transaction) -> None:
        """Answer the end of a message that was not handed over."""
        if transaction.recipients:
            self._note_data(transaction, reply)
        self._say(reply)

    def _submit(self, transaction: Transaction, body: BodyReader) -> None:
        """Put the message together and hand it to Delivery; the reply waits for its COMMIT."""
        self._mail_id = ids.new().encode()
        sender, recipients = transaction.sender, list(transaction.recipients.values())
        raw = body.message(
            (
                sender.return_path,
                *trace.delivered(recipients),
                self._make_origin(utf8=True) if sender.utf8 else self._origin,
                self._mail_id,
                *trace.intended(recipients),
                self._shared.clock.ending(),
            )
        )
        if not raw:
            MESSAGES.add(("refused",))
            self._conclude(body.refusal, transaction)
            return
        self._sent, transaction.noted = transaction, True
        future = self._hand_over(Envelope(sender.address, recipients, raw, self.tls, self.peer, self._helo, crlf=True))
        BYTES_TAKEN.n += len(raw)
        self._hold |= BUSY
        future.add_done_callback(self._committed)

    def _hand_over(self, envelope: Envelope) -> "asyncio.Future[Any]":
        return self._shared.delivery.submit(envelope)

    def _committed(self, future: "asyncio.Future[Any]") -> None:
        """Runs though the client be gone: nobody else looks at the future, and what it says is counted."""
        reply = self._outcome(future)
        self._note_outcome(future, reply)
        self._resume(reply)

    def _note_outcome(self, future: "asyncio.Future[Any]", reply: bytes) -> None:
        sent, self._sent = self._sent, None
        if sent is not None:
            self._note_data(sent, reply, future.result() if reply[:1] == b"2" else None)

    def _outcome(self, future: "asyncio.Future[Any]") -> bytes:
        """Count what became of a message; its reply."""
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is None:
            ACCEPTED.n += 1
            self._budget = self._shared.budget
            return replies.stored(self._mail_id)
        MESSAGES.add(("refused" if isinstance(error, Refused) else "failed",))
        return self._explain(error, "message")

    # STARTTLS

    def _starttls(self, argument: bytes) -> bytes:
        """Answer, stop reading, shake hands. Plaintext that came behind the command in the same packet is thrown away:
        taken for the encrypted client's, it would be anybody's words in his session (RFC 3207 section 6)."""
        if argument.strip(b" "):
            return replies.BAD_ARGUMENT
        if self._shared.tls is None:
            return replies.NOT_IMPLEMENTED
        if self.tls:
            return replies.ALREADY_TLS
        self._wire.pause_reading()
        self._hold |= BUSY
        self._forget()
        self._out.append(replies.READY_FOR_TLS)
        self._flush()
        self._shared.spawn(self._upgrade())
        return b""

    async def _upgrade(self) -> None:
        shared, plain = self._shared, self._wire
        assert shared.tls is not None
        self._rest = b""
        try:
            wire = await shared.loop.start_tls(
                plain, self, shared.tls, server_side=True, ssl_handshake_timeout=shared.read_timeout
            )
        except Exception as error:  # whatever a stranger's handshake ends in, the session ends with it
            TLS.add(("failed",))
            log.event("debug", "smtp handshake failed", peer=self.peer, reason=str(error))
            plain.abort()
            self.connection_lost(error)
            return
        if wire is None or self._hold & CLOSING:
            self.abort()
            return
        TLS.add(("done",))
        self._wire, self._paused, self.tls = wire, False, True
        self._helo, self._extended, self._origin = "", False, b""  # nothing learned in plaintext survives
        self._resume(b"")


Session.COMMANDS = {
    b"EHLO": Session._ehlo,
    b"HELO": Session._helo_command,
    b"MAIL": Session._mail,
    b"RCPT": Session._rcpt,
    b"DATA": Session._data,
    b"BDAT": Session._bdat,
    b"RSET": Session._rset,
    b"QUIT": Session._quit,
    b"STARTTLS": Session._starttls,
    b"NOOP": lambda session, argument: replies.OK,
    b"VRFY": lambda session, argument: replies.VRFY,
    b"HELP": lambda session, argument: replies.HELP,
    b"EXPN": lambda session, argument: replies.NOT_IMPLEMENTED,
    b"AUTH": lambda session, argument: replies.NOT_IMPLEMENTED,
    b"ETRN": lambda session, argument: replies.NOT_IMPLEMENTED,
    b"GET": Session._http,
    b"POST": Session._http,
    b"CONNECT": Session._http,
}
Session.PROMPT = {
    b"MAIL ": Session._mail,
    b"RCPT ": Session._rcpt,
    b"BDAT ": Session._bdat,
    b"DATA": Session._data,
    b"RSET": Session._rset,
    b"QUIT": Session._quit,
}
