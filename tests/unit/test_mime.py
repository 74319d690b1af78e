"""Raw bytes to values: charsets, structure, bounds. Every message here is made by the test."""

import base64
import os
import quopri
import re
from datetime import UTC, datetime
from email.message import EmailMessage

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.model import html_page, mime
from server.model.mime import parts as mime_parts
from server.model.mime import text as mime_text
from server.smtp.eod import normalise

HEAD = b"From: Alice <alice@example.org>\r\nTo: bob@example.net\r\nSubject: Hello\r\n"


def check(mail: mime.Mail) -> None:
    """What holds for every result: it can be encoded and stored, and it is bounded."""
    encoded = orjson.dumps([getattr(mail, name) for name in mail.__struct_fields__], default=repr)
    assert b"\\u0000" not in encoded
    for attachment in mail.attachments:
        assert "\0" not in attachment.filename + attachment.content_type
        assert len((attachment.filename + attachment.content_type).encode()) <= 500
    assert len(mail.subject) <= mime.MAX_SUBJECT
    assert max(len(mail.sender), len(mail.to), len(mail.cc), len(mail.reply_to)) <= mime.MAX_ADDRESSES
    assert len(mail.text) <= mime.MAX_TEXT
    assert len(mail.html) <= mime.MAX_HTML
    assert len(mail.preview) <= mime.MAX_PREVIEW
    assert len(mail.attachments) <= mime_parts.MAX_PARTS


def parse(raw: bytes) -> mime.Mail:
    mail = mime.parse(raw)
    check(mail)
    return mail


def multipart(*parts: bytes, subtype: bytes = b"mixed", boundary: bytes = b"b") -> bytes:
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    return b'Content-Type: multipart/%s; boundary="%s"\r\n\r\n%s--%s--\r\n' % (subtype, boundary, body, boundary)


def test_message_of_another_library_comes_back_whole() -> None:
    message = EmailMessage()
    message["Subject"] = "Grüße ✓ " * 10
    message["From"] = "Jürgen Müller <j@example.org>"
    message["To"] = "a@example.net, b@example.net"
    message["Cc"] = "c@example.net"
    message["Reply-To"] = "r@example.org"
    message["Date"] = "Mon, 23 Nov 2026 05:00:00 +0100"
    message["Message-ID"] = "<x@example.org>"
    message.set_content("Your code is 482 193\n")
    message.add_alternative('<p>Your code</p><a href="https://example.org/verify?t=1">Verify</a>', subtype="html")
    message.add_attachment(b"\0\1\2", maintype="application", subtype="pdf", filename="Müller ✓.pdf")
    mail = parse(message.as_bytes())
    assert mail.subject == ("Grüße ✓ " * 10).strip()
    assert mail.sender == "Jürgen Müller <j@example.org>"
    assert (mail.to, mail.cc, mail.reply_to) == ("a@example.net, b@example.net", "c@example.net", "r@example.org")
    assert mail.date == datetime(2026, 11, 23, 4, tzinfo=UTC)
    assert mail.message_id == "<x@example.org>"
    assert mail.text == "Your code is 482 193\n"
    assert mail.preview == "Your code is 482 193"
    assert "<p>Your code</p>" in mail.html
    assert mail.attachments == (mime.Attachment("2", "Müller ✓.pdf", "application/pdf", 3, "", "attachment"),)
    assert mail.codes == ("482193",)
    assert mail.links == ("https://example.org/verify?t=1",)
    assert mail.defect is None
    found = mime.attachment(message.as_bytes(), "2")
    assert found is not None
    assert found[1] == b"\0\1\2"


SAMPLES = {
    "gb2312": "您的验证码是八七六五",
    "GBK": "您的驗證碼",
    "gb18030": "您的验证码𠮷",
    "big5": "您的驗證碼",
    "big5-hkscs": "驗證碼嘅嘢",
    "shift_jis": "認証コード",
    "cp932": "①②㈱認証コード",
    "euc-jp": "認証コード",
    "iso-2022-jp": "認証コード",
    "euc-kr": "인증번호",
    "ks_c_5601-1987": "인증번호",
    "iso-2022-kr": "인증번호",
    "koi8-r": "Код подтверждения",
    "windows-1251": "Код подтверждения",
    "iso-8859-1": "Grüße",
    "iso-8859-2": "zażółć",
    "iso-8859-7": "κωδικός",
    "iso-8859-8-i": "קוד",
    "iso-8859-9": "doğrulama",
    "iso-8859-15": "10 €",
    "windows-1256": "رمز",
    "tis-620": "รหัสยืนยัน",
    "utf-7": "Hi Mom -☺-!",
    "utf-16": "код ✓",
    "utf-8": "код ✓ 👍",
}
PYTHON_NAMES = {"iso-8859-8-i": "iso-8859-8", "ks_c_5601-1987": "cp949"}


@pytest.mark.parametrize("charset", SAMPLES)
def test_charset_in_subject_and_body(charset: str) -> None:
    text = SAMPLES[charset]
    data = text.encode(PYTHON_NAMES.get(charset, charset))
    word = b"=?" + charset.encode() + b"?B?" + base64.b64encode(data) + b"?="
    head = b"Subject: " + word + b'\r\nContent-Type: text/plain; charset="' + charset.encode() + b'"\r\n'
    for encoding, body in ((b"base64", base64.encodebytes(data)), (b"quoted-printable", quopri.encodestring(data))):
        mail = parse(head + b"Content-Transfer-Encoding: " + encoding + b"\r\n\r\n" + body)
        assert mail.subject == text
        assert mail.text.rstrip("\n") == text


@pytest.mark.parametrize("charset", ["gb18030", "windows-1251", "koi8-r", "iso-8859-1", "utf-8", "shift_jis"])
def test_undeclared_charset_is_guessed(charset: str) -> None:
    latin_and_kana = {"iso-8859-1": "Die Frösche grüßen", "shift_jis": "コードをにゅうりょく"}
    text = latin_and_kana.get(charset, SAMPLES[charset] * 3)
    data = text.encode(charset)
    mail = parse(b"Subject: " + data + b"\r\n\r\n" + data)
    assert mail.text == text
    assert mail.subject == text


@pytest.mark.parametrize(
    "label",
    [
        "zlib",
        "rot13",
        "unicode_escape",
        "raw_unicode_escape",
        "idna",
        "punycode",
        "base64",
        "hex",
        "undefined",
        "mbcs",
        "",
        "x" * 5000,
        "\0",
    ],
)
def test_codec_that_is_no_charset_is_not_used(label: str) -> None:
    raw = b"Subject: =?" + label.encode() + b'?Q?abc?=\r\nContent-Type: text/plain; charset="' + label.encode()
    mail = parse(raw + b'"\r\n\r\nhello \\u0041 =41')
    assert mail.text == "hello \\u0041 =41"


def test_text_called_latin1_that_is_utf8_is_read_as_utf8() -> None:
    assert parse(b"Content-Type: text/plain; charset=iso-8859-1\r\n\r\n" + "✓ ja".encode()).text == "✓ ja"


@pytest.mark.parametrize(
    "raw",
    [
        b"Subject: a\0b\r\n\r\nx\0y",
        b"Subject: =?utf-8?B?AGFi?=\r\nContent-Transfer-Encoding: base64\r\n\r\nAGFi",
        b"Subject: =?utf-7?Q?+2AA-?=\r\nContent-Type: text/html; charset=utf-7\r\n\r\n<b>+2AA-&#0;&#xD800;</b>",
        b"Subject: =?utf-16?B?ANg=?=\r\nContent-Type: text/plain; charset=utf-16le\r\n\r\n\x00\xd8",
        b"Subject: \xed\xa0\x80\r\nFrom: \xff\xfe\r\n\r\n\xed\xa0\x80",
        b"Content-Type: a/b; name*=utf-8''%00%ED%A0%80.txt\r\n\r\nx",
    ],
)
def test_neither_nul_nor_surrogate_gets_out(raw: bytes) -> None:
    mail = parse(raw)
    for text in (
        mail.subject,
        mail.sender,
        mail.text,
        mail.html,
        mail.preview,
        *(a.filename for a in mail.attachments),
    ):
        assert "\0" not in text
        text.encode()


def test_encoded_words_of_one_character_split_in_two_are_joined() -> None:
    data = "✓".encode()
    words = b" ".join(b"=?utf-8?B?" + base64.b64encode(piece) + b"?=" for piece in (b"a" + data[:2], data[2:] + b"b"))
    assert parse(b"Subject: " + words + b"\r\n\r\n").subject == "a✓b"


def test_decoded_name_cannot_pass_for_the_address() -> None:
    mail = parse(b"From: =?utf-8?Q?bank=40example=2Ecom_=3Cbank=40example=2Ecom=3E=2C?= <evil@example.net>\r\n\r\n")
    assert mail.sender == '"bank@example.com <bank@example.com>," <evil@example.net>'


def test_header_value_is_one_line() -> None:
    mail = parse(b"Subject: =?utf-8?Q?a=0D=0AX-Evil:=20b=1B[31m?=\r\n\tfolded\r\n\r\n")
    assert mail.subject == "a X-Evil: b[31m folded"


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("Mon, 23 Nov 2026 05:00:00 +0000", datetime(2026, 11, 23, 5, tzinfo=UTC)),
        ("23 Nov 2026 05:00 -0830", datetime(2026, 11, 23, 13, 30, tzinfo=UTC)),
        ("Mon, 23 Nov 2026 05:00:60 GMT", datetime(2026, 11, 23, 5, 0, 59, tzinfo=UTC)),
        ("Mon, 23 Nov 99 05:00:00 EST", datetime(1999, 11, 23, 10, tzinfo=UTC)),
        ("Mon, 23 Nov 292277 05:00:00 +0000", None),
        ("Mon, 31 Feb 2026 05:00:00 +0000", None),
        ("Mon, 23 Nov 2026 05:00:00 +9999", None),
        ("1 Jan 0001 00:00:00 +0100", None),
        ("23 Xyz 2026 05:00:00 +0000", None),
        ("yesterday", None),
        ("(" * 5000, None),
        (" " * 30000 + "x", None),
    ],
)
def test_date_of(value: str, moment: datetime | None) -> None:
    assert parse(b"Date: " + value.encode() + b"\r\n\r\n").date == moment


@pytest.mark.parametrize(
    ("field", "filename"),
    [
        (b'attachment; filename="a b.pdf"', "a b.pdf"),
        (b"attachment; filename*=iso-8859-1''%E4.pdf", "ä.pdf"),
        (b"attachment; filename*0*=utf-8''%C3; filename*1*=%A4; filename*2=.pdf", "ä.pdf"),
        (b'attachment; filename="=?utf-8?B?w6QucGRm?="', "ä.pdf"),
        (b'attachment; filename="../../etc/passwd"', "passwd"),
        (b'attachment; filename="a\r\n\tb.pdf"', "ab.pdf"),
        (b"attachment", "part-1.pdf"),
    ],
)
def test_file_name_of(field: bytes, filename: str) -> None:
    raw = HEAD + b"Content-Type: application/pdf\r\nContent-Disposition: " + field + b"\r\n\r\nx"
    assert [a.filename for a in parse(raw).attachments] == [filename]


def test_part_numbers_lead_to_the_bytes_that_were_listed() -> None:
    inner = multipart(
        b"\r\nfirst", b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC", boundary=b"i"
    )
    quoted = b"Content-Type: a/b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=41=\r\nB"
    forwarded = b"Content-Type: message/rfc822\r\n\r\n" + HEAD + b"\r\ninner"
    raw = HEAD + multipart(inner, quoted, forwarded)
    mail = parse(raw)
    assert mail.text == "first"
    assert [(a.number, a.size) for a in mail.attachments] == [("1.2", 3), ("2", 2), ("3", len(HEAD) + 7)]
    for listed in mail.attachments:
        found = mime.attachment(raw, listed.number)
        assert found is not None
        assert found[0] == listed
        assert len(found[1]) == listed.size
    assert mime.attachment(raw, "9") is None


@pytest.mark.parametrize("encoded", [b"AAA=BBB!!!\xff\xfe=C", b"A", b"AAAAA", b"====", b"\xff" * 100])
def test_broken_base64_gives_what_it_holds(encoded: bytes) -> None:
    raw = HEAD + b"Content-Type: a/b\r\nContent-Transfer-Encoding: base64\r\n\r\n" + encoded
    parse(raw)
    assert mime.attachment(raw, "1") is not None


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", ""),
        (b"\r\n", ""),
        (b"just text", "just text"),
        (b"Subject: x\n\nbare line feeds\n", "bare line feeds\n"),
        (b"\r\nbody after an empty header", "body after an empty header"),
        (HEAD, ""),
        (HEAD + b"\r\n.\r\n..\r\n...\r\n", ".\n..\n...\n"),
        (HEAD + b"Content-Type: multipart/mixed\r\n\r\nno boundary", "no boundary"),
        (HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\nno part", "no part"),
        (
            HEAD + b"Content-Type: multipart/mixed\r\n boundary=b\r\n\r\n--b\r\n\r\nno semicolon\r\n--b--",
            "no semicolon",
        ),
        (HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nunclosed", "unclosed"),
        (HEAD + b"Content-Type: nonsense\r\n\r\nx", "x"),
        (HEAD + multipart(multipart(b"\r\nsame boundary")), "same boundary"),
        (HEAD + b"\r\n" + b"x" * 5000, "x" * 5000),
    ],
)
def test_odd_structure_still_shows_its_text(raw: bytes, text: str) -> None:
    mail = parse(raw)
    assert mail.text == text
    assert mail.defect is None


def test_text_is_derived_where_there_is_only_html() -> None:
    table = b"<table><tr><td>482</td><td>193</td></tr></table>"
    html = b"<style>p{}</style><p>Your&nbsp;code:</p>\r\n" + table + b"<script>x</script>"
    mail = parse(HEAD + b"Content-Type: text/html\r\n\r\n" + html)
    assert mail.text == "Your code:\n\n482 193"
    assert mail.codes == ("482193",)


def test_file_of_text_is_an_attachment_and_a_footer_is_text() -> None:
    named = b'Content-Type: text/plain\r\nContent-Disposition: attachment; filename="a.txt"\r\n\r\nfile'
    mail = parse(HEAD + multipart(b"\r\nbody", named, b"\r\nfooter"))
    assert mail.text == "body\nfooter"
    assert [a.filename for a in mail.attachments] == ["a.txt"]


def nested(depth: int) -> bytes:
    levels = (b"Content-Type: multipart/mixed; boundary=b%05d\r\n\r\n--b%05d\r\n" % (i, i) for i in range(depth))
    return HEAD + b"".join(levels) + b"\r\ndeep"


@pytest.mark.parametrize(
    ("raw", "defect"),
    [
        (nested(99), None),
        (nested(101), "depth"),
        (nested(20_000), "depth"),
        (HEAD + b"Content-Type: message/rfc822\r\n\r\n" * 100_000, None),
        (HEAD + b"\r\n".join([b"Content-Type: message/rfc822\r\n"] * 1000), None),
        (b"X-A: b\r\n" * 100_000 + b"\r\nhi", "header bytes"),
        (HEAD + b"a:\n" * 2000 + b"\r\nhi", "header count"),
        (b"Subject: " + b"a" * 1_000_000 + b"\r\n\r\nhi", "header bytes"),
        (HEAD + multipart(*[b"\r\nx"] * 20_000), "parts"),
        (HEAD + multipart(*[b"Content-Type: a/b\r\n\r\nx"] * 300), "parts"),
        (HEAD + multipart(b"\r\n" + b"\r\n--bx" * 20_000), "boundaries"),
        (HEAD + multipart(*[b"a:b\n" * 100 + b"\r\nx"] * 900), "header count"),
        (HEAD + multipart(b"a:" + b"b" * 50_000 + b"\r\n\r\nx"), "header bytes"),
        (HEAD + b"\r\n" + b"x" * 2_000_000, "text bytes"),
        (HEAD + b"Content-Type: text/html\r\n\r\n" + b"x" * 3_000_000, "html bytes"),
        (b"Subject: " + b"=?utf-8?q?a?= " * 6_000 + b"\r\n\r\nx", None),
        (b"To: " + b"a@example.org, " * 6_000 + b"\r\n\r\nx", None),
        (b"Subject: " + b"=?" * 40_000 + b"\r\n\r\nx", None),
        (HEAD + b"Content-Type: a/b" + b"; a*0*=%41" * 5_000 + b"\r\n\r\nx", None),
        (HEAD + b"Content-Type: a/b;" + b' a="\\' * 5_000 + b"\r\n\r\nx", None),
    ],
)
def test_broken_bound_is_named_and_the_rest_still_shown(raw: bytes, defect: str | None) -> None:
    mail = parse(raw)
    assert mail.defect == defect
    mime.headers(raw)
    mime.attachment(raw, "1")


@pytest.mark.parametrize(
    "charset", ["utf-8", "utf-7", "utf-16", "gb18030", "iso-2022-jp", "iso-2022-kr", "hz", "big5", "x"]
)
@pytest.mark.parametrize("unit", [b"\xff", b"\x00\xd8", b"\x1b$(", b"\x81", b"<", b"&#1", b"\n", b"=", b"  ;"])
def test_megabytes_of_one_fragment_are_read_in_bounded_time(charset: str, unit: bytes) -> None:
    body = unit * (3_000_000 // len(unit))
    for subtype in ("plain", "html"):
        parse(HEAD + f"Content-Type: text/{subtype}; charset={charset}\r\n\r\n".encode() + body)


def test_headers_are_decoded_ordered_and_bounded() -> None:
    raw = b"Received: by a;\r\n\tlater\r\nSubject: =?utf-8?Q?=E2=9C=93?=\r\nno field\r\nreceived: b\r\n\r\nX: y"
    assert mime.headers(raw) == [("Received", "by a; later"), ("Subject", "✓"), ("received", "b")]
    many = mime.headers(b"a: b\r\n" * 50_000)
    assert len(many) == mime_parts.MAX_HEADERS


def test_large_mail_is_not_cheap() -> None:
    assert mime.is_cheap(b"x" * 1000)
    assert not mime.is_cheap(b"x" * 2_000_000)


@pytest.mark.parametrize(
    ("head", "unit"),
    [
        (b"Content-Type: text/html", b"<p>1"),
        (b"Content-Type: text/html", b"<table><tr><td>1"),
        (b"Content-Type: TEXT/HTML\r\nContent-Transfer-Encoding: quoted-printable", b"=3Cp=3E1"),
        (b"Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable", b"=3cp=3e1"),
        (b"Content-Type: text/html\r\nContent-Transfer-Encoding: base64", b"PHA+MTxwPjE8"),
        (b"Content-Type: application/xhtml+xml", b"<b>x"),
        (b"Content-Type: application/ms-tnef", b"abcd"),
        (b"Content-Type: application/pkcs7-mime", b"abcd"),
        (b"Content-Type: application/octet-stream; name=winmail.dat", b"abcd"),
        (b"Content-Type: text/ht\x1b(Bml", b"<p>1"),
    ],
)
def test_page_of_many_tags_is_left_to_a_child(head: bytes, unit: bytes) -> None:
    assert not mime.is_cheap(head + b"\r\n\r\n" + unit * (60_000 // len(unit)))
    assert mime.is_cheap(head + b"\r\n\r\n" + unit * (20_000 // len(unit)))


def test_large_text_and_page_of_few_tags_are_cheap() -> None:
    assert mime.is_cheap(b"Subject: x\r\n\r\n" + b"a line < of text & more\r\n" * 20_000)
    assert mime.is_cheap(b"Content-Type: text/html\r\n\r\n" + b"<p>" + b"a word " * 10_000)


def test_page_is_read_at_receipt_only_where_a_link_or_a_code_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = html_page.read
    monkeypatch.setattr(html_page, "read", lambda html: (read.append(html), real(html))[1])

    def reads(text: bytes, html: bytes) -> int:
        read.clear()
        mime.parse(
            b"Subject: x\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n\r\n"
            + text
            + b"\r\n--b\r\nContent-Type: text/html\r\n\r\n"
            + html
            + b"\r\n--b--\r\n"
        )
        return len(read)

    assert not reads(b"hello", b"<p style='width:100px'>Nothing but words</p>")
    assert not reads(b"your code is 482193", b"<p>your code is 482193</p>")
    assert reads(b"hello", b"<p>your code is <b>482193</b></p>")
    assert reads(b"hello", b"<p>your code is <b>4</b><b>8</b><b>2</b><b>1</b></p>")
    assert reads(b"hello", b"<p>your c&#111;de is &#52;821</p>")
    assert reads(b"hello", b"<a HREF='https://example.org/'>x</a>")


PIECES = st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"--b",
        b"--b--",
        b"--",
        b":",
        b";",
        b"=",
        b'"',
        b"\\",
        b"\0",
        b"\xff",
        b"=?utf-8?q?",
        b"?=",
        b"<p>",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n",
        b"Content-Type: text/html; charset=utf-7\r\n",
        b"Content-Transfer-Encoding: base64\r\n",
        b"Content-Disposition: attachment; filename*0*=",
        b"Subject: ",
        b"Date: ",
        b"From: ",
        b"code: 1234",
        b"https://",
        "码".encode(),
        b"+2AA-",
        b"\x1b$B",
        b"Mon, 1 Jan 2026 00:00:00 +0000",
    ]
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.one_of(st.binary(max_size=2000), st.lists(st.one_of(PIECES, st.binary(max_size=8)), max_size=60).map(b"".join))
)
def test_any_bytes_are_a_mail(raw: bytes) -> None:
    mail = parse(raw)
    orjson.dumps(mime.headers(raw))
    for listed in mail.attachments:
        assert mime.attachment(raw, listed.number) is not None


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=300))
def test_text_survives_any_transfer_encoding(text: str) -> None:
    data = text.encode()
    head = HEAD + b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: "
    assert parse(head + b"base64\r\n\r\n" + base64.encodebytes(data)).text == text
    assert parse(head + b"8bit\r\n\r\n" + data).text == text


@given(st.binary(max_size=3000))
def test_size_of_an_attachment_is_that_of_its_bytes(data: bytes) -> None:
    raw = HEAD + b"Content-Type: a/b\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(data)
    (listed,) = parse(raw).attachments
    found = mime.attachment(raw, "1")
    assert found is not None
    assert (found[1], listed.size) == (data, len(data))


def test_random_bytes_of_any_charset_decode_to_clean_text() -> None:
    noise = os.urandom(20_000)
    for label in (*SAMPLES, "utf-32", "johab", "hz-gb-2312", "macintosh", "ibm866"):
        text = mime_text.decode(noise, label)
        assert "\0" not in text
        text.encode()


FIELD_NAMES = st.sampled_from(
    [
        b"Subject",
        b"From",
        b"to",
        b"TO",
        b"Cc",
        b"Reply-To",
        b"dAtE",
        b"Message-ID",
        b"Content-Type",
        b"content-transfer-encoding",
        b"Content-Disposition",
        b"Content-ID",
        b"Content-Location",
        b"Received",
        b"X-To",
        b"Tom",
        b"",
        b" Subject",
        b"From me",
    ]
)
FIELD_VALUES = st.one_of(
    st.sampled_from(
        [
            b" Hello",
            b"a: b",
            b"=?utf-8?Q?=E2=9C=93?= x",
            b" \xe2\x9c\x93 \xff",
            b" a\0b",
            b"text/plain",
            b" text/plain; charset=utf-8",
            b' Text/Plain;\tcharset="iso-2022-jp"',
            b"text/plain; charset=utf-16; name=a.txt",
            b"text/html",
            b"multipart/mixed; boundary=b",
            b"multipart/mixed",
            b'multipart/related; boundary=b; type="text/html"; start="<a>"',
            b"multipart/alternative; boundary=b",
            b"text/plain; format=flowed; delsp=yes",
            b"text/enriched",
            b"text/calendar; method=REQUEST",
            b"application/ms-tnef",
            b"application/pkcs7-mime",
            b'a/b; name="=?utf-8?Q?a;b',
            b"a/b; name*0*=utf-8''%E2; name*1=%9C",
            b' "base64"',
            b"x-uuencode",
            b"<a>",
            b"nonsense",
            b" 7bit",
            b"8BIT ",
            b" base64",
            b"quoted-printable",
            b" inline",
            b'attachment; filename="a"',
            b" Mon, 23 Nov 2026 05:00:00 +0100",
        ]
    ),
    st.binary(max_size=12),
)
SPACES = st.sampled_from([b"", b"", b"", b" ", b"\t", b"\r", b"\v", b"\r\n ", b"\n\t", b"\r\n \r\n\t"])
LINE_ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n"])
FIELDS = st.tuples(FIELD_NAMES, SPACES, st.just(b":"), SPACES, FIELD_VALUES, SPACES, FIELD_VALUES, LINE_ENDS).map(
    b"".join
)
BODIES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"\r\n",
                b"\n",
                b"\r",
                b"\0",
                b"\xe2\x9c\x93",
                b"\xff",
                b"--b",
                b"--b--",
                b"Subject: x\r\n",
                b"Content-Type: text/html\r\n",
                b"<img src='cid:a'><meta charset=koi8-r>",
                b"\nbegin 644 a\n%:&5L;&\\\n`\nend\n",
                b" \r\n> ",
                b"<https://a.b/\r\nc>",
                b"BEGIN:VEVENT\nDTSTART:20260715T100000Z\nEND:VEVENT\n",
                b"\x78\x9f\x3e\x22\x01\x00\x02\x02\x90\x06\x00\x00\x00\x00\x00\x00\x00",
                b"\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02\xa0\x80\x30\x80",
                b"\r\n\r\n",
                b"code: 1234 ",
                b"  ",
                b"=41",
                b"QUJD",
                b"http://a.b/",
                b"\x1b$B!!",
            ]
        ),
        st.binary(max_size=10),
    ),
    max_size=12,
).map(b"".join)
MAILS = st.tuples(
    st.lists(FIELDS, max_size=8).map(b"".join), st.sampled_from([b"", b"\r\n", b"\n", b"\r\n\r\n"]), BODIES
).map(b"".join)


@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(MAILS)
def test_plain_mail_read_directly_is_what_the_part_tree_gives(raw: bytes) -> None:
    direct = parse(raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mime, "_is_plain", lambda head: False)
        assert mime.parse(raw) == direct


@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.one_of(MAILS, st.lists(FIELDS, max_size=8).map(b"".join), st.binary(max_size=60)))
def test_fields_found_in_one_pass_are_those_found_line_by_line(block: bytes) -> None:
    shown = (
        b"subject from to cc reply-to date message-id content-type content-transfer-encoding content-disposition "
        b"content-id content-location"
    )
    expected: dict[bytes, bytes] = {}
    for line in re.sub(rb"\r?\n(?=[ \t])", b"", block).split(b"\n"):
        name, colon, value = line.partition(b":")
        if colon and name.rstrip().lower() in shown.split():
            expected.setdefault(name.rstrip().lower(), value)
    found = mime_parts.fields(block)
    found.pop(mime_parts.SECOND_TYPE, None)
    assert found == expected


@given(st.text(alphabet=st.sampled_from("ab \n\r\t\u00a0\u2028\x1b\x1f✓"), max_size=400))
def test_preview_is_the_beginning_folded(text: str) -> None:
    start = mime_text.one_line(text[:240], 200)
    expected = mime_text.one_line(text[:4000], 200) if len(start) < 200 < len(text) else start
    assert mime_text.preview(text, 200) == expected


def test_field_is_cut_where_its_value_is_too_long() -> None:
    assert len(mime_parts.fields(b"To: " + b"x" * 50_000)[b"to"]) == 32_768


@given(
    st.lists(
        st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"\0", "ü".encode(), b"\x1b$B", b"+AOk-", b"\xff"]), max_size=40
    ),
    st.sampled_from(["", "utf-8", "us-ascii", "iso-2022-jp", "utf-7", "utf-16", "gb2312", "unknown"]),
)
def test_lines_decoded_in_one_go_are_those_decoded_in_two_steps(pieces: list[bytes], charset: str) -> None:
    data = b"".join(pieces)
    assert mime_text.decode_lines(data, charset) == mime_text.newlines(mime_text.decode(data, charset))


@given(MAILS)
def test_the_text_alone_is_the_text_of_the_whole(raw: bytes) -> None:
    assert mime.views(raw) == (mime.parse(raw).text, mime.parse(raw).html)


@given(MAILS | st.binary(max_size=300))
def test_mail_known_to_have_no_bare_newline_reads_as_any(raw: bytes) -> None:
    clean = normalise(raw)
    assert mime.parse(clean, crlf=True) == mime.parse(clean)
