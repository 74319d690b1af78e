"""The search language: every operator means what it says, a wrong value is named, and no text whatever breaks it."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.model.errors import Refused
from server.model.query import DMARC, TERMS_MAX, Kind, Query, Term, both, parse

NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)
OPERATORS = ("from", "to", "subject", "before", "after", "larger", "smaller", "has", "is", "tag", "dmarc")


def terms(*wanted: tuple[Kind, str, bool]) -> Query:
    return Query(tuple(Term(*one) for one in wanted))


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("", Query()),
        ("  \t ", Query()),
        ("invoice", terms(("text", "invoice", False))),
        ("two words", terms(("text", "two", False), ("text", "words", False))),
        ('"two words"', terms(("text", "two words", False))),
        ('-"two words" -one', terms(("text", "two words", True), ("text", "one", True))),
        ('"never closed', terms(("text", "never closed", False))),
        ('""', Query()),
        ("-", terms(("text", "-", False))),
        ("--x", terms(("text", "-x", True))),
        ("从 验证码", terms(("text", "从", False), ("text", "验证码", False))),
        ("from:alice", terms(("from", "alice", False))),
        ("FROM:Alice", terms(("from", "Alice", False))),
        ('-to:"a b"', terms(("to", "a b", True))),
        ('subject:"your order" x', terms(("subject", "your order", False), ("text", "x", False))),
        ("has:attachment", terms(("attachment", "", False))),
        ("-has:attachment", terms(("attachment", "", True))),
        ("is:read", terms(("read", "", False))),
        ("is:unread", terms(("read", "", True))),
        ("-is:unread", terms(("read", "", False))),
        ("tag:Work", terms(("tag", "work", False))),
        ("-tag:'x'", terms(("tag", "'x'", True))),
        ("dmarc:PASS", terms(("dmarc", "pass", False))),
        ("after:2024-01-01", Query(after=NEW_YEAR)),
        ("-before:2024-01-01", Query(after=NEW_YEAR)),
        ("before:2024-01-01T01:00:00+01:00", Query(before=NEW_YEAR)),
        ("-after:2024-01-01", Query(before=NEW_YEAR)),
        ("after:2023-01-01 after:2024-01-01", Query(after=NEW_YEAR)),
        ("before:2024-01-01 before:2025-01-01", Query(before=NEW_YEAR)),
        ("larger:10K", Query(least=10 * 1024 + 1)),
        ("smaller:1M", Query(most=1024 * 1024 - 1)),
        ("-larger:100", Query(most=100)),
        ("-smaller:2kb", Query(least=2048)),
        ("larger:1 larger:9 smaller:1G smaller:5", Query(least=10, most=4)),
        ("12:30", terms(("text", "12:30", False))),
        ("https://shop.example/x", terms(("text", "https://shop.example/x", False))),
        ("re:", terms(("text", "re:", False))),
        ("a:b:c", terms(("text", "a:b:c", False))),
    ],
)
def test_a_query_is_read_as_it_says(text: str, query: Query) -> None:
    assert parse(text) == query


@pytest.mark.parametrize(
    "wrong",
    [
        "from:",
        'subject:""',
        "before:yesterday",
        "after:2024-13-01",
        "before:2024-01-01T00:00:00",
        "after:0001-01-01T00:00:00+14:00",
        "larger:big",
        "larger:-1",
        "smaller:1T",
        "smaller:1234567890",
        "smaller:1.5M",
        "has:wings",
        "is:green",
        "tag:",
        "dmarc:maybe",
    ],
)
def test_a_wrong_value_names_its_operator_and_what_would_be_right(wrong: str) -> None:
    for text in (wrong, "word -" + wrong):
        with pytest.raises(Refused) as refused:
            parse(text)
        assert (refused.value.word, refused.value.field) == ("field_invalid", "q")
        operator, _, wanted = refused.value.detail.partition(": wants ")
        assert operator == wrong.partition(":")[0]
        assert wanted


def test_more_terms_than_a_statement_should_weigh_are_refused() -> None:
    parse("x " * TERMS_MAX)
    with pytest.raises(Refused, match=str(TERMS_MAX)):
        parse("x " * (TERMS_MAX + 1))


pieces = st.one_of(
    st.sampled_from([f"{name}:" for name in OPERATORS] + ['"', "-", " ", ":", "10K", "2024-01-01", "unread", "\0"]),
    st.text(max_size=8),
)


@given(st.one_of(st.text(), st.lists(pieces, max_size=30).map("".join)))
def test_any_text_is_a_query_or_named_for_what_is_wrong(text: str) -> None:
    query, refused = Query(), None
    try:
        query = parse(text)
    except Refused as error:
        refused = error
    assert refused is None or ((refused.word, refused.field) == ("field_invalid", "q") and refused.detail)
    assert len(query.terms) <= TERMS_MAX
    for term in query.terms:
        assert bool(term.value) == (term.kind not in ("attachment", "read"))
        assert term.kind != "dmarc" or term.value in DMARC
    assert max(query.least or 0, query.most or 0) < 2**63  # as PostgreSQL's bigint


words = st.text(st.characters(codec="utf-8", exclude_characters='":-', exclude_categories=["Z", "C"]), min_size=1)


@given(st.lists(st.tuples(st.booleans(), words), max_size=TERMS_MAX))
def test_quoted_words_come_back_as_they_were(wanted: list[tuple[bool, str]]) -> None:
    text = " ".join(f'{"-" * negated}"{word}"' for negated, word in wanted)
    assert parse(text) == terms(*(("text", word, negated) for negated, word in wanted))


@given(st.sampled_from(["larger:7", "before:2024-01-01", "x", "-is:read"]), st.sampled_from(["smaller:9", "", "y"]))
def test_two_queries_together_ask_what_one_of_both_would(one: str, other: str) -> None:
    assert both(parse(one), parse(other)) == parse(f"{one} {other}")
