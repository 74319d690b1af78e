"""A message in the queue: what goes in comes out, and anything else is recognised."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.model import ids, queued
from server.model.message import Envelope, Recipient

_RECIPIENTS = st.lists(st.builds(Recipient, st.text(max_size=20), st.text(max_size=36)), min_size=1, max_size=5)
_ENVELOPES = st.builds(
    Envelope, st.text(max_size=50), _RECIPIENTS, st.binary(max_size=500), st.booleans(), st.text(max_size=9)
)


@given(_ENVELOPES)
def test_what_goes_in_comes_out(envelope: Envelope) -> None:
    mail_id = ids.new()
    found = queued.unpack(queued.pack(envelope, mail_id))
    assert found == msgspec.structs.replace(envelope, id=mail_id, received_at=ids.made_at(mail_id))


def test_further_addresses_of_a_mailbox_come_out_too() -> None:
    recipient = Recipient("x@y.z", "box").after(Recipient("x+tag@y.z", "box"))
    found = queued.unpack(queued.pack(Envelope("a@b.c", [recipient], b"raw"), ids.new()))
    assert found.recipients == [recipient]
    assert recipient.delivered_to == ("x+tag@y.z", "x@y.z")


def test_frame_of_the_release_before_is_read() -> None:
    frame = queued.pack(Envelope("a@b.c", [Recipient("x@y.z", "box")], b"raw"), ids.new())
    fields = msgspec.msgpack.decode(frame[1:])[:7]
    assert queued.unpack(queued.VERSION + msgspec.msgpack.encode(fields)).recipients == [Recipient("x@y.z", "box")]


@given(st.binary(max_size=200))
def test_anything_else_is_recognised(body: bytes) -> None:
    with pytest.raises(queued.FrameError):
        queued.unpack(body)
    with pytest.raises(queued.FrameError):
        queued.unpack(queued.VERSION + body)


def test_a_later_release_may_add_fields() -> None:
    frame = queued.pack(Envelope("a@b.c", [Recipient("x@y.z", "box")], b"raw"), ids.new())
    fields = msgspec.msgpack.decode(frame[1:])
    assert queued.unpack(queued.VERSION + msgspec.msgpack.encode([*fields, "new"])).sender == "a@b.c"


def test_another_version_is_refused() -> None:
    frame = queued.pack(Envelope("a@b.c", [Recipient("x@y.z", "box")], b"raw"), ids.new())
    with pytest.raises(queued.FrameError, match="version 02"):
        queued.unpack(b"\x02" + frame[1:])


def test_an_id_from_beyond_the_calendar_is_recognised() -> None:
    frame = queued.pack(Envelope("a@b.c", [Recipient("x@y.z", "box")], b"raw"), "ffffffff-ffff-7000-8000-000000000000")
    with pytest.raises(queued.FrameError):
        queued.unpack(frame)
