"""Mail as the world writes it: inputs and what is right by the standards, or by what mail programs show."""

import base64
import binascii
import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webencodings import LABELS

from server.model import mime
from server.model.mime import charsets, plaintext, transfer_encoding
from server.model.mime import text as mime_text
from server.model.mime.charsets import Guess, codec_of, decode

HEAD = b"From: Shop <shop@example.org>\r\nTo: box@example.net\r\nSubject: Hello\r\n"


def part(content_type: str, body: bytes | str, *fields: str) -> bytes:
    data = body.encode() if isinstance(body, str) else body
    return "\r\n".join((f"Content-Type: {content_type}", *fields)).encode() + b"\r\n\r\n" + data


def multipart(subtype: str, *parts: bytes, boundary: str = "b1") -> bytes:
    """``subtype`` may bring parameters: `related; type="text/html"`."""
    kind, _, rest = subtype.partition(";")
    head = f"Content-Type: multipart/{kind}; boundary={boundary}" + (f";{rest}" if rest else "")
    body = b"".join(b"--" + boundary.encode() + b"\r\n" + one + b"\r\n" for one in parts)
    return head.encode() + b"\r\n\r\n" + body + b"--" + boundary.encode() + b"--\r\n"


def read(entity: bytes, head: bytes = HEAD) -> mime.Mail:
    return mime.parse(head + entity)


def text_of(body: bytes, content_type: str = "text/plain", *fields: str) -> str:
    return read(part(content_type, body, *fields)).text


def subject_of(value: bytes | str) -> str:
    raw = value.encode() if isinstance(value, str) else value
    return mime.parse(b"From: a@example.org\r\nSubject: " + raw + b"\r\n\r\nx").subject


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(20))
HTML = '<p>Welcome</p><img src="cid:logo@example.org">'


def image(*fields: str, name: str = "") -> bytes:
    return part(f"image/png{'; name=' + name if name else ''}", PNG, "Content-Transfer-Encoding: base64", *fields)


SHOWN = {
    "by Content-ID": ("<img src='cid:a@b'>", "Content-ID: <a@b>"),
    "without quotes": ("<img src=cid:a@b>", "Content-ID: <a@b>"),
    "escaped": ('<img src="cid:a%25b%40c">', "Content-ID: <a%b@c>"),
    "a reference in the attribute": ('<img src="cid:a&amp;b@c">', "Content-ID: <a&b@c>"),
    "without brackets": ('<img src="cid:a@b">', "Content-ID: a@b"),
    "upper case": ('<IMG SRC="CID:a@b">', "Content-ID: <a@b>"),
    "background": ('<td background="cid:a@b">', "Content-ID: <a@b>"),
    "in a style": ("<td style=\"background:url('cid:a@b')\">", "Content-ID: <a@b>"),
    "in a style without quotes": ('<td style="background:url(cid:a@b)">', "Content-ID: <a@b>"),
    "several sizes": ('<img srcset="cid:a@b 1x, cid:c@d 2x">', "Content-ID: <c@d>"),
    "an object": ("<object data='cid:a@b'>", "Content-ID: <a@b>"),
    "an image of Outlook": ('<v:imagedata src="cid:a@b" o:title="">', "Content-ID: <a@b>"),
    "by Content-Location": ('<img src="images/a.png">', "Content-Location: images/a.png"),
    "by an absolute Content-Location": ('<img src="http://x.org/a.png">', "Content-Location: http://x.org/a.png"),
}


@pytest.mark.parametrize("case", SHOWN)
def test_image_that_html_shows_is_not_counted_as_an_attachment(case: str) -> None:
    html, field = SHOWN[case]
    for disposition in ("inline", "attachment"):
        mail = read(
            multipart(
                "related", part("text/html", html), image(field, f"Content-Disposition: {disposition}", name="a.png")
            )
        )
        (one,) = mail.attachments
        assert (one.number, one.filename, one.disposition, one.inline) == ("2", "a.png", disposition, True)


def test_image_that_html_does_not_show_is_an_attachment_like_any_other() -> None:
    mail = read(
        multipart("mixed", part("text/html", "<p>x</p>"), image("Content-ID: <a@b>", "Content-Disposition: inline"))
    )
    (one,) = mail.attachments
    assert (one.content_id, one.disposition, one.inline) == ("a@b", "inline", False)


@pytest.mark.parametrize("html", ['<a href="cid:a@b">file</a>', "<p>cid:a@b</p>", '<img alt="cid:a@b">'])
def test_image_that_html_only_names_is_an_attachment(html: str) -> None:
    (one,) = read(multipart("related", part("text/html", html), image("Content-ID: <a@b>"))).attachments
    assert not one.inline


@pytest.mark.parametrize("subtype", ["x-amp-html", "watch-html"])
def test_rendering_for_one_program_is_no_attachment(subtype: str) -> None:
    alternatives = (
        part("text/plain", "plain"),
        part(f"text/{subtype}", "<html amp4email>"),
        part("text/html", "<p>h</p>"),
    )
    mail = read(multipart("alternative", *alternatives))
    assert (mail.text, mail.html, mail.attachments) == ("plain", "<p>h</p>", ())


ROOTS = {
    "type": ('related; type="text/html"', (image("Content-ID: <i@x>"), part("text/html", HTML))),
    "start": ('related; start="<r@x>"', (image("Content-ID: <i@x>"), part("text/html", HTML, "Content-ID: <r@x>"))),
    "start without brackets": ("related; start=r@x", (image(), part("text/html", HTML, "Content-ID: <r@x>"))),
    "start and another page first": (
        'related; type="text/html"; start="<r@x>"',
        (part("text/html", "frame", "Content-ID: <f@x>"), part("text/html", HTML, "Content-ID: <r@x>")),
    ),
    "start that is nowhere": ('related; type="text/html"; start="<no@x>"', (image(), part("text/html", HTML))),
    "neither": ("related", (image("Content-ID: <i@x>"), part("text/html", HTML))),
    "an alternative": (
        'related; type="multipart/alternative"',
        (
            image(),
            multipart("alternative", part("text/plain", "Welcome"), part("text/html", HTML), boundary="b2"),
        ),
    ),
}


@pytest.mark.parametrize("case", ROOTS)
def test_related_is_about_its_root_wherever_that_stands(case: str) -> None:
    subtype, parts = ROOTS[case]
    mail = read(multipart(subtype, *parts))
    assert HTML in mail.html
    assert "Welcome" in mail.text


def test_text_and_html_beside_each_other_are_in_both_views() -> None:
    mail = read(
        multipart(
            "mixed",
            part("text/plain", "code 551177 & <more>"),
            part("text/html", "<p>Sent through a list</p>", "Content-Disposition: inline"),
        )
    )
    assert "code 551177 &amp; &lt;more&gt;" in mail.html
    assert "<p>Sent through a list</p>" in mail.html
    assert mail.text.split() == ["code", "551177", "&", "<more>", "Sent", "through", "a", "list"]


def example_of_rfc8621() -> bytes:
    """The structure in section 4.1.4; its parts are named by letters there."""
    related = multipart("related", part("text/html", "<p>C</p>"), image("Content-ID: <d@x>"), boundary="b4")
    alternative = multipart(
        "alternative", multipart("mixed", part("text/plain", "B"), boundary="b3"), related, boundary="b2"
    )
    return multipart(
        "mixed",
        part("text/plain", "A", "Content-Disposition: inline"),
        multipart(
            "mixed",
            alternative,
            part("image/jpeg", "F", "Content-Disposition: attachment"),
            part("application/x-excel", "G"),
            part("message/rfc822", "Subject: J\r\n\r\nJ"),
            boundary="b5",
        ),
        part("text/plain", "K", "Content-Disposition: inline"),
    )


def test_views_of_the_example_of_rfc8621_section_4_1_4() -> None:
    mail = read(example_of_rfc8621())
    assert mail.text.split() == ["A", "B", "K"]
    assert [mail.html.find(letter) >= 0 for letter in (">A<", "<p>C</p>", ">K<", ">B<")] == [True, True, True, False]
    assert [one.number for one in mail.attachments] == ["2.1.2.2", "2.2", "2.3", "2.4"]


@pytest.mark.parametrize("disposition", ["=?utf-8?Q?invalid?=", "form-data", "", "; filename=a.html"])
def test_part_of_a_disposition_that_is_not_known_is_read(disposition: str) -> None:
    mail = read(part("text/html", "<p>h</p>", f"Content-Disposition: {disposition}"))
    assert (mail.html, mail.attachments) == ("<p>h</p>", ())


def test_alternative_with_a_name_is_read_all_the_same() -> None:
    mail = read(multipart("alternative", part("text/plain", "t"), part('text/html; name="mail.html"', "<p>h</p>")))
    assert (mail.text, mail.html, mail.attachments) == ("t", "<p>h</p>", ())


SAMPLE = "Zażółć gęślą jaźń"
DECLARED = {
    "meta charset": ("iso-8859-2", '<meta charset="iso-8859-2"><p>{}</p>'),
    "meta charset without quotes": ("windows-1250", "<META CHARSET=windows-1250><p>{}</p>"),
    "http-equiv": (
        "iso-8859-2",
        '<html><head><meta http-equiv="Content-Type" content="text/html; charset=iso-8859-2"></head><p>{}</p>',
    ),
    "http-equiv the other way": (
        "iso-8859-2",
        "<meta content='text/html;charset=iso-8859-2' http-equiv=content-type><p>{}",
    ),
    "xml declaration": ("iso-8859-2", '<?xml version="1.0" encoding="iso-8859-2"?><p>{}</p>'),
    "behind a comment with another": ("iso-8859-2", "<!-- <meta charset=koi8-r> --><meta charset=iso-8859-2><p>{}</p>"),
    "meta that cannot be": ("utf-8", '<meta charset="utf-16"><p>{}</p>'),
    "mark of UTF-8": ("utf-8-sig", "<p>{}</p>"),
    "mark of UTF-16": ("utf-16", "<p>{}</p>"),
    "UTF-16 without a mark": ("utf-16-le", "<html><body><p>{}</p></body></html>"),
    "UTF-16 of the other order": ("utf-16-be", "<html><body><p>{}</p></body></html>"),
}


@pytest.mark.parametrize("case", DECLARED)
@pytest.mark.parametrize("content_type", ["text/html", "text/html; charset=us-ascii", "text/html; charset=x-unknown"])
def test_charset_that_html_names_itself(case: str, content_type: str) -> None:
    charset, html = DECLARED[case]
    body = base64.encodebytes(html.format(SAMPLE).encode(charset))
    mail = read(part(content_type, body, "Content-Transfer-Encoding: base64"))
    assert SAMPLE in mail.html
    assert "\ufeff" not in mail.html
    assert SAMPLE in mail.text


def test_charset_of_the_header_counts_more_than_meta() -> None:
    body = '<meta charset="koi8-r"><p>Grüße</p>'.encode("iso-8859-1")
    assert "Grüße" in read(part("text/html; charset=iso-8859-1", body)).html


UNLABELLED = {
    "windows-1251": "Ваш код подтверждения: 482193. Никому его не сообщайте.",
    "koi8-r": "Ваш код подтверждения: 482193. Никому его не сообщайте.",
    "iso-8859-5": "Ваш код подтверждения: 482193. Никому его не сообщайте.",
    "iso-8859-2": "Zażółć gęślą jaźń. Twój kod to 482193, dziękujemy za rejestrację w naszym serwisie.",
    "windows-1250": "Váš ověřovací kód je 482193. Příští přihlášení proběhne běžně.",
    "windows-1254": "Doğrulama kodunuz: 482193. Lütfen bu kodu kimseyle paylaşmayın. Teşekkür ederiz.",
    "windows-1253": "Ο κωδικός επαλήθευσής σας είναι 482193. Μην τον κοινοποιήσετε σε κανέναν.",
    "windows-1255": "קוד האימות שלך הוא 482193. אל תשתף אותו עם אף אחד.",
    "windows-1256": "رمز التحقق الخاص بك هو 482193. لا تشاركه مع أي شخص.",
    "cp874": "รหัสยืนยันของคุณคือ 482193 โปรดอย่าเปิดเผยรหัสนี้",
    "shift_jis": "確認コードは482193です。このコードを他の人に教えないでください。",
    "euc-jp": "確認コードは482193です。このコードを他の人に教えないでください。",
    "euc-kr": "인증번호는 482193 입니다. 다른 사람에게 알려주지 마세요.",
    "gb18030": "您的验证码是482193，请勿告诉他人。",
    "big5": "您的驗證碼是482193，請勿告訴他人。",
    "windows-1252": "Ihr Bestätigungscode lautet 482193. Viele Grüße aus Köln, für Sie – schöne Bücher.",
}


@pytest.mark.parametrize("charset", UNLABELLED)
@pytest.mark.parametrize("label", ["", "; charset=us-ascii", "; charset=x-unknown", "; charset=default"])
def test_text_without_a_usable_label_is_judged_by_what_it_is(charset: str, label: str) -> None:
    text = UNLABELLED[charset]
    data = text.encode(charset)
    encoded = quopri.encodestring(data)
    assert text_of(data, f"text/plain{label}") == text
    assert text_of(encoded, f"text/plain{label}", "Content-Transfer-Encoding: quoted-printable").strip() == text


@pytest.mark.parametrize(
    ("charset", "subject", "body"),
    [
        ("gb18030", "验证码", UNLABELLED["gb18030"]),
        ("koi8-r", "ПАРОЛЬ", UNLABELLED["koi8-r"]),
        ("iso-8859-2", "Twój kod", UNLABELLED["iso-8859-2"]),
        ("euc-jp", "認証", UNLABELLED["euc-jp"]),
        ("euc-kr", "인증번호", UNLABELLED["euc-kr"]),
    ],
)
def test_short_subject_is_judged_by_all_of_the_mail(charset: str, subject: str, body: str) -> None:
    mail = mime.parse(b"Subject: " + subject.encode(charset) + b"\r\n\r\n" + body.encode(charset))
    assert (mail.subject, mail.text) == (subject, body)


@pytest.mark.parametrize("content_type", ["text/plain", "text/html"])
def test_turkish_without_a_label_is_not_taken_for_its_neighbours(content_type: str) -> None:
    text = "Doğrulama kodunuz 482193. Lütfen kimseyle paylaşmayın, güvenliğiniz için şifrenizi değiştirin."
    mail = mime.parse(HEAD + f"Content-Type: {content_type}\r\n\r\n".encode() + text.encode("cp1254"))
    assert mail.text == text


def test_country_of_the_sender_tells_neighbours_apart() -> None:
    text = "Az Ön ellenőrző kódja: 482193. Köszönjük a regisztrációt."
    mail = mime.parse(b"From: Bolt <bolt@example.hu>\r\nSubject: x\r\n\r\n" + text.encode("iso-8859-2"))
    assert mail.text == text


@pytest.mark.parametrize(
    "text",
    [
        "Los dueños y responsables – más “desgracias” en estos últimos meses. ¿Aún aquí?",
        "Votre réservation à l’hôtel est confirmée, ça marche déjà très bien.",
        "Não responda a esta mensagem. Ação necessária em São Paulo.",
        "È arrivato il tuo pacco: la città è più vicina.",
        "Hyvää päivää, tervetuloa. Välkommen åter, hälsningar från Åre.",
        "10 € Rabatt – jetzt einlösen",
        "El dueño siente que “más” aún",
        "naïve",
        "Geïnteresseerd",
    ],
)
def test_western_text_is_not_taken_for_its_neighbours(text: str) -> None:
    assert text_of(text.encode("cp1252")) == text


@pytest.mark.parametrize("label", sorted(set(LABELS) - {"replacement", "x-user-defined"}))
def test_label_of_the_encoding_standard_is_known(label: str) -> None:
    name = LABELS[label]
    if name == "replacement":
        assert codec_of(label) in ("iso2022_kr", "hz", "iso2022_cn")
    elif label in ("us-ascii", "ascii", "ansi_x3.4-1968"):
        assert codec_of(label) is None
        assert decode(b"\x80 10", label) == "€ 10"
    else:
        # A superset reads what the standard's own codec reads.
        python = {"x-mac-cyrillic": "mac-cyrillic", "macintosh": "mac-roman", "iso-8859-8-i": "iso-8859-8"}.get(
            name, name
        )
        python = {"windows-874": "cp874", "big5": "big5hkscs"}.get(python, python)
        letters = "".join(
            letter for letter in "aé€żжάאعกあ中한" if letter.encode(python, "ignore").decode(python, "ignore") == letter
        )
        assert decode(letters.encode(python), label) == letters
        assert codec_of(f' "{label.upper()}" ; x') == codec_of(label)


@pytest.mark.parametrize(
    ("label", "codec"),
    [
        ("cp50220", "iso2022_jp"), ("cp50221", "iso2022_jp"), ("csISO2022JP", "iso2022_jp"),
        ("_iso-2022-jp$ESC", "iso2022_jp"), ("x-windows-949", "cp949"), ("x-EUC-TW", None), ("gb_2312-80", "gb18030"),
        ("utf8mb4", "utf_8"), ("UTF-8 (text)", "utf_8"), ("charset=utf-8", "utf_8"), ("IBM850", "cp850"),
        ("csPC8CodePage437", "cp437"), ("cp437", "cp437"), ("hp-roman8", "hp_roman8"), ("ISO_8859-2:1987", "iso8859_2"),
        ("KOI8-U", "koi8_u"), ("utf-32le", "utf_32_le"), ("rot13", None), ("zlib", None), ("unicode_escape", None),
    ],
)  # fmt: skip
def test_label_of_no_standard_is_known_where_mail_uses_it(label: str, codec: str | None) -> None:
    assert codec_of(label) == codec


def jis(text: str) -> bytes:
    """ISO-2022-JP as Windows writes it: also the characters that only code page 932 has."""
    out = b""
    for letter in text:
        lead, trail = letter.encode("cp932")
        row = (lead - (0x81 if lead < 0xA0 else 0xC1)) * 2 + (2 if trail >= 0x9F else 1)
        cell = trail - 0x9E if trail >= 0x9F else trail - (0x3F if trail < 0x7F else 0x40)
        out += bytes((row + 0x20, cell + 0x20))
    return b"\x1b$B" + out + b"\x1b(B"


KANA = bytes(byte & 0x7F for byte in "ﾃｽﾄ".encode("cp932"))
JAPANESE = {
    "as it is": ("確認コード".encode("iso2022_jp"), "確認コード"),
    "the older set": ("確認".encode("iso2022_jp").replace(b"$B", b"$@"), "確認"),
    "NEC": (jis("①㈱Ⅳ"), "①㈱Ⅳ"),
    "IBM": (jis("髙﨑纊"), "髙﨑纊"),
    "half width by an escape": (b"\x1b(I" + KANA + b"\x1b(B", "ﾃｽﾄ"),
    "half width by a shift": (b"\x0e" + KANA + b"\x0f x", "ﾃｽﾄ x"),
    "half width in eight bits": ("ﾃｽﾄ".encode("cp932"), "ﾃｽﾄ"),
    "JIS X 0212": ("丂".encode("iso2022_jp_1"), "丂"),
    "JIS X 0213": ("𠮟".encode("iso2022_jp_2004"), "𠮟"),
    "UTF-8 under the label": ("確認コード".encode(), "確認コード"),
    "Shift_JIS under the label": ("確認コード".encode("cp932"), "確認コード"),
    "EUC-JP under the label": ("確認コードは".encode("euc_jp"), "確認コードは"),
    "no way back to ASCII": ("確認".encode("iso2022_jp")[:-3] + b"\ncode 1234", "確認\ncode 1234"),
    "JIS Roman": (b"\x1b(J100\x5c\x1b(B ok", "100¥ ok"),
}


@pytest.mark.parametrize("case", JAPANESE)
@pytest.mark.parametrize("label", ["iso-2022-jp", "csISO2022JP", "cp50220", "cp50221", "iso-2022-jp-ms"])
def test_iso_2022_jp_in_each_of_its_forms(case: str, label: str) -> None:
    data, text = JAPANESE[case]
    assert text_of(data, f"text/plain; charset={label}") == text
    word = b"=?" + label.encode() + b"?B?" + base64.b64encode(data) + b"?="
    assert subject_of(word) == " ".join(text.split())


@pytest.mark.parametrize("case", ["as it is", "the older set", "NEC", "IBM", "half width by an escape", "JIS X 0212"])
@pytest.mark.parametrize("content_type", ["text/plain", "text/plain; charset=us-ascii", "text/plain; charset=utf-8"])
def test_iso_2022_jp_without_a_label(case: str, content_type: str) -> None:
    data, text = JAPANESE[case]
    assert text_of(data, content_type) == text
    assert subject_of(data) == text
    mail = read(
        multipart(
            "mixed", part("text/plain", "x"), part("a/b", "x", 'Content-Disposition: attachment; filename="')
        ).replace(b'filename="', b'filename="' + data + b'.txt"')
    )
    assert mail.attachments[0].filename == text + ".txt"


BODIES = {
    "quoted": ('"base64"', "aGVsbG8=", "hello"),
    "with a comment": ("base64 (of course)", "aGVsbG8=", "hello"),
    "another spelling": ("Base-64", "aGVsbG8=", "hello"),
    "with a semicolon": ("base64;", "aGVsbG8=", "hello"),
    "quoted quoted-printable": ('"quoted-printable"', "h=65llo", "hello"),
    "underscore": ("quoted_printable", "h=65llo", "hello"),
    "unknown": ("x-none", "h=65llo", "h=65llo"),
    "behind padding": ("base64", "aGVs\r\nbA==\r\nbw==", "hello"),
    "padding in each line": ("base64", "aA==\r\nZQ==\r\nbA==\r\nbA==\r\nbw==", "hello"),
    "no padding": ("base64", "aGVsbG8", "hello"),
    "a footer behind": ("base64", "aGVsbG8=\r\n\r\n-- \r\nA mailing list, https://example.org/", "hello"),
    "plain words": ("base64", "Hello, your code is 482913", "Hello, your code is 482913"),
    "plain words without a mark": ("base64", "Hello your code is 482913", "Hello your code is 482913"),
    "one plain word": ("base64", "Confirmed", "Confirmed"),
    "letters of another language": ("base64", "Ваш код 482913", "Ваш код 482913"),
    "a word and a line": ("base64", "Hello there.\r\nCode: 482913\r\n", "Hello there.\nCode: 482913\n"),
    "an equals sign": ("quoted-printable", "a==41", "a=A"),
    "uuencode": ("x-uuencode", "begin 644 a.txt\r\n%:&5L;&\\\r\n`\r\nend\r\n", "hello"),
}


@pytest.mark.parametrize("case", BODIES)
def test_transfer_encoding_as_it_is_written(case: str) -> None:
    encoding, body, text = BODIES[case]
    assert text_of(body.encode(), "text/plain; charset=utf-8", f"Content-Transfer-Encoding: {encoding}") == text


def test_words_of_another_charset_that_are_called_base64_stay() -> None:
    body = "Ваш код 482913".encode("koi8-r")
    assert text_of(body, "text/plain; charset=koi8-r", "Content-Transfer-Encoding: base64") == "Ваш код 482913"


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40).map(base64.b64encode), st.sampled_from([b"=", b"==", b"\r\n", b" ", b"!", b"QQ"])
        ),
        max_size=12,
    ).map(b"".join),
    st.sampled_from(["base64", "quoted-printable", "uuencode", ""]),
)
def test_size_in_lists_is_that_of_the_bytes_served(body: bytes, encoding: str) -> None:
    assert transfer_encoding.decoded_size(body, encoding) == len(transfer_encoding.decoded(body, encoding))
    entity = multipart(
        "mixed",
        part("text/plain", "x"),
        part("a/b", body, f"Content-Transfer-Encoding: {encoding}", "Content-Disposition: attachment"),
    )
    (one,) = read(entity).attachments
    served = mime.attachment(HEAD + entity, one.number)
    assert served is not None
    assert one.size == len(served[1])


@given(st.binary(max_size=400))
def test_base64_comes_back_whole(data: bytes) -> None:
    encoded = base64.encodebytes(data).replace(b"\n", b"\r\n")
    assert transfer_encoding.decoded(encoded, "base64") == data
    assert transfer_encoding.decoded_size(encoded, "base64") == len(data)


BOUNDARIES = {
    "prefix with dashes": ("foo", "foo--sub"),
    "prefix": ("foo", "foobar"),
    "prefix and a digit": ("foo", "foo-1"),
    "the longer outside": ("foo--sub", "foo"),
}


@pytest.mark.parametrize("case", BOUNDARIES)
def test_close_delimiter_is_the_whole_line(case: str) -> None:
    outer, inner = BOUNDARIES[case]
    alternatives = multipart("alternative", part("text/plain", "plain"), part("text/html", "<p>h</p>"), boundary=inner)
    mail = read(multipart("mixed", alternatives, part("application/pdf; name=i.pdf", "x"), boundary=outer))
    assert (mail.text.strip(), mail.html.strip()) == ("plain", "<p>h</p>")
    assert [one.filename for one in mail.attachments] == ["i.pdf"]


BOUNDARY = st.text(alphabet="ab-='", min_size=1, max_size=4).filter(lambda text: not text.endswith("--"))
TREE = st.recursive(
    st.integers(0, 9), lambda inner: st.tuples(BOUNDARY, st.lists(inner, min_size=1, max_size=3)), max_leaves=8
)


def built(tree: object, used: set[str], texts: list[str]) -> bytes:
    """A part that holds this tree of multiparts; what it is to be read as joins ``texts``."""
    if not isinstance(tree, tuple):
        texts.append(f"text {len(texts)} ({tree})")
        return part("text/plain", f"{texts[-1]}\r\n--{tree} is no border\r\n")
    boundary = tree[0]
    while boundary in used:
        boundary += "x"
    used.add(boundary)
    inner = [built(one, used, texts) for one in tree[1]]
    body = b"".join(b"--" + boundary.encode() + b"\r\n" + one + b"\r\n" for one in inner)
    return (
        f'Content-Type: multipart/mixed; boundary="{boundary}"\r\n\r\n'.encode() + body + f"--{boundary}--\r\n".encode()
    )


@given(TREE)
def test_parts_of_nested_multiparts_come_back_in_order(tree: object) -> None:
    texts: list[str] = []
    mail = read(built(tree, set(), texts))
    assert [line for line in mail.text.split("\n") if line.startswith("text ")] == texts
    assert mail.attachments == ()


@pytest.mark.parametrize(
    "field", ["", "; boundary=", "; boundary=foo (comment)", '; boundary="foo "', "; BOUNDARY=foo"]
)
def test_boundary_that_is_badly_written_is_found(field: str) -> None:
    mail = read(f"Content-Type: multipart/mixed{field}\r\n\r\n--foo\r\n\r\nhi\r\n--foo--\r\n".encode())
    assert mail.text.strip() == "hi"


SUBTYPES = {
    "x-markdown": ("# Hello\r\n\r\ncode 482913", "# Hello\n\ncode 482913"),
    "markdown": ("# Hello\r\n\r\n*code* 482913", "# Hello\n\n*code* 482913"),
    "x-unheard-of": ("code 482913", "code 482913"),
    "x-log": ("code 482913", "code 482913"),
    "troff": ("code 482913", "code 482913"),
    "enriched": (
        "<bold>Your</bold> code\r\nis <color><param>red</param>482913</color>\r\n\r\n<<sic>",
        "Your code is 482913\n<sic>",
    ),
    "richtext": (
        "<bold>Your</bold> code\r\nis 482913<nl>a <lt> b<comment>hidden</comment>",
        "Your code is 482913\na < b",
    ),
}


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_subtype_of_text_that_is_not_known_is_text(subtype: str) -> None:
    body, text = SUBTYPES[subtype]
    assert text_of(body.encode(), f"text/{subtype}; charset=utf-8") == text
    mixed = read(multipart("mixed", part(f"text/{subtype}", body), part("text/html", "<p>h</p>")))
    assert text in mixed.text
    assert len(mixed.attachments) == (subtype not in ("markdown", "x-markdown", "enriched", "richtext"))
    named = read(multipart("mixed", part("text/plain", "t"), part(f"text/{subtype}; name=a.txt", body)))
    assert (named.text, [one.filename for one in named.attachments]) == ("t", ["a.txt"])


@pytest.mark.parametrize("subtype", ["calendar", "csv", "vcard", "rtf", "css", "xml"])
def test_data_of_a_known_subtype_of_text_is_an_attachment(subtype: str) -> None:
    mail = read(multipart("mixed", part("text/plain", "t"), part(f"text/{subtype}", "x")))
    assert (mail.text, [one.content_type for one in mail.attachments]) == ("t", [f"text/{subtype}"])


@pytest.mark.parametrize("subtype", ["csv", "css", "xml", "rfc822-headers", "javascript"])
def test_data_that_is_all_of_a_message_is_read(subtype: str) -> None:
    mail = mime.parse(HEAD + f"Content-Type: text/{subtype}\r\n\r\nYour code is 482913".encode())
    assert (mail.text, mail.codes) == ("Your code is 482913", ("482913",))


def test_enriched_text_gives_way_to_plain_text() -> None:
    mail = read(multipart("alternative", part("text/plain", "plain"), part("text/enriched", "<bold>x</bold>")))
    assert mail.text == "plain"


SUBJECTS = {
    "BOM in UTF-8": ("=?utf-8?Q?=EF=BB=BFFoo?=", "Foo"),
    "BOM in base64": ("=?utf-8?B?77u/Rm9v?=", "Foo"),
    "BOM of UTF-16": ("=?utf-16?B?//5GAG8AbwA=?=", "Foo"),
    "BOM in each word": ("=?utf-8?Q?=EF=BB=BFFoo?= =?utf-8?Q?=EF=BB=BFbar?=", "Foobar"),
    "BOM raw": ("\ufeffFoo", "Foo"),
    "raw question mark and spaces": ("=?UTF-8?Q?What are you doing? [ask]?=", "What are you doing? [ask]"),
    "question mark at the end": ("=?UTF-8?Q?Ready??=", "Ready?"),
    "question mark before an escape": ("=?UTF-8?Q?Ready?=20Go?=", "Ready? Go"),
    "spaces in base64": ("=?UTF-8?B?SGVs bG8=?=", "Hello"),
    "equals sign before an escape": ("=?UTF-8?Q?a==41?=", "a=A"),
    "no hexadecimal digits": ("=?UTF-8?Q?100=ZZ?=", "100=ZZ"),
    "cut in a character": ("=?UTF-8?B?4pw=?= =?UTF-8?B?kyBvaw==?=", "✓ ok"),
    "cut in an escape": ("=?UTF-8?Q?=E2=9C=9?= =?UTF-8?Q?3?=", "✓"),
    "cut in four digits": ("=?UTF-8?B?4pyTI?= =?UTF-8?B?G9r?=", "✓ ok"),
    "two spellings of a charset": ("=?utf-8?Q?a?= =?UTF-8?Q?b?=", "ab"),
    "words without a space": ("=?utf-8?Q?a?==?utf-8?Q?b?=", "ab"),
    "a language": ("=?utf-8*en?Q?a?=", "a"),
    "an end that is missing": ("=?utf-8?Q?Hello_you", "Hello you"),
    "a word that another breaks into": ("=?utf-8?Q?lost =?utf-8?Q?found?=", "=?utf-8?Q?lost found"),
    "no word": ("a =? b ?= c", "a =? b ?= c"),
    "raw letters in a word": ("=?utf-8?Q?ü_x?=", "ü x"),
}


@pytest.mark.parametrize("case", SUBJECTS)
def test_words_of_subjects_as_they_are_written(case: str) -> None:
    value, subject = SUBJECTS[case]
    assert subject_of(value) == subject


@given(st.text(alphabet="aä✓?= _𠮷", min_size=1, max_size=60), st.integers(1, 20), st.sampled_from("BQ"))
def test_subject_cut_anywhere_into_words_comes_back(text: str, size: int, encoding: str) -> None:
    data = text.encode()
    words = []
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        payload = base64.b64encode(piece) if encoding == "B" else b"".join(b"=%02X" % byte for byte in piece)
        words.append(b"=?utf-8?" + encoding.encode() + b"?" + payload + b"?=")
    assert subject_of(b"\r\n ".join(words)) == " ".join(text.split())


NAMES = {
    "words cut over sections": (
        'attachment; filename*0="=?UTF-8?Q?R=C3=A9sum=C3=A9?= =?UTF-8?Q?=C3=A"; filename*1="9.docx?="',
        "Résuméé.docx",
    ),
    "words in sections": (
        'attachment; filename*0="=?UTF-8?B?xb1sdXQ=?="; filename*1=" =?UTF-8?B?w70ucGRm?="',
        "Žlutý.pdf",
    ),
    "sections with a charset": (
        "attachment; filename*0*=utf-8''%C5%BD; filename*1*=lut%C3%BD; filename*2=.pdf",
        "Žlutý.pdf",
    ),
    "sections out of order": ('attachment; filename*1="b.pdf"; filename*0="a"', "ab.pdf"),
    "a word with a star": ("attachment; filename*==?utf-8?Q?=C5=BD.pdf?=", "Ž.pdf"),
    "both, the better counts": ("attachment; filename=\"Z.pdf\"; filename*=UTF-8''%C5%BD.pdf", "Ž.pdf"),
    "semicolon in quotes": ('attachment; filename="holiday~;xyz.png"', "holiday~;xyz.png"),
    "semicolon in a word": ('attachment; filename="=?UTF-8?Q?a=3Bb=3Dc.pdf?="', "a;b=c.pdf"),
    "semicolon in a bare word": ("attachment; filename==?UTF-8?Q?a=3Bb.pdf?=", "a;b.pdf"),
    "space and semicolon in a bare word": ("attachment; filename==?UTF-8?Q?a b;c.pdf?=; size=3", "a b;c.pdf"),
    "semicolon without quotes": ("attachment; filename=a;b.pdf", "a;b.pdf"),
    "semicolon and equals sign without quotes": ("attachment; filename=a;b=c.pdf", "a;b=c.pdf"),
    "quotes in a word": ('attachment; filename="=?UTF-8?Q?The_=22big=22_plan.pdf?="', "The _big_ plan.pdf"),
    "escaped quotes": ('attachment; filename="say \\"hi\\".txt"', "say _hi_.txt"),
    "quotes that are not escaped": ('attachment; filename="The "big" plan.pdf"', "The _big_ plan.pdf"),
    "quote and semicolon": ('attachment; filename="a"; b.pdf"; size=3', "a_; b.pdf"),
    "quote that does not end": ('attachment; filename="My plan.pdf', "My plan.pdf"),
    "quote that does not end, and more": ('attachment; filename="My plan.pdf; size=3', "My plan.pdf"),
    "no quotes": ("attachment; filename=My Report (final).pdf", "My Report (final).pdf"),
    "no quotes, and more": ("attachment; filename=My Report.pdf; size=3", "My Report.pdf"),
    "no semicolon": ('attachment filename="a.pdf"', "a.pdf"),
    "folded": ('attachment;\r\n\tfilename="=?utf-8?Q?a?=\r\n =?utf-8?Q?b.pdf?="', "ab.pdf"),
    "a path": ('attachment; filename="C:\\TEMP\\a.pdf"', "a.pdf"),
    "a single quote": ('attachment; filename="o\'neill.pdf"', "o'neill.pdf"),
    "spaces round the equals sign": ('attachment; filename = "a.pdf"', "a.pdf"),
    "single quotes": ("attachment; filename='a b.pdf'", "a b.pdf"),
    "a comment behind": ('attachment; filename="a.pdf" (the plan)', "a.pdf"),
    "a comment between": ('attachment; filename="a.pdf" (the plan); size=3', "a.pdf"),
    "raw UTF-8": ('attachment; filename="Žlutý.pdf"', "Žlutý.pdf"),
}


@pytest.mark.parametrize("case", NAMES)
def test_file_name_is_taken_apart_before_it_is_decoded(case: str) -> None:
    disposition, name = NAMES[case]
    mail = read(multipart("mixed", part("text/plain", "x"), part("a/b", "x", f"Content-Disposition: {disposition}")))
    assert [one.filename for one in mail.attachments] == [name]
    in_type = disposition.removeprefix("attachment").replace("filename", "name")
    mail = read(
        multipart("mixed", part("text/plain", "x"), part(f"a/b{in_type}", "x", "Content-Disposition: attachment"))
    )
    assert [one.filename for one in mail.attachments] == [name]


@pytest.mark.parametrize("charset", ["windows-1251", "gb18030", "shift_jis", "iso-8859-1"])
def test_raw_file_name_is_in_the_charset_of_the_mail(charset: str) -> None:
    names = {"windows-1251": "Договор", "gb18030": "验证码说明", "shift_jis": "ソ表示の予定", "iso-8859-1": "Müller"}
    body = UNLABELLED.get(charset, UNLABELLED["windows-1252"].replace("–", "-")).encode(charset)
    raw = multipart(
        "mixed", part("text/plain", body), part("a/b", "x", "Content-Disposition: attachment; filename=NAME")
    )
    mail = read(raw.replace(b"NAME", b'"' + names[charset].encode(charset) + b'.pdf"'))
    assert mail.attachments[0].filename == f"{names[charset]}.pdf"


PARAMETER_TEXT = st.text(alphabet="aä✓;\"\\=' ()*%?.", min_size=1, max_size=40)


@given(PARAMETER_TEXT)
def test_quoted_parameter_comes_back_whole(value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    _, found = mime_text.parameters(f'a/b; name="{quoted}"; size=3')
    assert (found["name"], found["size"]) == (value, "3")


@given(PARAMETER_TEXT, st.integers(1, 9))
def test_parameter_in_sections_of_rfc2231_comes_back_whole(value: str, size: int) -> None:
    encoded = [f"%{byte:02X}" for byte in value.encode()]
    sections = ["".join(encoded[start : start + size]) for start in range(0, len(encoded), size)]
    written = "; ".join(
        f"name*{nth}*={'utf-8' + 2 * chr(39) if not nth else ''}{one}" for nth, one in enumerate(sections)
    )
    if len(sections) <= 100:
        assert mime_text.parameters(f"a/b; {written}")[1]["name"] == value


BROKEN_HEADS = {
    "no empty line": (b"Subject: x\r\nHello, the body begins.\r\ncode 482913", "Hello, the body begins.\ncode 482913"),
    "no empty line, paragraphs": (b"Subject: x\r\nHello there\r\n\r\ncode 482913", "Hello there\n\ncode 482913"),
    "a field in the body": (
        b"Subject: x\r\nHello there\r\nNote: code 482913\r\nbye",
        "Hello there\nNote: code 482913\nbye",
    ),
    "a broken line among fields": (b"Subject: x\r\nbroken line here\r\nContent-Type: text/plain\r\n\r\ncode", "code"),
    "a broken line before the last fields": (
        b"Subject: x\r\nContent-Type: text/plain\r\nbroken line\r\nX-Spam: no\r\nList-Id: <a>\r\n\r\ncode",
        "code",
    ),
    "the border of a part": (
        b'Content-Type: multipart/mixed; boundary="a"\r\nMIME-Version: 1.0\r\n--a\r\nContent-Type: text/plain\r\n\r\n'
        b"code\r\n--a--",
        "code",
    ),
    "line feeds alone": (b"Subject: x\nHello there\ncode 482913", "Hello there\ncode 482913"),
    "a fold": (b"Subject: x\r\n y\r\nHello there", "Hello there"),
    "no header": (b"Hello there\r\n\r\ncode 482913", "Hello there\n\ncode 482913"),
    "a line of an mbox": (b"From a@b.c Mon\r\nSubject: x\r\n\r\ncode", "code"),
    "a quoted line of an mbox": (b"Subject: x\r\n>From a@b.c Mon\r\nTo: a@b.c\r\n\r\ncode", "code"),
}


@pytest.mark.parametrize("case", BROKEN_HEADS)
def test_body_begins_where_a_line_is_no_field(case: str) -> None:
    raw, text = BROKEN_HEADS[case]
    trace = b"Received: from a.example by b.example;\r\n\tTue, 1 Dec 2026 10:00:00 +0000\r\n"
    assert mime.parse(raw).text == text
    if not raw.startswith((b"From ", b"Hello")):
        assert mime.parse(trace + raw).text == text


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_parameter_at_the_beginning_of_a_line_belongs_to_the_field_before(end: bytes) -> None:
    lines = [
        b"Content-Type: multipart/mixed;",
        b'boundary="b"',
        b"",
        b"--b",
        b"Content-Type: text/plain;",
        b"charset=koi8-r",
    ]
    raw = end.join(
        [*lines, b"", "Код".encode("koi8-r"), b"--b", b"Content-Disposition: attachment;", b"filename=a.pdf"]
    )
    mail = mime.parse(b"Subject: x" + end + raw + end + end + b"x" + end + b"--b--")
    assert (mail.text.strip(), [one.filename for one in mail.attachments]) == ("Код", ["a.pdf"])


def test_part_without_an_empty_line_keeps_its_text() -> None:
    mail = read(
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\nHello there\r\n--b--\r\n"
    )
    assert mail.text.strip() == "Hello there"


TYPES = {
    "the first": ("text/plain", "text/html", "<b>x</b>", ("<b>x</b>", "")),
    "the first again": ("text/html", "text/plain", "<b>x</b>", ("x", "<b>x</b>")),
    "the second is what the body is": ("text/plain", "multipart/mixed; boundary=b", "--b\r\n\r\nx\r\n--b--", ("x", "")),
    "the second, with a usual preamble": (
        "text/plain", "multipart/mixed; boundary=b", "This is a multi-part message.\r\n--b\r\n\r\nx\r\n--b--",
        ("x", ""),
    ),
    "text in front of the parts of the second": (
        "text/plain", "multipart/mixed; boundary=b", "code 482913\r\n--b--", ("code 482913\n--b--", ""),
    ),
    "the boundary of the second": (
        "multipart/mixed; boundary=a", "multipart/mixed; boundary=b", "--b\r\n\r\nx\r\n--b--", ("x", ""),
    ),
    "the boundary of the first": (
        "multipart/mixed; boundary=b", "multipart/mixed; boundary=a", "--b\r\n\r\nx\r\n--b--", ("x", ""),
    ),
    "no boundary at all": ("multipart/mixed", "text/html", "<b>x</b>", ("x", "<b>x</b>")),
}  # fmt: skip


@pytest.mark.parametrize("case", TYPES)
def test_of_two_content_types_the_first_counts_unless_the_body_is_the_second(case: str) -> None:
    first, second, body, expected = TYPES[case]
    mail = read(f"Content-Type: {first}\r\nContent-Type: {second}\r\n\r\n{body}".encode())
    assert (mail.text.strip(), mail.html) == expected


FLOWED = {
    "one paragraph": ("a \nb \nc", "no", "a b c"),
    "delsp": ("48 \n2193", "yes", "482193"),
    "quotes": ("> a \n> b\n>> c\nd", "no", "> a b\n>> c\nd"),
    "space stuffing": (" From here\n > no quote", "no", "From here\n> no quote"),
    "signature": ("a\n-- \nb \nc", "no", "a\n-- \nb c"),
    "signature behind a paragraph": ("a \n-- \nb", "no", "a \n-- \nb"),
    "another depth ends it": ("> a \nb", "no", "> a \nb"),
    "an empty line": ("a \n\nb", "no", "a \nb"),
}


@pytest.mark.parametrize("case", FLOWED)
def test_flowed_text_is_unwrapped(case: str) -> None:
    text, delsp, expected = FLOWED[case]
    assert text_of(text.encode(), f"text/plain; format=flowed; delsp={delsp}") == expected
    assert text_of(text.encode(), f'text/plain; Format="Flowed"; DelSp="{delsp.title()}"') == expected
    assert text_of(text.encode()) == text


@given(st.lists(st.text(alphabet="ab>", min_size=1, max_size=12), min_size=1, max_size=30), st.integers(4, 20))
def test_flowed_paragraph_comes_back_whole(words: list[str], width: int) -> None:
    lines, line = [], ""
    for word in words:
        if line and len(line) + len(word) > width:
            lines.append(line)
            line = ""
        line += word + " "
    lines.append(line.rstrip(" "))
    stuffed = [" " + one if one.startswith((">", " ", "From ")) else one for one in lines]
    assert plaintext.flowed("\n".join(stuffed)) == " ".join(words)


URLS = {
    "two lines": ("go <https://example.org/a/\nb?c=1> now", "go <https://example.org/a/b?c=1> now"),
    "three lines and spaces": ("<https://example.org/a\n  b\n  c>", "<https://example.org/abc>"),
    "URL:": ("<URL:https://example.org/a\nb>", "<https://example.org/ab>"),
    "quoted": ("> <https://example.org/a\n> b>", "> <https://example.org/ab>"),
    "one line": ("<https://example.org/a>", "<https://example.org/a>"),
    "words behind": ("<https://example.org/a\nand more words>", "<https://example.org/a\nand more words>"),
    "no bracket": ("<https://example.org/a\nb", "<https://example.org/a\nb"),
}


@pytest.mark.parametrize("case", URLS)
def test_address_in_brackets_over_lines_is_one(case: str) -> None:
    text, expected = URLS[case]
    assert text_of(text.replace("\n", "\r\n").encode()) == expected


def uuencoded(name: str, data: bytes) -> str:
    lines = [binascii.b2a_uu(data[start : start + 45]).decode() for start in range(0, len(data), 45)]
    return f"begin 644 {name}\n{''.join(lines)}`\nend\n"


@given(st.binary(min_size=1, max_size=300), st.sampled_from(["a.bin", "my file.txt"]))
def test_uuencoded_file_in_a_text_is_an_attachment(data: bytes, name: str) -> None:
    text = f"Hello\n{uuencoded(name, data)}bye\n{uuencoded('second', b'x')}".replace("\n", "\r\n")
    for entity in (part("text/plain", text), multipart("mixed", part("text/plain", text), part("a/b; name=c", "x"))):
        mail = read(entity)
        assert mail.text == "Hello\nbye\n"
        files = [one for one in mail.attachments if one.filename != "c"]
        assert [(one.number, one.filename, one.size) for one in files] == [
            ("1.1", name, len(data)),
            ("1.2", "second", 1),
        ]
        served = mime.attachment(HEAD + entity, "1.1")
        assert served is not None
        assert served == (files[0], data)


@pytest.mark.parametrize(
    "text", ["begin 644 a\nHello there\nend\n", "begin the day\n", "begin 644 a\n%:&5L;&\\\n", "I begin 644 a\n"]
)
def test_text_that_only_begins_like_uuencode_stays(text: str) -> None:
    assert text_of(text.encode()) == text


def test_text_without_a_label_is_western_where_there_is_no_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charsets, "EncodingDetector", None)
    assert text_of("Grüße".encode("cp1252")) == "Grüße"
    assert text_of("Grüße".encode()) == "Grüße"


def test_detector_looks_at_a_bounded_sample() -> None:
    guess = Guess()
    for _ in range(100):
        guess.add("Ваш код ".encode("koi8-r") * 10_000)
    assert sum(map(len, guess._pieces)) <= 3 * 4_096
