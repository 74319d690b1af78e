"""The links of a mail, the likeliest to be waited for first: a pure function of its text and of what its HTML shows.

A link in text ends where the sentence goes on; one in HTML is the whole value of what can be clicked. Linear in bounded
input. Must not know MIME, nor how a page is read.
"""

import re

from server.model import wording
from server.model.html_page import Anchor
from server.model.word_patterns import Words

SCAN_CHARACTERS = 65_536
MAX_LINKS = 20
MAX_LINK = 16_384
# Of all links of a message together: those that do not fit are left out, the least likely first.
MAX_TOTAL = 49_152
_MAX_URLS = 300

# Scripts that are written without spaces, and full-width marks, end a URL; so do quotes and invisible characters.
_UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fff\u3000-\u30ff\u3100-\u318f\u31a0-\u4dbf\u4e00-\ua4cf\uac00-\ud7ff"
    r"\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff"
)
# A host of such a script is known by its place alone.
_FIRST = r"\u3041-\u30fa\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
_EMOJI = r"\u2600-\u27bf\ufe0f\U0001f000-\U0001faff"
_ENDS = rf"\s\x00-\x20<>\"`\\^\u00ab\u00bb\u00ad\u2000-\u206f\u2190-\u21ff\ufeff\ufffd{_EMOJI}{_UNSPACED}"
# A host of such a script goes on to its last dot.
_WIDE_HOST = rf"[{_FIRST}](?<=://.)(?:[{_FIRST}\w-]{{0,60}}\.(?=[\w-])){{0,5}}+(?:(?<=\.)[{_FIRST}]{{1,10}}(?=[/?#]))?"
_URL = re.compile(rf"https?://(?:[^{_ENDS}/?#]|{_WIDE_HOST})[^{_ENDS}]{{0,{MAX_LINK}}}+", re.IGNORECASE)
_TRAILING = ".,;:!?*'’…·|~،؛؟।॥"
_PAIRS = {")": "(", "]": "[", "}": "{"}
_ACTION = Words(wording.LINK_ACTION)
_PATH_ACTION = re.compile("|".join(wording.PATH_ACTION))
_HERE = re.compile("|".join(wording.LINK_HERE))
_LAST = Words(wording.LINK_LAST)
_PATH_LAST = re.compile("|".join(wording.PATH_LAST))
_SOCIAL = frozenset(wording.SOCIAL_HOSTS)
# As one argument: a mail may have hundreds of links, and there are dozens of these.
_BELOW_SOCIAL = tuple([f".{name}" for name in wording.SOCIAL_HOSTS])
_WEB = re.compile(r"https?://[^\s/?#]", re.IGNORECASE)
_HOST = re.compile(r"https?://([^/?#]{0,300})", re.IGNORECASE)


def find(text: str, anchors: tuple[Anchor, ...] = ()) -> tuple[str, ...]:
    """At most 20 http(s) URLs of at most 16,384 characters: those that verify, confirm, reset or sign in come first,
    the sender's home page after other links, those to leave a list, to other places of the sender and to terms last,
    equal ones in the order of the mail.

    Each anchor is judged by its words ("here" by those around it), then by its path; a URL in text by the line in front
    of it, then by its path.
    """
    ranked: dict[str, int] = {}
    for anchor in anchors:
        if _WEB.match(anchor.target):
            _note(ranked, anchor.target, anchor.words + _purpose(anchor))
    if ":" in text and "://" in text:
        _text_links(text[:SCAN_CHARACTERS], ranked)
    kept: list[str] = []
    room = MAX_TOTAL
    for url in sorted(ranked, key=ranked.__getitem__):
        if len(url) <= room and len(kept) < MAX_LINKS:
            kept.append(url)
            room -= len(url)
    return tuple(kept)


def _purpose(anchor: Anchor) -> str:
    """The word around "here" that says what it does."""
    if not anchor.around or not _HERE.match(anchor.words.lower()):
        return ""
    action = _ACTION.search(anchor.around.lower())
    return f" {action[0]}" if action and not _LAST.search(anchor.around.lower()) else ""


def _note(ranked: dict[str, int], url: str, words: str) -> None:
    if len(url) <= MAX_LINK:
        rank = _rank(url, words.lower())
        ranked[url] = min(ranked.get(url, rank), rank)


def _rank(url: str, words: str) -> int:
    """0 for an action, 1 for what may be one, 2 for an ordinary link, 3 for a home page, 4 for what leads away."""
    host = _HOST.match(url)
    path = url[host.end() : host.end() + 1000].lower() if host else ""
    if _LAST.search(words) or _PATH_LAST.search(path):
        return 4
    if _ACTION.search(words):
        return 0
    if host and _is_social(host[1].lower()):
        return 4
    if path in ("", "/"):
        return 3
    return 1 if _PATH_ACTION.search(path) else 2


def _is_social(host: str) -> bool:
    return host in _SOCIAL or host.endswith(_BELOW_SOCIAL)


def _text_links(text: str, ranked: dict[str, int]) -> None:
    before = 0
    for number, match in enumerate(_URL.finditer(text)):
        if number == _MAX_URLS:
            return
        url = trimmed(match[0])
        if match.start() and text[match.start() - 1] == "_":
            url = url.rstrip("_")
        if _WEB.match(url):
            words = text[max(before, match.start() - 160) : match.start()].rstrip("\n \t<(:：")
            _note(ranked, url, words.rpartition("\n")[2])
        before = match.end()


def trimmed(url: str) -> str:
    """`url` without the punctuation and the unbalanced brackets of the sentence around it."""
    for closing, opening in _PAIRS.items():
        depth = 0
        for position, character in enumerate(url) if closing in url else ():
            depth += (character == opening) - (character == closing)
            if depth < 0:
                url = url[:position]
                break
    return url.rstrip(_TRAILING + "([{")
