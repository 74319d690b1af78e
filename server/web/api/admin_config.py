"""The system configuration: shown, changed while everything runs, and set back. Must not know: what a setting does."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from server.services.contracts import ShownSettings
from server.web import requests
from server.web.api.admin import actor
from server.web.api.schemas import rfc3339
from server.web.description import describe
from server.web.requests import Call
from server.web.responses import Reply, ok


class SmtpSettings(msgspec.Struct, rename="camel"):
    """Sizes in bytes, durations such as ``30s``. ``bindAddr`` and ``domain`` are fixed while the process runs."""

    bind_addr: str | UnsetType = UNSET
    domain: str | UnsetType = UNSET
    max_size: int | UnsetType = UNSET
    read_timeout: str | UnsetType = UNSET


class MailboxSettings(msgspec.Struct, rename="camel"):
    """``allowedDomains`` are added and switched under /v1/admin/domains; ``maxPerIp`` is of guests, a day."""

    default_ttl: str | UnsetType = UNSET
    max_per_ip: int | UnsetType = UNSET
    allowed_domains: list[str] | UnsetType = UNSET
    require_verification: bool | UnsetType = UNSET
    max_aliases: int | UnsetType = UNSET


class RateSettings(msgspec.Struct, rename="camel"):
    """``createMailboxLimit``: mailboxes one client address may make an hour; 0 is without limit."""

    enabled: bool | UnsetType = UNSET
    requests_per_minute: int | UnsetType = UNSET
    burst_size: int | UnsetType = UNSET
    create_mailbox_limit: int | UnsetType = UNSET


class SecuritySettings(msgspec.Struct, rename="camel"):
    """``maxLoginAttempts``: failures of one account in ten minutes. ``enableCaptcha`` is false: there is none."""

    jwt_access_expiry: str | UnsetType = UNSET
    jwt_refresh_expiry: str | UnsetType = UNSET
    password_min_length: int | UnsetType = UNSET
    enable_captcha: bool | UnsetType = UNSET
    max_login_attempts: int | UnsetType = UNSET


class ConfigBody(msgspec.Struct, rename="camel"):
    """What to set; what is not there stays."""

    smtp: SmtpSettings | UnsetType = UNSET
    mailbox: MailboxSettings | UnsetType = UNSET
    rate_limit: RateSettings | UnsetType = UNSET
    security: SecuritySettings | UnsetType = UNSET


class ConfigObject(msgspec.Struct, rename="camel"):
    """The configuration in force; ``updatedAt`` and ``updatedBy`` are null until an administrator has changed it."""

    smtp: SmtpSettings
    mailbox: MailboxSettings
    rate_limit: RateSettings
    security: SecuritySettings
    updated_at: str | None
    updated_by: str | None


def _shown(settings: ShownSettings) -> ConfigObject:
    nested: dict[str, Any] = {
        "updatedAt": None if settings.updated_at is None else rfc3339(settings.updated_at),
        "updatedBy": settings.updated_by,
    }
    for path, value in settings.values.items():
        section, _, name = path.partition(".")
        nested.setdefault(section, {})[name] = value
    return msgspec.convert(nested, ConfigObject)


@describe("Show the system configuration", response=ConfigObject)
async def show(call: Call) -> Reply:
    return ok(call.language, _shown(await call.services.settings.shown()))


@describe(
    "Change the system configuration",
    detail="In force in every worker from this answer on. What only a start can change is refused by name.",
    response=ConfigObject,
    body=ConfigBody,
    example={"mailbox": {"defaultTtl": "2h"}},
    refuses=("field_invalid",),
)
async def change(call: Call) -> Reply:
    given = msgspec.to_builtins(await requests.body(call, ConfigBody))
    paths = {f"{section}.{name}": value for section, values in given.items() for name, value in values.items()}
    return ok(call.language, _shown(await call.services.settings.change(actor(call), paths)))


@describe("Set the system configuration back to what the processes were started with", response=ConfigObject)
async def reset(call: Call) -> Reply:
    return ok(call.language, _shown(await call.services.settings.reset(actor(call))))
