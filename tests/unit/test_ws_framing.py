"""RFC 6455 over a real socket, judged by another library: its client reads us, its server says what is a fault."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from itertools import count, pairwise
from typing import Any

import pytest
import uvloop
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from server.ws import wire
from server.ws.connection import BACKLOG_MAX, MESSAGE_MAX, Connection

DATA = (Opcode.TEXT, Opcode.BINARY)
FAULTS = {1002, 1007, 1009}
MASK = b"\x0f\xf0\x55\x01"


class Echo(Connection):
    """Says every message again."""

    __slots__ = ("overflown",)

    def on_frame(self, first: int) -> bool:
        return True

    def on_message(self, message: str | bytes) -> None:
        if message == "hold":
            self.hold()
        elif message == "fault":
            raise ValueError
        elif isinstance(message, str):
            self.transport.write(wire.framed(wire.TEXT, message.encode()))
        else:
            self.transport.write(wire.framed(wire.BINARY, message))

    def on_overflow(self) -> None:
        self.fail(1008, "too much")

    def on_fault(self, error: Exception) -> None:
        self.close(1011, "fault")

    def on_closing(self) -> None:
        pass


class Door(asyncio.Protocol):
    """A connection whose handshake is past."""

    last: Echo

    def connection_made(self, transport: Any) -> None:
        Door.last = Echo(transport)
        Door.last.start(b"")


class Client:
    """A raw socket whose incoming bytes the other library reads."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.judge = ClientProtocol(parse_uri("ws://127.0.0.1/"), state=OPEN)
        self.frames: list[Frame] = []

    async def say(self, data: bytes, pieces: Sequence[int] = ()) -> None:
        """``data`` in pieces of the given sizes and the rest, each in a packet of its own as far as one can tell."""
        at = 0
        for size in (*pieces, len(data)):
            with contextlib.suppress(ConnectionError):  # it may have been cut off for what came before
                self._writer.write(data[at : at + size])
                await self._writer.drain()
            at += size
            await asyncio.sleep(0)
            if at >= len(data):
                return

    async def heard(self, count: int) -> list[Frame]:
        """The first ``count`` frames, or those there are until the end."""
        async with asyncio.timeout(60):
            while len(self.frames) < count and await self._hear():
                pass
        return self.frames[:count]

    async def _hear(self) -> bool:
        try:
            data = await self._reader.read(65536)
        except ConnectionError:
            data = b""
        if data:
            self.judge.receive_data(data)
        else:
            self.judge.receive_eof()
        self.frames += [frame for frame in self.judge.events_received() if isinstance(frame, Frame)]
        return bool(data)

    async def ending(self) -> int | None:
        """The code of the close frame the connection ends with; None when it ends without one."""
        async with asyncio.timeout(60):
            while await self._hear():
                pass
        return None if self.judge.close_rcvd is None else self.judge.close_rcvd.code


@contextlib.asynccontextmanager
async def talking() -> AsyncIterator[Client]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Door, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        server.close()


@pytest.fixture(scope="module")
def runner() -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as running:
        yield running


def spelt(opcode: Opcode, payload: bytes, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=True, extensions=[])


messages = st.one_of(
    st.tuples(st.just(Opcode.TEXT), st.text(max_size=60).map(str.encode)),
    st.tuples(st.just(Opcode.BINARY), st.binary(max_size=300)),
    st.tuples(st.just(Opcode.BINARY), st.integers(120, MESSAGE_MAX).map(bytes)),
)
controls = st.tuples(st.sampled_from((Opcode.PING, Opcode.PONG)), st.binary(max_size=125))
pieces = st.lists(st.integers(1, 40), max_size=30)


@given(
    st.lists(
        st.tuples(messages, st.lists(st.integers(0, 300), max_size=4), st.lists(controls, max_size=3)), max_size=5
    ),
    pieces,
)
@settings(max_examples=150, deadline=None)
def test_messages_arrive_whole_however_they_are_cut(runner: asyncio.Runner, talk: Any, pieces: list[int]) -> None:
    """Fragments at any bytes, empty ones too, control frames between them, packets that end anywhere."""
    said, expected = b"", []
    for (opcode, payload), cuts, between in talk:
        bounds = [0, *sorted(min(cut, len(payload)) for cut in cuts), len(payload)]
        parts = [payload[a:b] for a, b in pairwise(bounds)]
        for number, part in enumerate(parts):
            kind = Opcode.CONT if number else opcode
            said += spelt(kind, part, fin=number == len(parts) - 1)
            if number < len(parts) - 1:
                for control, content in between:
                    said += spelt(control, content)
                    expected += [Frame(Opcode.PONG, content)] * (control is Opcode.PING)
        expected.append(Frame(opcode, payload))
    said += spelt(Opcode.CLOSE, Close(1000, "bye").serialize())
    expected.append(Frame(Opcode.CLOSE, Close(1000, "").serialize()))

    async def scenario() -> None:
        async with talking() as client:
            await client.say(said, pieces)
            assert await client.heard(len(expected)) == expected
            assert await client.ending() == 1000

    runner.run(scenario())


def test_a_message_is_whole_when_every_byte_comes_alone(runner: asyncio.Runner) -> None:
    text = "déjà vu ☃".encode()
    said = b"".join(
        spelt(Opcode.CONT if n else Opcode.TEXT, text[n : n + 1], n == len(text) - 1) for n in range(len(text))
    )

    async def scenario() -> None:
        async with talking() as client:
            await client.say(said, [1] * len(said))
            assert await client.heard(1) == [Frame(Opcode.TEXT, text)]

    runner.run(scenario())


raw_frames = st.builds(
    lambda first, masked, payload: (
        bytes((first, masked | (len(payload) if len(payload) < 126 else 126)))
        + (b"" if len(payload) < 126 else len(payload).to_bytes(2, "big"))
        + (MASK + wire.unmasked(payload, MASK) if masked else payload)
    ),
    st.one_of(
        st.sampled_from((0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A)),
        st.sampled_from((0x09, 0x08, 0x83, 0x8F, 0xC1, 0xA1, 0x91, 0xF1)),
    ),
    st.sampled_from((0x80, 0x80, 0x80, 0x80, 0)),
    st.one_of(
        st.sampled_from(
            (b"", "snow ☃".encode(), b"\xc3", b"\xff", b"\x03\xe8", b"\x03\xed", b"\x07\xd0x", b"\x03\xe8\xff")
        ),
        st.binary(max_size=130),
        st.sampled_from((MESSAGE_MAX - 5, MESSAGE_MAX, MESSAGE_MAX + 1)).map(bytes),
    ),
)


@given(st.lists(raw_frames, max_size=8), pieces)
@settings(max_examples=300, deadline=None)
@example([b"\x01\x81" + MASK + b"\xcc", b"\x80\x80" + MASK], [])
@example([b"\x01\x80" + MASK, b"\x88\x80" + MASK, b"\x80\x80" + MASK], [])
def test_what_another_library_calls_a_fault_is_one_and_nothing_else(
    runner: asyncio.Runner, frames: list[bytes], pieces: list[int]
) -> None:
    expected, code, read = judged(frames)

    async def scenario() -> None:
        async with talking() as client:
            await client.say(b"".join(frames[:read]), pieces)  # a reset for what follows could overtake the close frame
            if code is None:
                assert await client.heard(len(expected)) == expected
            else:
                ended = await client.ending()
                assert ended == code or {ended, code} <= FAULTS, "a frame may break two rules, and either be named"
                assert [frame for frame in client.frames if frame.opcode is not Opcode.CLOSE] == expected

    runner.run(scenario())


def judged(frames: Sequence[bytes]) -> tuple[list[Frame], int | None, int]:
    """The answers, the close frame's code and how many frames it took; the library leaves text to its upper half."""
    judge, text = ServerProtocol(state=OPEN, max_size=MESSAGE_MAX), b""
    opcode, answers = Opcode.CONT, []
    for read, data in enumerate(frames, 1):
        judge.receive_data(data)
        if judge.close_rcvd is not None:  # it minds an unfinished message before it, RFC 6455 section 5.4 does not
            return answers, judge.close_rcvd.code, read
        if judge.close_sent is not None:
            if judge.close_sent.code == 1009 and data[0] & 8:  # it adds control frames to the message between them
                reject()
            return answers, judge.close_sent.code, read
        for frame in judge.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode is Opcode.PING:
                answers.append(Frame(Opcode.PONG, frame.data))
            elif frame.opcode in (Opcode.CONT, *DATA):
                opcode, text = frame.opcode or opcode, text + frame.data
                if frame.fin:
                    if opcode is Opcode.TEXT and text != text.decode(errors="replace").encode():
                        return answers, 1007, read
                    answers.append(Frame(opcode, text))
                    text = b""
    return answers, None, len(frames)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 70_000])
def test_another_library_reads_messages_of_every_form_of_length(size: int) -> None:
    judge = ClientProtocol(parse_uri("ws://127.0.0.1/"), state=OPEN, max_size=None)
    judge.receive_data(wire.framed(wire.BINARY, bytes(size)))
    assert judge.events_received() == [Frame(Opcode.BINARY, bytes(size))]


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"\x81\x05hello", 1002),
        (b"\xc1\x85" + MASK + b"hello", 1002),
        (b"\x83\x80" + MASK, 1002),
        (b"\x09\x80" + MASK, 1002),
        (b"\x89\xfe\x00\x7e", 1002),
        (b"\x82\xfe\x00\x7d", 1002),
        (b"\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff", 1002),
        (b"\x82\xff\x80" + bytes(7), 1002),
        (b"\x82\xfe\x10\x01", 1009),
    ],
    ids=["no mask", "reserved bit", "opcode", "ping in pieces", "long ping", "16 bits", "64 bits", "sign", "too big"],
)
def test_a_frame_is_refused_for_its_head_alone(head: bytes, code: int) -> None:
    with pytest.raises(wire.Broken) as broken:
        wire.read(head, 0, 4096)
    assert broken.value.code == code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\xfe\x00\x05" + MASK + b"12345", 1002),
        (b"\x82\xff" + (200).to_bytes(8, "big") + MASK + bytes(200), 1002),
        (b"\x82\xff\x80" + bytes(7) + MASK, 1002),
        (b"\x82\xff\x00\x00\x00\x01" + bytes(4), 1009),
        (b"\x82\xfe\x10\x01", 1009),
        (spelt(Opcode.TEXT, bytes(4000), fin=False) + b"\x00\xe1", 1009),
        (b"\x89\xfe\x00\x7e", 1002),
        (b"\x01\x05hello", 1002),
        (spelt(Opcode.CLOSE, b"\x03"), 1002),
        *(
            (spelt(Opcode.CLOSE, code.to_bytes(2, "big")), 1002)
            for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)
        ),
        *((spelt(Opcode.CLOSE, code.to_bytes(2, "big")), code) for code in (1000, 1001, 1003, 1012, 3000, 4999)),
        (spelt(Opcode.CLOSE, b"\x03\xe8\xc3"), 1007),
        (spelt(Opcode.CLOSE, b""), 1005),
        (spelt(Opcode.TEXT, b"\xed\xa0\x80"), 1007),
        (spelt(Opcode.TEXT, b"fault"), 1011),
    ],
    ids=count(),  # the frames' masks are random: names made of them would differ between processes
)
def test_a_fault_is_answered_with_its_code_as_soon_as_it_can_be_told(
    runner: asyncio.Runner, data: bytes, code: int
) -> None:
    """The heads of over-long frames come without what they announce."""

    async def scenario() -> None:
        async with talking() as client:
            await client.say(data)
            if code == 1011:  # our fault, not theirs: they are waited for
                assert await client.heard(1) == [Frame(Opcode.CLOSE, Close(1011, "fault").serialize())]
                await client.say(spelt(Opcode.TEXT, b"passed over") + spelt(Opcode.CLOSE, b"\x03\xf3"))
            assert await client.ending() == code

    runner.run(scenario())


def test_what_waits_while_held_is_read_in_order_and_bounded(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        async with talking() as client:
            await client.say(spelt(Opcode.TEXT, b"hold") + spelt(Opcode.TEXT, b"1") + spelt(Opcode.TEXT, b"2"))
            async with asyncio.timeout(60):
                while len(Door.last._rest) < len(spelt(Opcode.TEXT, b"1") + spelt(Opcode.TEXT, b"2")):
                    await asyncio.sleep(0.01)
            Door.last.go_on()
            await client.say(spelt(Opcode.TEXT, b"3"))
            assert [frame.data for frame in await client.heard(3)] == [b"1", b"2", b"3"]
            waiting = spelt(Opcode.BINARY, bytes(4000)) * (BACKLOG_MAX // 4000 + 1)
            Door.last.data_received(
                spelt(Opcode.TEXT, b"hold") + waiting
            )  # as one packet, which a socket would not promise
            assert await client.ending() == 1008

    runner.run(scenario())


@pytest.mark.parametrize("reason", ["x" * 200, "ä" * 100, "x" + "☃" * 60])
def test_a_long_reason_is_cut_between_characters_where_a_control_frame_ends(reason: str) -> None:
    client = ClientProtocol(parse_uri("ws://x.test/"), state=OPEN)
    client.receive_data(wire.closing(1013, reason))
    assert client.close_rcvd is not None
    assert client.close_rcvd.code == 1013
    assert 120 <= len(client.close_rcvd.reason.encode()) <= 123
    assert reason.startswith(client.close_rcvd.reason)
