"""The HTML of mail made fit to show.

Pure functions. The allow-list is the inner of two walls: the page still puts the result into a sandboxed frame
under a policy that forbids everything. Remote images are never loaded from the result: their address moves to
`data-src`, and the page sets it back when the reader asks.

Input is bounded and time grows with it: up to 20 ms for 16 KiB and 0.5 s for 512 KiB of the worst source. Run what is
large where it can be killed.
"""

import html as html_entities
import re

import nh3

from server.model import html_limits

MAX_HTML_BYTES = 524_288
# A parser copies the text so far at each `&`: with 512 KiB of text, so many of them take 0.2 s.
MAX_REFERENCES = 8_000
# What is written for each of them moves all of the text behind it.
MAX_HARD_SPACES = 32_000
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
    "background background-color border border-bottom border-bottom-color border-bottom-style border-bottom-width "
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
_FETCHING = re.compile(r"\(|\\|/\*|@|expression|javascript", re.IGNORECASE)
_COLOUR_FUNCTION = re.compile(r"\b(?:rgb|rgba|hsl|hsla)\([0-9.,%/ deg]{1,60}\)", re.IGNORECASE)
_URL_FUNCTION = re.compile(r"url\(\s*+(?:\"[^\"\\]*+\"|'[^'\\]*+'|[^)\"'\\(]*+)\s*+\)", re.IGNORECASE)
# URL Standard, section 4.4: what a parser removes before it looks for the scheme.
_C0_AND_SPACE = "".join(map(chr, range(0x21)))
_REMOVED = str.maketrans("", "", "\t\n\r")
_LINK = re.compile(r"(?:https?|mailto|tel):", re.IGNORECASE | re.ASCII)
_REMOTE = re.compile(r"https?:", re.IGNORECASE | re.ASCII)
_INLINE_IMAGE = re.compile(r"data:image/(?:png|jpe?g|gif|webp|bmp)[;,]|cid:", re.IGNORECASE | re.ASCII)
_SCHEMES = {"http", "https", "mailto", "tel", "cid", "data", "blocked"}
# A prefix that no client resolves stands in for `data-src`, which a filter of values cannot name.
_BLOCKED = "blocked:"
_REFERENCE = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
# What stays a reference: it would be read as markup, or as no text at all.
_MARKUP = frozenset("&<>\"'\r\t\n\0")


def sanitise(html: str) -> str:
    """HTML that runs nothing and fetches nothing: allow-listed tags, attributes and style properties.

    Links open a new context with rel="noopener noreferrer nofollow". Images keep only `data:` and `cid:` sources, a
    remote one is kept as `data-src`. Beyond 512 KiB, the bounds of `html_limits` or 8,000 references
    to markup the answer is the source, escaped, in <pre>.
    """
    usual = _bounded(html)
    if html and not usual:
        return f"<pre>{html_entities.escape(html[:MAX_HTML_BYTES])}</pre>"
    return _CLEANER.clean(usual).replace(f' src="{_BLOCKED}', ' data-src="')


def _bounded(html: str) -> str:
    """`html` fit for the parser; "" where it is not within the bounds."""
    if len(html) > MAX_HTML_BYTES or (not html.isascii() and len(html.encode("utf-8", "replace")) > MAX_HTML_BYTES):
        return ""
    html = html_limits.usual(html)
    if html_limits.within(html) < len(html):
        return ""
    if html.count("&") > MAX_REFERENCES:
        html = _REFERENCE.sub(_character, html)
    if not html.isascii() and html.count("\u00a0") > MAX_HARD_SPACES:
        html = html.replace("\u00a0", " ")
    return html if html.count("&") <= MAX_REFERENCES else ""


def _character(reference: re.Match[str]) -> str:
    """What a reference stands for, unless that is markup."""
    text = html_entities.unescape(reference[0])
    return reference[0] if _MARKUP.intersection(text) else text


def _filtered(tag: str, attribute: str, value: str) -> str | None:
    """The value to keep, None to drop the attribute."""
    if attribute == "style":
        return _style(value)
    if attribute == "href":
        address = _address(value)
        return address if _LINK.match(address) else None
    if attribute == "src":
        address = _address(value)
        if _REMOTE.match(address):
            return _BLOCKED + address
        return address if _INLINE_IMAGE.match(address) else None
    return value


def _address(value: str) -> str:
    """A URL as a browser reads it (URL Standard, section 4.4)."""
    return value.strip(_C0_AND_SPACE).translate(_REMOVED)


def _style(value: str) -> str | None:
    """The declarations that fetch nothing; a `background` keeps its colour without its image."""
    if len(value) > _MAX_STYLE:
        return None
    if not _FETCHING.search(_COLOUR_FUNCTION.sub("", value)):
        return value
    declarations = _URL_FUNCTION.sub(" ", value).split(";")
    return ";".join([one for one in declarations if not _FETCHING.search(_COLOUR_FUNCTION.sub("", one))]) or None


_CLEANER = nh3.Cleaner(
    tags=set(_TAGS),
    clean_content_tags=_DROPPED,
    attributes=_ATTRIBUTES,
    attribute_filter=_filtered,
    link_rel="noopener noreferrer nofollow",
    set_tag_attribute_values={"a": {"target": "_blank"}},
    url_schemes=_SCHEMES,
    url_relative="deny",
    filter_style_properties=_STYLES | {name.upper() for name in _STYLES} | {name.capitalize() for name in _STYLES},
)
