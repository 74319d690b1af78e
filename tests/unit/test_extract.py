"""Verification codes: what must be found, what must not be taken for one, and at what cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.model import extract


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Your code is 482 193", "482193"),
        ("Your code is 482-193.", "482193"),
        ("Your verification code:\n\n  482193\n\nIt expires in 10 minutes.", "482193"),
        ("482193 is your Example verification code.", "482193"),
        ("Use G-123456 as your code", "G-123456"),
        ("G-123456 is your verification code.", "G-123456"),
        ("code: AB12-CD34", "AB12-CD34"),
        ("Your login code is X7K9Q2.", "X7K9Q2"),
        ("Your one-time password (OTP) is 0042", "0042"),
        ("Your PIN: 2026", "2026"),
        ("Security code 4 8 2 1 9 3", "482193"),
        ("验证码：482193", "482193"),
        ("您的验证码是 482193，请勿泄露。", "482193"),
        ("【示例】482193（动态验证码），5分钟内有效", "482193"),
        ("驗證碼為「48219」", "48219"),
        ("Ihr Bestätigungscode lautet 482193", "482193"),
        ("Votre code de vérification est : 482193", "482193"),
        ("Tu código de verificación es 482193", "482193"),
        ("認証コード：４８２１９３", "482193"),
        ("Ваш код подтверждения: 482193", "482193"),
        ("인증번호 [482193]", "482193"),
    ],
)
def test_code_is_found_in_text_and_in_the_subject(text: str, code: str) -> None:
    assert extract.codes("Hello", text) == (code,)
    assert extract.codes(text.replace("\n", " "), "") == (code,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Thank you for your order 482193.",
        "Order code and more.\n\nInvoice 20261123 of 482193",
        "Call +1 555 482193 for help",
        "Your zip code 94103 was updated",
        "Discount code inside! Total: 4821.93",
        "Copyright 2026. Your code will follow.",
        "© 2026 Example. Verification pending.",
        "See https://example.com/code/482193/x",
        "Mail code482193x@example.com",
        "Price: $4821, coupon code inside",
        "The code was sent on 2026-11-23",
        "The source code is available",
        "Your code is below",
        "error code 404404",
        "订单编号 482193",
    ],
)
def test_number_that_is_no_code_is_left_alone(text: str) -> None:
    assert extract.codes("Hello", text) == ()


def test_code_beside_an_order_number_is_told_from_it() -> None:
    assert extract.codes("Order 771122", "Order 771122. Your confirmation code: 482193. Invoice 553311.") == ("482193",)


def test_codes_keep_their_order_and_are_named_once_and_bounded() -> None:
    text = " ".join(f"code: {number}" for number in [1111, 2222, 1111, 3333, 4444, 5555, 6666])
    assert extract.codes("code 9999", text) == ("9999", "1111", "2222", "3333", "4444")


def test_code_beyond_the_scanned_text_is_not_looked_for() -> None:
    assert extract.codes("", "x " * extract.SCAN_CHARACTERS + "code: 482193") == ()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "unit",
    [
        "1",
        "1234 ",
        "code 1234 ",
        "code is ",
        "123-456-",
        "code: aa1-",
        "code    ",
        "码 ",
        "=http://",
    ],
)
def test_repeated_fragment_does_not_make_extraction_slow(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    assert len(extract.codes(text[:1000], text)) <= extract.MAX_CODES


@given(st.text(), st.text())
def test_any_text_yields_bounded_codes(subject: str, text: str) -> None:
    assert all(4 <= len(code) <= 16 for code in extract.codes(subject, text))


@pytest.mark.parametrize(
    "word",
    [
        "code",
        "OTP",
        "pin",
        "one-time",
        "password",
        "2fa",
        "token",
        "TAN",
        "verif",
        "kennwort",
        "passwort",
        "mot de passe",
        "codigo",
        "clave",
        "senha",
        "codice",
    ],
)
def test_each_word_alone_names_a_code_far_into_a_text(word: str) -> None:
    filling = "xyz " * 500
    assert extract.codes("", f"{filling}{word}: 482193\n{filling}") == ("482193",)
    assert extract.codes("", f"{filling}482193 {word}\n{filling}") == ("482193",)


def test_mixed_code_is_found_at_its_full_reach_and_before_the_end() -> None:
    longest = "ABCDEFGHIJ-K2"
    for word in ("code", "otp"):
        for filling in ("", "x" * 3000 + " "):
            assert extract.codes("", f"{filling}{word}     lautet{' ' * 20}{longest}") == (longest,)
            assert extract.codes("", f"{filling}{word}: 4 8 2 1 9 3 wrote a note") == ("482193",)
            assert extract.codes("", f"{filling}note {word}\u00a0“X7K9Q2”") == ("X7K9Q2",)


def test_code_after_many_numbers_that_are_none_is_found() -> None:
    assert extract.codes("", "item 12345 " * 40 + "and more words in between. " * 5 + "Code 482193") == ("482193",)
