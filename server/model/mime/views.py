"""Which parts of a message are its text, which its HTML and which are attachments: RFC 8621 section 4.1.4.

Pure functions over leaves. Nothing here decodes, and nothing here knows how a part is shown.
"""

from collections.abc import Sequence

import msgspec

from server.model.mime.parts import TNEF_RTF, Leaf


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


HTML_TYPES = frozenset(("text/html", "application/xhtml+xml"))
# Subtypes of text that are known and are data. All others are text (RFC 2046 section 4.1.4).
_DATA = _words(
    "amp-html calendar css csv directory ecmascript javascript rfc822-header rfc822-headers rtf tab-separated-values "
    "vcard watch-html x-amp-html x-javascript x-moz-deleted x-vcalendar x-vcard xml xml-external-parsed-entity"
)
_READ = HTML_TYPES | _words("text/plain text/enriched text/richtext text/markdown text/x-markdown")
# Renderings for a few programs, of what the other alternatives say too.
_RENDERINGS = frozenset(("text/x-amp-html", "text/amp-html", "text/watch-html"))


# Data that reads as text where it is all of a message.
_LEGIBLE = frozenset(
    f"text/{subtype}"
    for subtype in _words("css csv javascript rfc822-header rfc822-headers tab-separated-values x-javascript xml")
)


class Views(msgspec.Struct, frozen=True):
    """The parts of both views, and what is neither. A part may be in both views."""

    text: Sequence[Leaf]
    html: Sequence[Leaf]
    attachments: Sequence[Leaf]


def views(leaves: Sequence[Leaf]) -> Views:
    """The views of a message with these leaves, in order."""
    text: list[Leaf] = []
    html: list[Leaf] = []
    attachments: list[Leaf] = []
    _sort(leaves, 0, "mixed", False, text, html, attachments)
    return Views(text, html, attachments)


def with_bodies(found: Views, bodies: Sequence[Leaf]) -> Views:
    """The same with bodies of its own, each in the view of its kind."""
    html = [leaf for leaf in bodies if leaf.content_type in HTML_TYPES][:1]
    # RTF comes last.
    text = [leaf for leaf in bodies if leaf.content_type not in HTML_TYPES][:1]
    if html and text and text[0].content_type == TNEF_RTF:
        text = []
    return Views(text or html, html or text, found.attachments)


def is_text(content_type: str) -> bool:
    """Whether the type is text of some kind, but not HTML."""
    main, _, subtype = content_type.partition("/")
    return main == "text" and subtype != "html" and subtype not in _DATA


def _sort(
    leaves: Sequence[Leaf],
    depth: int,
    subtype: str,
    in_alternative: bool,
    text: list[Leaf] | None,
    html: list[Leaf] | None,
    attachments: list[Leaf],
) -> None:
    """`parseStructure` of the RFC, for the leaves within one multipart, `depth` multiparts down."""
    text_before, html_before = len(text or ()), len(html or ())
    had_both = text is not None and html is not None
    both_text, both_html = text, html
    position = 0
    while position < len(leaves):
        leaf = leaves[position]
        if len(leaf.path) > depth:
            inner = leaf.path[depth]
            end = position + 1
            while end < len(leaves) and leaves[end].path[depth : depth + 1] == (inner,):
                end += 1
            alternative = in_alternative or inner.subtype == "alternative"
            _sort(leaves[position:end], depth + 1, inner.subtype, alternative, text, html, attachments)
            position = end
            continue
        position += 1
        if leaf.content_type in _RENDERINGS and in_alternative:
            continue
        if not _is_inline(leaf, subtype):
            attachments.append(leaf)
        elif subtype == "alternative":
            _alternative(leaf, leaves, text, html, attachments)
        else:
            if in_alternative and leaf.content_type in HTML_TYPES:
                text = None
            elif in_alternative:
                html = None
            for view in (text, html):
                if view is not None:
                    view.append(leaf)
            if leaf.container and leaf.content_type not in _READ:
                # The RFC makes it an attachment, RFC 2046 makes it text.
                attachments.append(leaf)
    if subtype == "alternative" and had_both and both_text is not None and both_html is not None:
        if len(both_text) == text_before:
            both_text += both_html[html_before:]
        elif len(both_html) == html_before:
            both_html += both_text[text_before:]


def _alternative(
    leaf: Leaf, leaves: Sequence[Leaf], text: list[Leaf] | None, html: list[Leaf] | None, attachments: list[Leaf]
) -> None:
    if leaf.content_type in HTML_TYPES:
        if html is not None:
            html.append(leaf)
        return
    plain = leaf.content_type == "text/plain"
    if not plain and any(other.content_type == "text/plain" for other in leaves):
        attachments.append(leaf)
    elif text is not None:
        text.append(leaf)


def _is_inline(leaf: Leaf, container: str) -> bool:
    """Whether a part is read in place rather than downloaded."""
    if leaf.disposition == "attachment":
        return False
    if not leaf.container and leaf.content_type in _LEGIBLE and not leaf.filename:
        return True
    usual = leaf.content_type in ("text/plain", "text/html")
    if not usual and (leaf.filename or not (is_text(leaf.content_type) or leaf.content_type in HTML_TYPES)):
        return False
    # Beyond the RFC: an alternative is read whether it has a name or not.
    return leaf.first or container == "alternative" or (container != "related" and not leaf.filename)
