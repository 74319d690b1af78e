"""What sessions hand to the trace: every decision, once, with who tried, for whom, and what was answered."""

import asyncio
from pathlib import Path

import pytest
import uvloop

from server.model.errors import Refused, Unavailable
from server.model.trace import ABANDONED, Row, rows
from server.services.mail_in.decisions import BUFFER_MAX, Decisions
from tests.contract.listening import ENVELOPE, MAIL, Listening, listening

TAKEN = "250 2.1.5 Recipient OK"
STORED = "250 2.0.0 OK stored as "


@pytest.fixture(scope="module")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    """The loop that the product runs on."""
    return uvloop.EventLoopPolicy()


def noted(place: Listening) -> list[Row]:
    found, over = place.decisions.take()
    assert not over
    return [row for one in found for row in rows(one)]


def said(row: Row) -> tuple[str, str, str, str]:
    return row.stage, row.sender, row.recipient, row.reply


async def talk(place: Listening, text: bytes) -> list[Row]:
    client = await place.client()
    client.write(text + b"QUIT\r\n")
    await client.rest()
    await asyncio.sleep(0)
    return noted(place)


@pytest.mark.parametrize("body", [MAIL, b"BDAT 4\r\nbodyBDAT 2 LAST\r\n\r\n"], ids=["DATA", "BDAT"])
async def test_a_mail_that_is_stored_is_one_row_with_its_accepted_recipient(tmp_path: Path, body: bytes) -> None:
    async with listening(tmp_path) as place:
        [row] = await talk(place, ENVELOPE + body)
        assert (row.stage, row.client, row.helo) == ("data", "127.0.0.1", "client.example")
        assert (row.sender, row.recipient, row.mailbox_id) == ("s@example.com", "known@temp.mail", "box-1")
        assert row.reply.startswith(STORED)
        assert row.rcpt_at is not None
        assert row.rcpt_at <= row.at


REFUSALS = {
    "nobody has the address": (b"RCPT TO:<x@temp.mail>\r\n", ("rcpt", "x@temp.mail", "550 5.1.1")),
    "a tag is kept": (b"RCPT TO:<x+t@temp.mail>\r\n", ("rcpt", "x+t@temp.mail", "550 5.1.1")),
    "the domain is not served": (b"RCPT TO:<x@far.example>\r\n", ("rcpt", "x@far.example", "550 5.7.1")),
    "the recipient is malformed": (b"RCPT TO:<@@temp.mail>\r\n", ("rcpt", "@@temp.mail", "501 5.1.3")),
    "the recipient has parameters": (b"RCPT TO:<x@temp.mail> X=Y\r\n", ("rcpt", "x@temp.mail", "555 5.5.4")),
    "no recipient was accepted": (b"DATA\r\n", ("data", "", "554 5.5.1")),
    "no recipient was accepted, BDAT": (b"BDAT 2 LAST\r\nxx", ("data", "", "554 5.5.1")),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_says_who_was_refused_and_why(tmp_path: Path, name: str) -> None:
    asked, (stage, recipient, codes) = REFUSALS[name]
    async with listening(tmp_path) as place:
        found = await talk(place, b"EHLO c\r\nMAIL FROM:<s@example.com>\r\n" + asked)
        assert [(*said(row)[:3], row.reply[:9]) for row in found] == [(stage, "s@example.com", recipient, codes)]


async def test_a_sender_refused_for_its_size_or_its_form_is_found_by_its_address(tmp_path: Path) -> None:
    async with listening(tmp_path, SMTP_MAX_MESSAGE_BYTES="1000") as place:
        found = await talk(place, b"EHLO c\r\nMAIL FROM:<s@example.com> SIZE=1001\r\nmail from:<b@c.example> X=Y\r\n")
        assert [(row.stage, row.address, row.recipient, row.reply[:9]) for row in found] == [
            ("mail", "s@example.com", "", "552 5.3.4"),
            ("mail", "b@c.example", "", "555 5.5.4"),
        ]


@pytest.mark.parametrize(
    ("trouble", "codes"),
    [
        (Refused("mailbox_full"), "452 4.2.2"),
        (Unavailable("no database"), "451 4.3.0"),
        (RuntimeError("a fault"), "451 4.3.0"),
    ],
    ids=["full", "unavailable", "fault"],
)
@pytest.mark.parametrize("where", ["route", "resolve", "submit", "commit"])
async def test_trouble_of_ours_is_noted_where_it_arises(
    tmp_path: Path, where: str, trouble: Exception, codes: str
) -> None:
    async with listening(tmp_path) as place:
        place.delivery.trouble[where] = trouble
        found = await talk(place, ENVELOPE + (MAIL if where in ("submit", "commit") else b""))
        stage = "data" if where in ("submit", "commit") else "rcpt"
        assert [(row.stage, row.recipient, row.reply[:9]) for row in found] == [(stage, "known@temp.mail", codes)]


async def test_recipients_of_one_mailbox_and_of_several_each_have_a_row(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        more = b"RCPT TO:<alias@temp.mail>\r\nRCPT TO:<second@temp.mail>\r\nRCPT TO:<x@temp.mail>\r\n"
        found = await talk(place, ENVELOPE + more + MAIL)
        by_recipient = {row.recipient: (row.stage, row.reply[:9]) for row in found}
        assert by_recipient == {
            "known@temp.mail": ("rcpt", "250 2.1.5"),
            "alias@temp.mail": ("data", "250 2.0.0"),
            "second@temp.mail": ("data", "250 2.0.0"),
            "x@temp.mail": ("rcpt", "550 5.1.1"),
        }


ENDS = {
    "RSET": b"RSET\r\n",
    "another hello": b"EHLO c\r\n",
    "QUIT": b"",
}


@pytest.mark.parametrize("end", ENDS)
async def test_a_recipient_accepted_for_a_mail_that_never_came_is_noted(tmp_path: Path, end: str) -> None:
    async with listening(tmp_path) as place:
        [row] = await talk(place, ENVELOPE + ENDS[end])
        assert said(row) == ("rcpt", "s@example.com", "known@temp.mail", TAKEN)


@pytest.mark.parametrize("begun", [b"DATA\r\nSubject: x\r\n", b"BDAT 900\r\nSubject: x\r\n"], ids=["DATA", "BDAT"])
async def test_a_client_that_goes_within_a_message_is_noted(tmp_path: Path, begun: bytes) -> None:
    async with listening(tmp_path) as place:
        client = await place.client()
        client.write(ENVELOPE + begun)
        await client.replies(4)
        async with asyncio.timeout(30):
            while not any(getattr(session, "_body", None) is not None for session in place.listener._sessions):
                await asyncio.sleep(0.01)
        client.writer.transport.abort()
        async with asyncio.timeout(30):
            while place.listener._sessions:
                await asyncio.sleep(0.01)
        [row] = noted(place)
        assert said(row) == ("data", "s@example.com", "known@temp.mail", ABANDONED.decode())


async def test_a_message_that_grows_too_big_is_refused_in_the_trace_too(tmp_path: Path) -> None:
    async with listening(tmp_path, SMTP_MAX_MESSAGE_BYTES="1000") as place:
        [row] = await talk(place, ENVELOPE + b"DATA\r\n" + b"x" * 1500 + b"\r\n.\r\n")
        assert (row.stage, row.recipient, row.reply[:9]) == ("data", "known@temp.mail", "552 5.3.4")
        [row] = await talk(place, ENVELOPE + b"BDAT 1500\r\n" + b"x" * 1500)
        assert (row.stage, row.recipient, row.reply[:9]) == ("data", "known@temp.mail", "552 5.3.4")


async def test_a_session_that_we_end_is_noted_with_the_mail_under_way(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        client = await place.client()
        client.write(ENVELOPE + b"DATA\r\nSubject: x\r\n")
        await client.replies(5)
        place.later(31)
        await client.rest()
        [row] = noted(place)
        assert (row.stage, row.recipient, row.reply[:9]) == ("data", "known@temp.mail", "421 4.4.2")


async def test_a_connection_that_is_turned_away_is_noted(tmp_path: Path) -> None:
    async with listening(tmp_path, SMTP_MAX_CONNECTIONS_PER_IP="1", RATE_LIMIT_EXEMPT="") as place:
        first, second = await place.client(), await place.client()
        assert (await second.reply())[:9] == "421 4.7.0"
        [row] = noted(place)
        assert (row.stage, row.client, row.recipient, row.reply[:9]) == ("connect", "127.0.0.1", "", "421 4.7.0")
        first.writer.close()


async def test_a_client_that_goes_before_its_commit_is_noted_with_what_became_of_the_mail(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        place.delivery.pending = True
        client = await place.client()
        client.write(ENVELOPE + MAIL)
        await place.delivery.submitted.wait()
        client.writer.transport.abort()
        await asyncio.sleep(0.05)
        assert noted(place) == []
        place.delivery.futures[0].set_result([])
        async with asyncio.timeout(30):
            while not (found := noted(place)):
                await asyncio.sleep(0.01)
        [row] = found
        assert (row.stage, row.reply[: len(STORED)]) == ("data", STORED)


async def test_lmtp_notes_the_fate_of_each_recipient(tmp_path: Path) -> None:
    async with listening(tmp_path, lmtp=True) as place:
        two = b"LHLO m\r\nMAIL FROM:<s@example.com>\r\nRCPT TO:<known@temp.mail>\r\nRCPT TO:<second@temp.mail>\r\n"
        found = await talk(place, two + MAIL)
        assert {(row.recipient, row.reply[:9]) for row in found} == {
            ("known@temp.mail", "250 2.0.0"),
            ("second@temp.mail", "250 2.0.0"),
        }
        submit = place.delivery.submit

        def full(envelope: object, **options: bool) -> "asyncio.Future[object]":
            boxes = {one.mailbox_id for one in envelope.recipients}  # type: ignore[attr-defined]
            place.delivery.trouble = {"commit": Refused("mailbox_full")} if "box-2" in boxes else {}
            return submit(envelope, **options)  # type: ignore[arg-type]

        place.delivery.submit = full  # type: ignore[method-assign]
        found = await talk(place, two + MAIL)
        assert sorted((row.recipient, row.reply[:9]) for row in found) == [
            ("known@temp.mail", "250 2.0.0"),
            ("second@temp.mail", "452 4.2.2"),
        ]


def test_the_buffer_is_bounded_and_counts_what_it_forgets() -> None:
    decisions = Decisions()
    for _ in range(BUFFER_MAX + 7):
        decisions.note("rcpt", "192.0.2.1", "h", "s@example.com", "x@temp.mail", b"550 5.1.1 No such mailbox\r\n")
    found, over = decisions.take()
    assert len(found) == BUFFER_MAX
    assert over == {("rcpt", b"550 5.1.1"): 7}
    assert decisions.take() == ([], {})
