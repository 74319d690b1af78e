"""Names and types of attachments: nothing of an attacker's text may reach a header or a file system unchanged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.model.mime.filenames import clean_filename, content_disposition, safe_content_type


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("report.pdf", 'attachment; filename="report.pdf"'),
        ("two words.pdf", 'attachment; filename="two words.pdf"'),
        ("Frösche.txt", "attachment; filename=\"Fr_sche.txt\"; filename*=UTF-8''Fr%C3%B6sche.txt"),
        ("100%.txt", "attachment; filename=\"100_.txt\"; filename*=UTF-8''100%25.txt"),
        ("a;b=c.txt", "attachment; filename=\"a_b=c.txt\"; filename*=UTF-8''a%3Bb%3Dc.txt"),
        ("", "attachment"),
        ("../../etc/passwd", 'attachment; filename="passwd"'),
        ("C:\\Windows\\win.ini", 'attachment; filename="win.ini"'),
        ('x".html', 'attachment; filename="x_.html"'),
        ("a\r\nSet-Cookie: b=c", 'attachment; filename="aSet-Cookie_ b=c"'),
        ("photo\u202egpj.exe", 'attachment; filename="photogpj.exe"'),
    ],
)
def test_content_disposition_of(name: str, value: str) -> None:
    assert content_disposition(name) == value


def test_inline_is_only_for_who_asks() -> None:
    assert content_disposition("a.png", inline=True) == 'inline; filename="a.png"'


@given(st.text(alphabet=st.characters(), max_size=600))
def test_any_name_makes_a_header_of_printable_ascii(name: str) -> None:
    value = content_disposition(name)
    assert value.isascii()
    assert value.isprintable()
    assert len(value) < 1000


@given(st.text(alphabet=st.characters(), max_size=600))
def test_any_clean_name_is_one_path_component(name: str) -> None:
    clean = clean_filename(name)
    assert not set(clean) & set('/\\\0\r\n<>:"|?*')
    assert clean not in (".", "..")
    assert len(clean.encode()) <= 200


@pytest.mark.parametrize("name", ["CON", "nul.txt", "COM1.log", "aux "])
def test_device_names_are_defused(name: str) -> None:
    assert clean_filename(name).startswith("_")


def test_long_name_keeps_its_extension() -> None:
    assert clean_filename("é" * 500 + ".pdf").endswith("é.pdf")


@pytest.mark.parametrize(
    ("declared", "served"),
    [
        ("image/PNG", "image/png"),
        ("application/pdf; name=x.pdf", "application/pdf"),
        ("text/plain; charset=utf-7", "text/plain; charset=utf-8"),
        ("text/html", "application/octet-stream"),
        ("image/svg+xml", "application/octet-stream"),
        ("application/xhtml+xml", "application/octet-stream"),
        ("text/xml", "application/octet-stream"),
        ("text/html\r\nX: y", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
def test_only_types_that_run_nothing_are_named(declared: str, served: str) -> None:
    assert safe_content_type(declared) == served
