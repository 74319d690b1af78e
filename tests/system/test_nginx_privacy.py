"""nginx never keeps or mixes up what is private: every route read as one owner, as another and as nobody, every way
to write its path, and everything nginx wrote searched for anything of theirs.

Generated from the route table: a route that is added is covered.
"""

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from email.message import EmailMessage
from typing import Final, NamedTuple

import aiohttp
import pytest
from yarl import URL

from server.web.api.routes import ROUTES
from tests.contract.world import PASSWORD, Owner, owner
from tests.edge import Edge
from tests.running import ROOT, Server

PATHS: Final = sorted({route.path for route in ROUTES})
SHARED: Final = {route.path for route in ROUTES if route.shared}
KEYED: Final = {route.path for route in ROUTES if route.auth == "key"}
# What a careless cache would take for a file, or for another path than the one that is answered.
TAILS: Final = (
    *("", ".css", "/x.css", ";x.css", "%2ecss", "?.css", "?x=.css", "%3b.js", "/..;/x.css"),
    *("/%2e%2e/docs.css", "%2f..%2f..%2f..%2f..%2f..%2fstatic%2fdocs.css", "/../../../../../../static/docs.css"),
)
BEFORE: Final = ("/static/..", "/static/%2e%2e", "/static/..%2f", "/v1/public/config/../../..", "/")
METHODS: Final[tuple[tuple[str, dict[str, str]], ...]] = (
    ("HEAD", {}),
    ("GET", {"Range": "bytes=0-9"}),
    ("GET", {"Accept-Encoding": "gzip"}),
)


class Asked(NamedTuple):
    """One request, but for who makes it."""

    method: str
    url: str
    head: dict[str, str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("private")
    running = Server(folder, SERVER_HOST=f"unix:{folder}/http.sock").start()
    yield running
    assert running.stop() == 0, running.log[-4000:]


@pytest.fixture(scope="module")
def edge(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    sockets = [f"unix:{server.folder}/http.sock.{slot}" for slot in range(2)]
    changes = {r"rate=\d+r/s": "rate=100000r/s"}  # thousands of requests from one address, by IPv4 or IPv6
    running = Edge(tmp_path_factory.mktemp("edge"), sockets, changes=changes).start()
    yield running
    running.stop()


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[aiohttp.ClientSession]:
    async with edge.session() as session:
        yield session


async def made_super(client: aiohttp.ClientSession, server: Server, one: Owner) -> Owner:
    """``one``, with a role that opens every route."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TEMPMAIL_")}
    environment["TEMPMAIL_DATA_DIR"] = str(server.folder / "data")
    command = [sys.executable, "-m", "server", "admin", "promote", one.email, "--role", "super"]
    await asyncio.to_thread(subprocess.run, command, cwd=ROOT, env=environment, check=True, timeout=60)
    session = await one.call(client, "POST", "/v1/auth/login", {"email": one.email, "password": PASSWORD})
    one.token = session["accessToken"]
    return one


def secrets_of(one: Owner) -> set[bytes]:
    """What nobody else may see of an owner, and what of it no answer may hold that a cache keeps."""
    ids = {identity for kind, identity in one.ids.items() if kind not in ("attachment", "file")}
    return {text.encode() for text in {one.token, one.key, one.box_token, one.email, *ids}}


async def canaried(client: aiohttp.ClientSession, one: Owner) -> Owner:
    """``one``, its message replaced by one whose subject, text and attachment nobody else has."""
    canary = secrets.token_hex(12)
    message = EmailMessage()
    message["From"], message["Subject"] = "a@example.org", canary
    message.set_content(canary)
    message.add_attachment(canary.encode(), maintype="text", subtype="css", filename="x.css")
    at = f"/v1/mailboxes/{one.ids['mailbox']}/messages"
    made = await one.call(client, "POST", at, {"raw": message.as_string()})
    await one.call(client, "POST", f"{at}/{made['id']}/tags", {"tagId": one.ids["tag"]})
    one.ids |= {"message": made["id"], "attachment": made["attachments"][0]["id"], "canary": canary}
    return one


def requests(base: str, path: str) -> Iterator[Asked]:
    for tail in TAILS:
        yield Asked("GET", base + path + tail, {})
    for before in BEFORE:
        yield Asked("GET", base + before + path, {})
    for method, head in METHODS:
        for tail in TAILS[:2]:
            yield Asked(method, base + path + tail, head)


async def answered(client: aiohttp.ClientSession, asked: Asked, credential: dict[str, str]) -> tuple[int, bytes]:
    url = URL(asked.url, encoded=True)
    async with client.request(asked.method, url, headers=asked.head | credential, allow_redirects=False) as response:
        assert response.status != 429, "what is limited shows nothing"
        control = response.headers.get("Cache-Control", "")
        if response.status == 200 and "X-Cache-Status" in response.headers:
            assert control.startswith("public, max-age="), asked
        elif response.status < 500:
            assert "Content-Encoding" not in response.headers, asked
            assert control == "private, no-store" or (response.headers["Server"] == "nginx" and not control), asked
        if response.content_type == "text/event-stream":
            line = await response.content.readline()
            response.close()
            return response.status, line
        return response.status, await response.read()


def credential(one: Owner, path: str) -> dict[str, str]:
    return one.head("key" if path in KEYED else "jwt")


async def read_by_all(client: aiohttp.ClientSession, edge: Edge, template: str, one: Owner, other: Owner | None) -> int:
    """One route, every way to write it: by its owner, then by another (None: who may see it all) and by nobody.

    How many answers held something of the owner's, and so something to be kept from the others.
    """
    found = 0
    path = one.path(template) + ("?timeout=1ms" if template.endswith("/wait") else "")
    others = [{}, credential(other, template)] if other else [{}]
    for asked in requests(edge.base, path):
        status, body = await answered(client, asked, credential(one, template))
        found += status == 200 and any(secret in body for secret in secrets_of(one))
        for who in others:
            status, body = await answered(client, asked, who)
            leaked = [secret for secret in secrets_of(one) if secret in body and secret.decode() not in asked.url]
            assert leaked == [], (asked, status)
    return found


@pytest.mark.parametrize("first", ["super user", "ordinary user"])
async def test_nothing_of_one_reader_reaches_another_or_the_disk(
    server: Server, edge: Edge, client: aiohttp.ClientSession, first: str
) -> None:
    every = await made_super(client, server, await canaried(client, await owner(client, edge.base)))
    plain = await canaried(client, await owner(client, edge.base))
    one, other = (every, plain) if first == "super user" else (plain, every)

    def reader(template: str) -> Owner | None:
        return None if other is every and template.startswith("/v1/admin/") else other

    found = await asyncio.gather(*(read_by_all(client, edge, path, one, reader(path)) for path in PATHS))
    assert sum(found) > 100  # what the others did not see was there to be seen
    written = edge.written("cache", "temporary")
    assert written
    for file, content in written.items():
        assert [secret for secret in secrets_of(one) | secrets_of(other) if secret in content] == [], file
    assert {"/", "/docs", "/openapi.json", "/v1/public/config", "/v1/public/domains"} <= kept(edge)
    assert all(key in SHARED or key.startswith("/static/") for key in kept(edge)), kept(edge)


def kept(edge: Edge) -> set[str]:
    """The keys of what lies in the cache."""
    lines = [line for content in edge.written("cache").values() for line in content.split(b"\n")]
    return {line.removeprefix(b"KEY: ").decode() for line in lines if line.startswith(b"KEY: ")}
