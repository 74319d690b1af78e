"""Which elements of a mail are not seen: how senders hide a preheader.

Inline styles, the `hidden` attribute and plain rules of `<style>` for one class or id. Pure functions over text and
parsed elements. Not a style engine: what media queries, scripts or cascades decide is not looked at.
"""

import re

from selectolax.lexbor import LexborHTMLParser, LexborNode

_MAX_STYLES = 65_536
_MAX_NAMES = 200

_ZERO = r"0*(?:\.0+)?(?:px|pt|em|rem|%|vw)?(?![0-9.])"
_GONE = re.compile(
    rf"(?:^|;)(?:display:none|visibility:hidden|mso-hide:all|opacity:{_ZERO}|max-height:{_ZERO}|max-width:{_ZERO}"
    rf"|text-indent:-\d{{3,}}|left:-\d{{3,}}|top:-\d{{3,}}|clip:rect\(0|color:transparent"
    rf"|color:rgba\((?:[0-9.]+,){{3}}0\))"
)
_NO_ROOM = re.compile(rf"(?:^|;)(?:height|width):{_ZERO}")
_CLIPPED = re.compile(r"(?:^|;)overflow:hidden")
_SIZE = re.compile(r"(?:^|;)font(?:-size:|:(?:[a-z0-9 ]*? )?)(\d*\.?\d+)(px|pt|em|rem|%)?")
_COLOUR = re.compile(r"(?:^|;)color:(#[0-9a-f]{3,6}|[a-z]+)")
_BACKGROUND = re.compile(r"(?:^|;)background(?:-color)?:(#[0-9a-f]{3,6}|[a-z]+)(?=;|$)")
_WHITE = {"white": "#ffffff", "#fff": "#ffffff"}
# A source without any of these, in lower case and without spaces around its colons, hides nothing.
_MAY_HIDE = (
    *("display:none", "visibility:hidden", "mso-hide", "opacity:0", "max-height:0", "max-width:0", "overflow:hidden"),
    *("text-indent:-", "clip:rect", ":transparent", "rgba("),
    *("font-size:0", "font-size:1px", "font-size:.0", "font:0", "font:1px"),
)
_HIDDEN_ATTRIBUTE = re.compile(r"\shidden(?=[\s=>/])")
_ONE_COLOUR = re.compile(
    r"color:(?:#fff(?:fff)?|white)(?=[;\"'])[^\"'<>{}]{0,300}?background(?:-color)?:(?:#fff(?:fff)?|white)(?![0-9a-f])"
    r"|background(?:-color)?:(?:#fff(?:fff)?|white);[^\"'<>{}]{0,300}?color:(?:#fff(?:fff)?|white)(?![0-9a-f])"
)
# Each of these patterns matches wherever it begins, or gives up at the next place where it may begin: one that looked
# for its end in vain from each of 60,000 places would take seconds.
_STYLE = re.compile(r"<style(?=[\s/>])[^<>]*+>(.*?)(?:</style|\Z)", re.IGNORECASE | re.DOTALL)
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_AT_RULE = re.compile(r"@[^{};]*+(?:\{(?:[^{}]*+\{[^{}]*+\})*[^{}]*+\}?|[;}]|\Z)")
_RULE = re.compile(r"([^{}]*+)(?:\{([^{}]*+)\})?[{}]?")
_NAME = re.compile(r"(?:[a-z]+)?([.#][\w-]+)")
_SPACE = re.compile(r"\s+|!important", re.IGNORECASE)


def remove_hidden(tree: LexborHTMLParser, source: str) -> None:
    """Takes what is not seen out of the tree of a source."""
    if not _may_hide(source):
        return
    names = _hidden_names(source)
    gone: list[LexborNode] = []
    small: list[LexborNode] = []
    for node in tree.css("[style],[hidden],[class],[id]" if names else "[style],[hidden]"):
        attributes = node.attributes
        style = _plain(attributes.get("style") or "")
        if "hidden" in attributes or (names and _is_named(attributes, names)):
            if "display:block" not in style:
                gone.append(node)
        elif style and _is_gone(style):
            gone.append(node)
        elif style and _is_small(style):
            small.append(node)
    _remove_small(small)
    remove(gone)


def _may_hide(source: str) -> bool:
    lower = source.lower().replace(": ", ":").replace(" :", ":")
    return (
        any(map(lower.__contains__, _MAY_HIDE))
        or (" hidden" in lower and _HIDDEN_ATTRIBUTE.search(lower) is not None)
        or (("color:#fff" in lower or "color:white" in lower) and _ONE_COLOUR.search(lower) is not None)
    )


def remove(nodes: list[LexborNode]) -> None:
    """Takes elements out of their tree, the innermost first, for what is in one that has gone is gone."""
    for node in reversed(nodes):
        if node.tag not in ("body", "html"):
            node.decompose()


def _remove_small(elements: list[LexborNode]) -> None:
    """Removes the text that inherits the size of these elements, in the order of the source; what sets a size of its
    own is seen. Each node is visited once, however deep the elements nest.
    """
    small: dict[int, bool] = {}
    texts: list[LexborNode] = []
    for element in elements:
        if element.mem_id in small:
            continue
        for node in element.traverse(include_text=True):
            parent = node.parent
            inherits = parent is not None and small.get(parent.mem_id, False)
            if node.is_text_node:
                if inherits:
                    texts.append(node)
                continue
            style = _plain(node.attributes.get("style") or "")
            small[node.mem_id] = _is_small(style) if _SIZE.search(style) else inherits
    for text in texts:
        text.decompose()


def _is_small(style: str) -> bool:
    found = _SIZE.search(style)
    return found is not None and float(found[1]) < (0.1 if found[2] in ("em", "rem") else 2 if found[2] != "%" else 5)


def _is_named(attributes: dict[str, str | None], hidden: frozenset[str]) -> bool:
    names = [f".{name}" for name in (attributes.get("class") or "").split()]
    return not hidden.isdisjoint([*names, f"#{attributes.get('id') or ''}"])


def _plain(style: str) -> str:
    return (
        _SPACE.sub(" ", style)
        .lower()
        .replace(": ", ":")
        .replace(" :", ":")
        .replace("; ", ";")
        .replace(", ", ",")
        .strip()
    )


def _is_gone(style: str) -> bool:
    if _GONE.search(style):
        return True
    if _CLIPPED.search(style) and _NO_ROOM.search(style):
        return True
    colour, behind = _COLOUR.search(style), _BACKGROUND.search(style)
    return bool(colour and behind and _WHITE.get(colour[1], colour[1]) == _WHITE.get(behind[1], behind[1]))


def _hidden_names(source: str) -> frozenset[str]:
    names: set[str] = set()
    styles = "\n".join(match[1] for match in _STYLE.finditer(source))[:_MAX_STYLES]
    if not styles:
        return frozenset()
    for selectors, declarations in _RULE.findall(_AT_RULE.sub("", _COMMENT.sub("", styles))):
        if len(names) < _MAX_NAMES and _is_gone(_plain(declarations)):
            plain = [_NAME.fullmatch(selector.strip()) for selector in selectors.split(",")]
            names.update(match[1] for match in plain if match)
    return frozenset(names)
