""" "Why did my mail not arrive?" over HTTP and at the command line, for an owner and for administrators."""

import asyncio
import json
import os
import re
import smtplib
import socket
import subprocess
import sys
from typing import Any

import pytest

from tests.contract.accounts import Account
from tests.contract.administrators import Installation
from tests.contract.transcript import ask
from tests.running import ROOT, Box, Server

LETTER = b"Subject: hello\r\n\r\nYour code is 482193\r\n"


@pytest.fixture
async def admin(installation: Installation) -> Account:
    return await installation.account("admin")


def sent(server: Server, recipient: str, letter: bytes = LETTER, sender: str = "s@example.com") -> tuple[int, str]:
    """What SMTP said last."""
    with smtplib.SMTP(*server.smtp, local_hostname="client.example", timeout=30) as smtp:
        try:
            smtp.sendmail(sender, [recipient], letter)
        except smtplib.SMTPRecipientsRefused as refused:
            code, text = refused.recipients[recipient]
            return code, text.decode()
        except smtplib.SMTPResponseException as refused:
            return refused.smtp_code, str(refused.smtp_error)
    return 250, ""


async def until(question: Any, enough: Any) -> Any:
    """Decisions are written a second after they were made, or later on a busy machine."""
    async with asyncio.timeout(60):
        while True:
            answer = (await question()).data
            if enough(answer["items"]):
                return answer
            await asyncio.sleep(0.2)


async def own(server: Server, box: Box, enough: Any, query: str = "") -> Any:
    return await until(lambda: ask(server, "GET", f"/v1/mailboxes/{box.id}/trace{query}", box), enough)


def brief(items: list[Any]) -> list[tuple[str, str]]:
    return [(one["stage"], one["reply"][:9]) for one in items]


async def test_an_owner_sees_who_tried_and_what_was_answered(installation: Installation) -> None:
    server = installation.server
    box = await server.mailbox()
    await asyncio.to_thread(sent, server, box.address.replace("@", "+tag@"))
    answer = await own(server, box, lambda items: len(items) == 2)
    data, rcpt = answer["items"]
    assert brief([data, rcpt]) == [("data", "250 2.0.0"), ("rcpt", "250 2.1.5")]
    assert (data["client"], data["helo"], data["sender"]) == ("127.0.0.1", "client.example", "s@example.com")
    assert data["recipient"] == box.address.replace("@", "+tag@")
    assert answer["complete"] is True
    assert set(data) == {"at", "stage", "client", "helo", "sender", "recipient", "reply", "messageId", "node"}
    message = await ask(server, "GET", f"/v1/mailboxes/{box.id}/messages/{data['messageId']}", box)
    assert message.data["subject"] == "hello"


async def test_a_refused_message_is_in_the_trace_of_its_recipient(installation: Installation) -> None:
    server = installation.server
    box = await server.mailbox()
    with smtplib.SMTP(*server.smtp, timeout=30) as smtp:
        smtp.helo("c")
        smtp.mail("s@example.com")
        smtp.rcpt(box.address)
        smtp.docmd("DATA")
        smtp.send(b"x" * (11 << 20) + b"\r\n.\r\n")
        assert smtp.getreply()[0] == 552
    answer = await own(server, box, lambda items: len(items) == 2)
    assert brief(answer["items"]) == [("data", "552 5.3.4"), ("rcpt", "250 2.1.5")]


async def test_the_next_owner_of_an_address_sees_nothing_of_the_one_before(installation: Installation) -> None:
    server = installation.server
    first = await server.mailbox()
    prefix = first.address.partition("@")[0]
    await asyncio.to_thread(sent, server, first.address)
    await own(server, first, lambda items: len(items) == 2)
    assert (await ask(server, "DELETE", f"/v1/mailboxes/{first.id}", first)).status == 204
    assert (await asyncio.to_thread(sent, server, first.address))[0] == 550
    made = (await ask(server, "POST", "/v1/mailboxes", json={"prefix": prefix})).data
    second = Box(made["id"], made["address"], made["token"])
    await asyncio.to_thread(sent, server, second.address, sender="later@example.com")
    answer = await own(server, second, lambda items: len(items) >= 2)
    assert {one["sender"] for one in answer["items"]} == {"later@example.com"}


async def test_an_alias_belongs_to_the_trace_since_it_was_made(installation: Installation, admin: Account) -> None:
    server = installation.server
    box = await server.mailbox()
    alias = box.address.replace("@", ".also@")
    assert (await asyncio.to_thread(sent, server, alias))[0] == 550
    path = f"/v1/admin/trace?address={alias}"
    await until(lambda: admin.ask("GET", path), lambda items: len(items) == 1)
    made = (await ask(server, "POST", f"/v1/mailboxes/{box.id}/aliases", box, json={"address": alias})).data
    await asyncio.to_thread(sent, server, alias)
    switched = f"/v1/mailboxes/{box.id}/aliases/{made['id']}"
    await ask(server, "PATCH", switched, box, json={"isActive": False})
    assert (await asyncio.to_thread(sent, server, alias))[0] == 550
    answer = await own(server, box, lambda items: len(items) == 3)
    assert brief(answer["items"]) == [("rcpt", "550 5.1.1"), ("data", "250 2.0.0"), ("rcpt", "250 2.1.5")]


async def test_administrators_find_an_address_that_nobody_has(installation: Installation, admin: Account) -> None:
    server = installation.server
    address = "nobody.has.this@temp.mail"
    assert (await asyncio.to_thread(sent, server, address))[0] == 550
    path = f"/v1/admin/trace?address={address.upper()}&since=1h&verdict=refused"
    answer = await until(lambda: admin.ask("GET", path), lambda items: items)
    assert brief(answer["items"]) == [("rcpt", "550 5.1.1")]
    assert answer["unrecorded"] == 0
    senders = {str(item["sender"]) for item in answer["items"]}
    for sender, count in (*((one.upper(), 1) for one in senders), ("nobody.sent@example.com", 0)):
        assert len((await admin.ask("GET", f"{path}&sender={sender}")).data["items"]) == count
    accepted = await admin.ask("GET", f"/v1/admin/trace?address={address}&verdict=accepted")
    assert accepted.data["items"] == []
    await asyncio.to_thread(sent, server, address)
    await until(lambda: admin.ask("GET", path), lambda items: len(items) == 2)
    everything = (await admin.ask("GET", "/v1/admin/trace?limit=1")).data
    assert everything["nextCursor"]
    more = (await admin.ask("GET", f"/v1/admin/trace?limit=1&cursor={everything['nextCursor']}")).data
    assert more["items"] != everything["items"]


async def test_what_is_asked_wrongly_is_refused_by_name(installation: Installation, admin: Account) -> None:
    for query, field in (
        ("since=yesterday", "since"),
        ("until=2026-13-01", "until"),
        ("verdict=lost", "verdict"),
        ("limit=0", "limit"),
        ("cursor=x", "cursor"),
    ):
        answer = await admin.ask("GET", f"/v1/admin/trace?{query}")
        assert (answer.status, answer.error, answer.json["field"]) == (400, "field_invalid", field)


async def test_a_stranger_writes_nothing_that_an_operators_terminal_obeys(
    installation: Installation, admin: Account
) -> None:
    server = installation.server
    with smtplib.SMTP(*server.smtp, timeout=30) as smtp:
        smtp.ehlo("c")
        smtp.docmd("MAIL", "FROM:<[red]x@example.com>")
        assert smtp.docmd("RCPT", 'TO:<"\x1b[2J\x1b]0;owned\x07"@escape.example>')[0] == 501
    with socket.create_connection(server.smtp, 30) as raw, raw.makefile("rb") as replies:
        raw.sendall(b"HELO c\r\nMAIL FROM:<\xc2\x9b31mx@escape.example>\r\nQUIT\r\n")
        assert b"501 " in replies.read()
    found = await until(
        lambda: admin.ask("GET", "/v1/admin/trace?limit=1000&since=1h"),
        lambda items: sum("@escape.example" in one["recipient"] + one["sender"] for one in items) >= 2,
    )
    assert all(value.isprintable() for one in found["items"] for value in one.values() if isinstance(value, str))
    for arguments in ((), ("--json",)):
        said = await asyncio.to_thread(trace, server, *arguments)
        assert "escape.example" in re.sub(r"[\s│]", "", said.stdout)
        assert all(one.isprintable() or one == "\n" for one in said.stdout), arguments


def trace(server: Server, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TEMPMAIL_")}
    environment["TEMPMAIL_DATA_DIR"] = str(server.folder / "data")
    command = [sys.executable, "-m", "server", "trace", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


async def test_the_command_line_answers_why_a_mail_did_not_arrive(installation: Installation, admin: Account) -> None:
    server = installation.server
    address = "typed.wrongly@temp.mail"
    await asyncio.to_thread(sent, server, address)
    await until(lambda: admin.ask("GET", f"/v1/admin/trace?address={address}"), lambda items: items)

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return trace(server, *arguments)

    table = await asyncio.to_thread(run, address, "--since", "2h")
    assert table.returncode == 0, table.stderr
    assert "550 5.1.1 No such mailbox" in table.stdout
    line = await asyncio.to_thread(run, address, "--json")
    assert (json.loads(line.stdout)["recipient"], json.loads(line.stdout)["stage"]) == (address, "rcpt")
    sender = json.loads(line.stdout)["sender"]
    from_it = await asyncio.to_thread(run, address, "--from", sender.rpartition("@")[2], "--json")
    assert json.loads(from_it.stdout)["sender"] == sender
    from_none = await asyncio.to_thread(run, "--from", "nobody.sent@example.com")
    assert "no decision about any mail from nobody.sent@example.com" in from_none.stdout
    nothing = await asyncio.to_thread(run, "never.asked@temp.mail")
    assert "no decision about never.asked@temp.mail" in nothing.stdout
    wrong = await asyncio.to_thread(run, address, "--since", "soon")
    assert wrong.returncode == 2
    assert "--since" in wrong.stderr
