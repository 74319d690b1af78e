"""How far a source of HTML is cheap to parse.

HTML5 parsers are quadratic in nesting, in the attributes of one tag and in formatting elements left open. A compiled
pattern takes the source apart as such a parser does, in one pass; only a source of more than a few tags is then
followed tag by tag. Pure functions over text. Must not know mail, nor what is allowed in the result.
"""

import re
from itertools import islice

MAX_TAGS = 30_000
MAX_ATTRIBUTES = 200
MAX_DEPTH = 200
# Elements that a parser may open again because formatting was left open across blocks.
MAX_REOPENED = 60_000
# Characters of the tags whose attributes all end in one element, which parsers compare each with each.
MAX_MERGED = 16_384
_FEW_MERGED = 8
# So few tags may nest as they like.
_FEW_TAGS = 4_000

# Elements for which parsers have rules of their own: foreign content, frames, plain text, a list of choices, raw text
# that depends on whether scripts run. A script may go on behind "</script>", a form ends where its tag does not say.
_ODD = re.compile(
    r"<(/?)(?:(script|textarea|title|iframe|noembed|noframes)(?=[\s/>])|(form)(?=[\s/>])"
    r"|(?:svg|math|frameset|frame|plaintext|xmp|listing|image|noscript|keygen|select|option|optgroup)"
    r"(?![a-z0-9:_-])[^<>]*+>?)",
    re.IGNORECASE | re.ASCII,
)
# WHATWG HTML sections 13.2.5.6 to 13.2.5.53. The white space of HTML is not that of Unicode.
_SPACES = r"[\t\n\f\r ]*+"
_VALUE = r"(?:\"[^\"]*+\"?|'[^']*+'?|[^\t\n\f\r >\"'][^\t\n\f\r >]*+)"
_ATTRIBUTE = rf"(?:[\t\n\f\r /]*+[^\t\n\f\r />][^\t\n\f\r />=]*+(?:{_SPACES}=(?:{_SPACES}{_VALUE})?)?)"
_REST = rf"{_ATTRIBUTE}{{0,{MAX_ATTRIBUTES}}}[\t\n\f\r /]*+"
_STYLE = r"[sS][tT][yY][lL][eE](?=[\t\n\f\r />])"
# (a character if the attributes of a style are too many, name of another tag, a character if its are). Nothing behind
# the attributes can fail, so no input makes the pattern backtrack.
_TOKEN = re.compile(
    r"<(?:"
    r"!--(?:-?>|.*?(?:--!?>|\Z))"
    rf"|{_STYLE}{_REST}(?:>(?:.*?</{_STYLE}{_REST}|.*))?(?:>|(.)?)"
    rf"|(/?[a-zA-Z][^\t\n\f\r />]*+){_REST}(?:>|(.)?)"
    r"|[!?/][^>]*+>?"
    r")",
    re.DOTALL,
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_VOID = _words("area base br col embed hr img input link meta param source track wbr")
# Parsers make one of each, whatever the source says.
_ONCE = _words("html head body")
_MERGED = _words("html body")
# WHATWG HTML section 13.2.4.3: stays open, and is opened again, across the end of its parent.
_FORMATTING = _words("a b big code em font i nobr s small strike strong tt u")
# A formatting element that is not closed again among elements of a line.
_INLINE = "|".join(sorted(_FORMATTING))
_LEFT_OPEN = re.compile(rf"(?<![^ ])({_INLINE}) (?!(?:(?!\1 )(?:img|br|/?(?:span|{_INLINE})) ){{0,8}}?/\1 )")
_SCOPES = _words("table td th caption applet marquee object template")
# Formatting that is open before one of these is not open in it, and what is left open in it ends with it.
_MARKERS = _SCOPES - {"table"}
_TABLE_PARTS = _words("caption colgroup tbody td tfoot th thead tr")
# The same standard's "special" elements; end tags of ordinary elements and open list items are not looked for beyond.
_BLOCKS = _words(
    "article aside blockquote center details dialog dir dl fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 "
    "header hgroup main menu nav ol pre search section summary ul button"
)
_BARRIERS = _BLOCKS | _SCOPES | _TABLE_PARTS
_CLOSED_IN_SCOPE = _BLOCKS | {"address", "div", "p", "dd", "dt"}
_ENDS_PARAGRAPH = _CLOSED_IN_SCOPE | {"li", "hr", "table"}
_ORDINARY_LIMITS = _BARRIERS | {"div", "p", "address", "li", "dd", "dt"}
_IN_TABLE = frozenset(("table", "template"))
_PARAGRAPH = frozenset(("p",))
# An end tag that may be left out: the elements that a start tag ends, and those that they are not looked for beyond.
_IMPLIED: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "li": (frozenset(("li",)), _BARRIERS | {"dd", "dt"}),
    "dt": (frozenset(("dt", "dd")), _BARRIERS | {"li"}),
    "dd": (frozenset(("dt", "dd")), _BARRIERS | {"li"}),
    "td": (frozenset(("td", "th")), _IN_TABLE),
    "th": (frozenset(("td", "th")), _IN_TABLE),
    "tr": (frozenset(("tr",)), _IN_TABLE),
    "table": (frozenset(("table",)), frozenset(("td", "th", "caption", "template"))),
    **{tag: (frozenset(("tbody", "thead", "tfoot")), _IN_TABLE) for tag in ("tbody", "thead", "tfoot")},
}


def usual(html: str) -> str:
    """`html` without the tags that parsers do not read alike.

    Raw text of any kind, which is never shown, becomes that of a style; a form becomes a fieldset with its attributes.
    An empty element that is not shown stands in for the others, lest what is around them become another tag.
    """
    return _ODD.sub(_replaced, html)


def _replaced(odd: re.Match[str]) -> str:
    if odd[2]:
        return f"<{odd[1]}style"
    return f"<{odd[1]}fieldset" if odd[3] else "<param>"


def within(html: str) -> int:
    """The length of the beginning of `html`, as `usual` gives it, that is within the bounds: all of it, as a rule."""
    if "<" not in html:
        return len(html)
    tokens = _TOKEN.findall(html)
    if _is_simple(tokens):
        return len(html)
    nested, merged = _Nesting().follow(tokens[:MAX_TAGS]), _merged(html, tokens)
    broken = min([len(tokens), MAX_TAGS, *(number for number in (nested, merged) if number is not None)])
    return next(islice(_TOKEN.finditer(html), broken, None)).start() if broken < len(tokens) else len(html)


def _merged(html: str, tokens: list[tuple[str, str, str]]) -> int | None:
    """The number of the token with which the attributes of "html" and "body" become too many."""
    if sum([name.lower() in _MERGED for _, name, _ in tokens]) <= _FEW_MERGED:
        return None
    size = 0
    for number, token in enumerate(_TOKEN.finditer(html)):
        if (token[2] or "").lower() in _MERGED:
            size += len(token[0])
            if size > MAX_MERGED:
                return number
    return None


def _is_simple(tokens: list[tuple[str, str, str]]) -> bool:
    """Whether so few tags leave so little formatting open that no order of them is dear."""
    if len(tokens) > _FEW_TAGS:
        return False
    names = " ".join([name for _, name, _ in tokens if name]).lower() + " "
    return (
        len(_LEFT_OPEN.findall(names)) * len(tokens) <= MAX_REOPENED
        and names.count("html ") + names.count(" body ") <= _FEW_MERGED
        and not any(on or raw_on for raw_on, _, on in tokens)
    )


class _Nesting:
    """An upper estimate of the elements that an HTML5 parser holds open, and of those that it opens again."""

    __slots__ = ("_active", "_formatting", "_open", "_outer", "_stack")

    def __init__(self) -> None:
        self._stack: list[str] = []
        # How many of each name are in the stack.
        self._open: dict[str, int] = {}
        # Open formatting elements of the innermost scope, of the scopes around it, and of all of them.
        self._formatting: dict[str, int] = {}
        self._outer: list[dict[str, int]] = []
        self._active = 0

    def follow(self, tokens: list[tuple[str, str, str]]) -> int | None:
        """The number of the token that breaks a bound, None if none does."""
        stack = self._stack
        reopened = 0
        for number, (raw_goes_on, name, goes_on) in enumerate(tokens):
            if raw_goes_on or goes_on:
                return number
            if not name:
                continue
            tag = name if name.islower() else name.lower()
            if tag[0] == "/":
                self._end(tag[1:])
            elif tag not in _VOID:
                self._start(tag)
                if len(stack) + self._active > MAX_DEPTH:
                    return number
            if self._active:
                reopened += self._active
                if reopened > MAX_REOPENED:
                    return number
        return None

    def _start(self, tag: str) -> None:
        if tag in _FORMATTING:
            if self._formatting.get(tag, 0) and tag in ("a", "nobr"):
                return
            self._formatting[tag] = self._formatting.get(tag, 0) + 1
            self._active += 1
            return
        if tag in _ONCE or (tag in _TABLE_PARTS and not self._open.get("table")):
            return
        if tag in _ENDS_PARAGRAPH and self._open.get("p"):
            self._close_nearest(_PARAGRAPH, _SCOPES)
        if tag in _IMPLIED:
            self._close_nearest(*_IMPLIED[tag])
        self._stack.append(tag)
        self._open[tag] = self._open.get(tag, 0) + 1
        if tag in _MARKERS:
            self._outer.append(self._formatting)
            self._formatting = {}

    def _end(self, tag: str) -> None:
        """An end tag that its scope does not hold is ignored, as parsers do."""
        if self._stack and self._stack[-1] == tag:
            self._close(len(self._stack) - 1)
        elif tag in _FORMATTING:
            if self._formatting.get(tag, 0) > 0:
                self._formatting[tag] -= 1
                self._active -= 1
        elif self._open.get(tag):
            self._close_nearest(frozenset((tag,)), _limits(tag))

    def _close_nearest(self, tags: frozenset[str], barriers: frozenset[str]) -> None:
        stack = self._stack
        for index in range(len(stack) - 1, -1, -1):
            if stack[index] in tags:
                self._close(index)
                return
            if stack[index] in barriers:
                return

    def _close(self, index: int) -> None:
        """Closes the element with this place in the stack and those in it."""
        for tag in self._stack[index:]:
            self._open[tag] -= 1
            if tag in _MARKERS:
                if self._formatting:
                    self._active -= sum(self._formatting.values())
                self._formatting = self._outer.pop()
        del self._stack[index:]


def _limits(tag: str) -> frozenset[str]:
    if tag == "li":
        return _SCOPES | {"ul", "ol"}
    if tag in _TABLE_PARTS or tag == "table":
        return _IN_TABLE
    return _SCOPES if tag in _CLOSED_IN_SCOPE or tag in _SCOPES else _ORDINARY_LIMITS
