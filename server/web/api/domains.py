"""Domains of users: claimed, proved, given a mode, given back; and the objects that administrators see as well."""

from typing import Final, Self

import msgspec
from msgspec import UNSET, UnsetType

from server.model.domain import Domain, Mode, Status
from server.web import requests
from server.web.api.schemas import rfc3339
from server.web.description import describe
from server.web.requests import Call
from server.web.responses import NO_CONTENT, Reply, created, ok

_TTL: Final = 3600  # seconds, suggested for the records


class ClaimBody(msgspec.Struct):
    domain: str
    mode: Mode = "shared"


class ModeBody(msgspec.Struct):
    mode: Mode


class DomainObject(msgspec.Struct, rename="camel"):
    """A domain; ``userId``, ``mode``, ``expiresAt`` and ``monthlyFee`` only where it is a user's."""

    id: str
    domain: str
    status: Status
    verify_token: str
    verify_method: str
    verified_at: str | None
    last_check_at: str | None
    created_at: str
    created_by: str | None
    is_active: bool
    is_default: bool
    mx_records: tuple[str, ...]
    mailbox_count: int
    notes: str
    user_id: str | UnsetType = UNSET
    mode: Mode | UnsetType = UNSET
    expires_at: str | UnsetType | None = UNSET
    monthly_fee: int | UnsetType = UNSET

    @classmethod
    def of(cls, domain: Domain) -> Self:
        shown = cls(
            id=domain.id,
            domain=domain.name,
            status=domain.status,
            verify_token=domain.verify_token,
            verify_method=domain.method,
            verified_at=rfc3339(domain.verified_at) if domain.verified_at else None,
            last_check_at=rfc3339(domain.last_check_at) if domain.last_check_at else None,
            created_at=rfc3339(domain.created_at),
            created_by=domain.created_by,
            is_active=domain.is_active,
            is_default=domain.is_default,
            mx_records=domain.mx_records,
            mailbox_count=domain.mailbox_count,
            notes=domain.notes,
        )
        if domain.user_id is not None:
            shown.user_id, shown.mode, shown.monthly_fee = domain.user_id, domain.mode, 0
            shown.expires_at = rfc3339(domain.expires_at) if domain.expires_at else None
        return shown


class DomainList(msgspec.Struct):
    items: list[DomainObject]
    count: int

    @classmethod
    def of(cls, domains: list[Domain]) -> Self:
        return cls([DomainObject.of(domain) for domain in domains], len(domains))


class Record(msgspec.Struct, omit_defaults=True):
    """A DNS record to be made; ``ttl`` in seconds."""

    type: str
    name: str
    value: str
    ttl: int
    priority: int | UnsetType = UNSET


class Step(msgspec.Struct):
    step: int
    title: str
    description: str
    record: Record | UnsetType = UNSET
    records: list[Record] | UnsetType = UNSET


class Instructions(msgspec.Struct):
    """What makes a domain verified, step by step."""

    domain: str
    status: Status
    steps: list[Step]

    @classmethod
    def of(cls, domain: Domain, host: str) -> Self:
        proof = Record("TXT", domain.name, domain.record, _TTL)
        elsewhere = f"at {domain.name} or, where that has a CNAME, at _tempmail.{domain.name}"
        steps = [
            Step(1, "Prove that it is yours", f"Publish this TXT record {elsewhere}, and leave it there.", proof),
            Step(
                2,
                "Let its mail come here",
                "Publish this MX record, and no other with a lower priority.",
                records=[Record("MX", domain.name, host, _TTL, priority=10)],
            ),
            Step(3, "Verify", "Once both can be seen in DNS, ask for verification."),
        ]
        return cls(domain.name, domain.status, steps)


async def _own(call: Call) -> Domain:
    return await call.services.domains.of_user(call.user, call.segments[0])


@describe(
    "Claim a domain",
    detail="Claiming takes nothing from anybody: the domain is yours once its DNS proves it.",
    response=DomainObject,
    status=201,
    body=ClaimBody,
    example={"domain": "mail.example.net", "mode": "catch_all"},
    refuses=("domain_exists", "quota_reached"),
)
async def claim(call: Call) -> Reply:
    wanted = await requests.body(call, ClaimBody)
    claimed = await call.services.domains.claim(call.user, wanted.domain, wanted.mode)
    return created(call.language, DomainObject.of(claimed))


@describe("List your domains", response=DomainList)
async def own(call: Call) -> Reply:
    return ok(call.language, DomainList.of(await call.services.domains.own(call.user)))


@describe("Look at a domain of yours", response=DomainObject, refuses=("domain_not_found",))
async def show(call: Call) -> Reply:
    return ok(call.language, DomainObject.of(await _own(call)))


@describe(
    "Choose who may make mailboxes at a domain",
    detail="`shared`: anybody. `exclusive`, `whitelist`: you, and mail to an address that does not exist is refused. "
    "`catch_all`: as those, but mail makes the mailbox it is addressed to, within your quota.",
    response=DomainObject,
    body=ModeBody,
    example={"mode": "whitelist"},
    refuses=("domain_not_found",),
)
async def change(call: Call) -> Reply:
    wanted = await requests.body(call, ModeBody)
    domain = await _own(call)
    return ok(call.language, DomainObject.of(await call.services.domains.set_mode(domain, wanted.mode)))


@describe("Give a domain back", status=204, refuses=("domain_not_found", "domain_in_use"))
async def delete(call: Call) -> Reply:
    await call.services.domains.delete(await _own(call))
    return NO_CONTENT


@describe(
    "Verify a domain",
    detail="Asks DNS now. A verified domain takes mail at once.",
    response=DomainObject,
    refuses=("domain_not_found", "domain_unverified", "domain_exists"),
)
async def verify(call: Call) -> Reply:
    verified = await call.services.domains.verify(await _own(call))
    return ok(call.language, DomainObject.of(verified))


@describe("Show what to publish in DNS", response=Instructions, refuses=("domain_not_found",))
async def instructions(call: Call) -> Reply:
    return ok(call.language, Instructions.of(await _own(call), call.services.config.smtp_domain))
