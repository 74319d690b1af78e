"""What the HTTP API is made of: the services it asks and the few functions other parts hand in.

Must not know: the implementations, or who wires them.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from server.cache.local import Local
from server.config import Config
from server.services.contracts import (
    Accounts,
    Administration,
    Aliases,
    ApiKeys,
    Domains,
    Limits,
    Mailboxes,
    Messages,
    Settings,
    Tags,
    Waiting,
    Webhooks,
)
from server.services.watching import Watching
from server.web.streams import Streams


@dataclass(frozen=True, slots=True, kw_only=True)
class WebParts:
    """Everything a handler may use. ``served``: which rows of the route table this node answers.

    ``readiness`` answers {"database" | "migrations" | "bus": "ok" or what is wrong}; ``metrics`` the exposition of all
    workers; ``websocket`` takes a request over once it has passed the limits (``request["client"]`` is its address).
    """

    config: Config
    served: frozenset[str]
    settings: Settings
    administration: Administration
    accounts: Accounts
    api_keys: ApiKeys
    mailboxes: Mailboxes
    domains: Domains
    messages: Messages
    aliases: Aliases
    tags: Tags
    waiting: Waiting
    hub: Watching
    streams: Streams
    webhooks: Webhooks
    limits: Limits
    local: Local
    readiness: Callable[[], Awaitable[dict[str, str]]]
    metrics: Callable[[], bytes]
    websocket: Callable[[web.Request], Awaitable[web.StreamResponse]]
