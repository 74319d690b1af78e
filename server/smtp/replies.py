"""Every reply this server gives, whole lines with CR LF (RFC 5321 section 4.2, enhanced codes of RFC 3463).

Must not know: when which is due, beyond the words of a refusal.
"""

from typing import Final

from server.model.errors import Word

OK: Final = b"250 2.0.0 OK\r\n"
SENDER_OK: Final = b"250 2.1.0 Sender OK\r\n"
RECIPIENT_OK: Final = b"250 2.1.5 Recipient OK\r\n"
RESET: Final = b"250 2.0.0 Reset\r\n"
CHUNK_OK: Final = b"250 2.0.0 Chunk received\r\n"
VRFY: Final = b"252 2.5.0 Send the mail to find out\r\n"
HELP: Final = b"214 2.0.0 RFC 5321 says it all\r\n"
BYE: Final = b"221 2.0.0 Bye\r\n"
READY_FOR_TLS: Final = b"220 2.0.0 Ready to start TLS\r\n"
GO_AHEAD: Final = b"354 End data with <CR><LF>.<CR><LF>\r\n"

CLOSING_DOWN: Final = b"421 4.3.2 Going down, try again\r\n"
TIMED_OUT: Final = b"421 4.4.2 Timed out\r\n"
SESSION_TOO_LONG: Final = b"421 4.4.2 Session too long, begin a new one\r\n"
TOO_SLOW: Final = b"421 4.4.2 Data too slow\r\n"
TOO_MANY_CONNECTIONS: Final = b"421 4.7.0 Too many connections\r\n"
TOO_MANY_ERRORS: Final = b"421 4.7.0 Too many errors or commands\r\n"
NOT_HTTP: Final = b"421 4.7.0 This is SMTP\r\n"

TROUBLE: Final = b"451 4.3.0 Trouble here, try again later\r\n"
NO_ROOM: Final = b"452 4.3.1 Too much mail in flight, try again later\r\n"
CLIENT_NO_ROOM: Final = b"451 4.7.0 Too much unfinished mail from your address, try again later\r\n"
TOO_MANY_RECIPIENTS: Final = b"452 4.5.3 Too many recipients\r\n"
MAILBOX_FULL: Final = b"452 4.2.2 Mailbox full\r\n"
RATE_LIMITED: Final = b"450 4.7.1 Too fast, try again later\r\n"

UNKNOWN_COMMAND: Final = b"500 5.5.1 Command not recognised\r\n"
LINE_TOO_LONG: Final = b"500 5.5.2 Line too long\r\n"
BARE_LINE_FEED: Final = b"500 5.5.2 Lines end with CR LF\r\n"
BAD_ARGUMENT: Final = b"501 5.5.4 Bad argument\r\n"
BAD_ADDRESS: Final = b"501 5.1.3 Bad address\r\n"
NOT_IMPLEMENTED: Final = b"502 5.5.1 Not implemented\r\n"
HELLO_FIRST: Final = b"503 5.5.1 Say hello first\r\n"
MAIL_FIRST: Final = b"503 5.5.1 MAIL first\r\n"
NESTED_MAIL: Final = b"503 5.5.1 A mail is already begun\r\n"
CHUNKS_BEGUN: Final = b"503 5.5.1 This mail comes by BDAT\r\n"
ALREADY_TLS: Final = b"503 5.5.1 TLS is already on\r\n"

MAILBOX_DISABLED: Final = b"550 5.2.1 Mailbox disabled\r\n"
MAILBOX_NOT_FOUND: Final = b"550 5.1.1 No such mailbox\r\n"
DOMAIN_NOT_ALLOWED: Final = b"550 5.7.1 Domain not served, no relaying\r\n"
BANNED: Final = b"550 5.7.1 Refused by the administrators here\r\n"
BANNED_CLIENT: Final = b"554 5.7.1 Refused by the administrators here\r\n"
BARE_NEWLINES: Final = b"550 5.6.11 Bare CR or LF in the message\r\n"
REFUSED: Final = b"550 5.7.0 Refused\r\n"
TOO_BIG: Final = b"552 5.3.4 Message too big\r\n"
NEEDS_SMTPUTF8: Final = b"553 5.6.7 Address needs SMTPUTF8\r\n"
NO_RECIPIENTS: Final = b"554 5.5.1 No valid recipients\r\n"
NO_RECIPIENTS_LMTP: Final = b"503 5.5.1 No valid recipients\r\n"
UNKNOWN_PARAMETER: Final = b"555 5.5.4 Parameter not recognised\r\n"

_WORDS: Final[dict[Word, bytes]] = {
    "address_invalid": BAD_ADDRESS,
    "domain_not_allowed": DOMAIN_NOT_ALLOWED,
    "field_invalid": BAD_ARGUMENT,
    "mailbox_disabled": MAILBOX_DISABLED,
    "mailbox_full": MAILBOX_FULL,
    "mailbox_not_found": MAILBOX_NOT_FOUND,
    "message_too_big": TOO_BIG,
    "rate_limited": RATE_LIMITED,
}


def of(word: Word) -> bytes:
    """The reply to a refusal; what has no reply of its own is a plain 550."""
    return _WORDS.get(word, REFUSED)


def greeting(name: str, protocol: str = "ESMTP") -> bytes:
    return f"220 {name} {protocol}\r\n".encode("ascii")


def hello(name: str) -> bytes:
    return f"250 {name}\r\n".encode("ascii")


def extended_hello(name: str, size: int, *, starttls: bool) -> bytes:
    """The EHLO answer (RFC 5321 section 4.1.1.1): our name and what we offer; ``size`` in bytes (RFC 1870)."""
    offers = [name, f"SIZE {size}", "PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING"]
    if starttls:
        offers.append("STARTTLS")
    return "".join(f"250{' ' if offer is offers[-1] else '-'}{offer}\r\n" for offer in offers).encode("ascii")


def stored(message_id: bytes) -> bytes:
    return b"250 2.0.0 OK stored as %b\r\n" % message_id
