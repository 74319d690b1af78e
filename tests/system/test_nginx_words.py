"""What nginx refuses by itself, with nobody behind it or nobody who answers: in the words of the API."""

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import pytest

from server.web.translations import FAILURES, Failure, Phrase, language
from tests.edge import Edge
from tests.running import ROOT


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    running = Edge(tmp_path_factory.mktemp("edge"), ["127.0.0.1:1"]).start()
    yield running
    running.stop()


def raw_answer(edge: Edge, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """What comes back for bytes that a client library would not send."""
    with (
        socket.create_connection(("localhost", edge.port), 20) as raw,
        edge.trust.wrap_socket(raw, server_hostname="localhost") as made,
    ):
        made.sendall(request)
        answer = HTTPResponse(made)
        answer.begin()
        return answer.status, {name.lower(): value.lower() for name, value in answer.getheaders()}, answer.read()


@pytest.mark.parametrize(
    ("request_line", "more", "word"),
    [
        ("GET /v1/nowhere HTTP/1.1", "bad header\r\n" + "x: y\r\n" * 2 + "content-length: x\r\n", "body_invalid"),
        ("GET /" + "x" * 9000 + " HTTP/1.1", "", "body_invalid"),
        ("GET / HTTP/1.1", "x: " + "y" * 9000 + "\r\n", "body_invalid"),
        ("POST / HTTP/1.1", "transfer-encoding: xchunked\r\n", "body_invalid"),
        ("POST / HTTP/1.1", "transfer-encoding:\tchunked\r\n", "body_invalid"),
        ("GET / HTTP/3.0", "", "body_invalid"),
        ("TRACE / HTTP/1.1", "", "method_not_allowed"),
        ("GET /.failure HTTP/1.1", "", "route_not_found"),
        ("POST /v1/auth/login HTTP/1.1", "content-length: 1100000\r\n", "message_too_big"),
    ],
)
@pytest.mark.parametrize("asked", ["", "zh-CN,zh;q=0.9,en;q=0.8", "en,zh;q=0.5", "de"])
async def test_what_nginx_refuses_by_itself_is_said_as_tempmail_says_it(
    edge: Edge, request_line: str, more: str, word: Failure, asked: str
) -> None:
    tongue = f"Accept-Language: {asked}\r\n" if asked else ""
    request = f"{request_line}\r\nHost: localhost\r\nConnection: close\r\n{tongue}{more}\r\n"
    status, head, body = await asyncio.to_thread(raw_answer, edge, request.encode())
    expected = FAILURES[word]
    # nginx reads no header behind a line that is too long or of a version that it does not know
    parsed = " /" + "x" * 9000 not in request_line and "HTTP/3" not in request_line
    chosen = language(asked or None) if parsed else "en"
    said = {"code": expected.status, "msg": expected.text(chosen), "data": None, "error": word}
    assert (status, json.loads(body)) == (expected.status, said)
    assert head["content-type"] == "application/json; charset=utf-8"
    assert head["content-language"] == chosen
    assert "accept-language" in head["vary"]
    assert head["cache-control"] == "private, no-store"


async def test_a_server_that_breaks_off_or_says_nothing_is_unavailable(tmp_path: Path) -> None:
    async def node(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"slow" in await reader.readuntil(b"\r\n\r\n"):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(node, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        (tmp_path / "edge").mkdir()
        changes = {"proxy_read_timeout 45s": "proxy_read_timeout 300ms"}
        edge = Edge(tmp_path / "edge", [f"127.0.0.1:{port}"], changes=changes).start()
        try:
            async with edge.session() as client:
                for path, tongue in (("/v1/broken", "en"), ("/v1/slow", "zh-CN"), ("/api/broken", "zh")):
                    async with client.get(edge.base + path, headers={"Accept-Language": tongue}) as response:
                        said = await response.json()
                        assert (response.status, response.headers["Retry-After"]) == (503, "1")
                        text = FAILURES["unavailable"].text(language(tongue))
                        if path.startswith("/api/"):
                            assert said == {"error": text}
                        else:
                            assert said == {"code": 503, "msg": text, "data": None, "error": "unavailable"}
        finally:
            edge.stop()


def test_every_sentence_is_one_of_tempmails() -> None:
    text = (ROOT / "nginx" / "tempmail" / "sentences.conf").read_text()
    words = dict(re.findall(r"^    (\d{3}) ([a-z_]+);", text, re.MULTILINE)) | {"503": "unavailable"}
    said = re.findall(r'"(en|zh) (\d{3})" "([^"]+)"', text)
    assert {(tongue, status) for tongue, status, _ in said} == {(tongue, s) for tongue in ("en", "zh") for s in words}
    known: dict[str, Phrase] = {str(word): phrase for word, phrase in FAILURES.items()}
    for tongue, status, sentence in said:
        phrase = known[words[status]]
        assert (str(phrase.status), sentence) == (status, phrase.zh if tongue == "zh" else phrase.en)
