"""Domains as administrators handle them: the installation's own, and by id also a user's."""

import msgspec

from server.model.domain import Domain
from server.web import requests
from server.web.api.admin import actor
from server.web.api.domains import DomainList, DomainObject, Instructions
from server.web.description import describe
from server.web.requests import Call
from server.web.responses import NO_CONTENT, Reply, created, ok


class NewDomainBody(msgspec.Struct):
    domain: str
    notes: str = ""


class RecoveryBody(msgspec.Struct):
    domain: str


class ToggleBody(msgspec.Struct, rename="camel"):
    is_active: bool


async def _note(call: Call, action: str, before: Domain | None, after: Domain | None) -> None:
    """Into the trail of administrative acts."""
    subject = after or before
    if subject is not None:
        was, now = [None if domain is None else _noted(domain) for domain in (before, after)]
        await call.services.administration.record(actor(call), f"domain.{action}", subject.name, was, now)


def _noted(domain: Domain) -> dict[str, str | bool]:
    return {"status": domain.status, "isActive": domain.is_active, "isDefault": domain.is_default}


async def _domain(call: Call) -> Domain:
    return await call.services.domains.any(call.segments[0])


@describe("List the system's domains", response=DomainList, family="domains")
async def listed(call: Call) -> Reply:
    return ok(call.language, DomainList.of(await call.services.domains.system()))


@describe(
    "Add a system domain",
    response=DomainObject,
    status=201,
    body=NewDomainBody,
    example={"domain": "mail.example", "notes": "for trials"},
    refuses=("domain_exists",),
    family="domains",
)
async def add(call: Call) -> Reply:
    wanted = await requests.body(call, NewDomainBody)
    added = await call.services.domains.add(call.user, wanted.domain, wanted.notes)
    await _note(call, "add", None, added)
    return created(call.language, DomainObject.of(added))


@describe(
    "Recover a system domain",
    detail="One whose DNS still carries a token of ours and leads its mail here, although nothing is known of it.",
    response=DomainObject,
    body=RecoveryBody,
    example={"domain": "mail.example"},
    refuses=("domain_unverified", "domain_exists"),
    family="domains",
)
async def recover(call: Call) -> Reply:
    wanted = await requests.body(call, RecoveryBody)
    recovered = await call.services.domains.recover(call.user, wanted.domain)
    await _note(call, "recover", None, recovered)
    return ok(call.language, DomainObject.of(recovered))


@describe("Look at a domain", response=DomainObject, refuses=("domain_not_found",), family="domains")
async def show(call: Call) -> Reply:
    return ok(call.language, DomainObject.of(await _domain(call)))


@describe(
    "Verify a system domain",
    detail="Asks DNS now. A verified domain takes mail at once; one that was verified before stays so.",
    response=DomainObject,
    refuses=("domain_not_found", "domain_unverified", "domain_exists"),
    family="domains",
)
async def verify(call: Call) -> Reply:
    domain = await _domain(call)
    verified = await call.services.domains.verify(domain)
    await _note(call, "verify", domain, verified)
    return ok(call.language, DomainObject.of(verified))


@describe(
    "Show what a domain must publish in DNS", response=Instructions, refuses=("domain_not_found",), family="domains"
)
async def instructions(call: Call) -> Reply:
    return ok(call.language, Instructions.of(await _domain(call), call.services.config.smtp_domain))


@describe(
    "Switch a domain on or off",
    detail="Off, it takes no mail and no new mailboxes; what is there stays readable.",
    response=DomainObject,
    body=ToggleBody,
    example={"isActive": True},
    refuses=("domain_not_found", "domain_protected"),
    family="domains",
)
async def toggle(call: Call) -> Reply:
    wanted = await requests.body(call, ToggleBody)
    domain = await _domain(call)
    toggled = await call.services.domains.toggle(domain, wanted.is_active)
    await _note(call, "toggle", domain, toggled)
    return ok(call.language, DomainObject.of(toggled))


@describe(
    "Make a domain the default",
    detail="Mailboxes that name no domain are made there.",
    response=DomainObject,
    refuses=("domain_not_found", "domain_unverified"),
    family="domains",
)
async def set_default(call: Call) -> Reply:
    domain = await _domain(call)
    chosen = await call.services.domains.set_default(domain)
    await _note(call, "set-default", domain, chosen)
    return ok(call.language, DomainObject.of(chosen))


@describe(
    "Delete a domain",
    status=204,
    refuses=("domain_not_found", "domain_protected", "domain_in_use"),
    family="domains",
)
async def delete(call: Call) -> Reply:
    domain = await _domain(call)
    await call.services.domains.delete(domain)
    await _note(call, "delete", domain, None)
    return NO_CONTENT
