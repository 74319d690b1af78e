"""Mail domains: which names may be one, who may make mailboxes under one, and where an address under them leads.

Lives here: pure values and rules. Must not know: DNS, the database, or who owns what.

Names are compared whole or label by label after parsing, never by their ends: ``eviltemp.mail`` is not under
``temp.mail``.
"""

import re
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache
from typing import Final, Literal

import idna
import msgspec
from publicsuffixlist import PublicSuffixList

from server.model.errors import Refused

Mode = Literal["shared", "exclusive", "catch_all", "whitelist"]
"""``shared``: anybody may make mailboxes there. ``exclusive``, ``whitelist``: its owner alone, and mail for any other
address is refused. ``catch_all``: as those, but mail makes the mailbox it is addressed to.
"""
Status = Literal["pending", "verified", "failed", "expired"]

NAME_MAX: Final = 253
ROLE_NAMES: Final = frozenset({"postmaster", "abuse"})
"""Local parts that reach the administrator under every domain (RFC 5321 section 4.5.1, RFC 2142 section 2)."""

_NAME: Final = re.compile(r"(?:(?!-)[a-z0-9-]{1,63}+(?<!-)\.)+(?!-)(?=[a-z0-9-]*[a-z])[a-z0-9-]{2,63}+(?<!-)")


class Domain(msgspec.Struct, frozen=True):
    """A domain somebody wants served. ``user_id`` None: the installation's own. ``method``: by what it is believed, the
    settings or DNS. ``expires_at``: until when a user's domain is believed without having been proved again.
    """

    id: str
    name: str
    user_id: str | None
    mode: Mode
    status: Status
    method: Literal["dns", "configuration"]
    verify_token: str
    created_at: datetime
    created_by: str | None
    verified_at: datetime | None = None
    last_check_at: datetime | None = None
    expires_at: datetime | None = None
    is_active: bool = True
    is_default: bool = False
    mx_records: tuple[str, ...] = ()
    notes: str = ""
    mailbox_count: int = 0

    @property
    def record(self) -> str:
        """The TXT record that proves it."""
        return f"tempmail-verify={self.verify_token}"


class Served(msgspec.Struct, frozen=True):
    """A domain that takes mail."""

    name: str
    mode: Mode = "shared"
    user_id: str | None = None


class ServedSet:
    """All domains that take mail at one moment, ``default`` among them. Its identity stands for its content."""

    __slots__ = ("_any", "_domains", "default", "public")

    def __init__(self, domains: Iterable[Served], default: str, *, all_names: bool = False) -> None:
        """``all_names``: every name that can be a domain takes mail too (MODE dev)."""
        self._any = all_names
        self._domains: Mapping[str, Served] = {domain.name: domain for domain in domains}
        self.default = default
        shared = [d.name for d in self._domains.values() if d.mode == "shared" and d.name != default]
        self.public = (default, *shared)

    def get(self, name: str) -> Served | None:
        found = self._domains.get(name)
        if found is None and self._any and len(name) <= NAME_MAX and _NAME.fullmatch(name):
            return Served(name)
        return found

    def above(self, name: str) -> tuple[str, Served] | None:
        """The nearest served domain above ``name``, and the labels in front of it: ``box.temp.mail`` → ("box",
        temp.mail)."""
        labels = name.split(".")
        for cut in range(1, len(labels) - 1):
            found = self._domains.get(".".join(labels[cut:]))
            if found is not None:
                return ".".join(labels[:cut]), found
        return None


class Target(msgspec.Struct, frozen=True):
    """The mailbox an address means, whether or not it exists. ``role``: it is the administrator's."""

    local_part: str
    domain: Served
    role: bool = False

    @property
    def address(self) -> str:
        return f"{self.local_part}@{self.domain.name}"


class Rules(msgspec.Struct, frozen=True):
    """How addresses are read: what the settings PLUS_ADDRESSING, SUBDOMAIN_MAILBOXES and ADMIN_MAILBOX say."""

    plus: bool
    subdomains: bool
    administrator: str

    def target(self, address: str, served: ServedSet) -> Target | None:
        """Where a canonical address leads; None when its domain is not served."""
        local_part, _, host = address.rpartition("@")
        domain = served.get(host)
        if domain is None and self.subdomains:
            above = served.above(host)
            return Target(*above) if above else None
        if domain is None:
            return None
        if self.plus:
            local_part = local_part.partition("+")[0]
        if local_part in ROLE_NAMES:
            local_part, _, host = self.administrator.rpartition("@")
            return Target(local_part, served.get(host) or Served(host), role=True)
        return Target(local_part, domain)


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()  # some 10,000 rules: read when first asked


def organisation(name: str) -> str:
    """The name one label below the public suffix: whom ``name`` belongs to (RFC 7489 section 3.2). What is too long for
    a name is looked up nowhere: that takes a time that grows with the square of its labels."""
    return _suffixes().privatesuffix(name) or name if len(name) <= NAME_MAX else name


def to_ascii(name: str) -> str:
    """``name`` in lower case with its international labels as A-labels, unchanged where it cannot be a domain."""
    name = name.strip().rstrip(".").lower()
    if name.isascii() or len(name) > NAME_MAX:
        return name
    try:
        return idna.encode(name, uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        return name


def domain_name(text: str) -> str:
    """``text`` as a domain that somebody can own: lower case, A-labels (RFC 5890), no final dot. Refused
    field_invalid for
    an IP address, a single label, and a public suffix (co.uk), which belongs to no one.
    """
    name = to_ascii(text)
    if len(name) > NAME_MAX or not _NAME.fullmatch(name):
        raise Refused("field_invalid", "a domain name such as mail.example.org", field="domain")
    try:
        for label in name.split("."):
            if label.startswith("xn--"):
                idna.decode(label)
    except (idna.IDNAError, UnicodeError) as error:
        raise Refused("field_invalid", "not an internationalised domain name", field="domain") from error
    if _suffixes().is_public(name):
        raise Refused("field_invalid", f"{name} is a public suffix", field="domain")
    return name


def new_verify_token() -> str:
    """64 hexadecimal digits. Not a secret: it is published in DNS."""
    return secrets.token_hex(32)
