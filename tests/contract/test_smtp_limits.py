"""What a sender can do to us and to others' mail: faults behind the commands, time, amounts, its own disappearance."""

import asyncio
import ipaddress
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiosmtpd
import pytest
import uvloop

from server.model.errors import Refused, Unavailable
from server.smtp import aiosmtpd_shim
from server.smtp.body import BodyReader
from server.smtp.connection import Connection
from server.smtp.listener_state import INPUT_MAX, LINGER, Seats
from tests.contract.listening import ENVELOPE, MAIL, Client, Listening, listening

SECRET = "dsn=postgres://secret"


@pytest.fixture(scope="module")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    """The loop that the product runs on: its transports differ from asyncio's where connections end."""
    return uvloop.EventLoopPolicy()


async def begun(place: Listening, said: bytes = ENVELOPE, replies: int = 4, **options: Any) -> Client:
    """A client that has said ``said`` and heard the greeting and the replies to it."""
    client = await place.client(**options)
    client.write(said)
    heard = await client.replies(replies)
    assert all(reply.startswith("2") for reply in heard), heard
    return client


# Faults of ours


@pytest.mark.parametrize("error", [Unavailable(SECRET), RuntimeError(SECRET), KeyError(SECRET)], ids=repr)
@pytest.mark.parametrize("place_", ["route", "resolve", "submit", "commit"])
async def test_trouble_is_4xx_without_its_text_and_the_session_goes_on(
    tmp_path: Path, place_: str, error: Exception, capfd: pytest.CaptureFixture[str]
) -> None:
    async with listening(tmp_path) as place:
        place.delivery.trouble[place_] = error
        client = await place.client()
        client.write(ENVELOPE)
        heard = await client.replies(4)
        if place_ in ("submit", "commit"):
            client.write(MAIL)
            heard += await client.replies(2)
        assert heard[-1].startswith("451 4.3.0")
        assert SECRET not in " ".join(heard)
        place.delivery.trouble.clear()
        client.write(b"RSET\r\n" + ENVELOPE.partition(b"\r\n")[2] + MAIL)
        assert [reply[:3] for reply in await client.replies(5)] == ["250", "250", "250", "354", "250"]
    logged = capfd.readouterr().err
    assert type(error).__name__ in logged
    assert SECRET not in logged  # an error's text may quote an address or a mail


@pytest.mark.parametrize(
    ("word", "code"),
    [("mailbox_full", "452 4.2.2"), ("mailbox_not_found", "550 5.1.1"), ("domain_not_allowed", "550 5.7.1")],
)
async def test_a_refusal_is_said_at_rcpt_and_after_data(tmp_path: Path, word: str, code: str) -> None:
    async with listening(tmp_path) as place:
        place.delivery.trouble["commit"] = Refused(word)  # type: ignore[arg-type]
        client = await begun(place)
        client.write(MAIL)
        assert (await client.replies(2))[1].startswith(code)
        place.delivery.trouble["resolve"] = Refused(word)  # type: ignore[arg-type]
        client.write(b"MAIL FROM:<>\r\nRCPT TO:<other@temp.mail>\r\n")
        assert (await client.replies(2))[1].startswith(code)


# Disappearing senders


def reset(client: Client) -> None:
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


@pytest.mark.parametrize("leave", [lambda client: client.writer.close(), reset], ids=["FIN", "RST"])
async def test_a_sender_gone_after_the_dot_cancels_nothing(tmp_path: Path, leave: object) -> None:
    async with listening(tmp_path) as place:
        place.delivery.pending = True
        client = await begun(place)
        client.write(MAIL)
        await place.delivery.submitted.wait()
        assert callable(leave)
        leave(client)
        other = await begun(place)
        [future] = place.delivery.futures
        assert not future.cancelled()
        future.set_result([])
        other.write(b"NOOP\r\n")
        assert (await other.reply()).startswith("250")


async def test_a_sender_gone_from_tls_after_the_dot_cancels_nothing(tmp_path: Path) -> None:
    async with listening(tmp_path, SMTP_TLS_CERT="self-signed") as place:
        place.delivery.pending = True
        client = await begun(place, b"EHLO x\r\nSTARTTLS\r\n", 3)
        await client.writer.start_tls(ssl._create_unverified_context())
        client.write(ENVELOPE + MAIL)
        await place.delivery.submitted.wait()
        client.writer.close()
        other = await begun(place)
        place.delivery.futures[0].set_result([])
        other.write(b"NOOP\r\n")
        assert (await other.reply()).startswith("250")
        assert place.delivery.envelopes[0].tls


async def test_a_sender_that_only_stopped_writing_hears_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, eof_received = asyncio.Event(), Connection.eof_received

    def told(self: Connection) -> bool:
        seen.set()
        return eof_received(self)

    monkeypatch.setattr(Connection, "eof_received", told)
    async with listening(tmp_path) as place:
        place.delivery.pending = True
        client = await begun(place)
        client.write(MAIL + b"QUIT\r\n")
        client.writer.write_eof()
        await place.delivery.submitted.wait()
        await asyncio.wait_for(seen.wait(), 60)
        place.delivery.futures[0].set_result([])
        assert [reply[:3] for reply in await client.rest()] == ["354", "250", "221"]


# Times


async def test_silence_ends_a_session_and_progress_does_not(tmp_path: Path) -> None:
    async with listening(tmp_path, SMTP_READ_TIMEOUT="10m") as place:
        client = await begun(place)
        place.later(500)
        client.write(b"NOOP\r\n")
        assert (await client.reply()).startswith("250")
        place.later(601)
        assert await client.rest() == ["421 4.4.2 Timed out"]


async def test_a_session_has_a_whole_life(tmp_path: Path) -> None:
    async with listening(tmp_path, SMTP_READ_TIMEOUT="2h", SMTP_SESSION_TIMEOUT="15m") as place:
        client = await begun(place)
        place.later(800)
        assert len(place.listener._sessions) == 1
        place.later(901)
        assert [reply[:9] for reply in await client.rest()] == ["421 4.4.2"]


async def test_a_data_that_trickles_is_cut_and_an_honest_one_is_not(tmp_path: Path) -> None:
    async with listening(tmp_path, SMTP_READ_TIMEOUT="2h", SMTP_SESSION_TIMEOUT="3h", SMTP_MIN_RATE="500") as place:
        honest, trickling = await begun(place), await begun(place)
        honest.write(b"DATA\r\n" + b"x" * 200_000)
        trickling.write(b"DATA\r\n" + b"x" * 100)
        await honest.reply()
        await trickling.reply()
        place.later(29)
        honest.write(b"\r\n.\r\n")
        assert (await honest.reply()).startswith("250")
        place.later(40)
        assert [reply[:9] for reply in await trickling.rest()] == ["421 4.4.2"]


async def test_waiting_for_our_own_commit_is_not_the_senders_silence(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        place.delivery.pending = True
        client = await begun(place)
        client.write(MAIL)
        await place.delivery.submitted.wait()
        place.later(3600)
        place.delivery.futures[0].set_result([])
        assert [reply[:3] for reply in await client.replies(2)] == ["354", "250"]


# Amounts


async def test_recipients_are_capped_and_the_rest_go_on(tmp_path: Path) -> None:
    async with listening(tmp_path, SMTP_MAX_RECIPIENTS="2") as place:
        place.delivery.known |= {f"m{n}@temp.mail": f"box-{n}" for n in range(5)}
        client = await place.client()
        client.write(b"EHLO x\r\nMAIL FROM:<>\r\n" + b"".join(b"RCPT TO:<m%d@temp.mail>\r\n" % n for n in range(5)))
        assert [reply[:9] for reply in (await client.replies(8))[3:]] == ["250 2.1.5"] * 2 + ["452 4.5.3"] * 3
        client.write(MAIL)
        assert [reply[:3] for reply in await client.replies(2)] == ["354", "250"]
        assert len(place.delivery.envelopes[0].recipients) == 2


async def test_two_addresses_of_one_mailbox_are_one_delivery(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        client = await begun(place, ENVELOPE + b"RCPT TO:<alias@temp.mail>\r\nRCPT TO:<second@temp.mail>\r\n", 6)
        client.write(MAIL)
        await client.replies(2)
        recipients = place.delivery.envelopes[0].recipients
        assert [recipient.mailbox_id for recipient in recipients] == ["box-1", "box-2"]


async def test_commands_without_mail_are_budgeted_and_mail_renews_the_budget(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        client = await begun(place, b"EHLO x\r\n", 2)
        for _ in range(3):
            client.write(b"NOOP\r\n" * 900 + ENVELOPE.partition(b"\r\n")[2] + MAIL)
            assert (await client.replies(904))[-1].startswith("250 2.0.0 OK stored")
        client.write(b"NOOP\r\n" * 20_000)
        heard = await client.rest()
        assert heard[-1].startswith("421 4.7.0")
        assert len(heard) < 2000


async def test_guessing_recipients_is_budgeted(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        client = await begun(place, b"EHLO x\r\nMAIL FROM:<>\r\n", 3)
        for n in range(200):
            client.write(b"RCPT TO:<guess%d@temp.mail>\r\n" % n)
        heard = await client.rest()
        assert heard[-1].startswith("421 4.7.0")
        assert 100 < len(heard) < 120


async def test_an_oversize_message_is_drained_refused_and_forgotten(tmp_path: Path) -> None:
    async with listening(tmp_path, SMTP_MAX_MESSAGE_BYTES="100000") as place:
        client = await begun(place)
        client.write(b"DATA\r\n" + b"x" * 200_000 + b"\r\n.\r\n")
        assert [reply[:9] for reply in await client.replies(2)] == ["354 End d", "552 5.3.4"]
        client.write(ENVELOPE + MAIL)
        assert [reply[:3] for reply in await client.replies(5)] == ["250", "250", "250", "354", "250"]
        assert len(place.delivery.envelopes) == 1


async def test_draining_an_oversize_message_has_an_end(tmp_path: Path) -> None:
    async with listening(tmp_path, SMTP_MAX_MESSAGE_BYTES="100000") as place:
        client = await begun(place)
        client.write(b"DATA\r\n")
        await client.reply()
        for _ in range(30):
            client.write(b"x" * 10_000)
        assert [reply[:9] for reply in await client.rest()] == ["552 5.3.4"]


async def test_a_message_as_big_as_allowed_is_taken_stuffed_or_not(tmp_path: Path) -> None:
    async with listening(tmp_path, SMTP_MAX_MESSAGE_BYTES="9000") as place:
        for line, count, code in ((b"x\r\n", 3000, "250"), (b"..\r\n", 3000, "250"), (b"..\r\n", 3001, "552")):
            client = await begun(place)
            client.write(b"DATA\r\n" + line * count + b".\r\n")
            assert (await client.replies(2))[1].startswith(code)
        assert [len(e.raw.partition(b"+0000\r\n")[2]) for e in place.delivery.envelopes] == [9000, 9000]


async def test_bare_newlines_cannot_double_a_message_past_its_limit(tmp_path: Path) -> None:
    async with listening(tmp_path, SMTP_MAX_MESSAGE_BYTES="9000") as place:
        client = await begun(place)
        client.write(b"DATA\r\n" + b"\n" * 8000 + b"\r\n.\r\n")
        assert (await client.replies(2))[1].startswith("552 5.3.4")


async def test_chunks_together_are_no_longer_than_a_message(tmp_path: Path) -> None:
    async with listening(tmp_path, SMTP_MAX_MESSAGE_BYTES="9000") as place:
        client = await begun(place)
        for size, last, code in ((4500, "", "250 2.0.0"), (4500, "", "250 2.0.0"), (1, "", "552 5.3.4")):
            client.write(f"BDAT {size}{last}\r\n".encode() + b"x" * size)
            assert (await client.reply()).startswith(code)
        assert place.listener._shared is not None
        assert place.listener._shared.in_flight == 0  # what was kept is not kept for its refusal
        client.write(b"BDAT 5\r\nQUIT\n" + b"BDAT 4 LAST\r\nRSET" + ENVELOPE)
        assert [reply[:9] for reply in await client.replies(2)] == ["552 5.3.4"] * 2
        await client.replies(3)
        client.write(b"BDAT 9001 LAST\r\n" + b"x" * 9001 + ENVELOPE)
        assert (await client.reply()).startswith("552 5.3.4")
        await client.replies(3)
        client.write(b"BDAT 8998\r\n" + b"x" * 8998 + b"BDAT 2 LAST\r\n\r\n")
        assert [reply[:12] for reply in await client.replies(2)] == ["250 2.0.0 Ch", "250 2.0.0 OK"]
        assert [len(e.raw.partition(b"+0000\r\n")[2]) for e in place.delivery.envelopes] == [9000]


async def test_draining_refused_chunks_has_an_end(tmp_path: Path) -> None:
    async with listening(tmp_path, SMTP_MAX_MESSAGE_BYTES="9000") as place:
        client = await begun(place)
        for _ in range(3):
            client.write(b"BDAT 9500\r\n" + b"x" * 9500)
        assert {reply[:9] for reply in await client.rest()} == {"552 5.3.4"}
        assert (await begun(place)).reader is not client.reader


async def test_a_long_mail_in_small_chunks_stays_within_the_budget_and_tiny_ones_do_not(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        client = await begun(place)
        client.write((b"BDAT 1024\r\n" + b"x" * 1024) * 3000 + b"BDAT 0 LAST\r\n")
        assert (await client.replies(3001))[-1].startswith("250 2.0.0 OK stored")
        client.write(ENVELOPE + b"BDAT 1\r\nx" * 2000)
        heard = await client.rest()
        assert heard[-1].startswith("421 4.7.0")
        assert len(heard) < 1200


async def test_a_chunk_that_trickles_is_cut_and_its_bytes_are_given_back(tmp_path: Path) -> None:
    async with listening(tmp_path, SMTP_READ_TIMEOUT="2h", SMTP_SESSION_TIMEOUT="3h", SMTP_MIN_RATE="500") as place:
        within, between = await begun(place), await begun(place)
        within.write(b"BDAT 9999\r\n" + b"x" * 99)
        between.write(b"BDAT 99\r\n" + b"x" * 99)
        await between.reply()
        assert place.listener._shared is not None
        while place.listener._shared.in_flight < 198:
            await asyncio.sleep(0.01)
        place.later(31)
        assert [reply[:9] for reply in await within.rest()] == ["421 4.4.2"]
        assert [reply[:9] for reply in await between.rest()] == ["421 4.4.2"]
        assert place.listener._shared.in_flight == 0


async def test_chunks_count_among_the_mail_in_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.smtp.body.IN_FLIGHT_MAX", 50_000)
    async with listening(tmp_path) as place:
        first, second = await begun(place), await begun(place)
        first.write(b"BDAT 40000\r\n" + b"x" * 40_000)
        assert (await first.reply()).startswith("250")
        second.write(b"BDAT 40000\r\n" + b"x" * 40_000)
        assert (await second.reply()).startswith("452 4.3.1")
        first.write(b"BDAT 0 LAST\r\n")
        assert (await first.reply()).startswith("250 2.0.0 OK stored")
        second.write(b"RSET\r\n" + ENVELOPE + b"BDAT 40000 LAST\r\n" + b"x" * 40_000)
        assert (await second.replies(5))[-1].startswith("250 2.0.0 OK stored")


@pytest.mark.parametrize("policy", ["normalise", "refuse"])
async def test_bare_newlines_in_chunks_are_judged_as_in_data(tmp_path: Path, policy: str) -> None:
    async with listening(tmp_path, SMTP_BARE_NEWLINES=policy) as place:
        client = await begun(place)
        client.write(b"BDAT 2\r\na\r" + b"BDAT 4\r\n\nb\n." + b"BDAT 3 LAST\r\n\r.\n")
        last = (await client.replies(3))[-1]
        if policy == "refuse":
            assert last.startswith("550 5.6.11")
            assert not place.delivery.envelopes
        else:
            assert place.delivery.envelopes[0].raw.partition(b"+0000\r\n")[2] == b"a\r\nb\r\n.\r\n.\r\n"


async def test_mail_in_flight_is_bounded_over_all_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.smtp.body.IN_FLIGHT_MAX", 50_000)
    async with listening(tmp_path) as place:
        first, second = await begun(place), await begun(place)
        first.write(b"DATA\r\n" + b"x" * 40_000)
        await first.reply()
        second.write(b"DATA\r\n" + b"x" * 40_000)
        await second.reply()
        second.write(b"\r\n.\r\n")
        assert (await second.reply()).startswith("452 4.3.1")
        first.write(b"\r\n.\r\n")
        assert (await first.reply()).startswith("250")
        second.write(ENVELOPE + MAIL)
        assert (await second.replies(5))[-1].startswith("250")


def of_chunk(size: int, more: int = 1) -> bytes:
    """The beginning of a chunk of which ``more`` bytes are not sent."""
    return b"BDAT %d\r\n" % (size + more) + b"x" * size


def of_data(size: int, _: int = 1) -> bytes:
    return b"DATA\r\n" + b"x" * size


def bodies(place: Listening) -> list[BodyReader]:
    """The mail under way, and what was held of it and thrown away."""
    sessions = [session for session in place.listener._sessions if isinstance(session, Connection)]
    return [session._body for session in sessions if session._body is not None]


@pytest.mark.parametrize("begin", [of_data, of_chunk])
async def test_one_client_cannot_hold_the_room_for_everybodys_mail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: Callable[..., bytes]
) -> None:
    """The attack: many connections of one address each begin a large mail and never end it."""
    monkeypatch.setattr("server.smtp.body.IN_FLIGHT_MAX", 800_000)
    monkeypatch.setattr("server.smtp.listener_state.IN_FLIGHT_MAX", 800_000)
    async with listening(tmp_path, SMTP_MAX_MESSAGE_BYTES="50000", RATE_LIMIT_EXEMPT="") as place:
        shared = place.listener._shared
        assert shared is not None
        holding = [await begun(place, local_addr=("127.0.0.9", 0)) for _ in range(27)]
        for client in holding:
            client.write(begin(40_000))
        while sum(body._dropped + len(body._buffer) for body in bodies(place)) < 27 * 40_000:
            await asyncio.sleep(0.01)
        assert shared.in_flight <= 100_000, "an eighth, or two messages"
        other = await begun(place, local_addr=("127.0.0.77", 0))
        other.write(begin(40_000))
        if begin is of_data:
            await other.reply()
        while shared.held.held("127.0.0.77") < 40_000:
            await asyncio.sleep(0.01)
        other.write(b"\r\n.\r\n" if begin is of_data else b"yBDAT 0 LAST\r\n")
        assert (await other.replies(1 if begin is of_data else 2))[-1].startswith("250 2.0.0 OK stored")
        last = holding[-1]
        last.write(b"\r\n.\r\n" if begin is of_data else b"y")
        refused = (await last.replies(2 if begin is of_data else 1))[-1]
        assert refused.startswith("451 4.7.0 Too much unfinished mail")
        for client in holding:
            client.writer.transport.abort()
        while shared.in_flight:
            await asyncio.sleep(0.01)
        assert not shared.held
        again = await begun(place, local_addr=("127.0.0.9", 0))
        again.write(MAIL)
        assert (await again.replies(2))[-1].startswith("250")


@pytest.mark.parametrize("begin", [of_data, of_chunk])
async def test_a_mail_that_began_fast_is_cut_once_it_trickles(tmp_path: Path, begin: Callable[..., bytes]) -> None:
    async with listening(tmp_path, SMTP_READ_TIMEOUT="2h", SMTP_SESSION_TIMEOUT="3h", SMTP_MIN_RATE="500") as place:
        shared = place.listener._shared
        assert shared is not None
        trickling, steady = await begun(place), await begun(place)
        for client in (trickling, steady):
            client.write(begin(1_000_000, 900_000))
        for second in range(1, 61):
            if second % 20 == 0:  # as the attack: a byte now and then, against 500 in each second
                steady.write(b"y" * 20_000)
                if second == 20:
                    trickling.write(b"y")
            while shared.in_flight < {1: 2_000_000, 20: 2_020_001, 40: 1_040_000}.get(second, 0):
                await asyncio.sleep(0.01)
            place.later(second)
        heard = await trickling.rest()
        assert heard[-1].startswith("421 4.4.2 Data too slow")
        assert len(place.listener._sessions) == 1, "one that keeps the rate up goes on"


async def test_connections_are_capped_per_address_and_in_all(tmp_path: Path) -> None:
    async with listening(
        tmp_path, SMTP_MAX_CONNECTIONS_PER_IP="2", SMTP_MAX_CONNECTIONS="3", RATE_LIMIT_EXEMPT=""
    ) as place:
        first, second = await begun(place), await begun(place)
        third = await place.client()
        assert [reply[:9] for reply in await third.rest()] == ["421 4.7.0"]
        other = await place.client(local_addr=("127.0.0.2", 0))
        assert (await other.reply()).startswith("220")
        full = await place.client(local_addr=("127.0.0.3", 0))
        assert [reply[:9] for reply in await full.rest()] == ["421 4.7.0"]
        second.write(b"QUIT\r\n")
        await second.rest()
        assert (await begun(place)).reader is not first.reader


def test_an_exempt_network_has_no_cap_of_its_own_and_ipv6_counts_by_64() -> None:
    seats = Seats(100, 1, [ipaddress.ip_network("192.0.2.0/24")])
    assert [seats.take(peer) for peer in ("192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1")] == [""] * 3
    first = seats.take("2001:db8::1")
    assert first
    assert seats.take("2001:db8::2") is None
    assert seats.take("2001:db8:0:1::2") is not None
    seats.give_back(first)
    assert seats.take("2001:db8::2")


async def test_input_is_not_read_without_end_while_a_commit_is_awaited(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        place.delivery.pending = True
        client = await begun(place)
        client.write(MAIL)
        await place.delivery.submitted.wait()
        [session] = place.listener._sessions
        client.write(b"NOOP\r\n" * 10_000_000)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.writer.drain(), 1)
        assert len(session._rest) < INPUT_MAX + 1_000_000
        place.delivery.futures[0].set_result([])
        assert (await client.rest())[-1].startswith("421 4.7.0")


async def test_a_sender_that_never_reads_is_left(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        client = await begun(place)
        [session] = place.listener._sessions
        session.pause_writing()
        client.write(b"NOOP\r\n")
        place.later(29)
        assert session in place.listener._sessions
        place.later(31)
        assert await client.gone()
        assert not place.listener._sessions


# Going down


async def test_draining_lets_a_transaction_finish_and_sends_the_idle_away(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        idle, busy = await begun(place, b"EHLO x\r\n", 2), await begun(place)
        drained = asyncio.create_task(place.listener.drain(20))
        assert [reply[:9] for reply in await idle.rest()] == ["421 4.3.2"]
        busy.write(MAIL)
        assert [reply[:9] for reply in await busy.rest()] == ["354 End d", "250 2.0.0", "421 4.3.2"]
        await drained
        with pytest.raises(ConnectionRefusedError):
            await place.client()


async def test_draining_has_a_deadline(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        client = await begun(place)
        await place.listener.drain(0.05)
        assert await client.gone()


# What a message gets in front


async def test_a_client_cannot_write_headers_by_its_name(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        client = await place.client()
        client.write(b'EHLO a)\r\x0bX-Evil:1\r\nEHLO (b);c"\r\n' + ENVELOPE.partition(b"\r\n")[2] + MAIL)
        assert [reply[:3] for reply in await client.replies(7)] == ["220", "501", "250", "250", "250", "354", "250"]
        head = place.delivery.envelopes[0].raw.partition(b"Subject:")[0]
        assert head.startswith(
            b"Return-Path: <s@example.com>\r\nDelivered-To: known@temp.mail\r\n"
            b"Received: from ?b??c? ([127.0.0.1])\r\n\tby temp.mail with ESMTP id "
        )
        assert b" for <known@temp.mail>;\r\n\t" in head
        assert head.count(b"\r\n") == 5


# What we build on


def test_aiosmtpd_is_a_release_whose_constructor_was_read() -> None:
    assert aiosmtpd.__version__ in aiosmtpd_shim.REVIEWED, (
        "read its SMTP.__init__, then add the release; until then each session pays for it"
    )


async def test_a_session_carries_nothing_of_aiosmtpds_own(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        await begun(place)
        [session] = place.listener._sessions
        assert vars(session) == {}


async def test_without_the_shortcut_sessions_work_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiosmtpd_shim, "CONSTRUCT_ONCE", False)
    async with listening(tmp_path) as place:
        client = await begun(place)
        client.write(MAIL)
        assert [reply[:3] for reply in await client.replies(2)] == ["354", "250"]


async def test_a_client_that_keeps_its_side_open_is_cut_off_after_the_last_word(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        client = await begun(place)
        client.write(b"x" * 5_000)
        assert (await client.rest())[-1].startswith("500")  # our side is closed, the client's is not
        place.later(LINGER / 2)
        assert len(place.listener._sessions) == 1
        place.later(LINGER + 1)
        async with asyncio.timeout(30):
            while place.listener._sessions:
                await asyncio.sleep(0.01)
        client.writer.close()


async def test_a_client_that_drips_on_after_the_last_word_is_cut_off_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    came, data_received = asyncio.Event(), Connection.data_received

    def told(self: Connection, data: bytes) -> None:
        if data == b"more":
            came.set()
        data_received(self, data)

    monkeypatch.setattr(Connection, "data_received", told)
    async with listening(tmp_path) as place:
        client = await begun(place)
        client.write(b"x" * 5_000)
        assert (await client.rest())[-1].startswith("500")
        client.write(b"more")
        await asyncio.wait_for(came.wait(), 60)
        place.later(LINGER + 1)
        async with asyncio.timeout(30):
            while place.listener._sessions:
                await asyncio.sleep(0.01)
        client.writer.close()


async def test_replies_to_one_packet_are_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a client that sends commands and reads no reply is noticed within one piece."""
    pieces: list[int] = []
    flush = Connection._flush

    def counted(self: Connection) -> None:
        pieces.append(len(self._out))
        flush(self)

    monkeypatch.setattr(Connection, "_flush", counted)
    async with listening(tmp_path) as place:
        client = await begun(place)
        client.write(b"NOOP\r\n" * 500)
        assert await client.replies(500) == ["250 2.0.0 OK"] * 500
    assert max(pieces) <= 64
