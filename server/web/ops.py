"""Operations: is the process alive, can it serve, what has it counted; and where the root points a stranger."""

from typing import Final

import msgspec

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
    """``status`` is "ok", "degraded" or "unavailable"; ``checks`` says "ok" or what is wrong of each thing by name."""

    status: str
    checks: dict[str, str]


@describe("Greet a stranger", media="text/plain")
async def welcome(_: Call) -> Reply:
    return Reply(200, _WELCOME, headers=_TEXT)


@describe("Tell whether the process answers", gives=Health, bare=True)
async def health(_: Call) -> Reply:
    """The process answers; nothing else is asked."""
    return bare(Health("ok"))


@describe(
    "Tell whether everything a request needs works",
    detail="200 if so, also where something stands in for what does not (degraded); 503 with the same fields if not.",
    gives=Readiness,
    bare=True,
    same=(503,),
)
async def ready(call: Call) -> Reply:
    """200 if everything a request needs works; 503 naming each thing and what is wrong with it."""
    checks = await call.parts.readiness()
    if all(found == "ok" for found in checks.values()):
        return bare(Readiness("ok", checks))
    if all(found == "ok" or found.startswith("degraded") for found in checks.values()):
        return bare(Readiness("degraded", checks))
    return bare(Readiness("unavailable", checks), 503)


@describe("Metrics of all workers", detail="In the text exposition format of Prometheus.", media="text/plain")
async def metrics(call: Call) -> Reply:
    return Reply(200, call.parts.metrics(), headers=_EXPOSITION)
