"""Bytes in flight over HTTP: who holds too many is refused, and everybody else is served."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Final

import aiohttp
import pytest

from tests.contract.transcript import ask
from tests.running import Box, Server

SIZE: Final = 6_000_000  # bytes of the message: more than the kernel takes for a client with a small buffer
MB: Final = 1 << 20
PIECE: Final = b"x" * 65_536


class Client:
    """Connections from one address that begin something and never end it."""

    def __init__(self, server: Server, address: str, forwarded: str = "") -> None:
        self._address, self._forwarded = address, forwarded
        self._port = int(server.http.rpartition(":")[2])

    async def begin(self, closing: contextlib.AsyncExitStack, *pieces: bytes) -> asyncio.StreamReader:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.bind((self._address, 0))
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
        closing.callback(writer.transport.abort)
        for piece in pieces:
            writer.write(piece)
        return reader

    def head(self, box: Box, line: str, *fields: str) -> bytes:
        more = [*fields, f"X-Forwarded-For: {self._forwarded}"] if self._forwarded else fields
        lines = (f"{line} HTTP/1.1", "Host: x", f"Authorization: Bearer {box.token}", *more, "", "")
        return "\r\n".join(lines).encode()


async def head_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], asyncio.StreamReader]:
    async with asyncio.timeout(60):
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    return int(status.split(" ")[1]), dict(line.split(": ", 1) for line in lines if line), reader


async def refusal(reader: asyncio.StreamReader, headers: dict[str, str]) -> tuple[str, int]:
    """The word of an answer in our envelope, and after how many seconds to come again."""
    said = json.loads(await reader.readexactly(int(headers["Content-Length"])))
    assert said["data"] is None
    assert said["msg"]
    return said["error"], int(headers["Retry-After"])


@contextlib.asynccontextmanager
async def place(server: Server) -> AsyncIterator[tuple[Box, str, contextlib.AsyncExitStack]]:
    box = await server.mailbox()
    path = f"/v1/mailboxes/{box.id}/messages"
    answer = await ask(server, "POST", path, box, json={"from": "a@b.c", "text": ("y" * 998 + "\r\n") * (SIZE // 1000)})
    async with contextlib.AsyncExitStack() as closing:
        yield box, f"{path}/{answer.data['id']}", closing


async def small_and_figures(server: Server, box: Box) -> None:
    """What must be answered whatever is under way."""
    for path in ("/health", "/health/live", "/health/ready", "/metrics", f"/v1/mailboxes/{box.id}/messages"):
        assert (await ask(server, "GET", path, box)).status == 200, path


def bounded(own_server: Callable[..., Server], **settings: str) -> Server:
    return own_server(
        WORKERS="1",
        HTTP_IN_FLIGHT_BYTES=str(30 * MB),
        HTTP_IN_FLIGHT_CLIENT=str(15 * MB),
        HTTP_MIN_RATE="0",  # on a busy machine the test takes long enough for idle transfers to be cut
        RATE_LIMIT_EXEMPT="127.0.0.1/32",
        **settings,
    )


async def test_unread_downloads_fill_their_clients_share_and_then_the_worker(
    own_server: Callable[..., Server],
) -> None:
    server = bounded(own_server)
    async with place(server) as (box, message, closing):
        raw = f"GET {message}/raw"
        readers = {}
        for address in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
            client = Client(server, address)
            for nth in range(3):
                reader = await client.begin(closing, client.head(box, raw))
                readers[address, nth] = await head_of(reader)
        statuses = {address: [readers[address, nth][0] for nth in range(3)] for address, _ in readers}
        assert statuses["127.0.0.2"] == statuses["127.0.0.3"] == [200, 200, 429]
        assert statuses["127.0.0.4"] == [200, 503, 503]
        for key, word in ((("127.0.0.2", 2), "rate_limited"), (("127.0.0.4", 1), "unavailable")):
            _, headers, reader = readers[key]
            error, again = await refusal(reader, headers)
            assert (error, again >= 1) == (word, True)
        await small_and_figures(server, box)
        assert (await ask(server, "GET", f"{message}/raw", box)).status == 503  # exempt from shares, not from the whole
        await closing.aclose()
        async with asyncio.timeout(60):
            while (await ask(server, "GET", f"{message}/raw", box)).status != 200:
                await asyncio.sleep(0.1)


async def test_a_proxys_clients_have_a_share_each_and_the_worker_its_bound(own_server: Callable[..., Server]) -> None:
    server = bounded(own_server, TRUSTED_PROXIES="127.0.0.8/32")
    async with place(server) as (box, message, closing):
        statuses = []
        for forwarded in ("2001:db8:1:1::1", "2001:db8:1:1::2", "2001:db8:1:1::3", "2001:db8:2:1::1", "198.51.100.7"):
            client = Client(server, "127.0.0.8", forwarded)
            reader = await client.begin(closing, client.head(box, f"GET {message}/raw"))
            statuses.append((await head_of(reader))[0])
        assert statuses == [200, 200, 429, 200, 200]  # the third is of the same /64 as those before
        client = Client(server, "127.0.0.8", "198.51.100.8")
        for expected in (200, 503):
            reader = await client.begin(closing, client.head(box, f"GET {message}/raw"))
            assert (await head_of(reader))[0] == expected


@pytest.mark.parametrize("chunked", [False, True])
async def test_unfinished_uploads_fill_their_clients_share_and_then_the_worker(
    own_server: Callable[..., Server], chunked: bool
) -> None:
    server = bounded(own_server)
    async with place(server) as (box, _, closing):
        field = "Transfer-Encoding: chunked" if chunked else "Content-Length: 7000000"
        opening = b"%x\r\n" % 7_000_000 if chunked else b""

        async def begin(address: str, pieces: int = 100) -> asyncio.StreamReader:
            client = Client(server, address)
            head = client.head(box, f"POST /v1/mailboxes/{box.id}/messages", field)
            return await client.begin(closing, head + opening + b'{"text":"', *[PIECE] * pieces)

        async def holding(least: int) -> None:
            async with asyncio.timeout(60):
                while await in_flight(server) < least:
                    await asyncio.sleep(0.05)

        for count, address in ((1, "127.0.0.2"), (2, "127.0.0.2"), (3, "127.0.0.3"), (4, "127.0.0.3")):
            await begin(address)
            await holding(count * 100 * len(PIECE))
        status, headers, reader = await head_of(await begin("127.0.0.2"))
        assert (status, (await refusal(reader, headers))[0]) == (429, "rate_limited")
        status, headers, reader = await head_of(await begin("127.0.0.4"))
        assert (status, (await refusal(reader, headers))[0]) == (503, "unavailable")
        await small_and_figures(server, box)
    async with asyncio.timeout(60):
        while await in_flight(server):
            await asyncio.sleep(0.1)


async def in_flight(server: Server) -> float:
    async with aiohttp.ClientSession() as client, client.get(f"{server.http}/metrics") as response:
        lines = (await response.text()).splitlines()
    return next((float(line.split(" ")[1]) for line in lines if line.startswith("tempmail_http_in_flight_bytes ")), 0.0)


@pytest.mark.parametrize("behind", [False, True], ids=["at first", "behind a request in progress"])
async def test_heads_that_never_end_are_bounded_for_each_connection_and_client(
    own_server: Callable[..., Server], behind: bool
) -> None:
    server = bounded(own_server)
    async with place(server) as (box, _, closing):
        async with asyncio.timeout(60):
            while await in_flight(server):
                await asyncio.sleep(0.1)
        client = Client(server, "127.0.0.2")
        first = client.head(box, f"GET /v1/mailboxes/{box.id}/wait?timeout=50&after=9") if behind else b""
        field = b"X-Long: " + b"x" * 4_000 + b"\r\n"
        opening = first + b"GET / HTTP/1.1\r\nHost: x\r\n"
        held = [await client.begin(closing, opening)]
        said = await asyncio.to_thread(ended, server, opening + field * 120)  # 64 KiB and more than one read
        assert said == b"" if behind else said[9:12] in (b"431", b""), said
        assert not said or json.loads(said.partition(b"\r\n\r\n")[2])["error"] == "message_too_big"
        for count in range(1, 6):
            held.append(await client.begin(closing, opening, field * 12))
            async with asyncio.timeout(60):
                while await in_flight(server) < count * 12 * len(field):
                    await asyncio.sleep(0.05)
        assert not any(reader.at_eof() for reader in held)
        await small_and_figures(server, box)
    async with asyncio.timeout(60):
        while await in_flight(server):
            await asyncio.sleep(0.1)


async def test_whole_requests_behind_one_in_progress_count_until_they_begin(own_server: Callable[..., Server]) -> None:
    server = bounded(own_server)
    async with place(server) as (box, _, closing):
        client = Client(server, "127.0.0.2")
        waits = client.head(box, f"GET /v1/mailboxes/{box.id}/wait?timeout=50&after=9")
        behind = client.head(box, "GET /health", *[f"X-Long-{n}: {'x' * 4_000}" for n in range(12)])
        await client.begin(closing, waits, behind * 30)
        async with asyncio.timeout(60):
            while await in_flight(server) < 20 * len(behind):
                await asyncio.sleep(0.05)
        for _ in range(6):
            await client.begin(closing, waits, behind * 30)
        async with asyncio.timeout(60):
            while await in_flight(server) < 10 * MB:
                await asyncio.sleep(0.05)
        assert await in_flight(server) < 17 * MB, "one client has 15 MB"
        await small_and_figures(server, box)


@pytest.mark.parametrize("cut", [700, 7_001, 65_536, 1 << 20])
async def test_a_client_that_sends_its_requests_ahead_is_served(own_server: Callable[..., Server], cut: int) -> None:
    """However the network cuts them, with bodies among them; and afterwards nothing counts any more."""
    server = own_server(WORKERS="1", RATE_LIMIT_EXEMPT="127.0.0.0/8", HTTP_IN_FLIGHT_BYTES=str(30 * MB))
    async with place(server) as (box, _, closing):
        client = Client(server, "127.0.0.2")
        path = f"/v1/mailboxes/{box.id}/messages"
        body = json.dumps({"from": "a@b.c", "text": "\r\n\r\n" * 2_000}).encode()
        posted = client.head(box, f"POST {path}", f"Content-Length: {len(body)}") + body
        read = client.head(box, f"GET {path}?limit=1", f"X-Long: {'x' * 900}")
        requests = (read * 20 + posted) * 15
        pieces = [requests[start : start + cut] for start in range(0, len(requests), cut)]
        reader = await client.begin(closing, *pieces)
        statuses = []
        for _ in range(21 * 15):
            status, headers, _ = await head_of(reader)
            await reader.readexactly(int(headers["Content-Length"]))
            statuses.append(status)
        assert statuses == ([200] * 20 + [201]) * 15
        async with asyncio.timeout(60):
            while await in_flight(server):
                await asyncio.sleep(0.1)


def ended(server: Server, sent: bytes) -> bytes:
    """What comes until the connection ends; nothing where the end overtakes it."""
    said = b""
    with contextlib.suppress(ConnectionError), socket.socket() as sock:
        sock.settimeout(60)
        sock.bind(("127.0.0.2", 0))
        sock.connect(("127.0.0.1", int(server.http.rpartition(":")[2])))
        sock.sendall(sent)
        while piece := sock.recv(65_536):
            said += piece
    return said
