"""What is found of a node's parts, and what follows for the node. Must not know: how anything is found.

A finding is "ok", "degraded: ..." where something stands in for what is away, or anything else where the node cannot
take or show mail.
"""

from collections.abc import Mapping
from typing import Final

OK: Final = "ok"
_DEGRADED: Final = "degraded"
_STATUSES: Final = (OK, _DEGRADED, "unavailable")


def level(finding: str) -> int:
    """0 for ok, 1 for degraded, 2 for what stops a node."""
    return 0 if finding == OK else 1 if finding.startswith(_DEGRADED) else 2


def status(checks: Mapping[str, str]) -> str:
    """ "ok", "degraded" or "unavailable": that of the worst finding."""
    return _STATUSES[max(map(level, checks.values()), default=0)]


def degraded(why: str) -> str:
    return f"{_DEGRADED}: {why}"


def lessened(finding: str) -> str:
    """The same, of a part that this node can do without."""
    return degraded(finding) if level(finding) == 2 else finding
