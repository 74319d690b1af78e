"""Behind a proxy: who the sender is comes from the proxies that are trusted, and from nobody else."""

import asyncio
import struct
from ipaddress import ip_address
from pathlib import Path

import pytest
import uvloop

from tests.contract.listening import ENVELOPE, MAIL, Client, Listening, listening

TRUSTED = {"SMTP_PROXY_PROTOCOL": "true", "TRUSTED_PROXIES": "127.0.0.1/32,::1"}
V2 = b"\r\n\r\n\0\r\nQUIT\n"


@pytest.fixture(scope="module")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    """The loop that the product runs on."""
    return uvloop.EventLoopPolicy()


def text(client: str) -> bytes:
    return f"PROXY TCP{4 if '.' in client else 6} {client} {client} 1234 25\r\n".encode()


def binary(client: str, tail: bytes = b"") -> bytes:
    address = ip_address(client)
    block = address.packed * 2 + struct.pack("!HH", 1234, 25) + tail
    return V2 + bytes([0x21, 0x11 if address.version == 4 else 0x21]) + struct.pack("!H", len(block)) + block


async def received(place: Listening, header: bytes, *, pieces: bool = False) -> bytes:
    """What a mail behind ``header`` gets in front."""
    client = await place.client()
    whole = header + ENVELOPE + MAIL + b"QUIT\r\n"
    for piece in [bytes([byte]) for byte in whole] if pieces else [whole]:
        client.write(piece)
        await asyncio.sleep(0)
    assert [reply[:3] for reply in await client.rest()] == ["220", "250", "250", "250", "354", "250", "221"]
    return place.delivery.envelopes[-1].raw.partition(b"\r\n\tby")[0]


@pytest.mark.parametrize("pieces", [False, True], ids=["one packet", "byte by byte"])
async def test_the_client_is_whom_the_header_names(tmp_path: Path, pieces: bool) -> None:
    async with listening(tmp_path, **TRUSTED) as place:
        for header, shown in (
            (text("192.0.2.7"), b"([192.0.2.7])"),
            (text("2001:db8::7"), b"([IPv6:2001:db8::7])"),
            (binary("192.0.2.8", b"\x04\0\x01x"), b"([192.0.2.8])"),
            (binary("2001:db8::8"), b"([IPv6:2001:db8::8])"),
            (b"PROXY UNKNOWN\r\n", b"([127.0.0.1])"),
            (V2 + b"\x20\0\0\0", b"([127.0.0.1])"),
        ):
            assert (await received(place, header, pieces=pieces)).endswith(shown)
        assert {envelope.client for envelope in place.delivery.envelopes} >= {"192.0.2.7", "2001:db8::8", "127.0.0.1"}
        assert place.listener._shared is not None
        assert place.listener._shared.seats._taken == 0


async def test_a_stranger_cannot_say_who_he_is_and_needs_no_header(tmp_path: Path) -> None:
    async with listening(tmp_path, **TRUSTED) as place:
        stranger = await place.client(local_addr=("127.0.0.2", 0))
        assert (await stranger.reply()).startswith("220")  # greeted before he says a word
        stranger.write(text("192.0.2.7") + ENVELOPE + MAIL)
        heard = [reply[:3] for reply in await stranger.replies(6)]
        assert heard == ["500", "250", "250", "250", "354", "250"]
        assert b"([127.0.0.2])" in place.delivery.envelopes[0].raw
        assert place.delivery.envelopes[0].client == "127.0.0.2"


async def test_without_the_setting_a_header_is_a_command_nobody_knows(tmp_path: Path) -> None:
    async with listening(tmp_path, TRUSTED_PROXIES="127.0.0.1/32") as place:
        client = await place.client()
        client.write(text("192.0.2.7"))
        assert [reply[:3] for reply in await client.replies(2)] == ["220", "500"]


@pytest.mark.parametrize("said", [b"EHLO x\r\n", b"PROXY TCP4 x y 1 2\r\n", V2 + b"\x21\x12\0\x0c" + bytes(12)])
async def test_a_proxy_without_a_right_header_is_left_without_a_word(tmp_path: Path, said: bytes) -> None:
    async with listening(tmp_path, **TRUSTED) as place:
        client = await place.client()
        client.write(said)
        assert await client.gone()
        assert not place.listener._sessions


async def test_a_header_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    async with listening(tmp_path, **TRUSTED) as place:
        client = await place.client()
        client.write(b"PROXY TCP4 192.0.2")
        while not place.listener._sessions:
            await asyncio.sleep(0.01)
        place.later(15)
        assert place.listener._sessions
        place.later(31)
        assert await client.gone()
        assert not place.listener._sessions


async def test_each_client_behind_the_proxy_has_its_own_share_of_connections(tmp_path: Path) -> None:
    caps = {"SMTP_MAX_CONNECTIONS_PER_IP": "2", "SMTP_MAX_CONNECTIONS": "4", "RATE_LIMIT_EXEMPT": ""}
    async with listening(tmp_path, **TRUSTED, **caps) as place:

        async def come(client: str) -> tuple[Client, str]:
            made = await place.client()
            made.write(text(client))
            return made, (await made.reply())[:9]

        assert [(await come("192.0.2.1"))[1] for _ in range(3)] == ["220 temp.", "220 temp.", "421 4.7.0"]
        assert (await come("192.0.2.2"))[1] == "220 temp."
        waiting = await place.client()
        while len(place.listener._sessions) < 4:
            await asyncio.sleep(0.01)
        assert await (await place.client()).gone()  # the one that has not said who it is took the last seat
        waiting.write(text("192.0.2.3"))
        assert (await waiting.reply()).startswith("220")


async def test_going_down_leaves_no_proxy_waiting(tmp_path: Path) -> None:
    async with listening(tmp_path, **TRUSTED) as place:
        client = await place.client()
        while not place.listener._sessions:
            await asyncio.sleep(0.01)
        await place.listener.drain(20)
        assert await client.gone()
