"""What anyone may know before having a mailbox: the domains served and the limits in force."""

import math
from typing import Final

from server.config import Config
from server.web.requests import Call
from server.web.responses import Reply, ok

_DAY: Final = 86400.0
_SHARED: Final = (("Cache-Control", "public, max-age=60"), ("Vary", "Accept-Language, Origin"))


async def domains(call: Call) -> Reply:
    served = call.parts.config.domains
    return ok(call.language, {"domains": served, "count": len(served)})._replace(headers=_SHARED)


async def configuration(call: Call) -> Reply:
    return ok(call.language, _described(call.parts.config))._replace(headers=_SHARED)


def _described(config: Config) -> dict[str, object]:
    return {
        "domains": config.domains,
        "defaultDomain": config.domains[0],
        "features": {"search": True, "websocket": True, "attachments": True, "inject": True, "aliases": False},
        "limits": {
            "maxAliasesPerMailbox": 0,
            "maxMessagesPerMailbox": config.mailbox_max_messages,
            "messageRetentionDays": math.ceil(config.mailbox_max_ttl / _DAY),  # mail goes with its mailbox
        },
    }
