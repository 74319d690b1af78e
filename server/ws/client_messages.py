"""What WebSocket clients say: one shape for all of it. Must not know: what is done about it."""

from typing import Annotated

import msgspec

Seq = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class ClientMessage(msgspec.Struct, frozen=True, rename="camel"):
    """Anything a client says. Unknown fields are ignored; ``after`` is the last sequence number the client has seen."""

    type: str
    mailbox_id: str = ""
    token: str = ""
    after: Seq | None = None


parse = msgspec.json.Decoder(ClientMessage).decode
"""Text of a frame -> Incoming; msgspec.ValidationError for a wrong field, its parent DecodeError for no JSON."""
