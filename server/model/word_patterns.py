"""Many words as one pattern that is quick to search: of twenty languages most cannot be in a text.

Pure functions. Must not know which words there are.

What the engine tries at each place is what costs. So a word boundary is asked for once for all words that begin with
one, and text in ASCII is searched for those words alone that may be in it.
"""

import re
from collections.abc import Iterator, Sequence

_BOUNDARY = r"\b"
# The end of a word is what counts: what is in front of its stem in the same word need not be matched.
_ANY_BEGINNING = r"\b\w*"
# The innermost group or set of characters, and what may be left out.
_GROUP = re.compile(r"\((?:\?(?:[:=!]|<[=!]))?([^()]*)\)|\[\^?([^\]]*)\]")
_OPTIONAL = re.compile(r"(?s).(?:[?*]|\{0,)")


class Words:
    """The alternatives ``entries``, each a part of a regular expression, searched for like a compiled pattern."""

    __slots__ = ("_all", "_ascii")

    def __init__(self, entries: Sequence[str]) -> None:
        self._all = _compiled(entries)
        self._ascii = _compiled([entry for entry in entries if _may_be_ascii(entry)])

    def search(self, text: str) -> re.Match[str] | None:
        """The first match in `text`."""
        return (self._ascii if text.isascii() else self._all).search(text)

    def finditer(self, text: str) -> Iterator[re.Match[str]]:
        """The matches in `text`, one behind the other."""
        return (self._ascii if text.isascii() else self._all).finditer(text)


def _compiled(entries: Sequence[str]) -> re.Pattern[str]:
    ends = [entry.removeprefix(_ANY_BEGINNING) for entry in entries if entry.startswith(_ANY_BEGINNING)]
    rest = [entry for entry in entries if not entry.startswith(_ANY_BEGINNING)]
    words = [entry.removeprefix(_BOUNDARY) for entry in rest if entry.startswith(_BOUNDARY)]
    others = [entry for entry in rest if not entry.startswith(_BOUNDARY)]
    groups = [rf"\b(?:{'|'.join(words)})"] if words else []
    return re.compile("|".join([*groups, *ends, *others]))


def _may_be_ascii(entry: str) -> bool:
    """Whether some match of an entry is in ASCII, told by what no match can be without."""
    while group := _GROUP.search(entry):
        inner = "|".join(group[2]) if group[1] is None else group[1]
        kept = "_" if _may_be_ascii(inner) else "\u00e9"
        entry = f"{entry[: group.start()]}{kept}{entry[group.end() :]}"
    return any(_OPTIONAL.sub("", alternative).isascii() for alternative in entry.split("|"))
