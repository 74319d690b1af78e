"""Places that are held for long, of which one client may have a share only.

Lives here: the rule for whoever lets connections stay. Must not know: what is held.
"""

from collections.abc import Callable
from typing import Final

from server.model.client import Holdings
from server.model.errors import Refused, Unavailable

SHARE: Final = 10  # a client may hold one in so many of the places; its wider networks more, see model/client
_AGAIN: Final = 5.0  # s after which a client that holds too many may ask again


class ConnectionLimit:
    """``most`` places for ``what``, in the plural; ``exempt`` says which clients have no share of their own."""

    def __init__(self, what: str, most: int, exempt: Callable[[str], bool]) -> None:
        self._what, self.most, self._exempt = what, most, exempt
        self._held = Holdings(max(1, most // SHARE), most)
        self.taken = 0
        self.closed = False  # nobody is let in any more

    def admit(self, client: str) -> str:
        """Whom a place would be counted to: ``client``, or nobody. None is taken yet. Refused rate_limited when the
        client holds too many; Unavailable when all are taken, or none is given any more.
        """
        if self.closed or self.taken >= self.most:
            raise Unavailable(f"no room for more {self._what}")
        if self._exempt(client):
            return ""
        if not self._held.fits(client):
            raise Refused("rate_limited", f"too many {self._what} are open from here", retry_after=_AGAIN)
        return client

    def take(self, holder: str) -> None:
        """``holder`` is what ``admit`` said, lately."""
        self.taken += 1
        self._held.take(holder)

    def give_back(self, holder: str) -> None:
        """The same that ``take`` was given."""
        self.taken -= 1
        self._held.give_back(holder)
