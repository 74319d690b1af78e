"""Domains somebody wants served: claimed, proved over DNS, proved again, given a mode, switched off, given back.

Lives here: the rules of API.md about domains. Must not know: HTTP; how DNS is asked (``Resolver``).

Two things prove a name: the token this installation gave for it, published as a TXT record, and an MX record that
leads here. A claim alone takes nothing: any number of people may claim one name, and whoever controls its DNS proves
it. A proved domain stays proved when a later check finds nothing, a user's for ``GRACE`` and the operator's until it
is deleted: mail must not bounce because somebody edited a zone. Trouble with DNS proves nothing either way.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Final

import msgspec

from server import clock
from server.config.settings import Config
from server.metrics import Counter
from server.model import ids
from server.model.account import User
from server.model.domain import Domain, Mode, ServedSet, domain_name, new_verify_token
from server.model.errors import Refused, Unavailable
from server.services.coherence import Coherence, Write, domain_set
from server.services.domains.resolver import Resolver
from server.services.domains.served import ServedDomains
from server.services.periodic import every
from server.store.domains import DomainStore

MAX_CLAIMS: Final = 20  # domains of one account
MAX_LISTED: Final = 1_000  # system domains in a list
NOTES_MAX: Final = 500  # characters
RECHECK_AFTER: Final = timedelta(days=1)
GRACE: Final = timedelta(days=7)  # that a user's domain is believed after the last check that proved it
RECHECK_BATCH: Final = 10
RECHECK_TURN: Final = 60.0  # s
_RECORDS_MAX: Final = 50  # of an answer; a zone with more has not got them for us
_TOKEN: Final = re.compile(r"tempmail-verify=([0-9a-f]{64})")
_SILENT: Final = "the domain's name servers did not answer"

CHECKS = Counter("tempmail_domain_checks_total", "Checks of a domain's DNS, by what they found.", ("result",))


class Zone(msgspec.Struct, frozen=True):
    """What DNS says of a domain: the tokens published, the hosts its mail goes to, and those as shown."""

    tokens: frozenset[str]
    exchanges: frozenset[str]
    mx_records: tuple[str, ...]

    def complaint(self, token: str, host: str) -> str:
        """What is missing for a proof, empty when nothing is."""
        if token not in self.tokens:
            return f"no TXT record tempmail-verify={token} was found"
        if host not in self.exchanges:
            return f"no MX record leads to {host}"
        return ""


class DomainVerification:
    """Implements contracts.Domains."""

    def __init__(
        self,
        config: Config,
        store: DomainStore,
        served: ServedDomains,
        resolver: Resolver,
        coherence: Coherence,
        clock: Callable[[], datetime],
    ) -> None:
        self._configured = frozenset(config.domains)
        self._host = config.smtp_domain.lower().rstrip(".")
        self._store, self._served, self._resolver = store, served, resolver
        self._coherence, self._clock = coherence, clock
        self._task: asyncio.Task[None] | None = None

    async def configure(self, names: Sequence[str]) -> None:
        """Let the database say what the settings say. Any number of workers may, at the same time."""
        with self._writing():
            await self._store.configure(names, self._clock())

    async def served(self) -> ServedSet:
        return await self._served.current()

    def start(self) -> None:
        self._task = asyncio.create_task(every(RECHECK_TURN, self.recheck))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # Users' domains

    async def claim(self, user: User, name: str, mode: Mode) -> Domain:
        """Refused field_invalid, domain_exists (the user has it, or somebody proved it), quota_reached."""
        name = domain_name(name)
        if await self._store.is_proved(name):
            raise Refused("domain_exists", field="domain")
        claimed = self._new(name, user.id, created_by=user.id, mode=mode)
        await self._store.insert_claim(claimed, user.id, MAX_CLAIMS)
        return claimed

    async def own(self, user: User) -> list[Domain]:
        return await self._store.of_user(user.id, MAX_CLAIMS)

    async def of_user(self, user: User, domain_id: str) -> Domain:
        """Refused domain_not_found for unknown and foreign alike."""
        domain = await self._store.by_id(domain_id) if ids.valid(domain_id) else None
        if domain is None or domain.user_id != user.id:
            raise Refused("domain_not_found")
        return domain

    async def set_mode(self, domain: Domain, mode: Mode) -> Domain:
        with self._writing():
            if not await self._store.set_mode(domain.id, mode):
                raise Refused("domain_not_found")
        self._tell()
        return msgspec.structs.replace(domain, mode=mode)

    # The installation's own

    async def system(self) -> list[Domain]:
        """The default first."""
        found = [await self._shown(domain) for domain in await self._store.of_system(MAX_LISTED)]
        return sorted(found, key=lambda domain: not domain.is_default)

    async def any(self, domain_id: str) -> Domain:
        """A domain of whomever. Refused domain_not_found."""
        domain = await self._store.by_id(domain_id) if ids.valid(domain_id) else None
        if domain is None:
            raise Refused("domain_not_found")
        return await self._shown(domain)

    async def add(self, user: User, name: str, notes: str) -> Domain:
        """A system domain, to be proved. Refused field_invalid, domain_exists."""
        name = domain_name(name)
        if len(notes) > NOTES_MAX:
            raise Refused("field_invalid", f"at most {NOTES_MAX} characters", field="notes")
        if await self._store.is_proved(name):
            raise Refused("domain_exists", field="domain")
        added = self._new(name, None, created_by=user.id, notes=notes)
        await self._store.insert(added)
        return added

    async def recover(self, user: User, name: str) -> Domain:
        """A system domain whose DNS still carries a token of ours, although our record of it is gone or unproved: the
        published token is taken over. Refused field_invalid, domain_unverified, domain_exists.
        """
        name = domain_name(name)
        known = await self._store.system_by_name(name) or self._new(name, None, created_by=user.id)
        try:
            zone = await self._zone(name)
        except Unavailable as error:
            raise Refused("domain_unverified", _SILENT, field="domain") from error
        token = known.verify_token if known.verify_token in zone.tokens else min(zone.tokens, default="")
        complaint = "no TXT record tempmail-verify=… was found" if not token else zone.complaint(token, self._host)
        if complaint:
            raise Refused("domain_unverified", complaint, field="domain")
        found = self._proved(msgspec.structs.replace(known, verify_token=token), zone)
        with self._writing():
            if await self._store.system_by_name(name):
                await self._store.record_check(found)
            else:
                await self._store.insert(found)
        self._tell()
        return await self.any(found.id)

    async def toggle(self, domain: Domain, active: bool) -> Domain:
        """Off: it takes no mail and no new mailboxes, what is there stays readable. Refused domain_protected."""
        if not active:
            self._protect(domain)
        with self._writing():
            if not await self._store.set_active(domain.id, active):
                raise Refused("domain_not_found")
        self._tell()
        return await self.any(domain.id)

    async def set_default(self, domain: Domain) -> Domain:
        """New mailboxes that name no domain are made there. Refused domain_unverified."""
        with self._writing():
            await self._store.set_default(domain.id)
        self._tell()
        return await self.any(domain.id)

    def _protect(self, domain: Domain) -> None:
        if domain.is_default:
            raise Refused("domain_protected", "it is the default: choose another first")
        if domain.user_id is None and domain.name in self._configured:
            raise Refused("domain_protected", "the setting MAILBOX_ALLOWED_DOMAINS names it")

    async def _shown(self, domain: Domain) -> Domain:
        """With ``is_default`` as it is in effect: the first configured one is it until another is chosen."""
        served = await self._served.current()
        return msgspec.structs.replace(domain, is_default=domain.user_id is None and domain.name == served.default)

    # Both

    async def delete(self, domain: Domain) -> None:
        """Refused domain_protected, domain_in_use while mailboxes live there, domain_not_found."""
        self._protect(domain)
        with self._writing():
            gone = await self._store.delete(domain.id)
        if not gone:
            raise Refused("domain_not_found" if await self._store.by_id(domain.id) is None else "domain_in_use")
        self._tell()

    async def verify(self, domain: Domain) -> Domain:
        """Ask DNS now, and keep what it said. Refused domain_unverified (saying what is missing), domain_exists
        (somebody
        else proved it first).
        """
        checked, complaint = await self._checked(domain)
        with self._writing():
            await self._store.record_check(checked)
        self._tell()
        if complaint:
            raise Refused("domain_unverified", complaint)
        return await self._shown(checked)

    async def recheck(self) -> None:
        """Prove users' domains again that have not been for a day."""
        now = self._clock()
        if not clock.agrees():
            return
        for domain in await self._store.take_due(now, now - RECHECK_AFTER, RECHECK_BATCH):
            checked, _ = await self._checked(domain)
            with self._writing():
                await self._store.record_check(checked)
            self._tell()

    async def _checked(self, domain: Domain) -> tuple[Domain, str]:
        """``domain`` as it stands after asking DNS now, and what is wrong, empty when it is proved."""
        now = self._clock()
        try:
            zone = await self._zone(domain.name)
        except Unavailable:
            CHECKS.add(("silent",))
            return msgspec.structs.replace(domain, last_check_at=now), _SILENT
        complaint = zone.complaint(domain.verify_token, self._host)
        if not complaint:
            CHECKS.add(("proved",))
            return self._proved(domain, zone), ""
        CHECKS.add(("missing",))
        status = domain.status
        if status == "pending":
            status = "failed"
        elif status == "verified" and domain.expires_at is not None and domain.expires_at <= now:
            status = "expired"
        return msgspec.structs.replace(domain, status=status, last_check_at=now, mx_records=zone.mx_records), complaint

    def _proved(self, domain: Domain, zone: Zone) -> Domain:
        now = self._clock()
        return msgspec.structs.replace(
            domain,
            status="verified",
            method="configuration" if domain.user_id is None and domain.name in self._configured else "dns",
            verified_at=domain.verified_at if domain.status == "verified" and domain.verified_at else now,
            last_check_at=now,
            expires_at=now + GRACE if domain.user_id else None,
            mx_records=zone.mx_records,
        )

    async def _zone(self, name: str) -> Zone:
        """What DNS says now, within bounds. Unavailable when a server does not answer, or does so with an error."""
        at_name, below, exchanges = await asyncio.gather(
            self._resolver.txt(name), self._resolver.txt(f"_tempmail.{name}"), self._resolver.mx(name)
        )
        found = [_TOKEN.fullmatch(text.strip()) for text in (*at_name[:_RECORDS_MAX], *below[:_RECORDS_MAX])]
        shown = exchanges[:_RECORDS_MAX]
        return Zone(
            frozenset(match[1] for match in found if match),
            frozenset(host for _, host in shown),
            tuple(f"{preference} {_printable(host)}" for preference, host in shown),
        )

    def _new(
        self, name: str, user_id: str | None, *, created_by: str, mode: Mode = "shared", notes: str = ""
    ) -> Domain:
        return Domain(
            id=ids.new(),
            name=name,
            user_id=user_id,
            mode=mode,
            status="pending",
            method="dns",
            verify_token=new_verify_token(),
            created_at=self._clock(),
            created_by=created_by,
            notes=notes,
        )

    def _writing(self) -> AbstractContextManager[Write]:
        return self._coherence.writing(domains=True)

    def _tell(self) -> None:
        self._coherence.tell([domain_set()])


def _printable(host: str) -> str:
    """A host as DNS gave it, which may hold any octet, fit to be stored and shown."""
    return "".join(char if "!" <= char <= "~" else "?" for char in host[:255])
