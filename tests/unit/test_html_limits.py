"""HTML that makes parsers slow is known before one is asked, whatever its kind."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from server.model.html_limits import MAX_ATTRIBUTES, MAX_TAGS, usual, within
from server.model.html_page import read
from server.model.sanitise import sanitise

# What is repeated; "%d" becomes another number each time.
HOSTILE = {
    "blocks": "<div>",
    "blocks among end tags of others": "<span><div></span>",
    "formatting": "<b id=%d>",
    "formatting opened again in each block": "<p><font size=%d>x</p>",
    "formatting left open, then blocks": "<i></b>x",
    "formatting behind scopes": "<font size=1><table><td></font></table>",
    "end tags out of scope": "<div><table><td></div>",
    "tables in tables": "<section><table></table><section></table></table><table>",
    "end tags in raw text": "<div><script></div></script>",
    "scripts in comments in scripts": "<script><!--<script></script>",
    "raw text in foreign content": "<svg><style><div></style>",
    "tags around a tag that goes": "<sv<svg>g><di<svg>v>",
    "form pointer": "<form><div></form>",
    "foster parents": "<table>x<i></i>",
    "text in tables": "<table>x",
    "lists": "<ul><li>",
    "items in headings": "<h1><li>",
    "definitions": "<dd><center>",
    "ruby": "<rt>",
    "paragraphs in blocks": "<blockquote><p>",
    "second roots": "x</html><html><span>",
    "cells out of tables": "<address><small><th>",
    "options": "<select><option><div>",
    "tags": "<br>",
    "comments": "<!--",
    "comments that end at once": "<!-->",
    "bare signs": "<",
    "ends": "</",
    "declarations": "<!x",
    "closed comments": "<!--x-->",
    "names without an end": "<a",
    "attributes without an end": "<a b=\"",
    "attributes of raw text without an end": "<script a=\"",
    "raw text without an end": "<style>x",
    "raw text that nearly ends": "<style></styl",
    "ampersands": "&",
    "numbers": "&#",
    "ampersands and words": "&a ",
    "references": "&lt;",
    "styles": "<p style='" + "a:b;" * 900 + "'>",
    "addresses in styles": "<p style='" + "background:url(x" * 200 + "'>",
    "tables among formatting": "<font size=%d><table>&",
    "styles without an end": "<style a",
    "comments within": "<!-- -",
    "hidden elements": "<div style='display:none'>x",
    "small elements": "<div style='font-size:0'><p>x</p></div>",
    "colours": "color:#fff;background:",
    "paddings": "\u200c ",
    "pictures": "\"data:",
    "forms": "<form action=x>",
    "links": "<a href=x>y",
    "controls": "\0",
    "white space": " \n",
}  # fmt: skip
LONG = {
    "attributes of one tag": lambda n: "<a " + " ".join(f"b{i}" for i in range(n // 8)) + ">",
    "attributes behind quoted tag ends": lambda n: "<a " + " ".join(f'b{i}=">"' for i in range(n // 12)) + ">",
    "attributes of an end tag": lambda n: "<p></p " + " ".join(f"b{i}" for i in range(n // 8)) + ">",
    "attributes of raw text": lambda n: "<style " + " ".join(f"b{i}" for i in range(n // 8)) + ">",
    "ampersands in an attribute": lambda n: f'<a title="{"&" * n}">x</a>',
    "text, then ampersands": lambda n: "x" * (n // 2) + "& " * (n // 4),
    "open formatting, then paragraphs": lambda n: (
        "".join(f"<font size={i}>" for i in range(150)) + "<p>x" * ((n - 2400) // 4)
    ),
    "blocks, then text": lambda n: "<div>" * 3000 + "x " * (n // 2 - 7500),
}


def _depth(html: str) -> int:
    deepest, open_elements = 0, [(LexborHTMLParser(html).root, 1)]
    while open_elements:
        node, depth = open_elements.pop()
        deepest = max(deepest, depth)
        child = node.child if node is not None else None
        while child is not None:
            if child.is_element_node:
                open_elements.append((child, depth + 1))
            child = child.next
    return deepest


def _hostile(kind: str, size: int) -> str:
    if kind in LONG:
        return LONG[kind](size)[:size]
    unit = HOSTILE[kind]
    return "".join(unit.replace("%d", str(n)) for n in range(size // len(unit) + 1))[:size]


def _seconds(function: Callable[[str], object], source: str) -> float:
    """The least CPU time of two calls."""
    best = float("inf")
    for _ in range(2):
        begin = time.process_time()
        function(source)
        best = min(best, time.process_time() - begin)
    return best


@pytest.mark.parametrize("kind", [*HOSTILE, *LONG])
@pytest.mark.parametrize("function", [sanitise, read.__wrapped__], ids=["sanitise", "read"])
def test_time_of_hostile_source_grows_no_faster_than_its_length(function: Callable[[str], object], kind: str) -> None:
    """Four times as much takes at most ten times as long; below a second of CPU a ratio says nothing."""
    small, large = _seconds(function, _hostile(kind, 131_072)), _seconds(function, _hostile(kind, 524_288))
    assert large < max(10 * small, 1.0)


HIDDEN = "<p style='display:none'>x</p>"
UNENDING = {
    "at signs in a style": (HIDDEN + "<style>", "@", 65_536),
    "a style of words": (HIDDEN + "<style>", "a", 65_536),
    "comments in a style": (HIDDEN + "<style>", "/* ", 65_536),
    "rules in rules": (HIDDEN + "<style>", "@a{b{", 65_536),
    "at rules that end above": (HIDDEN + "<style>", "@}", 65_536),
    "tags of styles without an end": (HIDDEN, "<style", 262_144),
    "characters without a width": ("", "\u200b", 65_536),
    "pairs without a width": ("", "\u200b\u200b x", 262_144),
}


@pytest.mark.parametrize(("before", "unit", "size"), UNENDING.values(), ids=UNENDING)
def test_what_begins_again_and_again_and_never_ends_is_looked_for_once(before: str, unit: str, size: int) -> None:
    def seconds(size: int) -> float:
        source = before + (unit * size)[:size]
        return _seconds(read.__wrapped__, source)

    assert seconds(size) < max(10 * seconds(size // 4), 1.0)


def test_text_of_no_size_in_nested_elements_is_looked_at_once() -> None:
    small = "<div style='font-size:1px'>" * 140 + "<div>" * 50 + "a<br>" * 200 + "</div>" * 190
    usual_size = small.replace("1px", "9px")
    assert _seconds(read.__wrapped__, small * 20) < 20 * _seconds(read.__wrapped__, usual_size * 20)
    assert read.__wrapped__(small).text == ""
    assert read.__wrapped__(usual_size).text.startswith("a\na")


def test_words_next_to_many_links_are_read_once() -> None:
    beside, links = "<div>" + "word " * 40_000 + "</div>", "<a href=x></a>"
    many, one = f"{beside}<div>{links * 500}</div>", f"{beside}<div>{links}</div>"
    assert _seconds(read.__wrapped__, many) < 20 * _seconds(read.__wrapped__, one)
    assert len(read.__wrapped__(many).anchors) == 500


def test_text_of_no_size_goes_but_for_what_sets_a_size_of_its_own() -> None:
    large = "<i style='font-size:12px'>yes <u>yes</u> <s style='font-size:0'>no</s></i>"
    html = f"<p style='font-size:1px'>no <b>no</b> {large}</p>"
    assert read.__wrapped__(html).text == "yes yes"


@pytest.mark.parametrize("tag", ["html", "body", "HtMl"])
def test_attributes_that_all_end_in_one_element_are_within_a_bound(tag: str) -> None:
    many = "".join(f"<{tag} a{n}=1>" for n in range(3_000))
    assert within(many) < 20_000
    assert within(f"<{tag} a=1><p>x" * 1_000) == len(f"<{tag} a=1><p>x") * 1_000


def test_hard_spaces_beyond_a_bound_are_spaces() -> None:
    assert sanitise("a\u00a0" * 2) == "a&nbsp;" * 2
    assert sanitise("a" + "\u00a0" * 200_000) == "a" + " " * 200_000


@pytest.mark.parametrize(
    "kind",
    [
        "blocks",
        "blocks among end tags of others",
        "end tags out of scope",
        "formatting opened again in each block",
        "formatting left open, then blocks",
        "open formatting, then paragraphs",
        "tables in tables",
        "form pointer",
        "ruby",
        "paragraphs in blocks",
        "second roots",
        "tags",
        "attributes of one tag",
        "attributes behind quoted tag ends",
        "attributes of an end tag",
        "attributes of raw text",
    ],
)
def test_source_beyond_the_bounds_is_shown_escaped(kind: str) -> None:
    clean = sanitise(_hostile(kind, 500_000))
    assert clean.startswith("<pre>")
    assert clean.count("<") == 2


@pytest.mark.parametrize(
    "html",
    [
        "",
        "no tags",
        "<p>a<p>b" * 8000,
        "<ul><li>a<li>b</ul>" * 5000,
        "<table><tr><td>a<td>b<tr><td>c</table>" * 4000,
        "<a name=x>y" * 10_000,
        "<p><b>x</b></p>" * 7000,
        "<dl><dt>a<dd>b</dl>" * 6000,
        "<DIV><P>a</DIV>" * 7000,
        "<style>" + "<div>" * 50_000 + "</style><p>a",
        "<!--" + "<div>" * 50_000 + "--><p>a",
        "<a title='" + "<div>" * 50_000 + "'>a</a>",
    ],
)
def test_source_that_parsers_are_fast_with_is_within_the_bounds(html: str) -> None:
    assert within(usual(html)) == len(usual(html))


def test_the_beginning_that_is_within_the_bounds_ends_at_the_tag_that_breaks_them() -> None:
    many = "<br>" * MAX_TAGS
    assert within(many + "<i>") == len(many)
    wide = "<p>a</p>"
    assert within(wide + "<a " + " b" * (MAX_ATTRIBUTES + 1) + ">") == len(wide)
    assert within(wide + "<a " + " b" * MAX_ATTRIBUTES + ">") > len(wide)


def test_tag_that_goes_leaves_none_behind() -> None:
    assert "<svg" not in usual("<sv<svg>g onload=x><scr<math>ipt>")


@pytest.mark.parametrize(
    "tag",
    [
        "svg",
        "math",
        "frameset",
        "frame",
        "plaintext",
        "xmp",
        "listing",
        "image",
        "noscript",
        "keygen",
        "select",
        "option",
        "optgroup",
    ],
)
def test_element_that_parsers_have_rules_of_their_own_for_is_an_empty_one(tag: str) -> None:
    assert usual(f"a<{tag} x=y>b</{tag}>c<{tag.upper()}/>d") == "a<param>b<param>c<param>d"
    assert usual(f"<{tag}x>") == f"<{tag}x>"


def test_a_tag_of_more_attributes_than_mail_has_is_beyond_the_bounds() -> None:
    assert [within("<a" + " b" * count + ">") > 0 for count in (200, 201, 2_000)] == [True, False, False]


NAMES = [
    *("a", "b", "font", "span", "div", "p", "table", "td", "tr", "caption", "li", "ul", "dd", "h1", "form", "button"),
    *("ruby", "rt", "object", "select", "style", "title", "svg", "nobr"),
]
PIECES = st.sampled_from(
    [f"<{name}>" for name in NAMES] + [f"</{name}>" for name in NAMES] + ["x", "<b id=%d>", "<br>", "&"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=8).map("".join))
def test_no_repeated_arrangement_nests_deeper_than_is_reckoned(unit: str) -> None:
    """Each arrangement 4,500 times, beyond what is let through without a look."""
    html = usual("".join(unit.replace("%d", str(number)) for number in range(4500)))
    assert _depth(html[: within(html)]) <= 4100
