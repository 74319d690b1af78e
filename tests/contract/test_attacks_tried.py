"""Attacks that a whole server withstands: rebinding by DNS, forged tokens, floods of logins, hostile lists and ids."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from tests.contract.accounts import Account, register
from tests.contract.administrators import Installation
from tests.contract.transcript import ask
from tests.nameserver import name_server
from tests.running import Server

UNKNOWN = "01890000-0000-7000-8000-000000000000"


@pytest.fixture
async def trap() -> AsyncIterator[tuple[int, list[bytes]]]:
    """What listens on loopback where no webhook may come: its port, and what was sent to it."""
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(4096))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], heard
    server.close()


@pytest.mark.parametrize(
    "turns", [(["127.0.0.2"], ["127.0.0.1"]), (["127.0.0.1"],), (["127.0.0.2", "127.0.0.1"],), (["127.0.0.2", "::1"],)]
)
async def test_a_name_that_turns_to_loopback_brings_no_webhook_there(
    own_server: Callable[..., Server], trap: tuple[int, list[bytes]], turns: tuple[list[str], ...]
) -> None:
    """An address that is allowed (as a public one is), then another or one more, by a real name server."""
    port, heard = trap
    name = "rebind.example"
    with name_server() as zones:
        zones.turn(name, "A", *[[one for one in turn if ":" not in one] for turn in turns])
        zones.turn(name, "AAAA", *[[one for one in turn if ":" in one] for turn in turns])
        server = own_server(DNS_SERVERS=zones.address, WEBHOOK_ALLOWED_NETWORKS="127.0.0.2/32")
        items = await _told(await register(server), name, port)
    assert not heard
    assert not any(one["success"] for one in items)
    assert "127.0.0." not in json.dumps(items), "what our network looks like from inside is not told"


async def _told(someone: Account, name: str, port: int) -> list[Any]:
    """The deliveries of three tests of a webhook at ``name``, once each was tried."""
    hook = {"url": f"http://{name}:{port}/", "events": ["tag.created"]}
    made = await someone.ask("POST", "/v1/webhooks", json=hook)
    assert made.status == 201
    for _ in range(3):
        await someone.ask("POST", f"/v1/webhooks/{made.data['id']}/test")
    async with asyncio.timeout(60):
        while True:
            items = (await someone.ask("GET", f"/v1/webhooks/{made.data['id']}/deliveries")).data
            found: list[Any] = items["items"] if isinstance(items, dict) else items
            if len(found) == 3 and all(one["attempts"] for one in found):
                return found
            await asyncio.sleep(0.1)


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def forgeries(token: str, other: str) -> dict[str, str]:
    head, claims, signature = token.split(".")
    said = json.loads(base64.urlsafe_b64decode(claims + "=="))
    theirs = other.split(".")
    none = {name: f"{_part({'alg': name, 'typ': 'JWT'})}.{claims}." for name in ("none", "None", "NONE", "nOnE")}
    return none | {
        "another role": f"{head}.{_part(said | {'role': 'super'})}.{signature}",
        "another subject": f"{head}.{theirs[1]}.{signature}",
        "another's signature": f"{head}.{claims}.{theirs[2]}",
        "no signature": f"{head}.{claims}.",
        "no end": f"{head}.{_part({k: v for k, v in said.items() if k != 'exp'})}.{signature}",
        "algorithm of another family": f"{_part({'alg': 'HS512', 'typ': 'JWT'})}.{claims}.{signature}",
        "a key that comes along": f"{_part({'alg': 'HS256', 'jwk': {'kty': 'oct', 'k': 'AA'}})}.{claims}.{signature}",
        "a key from elsewhere": f"{_part({'alg': 'HS256', 'jku': 'http://127.0.0.1/k'})}.{claims}.{signature}",
        "deeply nested": f"{base64.urlsafe_b64encode(b'[' * 5000).decode()}.{claims}.{signature}",
        "empty parts": "..",
        "very long": f"{head}.{claims}.{'A' * 7000}",
    }


async def test_no_forged_token_is_believed_over_http_or_websocket(server: Server) -> None:
    one, other = await register(server), await register(server)
    for name, forged in forgeries(one.token, other.token).items():
        for path in ("/v1/auth/me", "/v1/mailboxes", "/v1/admin/users"):
            answer = await ask(server, "GET", path, headers={"Authorization": f"Bearer {forged}"})
            assert (answer.status, answer.error) == (401, "token_invalid"), (name, path, answer.json)
    box = await one.mailbox()
    async with aiohttp.ClientSession() as client, client.ws_connect(f"{server.http}/v1/ws") as ws:
        for name, forged in list(forgeries(one.token, other.token).items())[:12]:
            if len(forged) < 3000:
                await ws.send_json({"type": "subscribe", "mailboxId": box.id, "token": forged})
                assert (await ws.receive_json(timeout=60))["type"] == "error", name


async def test_a_flood_of_logins_keeps_nobody_else_waiting(own_server: Callable[..., Server]) -> None:
    """From thousands of clients: each password costs tens of megabytes and milliseconds to check."""
    server = own_server(TRUSTED_PROXIES="127.0.0.0/8", RATE_LIMIT_EXEMPT="")
    someone = await register(server)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=150)) as client:

        async def attempt(number: int) -> int:
            head = {"X-Forwarded-For": f"198.51.{number // 250}.{number % 250}"}
            body = {"email": f"x{number}@example.org", "password": "wrong horse"}
            async with client.post(f"{server.http}/v1/auth/login", json=body, headers=head) as response:
                return response.status

        flood = [asyncio.create_task(attempt(number)) for number in range(400)]
        await asyncio.sleep(0.2)
        for _ in range(10):
            assert (await ask(server, "GET", "/v1/auth/me", headers=someone.auth)).status == 200
        statuses = await asyncio.gather(*flood)
    assert set(statuses) <= {401, 429, 503}


@pytest.fixture(scope="module")
def crowned() -> dict[str, Account]:
    return {}


LISTS = ("users", "audit", "domains", "bans", "mailboxes", "trace")
HOSTILE = (
    "page=999999999999999999",
    "page=-1",
    "page=0",
    "pageSize=100000",
    "pageSize=-5",
    "page=1e9",
    "page=%00",
    "search=%25%25%25%25%25_____",
    "search=%00",
    "search=" + "%25" * 400,
    "search=%27%3B%20DROP%20TABLE%20users.users--",
    "search=%F0%9F%92%A9%EF%BF%BE",
    "role=super%27",
    "isActive=maybe",
    "address=%25",
    "network=0.0.0.0/0",
    "network=::/0",
    "owner=%00",
    "since=9999999999999999999h",
    "cursor=%00%ff",
)


@pytest.mark.parametrize("name", LISTS)
async def test_lists_of_administrators_take_no_harm_from_what_is_asked(
    installation: Installation, crowned: dict[str, Account], name: str
) -> None:
    if not crowned:
        crowned["root"] = await installation.account("super")
    for query in HOSTILE:
        answer = await crowned["root"].ask("GET", f"/v1/admin/{name}?{query}")
        assert answer.status in (200, 400), (name, query, answer.status)
        if answer.status == 400:
            assert answer.json["field"], (name, query)


@pytest.mark.parametrize("identity", [UNKNOWN, "0", "%00", "..%2f..", "x" * 3000, "%27%20OR%201=1", "null", "{id}"])
async def test_ids_of_webhooks_and_deliveries_that_are_none_answer_alike(server: Server, identity: str) -> None:
    someone = await register(server)
    for method, path in (
        ("GET", "/v1/webhooks/{}"),
        ("PATCH", "/v1/webhooks/{}"),
        ("DELETE", "/v1/webhooks/{}"),
        ("GET", "/v1/webhooks/{}/deliveries"),
        ("POST", "/v1/webhooks/{}/test"),
        ("POST", "/v1/webhooks/{}/rotate-secret"),
        ("POST", "/v1/webhooks/deliveries/{}/replay"),
    ):
        what = {"json": {"isActive": False}} if method == "PATCH" else {}
        answer = await someone.ask(method, path.format(identity), **what)
        assert (answer.status, answer.error.rpartition("_")[2]) == (404, "found"), (method, path)
