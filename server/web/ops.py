"""Operations: is the process alive, can it serve, what has it counted; and where the root points a stranger."""

from typing import Final

from server.web.requests import Call
from server.web.responses import Reply, bare

_TEXT: Final = (("Content-Type", "text/plain; charset=utf-8"),)
# the text exposition format, which monitoring systems choose their parser by
_EXPOSITION: Final = (("Content-Type", "text/plain; version=0.0.4; charset=utf-8"),)
_WELCOME: Final = (
    b"tempmail, disposable mail over an HTTP API.\n\n"
    b"A mailbox: POST /v1/mailboxes\nDomains:   GET  /v1/public/domains\nHealth:    GET  /health\n"
)


async def welcome(_: Call) -> Reply:
    return Reply(200, _WELCOME, headers=_TEXT)


async def health(_: Call) -> Reply:
    """The process answers; nothing else is asked."""
    return bare({"status": "ok"})


async def ready(call: Call) -> Reply:
    """200 if everything a request needs works; 503 naming each thing and what is wrong with it."""
    checks = await call.parts.readiness()
    works = all(found == "ok" for found in checks.values())
    return bare({"status": "ok" if works else "unavailable", "checks": checks}, 200 if works else 503)


async def metrics(call: Call) -> Reply:
    return Reply(200, call.parts.metrics(), headers=_EXPOSITION)
