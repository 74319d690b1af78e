"""What is wrapped in a form of its own: winmail.dat, opaque S/MIME, calendars. Every container is made by the test."""

import base64
import json
import struct
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7Options, PKCS7SignatureBuilder
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from server.model import mime
from server.model.message import Details, Stored, StoredAttachment
from server.model.mime import containers, rtf
from server.model.mime import parts as mime_parts
from server.model.mime.invites import invite
from server.model.webhook import mail_received

HEAD = b"From: a@example.org\r\nTo: b@example.net\r\nSubject: x\r\n"
ENTITY = (
    b"Content-Type: multipart/mixed; boundary=q\r\n\r\n--q\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    b"Your code is 482913\r\n--q\r\nContent-Type: application/pdf; name=a.pdf\r\n\r\nPDF\r\n--q--\r\n"
)


def attribute(level: int, name: int, value: bytes) -> bytes:
    return struct.pack("<BHHI", level, name, 6, len(value)) + value + b"\0\0"


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def unicode_property(tag: int, text: str) -> bytes:
    data = text.encode("utf-16-le") + b"\0\0"
    return struct.pack("<HHII", 0x1F, tag, 1, len(data)) + padded(data)


def binary_property(tag: int, data: bytes, kind: int = 0x102) -> bytes:
    return struct.pack("<HHII", kind, tag, 1, len(data)) + padded(data)


def named_property() -> bytes:
    """A property that has a name in place of a tag, and a list of two numbers: both are passed over."""
    name = "keywords\0".encode("utf-16-le")
    by_name = struct.pack("<HH16sII", 0x1F, 0x8001, bytes(16), 1, len(name)) + padded(name)
    value = "k\0".encode("utf-16-le")
    return by_name + struct.pack("<II", 1, len(value)) + padded(value) + struct.pack("<HHIII", 0x1003, 0x6001, 2, 7, 8)


def properties(*each: bytes) -> bytes:
    return struct.pack("<I", len(each)) + b"".join(each)


def tnef(*attributes: bytes) -> bytes:
    return struct.pack("<IH", 0x223E9F78, 1) + attribute(1, 0x9007, struct.pack("<II", 1251, 0)) + b"".join(attributes)


def file(title: bytes, data: bytes, *each: bytes) -> bytes:
    rendering, given = attribute(2, 0x9002, bytes(14)), properties(*each)
    return rendering + attribute(2, 0x8010, title + b"\0") + attribute(2, 0x800F, data) + attribute(2, 0x9005, given)


def winmail(data: bytes, content_type: str = "application/ms-tnef; name=winmail.dat", *parts: bytes) -> bytes:
    each = [
        *parts,
        f"Content-Type: {content_type}\r\nContent-Transfer-Encoding: base64\r\n\r\n".encode()
        + base64.encodebytes(data),
    ]
    return (
        HEAD
        + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        + b"".join(b"--b\r\n" + one + b"\r\n" for one in each)
    )


FILES = tnef(
    attribute(1, 0x9003, properties(named_property(), unicode_property(0x0037, "subject"))),
    file("Отчёт.TXT".encode("cp1251"), b"short", named_property(), unicode_property(0x3707, "Отчёт за год ✓.txt")),
    file(
        "план.pdf".encode("cp1251"),
        b"%PDF",
        binary_property(0x370E, b"Application/PDF\0", 0x1E),
        unicode_property(0x3712, "<p@x>"),
    ),
)
TEXT = b"Content-Type: text/plain\r\n\r\nsee files"


@pytest.mark.parametrize(
    "content_type",
    [
        "application/ms-tnef; name=winmail.dat",
        "application/vnd.ms-tnef",
        "Application/MS-TNEF",
        "application/octet-stream; name=winmail.dat",
        "application/octet-stream; name=WINMAIL.DAT",
    ],
)
def test_files_of_winmail_dat_are_attachments(content_type: str) -> None:
    raw = winmail(FILES, content_type, TEXT)
    mail = mime.parse(raw)
    assert mail.text.strip() == "see files"
    assert [(one.number, one.filename, one.content_type, one.size, one.content_id) for one in mail.attachments] == [
        ("2.1", "Отчёт за год ✓.txt", "application/octet-stream", 5, ""),
        ("2.2", "план.pdf", "application/pdf", 4, "p@x"),
    ]
    assert [(mime.attachment(raw, one.number) or (None, b""))[1] for one in mail.attachments] == [b"short", b"%PDF"]
    whole = mime.attachment(raw, "2")
    assert whole is not None
    assert whole[1] == FILES


def test_text_of_winmail_dat_is_shown_where_there_is_no_other() -> None:
    html = binary_property(0x1013, "<p>Код 482913</p>".encode("cp1251"))
    bodies = tnef(attribute(1, 0x9003, properties(unicode_property(0x1000, "Код 482913"), html)))
    mail = mime.parse(winmail(bodies))
    assert (mail.text, mail.html, mail.attachments) == ("Код 482913", "<p>Код 482913</p>", ())
    assert mail.codes == ("482913",)
    assert mime.parse(winmail(bodies, "application/ms-tnef", TEXT)).text.strip() == "see files"
    old = mime.parse(winmail(tnef(attribute(1, 0x800C, "Код".encode("cp1251") + b"\0"))))
    assert old.text == "Код"


# The example of [MS-OXRTFCP] section 4.1.1.
COMPRESSED = bytes.fromhex(
    "2d0000002b0000004c5a4675f1c5c7a703000a007263706731323542320af32068656c090020627705b06c647d0a800fa0"
)


def test_compressed_rtf_of_the_specification_is_unpacked() -> None:
    assert rtf.unpacked(COMPRESSED) == b"{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n"
    # Section 4.2.1: a reference that reaches into what it writes.
    crossing = bytes.fromhex("1a0000001c0000004c5a4675e2d44b51410004205758595a0d6e7d010eb0")
    assert rtf.unpacked(crossing) == b"{\\rtf1 WXYZWXYZWXYZWXYZWXYZ}"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (rb"{\rtf1\ansi\ansicpg1251 \'ca\'ee\'e4 482913\par ok}", "Код 482913\nok"),
        (rb"{\rtf1\ansi{\fonttbl{\f0 Arial;}}{\*\generator x;}a\u9989?b\tab c\{d\}\~e}", "a✅b\tc{d}\xa0e"),
        (rb"{\rtf1\ansi\ansicpg932 \'83\'52\'81\'5b\'83\'68}", "コード"),
        (
            rb"{\rtf1\fromhtml1{\*\htmltag64 <p>}\htmlrtf {\htmlrtf0 code\htmlrtf }\htmlrtf0 {\*\htmltag72 </p>}}",
            "code",
        ),
        (rb"{\rtf1\uc2 \u-10180??\u-8424??x}", "🌘x"),
    ],
)
def test_text_of_rtf_is_shown_where_a_winmail_dat_has_no_other(body: bytes, text: str) -> None:
    packed = struct.pack("<II4s4s", len(body) + 12, len(body), b"MELA", b"") + body
    mail = mime.parse(winmail(tnef(attribute(1, 0x9003, properties(binary_property(0x1009, packed))))))
    assert (mail.text, mail.html, mail.attachments) == (text, "", ())
    html = binary_property(0x1013, b"<p>h</p>")
    both = mime.parse(winmail(tnef(attribute(1, 0x9003, properties(binary_property(0x1009, packed), html)))))
    assert (both.text, both.html) == ("h", "<p>h</p>")


@given(st.binary(max_size=200), st.integers(0, 1 << 32 - 1))
def test_any_compressed_rtf_is_unpacked_within_its_bound(packed: bytes, size: int) -> None:
    data = rtf.unpacked(struct.pack("<II4s4s", 0, size & 0xFFFFFFFF, b"LZFu", b"") + packed)
    assert len(data) <= min(size, rtf.MAX_UNPACKED)
    rtf.text(data + packed).encode()


def test_compressed_rtf_that_grows_without_end_is_cut() -> None:
    bomb = struct.pack("<II4s4s", 0, 0xFFFFFFFF, b"LZFu", b"") + b"\0" + b"a" * 8 + (b"\xff" + b"\x0d\x7f" * 8) * 60_000
    assert len(rtf.unpacked(bomb)) <= rtf.MAX_UNPACKED


def test_message_within_winmail_dat_gives_its_files() -> None:
    nested = tnef(
        attribute(2, 0x9002, bytes(14))
        + attribute(2, 0x9005, properties(binary_property(0x3701, bytes(16) + FILES, 0x0D))),
    )
    assert [one.filename for one in mime.parse(winmail(nested)).attachments] == ["Отчёт за год ✓.txt", "план.pdf"]


@pytest.mark.parametrize("data", [b"", b"no tnef", FILES[:4], tnef(), tnef(attribute(1, 0x9003, properties()))])
def test_winmail_dat_that_holds_nothing_stays_an_attachment(data: bytes) -> None:
    (one,) = mime.parse(winmail(data, "application/ms-tnef; name=winmail.dat", TEXT)).attachments
    assert (one.number, one.filename, one.size) == ("2", "winmail.dat", len(data))


@given(st.data())
def test_broken_tnef_is_read_as_far_as_it_goes(data: st.DataObject) -> None:
    broken = bytearray(FILES)
    for _ in range(data.draw(st.integers(0, 4))):
        broken[data.draw(st.integers(4, len(broken) - 1))] = data.draw(st.integers(0, 255))
    raw = winmail(bytes(broken[: data.draw(st.integers(0, len(broken)))]))
    for one in mime.parse(raw).attachments:
        served = mime.attachment(raw, one.number)
        assert served is not None
        assert len(served[1]) == one.size


def test_counts_of_tnef_that_no_data_follows_cost_nothing() -> None:
    endless = struct.pack("<I", 0xFFFFFFFF)
    many = struct.pack("<HHI", 0x1003, 0x1000, 0xFFFFFFFF)
    empty = struct.pack("<HHI", 0x101E, 0x1000, 0xFFFFFFFF) + bytes(1_000_000)
    for value in (endless, endless + many, endless + empty, endless + bytes(1_000_000)):
        found = containers.tnef(tnef(attribute(1, 0x9003, value)))
        assert found is not None
        assert found.files == []


def signed(content: bytes) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + timedelta(days=1))
    signer = PKCS7SignatureBuilder(content).add_signer(builder.sign(key, SHA256()), key, SHA256())
    return signer.sign(Encoding.DER, [PKCS7Options.Binary])


def element(tag: int, *content: bytes, endless: bool = False) -> bytes:
    data = b"".join(content)
    if endless:
        return bytes((tag, 0x80)) + data + b"\0\0"
    return bytes((tag, 0x82)) + len(data).to_bytes(2, "big") + data


def streamed(content: bytes) -> bytes:
    """The same as programs write it that do not know the length beforehand; without signatures."""
    pieces = [element(0x04, content[start : start + 50]) for start in range(0, len(content), 50)]
    nested = element(0x24, *pieces[:2]), *pieces[2:]
    octets = element(0xA0, element(0x24, *nested, endless=True), endless=True)
    plain = element(0x30, bytes.fromhex("06092a864886f70d010701"), octets, endless=True)
    digests = element(0x31, element(0x30, bytes.fromhex("0609608648016503040201"), endless=True), endless=True)
    body = element(0x30, b"\x02\x01\x01", digests, plain, element(0x31), endless=True)
    return element(0x30, bytes.fromhex("06092a864886f70d010702"), element(0xA0, body, endless=True), endless=True)


def opaque(data: bytes, content_type: str = "application/pkcs7-mime; smime-type=signed-data; name=smime.p7m") -> bytes:
    fields = f"Content-Type: {content_type}\r\nContent-Transfer-Encoding: base64\r\n"
    return (
        HEAD
        + fields.encode()
        + b"Content-Disposition: attachment; filename=smime.p7m\r\n\r\n"
        + base64.encodebytes(data)
    )


@pytest.mark.parametrize("make", [signed, streamed])
@pytest.mark.parametrize(
    "content_type",
    ["application/pkcs7-mime; smime-type=signed-data", "application/x-pkcs7-mime", "application/octet-stream"],
)
def test_signed_message_is_opened(make: object, content_type: str) -> None:
    assert callable(make)
    data = make(ENTITY)
    raw = opaque(data, content_type)
    mail = mime.parse(raw)
    assert mail.text.strip() == "Your code is 482913"
    assert mail.codes == ("482913",)
    assert [(one.number, one.filename, one.size) for one in mail.attachments] == [("1.1.2", "a.pdf", 3)]
    for number, content in (("1.1.2", b"PDF"), ("1", data)):
        served = mime.attachment(raw, number)
        assert served is not None
        assert served[1] == content


def test_signed_message_within_a_signed_message_is_opened() -> None:
    inner = opaque(signed(ENTITY)).removeprefix(HEAD)
    assert mime.parse(opaque(signed(inner))).text.strip() == "Your code is 482913"


def test_containers_within_containers_are_opened_up_to_a_bound() -> None:
    entity = ENTITY
    for _ in range(15):
        entity = opaque(streamed(entity)[:60_000]).removeprefix(HEAD)
        if len(entity) > 40_000:
            break
    mail = mime.parse(HEAD + entity)
    assert len(mail.attachments) <= 1


@pytest.mark.parametrize(
    "data", [b"", b"\x30", b"\x30\x80", b"\x30\x03\x02\x01\x01", b"words", b"\x30\x80" * 5_000, b"\xff" * 100]
)
def test_what_is_no_signed_message_stays_an_attachment(data: bytes) -> None:
    (one,) = mime.parse(opaque(data)).attachments
    assert (one.number, one.filename, one.size) == ("1", "smime.p7m", len(data))


@given(st.data())
def test_broken_signed_message_is_read_or_stays(data: st.DataObject) -> None:
    broken = bytearray(streamed(ENTITY))
    for _ in range(data.draw(st.integers(0, 3))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    containers.signed_content(bytes(broken[: data.draw(st.integers(0, len(broken)))]))


ZONE = """BEGIN:VTIMEZONE
TZID:{0}
BEGIN:STANDARD
DTSTART:16010101T030000
TZOFFSETFROM:+0200
TZOFFSETTO:+0100
RRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=10
END:STANDARD
BEGIN:DAYLIGHT
DTSTART:16010101T020000
TZOFFSETFROM:+0100
TZOFFSETTO:+0200
RRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=3
END:DAYLIGHT
END:VTIMEZONE
"""


def calendar(*lines: str, zone: str = "", method: str = "REQUEST") -> str:
    zones = ZONE.format(zone) if zone else ""
    event = "\n".join(lines)
    return f"BEGIN:VCALENDAR\nMETHOD:{method}\n{zones}BEGIN:VEVENT\n{event}\nEND:VEVENT\nEND:VCALENDAR\n"


TIMES = {
    "UTC": (
        ("DTSTART:20260715T100000Z", "DTEND:20260715T110000Z"),
        "2026-07-15T10:00:00.000Z",
        "2026-07-15T11:00:00.000Z",
    ),
    "a day": (("DTSTART;VALUE=DATE:20260715", "DTEND;VALUE=DATE:20260716"), "2026-07-15", "2026-07-16"),
    "a duration": (
        ("DTSTART:20260715T100000Z", "DURATION:PT1H30M"),
        "2026-07-15T10:00:00.000Z",
        "2026-07-15T11:30:00.000Z",
    ),
    "days": (("DTSTART;VALUE=DATE:20260715", "DURATION:P1W"), "2026-07-15", "2026-07-22"),
    "no zone": (("DTSTART:20260715T100000",), "2026-07-15T10:00:00", ""),
    "a zone nobody knows": (("DTSTART;TZID=Nowhere:20260715T100000",), "2026-07-15T10:00:00", ""),
    "a path": (("DTSTART;TZID=../../etc/passwd:20260715T100000",), "2026-07-15T10:00:00", ""),
    "a folder": (("DTSTART;TZID=Europe:20260715T100000",), "2026-07-15T10:00:00", ""),
    "no time": (("SUMMARY:x",), "", ""),
    "no such day": (("DTSTART:20260231T100000Z",), "", ""),
    "a leap second": (("DTSTART:20161231T235960Z",), "2016-12-31T23:59:59.000Z", ""),
    "a year at the end": (("DTSTART:99991231T100000Z", "DURATION:P9999W"), "9999-12-31T10:00:00.000Z", ""),
}


@pytest.mark.parametrize("case", TIMES)
def test_times_of_an_invitation(case: str) -> None:
    lines, start, end = TIMES[case]
    found = invite(calendar(*lines))
    assert found is not None
    assert (found.start, found.end) == (start, end)


@pytest.mark.parametrize("zone", ["W. Europe Standard Time", "Europe/Berlin", "Customised, 1"])
@pytest.mark.parametrize(
    ("local", "utc"),
    [
        ("20260715T120000", "2026-07-15T10:00:00.000Z"),
        ("20261215T120000", "2026-12-15T11:00:00.000Z"),
        ("20260329T040000", "2026-03-29T02:00:00.000Z"),
        ("20261025T040000", "2026-10-25T03:00:00.000Z"),
        ("20260115T120000", "2026-01-15T11:00:00.000Z"),
    ],
)
def test_zone_is_that_of_its_name_or_of_its_own_rules(zone: str, local: str, utc: str) -> None:
    found = invite(calendar(f'DTSTART;TZID="{zone}":{local}', zone=zone))
    assert found is not None
    assert found.start == utc


def test_invitation_is_read_whole() -> None:
    text = calendar(
        "SUMMARY;LANGUAGE=en:Team\\, lunch\\; with",
        "  guests",
        'ORGANIZER;CN="Doe, Jane":MAILTO:jane@example.org',
        "LOCATION:Room 5\\nfloor 2",
        "DTSTART:20260715T100000Z",
        "BEGIN:VALARM",
        "SUMMARY:no",
        "DTEND:20200101T000000Z",
        "END:VALARM",
        "DTEND:20260715T110000Z",
    ).replace("\n", "\r\n")
    for entity in (
        f"Content-Type: text/calendar; charset=utf-8; method=REQUEST\r\n\r\n{text}",
        f"Content-Type: application/ics; name=invite.ics\r\n\r\n{text}",
        f"Content-Type: application/octet-stream; name=invite.ics\r\n\r\n{text}",
    ):
        raw = (
            HEAD
            + b"Content-Type: multipart/alternative; boundary=b\r\n\r\n"
            + b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b\r\n"
        )
        mail = mime.parse(raw + entity.encode())
        assert mail.invite is not None
        assert (mail.invite.method, mail.invite.summary) == ("REQUEST", "Team, lunch; with guests")
        assert (mail.invite.organizer, mail.invite.location) == ("Doe, Jane <jane@example.org>", "Room 5\nfloor 2")
        assert (mail.invite.start, mail.invite.end) == ("2026-07-15T10:00:00.000Z", "2026-07-15T11:00:00.000Z")
        assert [one.number for one in mail.attachments] == ["2"]


def test_method_of_the_part_counts_where_the_calendar_has_none() -> None:
    text = "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY:x\r\nEND:VEVENT\r\nBEGIN:VEVENT\r\nSUMMARY:y\r\nEND:VEVENT\r\n"
    mail = mime.parse(HEAD + f"Content-Type: text/calendar; method=cancel\r\n\r\n{text}".encode())
    assert mail.invite is not None
    assert (mail.invite.method, mail.invite.summary) == ("CANCEL", "x")


def test_mail_without_an_event_has_no_invitation() -> None:
    assert mime.parse(HEAD + b"Content-Type: text/calendar\r\n\r\nBEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\n").invite is None
    assert mime.parse(HEAD + b"\r\nBEGIN:VEVENT").invite is None


CALENDAR_LINES = [
    "BEGIN:VEVENT",
    "END:VEVENT",
    "BEGIN:STANDARD",
    "END:STANDARD",
    "RRULE:FREQ=YEARLY;BYMONTH=13;BYDAY=9XX",
    "RRULE:BYMONTH=2;BYDAY=-5SU",
    "TZOFFSETTO:+9999",
    "DTSTART;TZID=:99991231T000000",
    "DTSTART:00000000",
    "TZID:",
    "BEGIN:VTIMEZONE",
    "DURATION:P",
    "ORGANIZER:",
    "A;B",
    ":",
    "SUMMARY:\\",
]


@given(st.lists(st.sampled_from(CALENDAR_LINES), max_size=25))
def test_any_calendar_is_read(lines: list[str]) -> None:
    invite("\n".join(lines))


def test_reading_looks_into_a_bounded_number_of_calendars() -> None:
    part = b"--b\r\nContent-Type: text/calendar\r\n\r\nBEGIN:VCALENDAR\r\n"
    last = part + b"BEGIN:VEVENT\r\nEND:VEVENT\r\n"
    raw = HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    assert mime.parse(raw + part * 2 + last).invite is not None
    assert mime.parse(raw + part * 9 + last).invite is None


def test_long_parameters_behind_many_others_are_cut() -> None:
    name = "x" * 3_000
    part = f'--b\r\nContent-Disposition: attachment; filename="{name}.pdf"\r\n\r\nx\r\n'.encode()
    raw = HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + part * 100
    budget = mime_parts.Budget(len(raw))
    head, body, _ = mime._head(raw)
    lengths = [len(leaf.filename) for leaf in mime_parts.leaves(raw, head, body, budget)]
    assert (lengths[0], lengths[-1] < 400) == (3_004, True)


def test_webhook_tells_of_an_invitation_and_whether_there_are_attachments() -> None:
    shown = StoredAttachment("2", "logo.png", "image/png", 3, "logo@x", "inline", True)
    found = invite(calendar("SUMMARY:Lunch", "DTSTART:20260715T100000Z"))
    details = Details(attachments=(shown,), invite=found)
    row = Stored("id", "box", 1, datetime.now(UTC), "", "", "", "", "", 1, False, details)
    data = json.loads(mail_received(row))
    assert data["hasAttachments"] is False
    assert data["attachments"][0]["contentId"] == "logo@x"
    assert data["invite"]["start"] == "2026-07-15T10:00:00.000Z"
    assert "invite" not in json.loads(mail_received(msgspec.structs.replace(row, details=Details())))
