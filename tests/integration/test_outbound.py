"""Requests to addresses that users chose reach the public Internet and nothing else: one test for each way round."""

import asyncio
import ipaddress
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from server.config.parsing import Network
from server.model.errors import Refused, Unavailable
from server.services.domains.resolver import Resolver
from server.services.webhooks.http_client import BODY_KEPT, Outbound, forbidden, target
from tests.nameserver import Zones, name_server
from tests.receiving import Receiver, Request, receiving, status
from tests.running import ROOT

HERE: list[Network] = [ipaddress.ip_network("127.0.0.2/32")]
"""The one address of loopback that the tests let requests reach; all others stay forbidden."""


@pytest.fixture
def names() -> Iterator[Zones]:
    with name_server() as started:
        yield started


@pytest.fixture
async def resolver(names: Zones) -> AsyncIterator[Resolver]:
    made = Resolver([names.address])
    yield made
    await made.close()


@pytest.fixture
async def outbound(resolver: Resolver) -> AsyncIterator[Outbound]:
    made = Outbound(resolver.addresses, HERE, timeout=60)
    yield made
    await made.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving("127.0.0.2") as started:
        yield started


def url(receiver: Receiver, host: str = "127.0.0.2", path: str = "/hook?x=1") -> str:
    return f"http://{host}:{receiver.port}{path}"


LOOPBACK_LITERALS = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "2130706433",
    "017700000001",
    "0177.0.0.1",
    "0x7f000001",
    "0X7F.1",
    "0x7f.0x0.0x0.0x1",
    "0x7f.0.01",
    "00000000000000000000177.0.0.1",
    "127.0.0.1。",
    "127。0。0。1",
    "１２７.0.0.1",
    "①②⑦.⓪.⓪.①",
    "0x7f。1",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::127.0.0.1]",
    "[::7f00:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:FFFF:7F00:0001]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::127.0.0.1]",
    "[64:ff9b:1:7f00:0:100::]",
    "[2002:7f00:1::]",
    "[2002:7f00:0001::1]",
    "[2001:0:0:0:0:0:80ff:fffe]",
    "0",
    "0.0.0.0",
    "0x0",
    "localhost",
    "LOCALHOST.",
    "anything.localhost",
    "ｌｏｃａｌｈｏｓｔ",
]


@pytest.mark.parametrize("host", LOOPBACK_LITERALS)
def test_loopback_in_every_notation_is_refused_before_anything_is_asked(host: str) -> None:
    for scheme, port in (("http", ""), ("https", ":8443")):
        with pytest.raises(Refused) as refused:
            target(f"{scheme}://{host}{port}/path", ())
        assert (refused.value.word, refused.value.field) == ("field_invalid", "url")


@pytest.mark.parametrize(
    "network",
    [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "255.255.255.255/32",
        "::/128",
        "::1/128",
        "::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/32",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    ],
)
def test_every_network_that_is_not_public_is_forbidden_from_end_to_end(network: str) -> None:
    whole = ipaddress.ip_network(network)
    for address in (whole[0], whole[-1]):
        assert forbidden(address, ())
        if isinstance(address, ipaddress.IPv4Address):
            for wrapped in (f"::ffff:{address}", f"64:ff9b::{address}", f"::{address}", f"64:ff9b:1::{address}"):
                assert forbidden(ipaddress.ip_address(wrapped), ())
            assert forbidden(ipaddress.IPv6Address(0x2002 << 112 | int(address) << 80), ())


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "168.63.129.15",
        "168.63.129.17",
        "172.15.255.255",
        "172.32.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700::1111",
        "2001:200::1",
        "64:ff9b::1.1.1.1",
        "::ffff:1.1.1.1",
    ],
)
def test_what_lies_beside_the_forbidden_is_public(address: str) -> None:
    assert not forbidden(ipaddress.ip_address(address), ())


@pytest.mark.parametrize("url", ["http://user@example.org/", "http://user:password@example.org/"])
def test_credentials_in_a_url_are_refused_as_such(url: str) -> None:
    with pytest.raises(Refused) as refused:
        target(url, [])
    assert "no credentials" in str(refused.value.detail)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "example.org/hook",
        "//example.org/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "gopher://example.org:70/_x",
        "http:example.org",
        "http://",
        "http:///path",
        "http://user@example.org/",
        "http://user:password@example.org/",
        "http://example.org@127.0.0.1/",
        "http://127.0.0.1\\@example.org/",
        "http://example.org\\.evil.test/",
        "http://example.org#@127.0.0.1/",
        "http://example.org/#fragment",
        "http://%31%32%37.0.0.1/",
        "http://exam%00ple.org/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[::1/",
        "http://::1/",
        "http://example.org:0/",
        "http://example.org:22/",
        "http://example.org:25/",
        "http://example.org:6667/",
        "http://example.org:65536/",
        "http://example.org:/",
        "http://example.org:80:80/",
        "http://example.org/ x",
        "http://example.org/\r\nX-Injected: 1",
        "http://example.org/\u00e9",
        "http://exa mple.org/",
        "http://exam\tple.org/",
        "http://exam\u00adple.org/",
        "http://exam\u200bple.org/",
        "http://example..org/",
        "http://.example.org/",
        "http://-example.org/",
        "http://256.0.0.1/",
        "http://1.2.3.4.5/",
        "http://08.8.8.8/",
        "http://0x100000000/",
        "http://example.0x7f/",
        "http://" + "a" * 64 + ".org/",
        "http://" + "a." * 127 + "org/",
        "http://example.org/" + "x" * 2048,
    ],
)
def test_what_is_no_plain_address_of_a_public_host_is_refused(bad: str) -> None:
    with pytest.raises(Refused) as refused:
        target(bad, ())
    assert refused.value.field == "url"


def test_public_hosts_are_taken_apart_as_everybody_does() -> None:
    assert target("https://Example.ORG", ())[:4] == (True, "example.org", 443, "/")
    assert target("http://bücher.example:8080?a=b", ())[:4] == (False, "xn--bcher-kva.example", 8080, "/?a=b")
    assert target("HTTP://8.8.8.8./a/b", ())[:4] == (False, "8.8.8.8", 80, "/a/b")
    assert target("http://134744072/", ()).host == "8.8.8.8"
    assert target("http://[2606:4700::1111]:8080/", ()).host == "2606:4700::1111"


async def test_request_arrives_whole_at_the_name_it_was_sent_to(
    outbound: Outbound, receiver: Receiver, names: Zones
) -> None:
    names.turn("hooks.test", "A", ["127.0.0.2"])
    outcome = await outbound.post(url(receiver, "hooks.test"), b'{"a":1}', {"X-Webhook-ID": "7"})
    assert (outcome.status_code, outcome.response, outcome.success) == (200, "thanks", True)
    [request] = receiver.requests
    assert (request.method, request.path, request.body) == ("POST", "/hook?x=1", b'{"a":1}')
    assert request.headers["host"] == f"hooks.test:{receiver.port}"
    assert (request.headers["x-webhook-id"], request.headers["accept-encoding"]) == ("7", "identity")


async def test_rebinding_name_is_resolved_once_and_reached_where_it_was_checked(
    outbound: Outbound, receiver: Receiver, names: Zones
) -> None:
    async with receiving("127.0.0.1", receiver.port) as inside:
        names.turn("rebind.test", "A", ["127.0.0.2"], ["127.0.0.1"])
        outcome = await outbound.post(url(receiver, "rebind.test"), b"{}", {})
        assert outcome.success
        assert names.asked.count(("rebind.test", "A")) == 1
        later = await outbound.post(url(receiver, "rebind.test"), b"{}", {})
        assert later.error == "the host resolves to an address that is not public"
        assert (receiver.connections, inside.connections) == (1, 0)


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        ("A", "127.0.0.1"),
        ("A", "169.254.169.254"),
        ("A", "10.0.0.1"),
        ("AAAA", "::1"),
        ("AAAA", "::ffff:7f00:1"),
        ("AAAA", "64:ff9b::7f00:1"),
        ("AAAA", "fe80::1"),
        ("AAAA", "fd00::1"),
        ("AAAA", "2002:7f00:1::"),
    ],
)
async def test_name_with_one_forbidden_address_among_others_is_not_connected_to(
    outbound: Outbound, receiver: Receiver, names: Zones, kind: str, address: str
) -> None:
    names.turn("mixed.test", "A", ["127.0.0.2"])
    names.turn("mixed.test", kind, (["127.0.0.2"] if kind == "A" else []) + [address])
    outcome = await outbound.post(url(receiver, "mixed.test"), b"{}", {})
    assert outcome.error == "the host resolves to an address that is not public"
    assert receiver.connections == 0


async def test_alias_of_a_forbidden_host_is_not_connected_to(
    outbound: Outbound, receiver: Receiver, names: Zones
) -> None:
    names.turn("inside.test", "A", ["127.0.0.1"])
    names.turn("alias.test", "CNAME", ["inside.test."])
    outcome = await outbound.post(url(receiver, "alias.test"), b"{}", {})
    assert outcome.error == "the host resolves to an address that is not public"
    assert receiver.connections == 0


async def test_literals_are_checked_again_when_sending(resolver: Resolver) -> None:
    """A URL may have been stored while another setting was in force."""
    strict = Outbound(resolver.addresses, [], timeout=60)
    async with receiving("127.0.0.1") as inside:
        for host in ("127.0.0.1", "2130706433", "[::ffff:127.0.0.1]", "0x7f.1"):
            outcome = await strict.post(f"http://{host}:{inside.port}/", b"{}", {})
            assert outcome.error == "the URL is not allowed: an address of the public Internet"
        assert inside.connections == 0
    await strict.close()


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_redirect_to_loopback_is_not_followed(outbound: Outbound, receiver: Receiver, code: int) -> None:
    async with receiving("127.0.0.1") as inside:
        receiver.answer = status(code, b"", f"Location: http://127.0.0.1:{inside.port}/secret")
        outcome = await outbound.post(url(receiver), b"{}", {})
        assert (outcome.status_code, outcome.success) == (code, False)
        assert (len(receiver.requests), inside.connections) == (1, 0)


async def test_proxies_and_passwords_of_the_environment_are_not_used(
    resolver: Resolver, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.2 login root password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with receiving("127.0.0.1") as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        outbound = Outbound(resolver.addresses, HERE, timeout=60)
        assert (await outbound.post(url(receiver), b"{}", {})).success
        await outbound.close()
        assert proxy.connections == 0
    assert "authorization" not in receiver.requests[0].headers


async def test_cookies_of_one_answer_do_not_come_with_the_next_request(outbound: Outbound, receiver: Receiver) -> None:
    receiver.answer = status(200, b"", "Set-Cookie: a=b; Path=/")
    for _ in range(2):
        assert (await outbound.post(url(receiver), b"{}", {})).success
    assert ["cookie" in request.headers for request in receiver.requests] == [False, False]


async def mute(_: Request, __: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def trickle_head(_: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for n in range(3600):
        writer.write(b"X-%d: y\r\n" % (n % 50))
        await writer.drain()
        await asyncio.sleep(0.1)


async def only_informed(_: Request, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("answer", [mute, trickle_head, only_informed])
async def test_target_that_never_comes_to_its_status_is_given_up(
    resolver: Resolver, receiver: Receiver, answer: Callable[[Request, asyncio.StreamWriter], object]
) -> None:
    outbound = Outbound(resolver.addresses, HERE, timeout=0.5)
    receiver.answer = answer  # type: ignore[assignment]
    outcome = await asyncio.wait_for(outbound.post(url(receiver), b"{}", {}), 60)
    assert outcome.status_code is None
    assert outcome.error
    await asyncio.wait_for(outbound.close(), 60)


async def test_slow_body_does_not_hold_a_delivery_whose_status_has_come(outbound: Outbound, receiver: Receiver) -> None:
    async def answer(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.05)

    receiver.answer = answer
    outcome = await asyncio.wait_for(outbound.post(url(receiver), b"{}", {}), 60)
    assert outcome.success
    assert outcome.response
    assert set(outcome.response) == {"."}
    await asyncio.wait_for(receiver.closed.wait(), 60)


async def test_endless_body_is_cut_where_its_beginning_ends(outbound: Outbound, receiver: Receiver) -> None:
    sent = 0

    async def answer(_: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n")
            sent += 0xFFFF
            await writer.drain()

    receiver.answer = answer
    outcome = await asyncio.wait_for(outbound.post(url(receiver), b"{}", {}), 60)
    assert (outcome.success, outcome.response) == (True, "x" * BODY_KEPT)
    await asyncio.wait_for(receiver.closed.wait(), 60)
    assert sent < 64 << 20  # what the sockets' buffers took before the connection was cut


@pytest.mark.parametrize(
    "head",
    [
        b"X-Long: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"".join(b"X-%d: y\r\n" % n for n in range(100_000)) + b"\r\n",
        b"y" * 1_000_000,
    ],
    ids=["one long field", "many fields", "no field at all"],
)
async def test_huge_headers_are_not_taken_in(outbound: Outbound, receiver: Receiver, head: bytes) -> None:
    async def answer(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + head)

    receiver.answer = answer
    outcome = await asyncio.wait_for(outbound.post(url(receiver), b"{}", {}), 60)
    assert outcome.status_code is None
    assert outcome.error


async def test_compressed_body_is_not_unpacked(outbound: Outbound, receiver: Receiver) -> None:
    bomb = bytes.fromhex("1f8b0800000000000003") + b"\xed\xc1\x01\x01" + bytes(100_000)
    receiver.answer = status(200, bomb, "Content-Encoding: gzip")
    outcome = await outbound.post(url(receiver), b"{}", {})
    assert outcome.success
    assert outcome.response == bomb[:BODY_KEPT].decode("utf-8", "replace")


async def test_next_address_is_tried_where_the_first_does_not_take_connections(
    resolver: Resolver, receiver: Receiver, names: Zones
) -> None:
    both: list[Network] = [ipaddress.ip_network("127.0.0.2/31")]
    outbound = Outbound(resolver.addresses, both, timeout=60)
    names.turn("two.test", "A", ["127.0.0.3", "127.0.0.2"])
    assert (await outbound.post(url(receiver, "two.test"), b"{}", {})).success
    await outbound.close()


async def test_request_that_may_have_arrived_is_not_sent_to_the_next_address(
    resolver: Resolver, receiver: Receiver, names: Zones
) -> None:
    async def hang_up(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.close()

    both: list[Network] = [ipaddress.ip_network("127.0.0.2/31")]
    outbound = Outbound(resolver.addresses, both, timeout=60)
    async with receiving("127.0.0.3", receiver.port) as second:
        names.turn("two.test", "A", ["127.0.0.2", "127.0.0.3"])
        receiver.answer = second.answer = hang_up
        outcome = await outbound.post(url(receiver, "two.test"), b"{}", {})
        assert outcome.error == "the connection was closed before an answer came"
        assert len(receiver.requests) + len(second.requests) == 1
    await outbound.close()


async def test_no_more_than_three_addresses_of_a_host_are_tried(receiver: Receiver) -> None:
    async def four(_: str) -> list[str]:
        return [*(f"127.0.0.{n}" for n in range(5, 8)), "127.0.0.2"]

    outbound = Outbound(four, [ipaddress.ip_network("127.0.0.0/29")], timeout=60)
    assert (await outbound.post(url(receiver, "many.test"), b"{}", {})).error == "could not connect"
    assert receiver.connections == 0
    await outbound.close()


async def test_what_cannot_be_reached_says_why_and_names_no_address(outbound: Outbound, names: Zones) -> None:
    names.faults["broken.test"] = "servfail"
    names.turn("closed.test", "A", ["127.0.0.2"])
    errors = {
        host: (await outbound.post(f"http://{host}:1025/", b"{}", {})).error
        for host in ("missing.test", "broken.test", "closed.test")
    }
    assert errors == {
        "missing.test": "the host has no address",
        "broken.test": "the host could not be resolved",
        "closed.test": "could not connect",
    }


def certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """A self-signed certificate for ``host``, and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
        .not_valid_after(datetime.now(UTC) + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "certificate.pem", folder / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
    return pem, secret


SENDER = """
import asyncio, ipaddress, sys
from server.services.webhooks.http_client import Outbound
from server.services.domains.resolver import Resolver

async def main():
    resolver = Resolver([sys.argv[1]])
    outbound = Outbound(resolver.addresses, [ipaddress.ip_network("127.0.0.2/32")], timeout=60)
    for url in sys.argv[2:]:
        outcome = await outbound.post(url, b"{}", {})
        print(outcome.status_code, outcome.error)
    await outbound.close()
    await resolver.close()

asyncio.run(main())
"""


async def test_certificate_must_be_trusted_and_name_the_host_that_was_meant(names: Zones, tmp_path: Path) -> None:
    """In a process of its own: which certificates are trusted is decided when a process begins."""
    pem, key = certificate(tmp_path, "good.test")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pem, key)
    names.turn("good.test", "A", ["127.0.0.2"])
    names.turn("other.test", "A", ["127.0.0.2"])
    said = []
    async with receiving("127.0.0.2", tls=tls) as receiver:
        urls = [f"https://{host}:{receiver.port}/" for host in ("good.test", "other.test", "127.0.0.2")]
        for trusted in (str(pem), os.devnull):
            command = [sys.executable, "-c", SENDER, names.address, *urls]
            env = os.environ | {"SSL_CERT_FILE": trusted, "SSL_CERT_DIR": str(tmp_path / "none")}
            run = await asyncio.to_thread(
                subprocess.run, command, cwd=ROOT, env=env, capture_output=True, text=True, check=True, timeout=60
            )
            said += run.stdout.splitlines()
        assert len(receiver.requests) == 1
    refused = "None the TLS certificate was not accepted, or TLS failed"
    assert said == ["200 None", refused, refused, refused, refused, refused]


async def test_resolver_knows_nothing_from_trouble(resolver: Resolver, names: Zones) -> None:
    names.texts["proof.test"] = ["tempmail-verify=" + "1" * 300, "other"]
    names.exchanges["proof.test"] = [(20, "b.test"), (10, "A.test")]
    assert sorted(await resolver.txt("proof.test")) == ["other", "tempmail-verify=" + "1" * 300]
    assert await resolver.mx("proof.test") == [(10, "a.test"), (20, "b.test")]
    assert await resolver.txt("missing.test") == []
    assert await resolver.addresses("proof.test") == []
    names.faults["broken.test"] = "servfail"
    for ask in (resolver.txt, resolver.mx, resolver.addresses):
        with pytest.raises(Unavailable):
            await ask("broken.test")


async def test_record_is_seen_as_soon_as_it_is_there(resolver: Resolver, names: Zones) -> None:
    names.turn("late.test", "A", ["127.0.0.2"])
    assert await resolver.txt("late.test") == []
    names.texts["late.test"] = ["now"]
    assert await resolver.txt("late.test") == ["now"]
