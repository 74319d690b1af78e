"""Mail from the senders that exist: a Postfix that relays to us, swaks over STARTTLS, smtplib with SMTPUTF8."""

import asyncio
import json
import smtplib
from collections.abc import Iterator
from email.message import EmailMessage

import pytest
from websockets.asyncio.client import connect

from tests.running import Server
from tests.system.senders import relaying, run


@pytest.fixture
def postfix(server: Server) -> Iterator[tuple[str, int]]:
    """A private Postfix that takes mail on loopback and relays it to the server; its address."""
    with relaying(f"relayhost = [{server.smtp[0]}]:{server.smtp[1]}") as address:
        yield address


async def appears(server: Server, box: object, subject: str) -> dict[str, object]:
    async with asyncio.timeout(120):
        while True:
            for item in await server.messages(box):  # type: ignore[arg-type]
                if item["subject"] == subject:
                    return item
            await asyncio.sleep(0.1)


async def test_postfix_relays_to_two_mailboxes_and_a_watcher_is_told(server: Server, postfix: tuple[str, int]) -> None:
    one, two = await server.mailbox(), await server.mailbox()
    async with connect(server.http.replace("http", "ws") + "/v1/ws") as watcher:
        await watcher.send(json.dumps({"type": "subscribe", "mailboxId": one.id, "token": one.token}))
        assert json.loads(await watcher.recv())["type"] == "subscribed"
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "me@relay.test", one.address, "through postfix"
        message.set_content("Your code is 482 193\n")

        def send() -> None:
            with smtplib.SMTP(*postfix, timeout=30) as client:
                client.send_message(message, "me@relay.test", [one.address, two.address])

        await asyncio.to_thread(send)
        found = await appears(server, one, "through postfix")
        await appears(server, two, "through postfix")
        frame = json.loads(await asyncio.wait_for(watcher.recv(), 60))
        assert (frame["type"], frame["data"]["messageId"], frame["seq"]) == ("new_mail", found["id"], found["seq"])
        assert frame["data"]["codes"] == ["482193"]
    whole = await server.get(one, f"/messages/{found['id']}")
    assert whole["envelopeFrom"] == "me@relay.test"
    assert whole["auth"]["tls"] is True  # opportunistic STARTTLS, as relays do
    assert "relay.test" in json.dumps(whole["headers"])


async def test_swaks_over_starttls(server: Server) -> None:
    box = await server.mailbox()
    host, port = server.smtp
    sent = await asyncio.to_thread(
        run,
        *("swaks", "--server", host, "--port", str(port), "--tls", "--to", box.address, "--from", "swaks@example.org"),
        *("--header", "Subject: over tls", "--body", "hello over tls", "--timeout", "20"),
    )
    assert sent.returncode == 0, sent.stdout + sent.stderr
    found = await appears(server, box, "over tls")
    whole = await server.get(box, f"/messages/{found['id']}")
    assert whole["text"].strip() == "hello over tls"
    assert whole["auth"]["tls"] is True


async def test_smtplib_with_smtputf8(server: Server) -> None:
    box = await server.mailbox()
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "发件人@例子.测试", box.address, "你好"
    message.set_content("验证码：482193\n")

    def send() -> None:
        with smtplib.SMTP(*server.smtp, timeout=30) as client:
            client.ehlo()
            assert client.has_extn("smtputf8")
            client.send_message(message)  # says SMTPUTF8 and BODY=8BITMIME by itself, as its addresses need it

    await asyncio.to_thread(send)
    found = await appears(server, box, "你好")
    assert found["codes"] == ["482193"]
    assert str(found["envelopeFrom"]).startswith("发件人@")


async def test_smtp_source_pipes_through_many_sessions(server: Server) -> None:
    box = await server.mailbox()
    host, port = server.smtp
    command = [
        "smtp-source",
        "-s",
        "20",
        "-m",
        "300",
        "-l",
        "4096",
        "-f",
        "a@src.test",
        "-t",
        box.address,
        f"{host}:{port}",
    ]
    sent = await asyncio.to_thread(run, *command)
    assert sent.returncode == 0, sent.stderr
    assert len(await server.messages(box)) == 300
