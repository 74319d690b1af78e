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

# Pictures in the source are no part of what is shown; they may be long.
_PICTURE = re.compile(r"([\"'(])\s*+data:[^\"'<>()]{1000,}", re.IGNORECASE)
_UNSEEN = re.compile(r"<!--.*?(?:-->|\Z)|<style(?=[\s>]).*?(?:</style>?|\Z)", re.IGNORECASE | re.DOTALL)
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
_TARGETS = {"button": "formaction", "input": "formaction", "fieldset": "action"}
_CLICKED = "a[href],area[href],button[formaction],input[formaction],fieldset[action]"
# What widens a preheader so that nothing else is previewed: characters without a width, a few in a row.
_WIDTHLESS = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2060-\u2064\u206a-\u206f\u2800\u3164\ufeff\uffa0"
)
_PADDING = re.compile(f"(?:[{_WIDTHLESS}]++[ \u00a0\u2000-\u200a\u202f\t\n]*+){{3,}}")
_PADS = "\u00ad\u034f\u200b\u200c\u200d\u200e\u2060\u2800\u3164\ufeff"
_C0_AND_SPACE = "".join(map(chr, range(0x21)))
_REMOVED = str.maketrans("", "", "\t\n\r")


class Anchor(msgspec.Struct, frozen=True):
    """A target that can be clicked, as a browser reads it, and the words of what leads there."""

    target: str
    words: str


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
    source = html_limits.usual(_bounded(html))
    source = source[: html_limits.within(source)].replace("\0", "\ufffd")
    tree = LexborHTMLParser(source) if source.strip() else None
    if tree is None or tree.body is None:
        return Page("", ())
    if _MAY_BE_SILENT.search(source):
        html_hidden.remove(tree.css(_SILENT_ELEMENTS))
    html_hidden.remove_hidden(tree, source)
    return Page(_text(tree.body.html or ""), tuple(filter(None, map(_anchor, tree.css(_CLICKED)[:MAX_ANCHORS]))))


def _text(html: str) -> str:
    """The text of what the parser wrote."""
    if "<pre" in html:
        html = _PRE.sub(lambda match: match[0].replace("\n", "<br>"), html)
    html = _BREAK.sub("\n", _SILENT.sub("", html).replace("\n", " "))
    text = _TAG.sub("", _CELL.sub(" ", html))
    if "&" in text:
        text = text.replace("&nbsp;", "\u00a0").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return _folded(text)


def _anchor(node: LexborNode) -> Anchor | None:
    """None for what cannot be clicked: a form without a button, an empty target."""
    if node.tag == "fieldset" and node.css_first("button,input[type=submit],input[type=image]") is None:
        return None
    attributes = node.attributes
    target = attributes.get(_TARGETS.get(node.tag or "", "href"))
    if not target:
        return None
    words = " ".join((node.text() or "").split())[:_MAX_WORDS]
    named = (
        [attributes.get(name) or "" for name in ("title", "aria-label", "value", "alt")] if len(attributes) > 1 else []
    )
    if not words and (image := node.css_first("img[alt]")) is not None:
        named.append(image.attributes.get("alt") or "")
    # URL Standard, section 4.4; a space is written as browsers ask for it.
    address = target.strip(_C0_AND_SPACE).translate(_REMOVED).replace(" ", "%20")
    return Anchor(address, " ".join(filter(None, [words, *named]))[:_MAX_WORDS])


def _bounded(html: str) -> str:
    if len(html) > MAX_SOURCE:
        html = _PICTURE.sub(r"\1", html)
    if len(html) > MAX_SOURCE:
        html = _UNSEEN.sub("", html)
    return html[:MAX_SOURCE]


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
