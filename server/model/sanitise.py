"""The HTML of mail made fit to show, and its text.

Pure functions. The allow-list is the inner of two walls: whoever serves the result still puts it into a sandboxed frame
under a policy that forbids everything. Remote images are never loaded from the result: their address moves to
`data-src`, and the page sets it back when the reader asks.

Both functions take bounded input. `sanitise` takes up to 20 ms for 16 KiB and 0.5 s for 512 KiB of the worst source:
run what is large where it can be killed.
"""

import html as html_entities
import re

import nh3

MAX_HTML_BYTES = 524_288
MAX_DEPTH = 200
MAX_ATTRIBUTES = 200
MAX_TAGS = 30_000
_MAX_TEXT_INPUT = 262_144
_MAX_TEXT_MARKS = 20_000
_MAX_DENSE_INPUT = 65_536
_MAX_STYLE = 4_096


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TAGS = _words(
    "a abbr acronym address article b bdi big blockquote br caption center cite code col colgroup dd del dfn div "
    "dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd li main mark nav ol p pre q "
    "rp rt ruby s samp section small span strike strong sub sup table tbody td tfoot th thead time tr tt u ul var "
    "wbr"
)
_SHARED = {"style", "align", "valign", "bgcolor", "dir", "lang", "title", "width", "height"}
_ATTRIBUTES: dict[str, set[str]] = {
    "*": _SHARED,
    "a": {"href"},
    "img": {"src", "alt", "border", "hspace", "vspace"},
    "table": {"border", "cellpadding", "cellspacing", "summary"},
    "td": {"colspan", "rowspan", "nowrap"},
    "th": {"colspan", "rowspan", "nowrap", "scope"},
    "col": {"span"},
    "colgroup": {"span"},
    "font": {"color", "face", "size"},
    "ol": {"start", "type"},
    "blockquote": {"type"},
    "hr": {"size", "noshade"},
}
_STYLES = _words(
    "background-color border border-bottom border-bottom-color border-bottom-style border-bottom-width "
    "border-collapse border-color border-left border-left-color border-left-style border-left-width border-radius "
    "border-right border-right-color border-right-style border-right-width border-spacing border-style border-top "
    "border-top-color border-top-style border-top-width border-width box-sizing clear color direction display "
    "float font font-family font-size font-style font-variant font-weight height letter-spacing line-height "
    "list-style-type margin margin-bottom margin-left margin-right margin-top max-height max-width min-height "
    "min-width mso-line-height-rule overflow padding padding-bottom padding-left padding-right padding-top "
    "table-layout text-align text-decoration text-indent text-transform vertical-align white-space width "
    "word-break word-spacing word-wrap overflow-wrap"
)
_DROPPED = {"script", "style", "title", "noscript", "template", "textarea", "iframe", "noembed", "noframes", "object"}
# Elements for which parsers have rules of their own (foreign content, the form pointer, select, plain text): none may
# be shown, so their tags go first, and what they hold is read as ordinary content.
_SPECIAL = re.compile(
    r"</?(?:svg|math|form|select|option|optgroup|button|input|keygen|frameset|frame|plaintext|xmp|listing|image|dialog)"
    r"\b[^<>]*+>?",
    re.IGNORECASE,
)
_SCHEMES = {"http", "https", "mailto", "tel", "cid", "data", "blocked"}
_FETCHING = re.compile(r"\(|\\|/\*|@|expression|javascript", re.IGNORECASE)
_COLOUR_FUNCTION = re.compile(r"\b(?:rgb|rgba|hsl|hsla)\([0-9.,%/ deg]{1,60}\)", re.IGNORECASE)
_INLINE_IMAGE = re.compile(r"data:image/(?:png|jpe?g|gif|webp|bmp)[;,]|cid:", re.IGNORECASE)
_REMOTE = re.compile(r"https?://", re.IGNORECASE)
# A prefix that no client resolves stands in for `data-src`, which a filter of values cannot name.
_BLOCKED = "blocked:"

_VOID = _words("area base br col embed hr img input link meta param source track wbr")
_RAW_TEXT = {
    name: re.compile(f"</{name}(?=[\\s/>])", re.IGNORECASE)
    for name in ("script", "style", "textarea", "title", "iframe", "noembed", "noframes")
}
# WHATWG HTML section 13.2.4.3: stays open, and is opened again, across the end of its parent.
_FORMATTING = _words("a b big code em font i nobr s small strike strong tt u")
_SCOPES = _words("table td th caption applet marquee object template")
_TABLE_PARTS = _words("caption col colgroup tbody td tfoot th thead tr")
# The same standard's "special" elements; end tags of ordinary elements and open list items are not looked for beyond.
_BLOCKS = _words(
    "article aside blockquote center details dir dl fieldset figcaption figure footer h1 h2 h3 h4 h5 h6 header "
    "hgroup iframe main menu nav noscript ol pre section summary ul"
)
_BARRIERS = _BLOCKS | _SCOPES | _TABLE_PARTS
_CLOSED_IN_SCOPE = _BLOCKS | {"address", "div", "p", "dd", "dt"}
_IN_TABLE = frozenset(("table",))
_PARAGRAPH = frozenset(("p",))
# Parsers make one of each, whatever the source says.
_ONCE = _words("html head body")
# An end tag that may be left out: the elements that a start tag ends, and those that they are not looked for beyond.
_IMPLIED: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "li": (frozenset(("li",)), _BARRIERS | {"dd", "dt"}),
    "dt": (frozenset(("dt", "dd")), _BARRIERS | {"li"}),
    "dd": (frozenset(("dt", "dd")), _BARRIERS | {"li"}),
    "td": (frozenset(("td", "th")), _IN_TABLE),
    "th": (frozenset(("td", "th")), _IN_TABLE),
    "tr": (frozenset(("tr",)), _IN_TABLE),
    **{tag: (frozenset(("tbody", "thead", "tfoot")), _IN_TABLE) for tag in ("tbody", "thead", "tfoot")},
}
_NAME = re.compile(r"(/?)([a-zA-Z][^\s/>\0]{0,100})")
# WHATWG HTML sections 13.2.5.32 to 13.2.5.40; possessive, so that no input makes it backtrack.
_ATTRIBUTE = re.compile(r"[\s/]*+(?:([^\s/>][^\s/>=]*+)(?:\s*+=\s*+(?:\"[^\"]*+\"|'[^']*+'|[^\s>\"'][^\s>]*+)?)?)?")

# A tag ends at the next `<` at the latest: then each character is looked at once, closed or not.
_BREAK = re.compile(
    r"<(?:br|/?(?:div|p|tr|table|li|ul|ol|h[1-6]|hr|blockquote|section|article|header|footer|pre|dl|dt|dd))\b[^<>]*+>?",
    re.IGNORECASE,
)
_CELL = re.compile(r"<t[dh]\b[^<>]*+>?", re.IGNORECASE)
_ANY_TAG = re.compile(r"<[/!?]?[a-zA-Z\[][^<>]*+>?")
_INVISIBLE = re.compile(r"<(script|style|title|template|noscript|svg|textarea|select)\b|<!--", re.IGNORECASE)
_END_OF = {
    name: re.compile(f"</{name}[^<>]*+>?", re.IGNORECASE)
    for name in ("script", "style", "title", "template", "noscript", "svg", "textarea", "select")
}


def sanitise(html: str) -> str:
    """HTML that runs nothing and fetches nothing: allow-listed tags, attributes and style properties.

    Links open a new context with rel="noopener noreferrer nofollow". Images keep only `data:` and `cid:` sources, a
    remote one is kept as `data-src`. Beyond 512 KiB, 30,000 tags, a depth of 200 or 200 attributes in a tag the answer
    is the source, escaped, in <pre>.
    """
    source = html
    if len(html) <= MAX_HTML_BYTES:
        html = _SPECIAL.sub("", html)
    if _SPECIAL.search(html) or not _within_bounds(html):
        return f"<pre>{html_entities.escape(source[:MAX_HTML_BYTES])}</pre>"
    clean = nh3.clean(
        html,
        tags=set(_TAGS),
        clean_content_tags=_DROPPED,
        attributes=_ATTRIBUTES,
        attribute_filter=_filtered,
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
        url_schemes=_SCHEMES,
        url_relative="deny",
        filter_style_properties=set(_STYLES),
    )
    return clean.replace(f' src="{_BLOCKED}', ' data-src="')


def _filtered(tag: str, attribute: str, value: str) -> str | None:
    """The value to keep, None to drop the attribute."""
    if attribute == "style":
        return value if len(value) <= _MAX_STYLE and not _FETCHING.search(_COLOUR_FUNCTION.sub("", value)) else None
    if attribute == "src":
        if _REMOTE.match(value):
            return _BLOCKED + value
        return value if _INLINE_IMAGE.match(value) else None
    if attribute == "href" and value.lstrip().lower().startswith(("data:", "cid:", _BLOCKED)):
        return None
    return value


def _within_bounds(html: str) -> bool:
    if len(html) > MAX_HTML_BYTES or (not html.isascii() and len(html.encode("utf-8", "replace")) > MAX_HTML_BYTES):
        return False
    depth = _Depth()
    position = 0
    for _ in range(MAX_TAGS):
        start = html.find("<", position)
        if start < 0:
            return True
        position = _after_tag(html, start + 1, depth)
        if position < 0 or depth.total() > MAX_DEPTH:
            return False
    return False


def _after_tag(html: str, start: int, depth: "_Depth") -> int:
    """Where to go on after the `<` before `start`, the tag counted; -1 if it has too many attributes."""
    name = _NAME.match(html, start)
    if not name:
        return _after_markup(html, start)
    position = name.end()
    for _ in range(MAX_ATTRIBUTES):
        match = _ATTRIBUTE.match(html, position)
        if match is None or match.end() == position:
            break
        position = match.end()
    else:
        return -1
    tag = name[2].lower()
    if name[1]:
        depth.close(tag)
    elif tag in _RAW_TEXT:
        end = _RAW_TEXT[tag].search(html, position)
        return end.start() if end else len(html)
    elif tag not in _VOID:
        depth.open(tag)
    return max(position, start + 1)


def _after_markup(html: str, start: int) -> int:
    if html.startswith("!--", start):
        end = html.find("-->", start + 1)
        return len(html) if end < 0 else end + 3
    return start


class _Depth:
    """An upper estimate of how deep the elements of an HTML parser would nest."""

    __slots__ = ("_formatting", "_outer", "_stack")

    def __init__(self) -> None:
        self._stack: list[str] = []
        # Open formatting elements of the innermost scope, and of the scopes around it.
        self._formatting: dict[str, int] = {}
        self._outer: list[dict[str, int]] = []

    def total(self) -> int:
        """Open elements."""
        return len(self._stack) + sum(self._formatting.values()) + sum(sum(level.values()) for level in self._outer)

    def open(self, tag: str) -> None:
        """Counts a start tag."""
        if tag in _FORMATTING:
            self._formatting[tag] = self._formatting.get(tag, 0) + 1
            return
        if tag in _ONCE or (tag in _TABLE_PARTS and "table" not in self._stack):
            return
        if tag in _CLOSED_IN_SCOPE or tag == "li":
            self._close_nearest(_PARAGRAPH, _SCOPES)
        if tag in _IMPLIED:
            ended, barriers = _IMPLIED[tag]
            self._close_nearest(ended, barriers)
        self._stack.append(tag)
        if tag in _SCOPES:
            self._outer.append(self._formatting)
            self._formatting = {}

    def close(self, tag: str) -> None:
        """Counts an end tag; one that its scope does not hold is ignored, as parsers do."""
        if tag in _FORMATTING:
            if self._formatting.get(tag, 0) > 0:
                self._formatting[tag] -= 1
            return
        self._close_nearest(frozenset((tag,)), self._limits(tag))

    def _limits(self, tag: str) -> frozenset[str]:
        if tag == "li":
            return _SCOPES | {"ul", "ol"}
        if tag in _TABLE_PARTS or tag == "table":
            return _IN_TABLE
        return (
            _SCOPES
            if tag in _CLOSED_IN_SCOPE or tag in _SCOPES
            else _BARRIERS | {"div", "p", "address", "li", "dd", "dt"}
        )

    def _close_nearest(self, tags: frozenset[str], barriers: frozenset[str]) -> None:
        for index in range(len(self._stack) - 1, -1, -1):
            if self._stack[index] in tags:
                for tag in self._stack[index:]:
                    if tag in _SCOPES:
                        self._formatting = self._outer.pop()
                del self._stack[index:]
                return
            if self._stack[index] in barriers:
                return


def html_to_text(html: str) -> str:
    """The readable text of the first 262,144 characters: a line per block, entities resolved, no script and no style.

    Linear. A source of more than 20,000 tags and entities is cut at 65,536 characters. Never raises.
    The result holds no NUL, and no lone surrogate that the source does not hold.
    """
    html = html[:_MAX_TEXT_INPUT]
    if html.count("<") + html.count("&") > _MAX_TEXT_MARKS:
        html = html[:_MAX_DENSE_INPUT]
    text = _visible(html).replace("\n", " ")
    text = _BREAK.sub("\n", text)
    text = _ANY_TAG.sub("", _CELL.sub(" ", text))
    if "&" in text:
        text = html_entities.unescape(text)
    lines: list[str] = [""]
    for line in text.replace("\0", "\ufffd").split("\n"):
        folded = " ".join(line.split())
        if folded or lines[-1]:
            lines.append(folded)
    return "\n".join(lines).strip()


def _visible(html: str) -> str:
    """`html` without comments and elements that show no text; an unclosed one hides the rest."""
    if not (match := _INVISIBLE.search(html)):
        return html
    shown: list[str] = []
    position = 0
    while match:
        shown.append(html[position : match.start()])
        if match[1]:
            end = _END_OF[match[1].lower()].search(html, match.end())
            position = end.end() if end else len(html)
        else:
            closed = html.find("-->", match.end())
            position = closed + 3 if closed >= 0 else len(html)
        match = _INVISIBLE.search(html, position)
    shown.append(html[position:])
    return "".join(shown)
