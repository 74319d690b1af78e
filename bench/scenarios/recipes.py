"""How each route is asked for: one recipe or more for every row of the route table.

Lives here: credential, body, status and offered share of a route, and what it uses up. Must not know: how load is made.
A route without a recipe is an error: what is not measured must not look as if it were.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal, NamedTuple

import orjson

from bench.clients.http import Request, request
from bench.scenarios.world import LETTER, PASSWORD, Subject, World, word
from bench.tools.target import Endpoint
from server.web.api.routes import ROUTES

STREAMING: Final = ("GET /v1/mailboxes/{id}/events", "GET /v1/ws")
"""What is opened, not asked for: ``client_streams`` knows how."""

SELDOM: Final = 0.1  # of the rate: a password's hash takes 20 to 40 ms of a core, and who scrapes metrics has time
CHANGING: Final = 0.25  # of the rate: what people do now and then; it may lock, ask DNS or call a webhook

Credential = Literal["none", "box", "user", "admin", "key"]
Body = Callable[[Subject], object]
Maker = Callable[[World, int], Awaitable[Subject]]

_KINDS: Final = {
    "mailboxes": "mailbox",
    "emails": "mailbox",
    "messages": "message",
    "attachments": "attachment",
    "aliases": "alias",
    "tags": "tag",
    "api-keys": "key_id",
    "webhooks": "webhook",
    "deliveries": "delivery",
    "domains": "domain",
    "users": "user",
    "bans": "ban",
    "static": "file",
}
"""What a variable segment names, by the literal one before it; after a variable one it is a message."""


class Recipe(NamedTuple):
    """``uses``: makes what each request uses up; without it requests go round the guests' mailboxes (credential
    ``box``) or the accounts. ``share``: of the rate that is offered.
    """

    route: str
    credential: Credential = "none"
    status: int = 200
    body: Body | None = None
    query: str = ""
    share: float = 1.0
    uses: Maker | None = None

    @property
    def name(self) -> str:
        return self.route + self.query


def _fresh_name(_: Subject) -> object:
    return {"name": word(), "color": "#336699"}


def _fresh_domain(_: Subject) -> object:
    return {"domain": f"{word()}.example", "mode": "shared"}


def _fresh_ban(_: Subject) -> object:
    return {"kind": "sender", "value": f"{word()}@example.org", "reason": "measured", "expiresIn": "1h"}


def _registration(_: Subject) -> object:
    return {"email": f"{word()}@example.org", "password": secrets.token_hex(8)}


def _constantly(value: object) -> Body:
    return lambda _: value


_BOX: Final = "/v1/mailboxes/{id}"
_MAIL: Final = _BOX + "/messages"
_ONE: Final = _MAIL + "/{mid}"
_HOOK: Final = "/v1/webhooks/{id}"
_CLAIM: Final = "/v1/user/domains"
_SYSTEM: Final = "/v1/admin/domains"
_USER: Final = "/v1/admin/users/{id}"
_QUOTA: Final = dict.fromkeys(
    ("maxMailboxes", "maxMessagesPerMailbox", "maxApiRequestsPerMinute", "maxConcurrentRequests"), 0
)
_NO_BODY: Final = _constantly({})

_OPEN: Final = tuple(
    Recipe(f"GET {path}")
    for path in (
        *("/", "/docs", "/openapi.json", "/static/{file}", "/health", "/health/live", "/health/ready"),
        *("/v1/public/domains", "/v1/public/config"),
    )
)
_METRICS: Final = (Recipe("GET /metrics", share=SELDOM),)
_AUTH: Final = (
    Recipe("POST /v1/auth/register", status=201, body=_registration, share=SELDOM),
    Recipe("POST /v1/auth/login", body=lambda s: {"email": s["email"], "password": PASSWORD}, share=SELDOM),
    Recipe("POST /v1/auth/refresh", body=lambda s: {"refreshToken": s["refresh"]}, share=CHANGING, uses=World.session),
    Recipe("GET /v1/auth/me", "user"),
    Recipe("POST /v1/auth/logout", "user", 204, _NO_BODY, share=CHANGING, uses=World.session),
)
_BOXES: Final = (
    Recipe("POST /v1/mailboxes", status=201, body=_NO_BODY),
    Recipe("GET /v1/mailboxes", "user"),
    Recipe(f"GET {_BOX}", "box"),
    Recipe(f"PATCH {_BOX}", "box", body=_constantly({"expiresIn": "3h"}), share=CHANGING),
    Recipe(f"POST {_BOX}/token", "box", share=CHANGING, uses=World.empty_box),
    Recipe(f"DELETE {_BOX}", "box", 204, uses=World.box, share=CHANGING),
    Recipe(f"GET {_BOX}/aliases", "user"),
    Recipe(
        f"POST {_BOX}/aliases",
        "box",
        201,
        lambda s: {"address": f"{word()}@{s['address'].partition('@')[2]}"},
        share=CHANGING,
        uses=World.empty_box,
    ),
    Recipe(f"GET {_BOX}/aliases/{{aid}}", "user"),
    Recipe(f"PATCH {_BOX}/aliases/{{aid}}", "user", body=_constantly({"isActive": True}), share=CHANGING),
    Recipe(f"DELETE {_BOX}/aliases/{{aid}}", "box", 204, share=CHANGING, uses=World.aliased_box),
)
_MESSAGES: Final = (
    Recipe(f"GET {_MAIL}", "box"),
    Recipe(f"POST {_MAIL}", "box", 201, _constantly(LETTER)),
    Recipe(f"GET {_MAIL}/search", "box", query="?q=ordinary"),
    Recipe(f"GET {_MAIL}/search", "box", query="?q=subject:letter%20-from:nobody%20is:unread"),
    Recipe(f"GET {_ONE}", "box"),
    Recipe(f"GET {_ONE}/raw", "box"),
    Recipe(f"GET {_ONE}/attachments/{{aid}}", "box"),
    Recipe(f"POST {_ONE}/read", "box", 204, uses=World.message),
    Recipe(f"DELETE {_ONE}", "box", 204, uses=World.message),
    Recipe(f"DELETE {_MAIL}", "box", 204, share=CHANGING, uses=World.box),
    Recipe(f"GET {_BOX}/trace", "box"),
    Recipe(f"GET {_BOX}/wait", "box", query="?timeout=1&after=0"),
    Recipe("GET /v1/messages", "user"),
    Recipe("GET /v1/messages", "user", query="?q=ordinary"),
)
_TAGS: Final = (
    Recipe(f"GET {_ONE}/tags", "user"),
    Recipe(f"POST {_ONE}/tags", "user", 201, lambda s: {"tagId": s["tag"]}, share=CHANGING, uses=World.own_message),
    Recipe(f"DELETE {_ONE}/tags/{{tid}}", "user", 204, share=CHANGING, uses=World.tagged_message),
    Recipe("POST /v1/tags", "user", 201, _fresh_name, share=CHANGING),
    Recipe("GET /v1/tags", "user"),
    Recipe("GET /v1/tags/{id}", "user"),
    Recipe("PATCH /v1/tags/{id}", "user", body=_constantly({"color": "#663399"}), share=CHANGING),
    Recipe("DELETE /v1/tags/{id}", "user", 204, share=CHANGING, uses=World.tag),
    Recipe("GET /v1/tags/{id}/messages", "user"),
)
_KEYS: Final = (
    Recipe("POST /v1/api-keys", "user", 201, lambda _: {"name": word()}, share=CHANGING),
    Recipe("GET /v1/api-keys", "user"),
    Recipe("GET /v1/api-keys/{id}", "user"),
    Recipe("DELETE /v1/api-keys/{id}", "user", 204, share=CHANGING, uses=World.key),
)
_HOOKS: Final = (
    Recipe("POST /v1/webhooks", "user", 201, lambda s: {"url": s["hook"], "events": ["mail.read"]}, share=CHANGING),
    Recipe("GET /v1/webhooks", "user"),
    Recipe(f"GET {_HOOK}", "user"),
    Recipe(f"PATCH {_HOOK}", "user", body=_constantly({"isActive": True}), share=CHANGING),
    Recipe(f"GET {_HOOK}/deliveries", "user"),
    Recipe(f"POST {_HOOK}/test", "user", body=_NO_BODY, share=CHANGING),
    Recipe(f"POST {_HOOK}/rotate-secret", "user", body=_NO_BODY, share=CHANGING),
    Recipe("POST /v1/webhooks/deliveries/{id}/replay", "user", body=_NO_BODY, share=CHANGING),
    Recipe(f"DELETE {_HOOK}", "user", 204, share=CHANGING, uses=World.webhook),
)
_DOMAINS: Final = (
    Recipe(f"POST {_CLAIM}", "user", 201, _fresh_domain, share=CHANGING),
    Recipe(f"GET {_CLAIM}", "user"),
    Recipe(f"GET {_CLAIM}/{{id}}", "user"),
    Recipe(f"GET {_CLAIM}/{{id}}/instructions", "user"),
    Recipe(f"POST {_CLAIM}/{{id}}/verify", "user", body=_NO_BODY, share=CHANGING),
    Recipe(f"PATCH {_CLAIM}/{{id}}", "user", body=_constantly({"mode": "exclusive"}), share=CHANGING),
    Recipe(f"DELETE {_CLAIM}/{{id}}", "user", 204, share=CHANGING, uses=World.domain),
)
_COMPATIBLE: Final = (
    Recipe("GET /api/config", "key"),
    Recipe(
        "POST /api/emails/generate",
        "key",
        body=_constantly({"name": "", "expiryTime": 3_600_000, "domain": "temp.mail"}),
        share=CHANGING,
    ),
    Recipe("GET /api/emails", "key"),
    Recipe("GET /api/emails/{id}", "key"),
    Recipe("GET /api/emails/{id}/{mid}", "key"),
    Recipe("DELETE /api/emails/{id}/{mid}", "key", share=CHANGING, uses=World.own_message),
    Recipe("DELETE /api/emails/{id}", "key", share=CHANGING, uses=World.own_box),
)
_ADMINISTRATION: Final = (
    Recipe("GET /v1/admin/users", "admin", query="?search=example"),
    Recipe(f"GET {_USER}", "admin"),
    Recipe(f"PATCH {_USER}", "admin", body=_constantly({"isEmailVerified": True}), share=CHANGING),
    Recipe(f"GET {_USER}/quota", "admin"),
    Recipe(f"PUT {_USER}/quota", "admin", body=_constantly(_QUOTA), share=CHANGING),
    Recipe(f"DELETE {_USER}", "admin", 204, share=SELDOM, uses=World.account),
    Recipe("GET /v1/admin/statistics", "admin"),
    Recipe("GET /v1/admin/audit", "admin"),
    Recipe("GET /v1/admin/mailboxes", "admin", query="?network=192.0.2.0/24"),
    Recipe("GET /v1/admin/mailboxes/{id}", "admin"),
    Recipe("PATCH /v1/admin/mailboxes/{id}", "admin", body=_constantly({"isActive": True}), share=CHANGING),
    Recipe("DELETE /v1/admin/mailboxes/{id}", "admin", 204, share=CHANGING, uses=World.box),
    Recipe("GET /v1/admin/bans", "admin"),
    Recipe("POST /v1/admin/bans", "admin", 201, _fresh_ban, share=CHANGING),
    Recipe("DELETE /v1/admin/bans/{id}", "admin", 204, share=CHANGING, uses=World.ban),
    Recipe("GET /v1/admin/trace", "admin", query="?address=nobody@temp.mail"),
    Recipe("GET /v1/admin/config", "admin"),
    Recipe("PUT /v1/admin/config", "admin", body=_constantly({"mailbox": {"maxAliases": 5}}), share=CHANGING),
    Recipe("POST /v1/admin/config/reset", "admin", body=_NO_BODY, share=CHANGING),
    Recipe(f"GET {_SYSTEM}", "admin"),
    Recipe(f"POST {_SYSTEM}", "admin", 201, _fresh_domain, share=CHANGING),
    Recipe(f"GET {_SYSTEM}/{{id}}", "admin"),
    Recipe(f"GET {_SYSTEM}/{{id}}/instructions", "admin"),
    Recipe(f"POST {_SYSTEM}/{{id}}/verify", "admin", body=_NO_BODY, share=CHANGING),
    Recipe(f"POST {_SYSTEM}/recover", "admin", body=lambda s: {"domain": s["name"]}, share=CHANGING),
    Recipe(f"PATCH {_SYSTEM}/{{id}}/toggle", "admin", body=_constantly({"isActive": True}), share=CHANGING),
    Recipe(f"POST {_SYSTEM}/{{id}}/set-default", "admin", body=_NO_BODY, share=CHANGING),
    Recipe(f"DELETE {_SYSTEM}/{{id}}", "admin", 204, share=CHANGING, uses=World.system_domain),
)
RECIPES: Final = (
    *(
        *_OPEN,
        *_METRICS,
        *_AUTH,
        *_BOXES,
        *_MESSAGES,
        *_TAGS,
        *_KEYS,
        *_HOOKS,
        *_DOMAINS,
        *_COMPATIBLE,
        *_ADMINISTRATION,
    ),
)


class RecipeError(Exception):
    """The recipes are not those of the route table; the text names what is too few or too many."""


def check() -> None:
    """RecipeError unless every route has a recipe and every recipe a route."""
    routes = {f"{route.method} {route.path}" for route in ROUTES}
    known = {recipe.route for recipe in RECIPES} | set(STREAMING)
    if routes != known:
        raise RecipeError(f"without a recipe: {sorted(routes - known)}; without a route: {sorted(known - routes)}")


def requests_of(recipe: Recipe, http: Endpoint, world: World, subjects: Sequence[Subject], count: int) -> list[Request]:
    """``count`` requests; they go round ``subjects``."""
    made = []
    for number in range(count):
        subject = subjects[number % len(subjects)]
        sent = b"" if recipe.body is None else orjson.dumps(recipe.body(subject))
        method, path = _target(recipe, subject)
        wire = request(http, method, path, _head(recipe.credential, world, subject), sent)
        made.append(Request(wire, status=str(recipe.status).encode()))
    return made


def standing(recipe: Recipe, world: World) -> list[Subject]:
    """What the requests of a recipe that uses nothing up go round."""
    if "/v1/admin/domains" in recipe.route:
        chosen = recipe.route.endswith("/set-default")
        return [world.system | ({"domain": world.system["default"]} if chosen else {})]
    subjects = world.boxes if recipe.credential == "box" else world.owners
    more: dict[str, Any] = {"file": "docs.css", "hook": world.around.hook}
    return [subject | more for subject in subjects]


def _target(recipe: Recipe, subject: Subject) -> tuple[str, str]:
    method, path = recipe.route.split(" ")
    segments = path.split("/")
    for place, segment in enumerate(segments):
        if segment.startswith("{"):
            before = path.split("/")[place - 1]
            segments[place] = subject["message" if before.startswith("{") else _KINDS[before]]
    return method, "/".join(segments) + recipe.query


def _head(credential: Credential, world: World, subject: Subject) -> dict[str, str]:
    if credential == "none":
        return {}
    if credential == "key":
        return {"X-API-Key": subject["key"]}
    token = world.administrator if credential == "admin" else subject["box" if credential == "box" else "token"]
    return {"Authorization": f"Bearer {token}"}
