"""Sessions of any commands, sensible or not: what is answered and stored never depends on how TCP cut the bytes."""

import asyncio
import random
import re
from itertools import pairwise
from pathlib import Path

import pytest
import uvloop

from tests.contract.listening import MAIL, Listening, listening

MAIL_WHOLE = b"EHLO x\r\nMAIL FROM:<s@example.com>\r\nRCPT TO:<known@temp.mail>\r\n" + MAIL
OFTEN = [
    b"EHLO x\r\n",
    b"MAIL FROM:<s@example.com>\r\n",
    b"RCPT TO:<known@temp.mail>\r\n",
    b"DATA\r\n",
    b"words\r\n",
    b".\r\n",
]
SOMETIMES = [
    *(b"RCPT TO:<alias@temp.mail>\r\n", b"RCPT TO:<nobody@temp.mail>\r\n", b"RCPT TO:<a@example.com>\r\n", b"RSET\r\n"),
    *(b"BDAT 7\r\nchunk\r\n", b"BDAT 6 LAST\r\nNOOP\r\n", b"BDAT 0 LAST\r\n", b"BDAT 3000\r\n" + b"xxx\r\n" * 600),
    *(b"MAIL FROM:<> SIZE=10\r\n", b"HELO y\r\n", b"NOOP\r\n", b"..\r\n", b"\r\n.\r\n", MAIL_WHOLE),
]
SELDOM = [
    b"\n",
    b"\r",
    b"\r\n",
    b"\x00\xff",
    b"A" * 1500 + b"\r\n",
    b"x" * 6000,
    b"MAIL FROM:<\xff@x>\r\n",
    b"BDAT 5\r\n",
]
CHOICES = OFTEN * 6 + SOMETIMES * 3 + SELDOM

Outcome = tuple[bytes, list[tuple[str, list[str], bytes]]]


@pytest.fixture(scope="module")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    """The loop that the product runs on."""
    return uvloop.EventLoopPolicy()


async def speak(place: Listening, pieces: list[bytes]) -> Outcome:
    """All that was answered (ids left out), and what was handed over for storing (trace header left out)."""
    place.delivery.envelopes.clear()
    client = await place.client()
    for piece in pieces:
        if not client.writer.is_closing():
            client.write(piece)
        await asyncio.sleep(0)
    if not client.writer.is_closing():
        client.writer.write_eof()
    heard = await asyncio.wait_for(client.reader.read(), 30)
    client.writer.close()
    stored = [
        (envelope.sender, [r.mailbox_id for r in envelope.recipients], envelope.raw.partition(b"+0000\r\n")[2])
        for envelope in place.delivery.envelopes
    ]
    return re.sub(rb"stored as \S+", b"stored", heard), stored


@pytest.mark.parametrize("seed", range(8))
async def test_packets_change_nothing(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    async with listening(tmp_path, SMTP_MAX_MESSAGE_BYTES="5000") as place:
        for _ in range(100):
            said = b"".join(dice.choices(CHOICES, k=dice.randrange(1, 25))) + dice.choice([b"", b"QUIT\r\n"])
            places = sorted(dice.randrange(len(said) + 1) for _ in range(dice.randrange(1, 30)))
            pieces = [said[a:b] for a, b in pairwise([0, *places, len(said)])]
            assert await speak(place, [said]) == await speak(place, pieces), said
