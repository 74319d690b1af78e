"""Kinds of misreading: five and more siblings of each, with the right values by the standards.

Each kind is a number of a list of public bug reports of comparable software, or a word for a container. What is right
is what RFC 2045 to 2047, 2231, 2387, 3676, 8621 and the HTML and Encoding Standards say.
"""

import base64
from typing import Any

import pytest

from server.model.mime import parse
from server.model.sanitise import sanitise

CASES: list[tuple[str, bytes, dict[str, Any]]] = []


def add(kind: int | str, raw: bytes, **right: Any) -> None:
    CASES.append((str(kind), raw, right))


def mail(body: bytes | str, *heads: str) -> bytes:
    fields = "".join(f"{head}\r\n" for head in ("From: a@example.org", "Subject: Hi", "MIME-Version: 1.0", *heads))
    return fields.encode() + b"\r\n" + (body if isinstance(body, bytes) else body.encode())


def part(body: bytes | str, *heads: str) -> bytes:
    return ("\r\n".join(heads) + "\r\n\r\n").encode() + (body if isinstance(body, bytes) else body.encode())


def multi(subtype: str, *parts: bytes, params: str = "") -> bytes:
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"
    return mail(body, f'Content-Type: multipart/{subtype}; boundary="b"{params}')


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def titled(subject: bytes | str) -> bytes:
    subject = subject if isinstance(subject, bytes) else subject.encode()
    return b"From: a@example.org\r\nSubject: " + subject + b"\r\n\r\nx\r\n"


def image(*heads: str) -> bytes:
    return part("aGVsbG8=", "Content-Type: image/png", "Content-Transfer-Encoding: base64", *heads)


def labelled(body: bytes, kind: str = "Content-Type: text/html") -> bytes:
    return mail(body, kind, "Content-Transfer-Encoding: 8bit")


def named(*heads: str) -> bytes:
    file = part("eA==", "Content-Type: application/octet-stream", "Content-Transfer-Encoding: base64", *heads)
    return multi("mixed", part("t", T), file)


def alternative(text: str, html: str) -> bytes:
    return multi("alternative", part(text, T), part(html, H))


H = "Content-Type: text/html; charset=utf-8"
T = "Content-Type: text/plain; charset=utf-8"

# 1 findable parts
add(
    1,
    multi("related", part('<img src="cid:a%40b">', H), image("Content-ID: <a@b>")),
    contentId=["a@b"],
    inline=[True],
    hasAttachments=False,
)
add(
    1,
    multi("related", part('<img src="pic/x.png">', H), image("Content-Location: pic/x.png")),
    inline=[True],
    hasAttachments=False,
)
add(
    1,
    multi(
        "mixed", part("<p>x</p>", H), image('Content-Disposition: attachment; filename="a.png"', "Content-ID: <z@b>")
    ),
    inline=[False],
    hasAttachments=True,
)
add(
    1,
    multi("related", part('<div style="background:url(cid:bg1)">x</div>', H), image("Content-ID: <bg1>")),
    inline=[True],
    hasAttachments=False,
)
add(
    1,
    multi("alternative", part("t", T), part("<p>amp</p>", "Content-Type: text/x-amp-html"), part("<p>h</p>", H)),
    hasAttachments=False,
    text_has=["t"],
    html_has=["h"],
)
# 2 related root not first
add(
    2,
    multi("related", image("Content-ID: <i>"), part("<b>Root</b>", H, "Content-ID: <root>"), params='; start="<root>"'),
    html_has=["Root"],
)
add(
    2,
    multi(
        "related",
        image("Content-ID: <i>"),
        part("<b>Root</b>", H, "Content-ID: <root>"),
        params='; start="<root>"; type="text/html"',
    ),
    html_has=["Root"],
)
add(
    2,
    multi("related", image("Content-ID: <i>"), part("<b>Root</b>", H), params='; type="text/html"'),
    html_has=["Root"],
)
add(
    2,
    multi("related", part("<b>Root</b>", H), image("Content-ID: <i>"), params='; start="<nowhere>"'),
    html_has=["Root"],
)
add(
    2,
    multi(
        "related",
        part("<p>Other</p>", H, "Content-ID: <o>"),
        part("<b>Root</b>", H, "Content-ID: <r@x>"),
        params="; start=r@x",
    ),
    html_has=["Root"],
)
# 3 side by side
add(
    3,
    multi("mixed", part("one", T), part("<p>two</p>", H), part("three", T)),
    text_has=["one", "two", "three"],
    html_has=["one", "two", "three"],
)
add(3, multi("mixed", part("one", T), part("two", T)), text_has=["one", "two"])
add(3, multi("mixed", part("<p>one</p>", H), part("<p>two</p>", H)), text_has=["one", "two"], html_has=["one", "two"])
add(
    3,
    multi(
        "mixed",
        part("one", T),
        part("aGVsbG8=", "Content-Type: application/pdf; name=a.pdf", "Content-Transfer-Encoding: base64"),
        part("-- footer", T),
    ),
    text_has=["one", "footer"],
    names=["a.pdf"],
)
add(
    3,
    multi("mixed", part("one", T), part("two", T, "Content-Disposition: attachment; filename=n.txt")),
    text_has=["one"],
    text_hasnot=["two"],
    names=["n.txt"],
)
# 4 meta charset, BOM, utf-16
add(4, labelled("<meta charset=windows-1251><p>Подтверждение</p>".encode("cp1251")), text_has=["Подтверждение"])
add(
    4,
    labelled('<meta http-equiv="Content-Type" content="text/html; charset=Shift_JIS"><p>確認</p>'.encode("cp932")),
    text_has=["確認"],
)
add(4, labelled(b"\xef\xbb\xbf" + "<p>Größe</p>".encode()), text_has=["Größe"])
add(
    4,
    mail(b64("\ufeffcode 551177".encode("utf-16-le")), "Content-Type: text/plain", "Content-Transfer-Encoding: base64"),
    text_has=["551177"],
)
add(
    4,
    mail(
        b64("\ufeff<p>Größe</p>".encode("utf-16-be")),
        "Content-Type: text/html; charset=utf-16",
        "Content-Transfer-Encoding: base64",
    ),
    text_has=["Größe"],
)
add(4, labelled("<META CHARSET='iso-8859-2'><p>Zażółć</p>".encode("iso-8859-2")), text_has=["Zażółć"])
# 18 close delimiter
add(18, multi("mixed", part("one\r\n--bb\r\nmore", T)), text_has=["one", "--bb", "more"])
add(18, multi("mixed", part("one\r\n--b--x\r\nmore", T), part("two", T)), text_has=["more", "two"])
add(18, multi("mixed", part("one\r\n --b--\r\nmore", T), part("two", T)), text_has=["more", "two"])
add(
    18,
    multi("mixed", part("one", T)).replace(b"--b--\r\n", b"--b--  \t\r\nepilogue"),
    text_has=["one"],
    text_hasnot=["epilogue"],
)
add(18, multi("mixed", part("one\r\nx--b--\r\nmore", T)), text_has=["more"])
# 19 subtypes
for st in ("x-amp", "prs.fallenstein.rst", "css", "csv", "x-unknown"):
    add(19, mail("value 482913", "Content-Type: text/" + st), text_has=["482913"])
add(19, mail("<bold>Now</bold> is <italic>it</italic> <<x>", "Content-Type: text/enriched"), text_has=["Now is it <x>"])
add(19, mail("# Title\r\n*a*", "Content-Type: text/markdown"), text_has=["# Title", "*a*"])
# 24
add(
    24,
    b"From: a@example.org\r\nSubject: x\r\nContent-Type: text/plain\r\nHello 482913 world without colon\r\n",
    text_has=["482913"],
)
add(24, mail(b64(b"Hello"), T, 'Content-Transfer-Encoding: "base64"'), text="Hello")
add(24, mail(b64(b"Hello"), T, "Content-Transfer-Encoding: BASE64 (comment)"), text="Hello")
add(24, mail("caf=C3=A9", T, "Content-Transfer-Encoding: 'quoted-printable'"), text="café")
add(24, mail("<p>x</p>", "Content-Type: text/html", "Content-Type: text/plain"), html_has=["x"])
add(24, mail("caf=C3=A9", T, "Content-Transfer-Encoding: quoted-printable;"), text="café")
# 16 file names
add(16, named("Content-Disposition: attachment; filename*=utf-8''na%C3%AFve%20file.txt"), names=["naïve file.txt"])
add(
    16,
    named("Content-Disposition: attachment; filename*0*=utf-8''%e2%82%ac; filename*1=\" rates.pdf\""),
    names=["€ rates.pdf"],
)
add(16, named('Content-Disposition: attachment; filename="=?utf-8?B?w6TDti5wZGY=?="'), names=["äö.pdf"])
add(16, named('Content-Disposition: attachment; filename="=?utf-8?Q?a=3B_b=22c.pdf?="'), names_has=["; b"])
add(16, named('Content-Disposition: attachment; filename="a;b \\"c\\".pdf"'), names_has=["a;b"])
add(
    16,
    named('Content-Disposition: attachment; filename="=?utf-8?Q?=E4=BD?="\r\n =?utf-8?Q?=A0.pdf?='),
    names_has=[".pdf"],
)
add(16, named("Content-Disposition: attachment; filename=my file.pdf"), names=["my file.pdf"])
# 17
add(
    17,
    mail(b64(b"one ") + "\r\n" + b64(b"two2") + "\r\n", T, "Content-Transfer-Encoding: base64"),
    text_has=["one two2"],
)
add(17, mail("b25lIA==\r\ndHdv", T, "Content-Transfer-Encoding: base64"), text_has=["one two"])
add(17, mail("Plain words, never encoded. Code 482913.", T, "Content-Transfer-Encoding: base64"), text_has=["482913"])
add(17, mail("SGVs\r\n bG8\tgd29ybGQ", T, "Content-Transfer-Encoding: base64"), text="Hello world")
add(17, mail("SGVsbG8=\r\n-- \r\nlist footer", T, "Content-Transfer-Encoding: base64"), text_has=["Hello"])
# 20/21 subject
add(20, titled(b"\xef\xbb\xbfHello"), subject="Hello")
add(20, titled("=?utf-8?B?77u/SGVsbG8=?="), subject="Hello")
add(20, titled("=?utf-8?Q?=EF=BB=BFHello?="), subject="Hello")
add(20, titled("=?utf-16?B?//5IAGkA?="), subject="Hi")
add(20, titled("=?utf-16le?B?//5IAGkA?="), subject="Hi")
add(21, titled("=?utf-8?Q?What now? yes?="), subject="What now? yes")
add(21, titled("=?utf-8?Q?a b?= =?utf-8?Q?c?="), subject="a bc")
add(21, titled("=?utf-8?Q?1==41?="), subject_in=["1=A", "1==41", "1=41"])
add(21, titled("=?utf-8?q?caf=c3?= =?utf-8?q?=a9?="), subject="café")
add(21, titled("=?UTF-8*en?Q?Hi?="), subject="Hi")
add(21, titled("=?utf-8?B?SGk?="), subject="Hi")
# 22 iso-2022-jp
add(
    22,
    mail("確認コードは482913です".encode("iso2022_jp"), "Content-Type: text/plain; charset=csISO2022JP"),
    text_has=["確認コードは482913です"],
)
add(
    22,
    mail("確認コードは482913です".encode(), "Content-Type: text/plain; charset=iso-2022-jp"),
    text_has=["確認コード"],
)
add(22, titled("確認のお願い".encode("iso2022_jp")), subject="確認のお願い")
add(22, mail(b"\x1b(I\x43\x3d\x44\x1b(B", "Content-Type: text/plain; charset=iso-2022-jp"), text_has=["ﾃｽﾄ"])
add(22, mail(b"\x1b$B-!\x1b(B", "Content-Type: text/plain; charset=cp50220"), text_has=["①"])
add(22, mail(b"\x1b$B|!\x1b(B ok", "Content-Type: text/plain; charset=cp50221"), text_has=["ok"])
# 23 labels, unlabelled
for lab, enc, word in (
    ("x-sjis", "cp932", "確認"),
    ("ks_c_5601-1987", "cp949", "확인"),
    ("windows-874", "cp874", "ยืนยัน"),
    ("x-x-big5", "big5", "驗證"),
    ("latin2", "iso-8859-2", "Zażółć"),
    ("unicode-1-1-utf-8", "utf-8", "é"),
    ("koi8-u", "koi8-u", "Підтвердження"),
    ("dos-874", "cp874", "ยืน"),
):
    add(23, mail(word.encode(enc), f"Content-Type: text/plain; charset={lab}"), text_has=[word])
add(
    23,
    mail(
        "Здравствуйте, ваш код подтверждения 482913. Никому его не сообщайте.".encode("koi8-r"),
        "Content-Type: text/plain",
    ),
    text_has=["Здравствуйте"],
)
add(
    23,
    mail("Ihre Größe ist für uns wichtig, schöne Grüße aus München".encode("latin-1"), "Content-Type: text/plain"),
    text_has=["Größe", "München"],
)
add(23, mail("您的验证码是482913，请勿泄露给他人".encode("gb18030"), "Content-Type: text/plain"), text_has=["验证码"])
# 13 flowed
add(
    13,
    mail("This is a \r\nflowed line\r\nhard", "Content-Type: text/plain; format=flowed"),
    text_has=["This is a flowed line\nhard"],
)
add(
    13,
    mail("<https://example.org/a/ \r\nb?token=1>", "Content-Type: text/plain; format=flowed; delsp=yes"),
    link0="https://example.org/a/b?token=1",
)
add(13, mail("> quoted \r\n> more\r\nme", "Content-Type: text/plain; format=flowed"), text_has=["quoted more"])
add(13, mail("a\r\n-- \r\nsig", "Content-Type: text/plain; format=flowed"), text_has=["a\n-- \nsig"])
add(13, mail(" >not quoted \r\nx", "Content-Type: text/plain; format=flowed"), text_has=[">not quoted x"])
add(13, mail("<https://example.org/confirm/abc\r\ndef?token=1>", T), link0="https://example.org/confirm/abcdef?token=1")
# containers
add("uu", mail("see\r\nbegin 644 a.txt\r\n%:&5L;&\\\r\n`\r\nend\r\n", T), names=["a.txt"], text_has=["see"])
add(
    "cal",
    mail(
        "BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\nSUMMARY:Lunch\r\nDTSTART:20260601T100000Z\r\nDTEND:20260601T110000Z\r\nORGANIZER:mailto:a@example.org\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n",
        "Content-Type: text/calendar; method=REQUEST",
    ),
    invite=("REQUEST", "Lunch"),
)
# 5 codes in html
add(5, alternative("Please view in HTML.", "<p>Your code: <b>551177</b></p>"), codes=["551177"])
add(5, alternative("", "<p>Verification code</p><p>5 5 1 1 7 7</p>"), codes=["551177"])
add(5, alternative("View online: https://example.org/v", "<p>Enter code KXQ-PWR</p>"), codes=["KXQ-PWR"])
add(
    5,
    alternative("Your code is above.", "<table><tr><td>Security code</td></tr><tr><td>551177</td></tr></table>"),
    codes=["551177"],
)
add(5, alternative("Order 4821 shipped", "<p>Order 4821 shipped</p>"), codes=[])
# 6 bounds
add(6, alternative("x", "<style>" + "a{b:c}" * 40000 + "</style><p>Your code: 551177</p>"), codes=["551177"])
add(
    6,
    alternative("x", '<img src="data:image/png;base64,' + "A" * 300000 + '"><p>Your code: 551177</p>'),
    codes=["551177"],
    text_hasnot=["AAAA"],
)
add(6, alternative("x", "<!-- " + "z " * 100000 + " --><p>Your code: 551177</p>"), codes=["551177"])
add(
    6,
    alternative("x", '<a href="https://e.org/' + "q" * 3000 + '">Confirm</a><p>Your code: 551177</p>'),
    codes=["551177"],
    link0="https://e.org/" + "q" * 3000,
)
add(6, alternative("x", "<script>" + "var x=1;" * 30000 + "</script><p>Your code: 551177</p>"), codes=["551177"])
# 7 quoted >
add(
    7,
    mail('<a title="a > b" href="https://e.org/confirm">Confirm</a>', H),
    link0="https://e.org/confirm",
    text_hasnot=['b"'],
)
add(7, mail("<img alt='x > 482913' src=x>Hello", H), codes=[], text_has=["Hello"])
add(7, mail('<p data-x="</p><p>4821">Text</p>', H), text="Text")
add(7, mail('<a href="https://e.org/?a=>b&x=1">go</a>', H), link0="https://e.org/?a=>b&x=1")
add(7, mail('<td title="1>2"\n class=">">Cell</td>', H), text_has=["Cell"], text_hasnot=["class"])
# 8 background shorthand
for css, keep in (
    ("background:#0066cc url(x.png) no-repeat", "0066cc"),
    ("background: red", "red"),
    ("background:rgb(0,102,204)", "rgb"),
    ("BACKGROUND:#0066CC", "0066"),
    ("background:#0066cc none repeat 0 0", "0066cc"),
):
    add(8, mail(f'<div style="{css}">x</div>', H), html_has=[keep])
# 9 references in attributes
add(9, mail('<a href="https://e.org/c?a=1&copy=2&reg=3">Confirm</a>', H), link0="https://e.org/c?a=1&copy=2&reg=3")
add(9, mail('<a href="https://e.org/c?a=1&amp;copy=2">Confirm</a>', H), link0="https://e.org/c?a=1&copy=2")
add(9, mail('<a href="https://e.org/c?x=1&lt=5">Confirm</a>', H), link0="https://e.org/c?x=1&lt=5")
add(9, mail('<a href="https://e.org/c?x=1&#38;y=2">Confirm</a>', H), link0="https://e.org/c?x=1&y=2")
add(9, mail('<a href="https://e.org/c?x=1&not=2&notin;">Confirm</a>', H), link0="https://e.org/c?x=1&not=2∉")
# 10
add(
    10,
    mail('<a href="https://e.org/confirm/o\'neill,x;y(z)?t=1!">Confirm</a>', H),
    link0="https://e.org/confirm/o'neill,x;y(z)?t=1!",
)
add(10, mail("<a href='https://e.org/confirm?q=\"a\"'>Confirm</a>", H), link0='https://e.org/confirm?q="a"')
add(10, mail("<a href=https://e.org/confirm?t=1>Confirm</a>", H), link0="https://e.org/confirm?t=1")
add(10, mail('<a href=" https://e.org/confirm?t=1\n">Confirm</a>', H), link0="https://e.org/confirm?t=1")
add(10, mail('<a href="https://e.org/con\nfirm?t=1">Confirm</a>', H), link0="https://e.org/confirm?t=1")
# 11
add(11, mail('<link rel=stylesheet href="https://e.org/s.css"><p>x</p>', H), links=[])
add(11, mail('<!-- <a href="https://e.org/hidden">x</a> --><p>x</p>', H), links=[])
add(11, mail('<map><area href="https://e.org/area" alt="Confirm"></map>', H), links=["https://e.org/area"])
add(11, mail('<img src="https://e.org/p.png"><script src="https://e.org/s.js"></script>', H), links=[])
add(
    11, mail('<form action="https://e.org/confirm"><button>Confirm</button></form>', H), links=["https://e.org/confirm"]
)
add(11, mail('<div style="display:none">Preheader secret</div><p>Hello you</p>', H), preview_hasnot=["Preheader"])
# 12
add(12, mail("请点https://e.org/verify?t=1，谢谢", T), links=["https://e.org/verify?t=1"])
add(12, mail("https://e.org/wiki/A_(b), see", T), links=["https://e.org/wiki/A_(b)"])
add(12, mail("(https://e.org/a).", T), links=["https://e.org/a"])
add(12, mail("https://e.org/" + "x" * 5000 + " ok", T), links=["https://e.org/" + "x" * 5000])
add(12, mail("https://e.org/aです", T), links=["https://e.org/a"])


def _agrees(field: str, right: Any, raw: bytes) -> bool:
    read = parse(raw)
    html = sanitise(read.html)
    values: dict[str, Any] = {
        "text": read.text.strip(),
        "subject": read.subject,
        "codes": list(read.codes),
        "links": list(read.links),
        "names": [file.filename for file in read.attachments],
        "contentId": [file.content_id for file in read.attachments],
        "inline": [file.inline for file in read.attachments],
        "hasAttachments": any(not file.inline and "amp" not in file.content_type for file in read.attachments),
        "invite": (read.invite.method, read.invite.summary) if read.invite else None,
    }
    if field in values:
        return bool(values[field] == right)
    if field == "link0":
        return bool(read.links) and read.links[0] == right
    if field == "subject_in":
        return read.subject in right
    shown = {"text": read.text, "html": html, "names": " ".join(values["names"]), "preview": read.preview}
    name, _, how = field.partition("_")
    within = [piece.lower() in shown[name].lower() for piece in right]
    return not any(within) if how == "hasnot" else all(within)


@pytest.mark.parametrize("kind", sorted({kind for kind, _, _ in CASES}))
def test_siblings_of_each_kind_are_read_right(kind: str) -> None:
    wrong = [
        (raw[-200:], field, right)
        for of, raw, rights in CASES
        if of == kind
        for field, right in rights.items()
        if not _agrees(field, right, raw)
    ]
    assert wrong == []
