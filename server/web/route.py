"""What a row of the route table is: who may ask, what is counted and kept, and how its failures look.

Must not know: any resource. A whole API of another shape is one file: its handlers, its struct for failures, its rows.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

from server.model.account import SCOPES, Scope
from server.web.requests import Call
from server.web.responses import Failed, FailureBody, Reply

Auth = Literal["none", "optional", "mailbox", "user", "admin", "super", "key"]
"""``none``: anyone. ``optional``: an account, or a guest who presents no credential at all. ``mailbox``: the mailbox's
token, or its owner by access token or API key. ``user``, ``admin``, ``super``: an account of at least that role, by
access token. ``key``: by API key.
"""

Part = Literal["ops", "api", "push"]
"""Which of a node's roles a row belongs to: ``ops`` is answered by every node."""

Handler = Callable[[Call], Awaitable[Reply | web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One row. ``limit``: counts against the client's rate. ``cache``: the answer depends on mailbox and URL alone.

    ``scope``: what an API key must be allowed for this route; None where no key is taken. ``opens``: the answer holds
    what opens a mailbox, so a key needs every scope.
    ``deadline`` in seconds, after which the client gets 503; None for a connection that is meant to stay.
    ``failed``: the struct its failures are written as. ``part``: nodes without it answer 404.
    ``shared``: seconds for which anyone's cache may keep its 200, and twelve times as long while it asks for a fresh
    one; 0: none may. Only for what is the same for whoever asks. ``bulky``: the answer may be as large as a message, so
    none is made while there is no room for it.
    """

    method: str
    path: str
    handler: Handler
    auth: Auth
    limit: bool
    cache: bool = False
    deadline: float | None = 30.0
    scope: Scope | None = None
    opens: bool = False
    failed: type[FailureBody] = Failed
    shared: int = 0
    part: Part = "api"
    bulky: bool = False

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """All that an API key must be allowed."""
        if self.opens:
            return SCOPES
        return (self.scope,) if self.scope is not None else ()
