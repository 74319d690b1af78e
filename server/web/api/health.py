"""Operations: is the process alive, can it serve, what has it counted; and where the root points a stranger."""

from typing import Final

import msgspec

from server.model.health import status
from server.web.description import describe
from server.web.requests import Call
from server.web.responses import Reply, bare

_TEXT: Final = (("Content-Type", "text/plain; charset=utf-8"),)
# the text exposition format, which monitoring systems choose their parser by
_EXPOSITION: Final = (("Content-Type", "text/plain; version=0.0.4; charset=utf-8"),)
_WELCOME: Final = (
    b"tempmail, disposable mail over an HTTP API.\n\n"
    b"A mailbox: POST /v1/mailboxes\nDomains:   GET  /v1/public/domains\nHealth:    GET  /health\n"
    b"All of it: GET  /docs\n"
)


class Health(msgspec.Struct):
    """``status`` is "ok"."""

    status: str


class Readiness(msgspec.Struct):
    """``status`` is "ok", "degraded" or "unavailable". ``checks`` names each part with "ok", "degraded: ..." or what
    stops this node: database, migrations, commits, workers, bus, clock, and replicas and broker where there are any."""

    status: str
    checks: dict[str, str]


@describe("Greet a stranger", media="text/plain")
async def welcome(_: Call) -> Reply:
    return Reply(200, _WELCOME, headers=_TEXT)


@describe("Tell whether the process answers", response=Health, bare=True)
async def health(_: Call) -> Reply:
    """The process answers; nothing else is asked."""
    return bare(Health("ok"))


@describe(
    "Tell whether this node takes and shows mail",
    detail="200 if so, also where something stands in for a part that is away (degraded): Redis, a replica. 503 with "
    "the same fields where the database does not commit or a worker does not serve. It is for balancers; restarts are "
    "for /health/live, which knows of no database.",
    response=Readiness,
    bare=True,
    same=(503,),
)
async def ready(call: Call) -> Reply:
    """503 only for what stops this node from taking or showing mail; each part is named."""
    checks = await call.services.readiness()
    level = status(checks)
    return bare(Readiness(level, checks), 503 if level == "unavailable" else 200)


@describe("Metrics of all workers", detail="In the text exposition format of Prometheus.", media="text/plain")
async def metrics(call: Call) -> Reply:
    return Reply(200, call.services.metrics(), headers=_EXPOSITION)
