"""LMTP: each recipient learns its own fate, and nothing that SMTP's sessions are bound by for strangers' sake."""

from pathlib import Path

import pytest
import uvloop

from server.model.errors import Refused, Unavailable
from server.model.message import Envelope
from tests.contract.listening import Client, Listening, listening

HELLO = b"LHLO mta.example\r\n"
MAIL = b"MAIL FROM:<s@example.com>\r\n"
BOTH = b"RCPT TO:<known@temp.mail>\r\nRCPT TO:<nobody@temp.mail>\r\nRCPT TO:<second@temp.mail>\r\n"
BODY = b"DATA\r\nSubject: x\r\n\r\nbody\r\n.\r\n"


@pytest.fixture(scope="module")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    """The loop that the product runs on."""
    return uvloop.EventLoopPolicy()


async def heard(client: Client, said: bytes, count: int) -> list[str]:
    client.write(said)
    return [reply[:9] for reply in await client.replies(count)]


async def begun(place: Listening) -> Client:
    client = await place.client()
    assert (await client.reply()) == "220 temp.mail LMTP"
    assert await heard(client, HELLO, 1) == ["250 CHUNK"]
    return client


async def test_only_lhlo_is_a_hello(tmp_path: Path) -> None:
    async with listening(tmp_path, lmtp=True) as place:
        client = await place.client()
        said = b"EHLO x\r\nHELO x\r\n" + MAIL + HELLO + MAIL
        codes = ["220 temp.", "500 5.5.1", "500 5.5.1", "503 5.5.1", "250 CHUNK", "250 2.1.0"]
        assert await heard(client, said, 6) == codes
    async with listening(tmp_path) as place:
        client = await place.client()
        assert await heard(client, HELLO, 2) == ["220 temp.", "500 5.5.1"]


@pytest.mark.parametrize("body", [BODY, b"BDAT 5\r\nbody\nBDAT 6 LAST\r\nbody\r\n"], ids=["DATA", "BDAT"])
async def test_every_accepted_recipient_gets_an_answer_and_no_other(tmp_path: Path, body: bytes) -> None:
    async with listening(tmp_path, lmtp=True) as place:
        client = await begun(place)
        said = MAIL + BOTH + b"RCPT TO:<alias@temp.mail>\r\n" + body
        envelope = ["250 2.1.0", "250 2.1.5", "550 5.1.1", "250 2.1.5", "250 2.1.5"]
        between = "354 End d" if body is BODY else "250 2.0.0"
        assert await heard(client, said, 9) == [*envelope, between, "250 2.0.0", "250 2.0.0", "250 2.0.0"]
        assert await heard(client, b"NOOP\r\n", 1) == ["250 2.0.0"]
        [mail] = place.delivery.envelopes
        assert b" ([local])\r\n\tby temp.mail with LMTP id " in mail.raw
        assert mail.client == ""


async def test_nobody_to_deliver_to_is_503(tmp_path: Path) -> None:
    async with listening(tmp_path, lmtp=True) as place:
        client = await begun(place)
        said = MAIL + b"RCPT TO:<nobody@temp.mail>\r\nDATA\r\nBDAT 4 LAST\r\nRSET" + MAIL
        assert await heard(client, said, 5) == ["250 2.1.0", "550 5.1.1", "503 5.5.1", "503 5.5.1", "250 2.1.0"]


async def test_a_message_refused_or_in_trouble_is_answered_for_each(tmp_path: Path) -> None:
    async with listening(tmp_path, lmtp=True, SMTP_MAX_MESSAGE_BYTES="1000") as place:
        client = await begun(place)
        big = b"DATA\r\n" + b"x" * 1500 + b"\r\n.\r\n"
        assert (await heard(client, MAIL + BOTH + big, 7))[4:] == ["354 End d", "552 5.3.4", "552 5.3.4"]
        for stage in ("submit", "commit"):
            place.delivery.trouble = {stage: Unavailable("down")}
            assert (await heard(client, MAIL + BOTH + BODY, 7))[4:] == ["354 End d", "451 4.3.0", "451 4.3.0"]
        place.delivery.trouble = {}
        assert (await heard(client, MAIL + BOTH + BODY, 7))[4:] == ["354 End d", "250 2.0.0", "250 2.0.0"]


async def test_one_full_mailbox_does_not_keep_mail_from_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(tmp_path, lmtp=True) as place:
        submit = place.delivery.submit

        def submit_unless_full(envelope: Envelope, *, is_read: bool = False) -> object:
            full = any(recipient.mailbox_id == "box-2" for recipient in envelope.recipients)
            place.delivery.trouble = {"commit": Refused("mailbox_full")} if full else {}
            return submit(envelope, is_read=is_read)

        monkeypatch.setattr(place.delivery, "submit", submit_unless_full)
        client = await begun(place)
        said = MAIL + BOTH + b"RCPT TO:<alias@temp.mail>\r\n" + BODY
        assert (await heard(client, said, 9))[6:] == ["250 2.0.0", "452 4.2.2", "250 2.0.0"]
        assert [len(envelope.recipients) for envelope in place.delivery.envelopes] == [2, 1, 1]


async def test_a_local_mail_server_is_no_stranger(tmp_path: Path) -> None:
    caps = {"SMTP_MAX_CONNECTIONS_PER_IP": "1", "RATE_LIMIT_EXEMPT": ""}
    async with listening(tmp_path, lmtp=True, **caps) as place:
        client, _second = await begun(place), await begun(place)
        client.write(b"NOOP\r\n" * 5000)
        assert (await client.replies(5000))[-1].startswith("250")


async def test_one_recipient_said_again_and_again_has_the_bound_of_many(tmp_path: Path) -> None:
    async with listening(tmp_path, lmtp=True) as place:
        client = await begun(place)
        replies = await heard(client, MAIL + b"RCPT TO:<known@temp.mail>\r\n" * 120, 121)
        assert replies[1:] == ["250 2.1.5"] * 100 + ["452 4.5.3"] * 20
