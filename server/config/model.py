"""Every setting as the parts are handed it, parsed and checked.

Must not know: names, defaults and bounds of settings, or where they come from.
"""

from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from server.config.parsing import Address, Network

_FOLLOW: Final = 60.0  # s


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of one installation. Times are seconds, sizes are bytes."""

    mode: str
    http: Address
    public_url: str
    smtp: Address
    smtp_domain: str
    smtp_proxy_protocol: bool
    lmtp: Address | None
    smtp_max_connections: int
    smtp_max_connections_per_ip: int
    smtp_max_recipients: int
    smtp_max_message_bytes: int
    smtp_read_timeout: float
    smtp_write_timeout: float
    smtp_session_timeout: float
    smtp_min_rate: int
    smtp_bare_newlines: str
    smtp_tls_cert: str
    smtp_tls_key: str
    domains: tuple[str, ...]
    admin_mailbox: str
    plus_addressing: bool
    subdomain_mailboxes: bool
    dns_servers: tuple[str, ...]
    mail_authentication: bool
    webhook_allowed_networks: tuple[Network, ...]
    webhook_retry_delays: tuple[float, ...]
    webhook_retention: float
    mailbox_default_ttl: float
    mailbox_max_ttl: float
    mailbox_user_max_ttl: float
    mailbox_max_per_ip: int
    mailbox_require_verification: bool
    mailbox_max_messages: int
    mailbox_max_aliases: int
    reserved_names: tuple[str, ...]
    creator_retention: float
    retention: float
    partition_interval: float
    cors_origins: tuple[str, ...]
    query_token: bool
    rate_enabled: bool
    rate_requests_per_minute: int
    rate_burst: int
    rate_create_mailbox: int
    rate_exempt: tuple[Network, ...]
    trusted_proxies: tuple[Network, ...]
    log_level: str
    smtp_log: str
    smtp_log_addresses: str
    trace_retention: float
    trace_rate: int
    trace_bytes: int
    database_dsn: str
    database_users_dsn: str
    database_mailboxes_dsn: str
    database_messages_dsn: str
    database_replica_dsns: tuple[str, ...]
    database_users_replica_dsns: tuple[str, ...]
    database_mailboxes_replica_dsns: tuple[str, ...]
    database_messages_replica_dsns: tuple[str, ...]
    database_max_open: int
    database_max_idle: int
    database_max_lifetime: float
    database_max_idle_time: float
    database_statement_timeout: float
    redis_url: str
    redis_address: str
    redis_password: str
    redis_db: int
    redis_cluster_nodes: tuple[str, ...]
    cache_bytes: int
    cache_ttl: float
    websocket_max: int
    streams_max: int
    http_in_flight_bytes: int
    http_in_flight_client: int
    http_min_rate: int
    jwt_secret: str
    jwt_issuer: str
    jwt_access_expiry: float
    jwt_refresh_expiry: float
    password_min_length: int
    login_max_attempts: int
    workers: int
    roles: tuple[str, ...]
    ingest_mode: str
    rabbitmq_url: str
    rabbitmq_queue: str
    rabbitmq_max_messages: int
    rabbitmq_max_bytes: int
    drain_deadline: float
    data_dir: Path

    @property
    def dev(self) -> bool:
        """For a trial or a test suite: no quotas of accounts, any domain."""
        return self.mode == "dev"

    @property
    def embedded(self) -> bool:
        """No DSN was given: this installation brings its own PostgreSQL."""
        return not self.database_dsn

    @property
    def administrator(self) -> str:
        """The address of the mailbox that postmaster@ and abuse@ of every domain reach."""
        return self.admin_mailbox or f"postmaster@{self.domains[0]}"

    def dsn(self, domain: str) -> str:
        """The primary DSN of the data domain ``users``, ``mailboxes`` or ``messages``."""
        own: str = getattr(self, f"database_{domain}_dsn")
        return own or self.database_dsn

    def redis_nodes(self) -> tuple[str, ...]:
        """URLs of the Redis servers that carry events: none, one, or the nodes of a cluster."""
        password = f":{quote(self.redis_password, safe='')}@" if self.redis_password else ""
        if self.redis_cluster_nodes:
            return tuple(f"redis://{password}{node}/0" for node in self.redis_cluster_nodes)
        if self.redis_address:
            return (f"redis://{password}{self.redis_address}/{self.redis_db}",)
        return (self.redis_url,) if self.redis_url else ()

    def replica_dsns(self, domain: str) -> tuple[str, ...]:
        """The replicas of that primary: the domain's own, else those of the server that it shares."""
        own: tuple[str, ...] = getattr(self, f"database_{domain}_replica_dsns")
        return own or (self.database_replica_dsns if self.dsn(domain) == self.database_dsn else ())

    @property
    def follow_ttl(self) -> float:
        """Seconds after which accounts, domains and settings are read again: they may be changed by `tempmail admin`,
        which is no worker and moves no generation."""
        return min(self.cache_ttl, _FOLLOW)

    def replicas(self) -> tuple[tuple[str, str], ...]:
        """(primary, replica) of every replica there is; its place here is its number."""
        domains = ("users", "mailboxes", "messages")
        return tuple(dict.fromkeys((self.dsn(domain), own) for domain in domains for own in self.replica_dsns(domain)))
