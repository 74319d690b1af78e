"""What the HTTP API is made of: the services it asks and the few functions other parts hand in.

Must not know: the implementations, or who wires them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from server.cache.responses import ResponseCache
from server.config.settings import Config
from server.services.contracts import (
    Abuse,
    Accounts,
    Across,
    Administration,
    Aliases,
    ApiKeys,
    Bans,
    Domains,
    Limits,
    Mailboxes,
    Messages,
    Settings,
    Tags,
    Trace,
    Waiting,
    Webhooks,
)
from server.services.push.subscription import Watching
from server.services.transfers import Transfers
from server.web.streams import Streams


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything a handler may use. ``served``: which rows of the route table this node answers.

    ``readiness`` answers {"database" | "migrations" | "bus" | "replicas" | "broker": "ok" or what is wrong};
    ``metrics`` the exposition of all workers; ``websocket`` lets a request to upgrade in, whose client's address is
    given, and answers with what takes the transport and what came behind the request; Refused origin_not_allowed and
    rate_limited, Unavailable.
    """

    config: Config
    served: frozenset[str]
    settings: Settings
    administration: Administration
    bans: Bans
    abuse: Abuse
    accounts: Accounts
    api_keys: ApiKeys
    mailboxes: Mailboxes
    domains: Domains
    messages: Messages
    across: Across
    aliases: Aliases
    tags: Tags
    trace: Trace
    waiting: Waiting
    hub: Watching
    streams: Streams
    transfers: Transfers
    webhooks: Webhooks
    limits: Limits
    local: ResponseCache
    readiness: Callable[[], Awaitable[dict[str, str]]]
    metrics: Callable[[], bytes]
    websocket: Callable[[web.BaseRequest, str], Callable[[asyncio.Transport, bytes], None]]
