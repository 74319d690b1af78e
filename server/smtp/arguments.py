"""What MAIL and RCPT say: addresses and their parameters, read once and remembered by their bytes.

Senders repeat themselves: a bulk sender its MAIL, everybody a popular RCPT. What is refused is not remembered. Must not
know: sessions, or who exists.
"""

from functools import lru_cache
from typing import Final, NamedTuple

from server.model.address import TO, Params, parse_path, parse_sender
from server.model.errors import Refused
from server.model.trace import printable
from server.smtp import replies

_REMEMBERED: Final = 4096  # arguments of each verb; the least recently used go
_SHOWN: Final = 320  # characters


class Declined(Exception):
    """An argument that gets a reply of its own."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply)
        self.reply = reply


class Sender(NamedTuple):
    """A MAIL: ``address`` is empty for the null sender, ``size`` what SIZE announced, 0 when it did not."""

    address: str
    utf8: bool
    size: int
    return_path: bytes


@lru_cache(maxsize=_REMEMBERED)
def sender(argument: bytes) -> Sender:
    """What follows ``MAIL ``. Raises Refused (address_invalid, field_invalid) or Declined."""
    address, params = parse_sender(argument)
    size = _checked(params) if params else 0
    utf8 = "SMTPUTF8" in params
    if not utf8 and not argument.isascii():
        raise Declined(replies.NEEDS_SMTPUTF8)
    return Sender(address, utf8, size, b"Return-Path: <%b>\r\n" % address.encode())


def _checked(params: Params) -> int:
    """The announced size of MAIL parameters that can be (RFC 1870, 6152, 6531)."""
    size = 0
    for name, value in params.items():
        if name == "SIZE":
            if not value or not value.isdecimal() or len(value) > 20:
                raise Declined(replies.BAD_ARGUMENT)
            size = int(value)
        elif name == "BODY":
            if (value or "").upper() not in ("7BIT", "8BITMIME"):
                raise Declined(replies.BAD_ARGUMENT)
        elif name != "SMTPUTF8":
            raise Declined(replies.UNKNOWN_PARAMETER)
        elif value is not None:
            raise Declined(replies.BAD_ARGUMENT)
    return size


@lru_cache(maxsize=_REMEMBERED)
def recipient(argument: bytes, utf8: bool, default_domain: str) -> str:
    """The canonical address that follows ``RCPT ``; ``utf8`` says that its MAIL had SMTPUTF8. Raises Refused
    address_invalid, or Declined."""
    path, params = parse_path(argument, TO)
    if params:
        raise Declined(replies.UNKNOWN_PARAMETER)
    if not utf8 and not argument.isascii():
        raise Declined(replies.NEEDS_SMTPUTF8)
    if path is None:
        raise Refused("address_invalid")
    return path.canonical if path.domain else f"{path.canonical}@{default_domain}"


def shown(argument: bytes) -> str:
    """The address in an argument that was refused, as it was written but for controls; for people to read."""
    text = argument[: 2 * _SHOWN].decode("utf-8", "replace").partition(":")[2] or argument[:_SHOWN].decode(
        "utf-8", "replace"
    )
    inner = text.partition("<")[2].rpartition(">")[0] or text
    return printable(inner.strip()[:_SHOWN])
