"""No answer of one mailbox is ever given to another's holder, and nobody learns which mailboxes exist."""

import asyncio
from urllib.parse import quote

import pytest

from tests.contract.transcript import ask, inject
from tests.running import Box, Server

UNKNOWN = "01890000-0000-7000-8000-000000000000"

ROUTES = [
    ("GET", ""),
    ("PATCH", ""),
    ("DELETE", ""),
    ("POST", "/token"),
    ("GET", "/messages"),
    ("POST", "/messages"),
    ("DELETE", "/messages"),
    ("GET", "/messages/search?q=x"),
    ("GET", "/messages/{mid}"),
    ("GET", "/messages/{mid}?raw=1"),
    ("DELETE", "/messages/{mid}"),
    ("POST", "/messages/{mid}/read"),
    ("GET", "/messages/{mid}/raw"),
    ("GET", "/messages/{mid}/attachments/1"),
    ("HEAD", "/messages"),
    ("HEAD", "/messages/{mid}"),
]


def escaped(text: str) -> str:
    return "".join(f"%{ord(char):02x}" for char in text)


@pytest.mark.parametrize(("method", "tail"), ROUTES)
async def test_a_foreign_mailbox_looks_like_none(server: Server, method: str, tail: str) -> None:
    mine, theirs = await server.mailbox(), await server.mailbox()
    message = await inject(server, theirs, subject="theirs")
    tail = tail.format(mid=message["id"])
    unknown = await ask(server, method, f"/v1/mailboxes/{UNKNOWN}{tail}", mine)
    assert unknown.status == 404
    for other in (theirs.id, escaped(theirs.id), theirs.id.upper(), "x", "..%2f" + theirs.id, theirs.id + "%00", "%ff"):
        for headers in ({}, {"If-None-Match": "*"}, {"Range": "bytes=0-1"}, {"X-Mailbox-Token": mine.token}):
            answer = await ask(server, method, f"/v1/mailboxes/{other}{tail}", mine, headers)
            assert (answer.status, answer.body) == (404, unknown.body), (other, headers)
            assert set(answer.headers) == set(unknown.headers)
    assert (await ask(server, "GET", f"/v1/mailboxes/{theirs.id}/messages", theirs)).data["count"] == 1


@pytest.mark.parametrize(("method", "tail"), ROUTES)
async def test_no_token_is_401_whether_or_not_the_mailbox_exists(server: Server, method: str, tail: str) -> None:
    box = await server.mailbox()
    answers = [
        await ask(server, method, f"/v1/mailboxes/{one}{tail.format(mid=UNKNOWN)}") for one in (box.id, UNKNOWN, "x")
    ]
    assert {answer.status for answer in answers} == {401}
    assert len({answer.body for answer in answers}) == 1
    assert all(answer.headers["WWW-Authenticate"] == "Bearer" for answer in answers)


async def test_an_answer_kept_for_one_token_is_not_found_by_another(server: Server) -> None:
    box, other = await server.mailbox(), await server.mailbox()
    path = f"/v1/mailboxes/{box.id}/messages"
    for _ in range(20):  # until every worker keeps it
        assert (await ask(server, "GET", path, box)).status == 200
    for token in (other.token, box.token + "x", box.token[:-1], "é"):
        wrong = Box(box.id, box.address, token)
        for _ in range(5):
            assert (await ask(server, "GET", path, wrong)).status == 404
        assert (await ask(server, "GET", f"{path}?token={quote(token)}")).status == 404
    for _ in range(5):
        assert (await ask(server, "GET", path)).status == 401


async def test_a_message_is_found_only_in_its_own_mailbox(server: Server) -> None:
    mine, theirs = await server.mailbox(), await server.mailbox()
    message = await inject(server, theirs)
    for mid in (message["id"], UNKNOWN, "x", escaped(message["id"]), message["id"] + "%2f"):
        for method, tail in (
            ("GET", ""),
            ("GET", "/raw"),
            ("GET", "/attachments/1"),
            ("POST", "/read"),
            ("DELETE", ""),
        ):
            answer = await ask(server, method, f"/v1/mailboxes/{mine.id}/messages/{mid}{tail}", mine)
            assert (answer.status, answer.error) == (404, "message_not_found"), (mid, method, tail)


async def test_segments_after_the_end_of_a_path_lead_nowhere(server: Server) -> None:
    box = await server.mailbox()
    for tail in ("/", "/x", "/messages/", "/messages/search/x", "/messages//raw", ";a", "/messages;.css", ".css"):
        known = await ask(server, "GET", f"/v1/mailboxes/{box.id}{tail}", box)
        unknown = await ask(server, "GET", f"/v1/mailboxes/{UNKNOWN}{tail}", box)
        assert known.status == 404, tail
        assert known.body == unknown.body


async def test_private_answers_forbid_shared_caches_to_keep_them(server: Server) -> None:
    box = await server.mailbox()
    message = await inject(server, box)
    for tail in ("", "/messages", f"/messages/{message['id']}", f"/messages/{message['id']}/raw", "/nowhere"):
        answer = await ask(server, "GET", f"/v1/mailboxes/{box.id}{tail}", box)
        assert answer.headers["Cache-Control"] == "private, no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_the_log_holds_no_token_body_or_query(server: Server) -> None:
    box = await server.mailbox()
    await inject(server, box, subject="SUBJECTCANARY", text="BODYCANARY")
    await ask(server, "GET", f"/v1/mailboxes/{box.id}/messages?token={box.token}&q=QUERYCANARY")
    await ask(server, "POST", "/v1/mailboxes", data=b"{BODYCANARY")
    for secret in (box.token, "SUBJECTCANARY", "BODYCANARY", "QUERYCANARY"):
        assert secret not in server.log


async def test_a_request_too_broken_to_parse_does_not_bring_its_token_into_the_log(server: Server) -> None:
    host, port = server.http.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /v1/mailboxes/x?token=TOKENCANARY\xff HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b" 400 " in await reader.read(4096)
    writer.close()
    assert "TOKENCANARY" not in server.log
