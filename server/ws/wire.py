"""Frames as RFC 6455 section 5 spells them: reading a client's, writing ours.

Lives here: pure functions over bytes. Must not know: connections, or what a message means.
"""

from typing import Final

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

FIN: Final = 0x80
OPCODE: Final = 0x0F
_MASKED: Final = 0x80
_RESERVED: Final = 0x70
_OPCODES: Final = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
_CONTROL_MAX: Final = 125  # section 5.5
_REASON_MAX: Final = _CONTROL_MAX - 2

PROTOCOL_ERROR: Final = 1002
BAD_TEXT: Final = 1007
TOO_BIG: Final = 1009

# Section 7.4 and the registry it opened: 1004 is reserved, 1005, 1006 and 1015 never travel.
_CODES: Final = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))
_PRIVATE_CODES: Final = range(3000, 5000)


class Broken(Exception):
    """The client broke the protocol: the connection is to be failed (section 7.1.7) with ``code``."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(code, why)
        self.code, self.why = code, why


def framed(opcode: int, payload: bytes) -> bytes:
    """One whole message or control frame of ours: final, unmasked (section 5.1)."""
    size = len(payload)
    if size < 126:
        return bytes((FIN | opcode, size)) + payload
    if size < 1 << 16:
        return bytes((FIN | opcode, 126, size >> 8, size & 0xFF)) + payload
    return bytes((FIN | opcode, 127)) + size.to_bytes(8, "big") + payload


def closing(code: int, reason: str) -> bytes:
    """A close frame of ours; the reason is cut where a control frame ends, between two characters."""
    cut = reason.encode()[:_REASON_MAX].decode(errors="ignore")
    return framed(CLOSE, code.to_bytes(2, "big") + cut.encode())


def answer_to_close(payload: bytes) -> bytes:
    """The close frame that answers a client's with ``payload``, by its code (section 5.5.1).

    Broken for a payload of one byte, a code that must not travel (section 7.4), a reason that is no UTF-8.
    """
    if not payload:
        return framed(CLOSE, b"")
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or (code not in _CODES and code not in _PRIVATE_CODES):
        raise Broken(PROTOCOL_ERROR, "no such close code")
    text(payload[2:])
    return framed(CLOSE, payload[:2])


def text(payload: bytes) -> str:
    """Broken unless it is UTF-8 (section 8.1)."""
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise Broken(BAD_TEXT, "text is UTF-8") from None


def unmasked(payload: bytes, mask: bytes) -> bytes:
    """Section 5.3, on the whole payload at once: one long number is xored with another."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


def read(data: bytes, at: int, room: int) -> tuple[int, bytes, int] | None:
    """The frame that begins at ``at``: its first byte, its payload, and where the next begins. None: it is incomplete.

    ``room`` bytes are left for a frame of data. Broken as soon as the frame's head says that it breaks a rule, so
    nothing is waited for or kept that would be refused; a complete frame is at most ``room`` + 14 bytes, or 131.
    """
    if len(data) < at + 2:
        return None
    first, size = data[at], data[at + 1] & 0x7F
    opcode = first & OPCODE
    if first & _RESERVED or opcode not in _OPCODES:
        raise Broken(PROTOCOL_ERROR, "reserved bits and opcodes are not for use")
    if not data[at + 1] & _MASKED:
        raise Broken(PROTOCOL_ERROR, "clients mask their frames")
    start = at + 2
    if opcode >= CLOSE:
        if size > _CONTROL_MAX or not first & FIN:
            raise Broken(PROTOCOL_ERROR, "control frames are short and whole")
    else:
        if size >= 126:
            start += 2 if size == 126 else 8
            if len(data) < start:
                return None
            size = _extended(data[at + 2 : start])
        if size > room:
            raise Broken(TOO_BIG, "message too big")
    end = start + 4 + size
    if len(data) < end:
        return None
    return first, unmasked(data[start + 4 : end], data[start : start + 4]) if size else b"", end


def _extended(field: bytes) -> int:
    """A length in 2 or 8 bytes; it must not fit a shorter form, nor use the highest of 64 bits (section 5.2)."""
    size = int.from_bytes(field, "big")
    if size < (126 if len(field) == 2 else 1 << 16) or size >> 63:
        raise Broken(PROTOCOL_ERROR, "lengths are written in the shortest form")
    return size
