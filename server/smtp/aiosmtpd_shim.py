"""What we take from aiosmtpd, and the one place that depends on how it is made inside.

aiosmtpd's SMTP is built for one coroutine a connection that reads line by line; its constructor reflects over the
handler and its own methods for each connection, which costs a fifth to a third of a short session. Here it is
constructed once a listener, and what that left on the instance becomes attributes of a class, so that a connection
costs nothing of it. Its verbs are not used: they answer without enhanced codes, read addresses laxly and print
exceptions.

``REVIEWED`` names the aiosmtpd releases whose constructor was read for this. Under any other the fallback applies:
every connection runs aiosmtpd's own constructor, slower and right all the same; a test says when that has happened.
"""

import asyncio
import ssl
from typing import Any, ClassVar, Final, TypeVar

import aiosmtpd
from aiosmtpd.smtp import SMTP

__all__ = ["REVIEWED", "Base", "configured"]

REVIEWED: Final = ("1.4.6",)

CONSTRUCT_ONCE: Final = aiosmtpd.__version__ in REVIEWED


class Base(SMTP):
    """An aiosmtpd protocol without its machinery; ``configured`` makes the class whose instances are connections."""

    __slots__ = ()

    _options: ClassVar[dict[str, Any]] = {}
    _once: ClassVar[bool] = False

    def __init__(self) -> None:
        if not self._once:
            super().__init__(None, **self._options)

    def __del__(self) -> None:
        """Nothing to warn of: no reader or writer of the base class was ever used."""


B = TypeVar("B", bound=Base)


def configured(
    cls: type[B],
    loop: asyncio.AbstractEventLoop,
    hostname: str,
    size: int,
    tls: ssl.SSLContext | None,
) -> type[B]:
    """A subclass of ``cls`` for one listener."""
    options: dict[str, Any] = {"loop": loop, "hostname": hostname, "data_size_limit": size, "tls_context": tls}
    attributes: dict[str, Any] = {"__slots__": (), "_options": options, "_once": CONSTRUCT_ONCE}
    if CONSTRUCT_ONCE:
        own = {name for base in cls.__mro__ for name in getattr(base, "__slots__", ())}
        found = vars(SMTP(None, **options))
        attributes = {name: value for name, value in found.items() if name not in own} | attributes
    return type(cls.__name__, (cls,), attributes)
