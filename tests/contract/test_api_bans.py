"""Bans: in force in every worker from the answer on, over SMTP and over HTTP, and shutting no administrator out."""

import asyncio
import os
import secrets
import smtplib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.contract.accounts import Account, register
from tests.contract.administrators import administrator
from tests.contract.transcript import Answer, ask
from tests.running import ROOT, Server

UNKNOWN = "01890000-0000-7000-8000-000000000000"
BANNED = (550, "5.7.1 Refused by the administrators here")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of this module's own: its clients all come from one network, which is banned now and then."""
    server = Server(tmp_path_factory.mktemp("guarded"), RESERVED_NAMES="mybank*").start()
    yield server
    assert server.stop() == 0, server.log[-4000:]


@pytest.fixture(scope="module")
def crew() -> dict[str, Account]:
    return {}


@pytest.fixture
async def admin(guarded: Server, crew: dict[str, Account]) -> Account:
    if not crew:
        crew["admin"] = await administrator(guarded, "admin")
    return crew["admin"]


@asynccontextmanager
async def banned(admin: Account, kind: str, value: str, **more: str) -> AsyncIterator[Any]:
    body = {"kind": kind, "value": value, "reason": "tested"} | more
    made = await admin.ask("POST", "/v1/admin/bans", json=body)
    assert made.status == 201, made.body
    yield made.data
    gone = await admin.ask("DELETE", f"/v1/admin/bans/{made.data['id']}")
    assert gone.status == 204


def rcpt(server: Server, recipient: str, sender: str = "s@example.com") -> tuple[int, str]:
    with smtplib.SMTP(*server.smtp, timeout=30) as smtp:
        smtp.helo("client.example")
        assert smtp.mail(sender)[0] == 250
        code, text = smtp.rcpt(recipient)
        return code, text.decode()


async def everywhere(server: Server, recipient: str, sender: str = "s@example.com") -> set[tuple[int, str]]:
    """What many connections hear, which the kernel spreads over all workers."""
    return {await asyncio.to_thread(rcpt, server, recipient, sender) for _ in range(8)}


async def made_everywhere(server: Server, **body: str) -> list[Answer]:
    return [await ask(server, "POST", "/v1/mailboxes", json=body) for _ in range(8)]


TAKEN = {(250, "2.1.5 Recipient OK")}


@pytest.mark.parametrize(
    ("kind", "value", "sender"),
    [
        ("sender", "spam@example.com", "Spam+1@Example.com"),
        ("senderDomain", "bad.example", "a@deep.bad.example"),
        ("network", "127.0.0.0/24", "fine@example.com"),
    ],
)
async def test_banned_mail_is_refused_in_every_worker_at_once_and_no_longer_than_the_ban(
    guarded: Server, admin: Account, kind: str, value: str, sender: str
) -> None:
    box = await guarded.mailbox()
    assert await everywhere(guarded, box.address, sender) == TAKEN
    async with banned(admin, kind, value):
        assert await everywhere(guarded, box.address, sender) == {BANNED}
        assert (await asyncio.to_thread(rcpt, guarded, "postmaster@temp.mail", sender))[0] == 250
        assert (await asyncio.to_thread(rcpt, guarded, "abuse@temp.mail", sender))[0] == 250
        if kind != "network":
            assert await everywhere(guarded, box.address, "other@example.com") == TAKEN
    assert await everywhere(guarded, box.address, sender) == TAKEN


async def test_a_ban_is_in_the_trace_of_the_recipient(guarded: Server, admin: Account) -> None:
    box = await guarded.mailbox()
    async with banned(admin, "sender", "traced@example.com"):
        await asyncio.to_thread(rcpt, guarded, box.address, "traced@example.com")
    async with asyncio.timeout(60):
        while True:
            items = (await ask(guarded, "GET", f"/v1/mailboxes/{box.id}/trace", box)).data["items"]
            if items:
                break
            await asyncio.sleep(0.2)
    assert [(one["stage"], one["sender"], one["reply"][:9]) for one in items] == [
        ("rcpt", "traced@example.com", "550 5.7.1")
    ]


async def test_a_banned_network_makes_nothing_but_reads_what_it_has_and_administers(
    guarded: Server, admin: Account
) -> None:
    box, user = await guarded.mailbox(), await register(guarded)
    async with banned(admin, "network", "127.0.0.1"):
        assert {(one.status, one.error) for one in await made_everywhere(guarded)} == {(403, "client_banned")}
        assert (await user.ask("POST", "/v1/mailboxes", json={})).error == "client_banned"
        body = {"email": f"{secrets.token_hex(6)}@example.org", "password": "correct horse battery"}
        assert (await ask(guarded, "POST", "/v1/auth/register", json=body)).error == "client_banned"
        assert (await ask(guarded, "GET", f"/v1/mailboxes/{box.id}/messages", box)).status == 200
        assert (await user.ask("GET", "/v1/mailboxes")).status == 200
        assert (await admin.ask("GET", "/v1/admin/bans")).status == 200
        assert (await admin.ask("POST", "/v1/mailboxes", json={})).status == 201
        chinese = await ask(guarded, "POST", "/v1/mailboxes", json={}, headers={"Accept-Language": "zh"})
        assert "禁止" in chinese.json["msg"]
    assert {one.status for one in await made_everywhere(guarded)} == {201}


async def test_a_banned_name_is_given_to_no_mailbox_and_no_alias_however_it_is_spelt(
    guarded: Server, admin: Account
) -> None:
    box = await guarded.mailbox()
    async with banned(admin, "localPart", "paypal*"):
        for name in ("paypal", "pay.pal-service", "PAYPA1", "p4ypal"):
            answers = await made_everywhere(guarded, prefix=name)
            assert {(one.status, one.error, one.json["field"]) for one in answers} == {
                (400, "prefix_invalid", "prefix")
            }
            alias = await ask(guarded, "POST", f"/v1/mailboxes/{box.id}/aliases", box, json={"address": name})
            assert (alias.status, alias.error, alias.json["field"]) == (400, "prefix_invalid", "address")
        assert (await ask(guarded, "POST", "/v1/mailboxes", json={"prefix": "papal.visit"})).status == 201
    assert (await ask(guarded, "POST", "/v1/mailboxes", json={"prefix": "paypal"})).status == 201


async def test_names_of_the_setting_are_reserved_beside_the_built_in_ones(guarded: Server, admin: Account) -> None:
    for name in ("mybank", "my-bank-service", "postmaster"):
        answer = await ask(guarded, "POST", "/v1/mailboxes", json={"prefix": name})
        assert (answer.status, answer.error) == (400, "prefix_invalid")


async def test_bans_are_listed_noted_and_unique(guarded: Server, admin: Account) -> None:
    async with banned(admin, "senderDomain", "Listed.example", expiresIn="2h") as made:
        assert set(made) == {"id", "kind", "value", "reason", "createdAt", "createdBy", "expiresAt"}
        again = {"kind": "senderDomain", "value": "listed.example.", "reason": "again"}
        answer = await admin.ask("POST", "/v1/admin/bans", json=again)
        assert (answer.status, answer.error) == (409, "ban_exists")
        page = (await admin.ask("GET", "/v1/admin/bans?kind=senderDomain&pageSize=1")).data
        assert (page["items"], page["total"], page["page"]) == ([made], 1, 1)
        assert (await admin.ask("GET", "/v1/admin/bans?kind=localPart")).data["items"] == []
    acts = (await admin.ask("GET", "/v1/admin/audit?pageSize=2")).data["items"]
    assert [(one["action"], one["target"]) for one in acts] == [("ban.delete", made["id"]), ("ban.create", made["id"])]
    assert acts[0]["before"]["value"] == acts[1]["after"]["value"] == "listed.example"
    gone = await admin.ask("DELETE", f"/v1/admin/bans/{made['id']}")
    assert (gone.status, gone.error) == (404, "ban_not_found")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"kind": "planet", "value": "earth", "reason": "x"}, "kind"),
        ({"kind": "network", "value": "0.0.0.0/0", "reason": "x"}, "value"),
        ({"kind": "sender", "value": "example.org", "reason": "x"}, "value"),
        ({"kind": "localPart", "value": "*", "reason": "x"}, "value"),
        ({"kind": "sender", "value": "a@example.org", "reason": " "}, "reason"),
        ({"kind": "sender", "value": "a@example.org", "reason": "a\x1b[2Jb"}, "reason"),
        ({"kind": "localPart", "value": "pay\x1b[2Jpal", "reason": "x"}, "value"),
        ({"kind": "sender", "value": "a@example.org"}, "reason"),
        ({"kind": "sender", "value": "a@example.org", "reason": "x", "expiresIn": "soon"}, "expiresIn"),
    ],
)
async def test_a_ban_that_cannot_be_meant_is_refused_by_name(
    guarded: Server, admin: Account, body: dict[str, str], field: str
) -> None:
    answer = await admin.ask("POST", "/v1/admin/bans", json=body)
    assert (answer.status, answer.json["field"]) == (400, field)


async def test_users_and_keys_ban_nobody(guarded: Server, admin: Account) -> None:
    user = await register(guarded)
    body = {"kind": "sender", "value": "a@example.org", "reason": "x"}
    for method, path in (
        ("GET", "/v1/admin/bans"),
        ("POST", "/v1/admin/bans"),
        ("DELETE", f"/v1/admin/bans/{UNKNOWN}"),
    ):
        assert (await user.ask(method, path, json=body)).status == 403
        assert (await ask(guarded, method, path, json=body)).status == 401
    key = (await admin.ask("POST", "/v1/api-keys", json={"name": "k"})).data["key"]
    answer = await ask(guarded, "GET", "/v1/admin/bans", headers={"X-API-Key": key})
    assert (answer.status, answer.error) == (403, "permission_denied")


async def test_the_command_line_bans_lists_and_takes_back(guarded: Server, admin: Account) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TEMPMAIL_")}
    environment["TEMPMAIL_DATA_DIR"] = str(Path(guarded.folder) / "data")

    async def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "server", "admin", *arguments]
        options: Any = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "timeout": 60}
        return await asyncio.to_thread(subprocess.run, command, **options)

    made = await run("ban", "add", "network", "198.51.100.0/24", "--reason", "floods", "--expires-in", "2h")
    assert made.returncode == 0, made.stderr
    listed = await run("ban", "list")
    assert "198.51.100.0/24" in listed.stdout
    assert [one["value"] for one in (await admin.ask("GET", "/v1/admin/bans")).data["items"]] == ["198.51.100.0/24"]
    twice = await run("ban", "add", "network", "198.51.100.9/24", "--reason", "again")
    assert (twice.returncode, "ban_exists" in twice.stderr) == (2, True)
    gone = await run("ban", "remove", "network", "198.51.100.0/24")
    assert gone.returncode == 0, gone.stderr
    assert (await admin.ask("GET", "/v1/admin/bans")).data["items"] == []
    wrong = await run("ban", "add", "planet", "earth", "--reason", "x")
    assert (wrong.returncode, "senderDomain" in wrong.stderr) == (2, True)
    people = await run("list")
    assert "admin" in people.stdout
