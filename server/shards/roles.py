"""Which parts of the server a node runs: what each name in ROLES stands for, and what follows from INGEST_MODE.

Lives here: role -> parts. Must not know: how a part is built or started; that is compose.py's.

Whatever its roles, a node has its HTTP socket: an operator needs /health and /metrics of each.
"""

from dataclasses import dataclass

from server.config.settings import Config


@dataclass(frozen=True, slots=True)
class Parts:
    """``smtp``: takes mail in. ``api``: answers requests. ``push``: holds WebSockets, event streams and waits.
    ``webhooks``: sends what the outbox holds. ``sweeper``: ends mailboxes, drops partitions, checks domains again.
    ``relay``: what SMTP takes goes to the broker, and no further here. ``consume``: takes it from there and stores it.
    """

    smtp: bool
    api: bool
    push: bool
    webhooks: bool
    sweeper: bool
    relay: bool
    consume: bool

    @property
    def served(self) -> frozenset[str]:
        """Which rows of the route table are answered (``Route.part``)."""
        return frozenset({"ops"} | ({"api"} if self.api else set()) | ({"push"} if self.push else set()))


def parts(config: Config) -> Parts:
    roles, queued = config.roles, config.ingest_mode == "queue"
    return Parts(
        smtp="smtp" in roles,
        api="web" in roles,
        push="push" in roles,
        webhooks="webhooks" in roles,
        sweeper="sweeper" in roles,
        relay="smtp" in roles and queued,
        consume="ingest" in roles and queued,
    )
