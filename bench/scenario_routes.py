"""Scenario ``routes``: latency of every family of routes at one offered load, one family after another.

Lives here: which request stands for a family, and the objects it needs. Must not know: how load is made
(``client_http``, ``client_streams``), or how servers are started (``launch``).
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
from rich.console import Console

from bench.client_api import Account, Api, Mailbox
from bench.client_http import Generators, Load, Request, request
from bench.client_streams import Attempt, event_stream, opened, subscription
from bench.launch import Plan, make_administrator, own_server
from bench.report import latency_cells, progress, table
from bench.scenario_http import LoadError
from bench.stats import Latency, summarise
from bench.target import Endpoint, Target

_MAILBOXES = 100
_MAILS_EACH = 3
_TEXT = "A line of an ordinary letter, long enough to be one.\n" * 40


@dataclass(frozen=True, slots=True)
class Options:
    """``rate`` in requests per second, offered to one family at a time; ``families`` empty for all."""

    server: Plan
    seconds: float
    rate: float
    connections: int
    families: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class World:
    """What the requests name: mailboxes of guests with mail in them, and one account's belongings by kind.

    ``administrator`` is the access token of one; empty where the server is not ours, which leaves his families out.
    """

    http: Endpoint
    boxes: Sequence[Mailbox]
    messages: Sequence[Sequence[str]]
    account: Account
    own: Mailbox
    belongings: Mapping[str, str]
    administrator: str


Make = Callable[[World, int], list[Request]]  # for a load of so many requests


def _one(method: str, path: str, status: bytes, body: object, head: Callable[[World], dict[str, str]]) -> Make:
    """The same request again and again; ``{name}`` stands for one of the account's belongings."""

    def make(world: World, _: int) -> list[Request]:
        sent = b"" if body is None else orjson.dumps(_filled_in(body, world))
        filled = path.format(own=world.own.id, **world.belongings)
        return [Request(request(world.http, method, filled, head(world), sent), status=status)]

    return make


def _filled_in(body: object, world: World) -> object:
    if isinstance(body, dict):
        return {
            key: value.format(**world.belongings) if isinstance(value, str) else value for key, value in body.items()
        }
    return body


def _of_account(method: str, path: str, status: bytes = b"200", body: object = None) -> Make:
    return _one(method, path, status, body, lambda world: {"Authorization": f"Bearer {world.account.token}"})


def _of_admin(method: str, path: str, status: bytes = b"200", body: object = None) -> Make:
    return _one(method, path, status, body, lambda world: {"Authorization": f"Bearer {world.administrator}"})


def _of_key(method: str, path: str, body: object = None) -> Make:
    return _one(method, path, b"200", body, lambda world: {"X-API-Key": world.belongings["key"]})


def _open_to_all(method: str, path: str, status: bytes = b"200", body: object = None) -> Make:
    return _one(method, path, status, body, lambda _: {})


def _of_boxes(method: str, tail: str, status: bytes = b"200", body: object = None) -> Make:
    """One request a mailbox, with its token; ``{mid}`` is a message of it."""

    def make(world: World, _: int) -> list[Request]:
        sent = b"" if body is None else orjson.dumps(body)
        return [
            Request(
                request(
                    world.http,
                    method,
                    f"/v1/mailboxes/{box.id}{tail.format(mid=mids[0])}",
                    {"Authorization": f"Bearer {box.token}"},
                    sent,
                ),
                status=status,
            )
            for box, mids in zip(world.boxes, world.messages, strict=True)
        ]

    return make


def _registrations(world: World, count: int) -> list[Request]:
    bodies = ({"email": f"{secrets.token_hex(8)}@example.org", "password": secrets.token_hex(8)} for _ in range(count))
    return [
        Request(request(world.http, "POST", "/v1/auth/register", {}, orjson.dumps(body)), status=b"201")
        for body in bodies
    ]


class Family(NamedTuple):
    """``share``: of the rate that is offered; what costs a password hash is offered less than two cores can hash."""

    make: Make
    share: float = 1.0
    administrative: bool = False


_LETTER: Final = {"from": "a@example.org", "subject": "s", "text": _TEXT}
_HASHED: Final = 0.02
_QUOTA: Final = dict.fromkeys(
    ("maxMailboxes", "maxMessagesPerMailbox", "maxApiRequestsPerMinute", "maxConcurrentRequests"), 0
)

_FOR_ALL: Final[dict[str, Make]] = {
    "health": _open_to_all("GET", "/health"),
    "ready": _open_to_all("GET", "/health/ready"),
    "metrics": _open_to_all("GET", "/metrics"),
    "public config": _open_to_all("GET", "/v1/public/config"),
    "public domains": _open_to_all("GET", "/v1/public/domains"),
    "openapi.json": _open_to_all("GET", "/openapi.json"),
    "make a mailbox": _open_to_all("POST", "/v1/mailboxes", b"201"),
    "a mailbox": _of_boxes("GET", ""),
    "extend a mailbox": _of_boxes("PATCH", "", body={"expiresIn": "1h"}),
    "list of messages": _of_boxes("GET", "/messages"),
    "search": _of_boxes("GET", "/messages/search?q=ordinary"),
    "search, operators": _of_boxes("GET", "/messages/search?q=subject:letter%20-from:nobody%20is:unread"),
    "a message": _of_boxes("GET", "/messages/{mid}"),
    "raw": _of_boxes("GET", "/messages/{mid}/raw"),
    "mark read": _of_boxes("POST", "/messages/{mid}/read", b"204"),
    "inject": _of_boxes("POST", "/messages", b"201", _LETTER),
    "wait, there already": _of_boxes("GET", "/wait?timeout=1"),
    "me": _of_account("GET", "/v1/auth/me"),
    "own mailboxes": _of_account("GET", "/v1/mailboxes"),
    "own mailbox by account": _of_account("GET", "/v1/mailboxes/{own}/messages"),
    "own messages": _of_account("GET", "/v1/messages"),
    "API keys": _of_account("GET", "/v1/api-keys"),
    "an API key": _of_account("GET", "/v1/api-keys/{key_id}"),
    "aliases": _of_account("GET", "/v1/mailboxes/{own}/aliases"),
    "an alias": _of_account("GET", "/v1/mailboxes/{own}/aliases/{alias}"),
    "switch an alias": _of_account("PATCH", "/v1/mailboxes/{own}/aliases/{alias}", body={"isActive": True}),
    "tags": _of_account("GET", "/v1/tags"),
    "change a tag": _of_account("PATCH", "/v1/tags/{tag}", body={"color": "#663399"}),
    "messages of a tag": _of_account("GET", "/v1/tags/{tag}/messages"),
    "tags of a message": _of_account("GET", "/v1/mailboxes/{own}/messages/{own_message}/tags"),
    "tag a message": _of_account("POST", "/v1/mailboxes/{own}/messages/{own_message}/tags", b"201", {"tagId": "{tag}"}),
    "webhooks": _of_account("GET", "/v1/webhooks"),
    "change a webhook": _of_account("PATCH", "/v1/webhooks/{webhook}", body={"isActive": True}),
    "deliveries": _of_account("GET", "/v1/webhooks/{webhook}/deliveries"),
    "domains": _of_account("GET", "/v1/user/domains"),
    "a domain's mode": _of_account("PATCH", "/v1/user/domains/{domain}", body={"mode": "exclusive"}),
    "instructions": _of_account("GET", "/v1/user/domains/{domain}/instructions"),
    "compat: config": _of_key("GET", "/api/config"),
    "compat: mailboxes": _of_key("GET", "/api/emails"),
    "compat: messages": _of_key("GET", "/api/emails/{own}"),
    "compat: a message": _of_key("GET", "/api/emails/{own}/{own_message}"),
}
_FOR_ADMINISTRATORS: Final[dict[str, Make]] = {
    "admin: accounts": _of_admin("GET", "/v1/admin/users?search=example"),
    "admin: an account": _of_admin("GET", "/v1/admin/users/{user}"),
    "admin: change an account": _of_admin("PATCH", "/v1/admin/users/{user}", body={"isEmailVerified": True}),
    "admin: set a quota": _of_admin("PUT", "/v1/admin/users/{user}/quota", body=_QUOTA),
    "admin: statistics": _of_admin("GET", "/v1/admin/statistics"),
    "admin: domains": _of_admin("GET", "/v1/admin/domains"),
    "admin: config": _of_admin("GET", "/v1/admin/config"),
    "admin: change the config": _of_admin("PUT", "/v1/admin/config", body={"mailbox": {"maxAliases": 5}}),
    "admin: audit": _of_admin("GET", "/v1/admin/audit"),
}
FAMILIES: Final[dict[str, Family]] = {
    "register": Family(_registrations, _HASHED),
    "log in": Family(
        _open_to_all("POST", "/v1/auth/login", body={"email": "{visitor}", "password": "{password}"}), _HASHED
    ),
    **{name: Family(make) for name, make in _FOR_ALL.items()},
    **{name: Family(make, administrative=True) for name, make in _FOR_ADMINISTRATORS.items()},
}
STREAMS: Final[dict[str, Attempt]] = {"SSE, missed mail": event_stream, "WebSocket, subscribe": subscription}
"""A connection each: from the due time until what was missed arrives, or until the server says ``subscribed``."""


async def _filled(api: Api, boxes: Sequence[Mailbox], advance: Callable[[], None]) -> list[list[str]]:
    found = []
    for box in boxes:
        letter = {"from": "a@example.org", "text": _TEXT}
        made = [
            await api.make(box.messages_path, letter | {"subject": f"letter {number}"}, box.token)
            for number in range(_MAILS_EACH)
        ]
        found.append([message["id"] for message in made])
        advance()
    return found


async def _world(http: Endpoint, administrator: tuple[str, str] | None, advance: Callable[[], None]) -> World:
    async with Api(http) as api:
        boxes = await api.create_mailboxes(_MAILBOXES)
        messages = await _filled(api, boxes, advance)
        account = await api.register()
        own, belongings = await _belongings(api, account)
        visitor = {"email": f"{secrets.token_hex(8)}@example.org", "password": secrets.token_hex(8)}
        await api.make("/v1/auth/register", visitor, "")
        belongings |= {"user": account.id, "visitor": visitor["email"], "password": visitor["password"]}
        acting = "" if administrator is None else await api.login(*administrator)
        return World(http, boxes, messages, account, own, belongings, acting)


async def _belongings(api: Api, account: Account) -> tuple[Mailbox, dict[str, str]]:
    """A mailbox of the account, and one of everything else."""
    token = account.token
    made = await api.make("/v1/mailboxes", {}, token)
    own = Mailbox(made["id"], made["address"], made["token"])
    letter = await api.make(own.messages_path, _LETTER, token)
    tag = await api.make("/v1/tags", {"name": "bench", "color": "#336699"}, token)
    await api.make(f"{own.messages_path}/{letter['id']}/tags", {"tagId": tag["id"]}, token)
    local, _, served = own.address.partition("@")
    alias = await api.make(f"/v1/mailboxes/{own.id}/aliases", {"address": f"also.{local}@{served}"}, token)
    webhook = {"url": "https://example.org/hook", "events": ["mail.read"]}
    domain = {"domain": f"{account.id[:8]}.example", "mode": "exclusive"}
    key = await api.make("/v1/api-keys", {"name": "bench"}, token)
    return own, {
        "key": key["key"],
        "key_id": key["id"],
        "own_message": letter["id"],
        "alias": alias["id"],
        "tag": tag["id"],
        "webhook": (await api.make("/v1/webhooks", webhook, token))["id"],
        "domain": (await api.make("/v1/user/domains", domain, token))["id"],
    }


def run(console: Console, options: Options, work: Path, target: Target | None) -> dict[str, Any]:
    """Measure and show; {family: latency and rate}. LoadError where a family answered anything but what it should."""
    wanted = options.families or (*FAMILIES, *STREAMS)
    if target is not None:
        wanted = tuple(name for name in wanted if name in STREAMS or not FAMILIES[name].administrative)
    results: dict[str, Any] = {}
    with ExitStack() as stack:
        aim = target or stack.enter_context(own_server(work, options.server))
        administrator = None if target else make_administrator(work)
        bar = stack.enter_context(progress(console))
        filling = bar.add_task("mailboxes and their mail", total=_MAILBOXES)
        world = asyncio.run(_world(aim.http, administrator, lambda: bar.advance(filling)))
        plain = {name: FAMILIES[name] for name in wanted if name in FAMILIES}
        counts = {name: round(options.rate * family.share * options.seconds) or 1 for name, family in plain.items()}
        sets: dict[str, Sequence[Request]] = {name: one.make(world, counts[name]) for name, one in plain.items()}
        generators = stack.enter_context(Generators(1, sets))
        task = bar.add_task("families", total=len(wanted))
        for seed, name in enumerate(wanted):
            bar.update(task, description=name)
            rate = options.rate * (plain[name].share if name in plain else 1.0)
            load = Load(options.connections, options.seconds, rate)
            outcome = (
                generators.run(aim.http, name, load, seed)
                if name in plain
                else asyncio.run(opened(STREAMS[name], aim.http, world.boxes, load))
            )
            if outcome.errors:
                raise LoadError(f"{name}: {dict(outcome.errors)}")
            results[name] = {
                "offered": rate,
                "rate": outcome.rate,
                "latency": asdict(summarise(outcome.latencies)),
            }
            bar.advance(task)
        _show(console, results)
    return {"families": results}


def _show(console: Console, results: dict[str, Any]) -> None:
    rows = [
        [name, f"{found['offered']:,.0f}", *latency_cells(Latency(**found["latency"]))]
        for name, found in results.items()
    ]
    title = "requests/s offered to one family at a time, answered or not; latency from the due time"
    console.print(table(title, ["family", "offered/s", "p50", "p95", "p99", "max"], rows))
