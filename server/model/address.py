"""Mail addresses: the envelope's grammar (RFC 5321 section 4.1.2, RFC 6531 section 3.3) and the names people may take.

Lives here: how a MAIL or RCPT argument becomes a path, and which local parts a mailbox may have. Must not know: which
domains are ours, and who exists.

What looks like relaying is refused here, before anyone could ask whether the recipient exists: source routes, and in a
recipient ``%``, ``!`` and a quoted ``@``. A path has exactly one domain, and it is what follows the last ``@``.
"""

import ipaddress
import re
import secrets
import unicodedata
from typing import Final

import idna
import msgspec

from server.model.errors import Refused

FROM: Final = b"FROM:"
TO: Final = b"TO:"

LOCAL_MAX: Final = 64
DOMAIN_MAX: Final = 255
PATH_MAX: Final = 254
"""Octets, RFC 5321 section 4.5.3.1; a path is 256 with its angle brackets (erratum 1690)."""

Params = dict[str, str | None]


class Path(msgspec.Struct, frozen=True):
    """An address out of an envelope. ``local`` is as given, ``domain`` a lower-case A-label or address literal (empty
    only for ``<postmaster>``, RFC 5321 section 4.5.1), ``canonical`` is what our own mailboxes are looked up by.
    """

    local: str
    domain: str
    canonical: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"


_ATEXT: Final = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~-"
_LABEL: Final = r"(?!-)[A-Za-z0-9-]{1,63}+(?<!-)"
_PARAMS: Final = r"((?: +[A-Za-z0-9][A-Za-z0-9-]*+(?:=[!-<>-~]++)?)*) *"
_COMMON: Final = re.compile(
    rf"(?:(?i:FROM)|(?i:TO)): ?<([{_ATEXT}]++(?:\.[{_ATEXT}]++)*)@({_LABEL}(?:\.{_LABEL})*)>{_PARAMS}"
)
_PATH: Final = re.compile(rf' *<((?:"(?:[^"\\]|\\.)*"|[^"<>\\ ])*)>{_PARAMS}')
_UNICODE_ATOM: Final = rf"[\x80-\U0010ffff{_ATEXT}]++"
_DOT_ATOM: Final = re.compile(rf"{_UNICODE_ATOM}(?:\.{_UNICODE_ATOM})*")
_QUOTED: Final = re.compile(r'"((?:[ !#-\[\]-~]|[^\x00-\x7f]|\\[ -~])*)"')
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_LITERAL: Final = re.compile(r"\[(IPv6:)?([0-9A-Fa-f:.]{2,45})\]")
_PAIR: Final = re.compile(r"\\(.)")


def parse_path(argument: bytes, verb: bytes) -> tuple[Path | None, Params]:
    """Read what follows ``MAIL `` or ``RCPT ``: a path (None for the null sender ``<>``) and its ESMTP parameters.

    ``verb`` is FROM or TO. Parameter names come in upper case, a valueless one with None. Raises Refused:
    address_invalid for the path, field_invalid for malformed or repeated parameters.
    """
    try:
        text = argument.decode()
    except UnicodeDecodeError as error:
        raise Refused("address_invalid", "not UTF-8") from error
    common = _COMMON.fullmatch(text)
    if common is None or argument[: len(verb)].upper() != verb:
        return _parse_rare(text, verb)
    local, domain, params = common.groups()
    if verb == TO:
        _refuse_relaying(local)
    return _bounded(local, domain.lower()), _parse_params(params) if params else {}


_FROM: Final = re.compile(r" *(?i:FROM)(?: *: *| +|(?=<))")
_BRACKETED: Final = re.compile(r'((?:"(?:[^"\\]|\\.)*"|[^"<])*)<((?:"(?:[^"\\]|\\.)*"|[^">])*)(>*)(.*)')
_ROUTE: Final = re.compile(r"@[^:\"]*:")
_PARAMETER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*(?:=[!-<>-~]+)?")
_MEANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*=[!-<>-~]*|(?i:SMTPUTF8)")


def parse_sender(argument: bytes) -> tuple[str, Params]:
    """Read what follows ``MAIL ``: the sender's address, "" for the null sender, and the ESMTP parameters.

    Nothing is ever sent to a sender, so no shape of one is a reason to lose its mail: an address that the grammar knows
    comes in its normal form, any other text as it is, without brackets, spaces around it or a source route. Raises
    Refused: address_invalid for controls, for what is not UTF-8 and where there is no address, field_invalid for
    malformed or repeated parameters.
    """
    try:
        path, params = parse_path(argument, FROM)
    except Refused as refused:
        if refused.word != "address_invalid":
            raise
        return _parse_odd_sender(argument)
    return str(path) if path else "", params


def _parse_odd_sender(argument: bytes) -> tuple[str, Params]:
    try:
        text = argument.replace(b"\t", b" ").decode()
    except UnicodeDecodeError as error:
        raise Refused("address_invalid", "not UTF-8") from error
    keyword = _FROM.match(text)
    if keyword is None or not text.isprintable():
        raise Refused("address_invalid", "expected FROM:<address>")
    given = text[keyword.end() :]
    bracketed = _BRACKETED.fullmatch(given)
    if bracketed is None or not bracketed[3]:
        address, params = _split_unbracketed(given.strip("< "))
        address = address.strip("<> ")
        if not address:
            raise Refused("address_invalid", "expected FROM:<address>")
        return address, _parse_params(" ".join(params))
    address, rest = bracketed[2].strip(" <"), bracketed[4].split()
    if not all(map(_PARAMETER.fullmatch, rest)):
        raise Refused("field_invalid", "expected parameters such as SIZE=1000")
    return _ROUTE.sub("", address, count=1) if address.startswith("@") else address, _parse_params(" ".join(rest))


def _split_unbracketed(text: str) -> tuple[str, list[str]]:
    """An address without brackets, which may hold spaces, and the parameters behind it."""
    words = text.split()
    end = len(words)
    while end > 1 and _MEANT.fullmatch(words[end - 1]):
        end -= 1
    return " ".join(words[:end]), words[end:]


def _parse_rare(text: str, verb: bytes) -> tuple[Path | None, Params]:
    """The null sender, quoted strings, address literals, UTF-8, and everything that is wrong."""
    keyword = verb.decode()
    if text[: len(keyword)].upper() != keyword:
        raise Refused("address_invalid", f"expected {keyword}<address>")
    match = _PATH.fullmatch(text, len(keyword))
    if match is None or not text.isprintable():
        raise Refused("address_invalid", "expected <address> and parameters")
    path, params = match.groups()
    if not path:
        if verb != FROM:
            raise Refused("address_invalid", "the null path is no recipient")
        return None, _parse_params(params)
    if verb == TO and path.lower() == "postmaster":
        return Path(path, "", "postmaster"), _parse_params(params)
    return _parse_mailbox(path, recipient=verb == TO), _parse_params(params)


def _parse_mailbox(path: str, *, recipient: bool) -> Path:
    local, at, domain = path.rpartition("@")
    if not at or not local:
        raise Refused("address_invalid", "expected local-part@domain")
    if path.startswith("@"):
        raise Refused("address_invalid", "source routes are not served")
    local = _parse_local(local)
    if recipient:
        _refuse_relaying(local)
    return _bounded(local, _parse_domain(domain))


def _parse_local(local: str) -> str:
    """A dot-atom as it is; a quoted string without its quotes where it needs none (they mean the same)."""
    quoted = _QUOTED.fullmatch(local)
    if quoted is None:
        if not _DOT_ATOM.fullmatch(local):
            raise Refused("address_invalid", "malformed local part")
        return unicodedata.normalize("NFC", local)
    content = _PAIR.sub(r"\1", quoted.group(1))
    if _DOT_ATOM.fullmatch(content):
        return unicodedata.normalize("NFC", content)
    return unicodedata.normalize("NFC", local)


def _parse_domain(domain: str) -> str:
    if domain.startswith("["):
        return _parse_literal(domain)
    ascii_domain = domain.lower() if domain.isascii() else _to_ascii(domain)
    if not _HOST.fullmatch(ascii_domain):
        raise Refused("address_invalid", "malformed domain")
    return ascii_domain


def _to_ascii(domain: str) -> str:
    """The A-label form (IDNA 2008 after UTS 46 mapping). Bounded first: IDNA's rules cost more than linear time."""
    if len(domain) > DOMAIN_MAX:
        raise Refused("address_invalid", "domain too long")
    try:
        return idna.encode(domain, uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError) as error:
        raise Refused("address_invalid", "not an internationalised domain name") from error


def _parse_literal(domain: str) -> str:
    """RFC 5321 section 4.1.3: ``[192.0.2.1]`` or ``[IPv6:2001:db8::1]``."""
    match = _LITERAL.fullmatch(domain)
    try:
        if match is None:
            raise ValueError(domain)
        return f"[IPv6:{ipaddress.IPv6Address(match[2])}]" if match[1] else f"[{ipaddress.IPv4Address(match[2])}]"
    except ValueError as error:
        raise Refused("address_invalid", "malformed address literal") from error


def _refuse_relaying(local: str) -> None:
    if "%" in local or "!" in local or "@" in local:
        raise Refused("address_invalid", "no relaying")


def _bounded(local: str, domain: str) -> Path:
    octets = len(local) if local.isascii() else len(local.encode())
    if octets > LOCAL_MAX or len(domain) > DOMAIN_MAX or octets + 1 + len(domain) > PATH_MAX:
        raise Refused("address_invalid", "address too long")
    return Path(local, domain, f"{local.lower()}@{domain}")


def _parse_params(text: str) -> Params:
    params: Params = {}
    for item in text.split():
        name, equals, value = item.partition("=")
        name = name.upper()
        if name in params:
            raise Refused("field_invalid", f"{name} given twice", field=name)
        params[name] = value if equals else None
    return params


_PREFIX: Final = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")

RESERVED: Final = frozenset(
    {
        # RFC 2142 roles
        *("abuse", "ftp", "help", "hostmaster", "info", "marketing", "news", "noc", "postmaster", "sales", "security"),
        *("support", "usenet", "uucp", "webmaster", "www"),
        # by which certificate authorities believe that one owns a domain
        *("admin", "administrator", "ssladmin", "ssladministrator", "sslwebmaster", "sysadmin"),
        # that pose as the operator or as a machine
        *("daemon", "devnull", "mail", "mailer-daemon", "no-reply", "nobody", "noreply", "operator", "owner", "root"),
        "system",
    }
)
"""Local parts nobody can take.
    """


def valid_prefix(text: str) -> bool:
    """Whether ``text`` may be a mailbox's local part: 3-64 of a-z and 0-9, with inner single ``.``, ``_`` or ``-``."""
    return 3 <= len(text) <= LOCAL_MAX and _PREFIX.fullmatch(text) is not None


def chosen_prefix(text: str, field: str) -> str:
    """``text`` as the local part somebody asked for, in lower case. Refused prefix_invalid, naming ``field``."""
    prefix = text.lower()
    if not valid_prefix(prefix):
        raise Refused("prefix_invalid", "3 to 64 of a-z and 0-9, with single . _ - between them", field=field)
    if prefix in RESERVED:
        raise Refused("prefix_invalid", f"{prefix} is reserved", field=field)
    return prefix


_CONSONANTS: Final = "bdfghjklmnprstvz"
_VOWELS: Final = "aeio"
_SYLLABLES: Final = tuple(consonant + vowel for consonant in _CONSONANTS for vowel in _VOWELS)


def random_prefix() -> str:
    """A local part that can be read aloud and not be guessed, such as ``bakelo-tifira-40815``: 52 bits from
    ``secrets``.
    """
    syllables = [secrets.choice(_SYLLABLES) for _ in range(6)]
    return f"{''.join(syllables[:3])}-{''.join(syllables[3:])}-{secrets.randbelow(100_000):05}"
