"""Most text is known to hold no code without a pattern looking at it; what has the form of one is never passed over."""

import re

import pytest

from server.model import code_places, codes
from server.model.word_patterns import Words

FORMS = (
    *("4821", "482193", "48219301", "482 193", "482-193", "4821 9301", "48-21-93", "4 8 2 1 9 3", "4\n8\n2\n1"),
    *(
        "K7P2QX",
        "k7p2qx",
        "AB12-CD34",
        "G-482193",
        "X K C D",
        "X-K-C-D",
        "X\n\nK\n\nC\n\nD",
        "WXYZ-QRST",
        "ABCD",
        "A1B2",
    ),
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", ["{}", "your code is {}.", "A line, and on the next:\n{}\n", "é {} ü", "(x){}(y)"])
def test_no_form_of_a_code_is_passed_over(form: str, text: str) -> None:
    whole = text.format(form)
    start = whole.index(form)
    assert [place for place in code_places.places(whole) if place.start <= start <= place.last and place.end > start]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Every line of this body is made of ordinary words, so that it packs like a letter.\n" * 50,
        "Mr. Smith and Mrs. Jones met in Paris at 5 or 6, I think; A or B won.\n" * 50,
        "at 12:34 on the 5th",
        "QWxhZGRpbjpvcGVuIHNlc2FtZQQWxhZGRpbjpvcGVuIHNlc2FtZQ\n" * 100,
    ],
)
def test_prose_and_base64_have_no_place_for_a_code(text: str) -> None:
    assert not [place for place in code_places.places(text) if place.end - place.start > 40]


def test_words_without_a_place_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes, "_Context", None)
    assert codes.find("A letter", "Every line of this code is made of ordinary words.\n" * 50) == ()


def test_number_is_near_a_stem_in_front_of_it_behind_it_or_in_the_subject() -> None:
    far = "x" * 1_000
    lower = f"\n\n482193 {far} code 551177 {far} 661204"
    starts = [match.start() for match in re.finditer("[0-9]{6}", lower)]
    assert code_places.near(lower, 0, ("code",), starts) == [1]
    assert code_places.near(f"code{lower}", 4, ("code",), [start + 4 for start in starts]) == [0, 1, 2]
    assert code_places.near("\n\n482193 is your code", 0, ("code",), [2]) == [0]


@pytest.mark.parametrize(
    "text", ["two codes", "a passcode", "код", "the länder-code", "laender-code", "encoded", "cod"]
)
def test_many_words_as_one_pattern_match_where_each_does(text: str) -> None:
    entries = (r"\bcodes?\b", r"\b\w*codes?\b", r"\bкод\b", "码", r"\b(?:länder|laender)-?codes?\b")
    ends = {match.end() for match in Words(entries).finditer(text)}
    assert ends == {match.end() for match in re.finditer("|".join(entries), text)}


def test_lines_of_letters_without_a_space_are_one_match() -> None:
    lines = b"".join(b"0" + b"A" * 77 + b" " for _ in range(50))
    assert len(code_places._DIGIT.findall(lines)) == 1
    assert len(code_places._CAPITAL.findall(lines)) == 1


def test_code_behind_long_words_is_not_passed_over() -> None:
    text = "0" + "X" * 77 + "\n" + "X" * 40 + "\n\nYour code is 482193.\n" + "X" * 40
    assert [code.value for code in codes.find("A letter", text)] == ["482193"]


def test_stems_of_other_scripts_are_looked_for_only_where_one_of_their_characters_is() -> None:
    stems = code_places.Stems(("code", "pin"), ("codigo", "código", "код", "验证码", "비밀번호"))
    assert set(stems.possible("your code")) == {"code", "pin"}
    assert set(stems.possible("your “code”")) == {"code", "pin", "codigo"}
    assert set(stems.possible("ваш код")) == {"code", "pin", "codigo", "код"}


@pytest.mark.parametrize(
    "text", ["ваш код 4821", "tu código", "您的验证码是", "인증번호", "mã xác nhận", "şifreniz", "รหัส"]
)
def test_every_stem_that_is_in_a_text_is_among_the_possible(text: str) -> None:
    possible = set(codes._SOUGHT.possible(text))
    assert {stem for stem in codes._ALL_STEMS if stem in text} <= possible
    assert len(possible) < len(codes._ALL_STEMS)


def test_many_numbers_without_a_word_near_them_are_not_looked_at() -> None:
    lower = "".join([f"4821{number:02} and some ordinary words\n" for number in range(90)])
    stretches = [code_places.Stretch(start, start + 2, start + 12) for start in range(0, len(lower), 60)]
    assert not code_places.in_reach(lower, 0, ("code",), stretches)
    place = 1_500
    named = f"{lower[:place]} code {lower[place:]}"
    kept = code_places.in_reach(named, 0, ("code",), stretches)
    assert {one for one in stretches if place - 90 <= one.start <= place + 90} <= set(kept)
    assert len(kept) < len(stretches) / 2
    assert code_places.in_reach(lower, 0, ("code",), stretches[:3]) == stretches[:3]
    assert code_places.in_reach(f"code{lower}", 4, ("code",), stretches)[:2] == stretches[:2]
