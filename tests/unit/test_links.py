"""Links: where one ends in text, and which is the likeliest to be waited for."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.model import links
from server.model.html_page import read


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("Go to https://example.com/verify?t=1.", "https://example.com/verify?t=1"),
        ("(see https://example.com/a_(b))", "https://example.com/a_(b)"),
        ("(see https://example.com/a_(b).)", "https://example.com/a_(b)"),
        ("[Verify](https://example.com/a) now", "https://example.com/a"),
        ("<https://example.com/magic>", "https://example.com/magic"),
        ("*https://example.com/a*", "https://example.com/a"),
        ("'https://example.com/a'", "https://example.com/a"),
        ("“https://example.com/a”", "https://example.com/a"),
        ("«https://example.com/a»", "https://example.com/a"),
        ("https://example.com/o'neill?t=1 ok", "https://example.com/o'neill?t=1"),
        ("https://example.com/a?b[0]=1&c={d}", "https://example.com/a?b[0]=1&c={d}"),
        ("[https://example.com/a?b[0]=1]", "https://example.com/a?b[0]=1"),
        ("https://example.com/a;b=1,2!", "https://example.com/a;b=1,2"),
        ("https://example.com/?q=a|b", "https://example.com/?q=a|b"),
        ("HTTP://EXAMPLE.COM/A", "HTTP://EXAMPLE.COM/A"),
        ("_https://example.com/a_", "https://example.com/a"),
        ("👉https://example.com/a👈", "https://example.com/a"),
        ("请点击https://example.com/a，谢谢", "https://example.com/a"),
        ("请点击https://example.com/verify?t=abc123完成验证", "https://example.com/verify?t=abc123"),
        ("https://example.com/a。", "https://example.com/a"),
        ("（https://example.com/a）", "https://example.com/a"),
        ("「https://example.com/a」を開く", "https://example.com/a"),
        ("https://example.com/aをクリック", "https://example.com/a"),
        ("https://example.com/aクリック", "https://example.com/a"),
        ("https://example.com/a에서 확인", "https://example.com/a"),
        ("https://example.com/aเพื่อยืนยัน", "https://example.com/a"),
        ("https://example.com/a！", "https://example.com/a"),
        ("https://example.com/a\u200b", "https://example.com/a"),
        ("https://example.com/a…", "https://example.com/a"),
        ("https://example.com/a؟", "https://example.com/a"),
        ("https://example.com/a। धन्यवाद", "https://example.com/a"),
        ("https://de.example.org/wiki/Straße_ä x", "https://de.example.org/wiki/Straße_ä"),
        ("https://пример.рф/путь.", "https://пример.рф/путь"),
        ("https://example.com:8443/a-_~%20b=#c", "https://example.com:8443/a-_~%20b=#c"),
        ("https://example.com", "https://example.com"),
        ("https://example.com/" + "x" * 9000 + " ok", "https://example.com/" + "x" * 9000),
    ],
)
def test_link_in_text_ends_where_the_sentence_goes_on(text: str, link: str) -> None:
    assert links.find(text) == (link,)


@pytest.mark.parametrize(
    "text", ["ftp://example.com/", "xhttp: //", "https://", "https:// x", "http://)", "see https://。"]
)
def test_what_names_no_host_is_no_link(text: str) -> None:
    assert links.find(text) == ()


ACTIONS = {
    "en": ("Confirm your email", "Reset password", "Sign in", "Unsubscribe"),
    "zh": ("验证邮箱", "重置密码", "登录", "退订"),
    "ja": ("メールアドレスを確認", "パスワードを再設定する", "ログイン", "配信停止はこちら"),
    "ko": ("이메일 인증하기", "비밀번호 재설정", "로그인", "수신거부"),
    "de": ("E-Mail-Adresse bestätigen", "Passwort zurücksetzen", "Jetzt anmelden", "Newsletter abbestellen"),
    "fr": ("Confirmer mon adresse", "Réinitialiser le mot de passe", "Se connecter", "Se désabonner"),
    "es": ("Confirmar correo", "Restablecer contraseña", "Iniciar sesión", "Darse de baja"),
    "pt": ("Confirmar e-mail", "Redefinir senha", "Entrar na conta", "Cancelar inscrição"),
    "it": ("Conferma l'indirizzo", "Reimposta la password", "Accedi", "Annulla l'iscrizione"),
    "ru": ("Подтвердить адрес", "Сбросить пароль", "Войти", "Отписаться"),
    "pl": ("Potwierdź adres", "Zresetuj hasło", "Zaloguj się", "Wypisz się"),
    "tr": ("E-postamı doğrula", "Şifreyi sıfırla", "Giriş yap", "Abonelikten çık"),
    "ar": ("تأكيد البريد", "إعادة تعيين كلمة المرور", "تسجيل الدخول", "إلغاء الاشتراك"),
    "hi": ("ईमेल सत्यापित करें", "पासवर्ड रीसेट करें", "लॉग इन करें", "सदस्यता समाप्त करें"),
    "vi": ("Xác nhận email", "Đặt lại mật khẩu", "Đăng nhập", "Hủy đăng ký"),
    "id": ("Konfirmasi email", "Atur ulang kata sandi", "Masuk", "Berhenti berlangganan"),
    "th": ("ยืนยันอีเมล", "รีเซ็ตรหัสผ่าน", "เข้าสู่ระบบ", "ยกเลิกการรับข่าวสาร"),
    "nl": ("Bevestig je e-mail", "Wachtwoord herstellen", "Inloggen", "Afmelden voor deze mails"),
    "uk": ("Підтвердити адресу", "Скинути пароль", "Увійти", "Відписатися"),
    "cs": ("Potvrdit e-mail", "Obnovit heslo", "Přihlásit se", "Odhlásit odběr"),
}


@pytest.mark.parametrize("language", ACTIONS)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_link_that_acts_comes_first_and_leaving_last_in_each_language(language: str, which: int) -> None:
    action, leave = ACTIONS[language][which], ACTIONS[language][3]
    html = (
        f"<a href='https://e.org/1'>{leave}</a><a href='https://www.facebook.com/e'>e</a>"
        f"<a href='https://e.org/2'>e.org</a><a href='https://e.org/3'>{action}</a>"
    )
    found = links.find("", read(html).anchors)
    assert found[0] == "https://e.org/3"
    assert found[1] == "https://e.org/2"
    assert set(found[2:]) == {"https://e.org/1", "https://www.facebook.com/e"}
    text = f"{leave}: https://e.org/1\n\nhttps://e.org/2\n\n{action}:\n\nhttps://e.org/3\n"
    assert links.find(text) == ("https://e.org/3", "https://e.org/2", "https://e.org/1")


DATA = Path(__file__).parent / "data"


def test_links_of_the_table_of_texts_end_where_they_should() -> None:
    rows = [json.loads(line) for line in (DATA / "link_texts.jsonl").read_text().splitlines()]
    assert len(rows) >= 180
    assert [(text, right) for text, right in rows if links.find(text) != tuple(right)] == []


def test_first_link_of_a_mail_with_head_and_foot_is_the_action_in_each_language() -> None:
    """`data/link_words.tsv`: language, actions, the help page, and what leads away."""
    lines = (DATA / "link_words.tsv").read_text().splitlines()
    wrong = []
    for line in lines:
        language, actions, helping, leading_away = line.split("\t")
        leave, terms, browser = leading_away.split("|")
        for action in actions.split("|"):
            html = (
                f'<a href="https://e.org/v/1">{browser}</a><a href="https://e.org/"><img src="x"></a><p>Acme</p>'
                f'<p><a href="https://click.e.org/u/abc">{action}</a></p><p><a href="https://e.org/h">{helping}</a>'
                f'<a href="https://e.org/p">{terms}</a> <a href="https://e.org/s">{leave}</a>'
                '<a href="https://x.com/acme">X</a></p>'
            )
            found = links.find("", read(html).anchors)
            last = {"https://e.org/v/1", "https://e.org/p", "https://e.org/s", "https://x.com/acme"}
            if found[0] != "https://click.e.org/u/abc" or not last <= set(found[-5:]):
                wrong.append((language, action, found))
    assert len(lines) == 20
    assert wrong == []


HERE = [
    'To verify your address <a href="https://e.org/2">click here</a>.',
    'Please confirm your address:</p><p><a href="https://e.org/2">https://e.org/go/abc</a>',
    'パスワードの再設定は<a href="https://e.org/2">こちら</a>',
    '请点击<a href="https://e.org/2">这里</a>完成邮箱验证',
    'Klicken Sie <b><a href="https://e.org/2">hier</a></b>, um Ihre Adresse zu bestätigen.',
    'Чтобы подтвердить почту, нажмите <a href="https://e.org/2">здесь</a>',
]


@pytest.mark.parametrize("sentence", HERE)
def test_link_called_here_is_judged_by_the_words_around_it(sentence: str) -> None:
    html = f'<a href="https://e.org/">Acme</a><p>{sentence}</p><p>Visit <a href="https://e.org/3">our site</a></p>'
    page = read(html)
    assert links.find("", page.anchors)[0] == "https://e.org/2"


def test_link_called_here_to_leave_a_list_stays_last() -> None:
    html = '<a href="https://e.org/1">Acme</a><p>Confirm or unsubscribe <a href="https://e.org/2">here</a></p>'
    assert links.find("", read(html).anchors) == ("https://e.org/1", "https://e.org/2")


def test_path_tells_what_words_do_not() -> None:
    html = (
        '<a href="https://e.org/unsubscribe?token=1">here</a><a href="https://e.org/news">news</a>'
        '<a href="https://e.org/author/x">x</a><a href="https://e.org/reset?a=1&amp;b=2">here</a>'
    )
    assert links.find("", read(html).anchors) == (
        "https://e.org/reset?a=1&b=2",
        "https://e.org/news",
        "https://e.org/author/x",
        "https://e.org/unsubscribe?token=1",
    )


def test_links_are_bounded_in_number_and_length() -> None:
    text = " ".join(f"https://example.com/{number}" for number in range(100))
    found = links.find(f"{text} https://example.com/{'x' * 20_000}")
    assert len(found) == links.MAX_LINKS
    assert all(len(link) <= links.MAX_LINK for link in found)
    long = links.find(" ".join(f"https://example.com/{number}{'x' * 15_000}" for number in range(4)))
    assert len(long) == 3


@given(st.text())
def test_any_text_yields_bounded_links(text: str) -> None:
    assert all("://" in link for link in links.find(text))
