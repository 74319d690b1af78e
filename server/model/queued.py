"""A message as it lies in the queue: one version byte, then MessagePack of the envelope with the bytes packed by zstd.

Must not know: the broker. A later release may add fields at the end of ``_Frame`` with defaults: either release then
reads what the other wrote. What an older release must not read as its own gets another version.
"""

from typing import Final

import msgspec
import zstandard

from server.model import ids
from server.model.message import Envelope, Recipient

VERSION: Final = b"\x01"
RAW_MAX: Final = 128 << 20  # bytes; a frame that claims to hold more is none of ours


class FrameError(ValueError):
    """This is not a message of ours; the text says why and quotes nothing of it."""


class _Frame(msgspec.Struct, array_like=True):
    id: str
    sender: str
    recipients: list[tuple[str, str]]  # address, mailbox id
    tls: bool
    client: str
    helo: str
    packed: bytes
    others: dict[str, tuple[str, ...]] = {}  # mailbox id -> its further addresses


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Frame).decode


def pack(envelope: Envelope, mail_id: str) -> bytes:
    """``mail_id`` (UUIDv7) is what the message will be known by, and says when it came."""
    recipients = [(one.address, one.mailbox_id) for one in envelope.recipients]
    packed = zstandard.ZstdCompressor(level=1).compress(envelope.raw)
    sender, tls = envelope.sender, envelope.tls
    others = {one.mailbox_id: one.others for one in envelope.recipients if one.others}
    return VERSION + _encode(_Frame(mail_id, sender, recipients, tls, envelope.client, envelope.helo, packed, others))


def unpack(frame: bytes) -> Envelope:
    """Raises FrameError."""
    if frame[:1] != VERSION:
        raise FrameError(f"version {frame[:1].hex() or 'none'}")
    try:
        return _opened(_decode(memoryview(frame)[1:]))
    except FrameError:
        raise
    except (msgspec.MsgspecError, ValueError, OverflowError, zstandard.ZstdError) as error:
        raise FrameError(type(error).__name__) from error


def _opened(found: _Frame) -> Envelope:
    if not ids.valid(found.id) or not found.recipients:
        raise FrameError("no id or no recipient")
    if zstandard.frame_content_size(found.packed) > RAW_MAX:
        raise FrameError("too big")
    return Envelope(
        found.sender,
        [Recipient(address, mailbox, found.others.get(mailbox, ())) for address, mailbox in found.recipients],
        zstandard.ZstdDecompressor().decompress(found.packed, max_output_size=RAW_MAX),
        found.tls,
        found.client,
        found.helo,
        found.id,
        ids.made_at(found.id),
    )
