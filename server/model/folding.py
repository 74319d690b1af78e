"""Text as a search compares it: what looks alike to a reader is alike, however it was written.

Lives here: the folding of texts and of what is looked for in them. Must not know: where texts come from.

NFKC (full-width letters, half-width katakana, ligatures), case, accents and further marks of Latin, Greek and Cyrillic,
letters that a stroke or a dot sets apart, invisible characters, and any white space as one space. The marks of other
scripts stay: without them these read as other words. ``messages.folded`` does the same in the database; a test compares
the two.
"""

import re
import unicodedata
from typing import Final

_UNSEEN: Final = re.compile(
    "[\u0300-\u036f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff]+"
)
_LETTERS: Final = str.maketrans(
    {
        **dict(zip("øłđðħıŧς", "olddhitσ", strict=True)),
        **{"ß": "ss", "æ": "ae", "œ": "oe", "þ": "th"},
    }
)
_COMPOSED: Final = re.compile("[\u1100-\u11ff\u3099\u309a]")  # Hangul and kana, whose parts are letters of their own


def folded(text: str) -> str:
    """``text`` in the form that is compared."""
    if text.isascii():
        lower = text.lower()
    else:
        bare = _UNSEEN.sub("", unicodedata.normalize("NFKD", text))
        lower = bare.lower().translate(_LETTERS)
        if _COMPOSED.search(lower):
            lower = unicodedata.normalize("NFC", lower)
    return " ".join(lower.split())


def sought(text: str) -> str:
    """What is looked for, in that form; unlike a text it keeps one space at either end, where it has any."""
    core = folded(text)
    before = " " if core and text[:1].isspace() else ""
    return before + core + (" " if core and text[-1:].isspace() else "")
