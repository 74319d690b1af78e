"""No route asks the database more often than FLOW.md says: a shard in this process, its statements counted.

Cold is a request whose credential and mailbox this worker has forgotten, hot the same request again; what it leaves to
be done after its answer counts too. BEGIN, COMMIT and COPY do not, nor does what the driver asks for itself. What runs
beside a request only ever adds: the least of several samples is the truth.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import asyncpg
import msgspec
import pytest

from server.bus.neighbours import Lines
from server.cache import keys
from server.cache.buckets import Buckets
from server.cache.generations import Generations, Writer
from server.cache.places import Places
from server.config import Config
from server.metrics import Board
from server.notation import Address
from server.shards.context import WorkerContext
from server.shards.sockets import bind_slots
from server.shards.wiring import Shard
from server.store.standings import Standings
from tests.contract.world import PASSWORD, Owner, owner

FLOW: Final = Path(__file__).parents[2] / "server" / "FLOW.md"
OWNERS: Final = 3
_SETTLED: Final = 0.03  # seconds in which what follows an answer is done
_UNCOUNTED: Final = re.compile(
    r"\s*(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|SELECT pg_advisory_unlock_all)\b|.*typeinfo_tree|.*set_config\('jit'",
    re.S,
)


class Case(NamedTuple):
    """One request: the route, the credential, its body, and the query string."""

    route: str
    credential: str = "jwt"
    body: Callable[[Owner], Any] | None = None
    query: str = ""

    @property
    def label(self) -> str:
        return self.route + self.query


def fresh_address(_: Owner) -> dict[str, str]:
    return {"address": f"alias-{secrets.token_hex(5)}@temp.mail"}


BOX, MESSAGE = "/v1/mailboxes/{id}", "/v1/mailboxes/{id}/messages/{mid}"

CASES: Final = (
    Case("GET /v1/public/config"),
    Case("POST /v1/auth/login", body=lambda one: {"email": one.email, "password": PASSWORD}),
    Case("GET /v1/auth/me"),
    Case("POST /v1/mailboxes", "guest", lambda _: {}),
    Case("GET /v1/mailboxes"),
    Case(f"GET {BOX}", "token"),
    Case(f"PATCH {BOX}", "token", lambda _: {"expiresIn": "1h"}),
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
    Case(f"GET {BOX}/wait", "token", query="?timeout=1"),
    Case(f"GET {BOX}/aliases", "token"),
    Case(f"POST {BOX}/aliases", "token", fresh_address),
    Case("GET /v1/tags"),
    Case("GET /v1/tags/{id}"),
    Case("GET /v1/tags/{id}/messages"),
    Case("GET /v1/api-keys"),
    Case("GET /v1/webhooks"),
    Case("GET /v1/webhooks/{id}"),
    Case("GET /v1/webhooks/{id}/deliveries"),
    Case("GET /v1/user/domains"),
    Case("GET /v1/user/domains/{id}"),
    Case("GET /v1/user/domains/{id}/instructions"),
    Case("GET /api/config", "key"),
    Case("POST /api/emails/generate", "key", lambda _: {"name": "", "expiryTime": 3600000, "domain": "temp.mail"}),
    Case("GET /api/emails", "key"),
    Case("GET /api/emails/{id}", "key"),
    Case("GET /api/emails/{id}/{mid}", "key"),
)

ADMINISTRATION: Final = (
    Case("GET /v1/admin/users"),
    Case("GET /v1/admin/users/{id}"),
    Case("PATCH /v1/admin/users/{id}", body=lambda _: {"isEmailVerified": True}),
    Case("GET /v1/admin/users/{id}/quota"),
    Case("GET /v1/admin/statistics"),
    Case("GET /v1/admin/domains"),
    Case("GET /v1/admin/domains/{id}"),
    Case("GET /v1/admin/domains/{id}/instructions"),
    Case("GET /v1/admin/config"),
    Case("GET /v1/admin/audit"),
)
ENDINGS: Final = (
    Case(f"DELETE {BOX}/aliases/{{aid}}", "token"),
    Case(f"DELETE {MESSAGE}/tags/{{tagId}}"),
    Case(f"DELETE {MESSAGE}", "token"),
    Case(f"DELETE {BOX}/messages", "token"),
    Case("DELETE /v1/tags/{id}"),
    Case("DELETE /v1/webhooks/{id}"),
    Case("DELETE /v1/user/domains/{id}"),
    Case("DELETE /v1/api-keys/{id}"),
    Case(f"DELETE {BOX}", "token"),
    Case("POST /v1/auth/logout", body=lambda _: {}),
)


class Counted:
    """A running shard, the statements it has made, and a way to make it forget."""

    def __init__(self, config: Config) -> None:
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
        )
        self._generations = Generations(2)
        self._other = Writer(self._generations, 1)  # as another worker of the host
        self.queries: list[str] = []

    async def start(self, closing: AsyncExitStack) -> str:
        """The base of its URLs."""
        sockets = bind_slots(self._config, 1)[0]
        closing.callback(sockets.close)
        shared = self._generations, Buckets(), Places(), Standings(0), Lines(2)
        context = WorkerContext(0, 0, sockets, *shared, lambda: None, lambda: None)
        shard = Shard(self._config, context, Board(2), b"count123")
        closing.push_async_callback(shard.close)
        await shard.start()
        closing.push_async_callback(shard.drain, 5.0)
        self._pools = shard._pools
        await self._listen(shard._pools.users.pool)
        await self._listen(shard._pools.arrivals.pool)
        return f"http://127.0.0.1:{sockets.http.getsockname()[1]}"

    async def _listen(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        """Hear of every statement on every connection the pool may have."""
        async with AsyncExitStack() as held:
            for _ in range(pool.get_max_size()):
                connection = await held.enter_async_context(pool.acquire())
                connection.add_query_logger(self._heard)

    def _heard(self, record: asyncpg.connection.LoggedQuery) -> None:
        if not _UNCOUNTED.match(record.query):
            self.queries.append(record.query)

    async def promote(self, one: Owner) -> None:
        await self._pools.users.execute("UPDATE users.users SET role = 'super' WHERE id = $1", one.ids["user"])

    def forget(self, one: Owner) -> None:
        """What the worker remembers of an account and its mailbox is void."""
        mailbox = one.ids["mailbox"]
        known = keys.mailbox(mailbox), keys.record(mailbox), keys.user(one.ids["user"])
        self._other.bump({self._generations.slot(key) for key in known})


@pytest.fixture
async def counted(settings: Config) -> AsyncIterator[tuple[Counted, str]]:
    async with AsyncExitStack() as closing:
        counter = Counted(settings)
        yield counter, await counter.start(closing)


async def cost(counter: Counted, client: aiohttp.ClientSession, case: Case, one: Owner) -> int:
    """How many statements one request takes."""
    method, template = case.route.split(" ")
    before = len(counter.queries)
    body = case.body(one) if case.body else None
    head = {} if case.credential == "guest" else one.head(case.credential)
    url = one.base + one.path(template) + case.query
    async with client.request(method, url, headers=head, json=body) as response:
        assert response.status < 300, (case.route, response.status, await response.text())
    await asyncio.sleep(_SETTLED)
    return len(counter.queries) - before


async def measured(counter: Counted, base: str) -> dict[str, tuple[int, int]]:
    """Statements by case: cold, hot."""
    found = {}
    async with aiohttp.ClientSession() as client:
        owners = [await owner(client, base) for _ in range(OWNERS)]
        for case in CASES:
            cold, hot = [], []
            for one in owners:
                counter.forget(one)
                cold.append(await cost(counter, client, case, one))
                hot.append(await cost(counter, client, case, one))
            found[case.label] = min(cold), min(hot)
        for case in ENDINGS:
            once = []
            for one in owners:
                counter.forget(one)
                once.append(await cost(counter, client, case, one))
            found[case.label] = min(once), min(once)  # what is gone cannot be deleted again
    return found


async def of_administrators(counter: Counted, base: str) -> dict[str, tuple[int, int]]:
    """The same for administrators, who act on one another here."""
    found = {}
    async with aiohttp.ClientSession() as client:
        owners = [await owner(client, base) for _ in range(OWNERS)]
        for one in owners:
            await counter.promote(one)
        for case in ADMINISTRATION:
            cold, hot = [], []
            for one, other in zip(owners, owners[1:] + owners[:1], strict=True):
                acting = replace(one, ids=one.ids | {"user": other.ids["user"]})
                counter.forget(one)
                cold.append(await cost(counter, client, case, acting))
                hot.append(await cost(counter, client, case, acting))
            found[case.label] = min(cold), min(hot)
    return found


def stated() -> dict[str, tuple[int, int]]:
    """FLOW.md's table: ``| `GET /path` | cold | hot |``."""
    rows = re.findall(r"^\| `((?:GET|POST|PATCH|DELETE) /[^`]*)` \| (\d+) \| (\d+) \|$", FLOW.read_text(), re.MULTILINE)
    return {label: (int(cold), int(hot)) for label, cold, hot in rows}


async def test_queries_are_those_that_flow_md_states(counted: tuple[Counted, str]) -> None:
    found = await measured(*counted) | await of_administrators(*counted)
    table = "\n".join(f"| `{label}` | {cold} | {hot} |" for label, (cold, hot) in found.items())
    assert stated() == found, f"FLOW.md should say:\n{table}"
