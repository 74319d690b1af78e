"""Rate limits as clients see them, and whose budget a request is taken from."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable

import aiohttp

from tests.contract.accounts import register
from tests.contract.transcript import Answer, ask
from tests.running import Server

LIMITED = {
    "RATE_LIMIT_EXEMPT": "",
    "RATE_LIMIT_REQUESTS_PER_MINUTE": "1",  # far slower than any machine asks
    "RATE_LIMIT_BURST": "5",
    "MAILBOX_MAX_PER_IP": "2",
    "TRUSTED_PROXIES": "127.0.0.0/8,10.0.0.0/8",
}


def budget(answer: Answer) -> tuple[int, int]:
    return int(answer.headers["X-RateLimit-Limit"]), int(answer.headers["X-RateLimit-Remaining"])


async def test_a_client_over_its_rate_gets_429_even_where_there_is_no_route(own_server: Callable[..., Server]) -> None:
    server = own_server(**LIMITED)
    client = {"X-Forwarded-For": "198.51.100.1"}
    for remaining in (4, 3, 2, 1, 0):
        answer = await ask(server, "GET", "/v1/public/domains", headers=client)
        assert (answer.status, budget(answer)) == (200, (5, remaining))
        assert int(answer.headers["X-RateLimit-Reset"]) >= time.time() - 60
    for path in ("/v1/public/config", "/v1/mailboxes/x", "/v1/nowhere"):
        refused = await ask(server, "GET", path, headers=client | {"Accept-Language": "zh"})
        assert (refused.status, refused.error) == (429, "rate_limited")
        assert refused.json["msg"] == "请求过于频繁，请稍后重试"
        assert 1 <= int(refused.headers["Retry-After"]) <= 61
        assert budget(refused) == (5, 0)
    another = await ask(server, "GET", "/v1/public/domains", headers={"X-Forwarded-For": "198.51.100.2"})
    assert (another.status, budget(another)) == (200, (5, 4))


async def test_a_client_cannot_choose_its_address(own_server: Callable[..., Server]) -> None:
    server = own_server(**LIMITED)
    for claimed, expected in (
        ("203.0.113.9", 4),
        ("1.2.3.4, 203.0.113.9", 3),
        ("203.0.113.9, 10.1.2.3", 2),
        ("nonsense, 203.0.113.9:4711, 10.1.2.3", 1),
        ("::ffff:203.0.113.9", 0),
    ):
        answer = await ask(server, "GET", "/v1/public/domains", headers={"X-Forwarded-For": claimed})
        assert budget(answer) == (5, expected), claimed


async def test_a_peer_that_is_no_proxy_is_counted_as_itself(own_server: Callable[..., Server]) -> None:
    server = own_server(**LIMITED | {"TRUSTED_PROXIES": ""})
    for number, expected in enumerate((4, 3, 2, 1, 0)):
        answer = await ask(server, "GET", "/v1/public/domains", headers={"X-Forwarded-For": f"203.0.113.{number}"})
        assert budget(answer) == (5, expected)


async def test_an_answer_from_memory_costs_as_much_as_any(own_server: Callable[..., Server]) -> None:
    server = own_server(**LIMITED | {"WORKERS": "1"})
    box = await server.mailbox()
    client = {"X-Forwarded-For": "198.51.100.7"}
    path = f"/v1/mailboxes/{box.id}/messages"
    tag = (await ask(server, "GET", path, box, client)).headers["ETag"]
    for remaining in (3, 2, 1, 0):
        answer = await ask(server, "GET", path, box, client | {"If-None-Match": tag})
        assert (answer.status, budget(answer)) == (304, (5, remaining))
    assert (await ask(server, "GET", path, box, client | {"If-None-Match": tag})).status == 429


async def test_a_guest_makes_so_many_mailboxes_a_day(own_server: Callable[..., Server]) -> None:
    server = own_server(**LIMITED)
    client = {"X-Forwarded-For": "198.51.100.8"}
    assert [(await ask(server, "POST", "/v1/mailboxes", headers=client)).status for _ in range(2)] == [201, 201]
    refused = await ask(server, "POST", "/v1/mailboxes", headers=client)
    assert (refused.status, refused.error) == (429, "too_many_mailboxes")
    assert int(refused.headers["Retry-After"]) > 60


@contextlib.asynccontextmanager
async def unfinished(server: Server, path: str, headers: dict[str, str], count: int) -> AsyncIterator[list[int]]:
    """``count`` requests whose bodies stop half way until the block is left; then their statuses. One that is refused,
    for another was at that moment in its place, comes again.
    """
    enough, halves, statuses = asyncio.Event(), asyncio.Semaphore(0), list[int]()
    text = json.dumps({"from": "a@example.org", "subject": "slow", "text": "x"}).encode()

    async def body() -> AsyncIterator[bytes]:
        yield text[:10]
        halves.release()
        await enough.wait()
        yield text[10:]

    async def send() -> None:
        async with aiohttp.ClientSession(server.http, headers=headers) as client:
            status = 429
            while status == 429:
                async with client.post(path, data=body()) as made:
                    status = made.status
            statuses.append(status)

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(send())
        for _ in range(count):
            await halves.acquire()
        try:
            yield statuses
        finally:
            enough.set()


async def test_an_account_has_so_many_requests_at_once_in_all_workers_together(
    own_server: Callable[..., Server],
) -> None:
    server = own_server(RATE_LIMIT_EXEMPT="", WORKERS="2")
    account = await register(server)
    box = await account.mailbox()
    async with unfinished(server, f"/v1/mailboxes/{box.id}/messages", account.auth, 5) as statuses:
        deadline = time.monotonic() + 60
        while (refused := await account.ask("GET", "/v1/tags")).status != 429:
            assert time.monotonic() < deadline  # the last of the five may not have got its place yet
            await asyncio.sleep(0.5)
        again = [await account.ask("GET", "/v1/tags") for _ in range(6)]  # a connection each: either worker answers
    assert {(answer.status, answer.error) for answer in [refused, *again]} == {(429, "rate_limited")}
    assert statuses == [201] * 5
    assert (await account.ask("GET", "/v1/tags")).status == 200
