"""A message made from the parts an API client names, in the form SMTP would have brought it (RFC 5322).

Lives here: the injected message's fields, their checks, and the composing. Must not know: where the message goes.
"""

import re
from email import policy
from email.errors import MessageError
from email.message import EmailMessage
from email.utils import formatdate, make_msgid, parseaddr
from typing import Final

import msgspec

from server.model.errors import Refused

_LARGE: Final = 64 << 10  # characters
_LINE_MAX: Final = 998  # octets of one line, RFC 5322 section 2.1.1
_CONTROL: Final = re.compile(r"[\0-\x08\x0a-\x1f\x7f]")


class Injection(msgspec.Struct):
    """The body of an injection. ``raw`` is a whole message and makes the other fields but ``from`` moot."""

    sender: str = msgspec.field(default="", name="from")
    to: str = ""
    subject: str = ""
    text: str = ""
    html: str = ""
    raw: str = ""
    is_read: bool = msgspec.field(default=False, name="isRead")


# what the standard library's header parser raises over hostile values
_BROKEN: Final = (ValueError, IndexError, AttributeError, TypeError, RecursionError, MessageError)


def envelope_sender(injection: Injection) -> str:
    """The bare address of ``from``; "" (the null sender) for a raw message that came without one."""
    if injection.raw and not injection.sender:
        return ""
    _checked("from", injection.sender)
    try:
        address = parseaddr(injection.sender)[1]
    except _BROKEN:
        address = ""
    # the parser forgives spaces inside an address by dropping them: what it found must have been said
    if not address or address not in injection.sender or not re.fullmatch(r"[^\s<>@,]{1,64}@[^\s<>@,]{1,253}", address):
        raise Refused("field_invalid", "an address such as alice@example.org", field="from")
    return address


def is_large(injection: Injection) -> bool:
    """Whether composing takes so long that the loop must not wait for it: over about 3 ms."""
    return len(injection.raw) + len(injection.text) + len(injection.html) > _LARGE


def check_size(injection: Injection, limit: int) -> None:
    """Refused message_too_big before any work is put into what will be: line ends become two bytes each."""
    for part in (injection.raw, injection.text, injection.html):
        if len(part) + part.count("\n") > limit:
            raise Refused("message_too_big", f"at most {limit} bytes")


def compose(injection: Injection, mailbox: str, host: str) -> bytes:
    """The message with CRLF line ends. ``mailbox`` stands in for a missing ``to``; ``host`` makes the Message-ID ours.

    Refused field_invalid for a header that would not stay one line.
    """
    if injection.raw:
        return re.sub(rb"\r\n|\r|\n", b"\r\n", injection.raw.encode())
    headers = {"from": injection.sender, "to": injection.to or mailbox, "subject": injection.subject}
    for name, value in headers.items():
        _checked(name, value)
    utf8 = not (injection.sender + headers["to"]).isascii()  # RFC 6532: an address cannot be an encoded word
    message = EmailMessage(policy=policy.SMTP.clone(utf8=utf8))
    try:
        for name, value in headers.items():
            message[name.capitalize()] = value
    except _BROKEN as error:  # the library saw structure in it that does not hold, or broke over it
        raise Refused("field_invalid", "not a header value", field=name) from error
    message["Date"] = formatdate(usegmt=True)
    message["Message-ID"] = make_msgid(domain=host)
    _fill(message, injection)
    return message.as_bytes()


def _fill(message: EmailMessage, injection: Injection) -> None:
    # 8bit leaves long bodies as they are: the other encodings are written in Python and take seconds for megabytes
    if injection.text or not injection.html:
        message.set_content(injection.text, cte="8bit")
        if injection.html:
            message.add_alternative(injection.html, subtype="html", cte="8bit")
    else:
        message.set_content(injection.html, subtype="html", cte="8bit")


def _checked(name: str, value: str) -> None:
    """A header value is one line: a second one would be a header of the caller's own making."""
    if len(value.encode()) > _LINE_MAX or _CONTROL.search(value) or (value and value.splitlines() != [value]):
        raise Refused("field_invalid", f"one line of at most {_LINE_MAX} bytes", field=name)
