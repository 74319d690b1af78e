"""Wrong ends of data: what another server might take for an end must never make two messages of one.

Stored messages are counted, never replies: a smuggled message shows in the mailbox, whatever was answered.
"""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from tests.running import Box, Server

WRONG_ENDS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\n.\r",
    b"\r.\r",
    b"\r.\n",
    b"\r.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\n\n.\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n\x0b.\x0b\r\n",
    b"\r\n..\r\n",
    b"\xc2\x85.\xc2\x85",
]
BARE = {end for end in WRONG_ENDS if b"\r" in end.replace(b"\r\n", b"") or b"\n" in end.replace(b"\r\n", b"")}


def pieces(box: Box, end: bytes) -> list[bytes]:
    """One mail whose body holds a wrong end and, behind it, the commands of a second mail."""
    to = b"RCPT TO:<" + box.address.encode() + b">\r\n"
    return [
        b"EHLO client.example\r\nMAIL FROM:<s@example.com>\r\n" + to + b"DATA\r\n",
        b"Subject: first\r\n\r\nfirst",
        end,
        b"MAIL FROM:<evil@example.com>\r\n" + to + b"DATA\r\nSubject: smuggled\r\n\r\nx",
        b"\r\n.\r\n",
        b"QUIT\r\n",
    ]


async def speak(address: tuple[str, int], parts: list[bytes]) -> bytes:
    """Write the parts, each in a packet of its own, and return all that was answered until the server closed."""
    reader, writer = await asyncio.open_connection(*address)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0)
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return answer


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("refusing"), SMTP_BARE_NEWLINES="refuse", WORKERS="1").start()
    yield server
    server.stop()


@pytest.mark.parametrize("cut", [list, lambda parts: [b"".join(parts)]], ids=["in pieces", "in one packet"])
@pytest.mark.parametrize("end", WRONG_ENDS, ids=repr)
async def test_a_wrong_end_ends_nothing(server: Server, end: bytes, cut: Callable[[list[bytes]], list[bytes]]) -> None:
    box = await server.mailbox()
    await speak(server.smtp, cut(pieces(box, end)))
    assert [message["subject"] for message in await server.messages(box)] == ["first"]


@pytest.mark.parametrize("end", WRONG_ENDS, ids=repr)
async def test_refusing_bare_newlines_takes_such_a_mail_not_at_all(refusing: Server, end: bytes) -> None:
    box = await refusing.mailbox()
    answer = await speak(refusing.smtp, [b"".join(pieces(box, end))])
    stored = [message["subject"] for message in await refusing.messages(box)]
    assert stored == ([] if end in BARE else ["first"])
    assert (b"550 5.6.11" in answer) is (end in BARE)
