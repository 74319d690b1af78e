"""nginx with the configuration of ``nginx/``, and real requests through it: TLS, streams, caching, limits, failures."""

import asyncio
import json
import re
import secrets
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from multidict import CIMultiDictProxy
from websockets.asyncio.client import connect
from yarl import URL

from server.store.embedded import running_dsn
from tests.edge import MAIL, Edge
from tests.running import ROOT, Box, Server

CONFIG: Final = "/v1/public/config"
EVERY_LINE: Final = {r" if=\$tempmail_logged": ""}
"""The change that logs every request."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """On unix sockets, with the limits of production: loopback is not exempt."""
    folder = tmp_path_factory.mktemp("behind")
    settings = {"RATE_LIMIT_EXEMPT": "", "RATE_LIMIT_BURST": "5000", "MAILBOX_MAX_PER_IP": "1000"}
    running = Server(folder, SERVER_HOST=f"unix:{folder}/http.sock", **settings).start()
    yield running
    assert running.stop() == 0, running.log[-4000:]


def sockets(server: Server) -> list[str]:
    return [f"unix:{server.folder}/http.sock.{slot} max_fails=0" for slot in range(2)]


@pytest.fixture(scope="module")
def edge(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    running = Edge(tmp_path_factory.mktemp("edge"), sockets(server)).start()
    yield running
    running.stop()


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[aiohttp.ClientSession]:
    async with edge.session() as session:
        yield session


async def box_at(client: aiohttp.ClientSession, base: str, **head: str) -> Box:
    async with client.post(f"{base}/v1/mailboxes", headers=head) as response:
        assert response.status == 201, await response.text()
        data = (await response.json())["data"]
        return Box(data["id"], data["address"], data["token"])


async def inject(client: aiohttp.ClientSession, base: str, box: Box, **fields: str) -> Any:
    url = f"{base}/v1/mailboxes/{box.id}/messages"
    async with client.post(url, headers=box.auth, json={"from": "a@example.org"} | fields) as response:
        assert response.status == 201, await response.text()
        return (await response.json())["data"]


def curl(edge: Edge, *options: str) -> str:
    command = ["curl", "-sS", "--max-time", "20", "--cacert", edge.folder / "tls" / "fullchain.pem", *options]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


# -- TLS and the door --


def test_a_client_that_can_speaks_http2_another_http1(edge: Edge) -> None:
    shown = ["-o", "/dev/null", "-w", "%{http_version} %{http_code}"]
    assert curl(edge, "--http2", *shown, edge.base + CONFIG) == "2 200"
    assert curl(edge, "--http1.1", *shown, edge.base + CONFIG) == "1.1 200"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_modern_tls_is_spoken(edge: Edge, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=edge.folder / "tls" / "fullchain.pem")
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("localhost", edge.port), 10) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as made,
    ):
        assert made.version() == version.name.replace("_", ".")


def test_old_tls_and_names_that_are_not_ours_get_no_connection(edge: Edge) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    new = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    new.check_hostname, new.verify_mode = False, ssl.CERT_NONE
    for context, name in ((old, "localhost"), (new, "somebody.else.example"), (new, None)):
        with socket.create_connection(("localhost", edge.port), 10) as raw, pytest.raises((ssl.SSLError, OSError)):
            context.wrap_socket(raw, server_hostname=name)


async def test_plain_http_only_leads_to_https_and_proves_the_name(edge: Edge, client: aiohttp.ClientSession) -> None:
    async with client.post(f"{edge.plain}/v1/mailboxes?x=1", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (308, "https://localhost/v1/mailboxes?x=1")
    proof = edge.folder / "acme" / ".well-known" / "acme-challenge" / "token"
    proof.parent.mkdir(parents=True)
    proof.write_text("proof")
    async with client.get(f"{edge.plain}/.well-known/acme-challenge/token") as response:
        assert await response.text() == "proof"
    outside = URL(f"{edge.plain}/.well-known/acme-challenge/%2e%2e/%2e%2e/%2e%2e/etc/passwd", encoded=True)
    async with client.get(outside, allow_redirects=False) as response:
        assert response.status in (308, 400)


@pytest.mark.parametrize("path", [CONFIG, "/docs", "/v1/auth/me", "/v1/nowhere", "/metrics"])
async def test_every_answer_carries_the_headers_of_the_site_once(
    edge: Edge, client: aiohttp.ClientSession, path: str
) -> None:
    async with client.get(edge.base + path) as response:
        for name in ("Strict-Transport-Security", "X-Frame-Options", "X-Content-Type-Options", "Referrer-Policy"):
            assert len(response.headers.getall(name)) == 1, name
        assert response.headers["Server"] == "nginx"  # no version


# -- who asks --


async def remaining(client: aiohttp.ClientSession, url: str, head: dict[str, str]) -> int:
    async with client.get(url, headers=head) as response:
        return int(response.headers["X-RateLimit-Remaining"])


async def test_a_client_is_its_own_address_whatever_it_claims(edge: Edge) -> None:
    url = f"{edge.base}/v1/auth/me"
    async with edge.session(family=socket.AF_INET) as four, edge.session(family=socket.AF_INET6) as six:
        before = await remaining(four, url, {})
        claims = ("203.0.113.7", "203.0.113.8, 127.0.0.1", "", "::1", "unix:", "x" * 500)
        left = [await remaining(four, url, {"X-Forwarded-For": claim, "Forwarded": f"for={claim}"}) for claim in claims]
        assert max(left) < before + 20  # refilled by the second, but one budget
        assert await remaining(six, url, {}) > max(left) - len(claims)
        spent = [await remaining(four, url, {}) for _ in range(40)]
        assert spent[-1] < spent[0]


async def test_metrics_and_readiness_are_for_operators(edge: Edge, client: aiohttp.ClientSession) -> None:
    async with edge.session(family=socket.AF_INET, local_addr=("127.0.0.2", 0)) as stranger:
        for path in ("/metrics", "/health/ready", "/%6detrics", "//metrics", "/health/../metrics"):
            async with stranger.get(URL(edge.base + path, encoded=True)) as response:
                assert response.status in (403, 404), path
        async with stranger.get(f"{edge.base}/health") as response:
            assert response.status == 200
    async with client.get(f"{edge.base}/metrics") as response:
        assert "http_requests_total" in await response.text()
    async with client.get(f"{edge.base}/health/ready") as response:
        assert (await response.json())["status"] == "ok"


# -- what stays open --


async def test_a_websocket_is_passed_through_and_its_origin_checked(
    server: Server, edge: Edge, client: aiohttp.ClientSession
) -> None:
    box = await box_at(client, edge.base)
    url = f"wss://localhost:{edge.port}/v1/ws"
    async with connect(url, ssl=edge.trust, origin=edge.base) as channel:
        await channel.send(json.dumps({"type": "subscribe", "mailboxId": box.id, "token": box.token, "after": 0}))
        assert json.loads(await channel.recv())["type"] == "subscribed"
        await server.deliver(box, subject="pushed through nginx")
        async with asyncio.timeout(60):
            while (frame := json.loads(await channel.recv()))["type"] != "new_mail":
                pass
        assert frame["data"]["subject"] == "pushed through nginx"
    with pytest.raises(Exception, match="403"):
        async with connect(url, ssl=edge.trust, origin="https://elsewhere.example"):
            pass


async def test_an_event_comes_through_while_its_stream_stays_open(edge: Edge, client: aiohttp.ClientSession) -> None:
    box = await box_at(client, edge.base)
    async with client.get(f"{edge.base}/v1/mailboxes/{box.id}/events", headers=box.auth) as stream, asyncio.timeout(60):
        assert stream.content_type == "text/event-stream"
        await inject(client, edge.base, box, subject="streamed")
        while b"streamed" not in await stream.content.readline():
            pass
        stream.close()


async def test_a_wait_is_answered_by_the_mail_that_comes(edge: Edge, client: aiohttp.ClientSession) -> None:
    box = await box_at(client, edge.base)
    url = f"{edge.base}/v1/mailboxes/{box.id}/wait?timeout=60&extract=code"

    async def waited() -> Any:
        async with client.get(url, headers=box.auth) as response:
            return await response.json()

    waiting = asyncio.create_task(waited())
    await asyncio.sleep(0.2)  # mail that is faster answers it too
    await inject(client, edge.base, box, text="Your code is 731 204")
    assert "731204" in json.dumps(await waiting)


# -- what is kept, and what is compressed --


async def fetched(client: aiohttp.ClientSession, url: str, **head: str) -> tuple[str, CIMultiDictProxy[str], bytes]:
    head = {"Accept-Encoding": "identity"} | head
    async with client.get(url, headers=head, auto_decompress=False) as response:
        assert response.status in (200, 206, 304), await response.text()
        return response.headers["X-Cache-Status"], response.headers, await response.read()


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", CONFIG, "/v1/public/domains", "/static/docs.js"])
async def test_a_public_answer_is_asked_for_once_and_keyed_by_its_path_alone(
    edge: Edge, client: aiohttp.ClientSession, path: str
) -> None:
    credential = {"Authorization": "Bearer x", "Cookie": "access_token=y", "X-API-Key": "z", "X-Mailbox-Token": "t"}
    async with asyncio.timeout(60):
        while True:  # again where it was out of date in between, which it is after five seconds
            first = await fetched(client, f"{edge.base}{path}?token=canary", **credential)
            again = [await fetched(client, f"{edge.base}{path}{query}") for query in ("", "?a=1", "?token=other")]
            if [status for status, _, _ in again] == ["HIT"] * 3:
                break
    assert {body for _, _, body in again} == {first[2]}
    assert not any(name.lower().startswith("x-ratelimit") for name in again[0][1])
    if "ETag" in again[0][1]:
        _, _, body = await fetched(client, edge.base + path, **{"If-None-Match": again[0][1]["ETag"]})
        assert body == b""
    _, _, body = await fetched(client, edge.base + path, Range="bytes=0-9")
    assert body in (first[2], first[2][:10])


async def test_languages_are_kept_apart(edge: Edge, client: aiohttp.ClientSession) -> None:
    for _ in range(2):
        for tongue, word in (("zh-CN", "成功"), ("en", "uccess")):
            _, _, body = await fetched(client, f"{edge.base}/v1/public/domains", **{"Accept-Language": tongue})
            assert word in body.decode() or tongue == "en"
            assert ("成功" in body.decode()) == (tongue == "zh-CN")


async def test_a_file_named_by_its_content_is_immutable_and_compressed(
    edge: Edge, client: aiohttp.ClientSession
) -> None:
    _, _, page = await fetched(client, f"{edge.base}/docs")
    script = re.search(rb'src="(/static/docs\.[0-9a-f]+\.js)"', page)
    assert script is not None
    _, head, packed = await fetched(client, edge.base + script[1].decode(), **{"Accept-Encoding": "gzip"})
    assert (head["Content-Encoding"], "immutable" in head["Cache-Control"]) == ("gzip", True)
    _, head, whole = await fetched(client, edge.base + script[1].decode())
    assert len(packed) < len(whole) / 2
    assert "Accept-Encoding" in head["Vary"]
    _, head, body = await fetched(client, edge.base + script[1].decode(), **{"If-None-Match": head["ETag"]})
    assert body == b""


async def test_a_body_with_a_secret_beside_others_words_is_not_compressed(
    edge: Edge, client: aiohttp.ClientSession
) -> None:
    box = await box_at(client, edge.base, **{"Accept-Encoding": "gzip"})
    for number in range(20):
        await inject(client, edge.base, box, subject=f"{'reflected ' * 20}{number}")
    async with client.get(
        f"{edge.base}/v1/mailboxes/{box.id}/messages", headers=box.auth | {"Accept-Encoding": "gzip, br"}
    ) as response:
        assert "Content-Encoding" not in response.headers
        assert len(await response.read()) > 2000


async def test_a_stale_answer_is_served_while_a_fresh_one_is_fetched_and_while_there_is_none(
    own_server: Callable[..., Server], tmp_path: Path
) -> None:
    folder = tmp_path / "0"
    server = own_server(SERVER_HOST=f"unix:{folder}/http.sock")
    (tmp_path / "edge").mkdir()
    edge = Edge(tmp_path / "edge", sockets(server)).start()
    try:
        # a connection for each request: on a kept one the next would wait for the update behind the first
        async with edge.session(force_close=True) as client, asyncio.timeout(180):
            url = edge.base + CONFIG
            box = await box_at(client, edge.base)
            _, _, fresh = await fetched(client, url)
            for worker in server.workers():
                worker.send_signal(signal.SIGSTOP)
            seen = set()
            while "STALE" not in seen and "UPDATING" not in seen:  # its five seconds pass, and nobody answers
                status, _, body = await fetched(client, url)
                assert body == fresh
                seen.add(status)
                await asyncio.sleep(0.2)
            assert [(await fetched(client, url))[2] for _ in range(20)] == [fresh] * 20
            for worker in server.workers():
                worker.send_signal(signal.SIGCONT)
            while (await fetched(client, url))[0] != "HIT":
                await asyncio.sleep(0.1)
            assert server.stop() == 0
            while (await fetched(client, url))[0] == "HIT":
                await asyncio.sleep(0.2)
            assert (await fetched(client, url))[2] == fresh
            await unavailable(edge, client, box)
    finally:
        edge.stop()


async def unavailable(edge: Edge, client: aiohttp.ClientSession, box: Box) -> None:
    """With nobody behind it nginx says so in the shape of the API, and its logs hold no token."""
    async with client.get(f"{edge.base}/v1/mailboxes/{box.id}?token={box.token}") as response:
        assert (response.status, (await response.json())["error"]) == (503, "unavailable")
        assert response.headers["Retry-After"] == "1"
        assert response.headers["Cache-Control"] == "private, no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    async with client.get(f"{edge.base}/api/emails", headers={"X-API-Key": box.token}) as response:
        assert (response.status, list(await response.json())) == (503, ["error"])
    edge.stop()
    written = edge.written()
    assert any(b'"path":"/v1/mailboxes/' in content for content in written.values())
    assert [path for path, content in written.items() if box.token.encode() in content] == []


# -- limits --


@pytest.fixture
def strict(server: Server, tmp_path: Path) -> Iterator[Edge]:
    """nginx with limits so low that no machine is too slow to pass them."""
    changes = {"rate=100r/s": "rate=1r/m", "burst=300": "burst=20"}
    (tmp_path / "edge").mkdir()
    running = Edge(tmp_path / "edge", sockets(server), changes=changes).start()
    yield running
    running.stop()


async def test_a_flood_is_cut_at_the_edge_in_the_shape_of_the_api(strict: Edge) -> None:
    edge = strict
    async with edge.session(limit=50, family=socket.AF_INET, local_addr=("127.0.0.3", 0)) as client:

        async def asked(path: str) -> tuple[int, Any, str | None]:
            async with client.get(edge.base + path) as response:
                return response.status, await response.json(), response.headers.get("Retry-After")

        answers = await asyncio.gather(*(asked("/v1/auth/me") for _ in range(60)))
        refused = [answer for answer in answers if answer[0] == 429]
        assert {answer[0] for answer in answers} == {401, 429}
        assert {(body["error"], body["code"], after) for _, body, after in refused} == {("rate_limited", 429, "1")}
    async with (
        edge.session(family=socket.AF_INET, local_addr=("127.0.0.4", 0)) as neighbour,
        neighbour.get(f"{edge.base}/v1/auth/me") as response,
    ):
        assert response.status == 401


async def test_the_log_has_what_changes_fails_or_takes_long(server: Server, tmp_path: Path) -> None:
    (tmp_path / "edge").mkdir()
    edge = Edge(tmp_path / "edge", sockets(server)).start()
    try:
        async with edge.session(family=socket.AF_INET, local_addr=("127.0.0.8", 0)) as client:
            box = await box_at(client, edge.base)
            for path in ("?quick", "/wait?timeout=1", "/nowhere"):
                async with client.get(f"{edge.base}/v1/mailboxes/{box.id}{path}", headers=box.auth) as response:
                    assert response.status in (200, 204, 404)
        lines = [json.loads(line) for line in access_log(edge)]
        logged = [(line["method"], line["path"].removeprefix(f"/v1/mailboxes/{box.id}")) for line in lines]
        assert [entry for entry in logged if entry[1]] == [
            ("POST", "/v1/mailboxes"),
            ("GET", "/wait"),
            ("GET", "/nowhere"),
        ]
        slow = [line["seconds"] for line in lines if line["path"] == f"/v1/mailboxes/{box.id}"]
        assert all(seconds >= 0.5 for seconds in slow)  # none, on a machine that is quick
    finally:
        edge.stop()


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2:ffff:4:5:7", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:3:4:5:6", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("2001:db8::1", "2001:db8::2:3:4:5", True),
        ("2001:db8::1", "2001:db8:0:0:ffff:1:2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("2001::7:1:2:3:4", "2001::7:5:6:7:8", True),
        ("2001::7:1:2:3:4", "2001::8:1:2:3:4", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("::1", "::2", True),
    ],
)
async def test_an_ipv6_client_is_its_64(keys: Edge, left: str, right: str, same: bool) -> None:
    async with aiohttp.ClientSession() as client:
        found = []
        for address in (left, right):
            async with client.get(f"http://127.0.0.1:{keys.plain_port}/", headers={"X-Test": address}) as response:
                found.append(await response.read())
    assert (found[0].split(b" | ")[0] == found[1].split(b" | ")[0]) == same, found


async def test_an_ipv6_clients_56_and_48_are_counted_too_and_an_ipv4_client_has_none(keys: Edge) -> None:
    async with aiohttp.ClientSession() as client:
        found = []
        for address in ("2001:db8:1:2::1", "2001:db8:1:3::1", "2001:db8:1:103::1", "2001:db8:2:2::1", "192.0.2.1"):
            async with client.get(f"http://127.0.0.1:{keys.plain_port}/", headers={"X-Test": address}) as response:
                found.append((await response.read()).split(b" | "))
    assert [len(key) for key in found[0]] == [8, 7, 6]
    for nth, shared in ((1, [False, True, True]), (2, [False, False, True]), (3, [False, False, False])):
        assert [one == other for one, other in zip(found[0], found[nth], strict=True)] == shared
    assert [len(key) for key in found[4]] == [4, 0, 0]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """nginx that takes the client's address from a header and answers with the key it is counted under."""
    edge = Edge(tmp_path_factory.mktemp("keys"), ["127.0.0.1:1"])
    (edge.conf / "tempmail.conf").write_text(
        "include tempmail/clients.conf;\nset_real_ip_from 127.0.0.1;\nreal_ip_header X-Test;\n"
        f"server {{ listen 127.0.0.1:{edge.plain_port}; listen 127.0.0.1:{edge.port};"
        ' return 200 "$tempmail_client | $tempmail_client_56 | $tempmail_client_48"; }\n'
    )
    edge.start()
    yield edge
    edge.stop()


async def test_only_a_whole_message_may_be_long(edge: Edge, client: aiohttp.ClientSession) -> None:
    box = await box_at(client, edge.base)
    text = "long line\n" * 500_000
    assert (await inject(client, edge.base, box, text=text))["size"] > 5_000_000
    for path, size in (("/v1/auth/login", 1_100_000), (f"/v1/mailboxes/{box.id}/messages", 16_000_000)):
        async with client.post(edge.base + path, headers=box.auth, data=b"{" + b" " * size) as response:
            assert (response.status, (await response.json())["error"]) == (413, "message_too_big")
    async with client.get(f"{edge.base}/v1/mailboxes/{box.id}/messages", headers=box.auth) as response:
        assert (await response.json())["data"]["count"] == 1


# -- the way to tempmail --


async def hot_answers(client: aiohttp.ClientSession, edge: Edge) -> float:
    async with client.get(f"{edge.base}/metrics") as response:
        found = re.search(r"^tempmail_hot_answers_total (\S+)", await response.text(), re.MULTILINE)
        return float(found[1]) if found else 0.0


async def test_connections_are_kept_and_repeated_reads_answered_before_they_are_parsed(edge: Edge) -> None:
    async with edge.session(family=socket.AF_INET, local_addr=("127.0.0.5", 0)) as client, edge.session() as operator:
        box = await box_at(client, edge.base)
        before = await hot_answers(operator, edge)
        for _ in range(200):
            async with client.get(f"{edge.base}/v1/mailboxes/{box.id}/messages", headers=box.auth) as response:
                assert response.status == 200
        async with asyncio.timeout(120):  # workers lay their figures down every second
            while await hot_answers(operator, edge) - before <= 100:
                await asyncio.sleep(0.1)


async def test_no_read_is_lost_while_the_workers_are_replaced(server: Server, edge: Edge) -> None:
    assert server.process is not None
    async with edge.session(family=socket.AF_INET, local_addr=("127.0.0.6", 0)) as client:
        box = await box_at(client, edge.base)
        before = {worker.pid for worker in server.workers()}
        server.process.send_signal(signal.SIGHUP)
        asked = 0
        async with asyncio.timeout(60):
            while len({worker.pid for worker in server.workers()} - before) < 2 or before & set(running(server)):
                async with client.get(f"{edge.base}/v1/mailboxes/{box.id}", headers=box.auth) as response:
                    assert response.status == 200
                asked += 1
        await inject(client, edge.base, box, subject="after")
    assert asked > 1


def running(server: Server) -> set[int]:
    return {worker.pid for worker in server.workers()}


async def test_several_nodes_answer_as_one_and_the_loss_of_one_is_not_seen(
    own_server: Callable[..., Server], tmp_path: Path
) -> None:
    secret = secrets.token_hex(32)
    trusted = {"TRUSTED_PROXIES": "127.0.0.1/32", "JWT_SECRET": secret, "WORKERS": "1"}
    one = own_server(**trusted)
    dsn = running_dsn(one.folder / "data")
    assert dsn is not None
    two = own_server(**trusted, DATABASE_DSN=dsn, SERVER_HOST="127.0.0.1")
    nodes = [node.http.removeprefix("http://") for node in (two, one)]
    (tmp_path / "edge").mkdir()
    servers = [f"{node} max_fails=2 fail_timeout=2s" for node in nodes]
    edge = Edge(tmp_path / "edge", servers, changes=EVERY_LINE).start()
    try:
        async with edge.session() as client:
            box = await box_at(client, edge.base)
            url = f"{edge.base}/v1/mailboxes/{box.id}"
            for number in range(60):
                if number == 20:
                    assert two.stop() == 0
                async with client.get(url, headers=box.auth) as response:
                    assert response.status == 200, number
            lines = [json.loads(line) for line in access_log(edge)]
        assert set(nodes) <= {line["upstream"] for line in lines}
    finally:
        edge.stop()


def access_log(edge: Edge) -> list[str]:
    edge.stop()  # which writes what it holds back
    return (edge.folder / "logs" / "tempmail.log").read_text().splitlines()


async def test_roles_get_what_they_are_for(own_server: Callable[..., Server], tmp_path: Path) -> None:
    everything = own_server(WORKERS="1", ROLES="web,smtp,webhooks,sweeper")
    dsn = running_dsn(everything.folder / "data")
    assert dsn is not None
    shared = {"DATABASE_DSN": dsn, "WORKERS": "1", "JWT_SECRET": secrets.token_hex(32)}
    push = own_server(**shared, ROLES="push", SERVER_HOST=f"unix:{tmp_path}/push.sock")
    (tmp_path / "edge").mkdir()
    web = everything.http.removeprefix("http://")
    live = [f"unix:{tmp_path}/push.sock max_fails=0"]
    edge = Edge(tmp_path / "edge", [web], live=live, changes=EVERY_LINE).start()
    try:
        async with edge.session() as client, asyncio.timeout(120):
            box = await box_at(client, edge.base)
            url = f"wss://localhost:{edge.port}/v1/ws"
            async with connect(url, ssl=edge.trust, origin=edge.base) as channel:
                await channel.send(json.dumps({"type": "subscribe", "mailboxId": box.id, "token": box.token}))
                assert json.loads(await channel.recv())["type"] == "subscribed"
                await inject(client, edge.base, box, subject="from web to push")
                while (frame := json.loads(await channel.recv()))["type"] != "new_mail":
                    pass
            assert frame["data"]["subject"] == "from web to push"
            async with client.get(f"{edge.base}/v1/mailboxes/{box.id}/wait?after=0", headers=box.auth) as response:
                assert response.status == 200
        upstreams = {json.loads(line)["path"]: json.loads(line)["upstream"] for line in access_log(edge)}
        assert upstreams["/v1/mailboxes"] == web
        assert upstreams[f"/v1/mailboxes/{box.id}/wait"] == f"unix:{tmp_path}/push.sock"
    finally:
        edge.stop()
        assert push.stop() == 0


async def test_mail_comes_through_with_the_line_that_says_who_sends(tmp_path: Path) -> None:
    """nginx's half of the PROXY protocol: version 1, the sender's own address, and after it the bytes both ways."""
    (tmp_path / "edge").mkdir()
    seen: list[bytes] = []

    async def node(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readline())
        writer.write(b"220 mx.example.net\r\n")
        seen.append(await reader.readline())
        writer.close()

    async with await asyncio.start_server(node, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        # the first node is one that is down: the sender does not notice
        changes = MAIL | {r"10\.0\.0\.11:25": "127.0.0.1:1", r"10\.0\.0\.12:25": f"127.0.0.1:{port}"}
        edge = Edge(tmp_path / "edge", ["127.0.0.1:1"], changes=changes).start()
        try:
            async with asyncio.timeout(60):
                reader, writer = await asyncio.open_connection("127.0.0.1", edge.smtp_port, local_addr=("127.0.0.9", 0))
                mine = writer.get_extra_info("sockname")[1]
                assert await reader.readline() == b"220 mx.example.net\r\n"
                writer.write(b"EHLO sender.example\r\n")
                assert await reader.read() == b""
                writer.close()
        finally:
            edge.stop()
    assert seen == [b"PROXY TCP4 127.0.0.9 127.0.0.1 %d %d\r\n" % (mine, edge.smtp_port), b"EHLO sender.example\r\n"]
    assert '"client":"127.0.0.9"' in (edge.folder / "logs" / "tempmail-smtp.log").read_text()


async def test_a_client_that_holds_its_share_open_gets_no_more(server: Server, tmp_path: Path) -> None:
    (tmp_path / "edge").mkdir()
    changes = {"tempmail_connections 300": "tempmail_connections 2"}
    edge = Edge(tmp_path / "edge", sockets(server), changes=changes).start()
    try:
        async with edge.session(family=socket.AF_INET, local_addr=("127.0.0.7", 0)) as client:
            box = await box_at(client, edge.base)
            url = f"{edge.base}/v1/mailboxes/{box.id}/events"
            async with client.get(url, headers=box.auth) as one, client.get(url, headers=box.auth) as two:
                assert (one.status, two.status) == (200, 200)
                async with client.get(f"{edge.base}/v1/auth/me") as response:
                    assert (response.status, (await response.json())["error"]) == (429, "rate_limited")
                one.close()
                two.close()
    finally:
        edge.stop()


async def test_a_site_below_a_path_serves_page_and_api_there(own_server: Callable[..., Server], tmp_path: Path) -> None:
    """With the location that the runbook shows and a PUBLIC_URL with a path."""
    (tmp_path / "edge").mkdir()
    shown = (ROOT / "docs" / "runbook.md").read_text().partition("```nginx\n")[2].partition("```")[0]
    assert "location /tempmail/" in shown
    own_server(SERVER_HOST=f"unix:{tmp_path}/http.sock", PUBLIC_URL="https://localhost/tempmail")
    servers = [f"unix:{tmp_path}/http.sock.{slot} max_fails=0" for slot in range(2)]
    changes = {r"    include tempmail/site.conf;\n": f"    include tempmail/site.conf;\n{shown}"}
    edge = Edge(tmp_path / "edge", servers, changes=changes).start()
    try:
        base = f"{edge.base}/tempmail"
        async with edge.session() as client:
            async with client.get(f"{base}/docs") as response:
                page = await response.text()
            named = re.findall(r'(?:href|src)="(/[^"]*)"', page)
            assert len(named) >= 4
            for path in named:
                async with client.get(f"{edge.base}{path}") as response:
                    assert response.status == 200, path
            async with client.get(f"{base}/openapi.json") as response:
                assert (await response.json())["servers"] == [{"url": "https://localhost/tempmail"}]
            box = await box_at(client, base)
            live = base.replace("https", "wss") + "/v1/ws"
            async with connect(live, ssl=edge.trust) as watcher:
                await watcher.send(json.dumps({"type": "subscribe", "mailboxId": box.id, "token": box.token}))
                assert json.loads(await watcher.recv())["type"] == "subscribed"
                await inject(client, base, box, subject="below a path", text="Your code is 482 193")
                assert json.loads(await watcher.recv())["type"] == "new_mail"
            async with client.get(f"{base}/v1/mailboxes/{box.id}/wait?extract=code", headers=box.auth) as response:
                assert (await response.json())["data"]["code"] == "482193"
    finally:
        edge.stop()
