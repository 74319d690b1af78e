"""message.auth over real DNS and SMTP: who sent it is checked after it was accepted, and never at the sender's cost."""

import asyncio
import secrets
import smtplib
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.contract.administrators import Installation
from tests.contract.transcript import ask
from tests.nameserver import name_server
from tests.running import Box, Server

NONE = {"spf": "none", "dkim": "none", "dmarc": "none", "tls": False}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A server that checks mail, and the DNS it asks."""
    with name_server() as zones:
        folder = tmp_path_factory.mktemp("authentication")
        lmtp = f"unix:{folder}/lmtp"
        server = Server(folder, DNS_SERVERS=zones.address, MAIL_AUTHENTICATION="on", LMTP_BIND_ADDR=lmtp).start()
        yield Installation(server, zones)
        assert server.stop() == 0, server.log[-4000:]


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    return generate_private_key(65537, 2048)


def fresh() -> str:
    return f"{secrets.token_hex(6)}.example"


def mail(author: str, subject: str = "hello", text: str = "a line\n") -> bytes:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = author, "someone@temp.mail", subject
    message.set_content(text)
    return message.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def publish(host: Installation, domain: str, key: RSAPrivateKey, selector: str = "s1") -> None:
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode().split("-----")[2]
    host.zones.texts[f"{selector}._domainkey.{domain}"] = ["v=DKIM1; k=rsa; p=" + "".join(public.split())]


def signed(raw: bytes, domain: str, key: RSAPrivateKey, selector: str = "s1", **how: Any) -> bytes:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    canon = (b"relaxed", b"relaxed")
    header: bytes = dkim.sign(raw, selector.encode(), domain.encode(), pem, canonicalize=canon, **how)
    return header + raw


def send(host: Installation, box: Box, sender: str, raw: bytes) -> None:
    with smtplib.SMTP(*host.server.smtp, local_hostname="client.example", timeout=30) as client:
        client.ehlo()
        assert client.docmd(f"MAIL FROM:<{sender}>")[0] == 250
        assert client.docmd(f"RCPT TO:<{box.address}>")[0] == 250
        assert client.docmd("DATA")[0] == 354
        client.send(raw + b".\r\n")
        assert client.getreply()[0] == 250


async def checked(host: Installation, box: Box, sender: str, raw: bytes, **expected: str) -> Any:
    """``auth`` of a message sent, once it is as expected (or what it still is after a minute)."""
    await asyncio.to_thread(send, host, box, sender, raw)
    for _ in range(600):
        auth = (await host.server.messages(box))[0]["auth"]
        if auth == NONE | expected:
            break
        await asyncio.sleep(0.1)
    return auth


async def test_mail_that_proves_its_origin_passes_and_is_found_by_it(host: Installation, key: RSAPrivateKey) -> None:
    box, domain = await host.server.mailbox(), fresh()
    publish(host, domain, key)
    host.zones.texts[domain] = ["v=spf1 ip4:127.0.0.0/8 -all"]
    host.zones.texts[f"_dmarc.{domain}"] = ["v=DMARC1; p=reject"]
    expected = {"spf": "pass", "dkim": "pass", "dmarc": "pass"}
    raw = signed(mail(f"Alice <alice@{domain}>"), domain, key)
    assert await checked(host, box, f"alice@{domain}", raw, **expected) == NONE | expected
    message = (await host.server.messages(box))[0]
    assert (await host.server.get(box, f"/messages/{message['id']}"))["auth"] == NONE | expected
    for query, total in (("dmarc:pass", 1), ("dmarc:none", 0), ("-dmarc:pass", 0), ("dmarc:fail", 0)):
        assert (await host.server.get(box, f"/messages/search?q={query}"))["total"] == total


async def test_a_forged_author_fails(host: Installation, key: RSAPrivateKey) -> None:
    """Everything is in order in the forger's own name, and nothing in the name that is shown."""
    box, bank, forger = await host.server.mailbox(), fresh(), fresh()
    publish(host, forger, key)
    host.zones.texts[forger] = ["v=spf1 ip4:127.0.0.0/8 -all"]
    host.zones.texts[f"_dmarc.{bank}"] = ["v=DMARC1; p=reject"]
    expected = {"spf": "pass", "dkim": "pass", "dmarc": "fail"}
    raw = signed(mail(f"Bank <service@{bank}>"), forger, key)
    assert await checked(host, box, f"x@{forger}", raw, **expected) == NONE | expected
    assert (await host.server.get(box, "/messages/search?q=dmarc:fail"))["total"] == 1


async def test_a_changed_message_and_a_client_that_may_not_send_fail(host: Installation, key: RSAPrivateKey) -> None:
    box, domain = await host.server.mailbox(), fresh()
    publish(host, domain, key)
    host.zones.texts[domain] = ["v=spf1 ip4:192.0.2.1 -all"]
    host.zones.texts[f"_dmarc.{domain}"] = ["v=DMARC1; p=none"]
    raw = signed(mail(f"a@{domain}"), domain, key).replace(b"a line", b"a lie")
    expected = {"spf": "fail", "dkim": "fail", "dmarc": "fail"}
    assert await checked(host, box, f"a@{domain}", raw, **expected) == NONE | expected


@pytest.mark.parametrize(
    ("policy", "envelope", "expected"),
    [
        ("v=DMARC1; p=reject", "bounces.{}", "pass"),
        ("v=DMARC1; p=reject; aspf=s", "bounces.{}", "fail"),
        ("v=DMARC1; p=reject; aspf=s", "{}", "pass"),
        ("v=DMARC1; rua=mailto:a@b.example", "{}", "pass"),
        ("v=DMARC2; p=reject", "{}", "none"),
    ],
)
async def test_alignment_is_as_near_as_the_policy_wants(
    host: Installation, policy: str, envelope: str, expected: str
) -> None:
    """The policy lies at the organisation's name and holds for its subdomains; a public suffix joins nobody."""
    box, domain = await host.server.mailbox(), f"{secrets.token_hex(6)}.co.uk"
    sender = envelope.format(f"mail.{domain}")
    host.zones.texts[sender] = ["v=spf1 ip4:127.0.0.0/8 -all"]
    host.zones.texts[f"_dmarc.{domain}"] = [policy]
    results = {"spf": "pass", "dmarc": expected}
    assert await checked(host, box, f"a@{sender}", mail(f"a@mail.{domain}"), **results) == NONE | results


async def test_two_authors_are_no_author(host: Installation) -> None:
    box, domain = await host.server.mailbox(), fresh()
    host.zones.texts[domain] = ["v=spf1 +all"]
    host.zones.texts[f"_dmarc.{domain}"] = ["v=DMARC1; p=reject"]
    expected = {"spf": "pass", "dmarc": "permerror"}
    for raw in (b"From: x@bank.example\r\n" + mail(f"a@{domain}"), mail(f"a@{domain}, b@bank.example")):
        assert await checked(host, box, f"a@{domain}", raw, **expected) == NONE | expected


async def test_trouble_with_dns_delays_and_refuses_nothing(host: Installation, key: RSAPrivateKey) -> None:
    """A server that never answers: 250 comes as ever, the message is readable at once, the results are temperror."""
    box, domain = await host.server.mailbox(), fresh()
    for name in (domain, f"s1._domainkey.{domain}", f"_dmarc.{domain}"):
        host.zones.faults[name] = "servfail" if name == domain else "silence"
    raw = signed(mail(f"a@{domain}"), domain, key)
    await asyncio.to_thread(send, host, box, f"a@{domain}", raw)
    assert (await host.server.messages(box))[0]["auth"]["dkim"] == "none", "the sender waited for DNS"
    expected = {"spf": "temperror", "dkim": "temperror", "dmarc": "temperror"}
    for _ in range(600):
        auth = (await host.server.messages(box))[0]["auth"]
        if auth["dkim"] != "none":
            break
        await asyncio.sleep(0.1)
    assert auth == NONE | expected


async def test_only_so_many_signatures_are_looked_at(host: Installation, key: RSAPrivateKey) -> None:
    box, domain = await host.server.mailbox(), fresh()
    raw = mail(f"a@{domain}")
    bogus = "".join(
        f"DKIM-Signature: v=1; a=rsa-sha256; d={domain}; s=x{n}; h=from; bh=aaaa; b=aaaa\r\n" for n in range(40)
    )
    expected = {"dkim": "permerror"}
    assert await checked(host, box, f"a@{domain}", bogus.encode() + raw, **expected) == NONE | expected
    assert sum(name.endswith(f"._domainkey.{domain}") for name, _ in host.zones.asked) == 5


async def test_a_signature_that_leaves_a_part_of_the_body_open_does_not_pass(
    host: Installation, key: RSAPrivateKey
) -> None:
    box, domain = await host.server.mailbox(), fresh()
    publish(host, domain, key)
    host.zones.texts[f"_dmarc.{domain}"] = ["v=DMARC1; p=reject"]
    raw = signed(mail(f"a@{domain}"), domain, key, length=True) + b"and what nobody signed\r\n"
    expected = {"dkim": "policy", "dmarc": "fail"}
    assert await checked(host, box, f"a@{domain}", raw, **expected) == NONE | expected


async def test_every_recipient_sees_the_results_and_a_bounce_is_judged_by_its_greeting(host: Installation) -> None:
    one, two = await host.server.mailbox(), await host.server.mailbox()
    host.zones.texts["client.example"] = ["v=spf1 ip4:127.0.0.1 -all"]

    def deliver() -> None:
        with smtplib.SMTP(*host.server.smtp, local_hostname="client.example", timeout=30) as client:
            client.sendmail("", [one.address, two.address], mail("MAILER-DAEMON@client.example"))

    await asyncio.to_thread(deliver)
    for box in (one, two):
        for _ in range(600):
            auth = (await host.server.messages(box))[0]["auth"]
            if auth["spf"] != "none":
                break
            await asyncio.sleep(0.1)
        assert auth == NONE | {"spf": "pass"}


async def test_mail_that_a_server_of_this_host_hands_over_is_judged_by_its_signature_alone(
    host: Installation, key: RSAPrivateKey
) -> None:
    """Its client's address is not the sender's: it neither passes SPF nor fails for the want of it."""
    box, domain = await host.server.mailbox(), fresh()
    publish(host, domain, key)
    host.zones.texts[domain] = ["v=spf1 -all"]
    host.zones.texts[f"_dmarc.{domain}"] = ["v=DMARC1; p=reject"]
    plain = mail(f"a@{domain}")

    def hand_over(raw: bytes) -> None:
        with smtplib.LMTP(str(host.server.folder / "lmtp"), local_hostname="relay.example") as client:
            client.sendmail(f"a@{domain}", [box.address], raw)

    await asyncio.to_thread(hand_over, signed(plain, domain, key))
    for _ in range(600):
        auth = (await host.server.messages(box))[0]["auth"]
        if auth["dkim"] != "none":
            break
        await asyncio.sleep(0.1)
    assert auth == NONE | {"dkim": "pass", "dmarc": "pass"}
    await asyncio.to_thread(hand_over, plain)
    await asyncio.to_thread(hand_over, signed(plain, domain, key))
    for _ in range(600):  # the later one is checked: so is the earlier
        newest, earlier, *_ = await host.server.messages(box)
        if newest["auth"]["dkim"] != "none":
            break
        await asyncio.sleep(0.1)
    assert earlier["auth"] == NONE


async def test_where_checking_is_off_dns_is_not_asked(installation: Installation) -> None:
    box, domain = await installation.server.mailbox(), fresh()
    installation.zones.texts[domain] = ["v=spf1 +all"]
    await asyncio.to_thread(send, installation, box, f"a@{domain}", mail(f"a@{domain}"))
    assert (await ask(installation.server, "GET", f"/v1/mailboxes/{box.id}/messages", box)).data["items"][0][
        "auth"
    ] == NONE
    assert not [name for name, _ in installation.zones.asked if name.endswith(domain)]
