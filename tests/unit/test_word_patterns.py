"""Words as one pattern: text in ASCII is searched for those alone that may be in it, with the same outcome."""

import re

import pytest

from server.model import code_others, code_words
from server.model.word_patterns import Words

ALL = (*code_words.CODES, *code_words.ENTER_BEFORE, *code_words.PURPOSE, *code_words.SECRET, *code_others.OTHERS)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (r"\b(?:chave|clé)\b", "la chave"),
        ("口令|pin", "pin"),
        ("(?:エラー)?code", "code"),
        ("[éa]code", "acode"),
        (r"\bkó?d\b", "kd"),
        ("é*x", "x"),
        ("é{0,3}x", "x"),
    ],
)
def test_entry_with_an_alternative_in_ascii_is_found_in_ascii(entry: str, text: str) -> None:
    assert Words([entry]).search(text)


@pytest.mark.parametrize("entry", ["口令", "(?:エラー|qr)コード", r"\bкод\w{0,3} (?:a|b)", "할인|割引"])
def test_entry_that_no_ascii_text_has_costs_ascii_text_nothing(entry: str) -> None:
    assert "口" not in Words([entry, "pin"])._ascii.pattern
    assert Words([entry, "pin"])._ascii.pattern == "pin"


def test_text_in_ascii_has_the_same_matches_with_all_words() -> None:
    words = Words(ALL)
    text = " ".join(re.findall(r"[a-z -]{3,}", " ".join(ALL)))
    assert [match.span() for match in words.finditer(text)] == [match.span() for match in words._all.finditer(text)]
