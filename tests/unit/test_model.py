"""Identifiers and hints: what they carry comes back, and what is not ours is refused."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from server.model import event, ids
from server.model.event import Hint, Kind


@given(st.integers(0, 2**32 - 1))
def test_message_id_carries_its_sequence_number(seq: int) -> None:
    made = ids.with_seq(ids.heads(1)[0], seq)
    assert ids.valid(made)
    assert ids.seq_of(made) == seq
    assert uuid.UUID(made).version == 7
    assert uuid.UUID(made).variant == uuid.RFC_4122


def test_ids_sort_by_time_and_do_not_repeat() -> None:
    made = [ids.new() for _ in range(10_000)]
    assert len(set(made)) == len(made)
    assert [m[:13] for m in made] == sorted(m[:13] for m in made)


@given(st.text(max_size=40))
def test_other_text_is_not_an_id(text: str) -> None:
    assert not ids.valid(text)
    assert not ids.valid(ids.new().upper())
    assert not ids.valid(ids.new() + "\n")


@given(st.lists(st.builds(Hint, st.sampled_from(Kind), st.uuids().map(str), st.integers(0, 2**63))))
def test_hints_come_back_as_they_went(hints: list[Hint]) -> None:
    assert list(event.unpack(event.pack(hints))) == hints


@given(st.binary(max_size=100))
def test_foreign_payload_is_a_value_error_or_hints(payload: bytes) -> None:
    try:
        list(event.unpack(payload))
    except ValueError:
        return
    assert len(payload) % 25 == 0


def test_kind_of_a_newer_release_voids_its_id_and_costs_its_neighbours_nothing() -> None:
    known = Hint(Kind.MAIL, ids.new(), 7)
    box = ids.new()
    newer = b"\x63" + uuid.UUID(box).bytes + bytes(8)
    assert list(event.unpack(newer + event.pack([known]))) == [Hint(Kind.UNKNOWN, box, 0), known]


def test_kinds_keep_the_numbers_of_the_release_before() -> None:
    """They travel between nodes of two releases."""
    sent = {"MAIL": 1, "UPDATE": 2, "EXPIRED": 3, "ADDRESS": 4, "ACCOUNT": 5, "DOMAINS": 6, "SETTINGS": 7, "LOST": 8}
    sent |= {"PULSE": 9, "LEAVE": 10}
    assert {name: int(Kind[name]) for name in sent} == sent
