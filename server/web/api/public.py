"""What anyone may know before having a mailbox: the domains served and the limits in force."""

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from server.config.settings import Config
from server.model.domain import ServedSet
from server.web.description import describe
from server.web.requests import Call
from server.web.responses import Reply, ok

_DAY: Final = 86400.0
_LISTED: Final = 1_000  # domains; the operator's own come first


class Domains(msgspec.Struct):
    """The domains a mailbox may be made at."""

    domains: Sequence[str]
    count: int


class GuestLimits(msgspec.Struct, rename="camel"):
    """What a mailbox of someone without an account may hold; 0 is without limit."""

    max_aliases_per_mailbox: int
    max_messages_per_mailbox: int
    message_retention_days: int


class Configuration(msgspec.Struct, rename="camel"):
    """What this server offers."""

    domains: Sequence[str]
    default_domain: str
    features: dict[str, bool]
    limits: GuestLimits


@describe("List the domains served", response=Domains)
async def domains(call: Call) -> Reply:
    named = (await call.services.domains.served()).public[:_LISTED]
    return ok(call.language, Domains(named, len(named)))


@describe("Show what this server offers", response=Configuration)
async def configuration(call: Call) -> Reply:
    served = await call.services.domains.served()
    return ok(call.language, _described(call.services.settings.current, served))


def _described(config: Config, served: ServedSet) -> Configuration:
    return Configuration(
        domains=served.public[:_LISTED],
        default_domain=served.default,
        features={
            "search": True,
            "websocket": True,
            "attachments": True,
            "inject": True,
            "aliases": config.mailbox_max_aliases > 0,
        },
        limits=GuestLimits(
            max_aliases_per_mailbox=config.mailbox_max_aliases,
            max_messages_per_mailbox=config.mailbox_max_messages,
            message_retention_days=math.ceil(config.mailbox_max_ttl / _DAY),  # mail goes with its mailbox
        ),
    )
