"""SPF records (RFC 7208): their grammar and their macros, as values. Must not know: DNS, or what a match leads to.

A record is bounded before it is looked at, because its owner is whoever sent the mail.
"""

import ipaddress
import re
from typing import Final, Literal
from urllib.parse import quote

import msgspec

Result = Literal["none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"]
IP = ipaddress.IPv4Address | ipaddress.IPv6Address

RECORD_MAX: Final = 4_096  # characters; what is published fits in 512 with few exceptions
TERMS_MAX: Final = 200
NAME_MAX: Final = 253
_LABELS_MAX: Final = 128

QUALIFIERS: Final[dict[str, Result]] = {"+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})+")
_MODIFIER: Final = re.compile(r"([A-Za-z][A-Za-z0-9._-]*)=(.*)")
_DIRECTIVE: Final = re.compile(r"([+?~-]?)(all|include|a|mx|ptr|ip4|ip6|exists)(?![A-Za-z0-9])(.*)", re.I)
_CIDR: Final = re.compile(r"(?:/(0|[1-9]\d?))?(?://(0|[1-9]\d{0,2}))?\Z")
_MACRO: Final = re.compile(r"%(?:([%_-])|\{([slodipvh])(\d{0,3})(r?)([.+,/_=-]*)\}|)", re.I)
_ESCAPES: Final = {"%": "%", "_": " ", "-": "%20"}


class Malformed(ValueError):
    """The record is not one: permerror."""


class Directive(msgspec.Struct, frozen=True):
    """A mechanism with what it leads to. ``target``: a domain-spec with macros, "" for the current domain.
    ``network`` is that of ip4 and ip6; ``prefixes`` those of a and mx, for IPv4 and IPv6.
    """

    result: Result
    mechanism: str
    target: str = ""
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    prefixes: tuple[int, int] = (32, 128)


class Record(msgspec.Struct, frozen=True):
    """Directives in the order they are tried, and where to go on when none matches."""

    directives: tuple[Directive, ...]
    redirect: str = ""


class Subject(msgspec.Struct, frozen=True):
    """Who is checked: the client's address, the sender's local part and domain, and the name it greeted with."""

    ip: IP
    local_part: str
    domain: str
    helo: str


def is_record(text: str) -> bool:
    """Whether a TXT record is one of ours to read (section 4.5)."""
    return text[:6].lower() == "v=spf1" and text[6:7] in ("", " ")


def valid_name(name: str) -> bool:
    """Whether a name can be asked for and is fully qualified (section 4.3)."""
    return len(name) <= NAME_MAX and _NAME.fullmatch(name) is not None


def parse(text: str) -> Record:
    """Read a record to its end before anything of it counts (section 4.6). Raises Malformed."""
    terms = text.split(" ")[1:]
    if len(text) > RECORD_MAX or len(terms) > TERMS_MAX or not text.isascii():
        raise Malformed("too long, or not ASCII")
    directives: list[Directive] = []
    seen: dict[str, str] = {}
    for term in filter(None, terms):
        modifier = _MODIFIER.fullmatch(term)
        if modifier is None:
            directives.append(_directive(term))
            continue
        name = modifier[1].lower()
        _check_macros(modifier[2])
        if name in ("redirect", "exp") and (name in seen or not modifier[2]):
            raise Malformed(f"{name}= twice or empty")
        seen[name] = modifier[2]
    return Record(tuple(directives), seen.get("redirect", ""))


def _directive(term: str) -> Directive:
    found = _DIRECTIVE.fullmatch(term)
    if found is None:
        raise Malformed("unknown mechanism")
    result, mechanism, rest = QUALIFIERS[found[1] or "+"], found[2].lower(), found[3]
    if mechanism == "all":
        if rest:
            raise Malformed("all takes no argument")
        return Directive(result, mechanism)
    if mechanism in ("ip4", "ip6"):
        return Directive(result, mechanism, network=_network(mechanism, rest))
    prefixes = (32, 128)
    if mechanism in ("a", "mx"):
        rest, prefixes = _cut_prefixes(rest)
    if rest and (not rest.startswith(":") or len(rest) == 1):
        raise Malformed("expected a colon and a domain")
    if not rest and mechanism in ("include", "exists"):
        raise Malformed(f"{mechanism} needs a domain")
    _check_macros(rest[1:])
    return Directive(result, mechanism, rest[1:], prefixes=prefixes)


def _network(mechanism: str, rest: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        if mechanism == "ip4":
            return ipaddress.IPv4Network(rest[1:] if rest[:1] == ":" else "", strict=False)
        return ipaddress.IPv6Network(rest[1:] if rest[:1] == ":" else "", strict=False)
    except ValueError as error:
        raise Malformed(f"{mechanism} needs a network") from error


def _cut_prefixes(rest: str) -> tuple[str, tuple[int, int]]:
    """An argument without the prefix lengths at its end (dual-cidr-length, section 5.6)."""
    head, slash, tail = rest.partition("/") if "%{" not in rest else _after_macros(rest)
    found = _CIDR.fullmatch(slash + tail)
    if found is None:
        raise Malformed("not a prefix length")
    four, six = int(found[1] or 32), int(found[2] or 128)
    if four > 32 or six > 128:
        raise Malformed("a prefix is too long")
    return head, (four, six)


def _after_macros(rest: str) -> tuple[str, str, str]:
    """As ``partition("/")``, past the slashes that are delimiters inside a macro."""
    end = rest.rfind("}") + 1
    head, slash, tail = rest[end:].partition("/")
    return rest[:end] + head, slash, tail


def _check_macros(text: str) -> None:
    if any(not found[0][1:] for found in _MACRO.finditer(text)):
        raise Malformed("a percent sign that begins no macro")


def expand(text: str, subject: Subject, domain: str) -> str:
    """A domain-spec with its macros replaced (section 7), cut on the left to what a name may be long."""
    expanded = _MACRO.sub(lambda found: _replaced(found, subject, domain), text).rstrip(".")
    if len(expanded) > NAME_MAX:  # cut at once: label by label a long expansion would be copied for each of them
        expanded = expanded[-NAME_MAX - 1 :].partition(".")[2]
    return expanded


def _replaced(found: re.Match[str], subject: Subject, domain: str) -> str:
    escape, letter, digits, reverse, delimiters = found.groups()
    if escape:
        return _ESCAPES[escape]
    value = {
        "s": f"{subject.local_part}@{subject.domain}",
        "l": subject.local_part,
        "o": subject.domain,
        "d": domain,
        "i": _dotted(subject.ip),
        "p": "unknown",  # the validated name: not to be used (section 7.2), and this is what stands for none
        "v": "in-addr" if subject.ip.version == 4 else "ip6",
        "h": subject.helo,
    }[letter.lower()]
    if digits or reverse or delimiters:
        parts = value.translate(dict.fromkeys(map(ord, delimiters or "."), "\0")).split("\0")[:_LABELS_MAX]
        if reverse:
            parts.reverse()
        if digits:
            if not int(digits):
                return ""
            parts = parts[-int(digits) :]
        value = ".".join(parts)
    return quote(value, safe="") if letter.isupper() else value


def _dotted(ip: IP) -> str:
    return str(ip) if ip.version == 4 else ".".join(ip.exploded.replace(":", ""))
