"""The trace header that goes in front of a message (RFC 5321 section 4.4): Return-Path, Delivered-To and one Received.

The bytes of a message are stored once for all its mailboxes, so they name an address only where all who read them were
addressed by it: otherwise one recipient would learn of another.

Must not know: sessions. Everything a client chose is made harmless here: no CR, LF, parenthesis or semicolon of a HELO
name survives into a header.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from server import clock
from server.model.message import Recipient, delivered_to_lines

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._:\[\]-]")


def origin(helo: str, peer: str, name: str, protocol: str) -> bytes:
    """The Received field up to its id: made once a session, for a session's mails differ only in what follows.

    ``peer`` is an IP address or empty (unix socket, LMTP); ``protocol`` is a word of RFC 3848 or RFC 6531 section 4.3.
    """
    literal = f"IPv6:{peer}" if ":" in peer else peer or "local"
    return f"Received: from {_UNSAFE.sub('?', helo)} ([{literal}])\r\n\tby {name} with {protocol} id ".encode("ascii")


def delivered(recipients: Sequence[Recipient]) -> tuple[bytes, ...]:
    """Delivered-To for the addresses of a message that goes to one mailbox."""
    if len(recipients) != 1:
        return ()
    one = recipients[0]
    return (delivered_to_lines(one.delivered_to if one.others else (one.address,)),)


def intended(recipients: Sequence[Recipient]) -> tuple[bytes, ...]:
    """The ``for`` of a Received field, where one address was used only."""
    if len(recipients) != 1 or recipients[0].others:
        return ()
    return (b" for <%b>" % recipients[0].address.encode(),)


def protocol(word: str, *, extended: bool, tls: bool, utf8: bool) -> str:
    """The word after ``with`` for ``word``, SMTP or LMTP: SMTP, ESMTP, ESMTPS, UTF8SMTP, UTF8SMTPS, LMTP, ..."""
    word = f"UTF8{word}" if utf8 else "ESMTP" if word == "SMTP" and (extended or tls) else word
    return f"{word}S" if tls else word


class Clock:
    """The end of a Received field, its date as RFC 5322 section 3.3 writes it; made at most once a second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second, self._text = -1, b""

    def ending(self) -> bytes:
        second = int(clock.wall())
        if second != self._second:
            self._second = second
            date = format_datetime(datetime.fromtimestamp(second, UTC))
            self._text = f";\r\n\t{date}\r\n".encode("ascii")
        return self._text
