"""Each bound of reading a message, just within it and just beyond it, judged by what comes out and never by time."""

import base64
from datetime import UTC, datetime

import pytest

from server.model import mime
from server.model.mime import parts as mime_parts

HEAD = b"From: a@example.org\r\nTo: b@example.org\r\nSubject: s\r\nMIME-Version: 1.0\r\n"
EVENT = b"BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY:found\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"


def nested(levels: int, text: bytes) -> bytes:
    """``text`` within so many multiparts."""
    for level in range(levels):
        text = b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n%s\r\n--b%d--\r\n' % (
            level,
            level,
            text,
            level,
        )
    return HEAD + text


def mixed(*parts: bytes) -> bytes:
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts)
    return HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + body + b"--b--\r\n"


def leaves(raw: bytes) -> list[mime_parts.Leaf]:
    found = mime_parts.header_end(raw, 0, len(raw), mime_parts.MAX_HEADER_BYTES)
    head = mime_parts.header_fields(raw, 0, found)
    return list(mime_parts.leaves(raw, head, found.body, mime_parts.Budget(len(raw))))


@pytest.mark.parametrize(
    ("levels", "filler", "defect"), [(12, 1_000, None), (3, 1_000_000, None), (12, 1_000_000, "depth")]
)
def test_a_large_message_is_not_searched_again_for_every_level(levels: int, filler: int, defect: str | None) -> None:
    """Four times its size and a mebibyte are searched in all; few levels or few bytes are within that."""
    mail = mime.parse(nested(levels, b"Content-Type: text/plain\r\n\r\n" + b"x " * (filler // 2)))
    assert mail.defect == defect
    assert (mail.text.count("x") == filler // 2) == (defect is None)


@pytest.mark.parametrize(("before", "name"), [(4_000, "late.pdf"), (4_096, "part-1.pdf"), (30_000, "part-1.pdf")])
@pytest.mark.parametrize(
    "field", ["Content-Type: application/pdf", "Content-Type: application/pdf\r\nContent-Disposition: attachment"]
)
def test_parameters_behind_four_kilobytes_of_others_are_not_read(field: str, before: int, name: str) -> None:
    parameter = "filename" if "Disposition" in field else "name"
    raw = HEAD + f'{field}; x="{"y" * before}"; {parameter}="late.pdf"\r\n\r\n%PDF'.encode()
    [attachment] = mime.parse(raw).attachments
    assert attachment.filename == name


@pytest.mark.parametrize(
    ("year", "is_known"), [(1969, False), (1970, True), (2026, True), (2100, True), (2101, False), (9999, False)]
)
@pytest.mark.parametrize("form", ["1 Jul {} 00:00:00 +0000", "Wed Jul  1 00:00:00 {}"])
def test_only_years_that_mail_has_are_dates(form: str, year: int, is_known: bool) -> None:
    date = mime.parse(f"Date: {form.format(year)}\r\n\r\n".encode()).date
    assert date == (datetime(year, 7, 1, tzinfo=UTC) if is_known else None)


@pytest.mark.parametrize("encoding", ["", "base64", "quoted-printable", "x-uuencode"])
@pytest.mark.parametrize("limit", [0, 1, 10, 1_000])
def test_a_part_is_decoded_up_to_its_limit(encoding: str, limit: int) -> None:
    text = b"abcdefghij" * 1_000
    encoded = base64.encodebytes(text) if encoding == "base64" else text
    field = f"Content-Transfer-Encoding: {encoding}\r\n" if encoding else ""
    [leaf] = leaves(HEAD + field.encode() + b"\r\n" + encoded)
    for read in (mime_parts.body, mime_parts.text_body):
        data = read(leaf, limit)
        assert len(data) <= limit
        assert text.startswith(data)
    if encoding in ("", "base64"):
        assert len(mime_parts.body(leaf, limit)) == limit
        assert len(mime_parts.body(leaf)) >= len(text)


def test_a_calendar_is_read_up_to_its_limit() -> None:
    def calendar(filler: int) -> bytes:
        text = b"X-FILLER:%s\r\n" % (b"x" * 60) * (filler // 71) + EVENT
        return b"Content-Type: text/calendar\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(text)

    near, far = mime.parse(mixed(calendar(200_000))), mime.parse(mixed(calendar(400_000)))
    assert near.invite is not None
    assert near.invite.summary == "found"
    assert far.invite is None


def test_no_more_of_a_calendar_is_decoded_than_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    body = mime_parts.body

    def recorded(leaf: mime_parts.Leaf, limit: int = 1 << 62) -> bytes:
        data = body(leaf, limit)
        decoded.append(len(data))
        return data

    monkeypatch.setattr(mime_parts, "body", recorded)
    mime.parse(mixed(b"Content-Type: text/calendar\r\n\r\n" + EVENT + b"X-FILLER:x\r\n" * 100_000))
    assert decoded
    assert max(decoded) <= 256 * 1024


@pytest.mark.parametrize(("subtype", "most"), [("plain", mime.MAX_TEXT), ("html", mime.MAX_HTML)])
def test_parts_that_fill_a_bound_exactly_do_not_break_it_when_they_are_joined(subtype: str, most: int) -> None:
    half = most // 2
    part = f"Content-Type: text/{subtype}\r\n\r\n".encode() + b"x" * half
    whole = mime.parse(mixed(part, part))
    assert len(whole.text if subtype == "plain" else whole.html) == most
    assert whole.defect is None


@pytest.mark.parametrize(("subtype", "most"), [("plain", mime.MAX_TEXT), ("html", mime.MAX_HTML)])
def test_all_parts_of_a_kind_have_one_bound_together(subtype: str, most: int) -> None:
    part = f"Content-Type: text/{subtype}\r\n\r\n".encode() + b"x" * (most - 1_000)
    both = mime.parse(mixed(part, part))
    assert len(both.text if subtype == "plain" else both.html) == most
    assert both.defect == ("text bytes" if subtype == "plain" else "html bytes")


@pytest.mark.parametrize(("count", "defect"), [(200, None), (201, "parts"), (900, "parts")])
def test_so_many_attachments_are_listed(count: int, defect: str | None) -> None:
    mail = mime.parse(mixed(*[b"Content-Type: application/pdf\r\n\r\nx"] * count))
    assert (len(mail.attachments), mail.defect) == (min(count, 200), defect)


def test_inner_headers_of_all_parts_have_one_bound_together() -> None:
    def parts(lines: int) -> bytes:
        return mixed(*[b"X-A: b\r\n" * lines + b"\r\nx"] * 100)

    assert mime.parse(parts(90)).defect is None
    assert mime.parse(parts(110)).defect == "header count"


def test_so_many_lines_that_are_almost_a_border_are_looked_at() -> None:
    def message(count: int) -> bytes:
        return mixed(b"\r\n" + b"\r\n--bx" * count + b"\r\n--b\r\n\r\nlast")

    few, many = mime.parse(message(3_900)), mime.parse(message(4_100))
    assert (few.defect, few.text.endswith("last")) == (None, True)
    assert (many.defect, many.text.endswith("last")) == ("boundaries", False)


@pytest.mark.parametrize(("length", "is_whole"), [(1_000, True), (1_001, False), (50_000, False)])
def test_a_subject_is_cut_at_its_bound(length: int, is_whole: bool) -> None:
    subject = mime.parse(b"Subject: " + b"s" * length + b"\r\n\r\nx").subject
    assert len(subject) == min(length, mime.MAX_SUBJECT)
    assert (subject == "s" * length) is is_whole


def test_headers_shown_are_so_many_and_no_more() -> None:
    for count, shown in ((999, 999), (1_000, 1_000), (1_001, 1_000), (5_000, 1_000)):
        assert len(mime.headers(b"".join(b"X-%d: y\r\n" % nth for nth in range(count)) + b"\r\nbody")) == shown


def test_an_identifier_is_cut_at_its_bound() -> None:
    for length, is_whole in ((400, True), (490, True), (510, False), (5_000, False)):
        part = b"Content-Type: image/png\r\nContent-ID: " + b"i" * length + b"\r\n\r\nx"
        [attachment] = mime.parse(mixed(part)).attachments
        assert (attachment.content_id == "i" * length) is is_whole
        assert len(attachment.content_id) <= 500
