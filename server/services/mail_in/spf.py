"""SPF (RFC 7208): may this client send in that domain's name? Asked of DNS, within the RFC's bounds.

Lives here: evaluation, one object a check. Must not know: what the answer is used for.

An evaluator of its own and no library, because those there are block a thread for each check and read records of any
length; ours asks through the loop's resolver and ends when its caller's deadline says so.
"""

from collections.abc import Awaitable, Callable
from ipaddress import ip_address, ip_network
from typing import Final

from server.model.errors import Unavailable
from server.model.spf import Directive, Malformed, Result, Subject, expand, is_record, parse, valid_name
from server.services.domains.resolver import Kind

Ask = Callable[[str, Kind], Awaitable[list[str]]]
"""A name and a type → the records' texts, MX hosts in order of preference; [] for none. Raises Unavailable."""

LOOKUPS_MAX: Final = 10  # terms that ask DNS, and names of one mx or ptr (section 4.6.4)
VOID_MAX: Final = 2  # of them that may find nothing
ADDRESSES_MAX: Final = 100  # of one name that are looked at; an answer over TCP holds thousands, for each of 100 names


class Spf:
    """One check. ``check`` may be called once."""

    def __init__(self, ask: Ask, subject: Subject) -> None:
        self._ask, self._subject = ask, subject
        self._addresses: Kind = "A" if subject.ip.version == 4 else "AAAA"
        self._lookups = self._void = 0

    async def check(self) -> Result:
        """check_host() of section 4 for the sender's domain."""
        try:
            return await self._host(self._subject.domain)
        except Malformed:
            return "permerror"
        except Unavailable:
            return "temperror"

    async def _host(self, domain: str) -> Result:
        if not valid_name(domain):
            return "none"
        records = [text for text in await self._ask(domain, "TXT") if is_record(text)]
        if len(records) != 1:
            return "permerror" if records else "none"
        record = parse(records[0])
        for directive in record.directives:
            if await self._matches(directive, domain):
                return directive.result
        if not record.redirect:
            return "neutral"
        self._count()
        found = await self._host(expand(record.redirect, self._subject, domain))
        return "permerror" if found == "none" else found

    async def _matches(self, directive: Directive, domain: str) -> bool:
        if directive.mechanism == "all":
            return True
        if directive.network is not None:
            return self._subject.ip in directive.network
        self._count()
        target = expand(directive.target, self._subject, domain) if directive.target else domain
        return await getattr(self, f"_{directive.mechanism}")(target, directive)  # type: ignore[no-any-return]

    async def _include(self, target: str, _: Directive) -> bool:
        found = await self._host(target)
        if found == "temperror":
            raise Unavailable("SPF of an included domain")
        if found in ("none", "permerror"):
            raise Malformed("an included domain has no usable record")
        return found == "pass"

    async def _a(self, target: str, directive: Directive) -> bool:
        return self._among(await self._found(target, self._addresses), directive)

    async def _mx(self, target: str, directive: Directive) -> bool:
        hosts = await self._found(target, "MX")
        if len(hosts) > LOOKUPS_MAX:
            raise Malformed("too many mail exchangers")
        for host in hosts:
            if self._among(await self._found(host, self._addresses), directive):
                return True
        return False

    async def _exists(self, target: str, _: Directive) -> bool:
        return bool(await self._found(target, "A"))

    async def _ptr(self, target: str, _: Directive) -> bool:
        """Section 5.5: trouble on the way means no match."""
        try:
            names = await self._found(self._subject.ip.reverse_pointer, "PTR")
        except Unavailable:
            return False
        for name in names[:LOOKUPS_MAX]:
            name, wanted = name.lower().rstrip("."), target.lower()
            if (name == wanted or name.endswith(f".{wanted}")) and await self._leads_here(name):
                return True
        return False

    async def _leads_here(self, name: str) -> bool:
        try:
            return any(ip_address(found) == self._subject.ip for found in await self._ask(name, self._addresses))
        except Unavailable:
            return False

    def _count(self) -> None:
        self._lookups += 1
        if self._lookups > LOOKUPS_MAX:
            raise Malformed("too many lookups")

    async def _found(self, name: str, kind: Kind) -> list[str]:
        name = name.rstrip(".")
        found = await self._ask(name, kind) if valid_name(name) else []
        if not found:
            self._void += 1
            if self._void > VOID_MAX:
                raise Malformed("too many lookups found nothing")
        return found

    def _among(self, addresses: list[str], directive: Directive) -> bool:
        prefix = directive.prefixes[0 if self._addresses == "A" else 1]
        near = ip_network(f"{self._subject.ip}/{prefix}", strict=False)
        return any(ip_address(one) in near for one in addresses[:ADDRESSES_MAX])
