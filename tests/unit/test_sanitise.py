"""HTML of mail: nothing runs, nothing is fetched, nothing takes long."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.model.sanitise import MAX_HTML_BYTES, html_to_text, sanitise

TAG = re.compile(r"<([a-z0-9]+)((?:\s[a-z-]+(?:=\"[^\"]*\")?)*)\s*>")


@pytest.mark.parametrize(
    ("html", "clean"),
    [
        ("<b onclick=x>a</b>", "<b>a</b>"),
        ("a<script>alert(1)</script><style>p{}</style>b", "ab"),
        ("<p style='color:red;background:url(//x)'>a</p>", "<p>a</p>"),
        ("<p style='color: rgb(1,2,3); position: fixed'>a</p>", '<p style="color:rgb(1, 2, 3)">a</p>'),
        ("<p style='list-style-type:none;min-width:1px'>a</p>", '<p style="list-style-type:none;min-width:1px">a</p>'),
        ("<p style='color:\\75rl(x)'>a</p>", "<p>a</p>"),
        ("<img src='https://example.org/p.gif'>", '<img data-src="https://example.org/p.gif">'),
        ("<img src='//example.org/p.gif'>", "<img>"),
        ("<img src='cid:a@b'>", '<img src="cid:a@b">'),
        ("<img src='data:image/png;base64,AA=='>", '<img src="data:image/png;base64,AA==">'),
        ("<img src='data:image/svg+xml,x'>", "<img>"),
        ("<table background='http://x/y'><td>a</td></table>", "<table><tbody><tr><td>a</td></tr></tbody></table>"),
        ("<form action=x><input name=y>a</form>", "a"),
        ("<svg><style><img src=x onerror=y></style></svg>", ""),
        ("<iframe src=x></iframe><object data=x>y</object>a", "a"),
        ("<!-- [if mso]> x <![endif] -->a", "a"),
    ],
)
def test_clean_form_of(html: str, clean: str) -> None:
    assert sanitise(html) == clean


def test_links_open_apart_and_tell_nothing() -> None:
    clean = sanitise("<a href='https://example.org/?a=1&amp;b=2' target=_self rel=opener>x</a>")
    assert 'href="https://example.org/?a=1&amp;b=2"' in clean
    assert 'target="_blank"' in clean
    assert 'rel="noopener noreferrer nofollow"' in clean
    assert "opener>" not in clean


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "data:text/html,x", "blocked:x", " vbscript:x", "/relative", "java\tscript:x"]
)
def test_link_elsewhere_than_the_web_loses_its_target(address: str) -> None:
    assert "href" not in sanitise(f'<a href="{address}">x</a>')


def test_text_that_looks_like_the_marker_of_a_remote_image_stays_harmless() -> None:
    clean = sanitise("<p title=' src=\"blocked:x'> src=\"blocked:y</p>")
    assert "<img" not in clean


FETCHED = re.compile(
    r"(?:\ssrc|\sbackground|\ssrcset|\sposter|\saction)=\"(?!data:image/|cid:)|url\s*\(|\son[a-z]+=", re.IGNORECASE
)
FRAGMENTS = st.sampled_from(
    [
        "<svg>",
        "<math>",
        "<style>",
        "</style>",
        "<title>",
        "<img src=http://a/b ",
        "<img src='https://x' onerror=y>",
        "<p ",
        "style='",
        "background:url(http://x)",
        "'",
        '"',
        ">",
        "<",
        "<!--",
        "-->",
        "<table>",
        "<td background=http://x>",
        "<a href=javascript:x>",
        "<form>",
        "</form>",
        "<select>",
        "<noscript>",
        "<template>",
        "<textarea>",
        "&lt;",
        "&#0;",
        "\0",
        "x",
        ' src="blocked:',
        "<b>",
    ]
)


@given(st.lists(FRAGMENTS, max_size=30).map("".join))
def test_no_arrangement_runs_or_fetches_anything(html: str) -> None:
    clean = sanitise(html)
    tags = TAG.findall(clean)
    assert not {name for name, _ in tags} & {
        "script",
        "style",
        "svg",
        "math",
        "form",
        "iframe",
        "object",
        "link",
        "meta",
        "base",
    }
    assert not any(FETCHED.search(attributes) for _, attributes in tags)
    assert sanitise(clean).count("<img") == clean.count("<img")


DEEP = {
    "blocks": "<div>",
    "unclosed formatting in closed blocks": "<p>" + "".join(f"<font size={size}>" for size in range(90)) + "</p>",
    "formatting hidden by a scope": "<font size=1><table><td></font></table>",
    "end tags of other elements": "<span><div></span>",
    "end tags out of scope": "<div><table><td></div>",
    "end tags in raw text": "<div><script></div></script>",
    "raw text in foreign content": "<svg><style><div></style>",
    "form pointer": "<form><div></form>",
    "foster parents": "<table>x<i></i>",
    "lists": "<ul><li>",
    "headings in items": "<h1><li>",
    "definitions": "<dd><center>",
    "paragraphs in blocks": "<blockquote><p>",
    "second roots": "x</html><html><span>",
    "cells out of tables": "<address><small><th>",
    "attributes": "<a " + "b " * 5000 + ">",
    "attributes behind quoted tag ends": "<a " + 'x=">" ' * 5000 + ">",
    "tags": "<br>",
    "comments": "<!--",
    "bare signs": "<",
    "entities": "&amp",
    "many styles": "<p style='" + "a:b;" * 900 + "'>",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", DEEP)
def test_pathological_source_is_refused_or_cleaned_in_time(kind: str) -> None:
    unit = DEEP[kind]
    html = unit * (500_000 // len(unit))
    assert isinstance(sanitise(html), str)
    assert len(html_to_text(html)) <= len(html)


@pytest.mark.parametrize(
    "kind",
    ["blocks", "end tags of other elements", "end tags out of scope", "paragraphs in blocks", "second roots", "tags"],
)
def test_source_beyond_the_bounds_is_shown_escaped(kind: str) -> None:
    unit = DEEP[kind]
    clean = sanitise(unit * (500_000 // len(unit)))
    assert clean.startswith("<pre>")
    assert clean.count("<") == 2


def test_source_over_the_size_is_shown_escaped() -> None:
    assert sanitise("<b>" + "x" * MAX_HTML_BYTES).startswith("<pre>&lt;b&gt;x")
    assert sanitise("码" * (MAX_HTML_BYTES // 2)).startswith("<pre>")


def test_ordinary_newsletter_is_within_the_bounds() -> None:
    row = "<tr><td style='padding:4px'><p>text<p>more<ul><li>a<li>b</ul><br><img src='cid:x'></td></tr>"
    html = "<table><tbody><tr><td>" * 12 + "<table>" + row * 500 + "</table>" + "</td></tr></tbody></table>" * 12
    assert not sanitise(html).startswith("<pre>")


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>a</p><p>b</p>", "a\n\nb"),
        ("a<br>b<BR/>c", "a\nb\nc"),
        ("<title>t</title><style>s</style><script>x</script><!-- c -->a", "a"),
        ("a &amp; b &lt; c&nbsp;d", "a & b < c d"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("<td>a</td><td>b</td>", "a b"),
        ("a<style>unclosed", "a"),
        ("", ""),
    ],
)
def test_text_of(html: str, text: str) -> None:
    assert html_to_text(html) == text


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_text_of_anything_can_be_stored(html: str) -> None:
    text = html_to_text(html)
    assert "\0" not in text
    text.encode()
