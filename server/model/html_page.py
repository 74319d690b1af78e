"""What a reader of an HTML mail sees: its text, and the links that can be clicked.

One HTML5 parse, in C, of a source within the bounds of `html_limits`; text, links, codes and preview share its result.
Pure functions over text. Must not know what is a code, which link counts more, nor how HTML is made safe to show.
"""

import re
from functools import lru_cache

import msgspec
from selectolax.lexbor import LexborHTMLParser, LexborNode

from server.model import html_hidden, html_limits

MAX_SOURCE = 262_144
MAX_ANCHORS = 500
_MAX_WORDS = 300
# Characters of clickable elements that are read for their words: one may hold all the others.
_MAX_READ = 1_048_576

# Pictures in the source are no part of what is shown; they may be long.
_PICTURE = re.compile(r"([\"'(])\s*+data:[^\"'<>()]{1000,}", re.IGNORECASE)
_UNSEEN = re.compile(r"<!--.*?(?:-->|\Z)|<style(?=[\s>]).*?(?:</style>?|\Z)", re.IGNORECASE | re.DOTALL)
# The look of what is shown, but for what may hide it.
_LOOKS = re.compile(
    r"[ \t\r\n](?:style|class|width|height|align|valign|bgcolor|border|cellpadding|cellspacing|role|lang|dir|face|color"
    r"|size|target|rel"
    r"|src(?:set)?|background|data-[a-z-]{1,40})=(?:\"(?![^\"]*(?:none|hid|:\s?[.0]|-\d{3}|transparent|white|#fff))[^\"<>]*+\""
    r"|'(?![^']*(?:none|hid|:\s?[.0]|-\d{3}|transparent|white|#fff))[^'<>]*+')",
    re.IGNORECASE,
)
_LONG_TARGET = re.compile(r"\bhref\s{0,3}=\s{0,3}(\"[^\"<>]{300,16384}\"|'[^'<>]{300,16384}')", re.IGNORECASE)
_MARK = "\ue000"
_PLACEHOLDER = re.compile(f"([0-9]{{1,6}}){_MARK}")
_FEW_WORDS = 60
_MAX_CLIMB = 3
# What the parser writes is well formed, and no attribute holds a bare "<" or ">": then a pattern finds each tag.
_SILENT = re.compile(r"<!--.*?-->|<style(?: [^>]*)?>.*?</style>", re.DOTALL)
_SILENT_ELEMENTS = "template,object,audio,video,canvas,datalist"
_MAY_BE_SILENT = re.compile(r"<(?:template|object|audio|video|canvas|datalist)[\s>]", re.IGNORECASE)
_PRE = re.compile(r"<pre(?: [^>]*)?>.*?</pre>", re.DOTALL)
_BREAK = re.compile(
    r"<(?:br|li|dd|dt|tr|legend|caption|figcaption|/?(?:address|article|aside|blockquote|center|details|dir|div|dl"
    r"|fieldset|figure|footer|h[1-6]|header|hr|main|menu|nav|ol|p|pre|section|summary|table|ul))(?: [^>]*)?>"
)
_CELL = re.compile(r"<t[dh](?: [^>]*)?>")
_TAG = re.compile(r"<[^>]*>")
# What is in a tag for certain: a quoted ">" leaves more, and no text is taken for a tag.
_LOOSE_TAG = re.compile(r"<[a-zA-Z/!?][^<>]*+>")
_TARGETS = {"button": "formaction", "input": "formaction", "fieldset": "action"}
_CLICKED = "a[href],area[href],button[formaction],input[formaction],fieldset[action]"
# What widens a preheader so that nothing else is previewed: characters without a width, a few in a row.
_WIDTHLESS = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2060-\u2064\u206a-\u206f\u2800\u3164\ufeff\uffa0"
)
_PADDING = re.compile(f"(?<![{_WIDTHLESS}])(?:[{_WIDTHLESS}]++[ \u00a0\u2000-\u200a\u202f\t\n]*+){{3,}}")
_PADS = "\u00ad\u034f\u200b\u200c\u200d\u200e\u2060\u2800\u3164\ufeff"
_C0_AND_SPACE = "".join(map(chr, range(0x21)))
_REMOVED = str.maketrans("", "", "\t\n\r")


class Anchor(msgspec.Struct, frozen=True):
    """A target that can be clicked, as a browser reads it, the words of what leads there, and some of the words around
    it if these are few.
    """

    target: str
    words: str
    around: str = ""


class Page(msgspec.Struct, frozen=True):
    """`text` has a line for each block and no characters that only pad."""

    text: str
    anchors: tuple[Anchor, ...]


EMPTY = Page("", ())


def html_to_text(html: str) -> str:
    """The readable text of HTML. Never raises; holds no NUL, and no lone surrogate that the source does not hold."""
    return read(html).text


@lru_cache(maxsize=1)
def read(html: str) -> Page:
    """What is shown of the first 262,144 characters, pictures, comments and styles not counted, within `html_limits`.

    The last page is kept: text, links and codes of one message are asked for one after the other.
    """
    bounded, long = _bounded(html)
    source = html_limits.usual(bounded)
    source = source[: html_limits.within(source)].replace("\0", "\ufffd")
    tree = LexborHTMLParser(source) if source.strip() else None
    if tree is None or tree.body is None:
        return Page("", ())
    if _MAY_BE_SILENT.search(source):
        html_hidden.remove(tree.css(_SILENT_ELEMENTS))
    html_hidden.remove_hidden(tree, source)
    words = _Words()
    clicked = tree.css(_CLICKED)[:MAX_ANCHORS] if may_be_clicked(source) else ()
    return Page(
        _text(tree.body.html or ""),
        tuple([anchor for node in clicked if (anchor := _anchor(node, long, words))]),
    )


def may_be_clicked(html: str) -> bool:
    """Whether a source has the name of an attribute that leads anywhere."""
    lower = html.lower()
    return "href" in lower or "action" in lower


def loose_text(html: str) -> str | None:
    """All that may be shown of a source, and some of what is not, told without a parse; None where letters may be
    written as references.
    """
    text = _LOOSE_TAG.sub("", html)
    if "&" in text:
        text = text.replace("&nbsp;", " ").replace("&amp;", "+")
    return None if "&" in text else text


def _text(html: str) -> str:
    """The text of what the parser wrote."""
    if "<pre" in html:
        html = _PRE.sub(lambda match: match[0].replace("\n", "<br>"), html)
    html = _BREAK.sub("\n", _SILENT.sub("", html).replace("\n", " "))
    text = _TAG.sub("", _CELL.sub(" ", html))
    if "&" in text:
        text = text.replace("&nbsp;", "\u00a0").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return _folded(text)


class _Words:
    """The words of elements of one page. What is next to many anchors is read once."""

    __slots__ = ("_beside", "_left")

    def __init__(self) -> None:
        self._left = _MAX_READ
        self._beside: dict[int, str] = {}

    def of(self, node: LexborNode) -> str:
        """Of an anchor itself; none once too much has been read."""
        text = node.text() or "" if self._left > 0 else ""
        self._left -= len(text)
        return " ".join(text.split())[:_MAX_WORDS]

    def around(self, node: LexborNode) -> str:
        """Next to an anchor: the siblings of it, or of what holds nothing else."""
        for _ in range(_MAX_CLIMB):
            words = " ".join(filter(None, map(self._of_sibling, (node.prev, node.next))))
            parent = node.parent
            if words or parent is None or parent.tag == "body":
                return words[:_MAX_WORDS] if len(words) <= 2 * _MAX_WORDS else ""
            node = parent
        return ""

    def _of_sibling(self, node: LexborNode | None) -> str:
        """Its words, or as many of them as are too many; none of what holds an anchor."""
        if node is None or node.tag == "a":
            return ""
        found = self._beside.get(node.mem_id)
        if found is None:
            text = "" if node.css_first("a") is not None else node.text() or ""
            found = self._beside[node.mem_id] = " ".join(text.split())[: 2 * _MAX_WORDS + 1]
        return found


def _anchor(node: LexborNode, long: list[str], read_words: _Words) -> Anchor | None:
    """None for what cannot be clicked: a form without a button, an empty target."""
    if node.tag == "fieldset" and node.css_first("button,input[type=submit],input[type=image]") is None:
        return None
    attributes = node.attributes
    target = attributes.get(_TARGETS.get(node.tag or "", "href"))
    if not target:
        return None
    if long and (number := _PLACEHOLDER.fullmatch(target)) and int(number[1]) < len(long):
        target = _unquoted(long[int(number[1])])
    words = read_words.of(node)
    named = (
        [attributes.get(name) or "" for name in ("title", "aria-label", "value", "alt")] if len(attributes) > 1 else []
    )
    if not words and (image := node.css_first("img[alt]")) is not None:
        named.append(image.attributes.get("alt") or "")
    # URL Standard, section 4.4; a space is written as browsers ask for it.
    address = target.strip(_C0_AND_SPACE).translate(_REMOVED).replace(" ", "%20")
    around = read_words.around(node) if len(words) <= _FEW_WORDS or "://" in words else ""
    return Anchor(address, " ".join(filter(None, [words, *named]))[:_MAX_WORDS], around)


def _unquoted(value: str) -> str:
    """An attribute's value from its source, quotes and references resolved as the parser does."""
    node = LexborHTMLParser(f"<a href={value}>").css_first("a")
    return (node.attributes.get("href") or "") if node is not None else ""


def _bounded(html: str) -> tuple[str, list[str]]:
    """(source within the bound, the long targets that placeholders in it stand for). What is not shown goes first:
    pictures, comments and styles, then long targets and attributes of looks.
    """
    long: list[str] = []

    def placeholder(match: re.Match[str]) -> str:
        long.append(match[1])
        return f'href="{len(long) - 1}{_MARK}"'

    if len(html) > MAX_SOURCE:
        html = _PICTURE.sub(r"\1", html)
    if len(html) > MAX_SOURCE:
        html = _UNSEEN.sub("", html)
    if len(html) > MAX_SOURCE:
        html = _LOOKS.sub("", _LONG_TARGET.sub(placeholder, html))
    return html[:MAX_SOURCE], long


def _folded(text: str) -> str:
    """Lines without the spaces around them and with one empty line at most between two."""
    if not text.isascii() and any(map(text.__contains__, _PADS)):
        text = _PADDING.sub(" ", text)
    lines = [""]
    for line in text.replace("\0", "\ufffd").split("\n"):
        folded = " ".join(line.split())
        if folded or lines[-1]:
            lines.append(folded)
    return "\n".join(lines).strip()
