"""What it takes to read a mail, counted and never timed: calls, passes of patterns, parses of HTML.

A mail is read twice and counted the second time: what is remembered of the first is a part of the cost.
"""

import re
import sys
from collections import Counter
from types import FrameType

import pytest

from server.model import code_places, codes, html_page
from server.model.mime import parse

_HEAD = (
    b"Received: from src.test ([192.0.2.1])\r\n\tby mx.test with ESMTP id 1;\r\n\tTue, 1 Dec 2026 02:31:22 +0000\r\n"
    b"From: Some One <a@src.test>\r\nTo: <b@mx.test>\r\nSubject: %b\r\nDate: Tue, 01 Dec 2026 02:31:22 +0000\r\n"
    b"Message-ID: <0001.000@src.test>\r\nMIME-Version: 1.0\r\nContent-Type: %b\r\n\r\n"
)
_WORDS = b"Every line of this body is made of ordinary words, so that it packs like a letter.\r\n" * 48
_LINES = b"".join([b"%d" % (number % 10) + b"X" * 78 + b"\r\n" for number in range(50)])
_PLAIN = b"text/plain; charset=utf-8"


class _Spent:
    """``calls`` of functions of ours, ``passes`` of patterns over something."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.passes: Counter[str] = Counter()

    def note(self, frame: FrameType, event: str, function: object) -> None:
        if event == "call":
            self.calls[frame.f_code.co_qualname] += 1
        elif event == "c_call" and isinstance(getattr(function, "__self__", None), re.Pattern):
            self.passes[frame.f_code.co_qualname] += 1


def _spent(raw: bytes) -> _Spent:
    parse(raw, crlf=True)
    spent = _Spent()
    sys.setprofile(spent.note)
    try:
        parse(raw, crlf=True)
    finally:
        sys.setprofile(None)
    return spent


def _alternative(text: bytes, html: bytes) -> bytes:
    part = b"--b\r\nContent-Type: text/%b; charset=utf-8\r\n\r\n%b\r\n"
    body = part % (b"plain", text) + part % (b"html", html) + b"--b--\r\n"
    return _HEAD % (b"hello", b"multipart/alternative; boundary=b") + body


@pytest.mark.parametrize("body", [_WORDS, _LINES, b"It is 12:30 on 2026-12-01, and 4 of 5 are here.\r\n" * 80])
def test_an_ordinary_plain_mail_is_a_few_calls_and_passes(body: bytes) -> None:
    spent = _spent(_HEAD % (b"hello", _PLAIN) + body)
    assert spent.passes["header_end"] <= 2
    assert spent.passes["fields"] == 1
    assert spent.passes["places"] <= 2
    assert spent.calls["decode_lines"] == 1


@pytest.mark.parametrize("body", [_WORDS, _LINES])
def test_mail_without_a_number_to_look_at_costs_no_more_than_its_headers(body: bytes) -> None:
    spent = _spent(_HEAD % (b"hello", _PLAIN) + body)
    assert spent.calls.total() <= 40
    assert spent.passes.total() <= 5


def test_text_without_the_letters_of_any_word_for_a_code_is_not_searched() -> None:
    spent = _spent(_HEAD.replace(b"Subject: %b\r\n", b"") % _PLAIN + _LINES)
    assert not spent.calls["places"]
    assert spent.passes.total() == 3


def test_each_stem_has_one_of_the_few_letters() -> None:
    letters = code_places.in_each(codes._STEMS)
    assert len(letters) <= 16
    assert [stem for stem in codes._STEMS if not set(stem) & set(letters)] == []
    assert set(letters) == set(letters.lower()) | set(letters.upper())


@pytest.mark.parametrize(
    ("html", "parses"),
    [
        (b"<p>Ordinary words</p>" * 50, 0),
        (b"<p>Ordinary words, 12:30</p>" * 50, 0),
        (b"<p>Words</p><a href='https://example.org/'>here</a>", 1),
        (b"<p>Your code</p><p>482193</p>", 1),
    ],
)
def test_html_beside_a_text_is_parsed_once_and_only_where_something_may_be_in_it(html: bytes, parses: int) -> None:
    html_page.read.cache_clear()
    parse(_alternative(_WORDS, html), crlf=True)
    assert html_page.read.cache_info().misses == parses


def test_table_of_numbers_is_not_looked_at_number_by_number() -> None:
    table = b"".join([b"%d and some words,\r\nor more of them\r\n" % (4821 + 37 * number) for number in range(90)])
    spent = _spent(_HEAD % (b"hello", _PLAIN) + table)
    assert spent.calls["_marks"] == 1
    assert not spent.calls["_value"]


def test_link_costs_a_few_calls_however_many_places_of_senders_are_known() -> None:
    few, many = (
        _spent(_HEAD % (b"hello", _PLAIN) + b"".join([b"see https://example.org/%d now\r\n" % n for n in range(links)]))
        for links in (10, 110)
    )
    assert many.calls.total() - few.calls.total() <= 100 * 8
    assert many.passes.total() - few.passes.total() <= 100 * 8
