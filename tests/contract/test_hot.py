"""Requests answered before they are parsed: never another's answer, never a stale one, never out of turn."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator

import aiohttp
import pytest

from tests.running import Box, Server


class Wire:
    """One raw connection, and what came back on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, server: Server) -> "Wire":
        host, port = server.http.removeprefix("http://").split(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._writer.write(piece)
            await asyncio.sleep(0.02)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(60):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
            status = int(head.split(" ")[1])
            length = 0 if status in (204, 304) else int(headers["Content-Length"])
            return status, headers, await self._reader.readexactly(length)

    async def ask(self, *pieces: bytes) -> tuple[int, dict[str, str], bytes]:
        await self.send(*pieces)
        return await self.answer()

    async def silent(self) -> bool:
        """Nothing more has come."""
        try:
            return await asyncio.wait_for(self._reader.read(1), 0.3) == b""
        except TimeoutError:
            return True

    def close(self) -> None:
        self._writer.close()


def head(box: Box, path: str = "", extra: str = "", token: str = "") -> bytes:
    authorization = f"Authorization: Bearer {token or box.token}\r\n"
    return f"GET /v1/mailboxes/{box.id}/messages{path} HTTP/1.1\r\nHost: x\r\n{authorization}{extra}\r\n".encode()


async def hot_answers(server: Server, name: str = "tempmail_hot_answers_total") -> float:
    async with aiohttp.ClientSession() as client, client.get(f"{server.http}/metrics") as response:
        found = re.search(rf"^{name} (\S+)", await response.text(), re.M)
        return float(found[1]) if found else 0.0


async def remade(server: Server) -> float:
    return await hot_answers(server, "tempmail_hot_remade_total")


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of one worker, whose figures are therefore those of the moment."""
    running = Server(tmp_path_factory.mktemp("single"), WORKERS="1").start()
    yield running
    assert running.stop() == 0, running.log[-4000:]


@pytest.fixture
async def one(single: Server) -> AsyncIterator[tuple[Server, Box, Wire]]:
    """The server, a mailbox with a message, and a connection on which its list is answered unparsed."""
    box = await single.mailbox()
    await single.deliver(box, subject="first")
    wire = await Wire.open(single)
    before = await hot_answers(single)
    for _ in range(3):
        assert (await wire.ask(head(box)))[0] == 200
    assert await hot_answers(single) > before
    yield single, box, wire
    wire.close()


async def test_it_is_the_same_answer_but_for_the_date(one: tuple[Server, Box, Wire]) -> None:
    server, box, wire = one
    before = await hot_answers(server)
    hot = await wire.ask(head(box))
    assert await hot_answers(server) == before + 1
    slow = await (await Wire.open(server)).ask(head(box))
    assert hot[0] == slow[0]
    assert hot[2] == slow[2]
    assert {k: v for k, v in hot[1].items() if k != "Date"} == {k: v for k, v in slow[1].items() if k != "Date"}
    assert hot[1]["Date"]


async def test_answer_written_at_once_says_what_one_that_aiohttp_puts_together_says(
    one: tuple[Server, Box, Wire],
) -> None:
    server, box, _ = one
    tag = (await (await Wire.open(server)).ask(head(box)))[1]["ETag"]
    cases = [("", ""), ("?limit=0", ""), ("/search?q=first", ""), ("", f"If-None-Match: {tag}\r\n")]
    cases += [("", "Accept-Language: zh\r\n"), ("/nothing", "Accept-Language: zh\r\n")]
    for path, extra in cases:
        whole = await (await Wire.open(server)).ask(head(box, path, extra))
        apart = await (await Wire.open(server)).ask(head(box, path, extra + "Connection: close\r\n"))
        assert apart[1].pop("Connection") == "close"
        for _, headers, _ in (whole, apart):
            for name in ("Date", "X-RateLimit-Remaining", "X-RateLimit-Reset"):
                headers.pop(name, None)
        assert whole == apart, (path, extra)


async def test_a_write_is_seen_by_the_next_request(one: tuple[Server, Box, Wire]) -> None:
    server, box, wire = one
    for n in range(20):
        await server.deliver(box, subject=f"number {n}")
        for _ in range(3):
            assert f"number {n}".encode() in (await wire.ask(head(box)))[2]


async def test_another_token_never_finds_it(one: tuple[Server, Box, Wire]) -> None:
    server, box, wire = one
    other = await server.mailbox()
    for token in (other.token, box.token[:-1], box.token + "x", "x" * 43):
        assert (await wire.ask(head(box, token=token)))[0] == 404
    assert (await wire.ask(head(box)))[0] == 200


async def test_rotated_token_opens_nothing_more(one: tuple[Server, Box, Wire]) -> None:
    server, box, wire = one
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{server.http}/v1/mailboxes/{box.id}/token", headers=box.auth) as response,
    ):
        assert response.status == 200
    assert (await wire.ask(head(box)))[0] == 404


async def test_pieces_pairs_and_bodies_are_answered_in_turn(one: tuple[Server, Box, Wire]) -> None:
    server, box, _ = one
    whole = head(box)
    post = f"POST /v1/mailboxes/{box.id}/messages HTTP/1.1\r\nHost: x\r\nContent-Length: {len(whole)}\r\n\r\n".encode()
    cases: list[tuple[list[bytes], list[int]]] = [
        ([whole[:20], whole[20:], whole], [200, 200]),
        ([whole[:20], whole[20:] + whole[:30], whole[30:], whole], [200, 200, 200]),
        ([whole + whole, whole], [200, 200, 200]),
        ([whole, whole, whole], [200, 200, 200]),
        ([post, whole, whole], [401, 200]),  # the first is the POST's body, though it looks like a known head
        ([whole, post + whole, whole], [200, 401, 200]),
    ]
    for pieces, statuses in cases:
        wire = await Wire.open(server)
        await wire.send(*pieces)
        assert [(await wire.answer())[0] for _ in statuses] == statuses, pieces
        assert await wire.silent()
        wire.close()


async def test_heads_that_come_at_once_are_answered_in_turn_before_they_are_parsed(
    one: tuple[Server, Box, Wire],
) -> None:
    server, box, wire = one
    other = await server.mailbox()
    for _ in range(2):
        assert other.id.encode() not in (await wire.ask(head(other)))[2]
    before = await hot_answers(server)
    await wire.send(head(box) + head(other) + head(box))
    assert [b"first" in (await wire.answer())[2] for _ in range(3)] == [True, False, True]
    assert await hot_answers(server) == before + 3
    unknown = head(box, "?limit=7")
    await wire.send(head(box) + unknown + head(other) + unknown)
    assert [(await wire.answer())[2].count(b"first") for _ in range(4)] == [1, 1, 0, 1]
    assert await hot_answers(server) == before + 4
    await wire.send(head(box) + unknown + head(other))  # what went to aiohttp in between changes nothing for later
    assert [(await wire.answer())[2].count(b"first") for _ in range(3)] == [1, 1, 0]
    assert await hot_answers(server) == before + 7


async def test_heads_cut_anywhere_are_answered_in_turn(one: tuple[Server, Box, Wire]) -> None:
    server, box, _ = one
    other = await server.mailbox()
    whole = head(box) + head(other) + head(box)

    async def cut(at: int) -> None:
        wire = await Wire.open(server)
        assert (await wire.ask(head(box)))[0] == 200
        assert (await wire.ask(head(other)))[0] == 200
        await wire.send(whole[:at], whole[at:])
        assert [b"first" in (await wire.answer())[2] for _ in range(3)] == [True, False, True], at
        wire.close()

    for start in range(1, len(whole), 50):
        await asyncio.gather(*[cut(at) for at in range(start, min(start + 50, len(whole)))])


async def test_what_is_no_head_after_a_known_one_is_refused(one: tuple[Server, Box, Wire]) -> None:
    server, box, _ = one
    for tail in (b"x", b"\r\n\r\n\r\n\r\nGET", b"GET / HTTP/1.1\nHost: x\n\n\r\n\r\n", b"\0\r\n\r\n"):
        wire = await Wire.open(server)
        for _ in range(2):
            assert (await wire.ask(head(box)))[0] == 200
        await wire.send(head(box), tail, b" HTTP/9\r\n\r\n")
        assert (await wire.answer())[0] == 200, tail
        assert (await wire.answer())[0] in (400, 404), tail
        wire.close()


async def test_fields_that_no_answer_depends_on_may_differ(one: tuple[Server, Box, Wire]) -> None:
    server, box, wire = one
    before = await hot_answers(server)
    for number in range(5):
        traced = f"X-Request-ID: {number}\r\ntraceparent: 00-{number:032x}-{number:016x}-01\r\n"
        assert (await wire.ask(head(box, extra=traced)))[2] == (await wire.ask(head(box)))[2]
    assert await hot_answers(server) == before + 10
    other = await server.mailbox()
    for value in ("\nAuthorization: Bearer " + other.token, "x\r\n folded", "x\x01"):
        strange = await Wire.open(server)
        assert (await strange.ask(head(box)))[0] == 200
        count = await hot_answers(server)
        await strange.ask(head(box, extra=f"X-Request-ID: {value}\r\n"))
        assert await hot_answers(server) == count, value
        strange.close()


async def test_not_modified_is_answered_and_ends_with_the_next_message(one: tuple[Server, Box, Wire]) -> None:
    server, box, wire = one
    tag = (await wire.ask(head(box)))[1]["ETag"]
    conditional = head(box, extra=f"If-None-Match: {tag}\r\n")
    for _ in range(4):
        status, headers, body = await wire.ask(conditional)
        assert (status, headers["ETag"], body) == (304, tag, b"")
    await server.deliver(box, subject="new")
    status, headers, body = await wire.ask(conditional)
    assert status == 200
    assert b"new" in body
    assert headers["ETag"] != tag


async def test_limit_counts_what_is_never_parsed(own_server: Callable[..., Server]) -> None:
    server = own_server(
        WORKERS="1", RATE_LIMIT_EXEMPT="10.0.0.0/8", RATE_LIMIT_REQUESTS_PER_MINUTE="1", RATE_LIMIT_BURST="20"
    )
    box = await server.mailbox()
    wire = await Wire.open(server)
    answers = [await wire.ask(head(box)) for _ in range(30)]
    assert 429 in [status for status, _, _ in answers]
    remaining = [
        int(headers["X-RateLimit-Remaining"]) for _, headers, _ in answers if "X-RateLimit-Remaining" in headers
    ]
    assert remaining[:10] == sorted(remaining[:10], reverse=True)
    assert remaining[0] > remaining[9]


async def test_answers_that_are_not_read_do_not_pile_up(own_server: Callable[..., Server]) -> None:
    server = own_server(WORKERS="1", RATE_LIMIT_BURST="100000")
    box = await server.mailbox()
    for _ in range(40):
        await server.deliver(box, subject="x" * 200, text="y" * 3000)
    [worker] = server.workers()
    deaf, other = await Wire.open(server), await Wire.open(server)
    asking = [head(box, f"?limit=50&x={n % 3}") for n in range(6000)]
    await other.ask(asking[0])
    before = worker.memory_info().rss
    sending = asyncio.create_task(deaf.send(*(b"".join(asking[n : n + 100]) for n in range(0, 6000, 100))))
    for n in range(250):
        assert (await other.ask(asking[n]))[0] == 200
    grown = worker.memory_info().rss - before
    sending.cancel()
    for wire in (deaf, other):
        wire.close()
    assert grown < 16 << 20, f"{grown >> 20} MiB wait for a client that reads nothing"


async def changed(server: Server, box: Box) -> None:
    """Something that is no mail, with which kept lists would go on."""
    message = (await server.messages(box))[0]["id"]
    path = f"{server.http}/v1/mailboxes/{box.id}/messages/{message}/read"
    async with aiohttp.ClientSession() as client, client.post(path, headers=box.auth) as response:
        assert response.status == 204


async def test_mail_reaches_known_heads_without_a_new_answer_being_made(one: tuple[Server, Box, Wire]) -> None:
    server, box, wire = one
    start = await remade(server)
    for query in ("", "?limit=1", "?limit=2"):
        await wire.ask(head(box, query))
    for number in range(3):
        await server.deliver(box, subject=f"news {number}")
        for query in ("", "?limit=1", "?limit=2"):
            grown = await wire.ask(head(box, query))
            assert f"news {number}".encode() in grown[2]
            before = await remade(server)
            assert (await wire.ask(head(box, query)))[2] == grown[2]
            assert await remade(server) == before
    assert await remade(server) == start


async def test_answers_made_anew_unparsed_say_what_the_first_one_says(one: tuple[Server, Box, Wire]) -> None:
    server, box, wire = one
    message = (await server.messages(box))[0]["id"]
    tag = (await wire.ask(head(box)))[1]["ETag"]
    cases = [("", ""), ("?limit=1", ""), ("?limit=%31&offset=1", ""), ("/search?q=first", "Accept-Language: zh\r\n")]
    cases += [(f"/{message}", ""), (f"/%{ord(message[0]):02x}{message[1:]}", ""), ("", f"If-None-Match: {tag}\r\n")]
    for path, extra in cases:
        assert (await wire.ask(head(box, path, extra)))[0] in (200, 304)
        await changed(server, box)
        before = await remade(server)
        anew = await wire.ask(head(box, path, extra))
        assert await remade(server) == before + 1, path
        first = await (await Wire.open(server)).ask(head(box, path, extra))
        for _, headers, _ in (anew, first):
            for name in ("Date", "X-RateLimit-Remaining", "X-RateLimit-Reset"):
                headers.pop(name, None)
        assert anew == first, path


async def test_answers_made_anew_go_to_whom_they_belong(one: tuple[Server, Box, Wire]) -> None:
    server, box, _ = one
    boxes = [box, *[await server.mailbox() for _ in range(3)]]
    wires = [await Wire.open(server) for _ in range(2)]
    for each in boxes:
        for wire in wires:
            await wire.ask(head(each))
    number, start = 0, await remade(server)
    while await remade(server) < start + 5 * len(boxes):  # a worker that stalls forgets what it kept
        number += 1
        for each in boxes:
            await server.deliver(each, subject=f"{number} for {each.id}")
            await changed(server, each)
        for wire in wires:
            await wire.send(*[head(each) for each in boxes])
        for wire in wires:
            for each in boxes:
                _, _, body = await wire.answer()
                assert f"{number} for {each.id}".encode() in body
                assert not any(other.id.encode() in body for other in boxes if other is not each)


async def test_ended_rights_end_answers_made_anew(one: tuple[Server, Box, Wire]) -> None:
    server, box, wire = one
    for change, rest in (("POST", "/token"), ("DELETE", "")):
        mine = await server.mailbox()
        for _ in range(2):
            assert (await wire.ask(head(mine)))[0] == 200
        async with (
            aiohttp.ClientSession() as client,
            client.request(change, f"{server.http}/v1/mailboxes/{mine.id}{rest}", headers=mine.auth) as response,
        ):
            assert response.status < 300
        before = await remade(server)
        status, headers, body = await wire.ask(head(mine))
        assert await remade(server) == before + 1
        assert (status, headers.get("ETag"), b"mailbox_not_found" in body) == (404, None, True)
    assert (await wire.ask(head(box)))[0] == 200


async def test_limit_counts_what_is_made_anew(own_server: Callable[..., Server]) -> None:
    server = own_server(
        WORKERS="1", RATE_LIMIT_EXEMPT="10.0.0.0/8", RATE_LIMIT_REQUESTS_PER_MINUTE="1", RATE_LIMIT_BURST="20"
    )
    box = await server.mailbox()
    wire = await Wire.open(server)
    statuses, left = [], []
    for _ in range(25):
        await server.deliver(box)
        status, headers, _ = await wire.ask(head(box))
        statuses.append(status)
        left.append(int(headers["X-RateLimit-Remaining"]))
    assert statuses[:10] == [200] * 10
    assert 429 in statuses
    assert left[0] > left[5] > left[9]
