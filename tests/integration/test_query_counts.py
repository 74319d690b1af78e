"""No route asks the database more often than FLOW.md says: a shard in this process, its statements counted.

Cold is a request whose credential and mailbox this worker has forgotten, hot the same request again; what it leaves to
be done after its answer counts too. BEGIN, COMMIT and COPY do not, nor does what the driver asks for itself. What runs
beside a request only ever adds: the least of several samples is the truth.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import asyncpg
import msgspec
import pytest

from server.bus.local_bus import SocketPairs
from server.cache import keys
from server.cache.buckets import Buckets
from server.cache.generations import Generations, Writer
from server.cache.marks import Marks
from server.cache.semaphore import SharedSemaphore
from server.config.parsing import Address
from server.config.settings import Config
from server.metrics import Board
from server.services.accounts.account_cleanup import Departures
from server.shards.compose import Shard
from server.shards.condition import Condition
from server.shards.context import WorkerContext
from server.shards.sockets import bind_slots
from server.store.connection_cache import ConnectionCache
from server.store.replicas.positions import Positions
from server.web.api.routes import ROUTES
from tests.contract.world import PASSWORD, Owner, owner
from tests.nameserver import Zones, name_server

FLOW: Final = Path(__file__).parents[2] / "server" / "FLOW.md"
OWNERS: Final = 3
_SETTLED: Final = 0.03  # seconds without a statement after which what follows an answer is done
_UNCOUNTED: Final = re.compile(
    r"\s*(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|SELECT pg_advisory_unlock_all)\b|.*typeinfo_tree|.*set_config\('jit'",
    re.S,
)


class Case(NamedTuple):
    """One request: the route, the credential, its body, the query string, and what to remember of its answer."""

    route: str
    credential: str = "jwt"
    body: Callable[[Owner], Any] | None = None
    query: str = ""
    then: "Callable[[Counted, Owner, Any], None] | None" = None

    @property
    def label(self) -> str:
        return self.route + self.query


def fresh(_: Owner) -> str:
    return secrets.token_hex(5)


def registration(one: Owner) -> dict[str, str]:
    return {"email": f"{fresh(one)}@example.org", "password": PASSWORD}


def hook(_: Owner) -> dict[str, Any]:
    return {"url": "https://example.org/hook", "events": ["tag.deleted"]}


def colour(one: Owner) -> dict[str, str]:
    return {"name": fresh(one), "color": "#336699"}


def claim(one: Owner) -> dict[str, str]:
    return {"domain": f"{fresh(one)}.example", "mode": "exclusive"}


def banned(one: Owner) -> dict[str, str]:
    return {"kind": "sender", "value": f"{fresh(one)}@example.org", "reason": "counted"}


def made_ban(_: "Counted", one: Owner, answer: Any) -> None:
    one.ids["ban"] = answer["data"]["id"]


def renewed(_: "Counted", one: Owner, answer: Any) -> None:
    one.refresh = answer["data"]["refreshToken"]


def reopened(_: "Counted", one: Owner, answer: Any) -> None:
    one.box_token = answer["data"]["token"]


def default(_: "Counted", one: Owner, answer: Any) -> None:
    one.ids["domain"] = answer["data"]["items"][0]["id"]


def proved(counter: "Counted", one: Owner, answer: Any) -> None:
    """The owner of the new domain publishes what its instructions say."""
    made = answer["data"]
    one.ids |= {"domain": made["id"], "name": made["domain"]}
    counter.zones.prove(made["domain"], made["verifyToken"])


BOX, MESSAGE = "/v1/mailboxes/{id}", "/v1/mailboxes/{id}/messages/{mid}"
DOMAIN, SYSTEM, WEBHOOK = "/v1/user/domains/{id}", "/v1/admin/domains", "/v1/webhooks/{id}"

CASES: Final = (
    Case("GET /health/ready", "guest"),
    Case("GET /v1/public/domains", "guest"),
    Case("GET /v1/public/config", "guest"),
    Case("POST /v1/auth/register", "guest", registration),
    Case("POST /v1/auth/login", "guest", lambda one: {"email": one.email, "password": PASSWORD}),
    Case("POST /v1/auth/refresh", "guest", lambda one: {"refreshToken": one.refresh}, then=renewed),
    Case("GET /v1/auth/me"),
    Case("POST /v1/mailboxes", "guest", lambda _: {}),
    Case("GET /v1/mailboxes"),
    Case(f"GET {BOX}", "token"),
    Case(f"PATCH {BOX}", "token", lambda _: {"expiresIn": "1h"}),
    Case(f"POST {BOX}/token", "token", then=reopened),
    Case(f"GET {BOX}/messages", "token"),
    Case("GET /v1/messages", query="?q=x"),
    Case(f"POST {BOX}/messages", "token", lambda _: {"from": "a@example.org"}),
    Case(f"GET {BOX}/messages/search", "token", query="?q=x"),
    Case(f"GET {MESSAGE}", "token"),
    Case(f"GET {MESSAGE}/raw", "token"),
    Case(f"GET {MESSAGE}/attachments/{{aid}}", "token"),
    Case(f"POST {MESSAGE}/read", "token"),
    Case(f"GET {MESSAGE}/tags"),
    Case(f"POST {MESSAGE}/tags", body=lambda one: {"tagId": one.ids["tag"]}),
    Case(f"GET {BOX}/trace", "token"),
    Case(f"GET {BOX}/wait", "token", query="?timeout=1&after=0"),
    Case("GET /v1/ws"),
    Case(f"GET {BOX}/aliases", "token"),
    Case(f"POST {BOX}/aliases", "token", lambda one: {"address": f"alias-{fresh(one)}@temp.mail"}),
    Case(f"GET {BOX}/aliases/{{aid}}", "token"),
    Case(f"PATCH {BOX}/aliases/{{aid}}", "token", lambda _: {"isActive": False}),
    Case("POST /v1/tags", body=colour),
    Case("GET /v1/tags"),
    Case("GET /v1/tags/{id}"),
    Case("PATCH /v1/tags/{id}", body=colour),
    Case("GET /v1/tags/{id}/messages"),
    Case("POST /v1/api-keys", body=lambda one: {"name": fresh(one)}),
    Case("GET /v1/api-keys"),
    Case("GET /v1/api-keys/{id}"),
    Case("POST /v1/webhooks", body=hook),
    Case("GET /v1/webhooks"),
    Case(f"GET {WEBHOOK}"),
    Case(f"PATCH {WEBHOOK}", body=hook),
    Case(f"GET {WEBHOOK}/deliveries"),
    Case(f"POST {WEBHOOK}/test"),
    Case("POST /v1/webhooks/deliveries/{id}/replay"),
    Case(f"POST {WEBHOOK}/rotate-secret"),
    Case("POST /v1/user/domains", body=claim, then=proved),
    Case("GET /v1/user/domains"),
    Case(f"GET {DOMAIN}"),
    Case(f"GET {DOMAIN}/instructions"),
    Case(f"POST {DOMAIN}/verify"),
    Case(f"PATCH {DOMAIN}", body=lambda _: {"mode": "shared"}),
    Case("GET /api/config", "key"),
    Case("POST /api/emails/generate", "key", lambda _: {"name": "", "expiryTime": 3600000, "domain": "temp.mail"}),
    Case("GET /api/emails", "key"),
    Case("GET /api/emails/{id}", "key"),
    Case("GET /api/emails/{id}/{mid}", "key"),
)
# That a reader has gone is seen at the next heartbeat: until then what befalls its mailbox is looked up for it.
STREAMS: Final = (Case(f"GET {BOX}/events", "token"),)
ENDINGS: Final = (
    Case(f"DELETE {BOX}/aliases/{{aid}}", "token"),
    Case(f"DELETE {MESSAGE}/tags/{{tid}}"),
    Case(f"DELETE {MESSAGE}", "token"),
    Case(f"DELETE {BOX}/messages", "token"),
    Case("DELETE /v1/tags/{id}"),
    Case(f"DELETE {WEBHOOK}"),
    Case(f"DELETE {DOMAIN}"),
    Case("DELETE /v1/api-keys/{id}"),
    Case(f"DELETE {BOX}", "token"),
    Case("POST /v1/auth/logout", body=lambda _: {}),
)
COMPATIBLE_ENDINGS: Final = (Case("DELETE /api/emails/{id}/{mid}", "key"), Case("DELETE /api/emails/{id}", "key"))
QUOTA: Final = dict.fromkeys(
    ("maxMailboxes", "maxMessagesPerMailbox", "maxApiRequestsPerMinute", "maxConcurrentRequests"), 50
)
ADMINISTRATION: Final = (
    Case("GET /v1/admin/users"),
    Case("GET /v1/admin/users/{id}"),
    Case("PATCH /v1/admin/users/{id}", body=lambda _: {"isEmailVerified": True}),
    Case("GET /v1/admin/users/{id}/quota"),
    Case("PUT /v1/admin/users/{id}/quota", body=lambda _: QUOTA),
    Case("GET /v1/admin/statistics"),
    Case(f"GET {SYSTEM}", then=default),
    Case(f"POST {SYSTEM}/{{id}}/set-default"),
    Case(f"POST {SYSTEM}", body=lambda one: {"domain": f"{fresh(one)}.example"}, then=proved),
    Case(f"GET {SYSTEM}/{{id}}"),
    Case(f"GET {SYSTEM}/{{id}}/instructions"),
    Case(f"POST {SYSTEM}/{{id}}/verify"),
    Case(f"POST {SYSTEM}/recover", body=lambda one: {"domain": one.ids["name"]}),
    Case(f"PATCH {SYSTEM}/{{id}}/toggle", body=lambda _: {"isActive": True}),
    Case("GET /v1/admin/config"),
    Case("PUT /v1/admin/config", body=lambda _: {"mailbox": {"maxAliases": 7}}),
    Case("POST /v1/admin/config/reset"),
    Case("GET /v1/admin/audit"),
    Case("GET /v1/admin/trace"),
    Case("GET /v1/admin/mailboxes"),
    Case("GET /v1/admin/mailboxes/{id}"),
    Case("PATCH /v1/admin/mailboxes/{id}", body=lambda _: {"isActive": True}),
    Case("GET /v1/admin/bans"),
    Case("POST /v1/admin/bans", body=banned, then=made_ban),
)
ADMINISTRATIVE_ENDINGS: Final = (
    Case("DELETE /v1/admin/mailboxes/{id}"),
    Case("DELETE /v1/admin/bans/{id}"),
    Case(f"DELETE {SYSTEM}/{{id}}"),
    Case("DELETE /v1/admin/users/{id}"),
)
UNASKED: Final = (
    # What stands in memory since the start, the same for everybody. They are held to no query at all.
    Case("GET /", "guest"),
    Case("GET /openapi.json", "guest"),
    Case("GET /docs", "guest"),
    Case("GET /static/{file}", "guest"),
    # Whether the process answers, and what its board says: a probe must not hang on the database.
    Case("GET /health", "guest"),
    Case("GET /health/live", "guest"),
    Case("GET /metrics", "guest"),
)
STATED: Final = (*CASES, *STREAMS, *ENDINGS, *COMPATIBLE_ENDINGS, *ADMINISTRATION, *ADMINISTRATIVE_ENDINGS)


class Counted:
    """A running shard, the statements it has made, and a way to make it forget."""

    def __init__(self, config: Config, zones: Zones) -> None:
        self.zones = zones
        anywhere = Address("127.0.0.1", 0)
        self._config = msgspec.structs.replace(
            config,
            http=anywhere,
            smtp=anywhere,
            workers=1,
            database_max_open=3,
            domains=("temp.mail",),
            jwt_secret=secrets.token_hex(32),
            rate_exempt=(ip_network("127.0.0.0/8"),),
            dns_servers=(zones.address,),
            roles=("smtp", "web", "push"),  # what the clockworks of webhooks and of endings ask is no request's
        )
        self._generations = Generations(2)
        self._other = Writer(self._generations, 1)  # as another worker of the host
        self.queries: list[str] = []

    async def start(self, closing: AsyncExitStack) -> str:
        """The base of its URLs."""
        sockets = bind_slots(self._config, 1)[0]
        closing.callback(sockets.close)
        self._condition = Condition(1, 2)
        self._condition.serve(0, True, 0.0)
        shared = self._generations, Buckets(), SharedSemaphore(), Marks(), Positions(0), SocketPairs(2), self._condition
        context = WorkerContext(0, 0, sockets, *shared, lambda: None, lambda: None)
        shard = Shard(self._config, context, Board(2), b"count123")
        closing.push_async_callback(shard.close)
        await shard.start()
        closing.push_async_callback(shard.drain, 5.0)
        self._shard, self._pools = shard, shard._pools
        shard._acts.cancel()  # nor are its looks at what the command line did
        await shard._readiness.close()  # what it looks at by itself would answer the request
        self._lenders = [pool.lender for pool in (shard._pools.users, shard._pools.arrivals, shard._pools.pages)]
        for lender in self._lenders:
            await self._listen(lender)
        assert sockets.smtp is not None
        self.smtp: tuple[str, int] = sockets.smtp.getsockname()[:2]
        return f"http://127.0.0.1:{sockets.http.getsockname()[1]}"

    async def _listen(self, lender: ConnectionCache) -> None:
        """Hear of every statement on every connection the pool may have."""
        async with AsyncExitStack() as held:
            for _ in range(lender.pool.get_max_size()):
                connection = await held.enter_async_context(lender.acquire())
                connection.add_query_logger(self._heard)

    def _heard(self, record: asyncpg.connection.LoggedQuery) -> None:
        if not _UNCOUNTED.match(record.query):
            self.queries.append(record.query)

    async def settled(self) -> None:
        """Return when nothing is asked any more. A statement is known once it is answered, however late that may be."""
        known = -1
        while known != (known := len(self.queries)) or self._asking():
            await asyncio.sleep(_SETTLED)

    def _asking(self) -> bool:
        """Whether any connection is in use."""
        return any(one.pool.get_idle_size() + len(one._at_hand) < one.pool.get_size() for one in self._lenders)

    async def promote(self, one: Owner) -> None:
        await self._pools.users.execute("UPDATE users.users SET role = 'super' WHERE id = $1", one.ids["account"])

    def forget(self, one: Owner) -> None:
        """What the worker remembers of an account and its mailbox is void, and that it was ready a moment ago."""
        self._condition._page[:] = bytes(len(self._condition._page))
        mailbox = one.ids["mailbox"]
        known = keys.mailbox(mailbox), keys.record(mailbox), keys.user(one.ids["account"])
        self._other.bump({self._generations.slot(key) for key in known})


@pytest.fixture
async def counted(settings: Config, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Counted, str]]:
    monkeypatch.setattr(Departures, "start", lambda _: None)  # any worker clears up after an account, whenever it likes
    async with AsyncExitStack() as closing:
        counter = Counted(settings, closing.enter_context(name_server()))
        yield counter, await counter.start(closing)


async def subscribe(client: aiohttp.ClientSession, one: Owner) -> Any:
    async with client.ws_connect(one.base + "/v1/ws", headers=one.head("jwt")) as socket:
        await socket.send_json({"type": "subscribe", "mailboxId": one.ids["mailbox"]})
        said = await socket.receive_json(timeout=60)
        assert said["type"] == "subscribed"
        return said


async def ask(client: aiohttp.ClientSession, case: Case, one: Owner) -> Any:
    """The answer as far as anything is remembered of it."""
    if case.route == "GET /v1/ws":
        return await subscribe(client, one)
    method, template = case.route.split(" ")
    body = case.body(one) if case.body else None
    head = {} if case.credential == "guest" else one.head(case.credential)
    url = one.base + one.path(template) + case.query
    async with client.request(method, url, headers=head, json=body) as response:
        assert response.status < 300, (case.route, response.status, await response.text())
        return await response.json() if case.then else None


async def cost(counter: Counted, client: aiohttp.ClientSession, case: Case, one: Owner) -> int:
    """How many statements one request takes."""
    before = len(counter.queries)
    answer = await ask(client, case, one)
    await counter.settled()
    spent = len(counter.queries) - before
    if case.then:
        case.then(counter, one, answer)
    return spent


class Measured:
    """Statements by case: cold, hot. Each is the least of what it took several owners."""

    def __init__(self, counter: Counted, base: str, client: aiohttp.ClientSession) -> None:
        self._counter, self._base, self._client = counter, base, client
        self.found: dict[str, tuple[int, int]] = {}

    async def owners(self) -> list[Owner]:
        made = [await owner(self._client, self._base) for _ in range(OWNERS)]
        for one in made:
            one.ids["account"] = one.ids["user"]
        return made

    async def administrators(self) -> list[Owner]:
        """Each names another one's account, which has no rights, where a path wants a user."""
        acting, subjects = await self.owners(), await self.owners()
        for one, other in zip(acting, subjects, strict=True):
            await self._counter.promote(one)
            self._counter.forget(one)
            one.ids["user"] = other.ids["user"]
        return acting

    async def repeated(self, cases: Iterable[Case], owners: Sequence[Owner]) -> None:
        for case in cases:
            cold, hot = [], []
            for one in owners:
                self._counter.forget(one)
                cold.append(await cost(self._counter, self._client, case, one))
                hot.append(await cost(self._counter, self._client, case, one))
            self.found[case.label] = min(cold), min(hot)

    async def once(self, cases: Iterable[Case], owners: Sequence[Owner]) -> None:
        """What is gone cannot be deleted again."""
        for case in cases:
            spent = []
            for one in owners:
                self._counter.forget(one)
                spent.append(await cost(self._counter, self._client, case, one))
            self.found[case.label] = min(spent), min(spent)


def stated() -> dict[str, tuple[int, int]]:
    """FLOW.md's table: ``| `GET /path` | cold | hot |``."""
    rows = re.findall(
        r"^\| `((?:GET|POST|PUT|PATCH|DELETE) /[^`]*)` \| (\d+) \| (\d+) \|$", FLOW.read_text(), re.MULTILINE
    )
    return {label: (int(cold), int(hot)) for label, cold, hot in rows}


async def test_queries_are_those_that_flow_md_states(counted: tuple[Counted, str]) -> None:
    async with aiohttp.ClientSession() as client:
        measured = Measured(*counted, client)
        users, others, administrators = (
            await measured.owners(),
            await measured.owners(),
            await measured.administrators(),
        )
        await measured.repeated(UNASKED, users)
        assert set(measured.found.values()) == {(0, 0)}, measured.found
        measured.found.clear()
        await measured.repeated(CASES, users)
        await measured.once(ENDINGS, users)
        await measured.once(COMPATIBLE_ENDINGS, others)
        await measured.repeated(STREAMS, await measured.owners())
        await measured.repeated(ADMINISTRATION, administrators)
        await measured.once(ADMINISTRATIVE_ENDINGS, administrators)
    found = measured.found
    table = "\n".join(f"| `{label}` | {cold} | {hot} |" for label, (cold, hot) in found.items())
    assert stated() == found, f"FLOW.md should say:\n{table}"


def test_no_route_is_left_out() -> None:
    """Every route has a case and a row in FLOW.md, or is held to no query at all; what is no route has neither."""
    routes = {f"{route.method} {route.path}" for route in ROUTES}
    stated_of, unasked = {case.route for case in STATED}, {case.route for case in UNASKED}
    assert stated_of | unasked == routes
    assert not stated_of & unasked
    assert set(stated()) == {case.label for case in STATED}
