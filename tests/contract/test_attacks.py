"""What an attacker tried and got away with once, each by the harm it did."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from tests.contract.administrators import administrator
from tests.contract.transcript import ask
from tests.contract.world import PASSWORD
from tests.running import Server


async def test_extensions_cannot_fill_the_disk(server: Server) -> None:
    box = await server.mailbox(expiresIn="5m")
    path = f"/v1/mailboxes/{box.id}"
    statuses = [(await ask(server, "PATCH", path, box, json={"expiresIn": f"{310 + n}s"})).status for n in range(14)]
    assert statuses[0] == 200
    assert statuses[-1] == 429


@pytest.mark.parametrize(
    "fields",
    [
        {"from": "a@b.c", "to": "(" * 990},
        {"from": "(" * 900 + "@b.c"},
        {"from": "a@b.c", "to": "🙂\t 🙂:\\a=41a;  ))?==?utf-8?b?YQ==?=;;"},
    ],
)
async def test_hostile_header_values_are_refused_and_no_fault(server: Server, fields: dict[str, str]) -> None:
    box = await server.mailbox()
    answer = await ask(server, "POST", f"/v1/mailboxes/{box.id}/messages", box, json={"text": "x"} | fields)
    assert answer.status in (201, 400), answer.body


async def test_text_of_line_ends_alone_is_too_big_before_it_is_composed(server: Server) -> None:
    box = await server.mailbox()
    body = {"from": "a@b.c", "text": "\n" * 6_000_000}
    answer = await ask(server, "POST", f"/v1/mailboxes/{box.id}/messages", box, json=body)
    assert (answer.status, answer.error) == (413, "message_too_big")


async def test_html_is_sanitised_once_however_its_message_is_asked_for(own_server: Callable[..., Server]) -> None:
    server = own_server(WORKERS="1", TRUSTED_PROXIES="127.0.0.0/8")
    box = await server.mailbox()
    path = f"/v1/mailboxes/{box.id}/messages"
    sent = {"from": "a@b.c", "html": "<i onclick=x>&lt;</i>" * 5000}
    message = (await ask(server, "POST", path, box, json=sent)).json["data"]
    before = await _runs(server, "read")
    for n in range(30):
        client = {"X-Forwarded-For": f"198.51.100.{n % 7}"}
        shown = await ask(server, "GET", f"{path}/{message['id']}?n={n}", box, headers=client)
        assert shown.json["data"]["html"].strip() == "<i>&lt;</i>" * 5000
    assert await _runs(server, "read") == before


async def test_mail_is_read_in_children_that_no_reader_can_take(own_server: Callable[..., Server]) -> None:
    server = own_server(WORKERS="1")
    box = await server.mailbox()
    path = f"/v1/mailboxes/{box.id}/messages"
    sent = {"raw": "Subject: s\r\nContent-Type: application/pdf\r\n\r\n" + "x" * 1_100_000}
    assert (await ask(server, "POST", path, box, json=sent)).status == 201
    assert await _runs(server, "ingest") == 1
    assert await _runs(server, "read") == 1


async def _runs(server: Server, pool: str) -> float:
    """How often children of one kind have worked."""
    text = (await ask(server, "GET", "/metrics")).body.decode()
    rows = [line for line in text.splitlines() if line.startswith("tempmail_child_runs_total") and f'"{pool}"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in rows)


async def test_claims_at_once_stay_within_the_quota(server: Server) -> None:
    async with aiohttp.ClientSession() as client:
        registered = {"email": f"claims{id(client)}@example.org", "password": PASSWORD}
        async with client.post(f"{server.http}/v1/auth/register", json=registered) as response:
            token = (await response.json())["data"]["accessToken"]
        head = {"Authorization": f"Bearer {token}"}

        async def claim(n: int) -> int:
            body = {"domain": f"c{n}-{id(client)}.example", "mode": "exclusive"}
            async with client.post(f"{server.http}/v1/user/domains", json=body, headers=head) as response:
                return response.status

        statuses = await asyncio.gather(*(claim(n) for n in range(40)))
    assert statuses.count(201) == 20


async def test_demoted_administrator_reads_no_mail_of_the_postmaster(own_server: Callable[..., Server]) -> None:
    server = own_server()
    root, other = await administrator(server, "super"), await administrator(server, "admin")
    await asyncio.to_thread(_write_to_postmaster, server)
    boxes = (await other.ask("GET", "/v1/mailboxes")).data["items"]
    path = f"/v1/mailboxes/{boxes[0]['id']}/messages"
    for _ in range(4):
        assert (await other.ask("GET", path)).status == 200
    assert (await root.ask("PATCH", f"/v1/admin/users/{other.id}", json={"role": "user"})).status == 200
    answers: list[Any] = [await other.ask("GET", path) for _ in range(8)]
    assert {answer.status for answer in answers} == {404}


def _write_to_postmaster(server: Server) -> None:
    class Postmaster:
        address = "postmaster@temp.mail"

    server.send(Postmaster(), subject="complaint")  # type: ignore[arg-type]
