"""Mailboxes in the hands of administrators: found by what is known of them, disabled, extended, deleted; never read."""

import asyncio
import os
import secrets
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.contract.accounts import Account, register
from tests.contract.administrators import administrator
from tests.contract.transcript import ask, inject
from tests.running import ROOT, Server

UNKNOWN = "01890000-0000-7000-8000-000000000000"
FACTS = {"id", "address", "state", "isActive", "createdAt", "expiresAt", "createdFrom"}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose proxies may say which client asks."""
    server = Server(tmp_path_factory.mktemp("watched"), TRUSTED_PROXIES="127.0.0.0/8").start()
    yield server
    assert server.stop() == 0, server.log[-4000:]


@dataclass(frozen=True)
class Crew:
    root: Account
    admin: Account


@pytest.fixture(scope="module")
def made() -> dict[str, Crew]:
    return {}


@pytest.fixture
async def crew(watched: Server, made: dict[str, Crew]) -> Crew:
    if not made:
        made["crew"] = Crew(await administrator(watched, "super"), await administrator(watched, "admin"))
    return made["crew"]


async def box_from(server: Server, client: str, **body: str) -> Any:
    return (await ask(server, "POST", "/v1/mailboxes", headers={"X-Forwarded-For": client}, json=body)).data


def rcpt(server: Server, recipient: str) -> str:
    with smtplib.SMTP(*server.smtp, timeout=30) as smtp:
        smtp.helo("client.example")
        smtp.mail("s@example.com")
        code, text = smtp.rcpt(recipient)
        return f"{code} {text.decode()}"


async def everywhere(server: Server, recipient: str) -> set[str]:
    """What many connections hear, which the kernel spreads over all workers."""
    return {await asyncio.to_thread(rcpt, server, recipient) for _ in range(8)}


async def listed(admin: Account, query: str) -> list[Any]:
    return (await admin.ask("GET", f"/v1/admin/mailboxes?{query}")).data["items"]  # type: ignore[no-any-return]


async def test_mailboxes_are_found_by_address_owner_and_the_network_that_made_them(watched: Server, crew: Crew) -> None:
    word = f"f{secrets.token_hex(5)}"
    first = await box_from(watched, "203.0.113.7", prefix=f"{word}-1")
    second = await box_from(watched, "203.0.113.99", prefix=f"{word}-2")
    sixth = await box_from(watched, "2001:db8:7::1", prefix=f"{word}-6")
    alias = {"address": f"{word}.also"}
    token = {"Authorization": f"Bearer {first['token']}"}
    assert (await ask(watched, "POST", f"/v1/mailboxes/{first['id']}/aliases", headers=token, json=alias)).status == 201
    user = await register(watched)
    owned = await user.mailbox()
    email = (await user.ask("GET", "/v1/auth/me")).data["email"]
    for query, expected in (
        (f"address={first['address']}", [first["id"]]),
        (f"address={word}.also@temp.mail", [first["id"]]),
        (f"address={word.upper()}-", [sixth["id"], second["id"], first["id"]]),
        (f"address={word}-*@temp.mail&pageSize=1&page=2", [second["id"]]),
        (f"address={word}&network=203.0.113.0/24", [second["id"], first["id"]]),
        ("network=203.0.113.7", [first["id"]]),
        ("network=2001:db8:7::/48", [sixth["id"]]),
        (f"owner={user.id}", [owned.id]),
        (f"owner={email}", [owned.id]),
        (f"owner={word}", []),
        (f"address={word}%25", []),
    ):
        assert [one["id"] for one in await listed(crew.admin, query)] == expected, query
    [one] = await listed(crew.admin, "network=203.0.113.7")
    assert set(one) == FACTS
    assert (one["state"], one["isActive"], one["createdFrom"]) == ("active", True, "203.0.113.7")
    wrong = await crew.admin.ask("GET", "/v1/admin/mailboxes?network=everywhere")
    assert (wrong.status, wrong.json["field"]) == (400, "network")


async def test_a_look_shows_how_much_is_there_and_nothing_of_it(watched: Server, crew: Crew) -> None:
    box = await watched.mailbox()
    await inject(watched, box, subject="a secret", text="Your code is 482193")
    answer = await crew.admin.ask("GET", f"/v1/admin/mailboxes/{box.id}")
    assert (answer.data["total"], answer.data["unread"]) == (1, 1)
    assert set(answer.data) == FACTS | {"total", "unread", "lastActivity"}
    assert b"secret" not in answer.body
    assert b"482193" not in answer.body
    assert box.token.encode() not in answer.body


async def test_a_disabled_mailbox_takes_no_mail_in_any_worker_and_is_still_read(watched: Server, crew: Crew) -> None:
    box = await watched.mailbox()
    alias = box.address.replace("@", ".also@")
    await ask(watched, "POST", f"/v1/mailboxes/{box.id}/aliases", box, json={"address": alias})
    message = await inject(watched, box, subject="before")
    assert await everywhere(watched, box.address) == {"250 2.1.5 Recipient OK"}
    path = f"/v1/admin/mailboxes/{box.id}"
    off = (await crew.admin.ask("PATCH", path, json={"isActive": False})).data
    assert (off["state"], off["isActive"]) == ("disabled", False)
    refused = {"550 5.2.1 Mailbox disabled"}
    assert await everywhere(watched, box.address) == refused
    assert await everywhere(watched, alias) == refused
    assert await everywhere(watched, box.address.replace("@", "+tag@")) == refused
    body = {"from": "a@example.org"}
    injected = await ask(watched, "POST", f"/v1/mailboxes/{box.id}/messages", box, json=body)
    assert (injected.status, injected.error) == (403, "mailbox_disabled")
    own = await ask(watched, "GET", f"/v1/mailboxes/{box.id}", box)
    assert own.data["disabled"] is True
    assert (await ask(watched, "GET", f"/v1/mailboxes/{box.id}/messages/{message['id']}", box)).status == 200
    assert [one["id"] for one in await listed(crew.admin, f"state=disabled&address={box.address}")] == [box.id]
    taken = await ask(watched, "POST", "/v1/mailboxes", json={"prefix": box.address.partition("@")[0]})
    assert (taken.status, taken.error) == (409, "mailbox_exists")
    assert (await crew.admin.ask("PATCH", path, json={"isActive": True})).data["state"] == "active"
    assert await everywhere(watched, box.address) == {"250 2.1.5 Recipient OK"}
    assert "disabled" not in (await ask(watched, "GET", f"/v1/mailboxes/{box.id}", box)).data
    acts = (await crew.admin.ask("GET", "/v1/admin/audit?pageSize=2")).data["items"]
    assert [(one["action"], one["target"]) for one in acts] == [("mailbox.enable", box.id), ("mailbox.disable", box.id)]
    assert (acts[1]["before"], acts[1]["after"]) == ({"isActive": True}, {"isActive": False})


async def test_a_mailbox_is_extended_and_deleted_and_its_maker_stays_known(watched: Server, crew: Crew) -> None:
    box = await box_from(watched, "203.0.113.200")
    path = f"/v1/admin/mailboxes/{box['id']}"
    longer = (await crew.admin.ask("PATCH", path, json={"expiresIn": "20d"})).data
    assert longer["expiresAt"] > box["expiresAt"]
    assert (await crew.admin.ask("PATCH", path, json={"expiresIn": "1h"})).data["expiresAt"] == longer["expiresAt"]
    wrong = await crew.admin.ask("PATCH", path, json={"expiresIn": "400d"})
    assert (wrong.status, wrong.error) == (400, "duration_invalid")
    assert (await crew.admin.ask("DELETE", path)).status == 204
    assert (await crew.admin.ask("GET", path)).error == "mailbox_not_found"
    assert (await crew.admin.ask("DELETE", path)).error == "mailbox_not_found"
    assert await everywhere(watched, box["address"]) == {"550 5.1.1 No such mailbox"}
    [gone] = await listed(crew.admin, "state=gone&network=203.0.113.200")
    assert (gone["id"], gone["address"], gone["state"]) == (box["id"], box["address"], "gone")
    assert await listed(crew.admin, "network=203.0.113.200") == []
    act = (await crew.admin.ask("GET", "/v1/admin/audit?pageSize=1")).data["items"][0]
    assert (act["action"], act["before"]["address"]) == ("mailbox.delete", box["address"])


async def test_only_a_super_user_acts_on_mailboxes_of_administrators_and_nobody_on_postmasters(
    watched: Server, crew: Crew
) -> None:
    box = await crew.root.mailbox()
    path = f"/v1/admin/mailboxes/{box.id}"
    for method in ("PATCH", "DELETE"):
        answer = await crew.admin.ask(method, path, json={"isActive": False})
        assert (answer.status, answer.error) == (403, "permission_denied")
    assert (await crew.root.ask("PATCH", path, json={"isActive": False})).status == 200
    await asyncio.to_thread(rcpt, watched, "postmaster@temp.mail")
    [ours] = await listed(crew.root, "address=postmaster@temp.mail")
    for method in ("PATCH", "DELETE"):
        answer = await crew.root.ask(method, f"/v1/admin/mailboxes/{ours['id']}", json={"isActive": False})
        assert (answer.status, answer.error) == (403, "permission_denied")
    user = await register(watched)
    assert (await user.ask("GET", "/v1/admin/mailboxes")).status == 403
    key = (await crew.root.ask("POST", "/v1/api-keys", json={"name": "k"})).data["key"]
    for method, target in (("GET", "/v1/admin/mailboxes"), ("PATCH", path), ("DELETE", path)):
        answer = await ask(watched, method, target, headers={"X-API-Key": key}, json={"isActive": False})
        assert (answer.status, answer.error) == (403, "permission_denied")


async def test_the_command_line_finds_disables_extends_and_deletes(watched: Server, crew: Crew) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TEMPMAIL_")}
    environment["TEMPMAIL_DATA_DIR"] = str(Path(watched.folder) / "data")

    async def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "server", "admin", "mailbox", *arguments]
        options: Any = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "timeout": 60}
        return await asyncio.to_thread(subprocess.run, command, **options)

    box = await box_from(watched, "203.0.113.150")
    path = f"/v1/admin/mailboxes/{box['id']}"
    assert box["address"] in (await run("list", "--network", "203.0.113.150")).stdout
    assert "203.0.113.150" in (await run("show", box["address"])).stdout
    assert (await run("disable", box["address"])).returncode == 0
    assert (await crew.admin.ask("GET", path)).data["state"] == "disabled"
    assert (await run("enable", box["id"])).returncode == 0
    assert (await run("extend", box["address"], "--expires-in", "9d")).returncode == 0
    assert (await crew.admin.ask("GET", path)).data["expiresAt"] > box["expiresAt"]
    gone = await run("delete", box["address"], "--yes")
    assert gone.returncode == 0, gone.stderr
    assert (await crew.admin.ask("GET", path)).status == 404
    unknown = await run("show", "nobody@temp.mail")
    assert (unknown.returncode, "no mailbox has" in unknown.stderr) == (2, True)
