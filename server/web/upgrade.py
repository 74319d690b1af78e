"""``GET /v1/ws``: the handshake that makes a connection a WebSocket (RFC 6455 section 4.2).

Lives here: what a request must say, and the 101. Must not know: frames, or what is said over the connection: whoever
``services.websocket`` names gets its transport.
"""

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Callable
from typing import Final

from aiohttp import HttpVersion11, web

from server.model.errors import Refused
from server.web.answers import UpgradedResponse
from server.web.description import describe
from server.web.fastpath import front_of
from server.web.requests import Call
from server.web.responses import Reply, refusal

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # section 1.3
_VERSION: Final = "13"
_SWITCHING: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)


@describe(
    "Open a WebSocket",
    detail="Events of mailboxes as they happen. Subscribe with a first frame `{type: subscribe, mailboxId, token, "
    "after?}`, or present a token while opening. Frames are `{type, mailboxId?, data?, error?, timestamp, seq?}`.",
    status=101,
    refuses=("origin_not_allowed", "field_invalid"),
    family="messages",
)
async def websocket(call: Call) -> Reply | web.StreamResponse:
    """A refusal names the version that would be right (section 4.4)."""
    try:
        return take_over(call.request, lambda: call.services.websocket(call.request, call.client))
    except Refused as refused:
        if refused.word != "field_invalid":
            raise
        reply = refusal(call.language, refused)
        return reply._replace(headers=(*reply.headers, ("Sec-WebSocket-Version", _VERSION)))


def take_over(
    request: web.BaseRequest, admit: Callable[[], Callable[[asyncio.Transport, bytes], None]]
) -> web.StreamResponse:
    """Answer 101 and hand the connection to what ``admit`` lets in; what it raises passes through.

    Refused field_invalid where the request is no handshake.
    """
    begin, accept = admit(), _accept(request)
    front = front_of(request)
    given = None if front is None else front.hand_over()
    if given is None:
        raise ConnectionResetError("the client has gone")
    transport, behind = given
    transport.write(_SWITCHING % accept)
    begin(transport, behind)
    return UpgradedResponse(status=101)


def _accept(request: web.BaseRequest) -> bytes:
    """The answer to the client's key (section 4.2.2). Refused field_invalid naming the header that is not right."""
    if request.version < HttpVersion11 or request.can_read_body:
        raise _wrong("Upgrade")
    for name, wanted in (("Upgrade", "websocket"), ("Connection", "upgrade")):
        if wanted not in (part.strip().lower() for part in ",".join(request.headers.getall(name, ())).split(",")):
            raise _wrong(name)
    if request.headers.getall("Sec-WebSocket-Version", ()) != [_VERSION]:
        raise _wrong("Sec-WebSocket-Version")
    keys = request.headers.getall("Sec-WebSocket-Key", ())
    try:
        if len(keys) != 1 or len(base64.b64decode(keys[0], validate=True)) != 16:
            raise _wrong("Sec-WebSocket-Key")
    except (binascii.Error, ValueError):
        raise _wrong("Sec-WebSocket-Key") from None
    return base64.b64encode(hashlib.sha1(keys[0].encode() + _GUID, usedforsecurity=False).digest())


def _wrong(header: str) -> Refused:
    return Refused("field_invalid", "a WebSocket handshake (RFC 6455 section 4.1)", field=header)
