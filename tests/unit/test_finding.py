"""A search looks in what a reader sees: the text of a message and what its HTML shows, folded alike."""

import pytest
import zstandard

from server.model import text_match

MAIL = """Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n--c\r
Content-Type: text/plain; charset=utf-8\r\n\r\nHello there my\r\n  dear \u0141ukasz, zero\u200bwidth\r\n--c\r
Content-Type: text/html; charset=utf-8\r\n\r\n<style>p{color:red}</style><p title=secret>Only in <b>ht</b>ml:
Cr\u00e8me&nbsp;br\u00fbl\u00e9e so&shy;ft &lt;tag&gt;</p>\r\n--c--\r\n"""
PACKED = zstandard.ZstdCompressor().compress(MAIL.encode())


def found(*terms: tuple[str, bool]) -> bool:
    return text_match.matches([(PACKED, terms)]) == [True]


@pytest.mark.parametrize("term", ["my dear lukasz", "zerowidth", "only in html: creme brulee soft <tag>"])
def test_words_of_the_text_and_of_the_html_alone_are_found(term: str) -> None:
    assert found((term, False))
    assert not found((term, True))


@pytest.mark.parametrize("term", ["secret", "color", "brulee hello", "<p", "nbsp"])
def test_words_that_are_not_shown_are_not_found(term: str) -> None:
    assert not found((term, False))
    assert found((term, True))


def test_terms_may_be_met_by_either_view() -> None:
    assert found(("lukasz", False), ("brulee", False), ("absent", True))
    assert not found(("lukasz", False), ("brulee", True))
