"""Scenario ``routes``: latency of every family of routes at one offered load, one family after another.

Lives here: which request stands for a family, and the objects it needs. Must not know: how load is made
(``client_http``), or how servers are started (``launch``).
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console

from bench.client_api import Account, Api, Mailbox
from bench.client_http import Generators, Load, Request, request
from bench.launch import Plan, own_server
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
    """What the requests name: mailboxes of guests with mail in them, and one account's belongings."""

    http: Endpoint
    boxes: Sequence[Mailbox]
    messages: Sequence[Sequence[str]]
    account: Account
    key: str
    own: Mailbox
    own_message: str
    alias: str
    tag: str
    webhook: str
    domain: str


Make = Callable[[World], list[Request]]


def _of_account(method: str, path: str, status: bytes = b"200") -> Make:
    """The same request of the account, with its access token; ``{name}`` stands for one of its belongings."""

    def make(world: World) -> list[Request]:
        belongings = {name: getattr(world, name) for name in ("alias", "tag", "webhook", "domain", "own_message")}
        filled = path.format(own=world.own.id, **belongings)
        head = {"Authorization": f"Bearer {world.account.token}"}
        return [Request(request(world.http, method, filled, head), status=status)]

    return make


def _of_key(path: str) -> Make:
    def make(world: World) -> list[Request]:
        filled = path.format(own=world.own.id, own_message=world.own_message)
        return [Request(request(world.http, "GET", filled, {"X-API-Key": world.key}))]

    return make


def _of_boxes(method: str, tail: str, status: bytes = b"200", body: object = None) -> Make:
    """One request a mailbox, with its token; ``{mid}`` is a message of it."""

    def make(world: World) -> list[Request]:
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


def _open_to_all(method: str, path: str, status: bytes = b"200", body: object = None) -> Make:
    def make(world: World) -> list[Request]:
        return [
            Request(request(world.http, method, path, {}, b"" if body is None else orjson.dumps(body)), status=status)
        ]

    return make


FAMILIES: Final[dict[str, Make]] = {
    "health": _open_to_all("GET", "/health"),
    "ready": _open_to_all("GET", "/health/ready"),
    "public config": _open_to_all("GET", "/v1/public/config"),
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
    "inject": _of_boxes("POST", "/messages", b"201", {"from": "a@example.org", "subject": "s", "text": _TEXT}),
    "wait, there already": _of_boxes("GET", "/wait?timeout=1"),
    "me": _of_account("GET", "/v1/auth/me"),
    "own mailboxes": _of_account("GET", "/v1/mailboxes"),
    "own mailbox by account": _of_account("GET", "/v1/mailboxes/{own}/messages"),
    "API keys": _of_account("GET", "/v1/api-keys"),
    "aliases": _of_account("GET", "/v1/mailboxes/{own}/aliases"),
    "an alias": _of_account("GET", "/v1/mailboxes/{own}/aliases/{alias}"),
    "tags": _of_account("GET", "/v1/tags"),
    "messages of a tag": _of_account("GET", "/v1/tags/{tag}/messages"),
    "tags of a message": _of_account("GET", "/v1/mailboxes/{own}/messages/{own_message}/tags"),
    "webhooks": _of_account("GET", "/v1/webhooks"),
    "deliveries": _of_account("GET", "/v1/webhooks/{webhook}/deliveries"),
    "domains": _of_account("GET", "/v1/user/domains"),
    "instructions": _of_account("GET", "/v1/user/domains/{domain}/instructions"),
    "compat: config": _of_key("/api/config"),
    "compat: mailboxes": _of_key("/api/emails"),
    "compat: messages": _of_key("/api/emails/{own}"),
}


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


async def _world(http: Endpoint, advance: Callable[[], None]) -> World:
    async with Api(http) as api:
        boxes = await api.create_mailboxes(_MAILBOXES)
        messages = await _filled(api, boxes, advance)
        account = await api.register()
        token = account.token
        made = await api.make("/v1/mailboxes", {}, token)
        own = Mailbox(made["id"], made["address"], made["token"])
        letter = await api.make(own.messages_path, {"from": "a@example.org", "text": _TEXT}, token)
        tag = await api.make("/v1/tags", {"name": "bench", "color": "#336699"}, token)
        await api.make(f"{own.messages_path}/{letter['id']}/tags", {"tagId": tag["id"]}, token)
        local, _, served = own.address.partition("@")
        alias = await api.make(f"/v1/mailboxes/{own.id}/aliases", {"address": f"also.{local}@{served}"}, token)
        webhook = {"url": "https://example.org/hook", "events": ["mail.read"]}
        domain = {"domain": f"{account.id[:8]}.example", "mode": "exclusive"}
        return World(
            http=http,
            boxes=boxes,
            messages=messages,
            account=account,
            key=(await api.make("/v1/api-keys", {"name": "bench"}, token))["key"],
            own=own,
            own_message=letter["id"],
            alias=alias["id"],
            tag=tag["id"],
            webhook=(await api.make("/v1/webhooks", webhook, token))["id"],
            domain=(await api.make("/v1/user/domains", domain, token))["id"],
        )


def run(console: Console, options: Options, work: Path, target: Target | None) -> dict[str, Any]:
    """Measure and show; {family: latency and rate}. LoadError where a family answered anything but what it should."""
    wanted = options.families or tuple(FAMILIES)
    results: dict[str, Any] = {}
    with ExitStack() as stack:
        aim = target or stack.enter_context(own_server(work, options.server))
        bar = stack.enter_context(progress(console))
        filling = bar.add_task("mailboxes and their mail", total=_MAILBOXES)
        world = asyncio.run(_world(aim.http, lambda: bar.advance(filling)))
        sets: dict[str, Sequence[Request]] = {name: FAMILIES[name](world) for name in wanted}
        generators = stack.enter_context(Generators(1, sets))
        load = Load(options.connections, options.seconds, options.rate)
        task = bar.add_task("families", total=len(wanted))
        for seed, name in enumerate(wanted):
            bar.update(task, description=name)
            outcome = generators.run(aim.http, name, load, seed)
            if outcome.errors:
                raise LoadError(f"{name}: {dict(outcome.errors)}")
            results[name] = {"rate": outcome.rate, "latency": asdict(summarise(outcome.latencies))}
            bar.advance(task)
        _show(console, options, {name: outcome["latency"] for name, outcome in results.items()})
    return {"families": results}


def _show(console: Console, options: Options, latencies: dict[str, Any]) -> None:
    rows = [[name, *latency_cells(Latency(**latency))] for name, latency in latencies.items()]
    title = f"{options.rate:,.0f} requests/s offered to one family at a time, latency from the due time"
    console.print(table(title, ["family", "p50", "p95", "p99", "max"], rows))
