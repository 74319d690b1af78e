"""Identifiers and hints: what they carry comes back, and what is not ours is refused."""

import uuid

import pytest
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


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="99"):
        list(event.unpack(b"\x63" + bytes(24)))
