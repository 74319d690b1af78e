r"""Plays every dialog of tests/dialogs against the server: line by line, byte by byte, and all in one packet.

A dialog is a file named by the fault it guards. Its lines:

    # why            a comment
    C: text          the client sends text and CR LF; \r \n \0 \t \xNN and \\ are escapes
    R: text          the client sends text without CR LF
    S: text          the next reply begins with text; a reply of several lines (250-...) is one reply
    S* text          that reply has text somewhere
    S- text          that reply has text nowhere
    S!               the server closes the connection and has nothing more to say
    M: n             afterwards the mailbox holds n messages
    N: n             and the other mailbox

``{mailbox}`` is the address of a mailbox made for this run, ``{MAILBOX}`` the same in capitals, ``{local}`` its local
part, ``{domain}`` its domain, ``{other}`` a second mailbox. Sent in one packet, the client's whole part goes out before
the first reply is read.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.running import Server

DIALOGS = sorted((Path(__file__).parent.parent / "dialogs").glob("*.smtp"))
_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|.)")
_NAMED = {b"r": b"\r", b"n": b"\n", b"0": b"\0", b"t": b"\t", b"\\": b"\\"}


def unescape(text: str) -> bytes:
    return _ESCAPE.sub(lambda m: bytes([int(m[1][1:], 16)]) if len(m[1]) == 3 else _NAMED[m[1]], text.encode())


def script(path: Path, names: dict[str, str]) -> list[tuple[str, str]]:
    text = path.read_text(encoding="utf-8")
    for name, value in names.items():
        text = text.replace("{" + name + "}", value)
    return [(line[:2], line[3:]) for line in text.split("\n") if line and not line.startswith("#")]


async def read_reply(reader: asyncio.StreamReader) -> str:
    """One reply, all its lines; empty once the server has closed."""
    lines = []
    while line := await reader.readline():
        lines.append(line.decode())
        if line[3:4] != b"-":
            break
    return "".join(lines)


def sends(steps: list[tuple[str, str]], way: str) -> list[bytes]:
    """What the client writes, cut as ``way`` says; an empty piece marks where a reply is awaited."""
    pieces: list[bytes] = []
    for kind, text in steps:
        if kind in ("C:", "R:"):
            pieces.append(unescape(text) + (b"\r\n" if kind == "C:" else b""))
        elif kind == "S:":
            pieces.append(b"")
    if way == "one packet":
        return [b"".join(pieces)]
    if way == "byte by byte":
        return [byte for piece in pieces for byte in ([bytes([b]) for b in piece] or [b""])]
    return pieces


async def replies(address: tuple[str, int], pieces: list[bytes]) -> AsyncIterator[str]:
    reader, writer = await asyncio.open_connection(*address)
    try:
        for piece in pieces:
            if piece:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            else:
                yield await read_reply(reader)
        while reply := await read_reply(reader):
            yield reply
        yield ""
    finally:
        writer.close()


async def play(address: tuple[str, int], steps: list[tuple[str, str]], way: str) -> None:
    heard = replies(address, sends(steps, way))
    reply = ""
    for kind, text in steps:
        if kind in ("S:", "S!"):
            reply = await asyncio.wait_for(anext(heard), 30)
        if kind == "S:":
            last = reply.rstrip("\r\n").rpartition("\n")[2]
            assert last.startswith(text), f"{way}: expected {text!r}, got {reply!r}"
        elif kind == "S!":
            assert not reply, f"{way}: expected the end, got {reply!r}"
        elif kind == "S*":
            assert text in reply
        elif kind == "S-":
            assert text not in reply
    await heard.aclose()


@pytest.mark.parametrize("way", ["line by line", "byte by byte", "one packet"])
@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
async def test_dialog(server: Server, path: Path, way: str) -> None:
    mailbox, other = await server.mailbox(), await server.mailbox()
    address = mailbox.address
    names = {
        "mailbox": address,
        "MAILBOX": address.upper(),
        "local": address.partition("@")[0],
        "other": other.address,
        "domain": address.partition("@")[2],
    }
    steps = script(path, names)
    await play(server.smtp, steps, way)
    for kind, count in steps:
        if kind in ("M:", "N:"):
            assert len(await server.messages(mailbox if kind == "M:" else other)) == int(count)
