"""A message opened: what a reader sees of its body and headers. Pure, and run where it can be killed."""

import sys

import msgspec

from server.model import mime


class Opened(msgspec.Struct, frozen=True):
    """``html`` is as it came. All empty for a message whose reading breaks a bound."""

    text: str = ""
    html: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    def size(self) -> int:
        """About the bytes it takes in memory."""
        texts = sys.getsizeof(self.text) + sys.getsizeof(self.html)
        return texts + sum(sys.getsizeof(name) + sys.getsizeof(value) + 64 for name, value in self.headers)


def opened(raw: bytes) -> Opened:
    """``raw`` with its body and headers read."""
    mail = mime.parse(raw)
    return Opened(mail.text, mail.html, tuple(mime.headers(raw)))


def headers(raw: bytes) -> Opened:
    """The headers alone, for a body that cannot be read."""
    return Opened(headers=tuple(mime.headers(raw)))
