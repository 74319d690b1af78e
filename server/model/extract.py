"""What readers of disposable mail come for: verification codes. Pure functions over text.

A code counts only beside a word that says what it is, in English, Chinese, German, French, Spanish, Portuguese,
Italian, Japanese, Korean or Russian. Candidates are found by byte searches at C speed and judged by regular
expressions over a window of fixed size, so the cost is linear in a bounded text.
"""

import re

SCAN_CHARACTERS = 16_384
MAX_CODES = 5
_MAX_CANDIDATES = 60
_BEFORE = 80
_AFTER = 60
_CUE_REACH = 12
_LONGEST_KEYWORD = 16
_LONGEST_OTHER = 16
# Longer than "code" or "otp" with the longest code of letters and digits behind it.
_MIXED_REACH = 80

# Digits, the letters of "code" and "otp" and the separators behind them, each kind as one byte: one pass over a text,
# and two searches of what it gives, tell of most texts that they hold no code. "?" stands for all that is not Latin-1.
_KINDS = (
    (b"0123456789", b"0"),
    (b"oO", b"o"),
    (b"dDtT", b"t"),
    (b"eEpP", b"p"),
    (b" \t\n\v\f\r\x1c\x1d\x1e\x1f:=#\"'[(*>-?" + bytes(range(0x80, 0x100)), b" "),
)
_CLASSES = b"".join(next((kind for members, kind in _KINDS if bytes((byte,)) in members), b".") for byte in range(256))
_MIXED_CLASSES = b"otp "
# Every ASCII word for a code has one of these. A character is found, or not, at many times the speed of a translation.
_IN_WORDS = "oaiOAI"
_DIGITS_SHOWN = "0123456789"
_WIDE_DIGITS = [(chr(0xFF10 + digit), str(digit)) for digit in range(10)]

# Each alternative begins with a letter, and a word boundary before it is asked for behind it: then, and only then, the
# engine skips to possible first letters.
_KEYWORD = re.compile(
    r"code|otp\b(?<=\botp)|pin\b(?<=\bpin)|one[- ]time|password|2fa|token\b(?<=\btoken)|tan\b(?<=\btan)|verif|kennwort|"
    r"passwort|mot de passe|código|codigo|clave|contraseña|senha|codice|"
    r"验证码|驗證碼|校验码|校驗碼|动态码|動態碼|确认码|確認碼|激活码|认证码|認證碼|识别码|口令|密码|密碼|"
    r"コード|認証番号|確認番号|暗証番号|パスワード|인증|코드|код|парол"
)
_OTHER = re.compile(
    r"zip[- ]?code|postal[- ]?code|post[- ]?code|promo[- ]?code|promotion[- ]?code|discount[- ]?code|coupon[- ]?code|"
    r"error[- ]?code|status[- ]?code|country[- ]?code|area[- ]?code|source[- ]?code|bar[- ]?code|qr[- ]?code|"
    r"product[- ]?code|order\b(?<=\border)|invoice|phone|tel\b(?<=\btel)|fax\b(?<=\bfax)|tracking|ticket|"
    r"case\b(?<=\bcase)|account (?:number|no)|total\b|price\b|bestellung|rechnung|commande|facture|pedido|factura|"
    r"订单|訂單|编号|編號|发票|電話|电话|金额|注文|заказ|телефон"
)
# What may stand between the word and its code: "code is: ", "验证码为【".
_CUE = re.compile(r"(?:[:：=＝#]|\b(?:is|ist|lautet|est|es|é|è)|は|为|為|是|：|—|–|-)[\s\W]*$")
_DIGITS = re.compile(r"(?:\d{3}[ \u00a0-]\d{3}|\d{4}[ \u00a0]\d{4})(?![ -]?\d)()|\d+")
_PREFIXED = re.compile(r"(?<![A-Za-z0-9-])[A-Z]{1,3}-$")
_MIXED_WIDE_WORDS = ("码", "碼", "コード", "código", "codigo", "код", "口令", "코드", "codice")
_MIXED = re.compile(
    r"(?:\s{1,5}(?:is|are|ist|lautet|est|es|é|è)|\s{0,5}(?:は|为|為|是))?[\s:：=＝#\"'“”‘’【「『\[(*>—–-]{1,20}"
    r"(?:([0-9](?:[ \u00a0][0-9]){3,7})(?![ ]?[0-9])|"
    r"([A-Za-z0-9]{2,10}(?:-[A-Za-z0-9]{2,10}){0,3})(?![A-Za-z0-9@]|\.[A-Za-z]))"
)
_CASES = re.compile(r"[A-Z]")
_DIGIT = re.compile(r"[0-9]")
_LETTER = re.compile(r"[A-Za-z]")


def codes(subject: str, text: str) -> tuple[str, ...]:
    """At most 5 verification codes of 4 to 12 characters, in the order of the text, the subject's first.

    "482 193" is given as "482193", "AB12-CD34" and "G-123456" as they stand. Only the first 16,384 characters count.
    """
    scanned = f"{subject}\n{text[:SCAN_CHARACTERS]}"
    wide = not scanned.isascii()
    if wide:
        scanned = _narrow(scanned)
    elif not any(map(scanned.__contains__, _IN_WORDS)) or not any(map(scanned.__contains__, _DIGITS_SHOWN)):
        return ()
    classes = scanned.encode("latin-1", "replace").translate(_CLASSES)
    first = classes.find(b"0")
    if first < 0:
        return ()
    last = classes.rfind(b"0")
    scanned, classes = scanned[: last + _MIXED_REACH], classes[: last + 1]
    digits, word = classes.find(b"000", first), classes.find(_MIXED_CLASSES, max(0, first - _MIXED_REACH))
    if digits < 0 and word < 0 and not wide:
        return ()
    lower = _lower(scanned)
    found: dict[str, int] = {}
    if digits >= 0:
        _numeric(scanned, lower, classes, digits, found)
    if word >= 0:
        _mixed(scanned, lower, classes, word, found)
    if wide:
        _mixed_wide(scanned, lower, found)
    return tuple(sorted(found, key=found.__getitem__))[:MAX_CODES] if found else ()


def _narrow(text: str) -> str:
    for wide, digit in _WIDE_DIGITS:
        if wide in text:
            text = text.replace(wide, digit)
    return text


def _lower(text: str) -> str:
    """Lower case with every character in its place; a few capitals (U+0130) would become two characters."""
    lower = text.lower()
    return lower if len(lower) == len(text) else text


def _numeric(text: str, lower: str, classes: bytes, start: int, found: dict[str, int]) -> None:
    """Adds codes of digits, the first candidate at `start`, and where each was first seen."""
    # Up to here no keyword is in reach.
    clear = 0
    for _ in range(_MAX_CANDIDATES):
        if start < 0:
            break
        end, code = _candidate(text, start)
        # A keyword is what costs most to look for.
        possible = code and _stands_free(text, start, end) and not _is_year(lower, start, code)
        if possible and _keyword_near(lower, max(clear, start - _BEFORE), start, end + _AFTER):
            prefix = _PREFIXED.search(text, max(0, start - 5), start) if text[start - 1 : start] == "-" else None
            name = prefix[0] + code if prefix else code
            if name not in found and _named(lower, start, end, code):
                found[name] = start
        elif possible:
            clear = end + _AFTER - _LONGEST_KEYWORD
        start = classes.find(b"000", end)


def _keyword_near(lower: str, low: int, start: int, high: int) -> bool:
    return lower.find("code", low, start) >= 0 or _KEYWORD.search(lower, low, high) is not None


def _candidate(text: str, start: int) -> tuple[int, str]:
    """(end of the digits, the code they make or "") of the digits that begin at `start`."""
    match = _DIGITS.match(text, start)
    if match is None:
        return start + 1, ""
    digits = match[0] if match.lastindex is None else "".join(filter(str.isdigit, match[0]))
    return match.end(), digits if 4 <= len(digits) <= 8 else ""


def _looks_like_year(code: str) -> bool:
    return len(code) == 4 and code.startswith(("19", "20"))


def _is_year(lower: str, start: int, code: str) -> bool:
    """Whether digits that look like a year are not led up to as a code is."""
    return _looks_like_year(code) and not _CUE.search(lower[max(0, start - _CUE_REACH) : start])


def _named(lower: str, start: int, end: int, code: str) -> bool:
    """Whether the nearest telling word before the digits, or after them in the sentence, is of a code and not of an
    order, a price or a postcode."""
    before = lower[max(0, start - _BEFORE) : start]
    code_word = before.rfind("code")
    if code_word >= 0 and not _OTHER.search(before, max(0, code_word - _LONGEST_OTHER)):
        return True
    word, other = _last(_KEYWORD, before), _last(_OTHER, before)
    if word > other:
        return True
    if other >= 0 or _looks_like_year(code):
        return False
    after = re.split(r"[.!?。！？]|\n\n", lower[end : end + _AFTER], maxsplit=1)[0]
    match = _KEYWORD.search(after)
    return match is not None and not _OTHER.search(after[: match.end()])


def _last(pattern: re.Pattern[str], text: str) -> int:
    position = -1
    for match in pattern.finditer(text):
        position = match.end()
    return position


def _stands_free(text: str, start: int, end: int) -> bool:
    """Not part of a word, an address, a URL, a date, a price, a decimal or a telephone number."""
    previous, following = text[start - 1 : start], text[end : end + 2]
    if previous in ("", " ", "\n") and (following[:1] in ("", " ", "\n") or following in (". ", ".\n", ", ", ".")):
        return "+" not in text[max(0, start - 4) : start]
    if (previous.isascii() and previous.isalnum()) or previous in ("@", "/", "$", "€", "£", "¥", "&", "%", "_", "+"):
        return False
    if previous in ("=", "?") and "://" in text[max(0, start - 200) : start].rpartition(" ")[2]:
        return False
    if previous in (".", ",", "-", ":", ")") and text[start - 2 : start - 1].isdigit():
        return False
    if "+" in text[max(0, start - 4) : start]:
        return False
    if following[:1] in (".", ",", "-", "/", ":") and following[1:].isdigit():
        return False
    return not (following[:1].isascii() and (following[:1].isalnum() or following[:1] in ("@", "%", "_", "€")))


def _mixed(text: str, lower: str, classes: bytes, position: int, found: dict[str, int]) -> None:
    """Adds codes of letters and digits, and of single digits set apart, that stand right after "code" or "otp"; the
    first place that may be one of them is `position`."""
    words = 0
    while position >= 0 and words < _MAX_CANDIDATES:
        if lower.startswith("otp", position) or lower.startswith("code", position - 1):
            _add_mixed(text, lower, position + 3, found)
            words += 1
        position = classes.find(_MIXED_CLASSES, position + 3)


def _mixed_wide(text: str, lower: str, found: dict[str, int]) -> None:
    """The same after words that are not ASCII."""
    for word in _MIXED_WIDE_WORDS:
        position = 0
        for _ in range(_MAX_CANDIDATES):
            position = lower.find(word, position)
            if position < 0:
                break
            position += len(word)
            _add_mixed(text, lower, position, found)


def _add_mixed(text: str, lower: str, position: int, found: dict[str, int]) -> None:
    match = _MIXED.match(text, position)
    if match is None or not (match[1] or _is_mixed_code(match[2])):
        return
    if _OTHER.search(lower, max(0, position - 20), position):
        return
    if match[1]:
        found.setdefault("".join(match[1].split()), match.start(1))
    else:
        found.setdefault(match[2], match.start(2))


def _is_mixed_code(code: str) -> bool:
    if code.isalpha() or code.isdigit():
        return False
    plain = code.replace("-", "")
    if not 5 <= len(plain) <= 12 or not _DIGIT.search(plain) or not _LETTER.search(plain):
        return False
    return _CASES.search(plain) is not None or len(_DIGIT.findall(plain)) >= 2
