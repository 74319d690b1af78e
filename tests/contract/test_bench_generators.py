"""The senders of the bench against the real server: every mail goes out once, and its moments are in order."""

import pytest

from bench.clients.burst import send_all
from bench.clients.postman import send_steadily
from bench.clients.smtp import SmtpError, sample_message
from bench.tools.target import Endpoint
from tests.running import Server


async def test_every_mail_of_a_schedule_is_sent_once_and_timed(server: Server) -> None:
    boxes = [await server.mailbox() for _ in range(3)]

    def letter(number: int) -> tuple[str, bytes]:
        return boxes[number % 3].address, sample_message(f"bench {number}", 3000)

    sent = await send_steadily(Endpoint(*server.smtp), 300.0, 0.2, letter, sessions=4)
    subjects = [message["subject"] for box in boxes for message in await server.messages(box)]
    assert sorted(subjects) == sorted(f"bench {number}" for number in range(60))
    assert len(sent.due) == 60
    for moments in zip(sent.due, sent.began, sent.dot, sent.answered, strict=True):
        assert list(moments) == sorted(moments)
    assert sent.rate > 0


async def test_a_refused_mail_ends_the_stream(server: Server) -> None:
    wire = sample_message("bench", 100)
    with pytest.raises(SmtpError, match="550"):
        await send_steadily(
            Endpoint(*server.smtp), 100.0, 1.0, lambda _: ("nobody@elsewhere.example", wire), sessions=2
        )


@pytest.mark.parametrize("chunks", [False, True])
async def test_every_mail_of_a_burst_is_sent_once(server: Server, chunks: bool) -> None:
    boxes = [await server.mailbox() for _ in range(2)]
    letters = [(boxes[number % 2].address, sample_message(f"bench {number}", 3000)) for number in range(40)]
    sent = await send_all(Endpoint(*server.smtp), letters, sessions=3, deadline=30, chunks=chunks)
    subjects = [message["subject"] for box in boxes for message in await server.messages(box)]
    assert sorted(subjects) == sorted(f"bench {number}" for number in range(40))
    assert len(sent) == 40
    assert all(each.sent <= each.answered for each in sent)


@pytest.mark.parametrize("chunks", [False, True])
async def test_a_refused_mail_ends_the_burst(server: Server, chunks: bool) -> None:
    letters = [("nobody@elsewhere.example", sample_message("bench", 100))] * 5
    with pytest.raises(SmtpError, match="550"):
        await send_all(Endpoint(*server.smtp), letters, sessions=2, deadline=30, chunks=chunks)
