"""Mail that comes by other ways than a plain connection: through a proxy, and from a mail server of the same host."""

import asyncio
import smtplib
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.edge import MAIL, Edge
from tests.running import Box, Server
from tests.system.senders import relaying, run
from tests.system.test_relays import appears


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that a mail server with a user of its own may pass through."""
    path = Path(run("mktemp", "-d", "-p", "/var/tmp", "tempmail.XXXXXX").stdout.strip())
    path.chmod(0o755)
    yield path
    run("rm", "-rf", str(path))


@pytest.fixture(scope="module")
def behind(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two workers behind a proxy on 127.0.0.1, that listens for LMTP on a path."""
    settings = {"SMTP_PROXY_PROTOCOL": "true", "TRUSTED_PROXIES": "127.0.0.1/32"}
    settings["LMTP_BIND_ADDR"] = f"unix:{folder}/lmtp"
    running = Server(tmp_path_factory.mktemp("behind"), SMTP_TLS_CERT="self-signed", **settings).start()
    yield running
    assert running.stop() == 0, running.log[-4000:]
    assert not (folder / "lmtp").exists()


async def headers(server: Server, box: Box, subject: str) -> str:
    found = await appears(server, box, subject)
    return str((await server.get(box, f"/messages/{found['id']}"))["headers"])


async def test_mail_through_nginx_is_its_senders(behind: Server, tmp_path: Path) -> None:
    box = await behind.mailbox()
    changes = MAIL | {r"10\.0\.0\.1[12]:25": f"{behind.smtp[0]}:{behind.smtp[1]}"}
    edge = Edge(tmp_path, [behind.http.removeprefix("http://")], changes=changes).start()

    def send() -> None:
        with smtplib.SMTP("127.0.0.1", edge.smtp_port, source_address=("127.0.0.9", 0), timeout=30) as client:
            client.starttls()
            client.sendmail("a@example.org", [box.address], b"Subject: proxied\r\n\r\nx\r\n")

    try:
        await asyncio.to_thread(send)
    finally:
        edge.stop()
    assert "[127.0.0.9]" in await headers(behind, box, "proxied")


async def test_every_worker_takes_lmtp_from_one_path(behind: Server, folder: Path) -> None:
    one, two = await behind.mailbox(), await behind.mailbox()

    def send() -> list[dict[str, tuple[int, bytes]]]:
        clients = [smtplib.LMTP(f"{folder}/lmtp") for _ in range(20)]
        to = [one.address, "nobody.at.all@temp.mail", two.address]
        return [client.sendmail("a@example.org", to, b"Subject: local\r\n\r\nx\r\n") for client in clients]

    for refused in await asyncio.to_thread(send):
        assert [(address, code) for address, (code, _text) in refused.items()] == [("nobody.at.all@temp.mail", 550)]
    for box in (one, two):
        assert [message["subject"] for message in await behind.messages(box)] == ["local"] * 20


async def test_postfix_hands_mail_over_by_lmtp(behind: Server, folder: Path) -> None:
    one, two = await behind.mailbox(), await behind.mailbox()
    (folder / "lmtp").chmod(0o666)  # an operator puts Postfix's user into the group instead
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "me@relay.test", one.address, "by lmtp"
    message.set_content("Your code is 482 193\n")

    def send(address: tuple[str, int]) -> None:
        with smtplib.SMTP(*address, timeout=30) as client:
            client.send_message(message, "me@relay.test", [one.address, two.address])

    with relaying(f"relay_transport = lmtp:unix:{folder}/lmtp") as address:
        await asyncio.to_thread(send, address)
        for box in (one, two):
            assert "with LMTP id" in await headers(behind, box, "by lmtp")
