"""PROXY headers: whatever the bytes and however they are cut, one address comes out, or an error; never another's."""

import ipaddress
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.smtp.proxy import Header, ProxyError, parse

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
v4 = st.ip_addresses(v=4)
v6 = st.ip_addresses(v=6)
ports = st.integers(0, 65535)
tlvs = st.binary(max_size=300)


def text(kind: str, source: object, target: object, *numbers: int) -> bytes:
    return f"PROXY {kind} {source} {target} {numbers[0]} {numbers[1]}\r\n".encode()


def binary(command: int, family: int, block: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(block)) + block


def plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


headers = st.one_of(
    st.builds(lambda a, b, p, q: (text("TCP4", a, b, p, q), str(a)), v4, v4, ports, ports),
    st.builds(lambda a, b, p, q: (text("TCP6", a, b, p, q), plain(a)), v6, v6, ports, ports),
    st.sampled_from([b"", b" x", b" ff:: 1 2 ::"]).map(lambda rest: (b"PROXY UNKNOWN" + rest + b"\r\n", None)),
    st.builds(
        lambda a, b, p, q, t: (binary(0x21, 0x11, a.packed + b.packed + struct.pack("!HH", p, q) + t), str(a)),
        *(v4, v4, ports, ports, tlvs),
    ),
    st.builds(
        lambda a, b, p, q, t: (binary(0x21, 0x21, a.packed + b.packed + struct.pack("!HH", p, q) + t), plain(a)),
        *(v6, v6, ports, ports, tlvs),
    ),
    tlvs.map(lambda t: (binary(0x21, 0x31, bytes(216) + t), "")),
    st.builds(lambda family, t: (binary(0x20, family, t), None), st.integers(0, 255), tlvs),
    tlvs.map(lambda t: (binary(0x21, 0, t), None)),
)


@given(header=headers, rest=st.binary(max_size=50))
def test_a_header_is_read_whole_and_leaves_what_follows(header: tuple[bytes, str | None], rest: bytes) -> None:
    raw, client = header
    assert parse(raw + rest) == Header(len(raw), client)


@given(header=headers, data=st.data())
def test_half_a_header_is_waited_for(header: tuple[bytes, str | None], data: st.DataObject) -> None:
    raw, _client = header
    assert parse(raw[: data.draw(st.integers(0, len(raw) - 1))]) is None


@given(st.binary(max_size=600) | st.binary(max_size=600).map(SIGNATURE.__add__) | st.binary().map(b"PROXY ".__add__))
def test_any_bytes_are_a_header_or_half_of_one_or_an_error(data: bytes) -> None:
    try:
        header = parse(data)
    except ProxyError:
        return
    if header is None:
        assert len(data) < 16 + 4096
    elif header.client:
        ipaddress.ip_address(header.client)


@given(header=headers, at=st.integers(0, 11), byte=st.integers(0, 255))
def test_a_spoiled_beginning_is_no_header(header: tuple[bytes, str | None], at: int, byte: int) -> None:
    raw = bytearray(header[0])
    at = min(at, 5) if raw.startswith(b"PROXY") else at
    if raw[at] == byte:
        return
    raw[at] = byte
    with pytest.raises(ProxyError):
        parse(bytes(raw))


@pytest.mark.parametrize(
    "line",
    [
        b"EHLO client.example\r\n",
        b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
        b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP6 fe80::1%lo 2001:db8::2 1 2\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY UNIX a b\r\n",
        b"PROXY " + b"x" * 200,
        binary(0x11, 0x11, bytes(12)),
        binary(0x22, 0x11, bytes(12)),
        binary(0x21, 0x11, bytes(11)),
        binary(0x21, 0x12, bytes(12)),
        binary(0x21, 0x21, bytes(35)),
        binary(0x21, 0x31, bytes(215)),
        binary(0x21, 0x11, bytes(5000)),
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_what_is_malformed_is_an_error(line: bytes) -> None:
    with pytest.raises(ProxyError):
        parse(line)


def test_a_binary_header_as_the_kernel_writes_addresses() -> None:
    block = socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.7") + socket.inet_pton(socket.AF_INET6, "::1") + bytes(4)
    assert parse(binary(0x21, 0x21, block)) == Header(52, "192.0.2.7")
