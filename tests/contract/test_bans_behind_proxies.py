"""Bans of networks behind proxies: IPv6 prefixes, IPv4 within IPv6, in every notation, their end and their sessions."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.accounts import Account
from tests.contract.administrators import administrator
from tests.contract.transcript import ask
from tests.running import Server

ELSEWHERE = "203.0.113.99"
ENVELOPE = b"EHLO x\r\nMAIL FROM:<s@example.com>\r\nRCPT TO:<%b>\r\n"


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers, each with room for two sessions of banned networks."""
    settings = {"TRUSTED_PROXIES": "127.0.0.0/8", "SMTP_PROXY_PROTOCOL": "true", "SMTP_MAX_CONNECTIONS": "64"}
    server = Server(tmp_path_factory.mktemp("behind"), **settings).start()
    yield server
    assert server.stop() == 0, server.log[-4000:]


@pytest.fixture(scope="module")
def crew() -> dict[str, Account]:
    return {}


@pytest.fixture
async def admin(behind: Server, crew: dict[str, Account]) -> Account:
    if not crew:
        crew["admin"] = await administrator(behind, "admin")
    return crew["admin"]


async def ban(admin: Account, network: str, **more: str) -> Any:
    body = {"kind": "network", "value": network, "reason": "tested"} | more
    made = await admin.ask("POST", "/v1/admin/bans", json=body)
    assert made.status == 201, made.body
    return made.data


async def creation(server: Server, forwarded: str) -> tuple[int, str]:
    answer = await ask(server, "POST", "/v1/mailboxes", json={}, headers={"X-Forwarded-For": forwarded})
    return answer.status, answer.error if answer.status != 201 else ""


class Session:
    """An SMTP session that a proxy opened for ``client``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    @classmethod
    async def of(cls, server: Server, client: str) -> "Session":
        reader, writer = await asyncio.open_connection(*server.smtp)
        writer.write(f"PROXY TCP{6 if ':' in client else 4} {client} {client} 1234 25\r\n".encode())
        return cls(reader, writer)

    async def reply(self) -> str:
        async with asyncio.timeout(60):
            while True:
                line = (await self._reader.readline()).decode()
                if line[3:4] != "-":
                    return line.rstrip("\r\n")

    async def rcpt(self, recipient: str) -> str:
        """What is answered to RCPT; the session stays open."""
        self.writer.write(ENVELOPE % recipient.encode())
        return [await self.reply() for _ in range(4)][-1]


async def heard(server: Server, client: str, recipient: str) -> str:
    session = await Session.of(server, client)
    try:
        return await session.rcpt(recipient)
    finally:
        session.writer.close()


@pytest.mark.parametrize(
    ("network", "forwarded", "sent", "other"),
    [
        (
            "2001:db8:77::/48",
            ("2001:db8:77::5", "2001:DB8:77:FFFF::1", "[2001:db8:77::5]:443", f"{ELSEWHERE}, 2001:db8:77::9"),
            ("2001:db8:77::5", "2001:db8:77:ffff:ffff:ffff:ffff:ffff"),
            "2001:db8:78::5",
        ),
        (
            "198.51.100.0/25",
            ("198.51.100.7", "198.51.100.7:5000", "::ffff:198.51.100.7", "[::ffff:c633:6407]:80"),
            ("198.51.100.7", "::ffff:198.51.100.8"),
            "198.51.100.200",
        ),
        ("::ffff:192.0.2.0/120", ("192.0.2.9", "::ffff:192.0.2.9"), ("192.0.2.9", "::ffff:192.0.2.9"), "192.0.3.9"),
    ],
)
async def test_a_network_is_refused_whoever_passes_it_on_and_its_neighbour_is_not(
    behind: Server, admin: Account, network: str, forwarded: tuple[str, ...], sent: tuple[str, ...], other: str
) -> None:
    box = await behind.mailbox()
    made = await ban(admin, network)
    for client in forwarded:
        assert await creation(behind, client) == (403, "client_banned"), client
    for client in sent:
        assert await heard(behind, client, box.address) == "550 5.7.1 Refused by the administrators here", client
    assert (await creation(behind, other))[0] == 201
    assert (await creation(behind, f"{sent[0]}, {other}"))[0] == 201, "what stands left of the client is its own claim"
    assert (await heard(behind, other, box.address))[:3] == "250"
    await admin.ask("DELETE", f"/v1/admin/bans/{made['id']}")
    assert (await heard(behind, sent[0], box.address))[:3] == "250"


async def test_a_ban_ends_by_itself_over_smtp_and_http(behind: Server, admin: Account) -> None:
    box = await behind.mailbox()
    await ban(admin, "2001:db8:99::/64", expiresIn="1s")
    async with asyncio.timeout(60):
        while (await heard(behind, "2001:db8:99::1", box.address))[:3] != "250":
            await asyncio.sleep(0.1)
        while (await creation(behind, "2001:db8:99::1"))[0] != 201:
            await asyncio.sleep(0.1)


async def test_banned_networks_take_few_of_the_sessions_and_the_others_hear_why(behind: Server, admin: Account) -> None:
    box = await behind.mailbox()
    made = await ban(admin, "2001:db8:55::/48")
    sessions = [await Session.of(behind, f"2001:db8:55:{n:x}::1") for n in range(40)]
    greetings = [(await one.reply())[:9] for one in sessions]
    refused = greetings.count("554 5.7.1")
    assert 2 <= 40 - refused <= 4, greetings  # two of each worker that was met
    assert (await heard(behind, "2001:db8:56::1", box.address))[:3] == "250"
    for one in sessions:
        one.writer.close()
    async with asyncio.timeout(60):
        while await _turned_away(admin) < 1:
            await asyncio.sleep(0.2)
        while (await heard(behind, "2001:db8:55::1", box.address))[:9] != "550 5.7.1":  # their sessions are over
            await asyncio.sleep(0.1)
    await admin.ask("DELETE", f"/v1/admin/bans/{made['id']}")


async def _turned_away(admin: Account) -> int:
    """Connections that the trace tells to have been turned away."""
    items = (await admin.ask("GET", "/v1/admin/trace?verdict=refused&limit=100")).data["items"]
    return sum(one["stage"] == "connect" and one["reply"][:9] == "554 5.7.1" for one in items)
