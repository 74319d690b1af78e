"""Verification codes: what readers of disposable mail wait for. Pure functions over text.

A candidate is a code where words of its sentence, of the lines above it or of the subject say so, and neither its shape
nor a nearer word says that it is a date, a telephone number, an amount, an address or an order. Linear in bounded text.
"""

import re
from collections.abc import Sequence
from functools import cached_property

import msgspec

from server.model import code_others, code_places, code_stems, code_words
from server.model.code_places import Stretch
from server.model.word_patterns import Words

SCAN_CHARACTERS = 16_384
MAX_CODES = 5
_MAX_CANDIDATES = 150
_MAX_LOOKED_AT = 1_000
_LONGEST_RUN = 200
_AFTER = 60
_BOOKING_WORDS = 2
_GAP = 12
_SHORT = 4
# The longest label of a row whose cells hold a digit each.
_LABEL = 30
# How far what touches a candidate reaches: a verb with a noun after it, and a preposition.
_TAIL = 60
_WITH_REACH = 12

_STEMS, _WIDE_STEMS = tuple(code_stems.PLAIN.split("|")), tuple(code_stems.WIDE.split("|"))
_ALL_STEMS = (*_STEMS, *_WIDE_STEMS)
_SOUGHT = code_places.Stems(_STEMS, _WIDE_STEMS)
# The longest word of each.
_PARTS, _ALL_PARTS = (tuple({max(stem.split(), key=len) for stem in stems}) for stems in (_STEMS, _ALL_STEMS))
_IN_STEMS = code_places.in_each(_STEMS)
# Digits of other scripts, and full-width letters, each as one character of ASCII.
_ZEROS = (0xFF10, 0x0660, 0x06F0, 0x0966, 0x09E6, 0x0E50, 0x0ED0, 0x1040, 0x17E0)
_NARROW = (
    {zero + digit: 48 + digit for zero in _ZEROS for digit in range(10)}
    | {0xFF21 + letter: 65 + letter for letter in range(26)}
    | {0xFF0D: 45, 0x2010: 45, 0x2011: 45, 0x2012: 45, 0x00A0: 32, 0x3000: 32, 0x202F: 32, 0x2009: 32, 0x0130: 73}
)

_WIDE = re.compile(f"[{''.join(map(chr, _NARROW))}]")

# Some senders put them between digits, lest a telephone dials these.
_WIDTHLESS = "\u00ad\u200b\u200c\u200d\u2060\ufeff"
_INVISIBLE = re.compile(f"[{_WIDTHLESS}]+")

_CANDIDATE = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?P<single>[0-9A-Z](?P<apart> |-|\n{1,2})[0-9A-Z](?:(?P=apart)[0-9A-Z]){2,6}"
    r"(?![0-9A-Za-zÀ-ӿḀ-ỿ])(?![ -]?[0-9A-Z](?![0-9A-Za-zÀ-ӿḀ-ỿ])))"
    r"|(?P<grouped>[0-9]{3}[ -][0-9]{3}|[0-9]{4}[ -][0-9]{4}|"
    r"[0-9]{2}(?P<mark>[ -])[0-9]{2}(?P=mark)[0-9]{2}(?:(?P=mark)[0-9]{2})?)"
    r"(?![ -]?[0-9])"
    r"|(?P<pair>[0-9]{2}[ -][0-9]{2})(?![ :./-]?[0-9])"
    r"|(?P<word>(?=[A-Za-z]{0,15}(?:-[A-Za-z]{1,9}){0,3}-?[0-9]|[A-Z]{2,}[A-Z-]{2,}(?![a-z]))"
    r"[A-Za-z0-9]{1,16}(?:-[A-Za-z0-9]{1,10}){0,4})"
    r")(?![A-Za-z0-9])"
)
_CODE = Words(code_words.CODES)
_OTHER = Words(code_others.OTHERS)
_NEAR = re.compile(
    rf"(\b(?:{'|'.join(code_others.NEAR)})\b|{code_others.NEAR_UNSPACED})"
    rf"(?:[\W_]{{1,3}}(?:{code_others.NEAR_LINKS})\b){{0,3}}[\W_]{{0,4}}$"
)
_BOOKED = re.compile(code_others.BOOKED)
_BOOKING = re.compile(code_others.BOOKING)
_FOR = re.compile(rf"(?:\W[\w-]+){{0,2}}\W(?:{code_words.FOR})\b.*(?:\b(?:{code_words.LED_UP_TO})|:)\W*$", re.DOTALL)
_ADJECTIVE = re.compile(r" [^\W\d]{1,20}:? ")
_ENTER_BEFORE = Words(code_words.ENTER_BEFORE)
# What may be between a verb that asks to enter a code and the code.
_OBJECT = re.compile(rf"\W{{0,4}}(?:bitte )?|(?:\W{{1,3}}\w+){{0,3}}\W{{1,3}}(?:{code_words.NUMBERS})\W{{0,4}}")
_ENTER = Words((*code_words.ENTER_BEFORE, *code_words.ENTER_AFTER))
_ENTER_AFTER = re.compile(rf"\W{{0,3}}(?:{'|'.join(code_words.ENTER_AFTER)})")
_PURPOSE = Words(code_words.PURPOSE)
_TO_DO = Words(code_words.TO_DO)
_SECRET = Words(code_words.SECRET)
_WITH = re.compile(rf"\b(?:{code_words.WITH})\W{{1,3}}$")
_NAMED_LETTERS = re.compile(
    r"[^\s\d:：.,]{0,30}(?: [^\s\d:：.,]+){0,4} ?"
    r"(?:[:：]|\b(?:is|lautet|est|es|é|è|to|jest|je|adalah|là)\b|คือ|هو|هي|है|[—–-])[\s\"'“„«(\[【「*]*"
)
_COLON = re.compile(r"[:：]\s*$")
_END = re.compile(r"[\W_]*?(?:[.。!！\n]|$)")
# A day as one writes it between hyphens.
_DAY = re.compile(r"(?:0[1-9]|[12][0-9]|3[01])-(?:0[1-9]|1[0-2])-[0-9]{2}")
_CUE = re.compile(rf"(?:\([a-z0-9]{{2,5}}\))?(?:{code_words.CUES}|[,;|\u200b])*")
_LED_UP_TO = re.compile(
    rf"(?:\b(?:{code_words.LED_UP_TO})|{code_words.LED_UP_TO_UNSPACED}|[:：=>–—-])[\s\"'“„«(\[【「]*"
    rf"(?:\b(?:{code_words.ARTICLES}) )?$"
)
_NUMBER_BETWEEN = re.compile(r"(?<![0-9])(?!(?:19|20)[0-9]{2}(?![0-9]))[0-9]{3,}")
# The number of a word for a code that is followed by its own.
_NUMBER_LATER = re.compile(r"(?: [^\W\d]+){1,2}:? [0-9]{4}")
_OWN_NUMBER = re.compile(r"[\s:：=#(\[]{0,3}[0-9]{3}")
_LIKE = re.compile(rf"\b(?:{code_words.LIKE})\b")
_AT = re.compile(rf"\b(?:{code_words.AT_A_TIME}) $")
_CLOCK = re.compile("(?:[01][0-9]|2[0-3])[0-5][0-9]")
_UNIT = re.compile(rf" ?(?:{code_others.UNITS})")
_AMOUNT = re.compile(rf"(?:[€$£¥₹₽]|\b[a-z]{{2,3}}\$?) ?[0-9][0-9., ]*|[0-9][0-9., ]*(?:{code_others.UNITS})")
_MONEY_BEFORE = re.compile(r"(?:[€$£¥₹₽]|\b(?:usd|eur|gbp|rs|inr|rp|idr|cny|jpy|r\$)\.?) ?$")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)(?<!\brs.)(?<!\bno.)(?<!\bnr.)(?<!\bn.)|[。！？؟।\n]")
_DATE = re.compile(
    r"(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])|(?:0[1-9]|[12][0-9]|3[01])(?:0[1-9]|1[0-2])(?:19|20)[0-9]{2}"
)
_YEAR = re.compile(r"(?:19|20|25)[0-9]{2}")
_TIME_WORD = re.compile(
    r"(?:[0-9]{1,4}(?:h|min|st|nd|rd|th|x|km|kg|mb|gb|px|pm|am|ml|cm|mm|s|d|k)[0-9]{0,2}|v[0-9]+|utf-?8|mp[34]|h[1-6]|[0-9]x)",
    re.IGNORECASE,
)
# A word or a month, with a year, with the saving or with any two digits.
_COUPON = re.compile(
    r"[A-Z]{3,}20[0-9]{2}|[A-Z]{4,}[0-9]{2}|(?=[A-Z]*[AEIOUY])[A-Z]{3,}(?:[1-9]0|[125]5|5|[1-9]00|[1-9]000)"
)
_FILE_NUMBER = re.compile(r"(?:INV|ORD|ORDER|REF|PO|SO|TKT|CASE|RMA|SKU|RE|RG|KD)-?[0-9]{4}")
_HOUSE = re.compile(
    r"[ ,]{1,2}[A-Z][\w'’.]+(?: [A-Z][\w'’.]+){0,2},? (?:St|Street|Ave|Avenue|Rd|Road|Blvd|Lane|Ln|Drive|Dr|Way)\b"
)
_ADDRESS_RUN = re.compile(r"[!-~]*+")
_WEB_ADDRESS = re.compile(r"://|@|www\.|[A-Za-z0-9]\.[A-Za-z]{2,}(?![a-z]*\s)")


class Code(msgspec.Struct, frozen=True, rename={"found_in": "from"}):
    """A code, how sure it is (0 to 1) and where it was found: "subject", "text" or "html".

    "482 193", "98-76-54" and "4 8 2 1 9 3" are given as digits alone, "AB12-CD34" and "G-123456" as they stand.
    """

    value: str
    confidence: float
    found_in: str


def find(subject: str, text: str, source: str = "text") -> tuple[Code, ...]:
    """At most 5 codes of 4 to 16 characters, the likeliest first, equal ones in the order of the mail.

    ``source`` says where `text` comes from. Only its first 16,384 characters count.
    """
    scanned = f"{subject}\n\n{text[:SCAN_CHARACTERS]}"
    if not scanned.isascii():
        if any(map(scanned.__contains__, _WIDTHLESS)):
            subject, text = _INVISIBLE.sub("", subject), _INVISIBLE.sub("", text[:SCAN_CHARACTERS])
            scanned = f"{subject}\n\n{text}"
        scanned = _WIDE.sub(_narrowed, scanned)
    elif not any(map(scanned.__contains__, _IN_STEMS)):
        return ()
    stretches = code_places.places(scanned)
    if not stretches:
        return ()
    lower = scanned.lower()
    if len(lower) != len(scanned):
        lower = scanned
    stems = _SOUGHT.possible(lower)
    context = _Context(scanned, lower, len(subject))
    candidates = context.candidates(code_places.in_reach(lower, len(subject), stems, stretches))
    near = code_places.near(lower, len(subject), stems, [match.start() for match, _ in candidates])
    found: dict[str, tuple[float, int]] = {}
    for match, value in [candidates[number] for number in near[:_MAX_CANDIDATES]]:
        sure = context.judge(match, value)
        if sure > found.get(value, (0.0, 0))[0]:
            found[value] = (sure, found.get(value, (0.0, match.start()))[1])
    if not found:
        return ()
    best = max(sure for sure, _ in found.values())
    ranked = sorted(((-sure, place, value) for value, (sure, place) in found.items() if sure >= best - 0.2))
    return tuple(
        [Code(value, -sure, "subject" if place < len(subject) else source) for sure, place, value in ranked[:MAX_CODES]]
    )


def may_be_in(subject: str, text: str) -> bool:
    """Whether `find` may find anything in a text whose lines break otherwise."""
    if text.isascii() and not code_places.has_signs(text):
        return False
    lower = f"{subject}\n{text}".lower()
    return any(map(lower.__contains__, _PARTS if lower.isascii() else _ALL_PARTS))


def _narrowed(match: re.Match[str]) -> str:
    return chr(_NARROW[ord(match[0])])


def _value(match: re.Match[str]) -> str:
    """The code that a candidate would be, "" if it has not the form of one."""
    if match["single"] or match["grouped"] or match["pair"]:
        return re.sub("[^0-9A-Z]", "", match[0])
    word = match["word"]
    plain = word.replace("-", "")
    if plain.isdigit():
        return plain if 4 <= len(plain) <= 8 and "-" not in word else ""
    if not 4 <= len(plain) <= 14 or _TIME_WORD.fullmatch(word):
        return ""
    digits = sum(map(str.isdigit, plain))
    if digits:
        return word if plain.isupper() or (digits >= 2 and len(plain) >= 5) else ""
    return word if plain.isupper() and len(plain) <= 12 and not _CODE.search(word.lower()) else ""


class _Context:
    """The text of one mail, and what is said around a candidate."""

    def __init__(self, text: str, lower: str, subject: int) -> None:
        self._text, self._lower, self._subject = text, lower, subject

    @cached_property
    def _subject_names(self) -> bool:
        return _names(self._lower[: self._subject])

    @cached_property
    def _subject_asks(self) -> bool:
        return _PURPOSE.search(self._lower[: self._subject]) is not None

    @cached_property
    def _subject_names_other(self) -> bool:
        return _OTHER.search(self._lower[: self._subject]) is not None

    @cached_property
    def _booked(self) -> bool:
        """Whether the mail is about a booking."""
        lower = self._lower
        return _BOOKED.search(lower) is not None and len(set(_BOOKING.findall(lower))) >= _BOOKING_WORDS

    def candidates(self, stretches: Sequence[Stretch]) -> list[tuple[re.Match[str], str]]:
        """What has the form of a code and neither is a part nor has the form of something else, and the code that it
        would be. This is told sooner than what words are around it.
        """
        text = self._text
        found: list[tuple[re.Match[str], str]] = []
        looked_at = 0
        for start, last, end in stretches:
            for match in _CANDIDATE.finditer(text, start, end):
                looked_at += 1
                if match.start() > last or looked_at > _MAX_LOOKED_AT:
                    break
                value = _value(match)
                if value and self._stands_free(*match.span()) and not self._is_of_other_kind(match, value):
                    found.append((match, value))
        return found

    def judge(self, match: re.Match[str], value: str) -> float:
        """How sure it is that a candidate is a code; 0 if it is none."""
        start, end = match.span()
        digits = value.isdigit()
        before, after = self._before(start), self._after(end)
        letters = not any(map(str.isdigit, value))
        code = _last(_CODE, before)
        other = self._other(before, code)
        if code > other:
            if _CUE.fullmatch(before, code):
                return 0.98
            if match["pair"]:
                return 0.0
            year = digits and _YEAR.fullmatch(value) is not None
            gap = _AMOUNT.sub(" ", before[code:])
            led_up_to = _LED_UP_TO.search(gap) is not None
            if _LIKE.search(gap):
                return 0.0
            if not letters and not year and _FOR.match(gap):
                return 0.9
            if letters and _NAMED_LETTERS.fullmatch(gap) and self._ends_here(end) and _is_random(value):
                return 0.85
            if letters or year or _NUMBER_BETWEEN.search(gap):
                return 0.0
            if led_up_to or (digits and (_follows(gap, value) or (match["single"] and len(gap) <= _LABEL))):
                return 0.9 if led_up_to else 0.8
            return self._asked_for(match, before, after, value) if _asks_to_enter(gap) >= 0 else 0.0
        if match["pair"] or (letters and "-" not in value and not match["single"] and not _is_random(value)):
            return 0.0
        if other < 0 or self._is_alone(start, end):
            return self._otherwise(start, end, before, after, value) or self._asked_for(match, before, after, value)
        # "To pay from account 12345678 enter 220417": the verb is nearer than what names the other number.
        asked = -1 if letters else _asks_to_enter(before)
        return self._asked_for(match, before, after, value) if asked >= max(other, 0) else 0.0

    def _otherwise(self, start: int, end: int, before: str, after: str, value: str) -> float:
        """Where no word in front of a candidate names it."""
        year = value.isdigit() and _YEAR.fullmatch(value) is not None
        named = None if year else _CODE.search(after)
        if re.search(r"\b[A-Z]{2,}[ -]$", self._text[max(0, start - 12) : start]):
            named = None
        if named and not _is_of_other(after, named) and not re.search("[0-9]", after[: named.start()]):
            if _OWN_NUMBER.match(after, named.end()):
                return 0.0
            return 0.6 if _NUMBER_LATER.match(after, named.end()) else 0.95
        if self._is_alone(start, end):
            above = self._lower[max(self._subject, start - code_places.ABOVE) : start].rstrip()
            lines = "\n".join([line for line in above.split("\n") if line.strip()][-2:])
            code = max(_last(_CODE, lines), _last(_ENTER, lines))
            other = self._other(lines, code, ("", ":", "."))
            if code > other:
                return 0.96
            if year:
                return 0.0
            below = self._lower[end : end + 100].strip().partition("\n")[0]
            if (named := _CODE.search(below)) and not _is_of_other(below, named):
                return 0.9
            if other < 0 and self._subject_names:
                return 0.85
        return 0.0

    def _asked_for(self, match: re.Match[str], before: str, after: str, value: str) -> float:
        """Where no word names a candidate, but its sentence asks to enter it, or says what it is for."""
        start, end = match.span()
        if (value.isdigit() and _YEAR.fullmatch(value)) or (self._booked and _BOOKED.search(before)):
            return 0.0
        tail = before[-_TAIL:]
        led_up_to = _LED_UP_TO.search(tail) is not None
        if _asks_to_enter(tail) >= 0 or _ENTER_AFTER.match(after):
            sure = 0.88
        elif led_up_to and _ENTER.search(before):
            sure = 0.85
        else:
            sure = 0.82 if self._is_alone(start, end) and self._is_asked_below(end) else 0.0
        if sure > 0.85 and not value.isdigit() and "%" not in before + after and not self._subject_names_other:
            return 0.84
        if sure and (_PURPOSE.search(before + after) or self._subject_names or self._subject_asks):
            return sure
        if led_up_to and value.isdigit() and _SECRET.search(before):
            return 0.8
        if len(value) < _SHORT + 1 or _DAY.fullmatch(match[0]) or not value.isdigit():
            return 0.0
        if led_up_to and _COLON.search(tail) and _TO_DO.search(before):
            return 0.8
        if (
            _WITH.search(tail[-_WITH_REACH:])
            and self._ends_here(end)
            and (
                _TO_DO.search(before + after)
                or _begins_with_purpose(before)
                or (match["grouped"] is not None and self._subject_asks)
            )
        ):
            return 0.75
        return 0.0

    def _is_asked_below(self, end: int) -> bool:
        """Whether the next line with words asks to enter what is above it."""
        below = self._lower[end : end + 100].strip().partition("\n")[0]
        return _ENTER.search(below) is not None and not _OTHER.search(below)

    def _other(self, before: str, code: int, ends: tuple[str, ...] = (":",)) -> int:
        """Where what names another number ends in front of a candidate, -1 if nothing does. Behind a word for a code,
        "on this page:" names nothing.
        """
        near = _NEAR.search(before)
        if near and ((code < 0 and not _ENTER.search(before)) or before[near.end(1) :].strip() not in ends):
            return len(before)
        return max(_last(_OTHER, before), _last(_BOOKED, before) if self._booked else -1)

    def _before(self, start: int) -> str:
        """What stands in front in the same sentence."""
        before = self._lower[max(0, start - code_places.REACH) : start]
        ends = _last(_SENTENCE_END, before)
        return before[ends:] if ends >= 0 else before

    def _after(self, end: int) -> str:
        after = self._lower[end : end + _AFTER]
        found = _SENTENCE_END.search(after)
        return after[: found.start()] if found else after

    def _ends_here(self, end: int) -> bool:
        """Whether the sentence or the line ends after a candidate."""
        return _END.match(self._text, end) is not None

    def _is_alone(self, start: int, end: int) -> bool:
        """Whether a candidate has its line for itself."""
        front = self._text[max(0, start - 40) : start].rpartition("\n")[2]
        behind = self._text[end : end + 40].partition("\n")[0]
        return start > self._subject and not re.search(r"\w", front + behind)

    def _stands_free(self, start: int, end: int) -> bool:
        """Not part of an address, a URL, a decimal, a date with marks, a time or a telephone number."""
        text = self._text
        previous, following = text[max(0, start - 2) : start], text[end : end + 4]
        if previous[-1:] == "*" == following[:1]:
            previous = following = ""
        if previous[-1:] in ("@", "/", "#", "*", "_", "+", "&", "%", "•", "\\", "№", "x", "…"):
            return False
        if re.fullmatch(r"[0-9][ .,:/-]|[A-Za-z0-9]-", previous) or "+" in text[max(0, start - 4) : start]:
            return False
        if re.match(r"[.,:/-][0-9]| [0-9]{1,3}(?![0-9]?[a-z])|[@%_/]|-[A-Za-z]|\.[A-Za-z]", following):
            return False
        run = _ADDRESS_RUN.match(text[max(0, start - _LONGEST_RUN) : start][::-1])
        front = run[0][::-1] if run else ""
        if front.endswith("=") and not front[:-1].isalpha():
            return False
        return "://" not in front and "@" not in front and "www." not in front

    def _is_of_other_kind(self, match: re.Match[str], value: str) -> bool:
        """A date, an amount, a number of a house, a coupon, a postcode by its shape and what touches it."""
        start, end = match.span()
        if value.isdigit():
            if len(value) == 8 and match["word"] and _DATE.fullmatch(value):
                return True
            if _UNIT.match(self._lower, end) or _MONEY_BEFORE.search(self._lower, max(0, start - 6), start):
                return True
            if _HOUSE.match(self._text, end):
                return True
            if _CLOCK.fullmatch(value) and _AT.search(self._lower, max(0, start - 12), start):
                return True
            return re.search(r"\b[A-Z]{2} $", self._text[max(0, start - 4) : start]) is not None and len(value) == 5
        return _COUPON.fullmatch(value) is not None or _FILE_NUMBER.match(value) is not None


def _is_of_other(text: str, named: re.Match[str]) -> bool:
    """Whether what names a code is a part of other words, or behind some."""
    other = _OTHER.search(text)
    return other is not None and other.start() <= named.start()


def _follows(gap: str, value: str) -> bool:
    """Whether a number is near enough to the word in front of it."""
    return len(gap) <= _GAP or (len(value) > _SHORT and _ADJECTIVE.fullmatch(gap) is not None)


def _last(pattern: re.Pattern[str] | Words, text: str) -> int:
    """Where the last match ends, -1 if there is none."""
    position = -1
    for match in pattern.finditer(text):
        position = match.end()
    return position


def _names(text: str) -> bool:
    return _last(_CODE, text) > _last(_OTHER, text)


def _is_random(value: str) -> bool:
    """Whether letters are hardly a word: senders that draw letters leave out vowels, or draw few."""
    vowels = sum(map(value.count, "AEIOU"))
    return vowels == 0 or (vowels * 5 <= len(value) and any(map(value.__contains__, "JQVXZ")))


def _asks_to_enter(before: str) -> int:
    """Where a verb begins that asks to enter what follows, -1 if there is none."""
    for verb in _ENTER_BEFORE.finditer(before):
        if _OBJECT.fullmatch(before, verb.end()):
            return verb.start()
    return -1


def _begins_with_purpose(sentence: str) -> bool:
    """Whether a sentence begins with what the reader is to do: "Confirm the payment with ..."."""
    found = _PURPOSE.search(sentence)
    return found is not None and not sentence[: found.start()].strip()
