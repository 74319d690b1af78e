"""What a reader of an HTML mail sees, and what can be clicked in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.model.html_page import MAX_SOURCE, html_to_text, read


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>a</p><p>b</p>", "a\n\nb"),
        ("a<br>b<BR/>c", "a\nb\nc"),
        ("<title>t</title><style>s</style><script>x</script><!-- c -->a", "a"),
        ("a &amp; b &lt; c&nbsp;d", "a & b < c d"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("<td>a</td><td>b</td>", "ab"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc"),
        ("a<style>unclosed", "a"),
        ("", ""),
        ("<p>&amp;lt; &copy 2026 &zwnj;</p>", "&lt; © 2026 \u200c"),
        ('<p>Hello <img alt="Next >" src=x>there</p>', "Hello there"),
        ('<a title="Home > Account > Code 9911" href=x>Verify</a>', "Verify"),
        ("<a title='a > b' href=x>c</a><i data-x=\">\">d</i>", "cd"),
        ("<p title='<b>'>a</p><p title=\"--><p>\">b", "a\n\nb"),
        ("<!-- a > b --><p>c</p><!--> <p>d</p><!-- --!>e", "c\n\nd\ne"),
        ("<!--[if mso]><p>old</p><![endif]--><![if !mso]><p>new</p><![endif]>", "new"),
        ("<pre>a\n  b</pre>", "a\nb"),
        ("<ul><li>a<li>b</ul>c", "a\nb\nc"),
        ("V<? x >I<b></b>A", "VIA"),
        ("<noscript>a</noscript><iframe>b</iframe><svg><text>c</text></svg>d", "acd"),
        ("<select><option>a</select><textarea>b</textarea>c", "ac"),
        ("\0a\0", "\ufffda\ufffd"),
    ],
)
def test_text_of(html: str, text: str) -> None:
    assert html_to_text(html) == text


HIDING = [
    "display:none",
    "DISPLAY : NONE !important",
    "display: none;font-size:1px",
    "visibility:hidden",
    "mso-hide:all",
    "opacity:0",
    "opacity: 0.0;",
    "max-height:0",
    "max-height:0px;overflow:hidden",
    "max-width:0;color:#333",
    "height:0;overflow:hidden",
    "font-size:0",
    "font-size: 0px; line-height: 0",
    "font-size:1px;color:#ffffff",
    "font:0px/0 Arial",
    "color:#fff;background:#ffffff",
    "background-color:#fff;margin:0;color:white",
    "color:transparent",
    "text-indent:-9999px",
]


@pytest.mark.parametrize("style", HIDING)
@pytest.mark.parametrize("tag", ["div", "span", "p", "td"])
def test_hidden_preheader_is_not_shown(style: str, tag: str) -> None:
    hidden = f"<{tag} style='{style}'>hidden <b>words</b></{tag}>"
    html = f"<table><tr>{hidden}<td>seen</td></tr></table>" if tag == "td" else f"{hidden}<p>seen</p>"
    assert html_to_text(html) == "seen"


@pytest.mark.parametrize(
    "html",
    [
        "<p hidden>x</p>seen",
        "<style>.pre{display:none}</style><p class='a pre'>x</p>seen",
        "<style>span.pre , #q { font-size:14px; display : none !important }</style><i id=q>x</i>seen",
        "<p>seen</p><div>\u200c \u034f \u00ad&nbsp;&zwnj;&nbsp;&zwnj;&nbsp;&#847;</div>",
        "<div style='display:none'><div>x</div><p style='display:none'>y</p></div>seen",
    ],
)
def test_what_is_hidden_otherwise_is_not_shown(html: str) -> None:
    assert html_to_text(html) == "seen"


@pytest.mark.parametrize(
    "html",
    [
        "<td style='font-size:0px'><div style='font-size:14px'>seen</div></td>",
        "<p style='opacity:0.9;max-height:100px;font-size:10px'>seen</p>",
        "<p style='max-height:0.5em;height:100px;overflow:hidden'>seen</p>",
        "<p style='color:#fff;background:#000'>seen</p>",
        "<p style='background:#ffffff;color:#333'>seen</p>",
        "<style>@media (max-width:9px){.a{display:none}}</style><p class=a>seen</p>",
        "<style>.a .b{display:none}</style><p class=b>seen</p>",
        "<p style='display:block'>seen</p>",
        "<p style='font-size:1em;line-height:0'>seen</p>",
        "<p style='font:bold 14px Arial'>seen</p>",
    ],
)
def test_what_only_looks_hidden_is_shown(html: str) -> None:
    assert html_to_text(html) == "seen"


@pytest.mark.parametrize(
    ("html", "target"),
    [
        ('<a href="https://e.org/o\'neill?t=1">x</a>', "https://e.org/o'neill?t=1"),
        ("<a href='https://e.org/a\"b'>x</a>", 'https://e.org/a"b'),
        ("<a href=https://e.org/a?b=1&c=2>x</a>", "https://e.org/a?b=1&c=2"),
        ("<a href=https://e.org/a/>x</a>", "https://e.org/a/"),
        ('<a href="\n  https://e.org/a\n   b  ">x</a>', "https://e.org/a%20%20%20b"),
        ('<a href="https://e.org/a\r\n\tb">x</a>', "https://e.org/ab"),
        ('<a href="https://e.org/a b">x</a>', "https://e.org/a%20b"),
        ('<a href="https://e.org/a?b=<c>">x</a>', "https://e.org/a?b=<c>"),
        ("<a href = 'https://e.org/a' >x</a>", "https://e.org/a"),
        ('<A HREF="https://e.org/a" href="https://e.org/b">x</A>', "https://e.org/a"),
        ('<a href="https://e.org/?u=7&timestamp=1&token=a">x</a>', "https://e.org/?u=7&timestamp=1&token=a"),
        ('<a href="https://e.org/?a&copy=2&lt=5&reg">x</a>', "https://e.org/?a&copy=2&lt=5®"),
        ('<a href="https://e.org/?a=1&amp;b=2&#38;c&#x26;d">x</a>', "https://e.org/?a=1&b=2&c&d"),
        ('<a title="a>b" href="https://e.org/a">x</a>', "https://e.org/a"),
        ('<a href="&#1;https://e.org/a">x</a>', "https://e.org/a"),
        ('<map><area href="https://e.org/a" alt=x></map>', "https://e.org/a"),
        ('<button formaction="https://e.org/a">x</button>', "https://e.org/a"),
        ('<form action="https://e.org/a"><button>x</button></form>', "https://e.org/a"),
        ('<form action="https://e.org/a"><input type=submit value=x></form>', "https://e.org/a"),
        (f'<a href="https://e.org/{"x" * 9000}">x</a>', f"https://e.org/{'x' * 9000}"),
    ],
)
def test_target_is_the_whole_value_as_browsers_read_it(html: str, target: str) -> None:
    assert [anchor.target for anchor in read(html).anchors] == [target]


@pytest.mark.parametrize(
    "html",
    [
        "<link rel=stylesheet href='https://e.org/a.css'>",
        "<link rel='shortcut icon' href='https://e.org/a.ico'><base href='https://e.org/'>",
        "<img src='https://e.org/a.png'><!-- <a href='https://e.org/a'>x</a> -->",
        "<!--[if mso]><a href='https://e.org/a'>x</a><![endif]-->",
        "<div style='display:none'><a href='https://e.org/a'>x</a></div>",
        "<script>'<a href=\"https://e.org/a\">x</a>'</script><style>a{b:'<a href=https://e.org>'}</style>",
        "<template><a href='https://e.org/a'>x</a></template>",
        "<p title='<a href=https://e.org/a>x</a>'>x</p>",
        "<form action='https://e.org/a'>x</form><html xmlns='http://www.w3.org/1999/xhtml'>",
        "<a href=''>x</a><a name='https://e.org/a'>x</a>",
    ],
)
def test_what_cannot_be_clicked_is_no_target(html: str) -> None:
    assert read(html).anchors == ()


def test_words_of_a_target_are_its_text_its_titles_or_its_picture() -> None:
    html = (
        "<a href=a> Confirm <b>it</b>\n</a><a href=b title='t'><img alt='Reset'></a><a href=c aria-label=Go><img></a>"
    )
    assert [anchor.words for anchor in read(html).anchors] == ["Confirm it", "t Reset", "Go"]


@pytest.mark.parametrize(
    "bulk",
    [
        '<img src="data:image/png;base64,\n' + "A" * 70 + ("\n" + "A" * 70) * 6000 + '">',
        "<img src='data:image/png;base64," + "A" * 300_000 + "'>",
        "<div style=\"background:url('data:image/png;base64," + "A" * 300_000 + "')\">",
        "<style>" + "p{color:red}" * 30_000 + "</style>",
        "<!--" + "x" * 300_000 + "-->",
    ],
)
def test_what_is_not_shown_does_not_count_against_the_bound(bulk: str) -> None:
    assert len(bulk) > MAX_SOURCE
    page = read(f"<html><body>{bulk}<p>Your code is 775533</p><a href=x>y</a></body></html>")
    assert page.text == "Your code is 775533\ny"
    assert page.anchors


@pytest.mark.parametrize(
    "bulk",
    [
        "".join(f'<a href="https://t.e.org/c/{"q" * 3000}{number}">l</a>' for number in range(120)),
        "<table><tr>" + f'<td style="font-family:Arial;{"mso-x:y;" * 12}" width="10" valign="top"> </td>' * 2500,
    ],
)
def test_long_targets_and_looks_do_not_count_against_the_bound(bulk: str) -> None:
    target = f"https://e.org/confirm?u=1&timestamp={'7' * 400}"
    page = read(f"{bulk}</table><p style='display:none'>hidden</p><p>seen</p><a href='{target}'>Confirm</a>")
    assert page.text.endswith("seen\nConfirm")
    assert "hidden" not in page.text
    assert page.anchors[-1].target == target


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_text_of_anything_can_be_stored(html: str) -> None:
    text = html_to_text(html)
    assert "\0" not in text
    text.encode()
