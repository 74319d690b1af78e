"""What is answered before it is parsed is what the parser's answer would be, byte for byte, and so is what becomes of
the connection: the same bytes on a connection whose head is known and on one that leaves all to aiohttp.

The figures that differ by nature (Date, a failure's request id) are left out. A difference counts once it was seen
again with more time between the packets, for how packets meet is not the server's to say.
"""

import asyncio
import itertools
import random
import re
from collections.abc import Iterator, Sequence
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.test_hot import hot_answers
from tests.running import Box, Server

PAUSES: Final = (0.02, 0.2, 1.0)  # s between packets, and a multiple before the end: the first, then to be sure
_VARYING: Final = re.compile(rb"(?mi)^(?:Date|X-Request-Id): [^\r\n]*\r\n")

Packets = Sequence[bytes]


class Pair:
    """A server, and a head that it knows."""

    def __init__(self, server: Server, box: Box) -> None:
        self.server = server
        self._address = ("127.0.0.1", int(server.http.rpartition(":")[2]))
        path = f"/v1/mailboxes/{box.id}/messages"
        self.lines = [f"GET {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {box.token}", "Accept: */*"]
        self.head = ("\r\n".join(self.lines) + "\r\n\r\n").encode()

    async def said(self, packets: Packets, *, hot: bool, pause: float) -> tuple[bytes, bool]:
        """All that came back, and whether the connection was still open."""
        reader, writer = await asyncio.open_connection(*self._address)
        try:
            if hot:
                for _ in range(2):
                    await self._ask(reader, writer, self.head)
            else:  # a head in two pieces: aiohttp has the connection for good
                await self._ask(reader, writer, self.head[:30], self.head[30:])
            for packet in packets:
                writer.write(packet)
                await asyncio.sleep(pause)
            return await self._rest(reader, 10 * pause)
        finally:
            writer.transport.abort()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *pieces: bytes) -> None:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.01)
        async with asyncio.timeout(30):
            head = await reader.readuntil(b"\r\n\r\n")
            found = re.search(rb"Content-Length: (\d+)", head)
            assert found is not None, head
            await reader.readexactly(int(found[1]))

    async def _rest(self, reader: asyncio.StreamReader, quiet: float) -> tuple[bytes, bool]:
        got = b""
        while True:
            try:
                piece = await asyncio.wait_for(reader.read(1 << 20), quiet)
            except TimeoutError:
                return _VARYING.sub(b"", got), True
            except ConnectionError:
                piece = b""
            if not piece:
                return _VARYING.sub(b"", got), False
            got += piece

    async def check(self, packets: Packets) -> None:
        for pause in PAUSES:
            hot, cold = await asyncio.gather(
                self.said(packets, hot=True, pause=pause), self.said(packets, hot=False, pause=pause)
            )
            if hot == cold:
                return
        raise AssertionError(f"{packets!r}\nhot:  {hot!r}\ncold: {cold!r}")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    server = Server(tmp_path_factory.mktemp("pair"), WORKERS="1").start()

    async def filled() -> Box:
        box = await server.mailbox()
        await server.deliver(box, subject="first")
        return box

    yield Pair(server, asyncio.run(filled()))
    assert server.stop() == 0, server.log[-4000:]


TRACE: Final = ("X-Request-ID: 1", "traceparent: 00-1-2-01", "b3: 1", "Date: x", "x-b3-traceid: 1", "baggage:")
FIELDS: Final = (
    "Content-Length: 0", "Content-Length: 5", "Content-Length : 5", "Content-Length: 5, 5", "Content-Length: -1",
    "Content-Length: +5", "content-length:\t5", "Transfer-Encoding: chunked", "Transfer-Encoding: identity",
    "Transfer-Encoding : chunked", "Transfer-Encoding: gzip, chunked", "Connection: close", "Connection: keep-alive",
    "Connection: Upgrade", "Connection: close, x", "Upgrade: websocket", "Upgrade: h2c", "Expect: 100-continue",
    "Expect: x", "Range: bytes=0-1", "Origin: https://x.test", "Host: y", "Host:", "User-Agent: a", "Content-Type: a",
    "Content-Encoding: gzip", "Accept-Language: zh", "If-None-Match: *", "X-Request-ID : 1", "X-Request-ID:1",
    "X-Request-ID\t: 1", "X-Request-ID: \x01", "X-Request-ID: \x00", "X-Request-ID: \x7f", "X-Request-ID: \xe9",
    "X-Request-ID: a\rb", "X-Request-ID: a\nb: c", " folded", "\tfolded", "b3: 1\r\n folded", "b3: 1\r\n\t", ": empty",
    "no colon", "b3", "X Y: 1", "X\x00Y: 1", "(x): 1", "x@y: 1", "X-Mailbox-Token: x", "Cookie: access_token=x.y.z",
    "Authorization: Bearer other", "X-API-Key: x", "Proxy-Connection: close", "HTTP2-Settings: x", "TE: trailers",
)  # fmt: skip
FIRST: Final = (
    "GET {p} HTTP/1.0", "GET {p} HTTP/1.2", "GET {p} HTTP/2.0", "GET {p} HTTP/0.9", "GET {p} HTTP/1.1 ",
    "GET {p}  HTTP/1.1",
    "GET  {p} HTTP/1.1", " GET {p} HTTP/1.1", "get {p} HTTP/1.1", "GET {p} http/1.1", "GET {p}", "GET {p} HTTP/1.1\r",
    "HEAD {p} HTTP/1.1", "POST {p} HTTP/1.1", "OPTIONS {p} HTTP/1.1", "OPTIONS * HTTP/1.1", "CONNECT x:1 HTTP/1.1",
    "TRACE {p} HTTP/1.1", "PROPFIND {p} HTTP/1.1", "G\x00T {p} HTTP/1.1", "GETT {p} HTTP/1.1",
    "GET http://x{p} HTTP/1.1",
    "GET http://x:y{p} HTTP/1.1", "GET //x{p} HTTP/1.1", "GET x HTTP/1.1", "GET {p}?a b HTTP/1.1", "GET {p}#f HTTP/1.1",
    "GET {p}%zz HTTP/1.1", "GET {p}\xe9 HTTP/1.1", "GET {p}\x00 HTTP/1.1", "GET {p}\t HTTP/1.1", "GET * HTTP/1.1",
    "GET http://[ HTTP/1.1", "GET /%00 HTTP/1.1", "PRI * HTTP/2.0", "GET {p} HTTP/1.1\r\n", "GET\t{p}\tHTTP/1.1",
)  # fmt: skip
ENDS: Final = ("\r\n\r\n", "\r\n", "\n\n", "\n\r\n", "\r\n\n", "\r\r", "\r\n\r\n\r\n", "\r\n\r\n\r\n\r\n", "")
BETWEEN: Final = (
    "", "\r\n", "\n", "\r", "\r\n\r\n", "x", "\0", "X-Request-ID: 1\r\n", "X-Request-ID: 1\r\n\r\n",
    "\r\nX-Request-ID: 1\r\n",
    "b3: 1\r\n\r\n", " ", "GET ", "GET / HTTP/1.1\r\n\r\n", "GET /x y HTTP/1.1\r\n\r\n", "0\r\n\r\n", "garbage\r\n\r\n",
)  # fmt: skip


def wire(lines: Sequence[str], end: str = "\r\n\r\n") -> bytes:
    return ("\r\n".join(lines) + end).encode("latin-1")


def variants(lines: Sequence[str]) -> list[list[bytes]]:
    """Each known kind of difference by itself, alone and beside the known head, in one packet and in several."""
    known, path = wire(lines), lines[0].split(" ")[1]
    cases: list[bytes] = [wire([*lines[:at], field, *lines[at:]]) for field in FIELDS for at in (1, len(lines))]
    cases += [wire([*lines, field, trace]) for field, trace in zip(FIELDS, TRACE * len(FIELDS), strict=False)]
    cases += [wire([first.replace("{p}", path), *lines[1:]]) for first in FIRST]
    cases += [wire(lines, end) for end in ENDS]
    cases += [wire([*lines, TRACE[0]], end) for end in ENDS]
    cases += [wire([*lines, *[TRACE[2]] * count]) for count in (2, 60, 130, 300)]
    cases += [wire([*lines, "X-Request-ID: " + "y" * size]) for size in (1800, 4000, 9000)]
    cases += [wire([line for line in lines if not line.startswith(left_out)]) for left_out in ("Host", "Auth", "Acc")]
    packets = [[case] for case in cases]
    packets += (
        [[known, case] for case in cases[::3]] + [[known + case] for case in cases] + [[case + known] for case in cases]
    )
    packets += [[known, between.encode() + known] for between in BETWEEN]
    packets += [[known + between.encode()] for between in BETWEEN] + [
        [known, between.encode(), known] for between in BETWEEN
    ]
    return packets


async def differing(pair: Pair, cases: Sequence[Packets]) -> list[str]:
    room = asyncio.Semaphore(24)

    async def one(packets: Packets) -> str:
        async with room:
            try:
                await pair.check(packets)
            except AssertionError as error:
                return str(error)
            return ""

    return [said for said in await asyncio.gather(*[one(packets) for packets in cases]) if said]


def generated(pair: Pair, seed: int, count: int) -> list[list[bytes]]:
    """Heads put together at random, cut into packets at random."""
    rng, cases = random.Random(seed), []
    path = pair.lines[0].split(" ")[1]
    for _ in range(count):
        whole = b""
        for _ in range(rng.randint(1, 4)):
            lines = [*pair.lines] if rng.random() < 0.8 else [rng.choice(FIRST).replace("{p}", path), *pair.lines[1:]]
            for _ in range(rng.choice((0, 0, 1, 2))):
                lines.insert(rng.randint(1, len(lines)), rng.choice((*TRACE, *TRACE, *FIELDS)))
            whole += wire(lines, rng.choice(ENDS) if rng.random() < 0.2 else "\r\n\r\n")
            if rng.random() < 0.2:
                whole += rng.choice(BETWEEN).encode()
        if rng.random() < 0.2:
            at = rng.randrange(len(whole))
            whole = whole[:at] + bytes([rng.randrange(256)]) + whole[at + rng.randint(0, 1) :]
        cuts = sorted(rng.sample(range(1, len(whole)), rng.choice((0, 0, 1, 2))))
        cases.append([whole[i:j] for i, j in itertools.pairwise([0, *cuts, len(whole)])])
    return cases


def test_a_head_without_a_host_spoils_what_came_with_it(pair: Pair) -> None:
    """The parser answers nothing of a packet in which it refuses a head. ``differing`` forgives what differs once, so
    each of several tries has to agree here."""
    bare = wire([line for line in pair.lines if not line.startswith("Host")])

    async def heard() -> list[tuple[bytes, bool]]:
        return [await pair.said([pair.head + bare], hot=hot, pause=1.0) for hot in (True, False, True, True)]

    answers = asyncio.run(heard())
    assert answers[1][0].startswith(b"HTTP/1.0 400 ")
    assert answers == [answers[1]] * 4


def test_every_known_kind_of_difference_is_answered_alike(pair: Pair) -> None:
    cases = [*variants(pair.lines), *generated(pair, seed=1, count=300)]
    wrong = asyncio.run(differing(pair, cases))
    assert not wrong, f"{len(wrong)} of {len(cases)}:\n" + "\n\n".join(wrong[:8])


LINE: Final = st.one_of(st.sampled_from([*TRACE, *FIELDS]), st.text(st.characters(max_codepoint=255), max_size=12))


def test_lines_that_hypothesis_finds_are_answered_alike(pair: Pair) -> None:
    @settings(max_examples=30, deadline=None, database=None, derandomize=True)
    @given(st.lists(st.lists(LINE, max_size=3), min_size=8, max_size=8), st.sampled_from(ENDS))
    def agree(batch: list[list[str]], end: str) -> None:
        heads = [wire([*pair.lines, *more], end if nth % 2 else "\r\n\r\n") for nth, more in enumerate(batch)]
        cases = [packets for head in heads for packets in ([head], [pair.head + head], [head, pair.head])]
        assert not asyncio.run(differing(pair, cases))

    agree()


def test_what_is_compared_was_answered_before_it_was_parsed(pair: Pair) -> None:
    """Else the others would compare aiohttp with itself."""

    async def count() -> float:
        before = await hot_answers(pair.server)
        await differing(pair, [[pair.head], [pair.head + pair.head], [wire([*pair.lines, TRACE[0]])]])
        return await hot_answers(pair.server) - before

    assert asyncio.run(count()) >= 3 + 4
