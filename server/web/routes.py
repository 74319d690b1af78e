"""The API's one table: method, path, handler, who may, whether limited, whether kept.

Lives here: which paths there are. Must not know: how a request is dispatched. A resource that comes later is a file of
handlers and rows here. ``{name}`` stands for one segment; a literal segment goes before a variable one.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal

from aiohttp import web

from server.model.account import Scope
from server.web import mailboxes, messages, ops, public
from server.web.requests import Call
from server.web.responses import Reply

Auth = Literal["none", "optional", "mailbox", "user", "admin", "super", "key"]
"""``none``: anyone. ``optional``: an account if one is presented. ``mailbox``: the mailbox's token, or its owner by access
token or API key. ``user``, ``admin``, ``super``: an account of at least that role, by access token. ``key``: by API key.
"""

Handler = Callable[[Call], Awaitable[Reply | web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One row. ``limit``: counts against the client's rate. ``cache``: the answer depends on mailbox and URL alone.

    ``scope``: what an API key must be allowed for this route; None where no key is taken.
    ``deadline`` in seconds, after which the client gets 503; None for a connection that is meant to stay.
    """

    method: str
    path: str
    handler: Handler
    auth: Auth
    limit: bool
    cache: bool = False
    deadline: float | None = 30.0
    scope: Scope | None = None


async def websocket(call: Call) -> web.StreamResponse:
    call.request["client"] = call.client
    return await call.parts.websocket(call.request)


_BOX: Final = "/v1/mailboxes/{id}"
_MESSAGES: Final = _BOX + "/messages"
_MESSAGE: Final = _MESSAGES + "/{mid}"

ROUTES: Final = (
    Route("GET", _MESSAGES, messages.page, "mailbox", limit=True, cache=True),
    Route("POST", _MESSAGES, messages.inject, "mailbox", limit=True),
    Route("DELETE", _MESSAGES, messages.delete_all, "mailbox", limit=True),
    Route("GET", _MESSAGES + "/search", messages.search, "mailbox", limit=True, cache=True),
    Route("GET", _MESSAGE, messages.show, "mailbox", limit=True, cache=True),
    Route("DELETE", _MESSAGE, messages.delete, "mailbox", limit=True),
    Route("POST", _MESSAGE + "/read", messages.mark_read, "mailbox", limit=True),
    Route("GET", _MESSAGE + "/raw", messages.raw, "mailbox", limit=True),
    Route("GET", _MESSAGE + "/attachments/{aid}", messages.attachment, "mailbox", limit=True),
    Route("POST", "/v1/mailboxes", mailboxes.create, "none", limit=True),
    Route("GET", "/v1/mailboxes", mailboxes.own, "none", limit=True),
    Route("GET", _BOX, mailboxes.show, "mailbox", limit=True, cache=True),
    Route("PATCH", _BOX, mailboxes.extend, "mailbox", limit=True),
    Route("DELETE", _BOX, mailboxes.delete, "mailbox", limit=True),
    Route("POST", _BOX + "/token", mailboxes.rotate, "mailbox", limit=True),
    Route("GET", "/v1/ws", websocket, "none", limit=True, deadline=None),
    Route("GET", "/v1/public/domains", public.domains, "none", limit=True),
    Route("GET", "/v1/public/config", public.configuration, "none", limit=True),
    Route("GET", "/health", ops.health, "none", limit=False),
    Route("GET", "/health/live", ops.health, "none", limit=False),
    Route("GET", "/health/ready", ops.ready, "none", limit=False, deadline=5.0),
    Route("GET", "/metrics", ops.metrics, "none", limit=False),
    Route("GET", "/", ops.welcome, "none", limit=True),
)
