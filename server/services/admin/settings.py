"""The settings in force: what the process was configured with, overlaid by what administrators set while it runs.

Lives here: which settings those are, their bounds, and this worker's copy. Must not know: HTTP, or what parts do with
them.

The copy is a Config like the configured one, so whoever reads settings reads ``Settings.current`` and never waits. It
is valid while its generation stands: a request looks (one slice of shared memory) and reads again first if it does not,
so that from the moment a change is answered every HTTP worker of the host acts on it. What does not begin with a
request learns of it by a hint, and at the latest a minute later.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

import msgspec

from server.cache import keys
from server.cache.responses import ResponseCache, Ticket
from server.config.parsing import duration
from server.config.settings import Config
from server.log import event
from server.model.admin import Actor
from server.model.ban import Ban, BanSet, Names
from server.model.errors import Refused, Unavailable
from server.outages import put_off
from server.services.coherence import Coherence, settings_changed
from server.services.contracts import ShownSettings
from server.store.admin import AdministrationStore, Overrides

ACTS_EVERY: Final = 5.0  # s between two looks at what the command line did
_RETRY: Final = 1.0  # s after a failed reading; until then the last known settings hold
_MILLION: Final = 1_000_000


class _Knob(NamedTuple):
    """One setting: where clients find it, where Config keeps it, and its bounds (seconds, bytes or a number)."""

    path: str
    name: str
    kind: Literal["duration", "count", "flag", "fixed"]
    least: float = 0
    most: float = 0


_KNOBS: Final = (
    _Knob("smtp.bindAddr", "smtp", "fixed"),
    _Knob("smtp.domain", "smtp_domain", "fixed"),
    _Knob("smtp.maxSize", "smtp_max_message_bytes", "count", 1024, 100 << 20),
    _Knob("smtp.readTimeout", "smtp_read_timeout", "duration", 1, 600),
    _Knob("mailbox.defaultTtl", "mailbox_default_ttl", "duration", 60, 365 * 86400),
    _Knob("mailbox.maxPerIp", "mailbox_max_per_ip", "count", 0, _MILLION),
    _Knob("mailbox.requireVerification", "mailbox_require_verification", "flag"),
    _Knob("mailbox.maxAliases", "mailbox_max_aliases", "count", 0, 1000),
    _Knob("rateLimit.enabled", "rate_enabled", "flag"),
    _Knob("rateLimit.requestsPerMinute", "rate_requests_per_minute", "count", 0, _MILLION),
    _Knob("rateLimit.burstSize", "rate_burst", "count", 1, _MILLION),
    _Knob("rateLimit.createMailboxLimit", "rate_create_mailbox", "count", 0, _MILLION),
    _Knob("security.jwtAccessExpiry", "jwt_access_expiry", "duration", 1, 365 * 86400),
    _Knob("security.jwtRefreshExpiry", "jwt_refresh_expiry", "duration", 1, 365 * 86400),
    _Knob("security.passwordMinLength", "password_min_length", "count", 8, 72),
    _Knob("security.maxLoginAttempts", "login_max_attempts", "count", 1, 1000),
)
_BY_PATH: Final = {knob.path: knob for knob in _KNOBS}
_DOMAINS: Final = "mailbox.allowedDomains"
_CAPTCHA: Final = "security.enableCaptcha"


class Settings:
    """Implements contracts.Settings. ``bans`` are those in force; ``reserved`` names are given to no mailbox.
    ``served`` names the domains anyone may have a mailbox at, the default first."""

    def __init__(
        self,
        config: Config,
        store: AdministrationStore,
        served: Callable[[], Awaitable[Sequence[str]]],
        local: ResponseCache,
        coherence: Coherence,
        clock: Callable[[], datetime],
    ) -> None:
        self._config, self._store, self._served = config, store, served
        self._local, self._coherence, self._clock = local, coherence, clock
        self.current = config
        self.bans = BanSet()
        self.reserved = Names(config.reserved_names)
        self._banned: list[Ban] = []
        self._ticket: Ticket | None = None
        self._asked = self._failed = -1e9
        self._asking = asyncio.Lock()
        self._listeners: list[Callable[[Config], None]] = []
        self._refreshing: asyncio.Task[None] | None = None
        self._act: str | None = None

    async def follow(self) -> None:
        """Where an administrator has acted since the last look, all workers of the host read again. Unavailable.

        Called every ACTS_EVERY in one worker of a host: the command line is no worker and moves no generation.
        """
        newest = await self._store.newest_act()
        if newest != self._act:
            self._act = newest
            self._coherence.heard([settings_changed()])

    def on_change(self, listener: Callable[[Config], None]) -> None:
        """Call ``listener`` whenever ``current`` has become another, for parts that keep values made of settings."""
        self._listeners.append(listener)

    def stale(self) -> bool:
        """Whether ``current`` may be old. While the database cannot be asked, the last known settings hold."""
        if self._ticket is not None and self._local.stands(self._ticket):
            return False
        return time.monotonic() > self._failed + _RETRY

    async def refresh(self) -> None:
        """Read again; of many who ask at once one asks the database. Trouble is logged and changes nothing."""
        arrived = time.monotonic()
        async with self._asking:
            if self._asked >= arrived:  # asked after we came: as good as our own asking
                return
            try:
                await self.load()
            except Unavailable as error:
                self._failed = time.monotonic()
                put_off("settings not read", error)

    async def load(self) -> None:
        """Read what is set. Unavailable."""
        ticket, asked = self._local.ticket(keys.settings()), time.monotonic()
        overrides = await self._store.overrides()
        self._ticket = ticket if self._local.settled(ticket) else None
        self._asked = asked
        if overrides.bans != self._banned:
            self._banned, self.bans = overrides.bans, BanSet(overrides.bans)
        self._adopt(_overlaid(self._config, overrides.values))

    def _adopt(self, config: Config) -> None:
        if config != self.current:
            self.current = config
            for listener in self._listeners:
                listener(config)

    def look(self) -> None:
        """Once a second, and when a hint came: bring ``current`` up to date behind whoever does not wait for it."""
        old = self.stale() or time.monotonic() > self._asked + self._config.follow_ttl
        if old and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = asyncio.get_running_loop().create_task(self.refresh())

    # Administrators.

    async def shown(self) -> ShownSettings:
        return await self._shown(await self._store.overrides())

    async def _shown(self, overrides: Overrides) -> ShownSettings:
        config = _overlaid(self._config, overrides.values)
        values: dict[str, Any] = {knob.path: _said(knob, config) for knob in _KNOBS}
        values |= {_DOMAINS: list(await self._served()), _CAPTCHA: False}
        return ShownSettings(values, overrides.updated_at, overrides.updated_by)

    async def change(self, actor: Actor, given: Mapping[str, Any]) -> ShownSettings:
        """Set what is ``given`` (path -> JSON value) and leave the rest. Refused field_invalid, naming the path: out of
        bounds, or cannot be changed here. In force in every worker of the host once this returns.
        """
        domains = list(await self._served())
        if given.get(_DOMAINS, domains) != domains:
            raise Refused("field_invalid", "domains are added and switched under /v1/admin/domains", field=_DOMAINS)
        if given.get(_CAPTCHA):
            raise Refused("field_invalid", "no captcha is built in", field=_CAPTCHA)
        wanted = {path: value for path, value in given.items() if path in _BY_PATH}

        def decide(before: Mapping[str, Any]) -> Mapping[str, Any]:
            return self._decided(before, wanted)

        return await self._override(actor, "settings.update", decide)

    async def reset(self, actor: Actor) -> ShownSettings:
        """Back to what each process was configured with."""
        return await self._override(actor, "settings.reset", lambda _: {})

    async def _override(
        self, actor: Actor, action: str, decide: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    ) -> ShownSettings:
        with self._coherence.writing(settings=True):
            overrides = await self._store.override(actor, action, decide, self._clock())
        self._coherence.tell([settings_changed()])
        await self.refresh()
        return await self._shown(overrides)

    def _decided(self, before: Mapping[str, Any], wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        """The values to keep: those that differ from the configured ones, so that these may show through again."""
        for path, value in wanted.items():
            _parsed(_BY_PATH[path], value, self._config)
        merged = {**before, **wanted}
        config = _overlaid(self._config, merged)
        if config.jwt_access_expiry > config.jwt_refresh_expiry:
            raise Refused("field_invalid", "no longer than security.jwtRefreshExpiry", field="security.jwtAccessExpiry")
        if config.mailbox_default_ttl > config.mailbox_max_ttl:
            longest = written(config.mailbox_max_ttl)
            raise Refused("field_invalid", f"no longer than {longest}", field="mailbox.defaultTtl")
        changed = [knob for knob in _KNOBS if getattr(config, knob.name) != getattr(self._config, knob.name)]
        return {knob.path: _said(knob, config) for knob in changed}


def _overlaid(config: Config, values: Mapping[str, Any]) -> Config:
    """``config`` with ``values`` over it; one that this release or its configuration cannot take is left out."""
    parsed: dict[str, Any] = {}
    for path, value in values.items():
        knob = _BY_PATH.get(path)
        try:
            if knob is not None:
                parsed[knob.name] = _parsed(knob, value, config)
        except Refused as refused:
            event("warning", "setting left out", setting=path, reason=refused.detail)
    return msgspec.structs.replace(config, **parsed)


def _parsed(knob: _Knob, value: Any, config: Config) -> Any:
    """What Config keeps. Refused field_invalid."""
    if knob.kind == "fixed":
        if value != _said(knob, config):
            raise Refused("field_invalid", "can only be changed where the process is started", field=knob.path)
        return getattr(config, knob.name)
    if knob.kind == "flag":
        return value
    number = _seconds(value) if knob.kind == "duration" else value
    if not knob.least <= number <= knob.most:
        show = written if knob.kind == "duration" else "{:g}".format
        raise Refused("field_invalid", f"from {show(knob.least)} to {show(knob.most)}", field=knob.path)
    return number


def _seconds(text: str) -> float:
    """-1, which is within no bounds, for what is no duration."""
    try:
        return duration(text) if len(text) <= 32 else -1.0
    except ValueError:
        return -1.0


def _said(knob: _Knob, config: Config) -> Any:
    """The setting as clients see it."""
    value = getattr(config, knob.name)
    if knob.kind == "duration":
        return written(value)
    return str(value) if knob.kind == "fixed" else value


def written(seconds: float) -> str:
    """``seconds`` as a duration such as ``1h30m``."""
    whole, rest = divmod(round(seconds * 1000), 1000)
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, whole = divmod(whole, size)
        parts += [f"{count}{unit}"] if count else []
    parts += [f"{rest}ms"] if rest else []
    return "".join(parts) or "0s"
