"""Who really sent a message: what its head claims, the proof of a signature, and the rule that joins both to From.

Lives here: DKIM signatures (RFC 6376) found and verified, DMARC records and alignment (RFC 7489): bytes and texts in,
values out. Must not know: DNS, queues, or how an answer is stored.
"""

import re
from typing import Final, Literal

import dkim
import msgspec

from server.model.domain import organisation, to_ascii

Verdict = Literal["none", "pass", "fail", "policy", "neutral", "temperror", "permerror"]
"""RFC 8601 section 2.7.1 for DKIM. ``policy``: good, but it covers only a part of the body (l=)."""

SIGNATURES_MAX: Final = 5  # of one message; more are passed over
KEY_BITS_MIN: Final = 1024  # RFC 8301 section 3.2
KEY_RECORD_MAX: Final = 1_024  # characters; 4096 bits take 720. A key's owner chose its exponent too, and so its cost
_HEAD_MAX: Final = 100_000  # bytes in which fields are looked for
_FIELD_MAX: Final = 8_192
_FIELD: Final = re.compile(rb"^(from|dkim-signature)[ \t]*:((?:.*\r\n[ \t])*.*)", re.I | re.M)
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*("?)|\([^()]*\)|=\?[^? ]*\?[bq]\?[^? ]*\?=', re.I)
_SPACES: Final = re.compile(rb"[ \t]+")
_RELAXED: Final = re.compile(rb"(?:^|;)\s*c\s*=\s*\w+\s*/\s*relaxed\s*(?:;|$)")  # of a signature, about its body
_ADDRESS: Final = re.compile(r"[^@\s<>,;:]+@([^@\s<>,;:]+)")


class Claims(msgspec.Struct, frozen=True):
    """What a message's head says of itself. ``author``: the domain of its one From address, "" where it has no From,
    None where there are several or it cannot be told. ``keys``: the names its signatures' keys lie under, in order.
    """

    author: str | None = ""
    keys: tuple[str, ...] = ()


class Proof(msgspec.Struct, frozen=True):
    """What came of one signature, in whose name it was made."""

    domain: str
    verdict: Verdict


class Policy(msgspec.Struct, frozen=True):
    """How near an authenticated domain must be to From's: the same organisation, or the same name where strict."""

    strict_dkim: bool = False
    strict_spf: bool = False


def claims(raw: bytes) -> Claims:
    """Read a head within bounds; never raises."""
    end = raw.find(b"\r\n\r\n", 0, _HEAD_MAX)
    authors: list[bytes] = []
    keys: list[str] = []
    for name, value in _FIELD.findall(raw[: end if end >= 0 else _HEAD_MAX]):
        if name.lower() == b"from":
            authors.append(value)
        elif len(keys) < SIGNATURES_MAX:
            keys.append(_key_name(value))
    if len(authors) != 1:
        return Claims(None if authors else "", tuple(keys))
    return Claims(_domain_of(authors[0]), tuple(keys))


def _domain_of(value: bytes) -> str | None:
    text = _QUOTED.sub(_unquoted, value[:_FIELD_MAX].decode("utf-8", "replace")).strip()
    angle = re.findall(r"<([^<>]*)>", text)
    if angle and (len(angle) > 1 or "@" in text.replace(f"<{angle[0]}>", "", 1)):
        return None
    found = _ADDRESS.fullmatch(angle[0].strip() if angle else text)
    return to_ascii(found[1]) if found else None


def _unquoted(found: re.Match[str]) -> str:
    """Nothing, but for a quote that is never closed: it stands for itself and is not looked for an end of again, or
    8 kB of quotes would take half a second."""
    return found[0] if found[1] == "" else ""


def _key_name(value: bytes) -> str:
    """``selector._domainkey.domain`` of a signature, "" where it names none."""
    if len(value) > _FIELD_MAX:
        return ""
    try:
        tags = dkim.util.parse_tag_value(re.sub(rb"\r\n", b"", value))
        return b"._domainkey.".join((tags[b"s"], tags[b"d"])).decode("ascii").lower()
    except (dkim.util.InvalidTagValueList, KeyError, UnicodeDecodeError):
        return ""


def verify(raw: bytes, count: int, keys: dict[str, str | None]) -> list[Proof]:
    """Verify the first ``count`` signatures. ``keys``: the record under each name of ``Claims.keys``, "" where there is
    none, None where DNS did not say. Hostile bodies make it slow: to be run where it can be killed.
    """
    try:
        plain = _message(raw)
        signatures = [value for name, value in plain.headers if name.lower() == b"dkim-signature"]
        relaxed = [_RELAXED.search(signature) is not None for signature in signatures[:count]]
        squeezed = _message(_squeezed(raw)) if any(relaxed) else plain
    except dkim.DKIMException:
        return [Proof("", "permerror")] * count
    return [
        _verified(squeezed if index < len(relaxed) and relaxed[index] else plain, index, keys) for index in range(count)
    ]


def _message(raw: bytes) -> dkim.DKIM:
    message = dkim.DKIM(minkey=KEY_BITS_MIN)
    message.set_message(raw)
    return message


def _squeezed(raw: bytes) -> bytes:
    """``raw`` with each run of spaces in its body as one, which is nothing to a signature that is relaxed about it
    (RFC 6376 section 3.4.4). The library's own search for spaces at the ends of lines takes a time that grows with the
    square of a run: 40 kB of them were four seconds.
    """
    head, gap, body = raw.partition(b"\r\n\r\n")
    return head + gap + _SPACES.sub(b" ", body)


def _verified(message: dkim.DKIM, index: int, keys: dict[str, str | None]) -> Proof:
    key: str | None = ""

    def ask(name: bytes, timeout: int) -> bytes:
        nonlocal key
        key = keys.get(name.decode("ascii", "replace").rstrip(".").lower(), "")
        if key and len(key) > KEY_RECORD_MAX:
            key = ""
        return (key or "").encode("ascii", "replace")

    verdict: Verdict = "permerror"
    message.domain = None
    try:
        if message.verify(index, dnsfunc=ask):
            verdict = "policy" if b"l" in message.signature_fields else "pass"
        elif key:
            verdict = "fail"
    except dkim.ValidationError:
        verdict = "fail"
    except Exception:  # whatever a stranger's bytes made the library stumble over
        verdict = "permerror"
    domain = (message.domain or b"").decode("ascii", "replace").lower()
    return Proof(domain, "temperror" if key is None else verdict)


def policy(records: list[str]) -> Policy | None:
    """The policy among the TXT records of ``_dmarc.<domain>``; None unless there is exactly one (section 6.6.3)."""
    found = [tags for tags in map(_tags, records) if tags is not None]
    if len(found) != 1:
        return None
    return Policy(found[0].get("adkim") == "s", found[0].get("aspf") == "s")


def _tags(record: str) -> dict[str, str] | None:
    if not re.match(r"v[ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)", record[:_FIELD_MAX]):
        return None
    pairs = (part.partition("=") for part in record[:_FIELD_MAX].split(";"))
    tags = {name.strip().lower(): value.strip().lower() for name, _, value in pairs}
    return tags if tags.get("p") in ("none", "quarantine", "reject") or "rua" in tags else None


def aligned(domain: str, author: str, *, strict: bool) -> bool:
    """Whether an authenticated domain speaks for From's (section 3.1)."""
    domain = to_ascii(domain)
    return domain == author or (not strict and bool(domain) and organisation(domain) == organisation(author))
