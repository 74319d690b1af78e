"""What looks alike to a reader is alike to a search."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.model.folding import folded, sought
from server.model.message import Details, Stored
from server.services.contracts import Wanted
from server.services.push.waiting import matches

ALIKE = [
    ("Erdős", "erdos"),
    ("Łódź", "lodz"),
    ("Straße", "STRASSE"),
    ("STRA\u1e9eE", "strasse"),
    ("smørrebrød", "smorrebrod"),
    ("İstanbul ısı", "istanbul isi"),
    ("Ｙｏｕｒ　Ｃｏｄｅ", "your code"),
    ("ﾊﾞﾝｺﾞｳ", "バンゴウ"),
    ("ﬁnal oﬀer", "final offer"),
    ("e\u0301te\u0301", "été"),
    ("ΟΔΟΣ", "οδος"),
    ("Ёлка", "елка"),
    ("æther Œuvre", "aether oeuvre"),
    ("non\u00a0breaking\r\n\tspace", "non breaking space"),
    ("in\u200bvis\u00adi\ufeffble", "invisible"),
    ("한국어", "\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165"),
    ("①②", "12"),
]
APART = [("か", "が"), ("하", "한"), ("a b", "ab"), ("कि", "क"), ("o", "0")]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_alike(one: str, other: str) -> None:
    assert folded(one) == folded(other)
    assert sought(one.upper()) in folded(f"x {other} y")


@pytest.mark.parametrize(("one", "other"), APART)
def test_apart(one: str, other: str) -> None:
    assert folded(one) != folded(other)


def test_space_at_the_ends_of_what_is_looked_for_is_kept() -> None:
    assert sought("\u00a0the ") == " the "
    assert sought(" ") == ""


@pytest.mark.parametrize(
    ("wanted", "met"),
    [
        (Wanted(subject="erdos  PAL"), True),
        (Wanted(subject="Erdos Pali"), False),
        (Wanted(sender="lukasz"), True),
        (Wanted(sender="ENVELOPE@b.c"), True),
        (Wanted(sender="someone"), False),
    ],
)
def test_wait_compares_as_a_search_does(wanted: Wanted, met: bool) -> None:
    stored = Stored(
        *("", "box", 1, datetime.now(UTC), "envelope@b.c", "Łukasz <l@example.org>", "", "Erdős\u00a0Pál", "", 1),
        is_read=False,
        details=Details(),
    )
    assert matches(wanted, stored) is met


@given(st.text())
def test_folded_text_is_folded(text: str) -> None:
    once = folded(text)
    assert "  " not in once
    assert once == once.strip()
