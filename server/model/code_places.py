"""Where in a text a code may be, told at the speed of byte searches: most mail is told to hold none at once.

Pure functions over text. Must not know what makes a candidate a code.

A candidate has two neighbours of digits, letters and "-" of which one is a digit, or four capitals, or single
characters that are set apart; and a word that may name it within reach. A pattern looks at nothing else.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

# How far a word stands in front of its code, or behind it, and how far a line above it.
REACH = 90
ABOVE = 240
_BEFORE = ABOVE
_BEHIND = 2 * REACH
_SUBJECT_REACH = 3_000
# So many stretches are looked at sooner than it is known whether any word for a code is near them.
_FEW = 12
# Longer than any candidate.
_WIDTH = 64
# The same of one without a hyphen, of one whose characters are set apart, and of what is looked at behind one.
_LONGEST_WORD = 16
_WIDTH_APART = 32
_WIDTH_BEHIND = 4
_DIGITS = "0123456789"
_CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# Digits, capitals, other letters, white space and the hyphen, each kind as one byte.
_KINDS = ((_DIGITS, b"0"), (_CAPITALS, b"A"), (_CAPITALS.lower(), b"a"), (" \n", b" "), ("-", b"-"))
_CLASSES = b"".join(next((kind for members, kind in _KINDS if chr(byte) in members), b".") for byte in range(256))
_APART = rb"(?:-| {1,2})"
_ALL_APART = _APART + rb"[0A]" + _APART + rb"[0A]" + _APART + rb"[0A]"
# Words that are longer than any code: passed over all at once, for a text may be made of them.
_LONG = rb"[0Aa]{16,}+[ .]*+(?:[0Aa]{17,}+[ .]*+)*"
# Each begins with one byte, which the engine finds at the speed of a byte search, and goes on to the end of the word.
_DIGIT = re.compile(rb"0(?:" + _LONG + rb"|(?:000|0?0[ -]00|[Aa-]|(?<=[Aa-]0)|" + _ALL_APART + rb")[0Aa-]*+)")
_WIDE_RUN = re.compile(r"[^\x00-\x7f]+")
_CAPITAL = re.compile(rb"A(?:" + _LONG + rb"|(?:A[A-]{2}|" + _ALL_APART + rb")[0Aa-]*+)")


class Stretch(NamedTuple):
    """A part of a text: a code in it begins between `start` and `last`, and is within `end`."""

    start: int
    last: int
    end: int


def places(text: str) -> list[Stretch]:
    """The parts of `text` that have the form of a code, in order."""
    if not has_signs(text):
        return []
    classes = text.encode("latin-1", "replace").translate(_CLASSES)
    found = [match.span() for match in _CAPITAL.finditer(classes)]
    if b"0" in classes:
        found += [match.span() for match in _DIGIT.finditer(classes)]
        found.sort()
    stretches: list[Stretch] = []
    first = last = end = -1
    for place, run in found:
        if run - place > _LONGEST_WORD and b"-" not in classes[place:run]:
            continue
        low = max(0, place - _WIDTH)
        start = max(low, classes.rfind(b" ", low, place) + 1, classes.rfind(b".", low, place) + 1)
        if run - start > _LONGEST_WORD and b"-" not in classes[start:run]:
            continue
        if start >= end:
            if end >= 0:
                stretches.append(Stretch(first, last, end))
            first = start
        last, end = place, max(run + _WIDTH_BEHIND, place + _WIDTH_APART)
    if end >= 0:
        stretches.append(Stretch(first, last, end))
    return stretches


def has_signs(text: str) -> bool:
    """Whether `text` has a digit or two different capitals, as each code has."""
    # Most text has a second capital among the first letters, and some has no digit.
    capitals = filter(text.__contains__, _CAPITALS)
    return (next(capitals, "") and next(capitals, "")) != "" or any(map(text.__contains__, _DIGITS))


def in_each(stems: Sequence[str]) -> str:
    """A few letters, in both cases, of which each stem has one: a text without them has none of the stems."""
    left, letters = list(stems), ""
    while left:
        counted = Counter("".join(["".join(set(stem)) for stem in left]))
        letter = max(sorted(counted), key=counted.__getitem__)
        letters += letter
        left = [stem for stem in left if letter not in stem]
    return "".join(dict.fromkeys(letters + letters.upper()))


class Stems:
    """Pieces of words: the ``plain`` ones, and those that are looked for in text beyond ASCII too.

    Each that is not ASCII is filed under one of its characters, so that a text is asked only for those whose character
    it has: most of those of twenty languages are not in it.
    """

    __slots__ = ("_ascii", "_by_character", "_plain")

    def __init__(self, plain: Sequence[str], wide: Sequence[str]) -> None:
        self._plain = tuple(dict.fromkeys(plain))
        self._ascii = tuple(dict.fromkeys(stem for stem in (*plain, *wide) if stem.isascii()))
        self._by_character: dict[str, list[str]] = {}
        for stem in dict.fromkeys((*plain, *wide)):
            if not stem.isascii():
                self._by_character.setdefault(max(stem), []).append(stem)

    def possible(self, lower: str) -> Sequence[str]:
        """Those that may be in a text in lower case: all that are, and some that are not."""
        if lower.isascii():
            return self._plain
        characters = set("".join(_WIDE_RUN.findall(lower))).intersection(self._by_character)
        return [*self._ascii, *[stem for character in characters for stem in self._by_character[character]]]


def in_reach(lower: str, subject: int, stems: Sequence[str], stretches: Sequence[Stretch]) -> Sequence[Stretch]:
    """The stretches in which a candidate may have a stem within reach. A few are not judged: each is looked at sooner
    than all of the text.
    """
    if len(stretches) <= _FEW:
        return stretches
    by_subject = _by_subject(lower, subject, stems)
    marks = _marks(lower, stems, 0, len(lower))
    # A mark may replace another that is up to REACH after it.
    return [
        one
        for one in stretches
        if one.start < by_subject or _has_between(marks, one.start - _BEFORE - REACH, one.last + _BEHIND)
    ]


def _by_subject(lower: str, subject: int, stems: Sequence[str]) -> int:
    """Up to where the subject's words are enough."""
    title = lower[:subject]
    return subject + _SUBJECT_REACH if any(map(title.__contains__, stems)) else 0


def near(lower: str, subject: int, stems: Sequence[str], starts: Sequence[int]) -> list[int]:
    """The numbers of those candidates that have one of the stems within reach, or are at the beginning of a mail whose
    subject has one. `lower` begins with the subject, which has that length; `starts` are in order.
    """
    if not starts:
        return []
    by_subject = _by_subject(lower, subject, stems)
    found: list[int] = []
    number = 0
    while number < len(starts):
        if starts[number] < by_subject:
            found.append(number)
            number += 1
            continue
        end = number + 1
        while end < len(starts) and starts[end] - starts[end - 1] <= _BEFORE + _BEHIND:
            end += 1
        marks = _marks(lower, stems, max(0, starts[number] - _BEFORE), starts[end - 1] + _BEHIND)
        reached = range(number, end)
        found += [index for index in reached if _has_between(marks, starts[index] - _BEFORE, starts[index] + _BEHIND)]
        number = end
    return found


def _marks(lower: str, stems: Sequence[str], low: int, high: int) -> list[int]:
    """Where stems begin in a part of the text; of one stem's that are near each other some."""
    part = lower[low:high]
    marks: set[int] = set()
    for stem in filter(part.__contains__, stems):
        place = part.find(stem)
        while place >= 0:
            marks.add(low + place)
            place = part.find(stem, place + REACH)
    return sorted(marks)


def _has_between(marks: Sequence[int], low: int, high: int) -> bool:
    first = bisect_left(marks, low)
    return first < len(marks) and marks[first] <= high
