"""One SMTP session: receives mail, relays nothing (RFC 5321, pipelining RFC 2920, STARTTLS RFC 3207, SMTPUTF8 RFC
6531).

Lives here: the commands, their order, and what ends a session. Everything happens inside data_received, without a
task or a future, but for a recipient memory does not know, a commit, and a TLS handshake: meanwhile the session is
BUSY, input waits in its buffer, and so replies keep the order of commands. Must not know: how a recipient is found or
a message stored (``Delivery``), or how connections are accepted.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from server import log
from server.model import ids
from server.model.address import FROM, TO, Params, Path, parse_path
from server.model.errors import Refused
from server.model.message import Envelope, Recipient
from server.smtp import replies, trace
from server.smtp.base import Base, Client
from server.smtp.incoming import Incoming
from server.smtp.shared import (
    BYTES,
    CONNECTIONS,
    DROPPED,
    INPUT_MAX,
    LINE_END_MAX,
    LINE_MAX,
    LINGER,
    MESSAGES,
    RECIPIENTS,
    TLS,
    Shared,
)

BUSY: Final = 1  # waits for us: a recipient, a commit, a handshake
CHOKED: Final = 2  # the client does not read its replies
CLOSING: Final = 4  # said its last reply, or is gone

_BATCH: Final = 64  # replies gathered before they are written, so that output is bounded by what the client reads


class Transaction:
    """A mail between MAIL and the end of its DATA. Recipients by mailbox: two addresses of one are one delivery."""

    __slots__ = ("recipients", "sender", "utf8")

    def __init__(self, sender: str, utf8: bool) -> None:
        self.sender, self.utf8 = sender, utf8
        self.recipients: dict[str, Recipient] = {}


class Session(Base):
    """The protocol of one connection. ``check`` is called each second; ``end`` and ``abort`` are the listener's too."""

    __slots__ = (
        "_budget",
        "_buffer",
        "_choked_at",
        "_data",
        "_eof",
        "_hold",
        "_last",
        "_mail_id",
        "_origin",
        "_out",
        "_paused",
        "_seat",
        "_sessions",
        "_shared",
        "_since",
        "_transaction",
        "_wire",
    )

    _wire: asyncio.Transport
    _seat: str | None

    def __init__(self, shared: Shared, sessions: "set[Session]") -> None:
        super().__init__()
        self._shared, self._sessions = shared, sessions
        self._seat = None
        self._hold = 0
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._data: Incoming | None = None
        self._transaction: Transaction | None = None
        self._budget = shared.budget
        self._since = self._last = shared.loop.time()
        self._choked_at = 0.0
        self._eof = self._paused = False
        self._origin = self._mail_id = b""

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast(asyncio.Transport, transport)
        peername = transport.get_extra_info("peername")
        self.session = Client(self._shared.loop)
        self.session.peer = str(peername[0]) if isinstance(peername, tuple) else ""
        self._seat = self._shared.seats.take(self.session.peer)
        self._sessions.add(self)
        if self._seat is None:
            CONNECTIONS.add(("refused",))
            self._finish(replies.TOO_MANY_CONNECTIONS)
        elif self._shared.draining:
            self._finish(replies.CLOSING_DOWN)
        else:
            CONNECTIONS.add(("accepted",))
            self._wire.write(self._shared.greeting)

    def connection_lost(self, error: Exception | None) -> None:
        """Gone, by FIN, RST or us. A message already submitted is none of this connection's business any more."""
        self._hold |= CLOSING
        self._end_data()
        self._transaction = None
        self._buffer.clear()
        self._out.clear()
        self._sessions.discard(self)
        if not self._sessions:
            self._shared.empty.set()
        if self._seat is not None:
            self._shared.seats.give_back(self._seat)
            self._seat = None

    def data_received(self, data: bytes) -> None:
        if self._hold & CLOSING:
            return
        self._last = self._shared.loop.time()
        self._buffer += data
        if not self._hold:
            self._process()
        elif len(self._buffer) > INPUT_MAX and not self._paused:
            self._paused = True
            self._wire.pause_reading()

    def eof_received(self) -> bool:
        """The client writes no more. It may still read the reply it waits for; over TLS, which cannot half close, not.

        False lets the transport close itself, at once: from then on it must not be written to.
        """
        self._eof = True
        waits = bool(self._hold & BUSY) and self.session.ssl is None
        if not waits:
            self._hold |= CLOSING
        return waits

    def pause_writing(self) -> None:
        self._hold |= CHOKED
        self._choked_at = self._shared.loop.time()

    def resume_writing(self) -> None:
        self._hold &= ~CHOKED
        if not self._hold:
            self._last = self._shared.loop.time()
            self._process()

    def check(self, now: float) -> None:
        """End the session if one of its times is over. ``now`` is the loop's clock."""
        shared, idle = self._shared, now - self._last
        if self._hold & CLOSING:
            if idle > LINGER:
                self.abort()
        elif self._hold & CHOKED:
            if now - self._choked_at > shared.read_timeout:
                DROPPED.add(("unread",))
                self.abort()
        elif not self._hold:
            if idle > shared.read_timeout:
                self._drop("idle", replies.TIMED_OUT)
            elif now - self._since > shared.session_timeout:
                self._drop("session", replies.SESSION_TOO_LONG)
            elif self._data is not None and self._data.too_slow(now, len(self._buffer)):
                self._drop("slow", replies.TOO_SLOW)

    def end_if_idle(self) -> None:
        """We are going down: say so unless a transaction is under way, whose end will say it."""
        if not self._hold & (BUSY | CLOSING) and self._transaction is None:
            DROPPED.add(("drain",))
            self._finish(replies.CLOSING_DOWN)

    def abort(self) -> None:
        self._hold |= CLOSING
        self._wire.abort()

    def _drop(self, reason: str, reply: bytes) -> None:
        DROPPED.add((reason,))
        self._finish(reply, linger=True)

    def _finish(self, reply: bytes, *, linger: bool = False) -> None:
        """Say ``reply`` and close. The buffer goes: nothing that came after counts.

        ``linger`` closes our side only and throws away what still comes, until the client closes or LINGER is over:
        closed with input unread, TCP would reset the connection, and the client never see why.
        """
        self._hold |= CLOSING
        self._last = self._shared.loop.time()
        self._end_data()
        self._buffer.clear()
        self._out.append(reply)
        self._flush()
        if linger and not self._eof and self._wire.can_write_eof():
            self._wire.write_eof()
            if self._paused:
                self._wire.resume_reading()
        else:
            self._wire.close()

    def _flush(self) -> None:
        out = self._out
        if out:
            self._wire.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()

    # Input

    def _process(self) -> None:
        """Work through the buffer until it is used up or the session is held."""
        step = True
        while step and not self._hold:
            step = self._take_data(self._data) if self._data is not None else self._take_command()
            if len(self._out) >= _BATCH:
                self._flush()
        self._flush()
        if self._hold:
            return
        if self._eof:
            self._hold |= CLOSING
            self._wire.close()
        elif self._shared.draining:
            self.end_if_idle()
        if self._paused and not self._hold:
            self._paused = False
            self._wire.resume_reading()

    def _take_command(self) -> bool:
        """Do one command if a whole line is there."""
        buffer = self._buffer
        end = buffer.find(b"\n")
        if (len(buffer) if end < 0 else end) > LINE_END_MAX:
            self._drop("line", replies.LINE_TOO_LONG)
            return False
        if end < 0:
            return False
        if end == 0 or buffer[end - 1] != 13:
            self._drop("bare_line_feed", replies.BARE_LINE_FEED)
            return False
        line = bytes(buffer[: end - 1])
        del buffer[: end + 1]
        self._say(self._answer(line) if end <= LINE_MAX else replies.LINE_TOO_LONG)
        return True

    def _answer(self, line: bytes) -> bytes:
        """The reply to one command line; empty where it comes later."""
        verb, _, argument = line.partition(b" ")
        command = _COMMANDS.get(verb) or _COMMANDS.get(verb.upper())
        if command is None:
            return replies.UNKNOWN_COMMAND
        try:
            return command(self, argument)
        except Exception as error:
            if not isinstance(error, Refused):
                self._transaction = None
            return self._explain(error, "command")

    def _explain(self, error: BaseException, stage: str) -> bytes:
        """The reply to what a command ended in; the text of trouble is for the log alone."""
        if isinstance(error, Refused):
            return replies.of(error.word)
        self._shared.trouble(stage, error)
        return replies.TROUBLE

    def _say(self, reply: bytes) -> None:
        """Queue a reply and take its price off the session's budget, which an accepted mail fills up again.

        A command costs 1, a refusal 10, an error of protocol a tenth of it all: honest senders never meet its end.
        """
        first = reply[:2]
        self._budget -= self._shared.budget // 10 if first == b"50" else 10 if first == b"55" else 1
        if reply and not self._hold & CLOSING:
            self._out.append(reply)
            if self._budget <= 0:
                self._drop("budget", replies.TOO_MANY_ERRORS)

    def _resume(self, reply: bytes) -> None:
        """What the session was BUSY with is done."""
        self._hold &= ~BUSY
        if self._hold & CLOSING:
            return
        self._last = self._shared.loop.time()
        self._say(reply)
        if self._hold:
            self._flush()
        else:
            self._process()

    # Commands

    def _ehlo(self, argument: bytes) -> bytes:
        self._hello(argument, extended=True)
        return self._shared.ehlo if self.session.ssl is None else self._shared.ehlo_secure

    def _helo(self, argument: bytes) -> bytes:
        self._hello(argument, extended=False)
        return self._shared.hello

    def _hello(self, argument: bytes, *, extended: bool) -> None:
        name = argument.strip(b" ").decode("ascii", "replace")
        if not 0 < len(name) <= 255 or " " in name or not name.isascii() or not name.isprintable():
            raise Refused("field_invalid", "expected a domain name or address literal")
        self._transaction = None
        self.session.host_name, self.session.extended_smtp = name, extended
        self._origin = self._make_origin(utf8=False)

    def _make_origin(self, *, utf8: bool) -> bytes:
        client = self.session
        protocol = trace.protocol(extended=client.extended_smtp, tls=client.ssl is not None, utf8=utf8)
        return trace.origin(client.host_name or "", client.peer or "", self._shared.name, protocol)

    def _mail(self, argument: bytes) -> bytes:
        if self.session.host_name is None:
            return replies.HELLO_FIRST
        if self._transaction is not None:
            return replies.NESTED_MAIL
        if self._shared.draining:
            self.end_if_idle()
            return b""
        path, params = parse_path(argument, FROM)
        refusal = self._refuse_params(params) if params else b""
        if refusal:
            return refusal
        if "SMTPUTF8" not in params and not argument.isascii():
            return replies.NEEDS_SMTPUTF8
        self._transaction = Transaction(f"{path.local}@{path.domain}" if path else "", "SMTPUTF8" in params)
        return replies.SENDER_OK

    def _refuse_params(self, params: Params) -> bytes:
        """The reply to MAIL parameters that cannot be (RFC 1870, 6152, 6531); empty when all are well."""
        for name, value in params.items():
            if name == "SIZE":
                if not value or not value.isdecimal() or len(value) > 20:
                    return replies.BAD_ARGUMENT
                if int(value) > self._shared.size:
                    return replies.TOO_BIG
            elif name == "BODY":
                if (value or "").upper() not in ("7BIT", "8BITMIME"):
                    return replies.BAD_ARGUMENT
            elif name != "SMTPUTF8":
                return replies.UNKNOWN_PARAMETER
            elif value is not None:
                return replies.BAD_ARGUMENT
        return b""

    def _rcpt(self, argument: bytes) -> bytes:
        transaction = self._transaction
        if transaction is None:
            return replies.MAIL_FIRST if self.session.host_name is not None else replies.HELLO_FIRST
        if len(transaction.recipients) >= self._shared.recipients_max:
            return replies.TOO_MANY_RECIPIENTS
        path, params = parse_path(argument, TO)
        if params:
            return replies.UNKNOWN_PARAMETER
        if not transaction.utf8 and not argument.isascii():
            return replies.NEEDS_SMTPUTF8
        address = self._canonical(path)
        recipient = self._shared.delivery.route(address)
        if recipient is not None:
            return self._accept(recipient)
        self._hold |= BUSY
        self._shared.spawn(self._resolve(address))
        return b""

    def _canonical(self, path: Path | None) -> str:
        if path is None:
            raise Refused("address_invalid")
        return path.canonical if path.domain else f"{path.canonical}@{self._shared.default_domain}"

    def _accept(self, recipient: Recipient) -> bytes:
        if self._transaction is not None:
            self._transaction.recipients[recipient.mailbox_id] = recipient
        RECIPIENTS.add(("2",))
        return replies.RECIPIENT_OK

    async def _resolve(self, address: str) -> None:
        """Memory does not know: ask, within the time a silent client would get."""
        try:
            async with asyncio.timeout(self._shared.read_timeout):
                reply = self._accept(await self._shared.delivery.resolve(address))
        except Exception as error:
            reply = self._explain(error, "recipient")
            RECIPIENTS.add((reply[:1].decode(),))
        self._resume(reply)

    def _data_command(self, argument: bytes) -> bytes:
        transaction = self._transaction
        if transaction is None:
            return replies.MAIL_FIRST if self.session.host_name is not None else replies.HELLO_FIRST
        if argument.strip(b" "):
            return replies.BAD_ARGUMENT
        if not transaction.recipients:
            return replies.NO_RECIPIENTS
        self._data = Incoming(self._shared, self._shared.loop.time())
        return replies.GO_AHEAD

    def _rset(self, argument: bytes) -> bytes:
        if argument.strip(b" "):
            return replies.BAD_ARGUMENT
        self._transaction = None
        return replies.RESET

    def _quit(self, argument: bytes) -> bytes:
        self._finish(replies.BYE)
        return b""

    def _http(self, argument: bytes) -> bytes:
        self._drop("http", replies.NOT_HTTP)
        return b""

    # DATA

    def _take_data(self, data: Incoming) -> bool:
        """Look for the end of data; hand the message over once it has come."""
        buffer = self._buffer
        dot = data.find_end(buffer)
        if dot < 0:
            if data.exhausted:
                self._drop("size", data.refusal)
            return False
        transaction, self._transaction = self._transaction, None
        assert transaction is not None
        try:
            self._submit(transaction, data, dot)
        except Exception as error:
            self._say(self._explain(error, "message"))
        finally:
            del buffer[: dot + 3]
            self._end_data()
        return True

    def _end_data(self) -> None:
        if self._data is not None:
            self._data.release()
            self._data = None

    def _submit(self, transaction: Transaction, data: Incoming, dot: int) -> None:
        """Put the message together and hand it to Delivery; the reply waits for its COMMIT."""
        self._mail_id = ids.new().encode("ascii")
        raw = data.message(self._buffer, dot, self._head(transaction))
        if not raw:
            MESSAGES.add(("refused",))
            self._say(data.refusal)
            return
        recipients = list(transaction.recipients.values())
        client = self.session
        envelope = Envelope(
            transaction.sender, recipients, raw, client.ssl is not None, client.peer or "", client.host_name or ""
        )
        future = self._shared.delivery.submit(envelope)
        BYTES.add(n=len(raw))
        self._hold |= BUSY
        future.add_done_callback(self._committed)

    def _head(self, transaction: Transaction) -> tuple[bytes, ...]:
        """The trace header's parts; they are joined with the message in one copy."""
        origin = self._make_origin(utf8=True) if transaction.utf8 else self._origin
        date = self._shared.clock.date()
        return (
            b"Return-Path: <",
            transaction.sender.encode(),
            b">\r\n",
            origin,
            self._mail_id,
            b";\r\n\t",
            date,
            b"\r\n",
        )

    def _committed(self, future: "asyncio.Future[Any]") -> None:
        """Runs though the client be gone: nobody else looks at the future, and what it says is counted."""
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is None:
            MESSAGES.add(("accepted",))
            self._budget = self._shared.budget
            reply = replies.stored(self._mail_id)
        else:
            MESSAGES.add(("refused" if isinstance(error, Refused) else "failed",))
            reply = self._explain(error, "message")
        self._resume(reply)

    # STARTTLS

    def _starttls(self, argument: bytes) -> bytes:
        """Answer, stop reading, shake hands. Plaintext that came behind the command in the same packet is thrown away:
        taken for the encrypted client's, it would be anybody's words in his session (RFC 3207 section 6)."""
        if argument.strip(b" "):
            return replies.BAD_ARGUMENT
        if self._shared.tls is None:
            return replies.NOT_IMPLEMENTED
        if self.session.ssl is not None:
            return replies.ALREADY_TLS
        self._wire.pause_reading()
        self._hold |= BUSY
        self._buffer.clear()
        self._transaction = None
        self._out.append(replies.READY_FOR_TLS)
        self._flush()
        self._shared.spawn(self._upgrade())
        return b""

    async def _upgrade(self) -> None:
        shared, plain = self._shared, self._wire
        assert shared.tls is not None
        try:
            wire = await shared.loop.start_tls(
                plain, self, shared.tls, server_side=True, ssl_handshake_timeout=shared.read_timeout
            )
        except Exception as error:  # whatever a stranger's handshake ends in, the session ends with it
            TLS.add(("failed",))
            log.event("debug", "smtp handshake failed", peer=self.session.peer, reason=str(error))
            plain.abort()
            self.connection_lost(error)
            return
        if wire is None or self._hold & CLOSING:
            self.abort()
            return
        TLS.add(("done",))
        self._wire, self._paused = wire, False
        client = Client(shared.loop)  # nothing learned in plaintext survives: EHLO is due again
        client.peer, client.ssl = self.session.peer, {"cipher": wire.get_extra_info("cipher")}
        self.session = client
        self._resume(b"")


Command = Callable[[Session, bytes], bytes]

_COMMANDS: Final[dict[bytes, Command]] = {
    b"EHLO": Session._ehlo,
    b"HELO": Session._helo,
    b"MAIL": Session._mail,
    b"RCPT": Session._rcpt,
    b"DATA": Session._data_command,
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
