"""An injected message holds the headers it was given and no others."""

from email import message_from_bytes, policy

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from server.model.errors import Refused
from server.web.compose import Injection, compose, envelope_sender

HEADERS = {"From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"}


@given(st.text(st.characters(codec="utf-8"), max_size=300), st.text(st.characters(codec="utf-8"), max_size=300))
def test_no_subject_or_recipient_adds_a_header(subject: str, to: str) -> None:
    injection = Injection(sender="a@example.org", to=to, subject=subject, text="body")
    try:
        raw = compose(injection, "m@temp.mail", "temp.mail")
    except Refused:
        assume(False)
    head, _, body = raw.partition(b"\r\n\r\n")
    names = {line.partition(b":")[0].decode() for line in head.split(b"\r\n") if not line.startswith((b" ", b"\t"))}
    assert names <= HEADERS
    assert body == b"body\r\n"
    assert b"\n" not in raw.replace(b"\r\n", b"")


def test_text_and_html_come_back_as_given() -> None:
    injection = Injection(sender="Ü <a@example.org>", subject="✓", text="ä" * 2000, html="<b>ä</b>")
    message = message_from_bytes(compose(injection, "m@temp.mail", "temp.mail"), policy=policy.default)
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    assert text.get_content() == "ä" * 2000 + "\r\n"
    assert html.get_content() == "<b>ä</b>\r\n"
    assert (message["Subject"], message["To"], message["From"]) == ("✓", "m@temp.mail", "Ü <a@example.org>")


@pytest.mark.parametrize("sender", ["", "x", "@", "a@", "@b", "a b@c", "a@b\r\nX: y", "a@b c", "x" * 65 + "@b"])
def test_a_sender_is_one_address(sender: str) -> None:
    with pytest.raises(Refused) as caught:
        envelope_sender(Injection(sender=sender))
    assert caught.value.field == "from"


def test_a_raw_message_without_sender_has_the_null_one() -> None:
    assert envelope_sender(Injection(raw="Subject: x\n\ny")) == ""
    assert envelope_sender(Injection(sender="A <a@b.example>")) == "a@b.example"
    assert compose(Injection(raw="A: b\rC: d\n\r\ne\u2028"), "", "") == b"A: b\r\nC: d\r\n\r\ne\xe2\x80\xa8"
