"""Settings: every knob's name, unit, default and reason, read once at start from a TOML file and the environment.

Lives here: how settings are named, parsed and checked; config/model.py has the struct that parts are handed.
Must not know: what the parts do with them; nothing here opens a file other than the TOML one, or a socket.

The environment wins over the file. A variable is ``TEMPMAIL_`` + the name shown by ``tempmail check-config``; the file
holds the same names in lower case (``smtp_domain = "temp.mail"``).
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec

from server.config.dsn import dsn, dsns
from server.config.dsn import shown as shown_dsn
from server.config.model import Config
from server.config.parsing import (
    Address,
    address,
    boolean,
    count,
    domains,
    duration,
    duration_text,
    durations,
    host_name,
    is_global,
    is_loopback,
    mailbox,
    name_servers,
    names,
    networks,
    node,
    nodes,
    one_of,
    optional_address,
    port,
    positive,
    public_url,
    queue_name,
    span,
    text,
)
from server.config.sources import PREFIX, ConfigError, environment, gather, origins_of

__all__ = [
    "MAILBOX_MIN_TTL",
    "PREFIX",
    "ROLES",
    "SETTINGS",
    "Config",
    "ConfigError",
    "environment",
    "everything",
    "load",
    "shown",
]

MAILBOX_MIN_TTL: Final = 60.0  # s: the shortest life of a mailbox

ROLES: Final = ("smtp", "web", "push", "webhooks", "sweeper", "ingest")
"""What a node may do: take mail; answer requests; hold WebSockets, event streams and waits; deliver to webhooks; end
mailboxes and drop partitions; store what SMTP nodes queued. ``shards/roles.py`` says which parts that starts."""


def _roles(value: str) -> tuple[str, ...]:
    given = tuple(dict.fromkeys(name.lower() for name in names(value)))
    unknown = [name for name in given if name not in (*ROLES, "all")]
    if unknown or not given:
        raise ValueError(f"{', '.join(unknown) or 'nothing'!r}: give all, or some of {', '.join(ROLES)}")
    return ("all",) if "all" in given else given


class Setting(msgspec.Struct, frozen=True):
    """One knob: its public name, how its text becomes a value, its default and why one would turn it."""

    name: str
    field: str
    parse: Callable[[str], Any]
    default: str
    why: str
    embedded: str | None = None  # the default when the installation brings its own PostgreSQL (a trial on loopback)
    aliases: tuple[str, ...] = ()
    secret: bool = False


SETTINGS: Final = (
    Setting(
        "MODE",
        "mode",
        one_of("production", "dev"),
        "production",
        "dev: for a trial or a test suite: no limits and quotas, mailboxes under any domain; never on a public host",
    ),
    Setting("SERVER_HOST", "", text, "0.0.0.0", "address the HTTP API listens on", "127.0.0.1"),
    Setting(
        "PUBLIC_URL",
        "public_url",
        public_url,
        "",
        "where people reach the HTTP API, such as https://example.org/mail behind a proxy that strips /mail",
    ),
    Setting("SERVER_PORT", "", port, "8080", "port of the HTTP API; 0 picks a free one"),
    Setting("SMTP_BIND_ADDR", "smtp", address, ":25", "where mail comes in", "127.0.0.1:2525"),
    Setting(
        "SMTP_PROXY_PROTOCOL",
        "smtp_proxy_protocol",
        boolean,
        "false",
        "SMTP connections from TRUSTED_PROXIES begin with a PROXY header, version 1 or 2; others have none",
    ),
    Setting(
        "LMTP_BIND_ADDR",
        "lmtp",
        optional_address,
        "",
        "where a mail server of this host hands mail over: unix:/path or a loopback host:port; empty = nowhere",
    ),
    Setting("SMTP_DOMAIN", "smtp_domain", host_name, "temp.mail", "our name in the SMTP greeting; give the MX's name"),
    Setting(
        "SMTP_MAX_CONNECTIONS", "smtp_max_connections", positive, "1000", "SMTP sessions of this node; more get 421"
    ),
    Setting(
        "SMTP_MAX_CONNECTIONS_PER_IP",
        "smtp_max_connections_per_ip",
        positive,
        "100",
        "sessions one address may hold in one worker; RATE_LIMIT_EXEMPT networks are not counted",
    ),
    Setting(
        "SMTP_MAX_RECIPIENTS", "smtp_max_recipients", positive, "100", "RCPT per message (RFC 5321 asks for >= 100)"
    ),
    Setting("SMTP_MAX_MESSAGE_BYTES", "smtp_max_message_bytes", positive, "10485760", "largest message, in bytes"),
    Setting("SMTP_READ_TIMEOUT", "smtp_read_timeout", span, "30s", "silence after which a sender is dropped"),
    Setting("SMTP_WRITE_TIMEOUT", "smtp_write_timeout", span, "30s", "how long a sender may not read our replies"),
    Setting("SMTP_SESSION_TIMEOUT", "smtp_session_timeout", span, "15m", "a session's whole life"),
    Setting(
        "SMTP_MIN_RATE", "smtp_min_rate", count, "500", "bytes/s a mail must bring over any 30 s; slower is dropped"
    ),
    Setting(
        "SMTP_BARE_NEWLINES",
        "smtp_bare_newlines",
        one_of("normalise", "refuse"),
        "normalise",
        "a bare CR or LF inside DATA becomes CRLF, or the message is refused with 550 5.6.11",
    ),
    Setting("SMTP_TLS_CERT", "smtp_tls_cert", text, "", "PEM chain for STARTTLS, or 'self-signed' for a trial"),
    Setting("SMTP_TLS_KEY", "smtp_tls_key", text, "", "PEM key of SMTP_TLS_CERT"),
    Setting("MAILBOX_ALLOWED_DOMAINS", "domains", domains, "temp.mail", "domains we serve; the first is the default"),
    Setting(
        "ADMIN_MAILBOX",
        "admin_mailbox",
        mailbox,
        "",
        "address under one of our domains that gets mail to postmaster@ and abuse@; empty = postmaster@ the first",
    ),
    Setting("PLUS_ADDRESSING", "plus_addressing", boolean, "true", "box+anything@domain reaches box@domain"),
    Setting("SUBDOMAIN_MAILBOXES", "subdomain_mailboxes", boolean, "false", "anything@box.domain reaches box@domain"),
    Setting(
        "WEBHOOK_ALLOWED_NETWORKS",
        "webhook_allowed_networks",
        networks,
        "",
        "networks that webhooks may reach although they are not public",
    ),
    Setting(
        "WEBHOOK_RETRY_DELAYS",
        "webhook_retry_delays",
        durations,
        "1m,5m,15m,1h,6h",
        "waits before each further attempt to tell a webhook; as many attempts as waits, and one",
    ),
    Setting(
        "WEBHOOK_RETENTION",
        "webhook_retention",
        span,
        "72h",
        "how far the log of webhook deliveries goes back; what is still waiting then is given up",
    ),
    Setting(
        "DNS_SERVERS", "dns_servers", name_servers, "", "host:port of the name servers to ask; empty = the system's"
    ),
    Setting(
        "MAIL_AUTHENTICATION",
        "mail_authentication",
        boolean,
        "true",
        "ask DNS for SPF, DKIM and DMARC of arriving mail, after it was accepted; off asks nothing",
        "false",
    ),
    Setting("MAILBOX_DEFAULT_TTL", "mailbox_default_ttl", span, "1h", "life of a mailbox that names none"),
    Setting("MAILBOX_MAX_TTL", "mailbox_max_ttl", span, "24h", "longest life a guest may ask for"),
    Setting(
        "MAILBOX_USER_MAX_TTL",
        "mailbox_user_max_ttl",
        duration,
        "30d",
        "longest life an account may ask for, other than for ever",
    ),
    Setting("MAILBOX_MAX_PER_IP", "mailbox_max_per_ip", count, "3", "mailboxes a guest address may make a day"),
    Setting(
        "MAILBOX_REQUIRE_VERIFICATION",
        "mailbox_require_verification",
        boolean,
        "false",
        "an account makes mailboxes only once its email is verified",
    ),
    Setting("MAILBOX_MAX_MESSAGES", "mailbox_max_messages", count, "1000", "messages a guest mailbox holds; 0 = any"),
    Setting("MAILBOX_MAX_ALIASES", "mailbox_max_aliases", count, "5", "aliases a mailbox may have; 0 = none"),
    Setting(
        "RESERVED_NAMES",
        "reserved_names",
        names,
        "",
        "names that no new mailbox or alias gets, beside the built-in ones; * stands for any letters: paypal*,mybank",
    ),
    Setting(
        "CREATOR_RETENTION",
        "creator_retention",
        duration,
        "7d",
        "how long it is known which address made a mailbox, against abuse; 0 = it is not noted",
    ),
    Setting(
        "RETENTION", "retention", duration, "0", "how long mail of a mailbox that never expires is kept; 0 = for ever"
    ),
    Setting("PARTITION_INTERVAL", "partition_interval", duration, "1h", "width of a partition of short-lived mail"),
    Setting("CORS_ALLOWED_ORIGINS", "cors_origins", names, "", "origins whose pages may call the API; * for any"),
    Setting(
        "QUERY_TOKEN", "query_token", boolean, "true", "accept ?token= (old clients); off keeps tokens out of URLs"
    ),
    Setting("RATE_LIMIT_ENABLED", "rate_enabled", boolean, "true", "off: nothing limits how often a client asks"),
    Setting("RATE_LIMIT_REQUESTS_PER_MINUTE", "rate_requests_per_minute", count, "600", "per client address; 0 = none"),
    Setting("RATE_LIMIT_BURST", "rate_burst", count, "100", "requests a client may make at once"),
    Setting(
        "RATE_LIMIT_CREATE_MAILBOX",
        "rate_create_mailbox",
        count,
        "0",
        "mailboxes one client may make an hour, guest or not; 0 = any number",
    ),
    Setting("RATE_LIMIT_EXEMPT", "rate_exempt", networks, "", "networks without limits", "127.0.0.0/8,::1"),
    Setting("TRUSTED_PROXIES", "trusted_proxies", networks, "", "whose X-Forwarded-For and PROXY header are believed"),
    Setting(
        "LOG_LEVEL", "log_level", one_of("debug", "info", "warning", "error"), "info", "least level that is logged"
    ),
    Setting(
        "SMTP_LOG",
        "smtp_log",
        one_of("off", "refused", "all"),
        "off",
        "a line of log for each SMTP decision, or for those that refuse mail; LOG_LEVEL=debug logs all",
    ),
    Setting(
        "SMTP_LOG_ADDRESSES",
        "smtp_log_addresses",
        one_of("hashed", "plain"),
        "hashed",
        "how addresses stand in those lines: the part before the @ as a keyed hash, or as it is",
    ),
    Setting(
        "TRACE_RETENTION",
        "trace_retention",
        duration,
        "24h",
        "how long it is known what became of each mail (`tempmail trace`); 0 = nothing is recorded",
    ),
    Setting(
        "TRACE_RATE",
        "trace_rate",
        positive,
        "100",
        "decisions of one kind that a worker records each second, ten times as many at once; more are only counted",
    ),
    Setting(
        "TRACE_BYTES",
        "trace_bytes",
        positive,
        "17179869184",
        "disk that recorded decisions may take, without the current hour; beyond it the oldest hours go early",
    ),
    Setting(
        "DATABASE_DSN",
        "database_dsn",
        dsn,
        "",
        "PostgreSQL >= 15, all hosts that may be the primary (@db1,db2/ or host=db1,db2); empty starts one of our own",
        aliases=("DATABASE_MASTER_DSN",),
        secret=True,
    ),
    Setting("DATABASE_USERS_DSN", "database_users_dsn", dsn, "", "own server for users", secret=True),
    Setting("DATABASE_MAILBOXES_DSN", "database_mailboxes_dsn", dsn, "", "own server for mailboxes", secret=True),
    Setting("DATABASE_MESSAGES_DSN", "database_messages_dsn", dsn, "", "own server for messages", secret=True),
    Setting(
        "DATABASE_SLAVE_DSNS",
        "database_replica_dsns",
        dsns,
        "",
        "streaming replicas of DATABASE_DSN that may answer reads",
        aliases=("DATABASE_REPLICA_DSNS",),
        secret=True,
    ),
    Setting(
        "DATABASE_USERS_REPLICA_DSNS",
        "database_users_replica_dsns",
        dsns,
        "",
        "the same for the server of users",
        secret=True,
    ),
    Setting(
        "DATABASE_MAILBOXES_REPLICA_DSNS",
        "database_mailboxes_replica_dsns",
        dsns,
        "",
        "the same for the server of mailboxes",
        secret=True,
    ),
    Setting(
        "DATABASE_MESSAGES_REPLICA_DSNS",
        "database_messages_replica_dsns",
        dsns,
        "",
        "the same for the server of messages",
        secret=True,
    ),
    Setting("DATABASE_MAX_OPEN_CONNS", "database_max_open", positive, "100", "connections of this node, all workers"),
    Setting("DATABASE_MAX_IDLE_CONNS", "database_max_idle", count, "20", "connections of this node kept when idle"),
    Setting(
        "DATABASE_CONN_MAX_LIFETIME", "database_max_lifetime", duration, "1h", "then a connection is renewed; 0: never"
    ),
    Setting(
        "DATABASE_CONN_MAX_IDLE_TIME", "database_max_idle_time", duration, "10m", "then an idle one is closed; 0: never"
    ),
    Setting("DATABASE_STATEMENT_TIMEOUT", "database_statement_timeout", span, "5s", "longest a statement may run"),
    Setting("REDIS_URL", "redis_url", text, "", "redis://host:6379/0 carries events between hosts", secret=True),
    Setting("REDIS_ADDRESS", "redis_address", node, "", "host:port of that Redis, in place of REDIS_URL"),
    Setting("REDIS_PASSWORD", "redis_password", text, "", "password of REDIS_ADDRESS or of the cluster", secret=True),
    Setting("REDIS_DB", "redis_db", count, "0", "database of REDIS_ADDRESS"),
    Setting(
        "REDIS_CLUSTER_NODES",
        "redis_cluster_nodes",
        nodes,
        "",
        "host:port of every node of a Redis Cluster that carries events, in place of one Redis",
    ),
    Setting("CACHE_BYTES", "cache_bytes", count, "100663296", "ready responses a worker keeps, in bytes"),
    Setting(
        "CACHE_TTL",
        "cache_ttl",
        duration,
        "10m",
        "longest a ready answer lives; 5 s while the bus is down, 0: never",
    ),
    Setting("WEBSOCKET_MAX", "websocket_max", count, "20000", "WebSocket connections of one worker; more get 503"),
    Setting(
        "JWT_SECRET",
        "jwt_secret",
        text,
        "",
        "signs access tokens, 32 bytes or more, the same on every node; empty makes one in DATA_DIR",
        secret=True,
    ),
    Setting("PASSWORD_MIN_LENGTH", "password_min_length", count, "8", "shortest password taken, 8 to 72 characters"),
    Setting(
        "LOGIN_MAX_ATTEMPTS",
        "login_max_attempts",
        positive,
        "10",
        "failed logins at one account from one network in ten minutes, and five times as many an hour from all",
    ),
    Setting("JWT_ISSUER", "jwt_issuer", text, "tempmail", "who issues access tokens; others' are refused"),
    Setting("JWT_ACCESS_EXPIRY", "jwt_access_expiry", span, "15m", "life of an access token"),
    Setting("JWT_REFRESH_EXPIRY", "jwt_refresh_expiry", span, "7d", "life of a login that is not renewed"),
    Setting(
        "STREAMS_MAX",
        "streams_max",
        count,
        "10000",
        "event streams and waiting requests of one worker; more get 503, and one client may hold a tenth",
    ),
    Setting(
        "HTTP_IN_FLIGHT_BYTES",
        "http_in_flight_bytes",
        positive,
        "268435456",
        "bytes of arriving bodies and unread answers that one worker holds; more get 503",
    ),
    Setting(
        "HTTP_IN_FLIGHT_CLIENT",
        "http_in_flight_client",
        positive,
        "67108864",
        "of these bytes one client's; more get 429, and RATE_LIMIT_EXEMPT networks are not counted",
    ),
    Setting(
        "HTTP_MIN_RATE",
        "http_min_rate",
        count,
        "4096",
        "bytes/s a body or answer must reach over 30 s, or it is cut; 8 times that while a worker is half full",
    ),
    Setting("WORKERS", "workers", count, "0", "worker processes; 0 = one a core"),
    Setting(
        "ROLES",
        "roles",
        _roles,
        "all",
        f"what this node does: all, or some of {', '.join(ROLES)}; /health and /metrics it always answers",
    ),
    Setting(
        "INGEST_MODE",
        "ingest_mode",
        one_of("direct", "queue"),
        "direct",
        "direct: SMTP stores mail before 250; queue: RabbitMQ keeps it before 250, and nodes with role ingest store it",
    ),
    Setting(
        "RABBITMQ_URL", "rabbitmq_url", text, "", "amqp://user:password@host:5672/ for INGEST_MODE=queue", secret=True
    ),
    Setting("RABBITMQ_QUEUE", "rabbitmq_queue", queue_name, "tempmail.mail", "name that its queues begin with"),
    Setting(
        "RABBITMQ_MAX_MESSAGES",
        "rabbitmq_max_messages",
        positive,
        "1000000",
        "messages a queue holds; more get 451. Fixed when the queue is made",
    ),
    Setting(
        "RABBITMQ_MAX_BYTES",
        "rabbitmq_max_bytes",
        positive,
        "8589934592",
        "bytes a queue holds; more get 451. Fixed when the queue is made",
    ),
    Setting("DRAIN_DEADLINE", "drain_deadline", duration, "30s", "a stopping worker's time to finish what it began"),
    Setting("DATA_DIR", "data_dir", Path, "var", "embedded data and generated secrets"),
)


DEV: Final = {
    "RATE_LIMIT_EXEMPT": "0.0.0.0/0,::/0",
    "MAILBOX_MAX_PER_IP": "0",
    "MAILBOX_MAX_MESSAGES": "0",
    "MAILBOX_MAX_TTL": "720h",
}
"""Defaults where MODE is dev: whatever else is given goes over them."""


def load(env: Mapping[str, str] | None = None, overrides: Mapping[str, str] | None = None) -> Config:
    """Read the settings of this process: defaults, the TOML file named by TEMPMAIL_CONFIG, the environment,
    ``overrides``.

    ``overrides`` are public names with text values (command-line flags). Raises ConfigError.
    """
    env = os.environ if env is None else env
    given = gather(env, env.get(PREFIX + "CONFIG"), _canonical()) | dict(overrides or {})
    embedded = not given.get("DATABASE_DSN")
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for setting in SETTINGS:
        text = given.get(setting.name, _default(setting, embedded, given.get("MODE", "")))
        try:
            values[setting.field or setting.name] = setting.parse(text)
        except ValueError as error:
            wrong.append(f"{PREFIX}{setting.name}: {error}")
    if wrong:
        raise ConfigError("; ".join(wrong))
    host, port = values.pop("SERVER_HOST"), values.pop("SERVER_PORT")
    values["http"] = Address(path=host.removeprefix("unix:")) if host.startswith("unix:") else Address(host, port)
    values["workers"] = values["workers"] or len(os.sched_getaffinity(0))
    if values["roles"] == ("all",):
        values["roles"] = everything(values["ingest_mode"])
    return _checked(Config(**values))


def _canonical() -> dict[str, str]:
    """Each name that may be given → the public one."""
    return {alias: setting.name for setting in SETTINGS for alias in (setting.name, *setting.aliases)}


def _default(setting: Setting, embedded: bool, mode: str) -> str:
    if mode.strip().lower() == "dev" and setting.name in DEV:
        return DEV[setting.name]
    return setting.embedded if embedded and setting.embedded is not None else setting.default


def everything(mode: str) -> tuple[str, ...]:
    """The roles that ``all`` stands for: without a queue nobody takes from one."""
    return tuple(role for role in ROLES if role != "ingest" or mode == "queue")


def _checked(config: Config) -> Config:
    """Refuse what no part could work with, naming the setting."""
    if not config.domains:
        raise ConfigError(f"{PREFIX}MAILBOX_ALLOWED_DOMAINS: at least one domain is needed")
    if config.admin_mailbox and config.admin_mailbox.rpartition("@")[2] not in config.domains:
        raise ConfigError(f"{PREFIX}ADMIN_MAILBOX: {config.admin_mailbox} is not under one of MAILBOX_ALLOWED_DOMAINS")
    for name in config.reserved_names:
        if sum(char.isalnum() for char in name) < 3:
            raise ConfigError(f"{PREFIX}RESERVED_NAMES: {name!r} would take too many: three letters or more beside *")
    if not 1 <= config.workers <= 64:
        raise ConfigError(f"{PREFIX}WORKERS: {config.workers} is not between 0 (one a core) and 64")
    if config.partition_interval < 60 or 86400 % config.partition_interval:
        raise ConfigError(f"{PREFIX}PARTITION_INTERVAL: must divide a day evenly and be a minute or more")
    if config.smtp_tls_cert and config.smtp_tls_cert != "self-signed" and not config.smtp_tls_key:
        raise ConfigError(f"{PREFIX}SMTP_TLS_KEY: needed beside SMTP_TLS_CERT")
    if config.smtp_tls_key and config.smtp_tls_cert in ("", "self-signed"):
        raise ConfigError(f"{PREFIX}SMTP_TLS_CERT: the file of the certificate that SMTP_TLS_KEY belongs to is needed")
    if config.smtp_proxy_protocol and not config.trusted_proxies and not config.smtp.path:
        raise ConfigError(f"{PREFIX}SMTP_PROXY_PROTOCOL: believed from TRUSTED_PROXIES alone, which names none")
    if config.lmtp and not config.lmtp.path and not is_loopback(config.lmtp.host):
        raise ConfigError(f"{PREFIX}LMTP_BIND_ADDR: it has no limits, so only unix:/path or a loopback address will do")
    for name, ttl in (
        ("DEFAULT_TTL", config.mailbox_default_ttl),
        ("MAX_TTL", config.mailbox_max_ttl),
        ("USER_MAX_TTL", config.mailbox_user_max_ttl),
    ):
        if ttl < MAILBOX_MIN_TTL:
            raise ConfigError(f"{PREFIX}MAILBOX_{name}: {duration_text(ttl)} is less than a minute, the shortest life")
    if config.mailbox_default_ttl > config.mailbox_max_ttl:
        raise ConfigError(f"{PREFIX}MAILBOX_DEFAULT_TTL: longer than MAILBOX_MAX_TTL")
    _check_replicas(config)
    if config.database_max_open < 3 * config.workers:
        raise ConfigError(
            f"{PREFIX}DATABASE_MAX_OPEN_CONNS: {config.workers} workers need {3 * config.workers} or more"
        )
    if config.jwt_secret and len(config.jwt_secret.encode()) < 32:
        raise ConfigError(f"{PREFIX}JWT_SECRET: at least 32 bytes (RFC 7518 section 3.2)")
    if not 1 <= config.jwt_access_expiry <= config.jwt_refresh_expiry:
        raise ConfigError(f"{PREFIX}JWT_ACCESS_EXPIRY: at least a second, and no longer than JWT_REFRESH_EXPIRY")
    if not 8 <= config.password_min_length <= 72:
        raise ConfigError(f"{PREFIX}PASSWORD_MIN_LENGTH: {config.password_min_length} is not between 8 and 72")
    if config.rate_requests_per_minute and config.rate_burst < 1:
        raise ConfigError(f"{PREFIX}RATE_LIMIT_BURST: at least 1")
    _check_redis(config)
    _check_queue(config)
    _check_dev(config)
    return config


def _check_dev(config: Config) -> None:
    """Without limits on an address of the Internet is a mistake; what only a network's own hosts reach is warned of."""
    for setting, bound in (("SERVER_HOST", config.http), ("SMTP_BIND_ADDR", config.smtp)):
        if config.dev and is_global(bound.host):
            raise ConfigError(f"{PREFIX}MODE: dev has no limits, and {setting} {bound.host} is a public address")


def _check_queue(config: Config) -> None:
    if config.ingest_mode == "direct":
        if "ingest" in config.roles:
            raise ConfigError(f"{PREFIX}ROLES: ingest stores what was queued; it needs {PREFIX}INGEST_MODE=queue")
        return
    if {"smtp", "ingest"} & set(config.roles) and not config.rabbitmq_url:
        raise ConfigError(f"{PREFIX}RABBITMQ_URL: needed with {PREFIX}INGEST_MODE=queue, such as amqp://user:pw@host/")
    if config.rabbitmq_url and not config.rabbitmq_url.startswith(("amqp://", "amqps://")):
        raise ConfigError(f"{PREFIX}RABBITMQ_URL: must begin with amqp:// or amqps://")


def _check_redis(config: Config) -> None:
    """One Redis may be named twice, as environments of the older service do, but not two."""
    url, address = config.redis_url, config.redis_address
    if url and not url.startswith(("redis://", "rediss://", "unix://")):
        raise ConfigError(f"{PREFIX}REDIS_URL: must begin with redis://, rediss:// or unix://")
    if config.redis_cluster_nodes and (url or address):
        other = "REDIS_URL" if url else "REDIS_ADDRESS"
        raise ConfigError(f"{PREFIX}REDIS_CLUSTER_NODES: contradicts {PREFIX}{other}; give one of them")
    if config.redis_cluster_nodes and config.redis_db:
        raise ConfigError(f"{PREFIX}REDIS_DB: a Redis Cluster has database 0 alone")
    if not config.redis_cluster_nodes and not address and (config.redis_password or config.redis_db):
        name = "REDIS_PASSWORD" if config.redis_password else "REDIS_DB"
        raise ConfigError(f"{PREFIX}{name}: needs {PREFIX}REDIS_ADDRESS; within REDIS_URL it is a part of that")
    if url and address:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        named = f"{host}:{parts.port or 6379}", unquote(parts.password or ""), parts.path.strip("/") or "0"
        if named != (address, config.redis_password, str(config.redis_db)):
            raise ConfigError(f"{PREFIX}REDIS_ADDRESS: contradicts {PREFIX}REDIS_URL; give one of them")


def _check_replicas(config: Config) -> None:
    for domain in ("users", "mailboxes", "messages"):
        name = f"{PREFIX}DATABASE_{domain.upper()}_REPLICA_DSNS"
        name = name if getattr(config, f"database_{domain}_replica_dsns") else f"{PREFIX}DATABASE_SLAVE_DSNS"
        if config.replica_dsns(domain) and config.embedded:
            raise ConfigError(f"{name}: give the primary as {PREFIX}DATABASE_DSN")
        if config.dsn(domain) in config.replica_dsns(domain):
            raise ConfigError(f"{name}: holds the DSN of the primary itself")


def origins(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where each setting that is given comes from: ``environment``, or the file's path."""
    env = os.environ if env is None else env
    return origins_of(env, env.get(PREFIX + "CONFIG"), _canonical())


def defaults(config: Config) -> list[tuple[str, str]]:
    """(name, value) of every setting as it would be shown if it were not given, beside those that are."""
    rows = []
    for setting in SETTINGS:
        value = setting.parse(_default(setting, config.embedded, config.mode))
        rows.append((setting.name, "(set)" if setting.secret and value else _written(value)))
    return rows


def shown(config: Config) -> list[tuple[str, str, str]]:
    """(name, value, why) of every setting, secrets masked."""
    rows = []
    for setting in SETTINGS:
        if setting.name == "SERVER_HOST":
            value: Any = f"unix:{config.http.path}" if config.http.path else config.http.host
        elif setting.name == "SERVER_PORT":
            value = config.http.port
        else:
            value = getattr(config, setting.field)
        text = _written(value)
        if setting.parse in (dsn, dsns):
            text = ",".join(map(shown_dsn, value if isinstance(value, tuple) else (value,)))
        elif setting.secret and text:
            text = "(set)"
        rows.append((setting.name, text, setting.why))
    return rows


def _written(value: Any) -> str:
    """A setting's value as it may be given."""
    if isinstance(value, tuple):
        return ",".join(map(_written, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else duration_text(value) if isinstance(value, float) else str(value)
