"""The end of DATA is found where it is and nowhere else, however the bytes arrive, and stuffing round-trips."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.smtp.eod import EndOfData, has_bare_newline, normalise, unstuff

FRAGMENTS = [
    b".",
    b"..",
    b"\r\n",
    b"\r\n.",
    b".\r\n",
    b"\r",
    b"\n",
    b"\r\r\n",
    b"x",
    b"a.b.c",
    b"\0",
    b"\xff",
    b"." * 40,
]
lines = st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=30), max_size=30).map(b"".join)


def stuffed(body: bytes) -> bytes:
    """What a right client sends for ``body``: dots doubled at line starts, and the end."""
    if body and not body.endswith(b"\r\n"):
        body += b"\r\n"
    wire = body.replace(b"\r\n.", b"\r\n..")
    return (b"." + wire if wire.startswith(b".") else wire) + b".\r\n"


def receive(chunks: list[bytes]) -> tuple[bytes, bytes]:
    """The message as it came, unstuffed, and what stands behind its end in the buffer."""
    buffer, eod = bytearray(), EndOfData()
    for number, chunk in enumerate(chunks):
        buffer += chunk
        dot = eod.find(buffer)
        if dot >= 0:
            rest = bytes(buffer[dot + 3 :]) + b"".join(chunks[number + 1 :])
            body = bytes(buffer[:dot])
            assert eod.stuffed == (body.startswith(b".") or b"\r\n." in body)
            return unstuff(body), rest
    raise AssertionError(f"no end found in {bytes(buffer)!r}")


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(bounds)]


@given(
    body=lines, places=st.lists(st.integers(0, 10_000), max_size=8), rest=st.sampled_from([b"", b"MAIL F", b".\r\n"])
)
@example(body=b"", places=[], rest=b"")
@example(body=b".", places=[1, 2, 3], rest=b".\r\n")
@example(body=b"a\r\n.\r", places=[], rest=b"")
@example(body=b"." * 30 + b"\r\n." + b"." * 30, places=[33], rest=b"x")
def test_any_body_arrives_whole_however_it_is_cut(body: bytes, places: list[int], rest: bytes) -> None:
    expected = body if not body or body.endswith(b"\r\n") else body + b"\r\n"
    wire = stuffed(body) + rest
    assert receive(cut(wire, places)) == (expected, rest)
    assert receive([wire[i : i + 1] for i in range(len(wire))]) == (expected, rest)


@given(first=lines, second=lines)
def test_two_pipelined_bodies_are_two(first: bytes, second: bytes) -> None:
    body, rest = receive([stuffed(first) + stuffed(second)])
    assert stuffed(body) == stuffed(first)
    assert receive([rest]) == receive([stuffed(second)])


@given(wire=lines, places=st.lists(st.integers(0, 10_000), max_size=8))
def test_the_end_is_the_first_crlf_dot_crlf(wire: bytes, places: list[int]) -> None:
    end = (b"\r\n" + wire).find(b"\r\n.\r\n")
    buffer, eod, found = bytearray(), EndOfData(), -1
    for chunk in cut(wire, places):
        buffer += chunk
        if found < 0:
            found = eod.find(buffer)
    assert found == end


@given(wire=lines, rest=lines)
def test_dropping_what_came_still_finds_the_end(wire: bytes, rest: bytes) -> None:
    wire = wire.replace(b"\r\n.\r\n", b"")
    eod = EndOfData()
    buffer = bytearray(wire)
    if eod.find(buffer) >= 0:
        return
    eod.drop(buffer)
    buffer += b"\r\n.\r\n" + rest
    dot = eod.find(buffer)
    assert dot >= 0
    assert bytes(buffer[dot + 3 :]).endswith(rest)


@given(body=lines)
def test_normalised_text_has_no_bare_newline_and_the_same_words(body: bytes) -> None:
    text = normalise(body)
    assert not has_bare_newline(text)
    assert text.replace(b"\r\n", b"") == body.replace(b"\r", b"").replace(b"\n", b"")
    if not has_bare_newline(body):
        assert text == body


@pytest.mark.parametrize(
    ("body", "bare"),
    [
        (b"", False),
        (b"x", False),
        (b"a\r\n", False),
        (b"a\n", True),
        (b"a\r", True),
        (b"\r\r\n", True),
        (b"\n\r\n", True),
    ],
)
def test_bare_newlines_are_seen(body: bytes, bare: bool) -> None:
    assert has_bare_newline(body) is bare
    assert has_bare_newline(bytearray(body)) is bare


@pytest.mark.parametrize("pattern", [b"\r\n..", b"\r\n.\n", b".", b"\r\n.x", b".\r", b"\r\n.\r"])
def test_no_byte_is_searched_twice(pattern: bytes) -> None:
    """Hostile dots in pieces: each look begins where the last one ended, but for the four bytes an end may hide in."""
    piece = pattern * (4096 // len(pattern))
    buffer, eod = bytearray(), EndOfData()
    for _ in range(64):
        buffer += piece
        assert eod.find(buffer) == -1
        assert eod._at >= len(buffer) - 4


def test_an_end_that_begins_before_anything_is_thrown_away_is_still_found() -> None:
    """A refused message that is empty, its dot and its CR LF in two packets: the rest would be taken for its body."""
    eod, buffer = EndOfData(), bytearray(b".")
    assert eod.find(buffer) == -1
    assert eod.drop(buffer) == 0
    buffer += b"\r\n"
    assert eod.find(buffer) == 0


@pytest.mark.parametrize("rest", [b".\r\nM", b".\r\n", b".."])
def test_a_dot_behind_thrown_away_bytes_begins_no_line(rest: bytes) -> None:
    buffer, eod = bytearray(b"x" * 100 + rest), EndOfData()
    assert eod.find(buffer) == -1
    dropped = eod.drop(buffer)
    assert (dropped, bytes(buffer)) == (96 + len(rest), (b"xxxx" + rest)[-4:])
    assert eod.find(buffer) == -1
    buffer += b"y\r\n.\r\n"
    assert eod.find(buffer) == len(buffer) - 3
