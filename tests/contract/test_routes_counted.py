"""Every route that the contract limits refuses who has spent its requests; every other one is free, whoever asks.

Generated from routes.txt, on one server whose clients have one request a minute. Each test is a client of its own and
spends its request itself, so that no number of tests before it and no slow machine gives one back.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from tests.contract.accounts import Account
from tests.contract.administrators import administrator
from tests.contract.promised import ROWS, Row
from tests.contract.transcript import Answer, ask
from tests.contract.world import UNKNOWN
from tests.running import Server

LIMITED: Final = [row for row in ROWS if row.limited]
UNLIMITED: Final = [row for row in ROWS if not row.limited]
BY_ACCOUNT: Final = [row for row in LIMITED if row.who not in ("none", "key")]
BY_KEY: Final = [row for row in LIMITED if row.scopes]
AMPLE: Final = 20  # s until the next request may pass, that a test begins with at least
HEADERS: Final = {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}


@dataclass
class Counted:
    """The server, and a super user with an API key who may ask once a minute."""

    server: Server
    account: Account
    key: str
    clients: int = 0

    def client(self) -> dict[str, str]:
        """The header of a client that never asked before."""
        self.clients += 1
        return {"X-Forwarded-For": f"198.51.{self.clients // 250}.{self.clients % 250 + 1}"}

    async def spent(self, path: str, head: dict[str, str]) -> None:
        """Ask until nothing is left for a while."""
        for _ in range(100):
            answer = await ask(self.server, "GET", path, headers=head)
            if answer.status == 429 and int(answer.headers["Retry-After"]) >= AMPLE:
                return
            if answer.status == 429:
                await asyncio.sleep(int(answer.headers["Retry-After"]))
        pytest.fail(f"a hundred requests to {path} were not too many")


async def made(server: Server) -> Counted:
    account = await administrator(server, "super")
    every = ["mailbox:read", "mailbox:write", "mail:read", "mail:write"]
    key = (await account.ask("POST", "/v1/api-keys", json={"name": "one a minute", "scopes": every})).data["key"]
    quota = f"/v1/admin/users/{account.id}/quota"
    assert (await account.ask("PUT", quota, json={"maxApiRequestsPerMinute": 1})).status == 200
    return Counted(server, account, key)


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    settings = {
        "RATE_LIMIT_EXEMPT": "127.0.0.0/8",  # who makes the account; clients come through the proxy
        "TRUSTED_PROXIES": "127.0.0.0/8",
        "RATE_LIMIT_REQUESTS_PER_MINUTE": "1",
        "RATE_LIMIT_BURST": "1",
    }
    server = Server(tmp_path_factory.mktemp("counted"), **settings).start()
    yield asyncio.run(made(server))
    assert server.stop() == 0, server.log[-4000:]


def refused(answer: Answer) -> None:
    assert answer.status == 429, answer.body
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.headers["X-RateLimit-Limit"] == "1"
    assert answer.headers["X-RateLimit-Remaining"] == "0"
    if "data" in answer.json:
        assert answer.error == "rate_limited"


@pytest.mark.parametrize("row", LIMITED, ids=[row.name for row in LIMITED])
async def test_an_address_that_has_spent_its_requests_is_refused(counted: Counted, row: Row) -> None:
    client = counted.client()
    await counted.spent("/v1/public/domains", client)
    heads = [{}, {"Authorization": "Bearer a.b.c"}, {"X-API-Key": "wrong"}]
    if row.who == "mailbox":
        heads.append({"X-Mailbox-Token": "x" * 43})
    for head in heads:
        refused(await ask(counted.server, row.method, row.filled(UNKNOWN), headers=client | head))


@pytest.mark.parametrize("row", BY_ACCOUNT, ids=[row.name for row in BY_ACCOUNT])
async def test_an_account_that_has_spent_its_requests_is_refused(counted: Counted, row: Row) -> None:
    head = counted.client() | counted.account.auth
    await counted.spent("/v1/auth/me", head)
    refused(await ask(counted.server, row.method, row.filled(UNKNOWN), headers=head))


@pytest.mark.parametrize("row", BY_KEY, ids=[row.name for row in BY_KEY])
async def test_a_key_spends_the_requests_of_its_account(counted: Counted, row: Row) -> None:
    client = counted.client()
    await counted.spent("/v1/auth/me", client | counted.account.auth)
    refused(await ask(counted.server, row.method, row.filled(UNKNOWN), headers=client | {"X-API-Key": counted.key}))


@pytest.mark.parametrize("row", UNLIMITED, ids=[row.name for row in UNLIMITED])
async def test_what_is_not_limited_is_answered_to_who_has_spent_everything(counted: Counted, row: Row) -> None:
    client = counted.client()
    await counted.spent("/v1/public/domains", client)
    for head in ({}, counted.account.auth):
        answer = await ask(counted.server, row.method, row.path, headers=client | head)
        assert answer.status == 200
        assert not HEADERS & set(answer.headers)
