"""Settings: every error names the setting and what would be right; nothing given means a server that starts."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config import parsing, settings
from server.config.settings import ConfigError


def load(**given: str) -> settings.Config:
    return settings.load({f"TEMPMAIL_{name}": value for name, value in given.items()})


def test_nothing_given_is_a_trial_on_loopback() -> None:
    found = load()
    assert found.embedded
    assert (str(found.http), str(found.smtp)) == ("127.0.0.1:8080", "127.0.0.1:2525")
    assert found.rate_exempt


def test_a_dsn_makes_it_production() -> None:
    found = load(DATABASE_DSN="postgresql://db/tempmail")
    assert not found.embedded
    assert (str(found.http), str(found.smtp)) == ("0.0.0.0:8080", "0.0.0.0:25")
    assert not found.rate_exempt


def test_old_names_still_work_and_domains_move_apart() -> None:
    found = load(DATABASE_MASTER_DSN="postgresql://a/x", DATABASE_MESSAGES_DSN="postgresql://b/x")
    assert [found.dsn(d) for d in ("users", "mailboxes", "messages")] == [
        "postgresql://a/x",
        "postgresql://a/x",
        "postgresql://b/x",
    ]


def test_replicas_go_with_the_server_they_copy() -> None:
    found = load(
        DATABASE_DSN="postgresql://a/x",
        DATABASE_REPLICA_DSNS="postgresql://a1/x, postgresql://a2,a3/x",
        DATABASE_MESSAGES_DSN="postgresql://b/x",
        DATABASE_USERS_REPLICA_DSNS="postgresql://a1/x",
    )
    assert found.replica_dsns("users") == ("postgresql://a1/x",)
    assert found.replica_dsns("mailboxes") == ("postgresql://a1/x", "postgresql://a2,a3/x")
    assert found.replica_dsns("messages") == ()
    assert [number for _, number in found.replicas()] == ["postgresql://a1/x", "postgresql://a2,a3/x"]


@pytest.mark.parametrize(
    "given",
    [
        {"DATABASE_SLAVE_DSNS": "postgresql://a1/x"},
        {"DATABASE_SLAVE_DSNS": "postgresql://a/x", "DATABASE_DSN": "postgresql://a/x"},
        {"DATABASE_SLAVE_DSNS": "a1,a2", "DATABASE_DSN": "postgresql://a/x"},
    ],
)
def test_replicas_without_a_primary_apart_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="TEMPMAIL_DATABASE_SLAVE_DSNS"):
        load(**given)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVER_PORT", "http"),
        ("SMTP_BIND_ADDR", "25"),
        ("MAILBOX_DEFAULT_TTL", "soon"),
        ("MAILBOX_DEFAULT_TTL", "30d"),
        ("MAILBOX_ALLOWED_DOMAINS", "temp mail"),
        ("MAILBOX_ALLOWED_DOMAINS", ""),
        ("RATE_LIMIT_EXEMPT", "10.0.0.0/99"),
        ("QUERY_TOKEN", "perhaps"),
        ("LOG_LEVEL", "loud"),
        ("SMTP_BARE_NEWLINES", "keep"),
        ("WORKERS", "1000"),
        ("PARTITION_INTERVAL", "7h"),
        ("SMTP_TLS_KEY", ""),
        ("REDIS_URL", "localhost:6379"),
        ("SERVER_PORT", "99999"),
        ("SERVER_PORT", "-5"),
        ("SMTP_DOMAIN", "a b"),
        ("DNS_SERVERS", "foo:bar"),
        ("DATABASE_DSN", "garbage"),
        ("DATABASE_MAX_OPEN_CONNS", "2"),
        ("ROLES", "smpt"),
        ("ROLES", ""),
        ("ROLES", "smtp,ingest"),
        ("INGEST_MODE", "rabbit"),
        ("RABBITMQ_QUEUE", "a b"),
        ("SMTP_MAX_CONNECTIONS", "0"),
        ("CACHE_BYTES", "-5"),
        ("SMTP_READ_TIMEOUT", "0"),
        ("DATABASE_STATEMENT_TIMEOUT", "0s"),
        ("MAILBOX_DEFAULT_TTL", "0"),
        ("MAILBOX_DEFAULT_TTL", "30s"),
        ("MAILBOX_MAX_TTL", "30s"),
        ("MAILBOX_USER_MAX_TTL", "59s"),
        ("JWT_REFRESH_EXPIRY", "0"),
        ("DATABASE_DSN", "postgresql://u:p@h:port/db"),
    ],
)
def test_bad_value_is_refused_by_name(name: str, value: str) -> None:
    given = {name: value} | ({"SMTP_TLS_CERT": "cert.pem"} if name == "SMTP_TLS_KEY" else {})
    with pytest.raises(ConfigError, match=f"TEMPMAIL_{name}"):
        load(**given)


def test_unknown_setting_is_not_passed_over() -> None:
    with pytest.raises(ConfigError, match="TEMPMAIL_SMTP_PROT"):
        load(SMTP_PROT="25")


def test_misspelt_setting_is_answered_with_the_right_name() -> None:
    with pytest.raises(ConfigError, match=r"TEMPMAIL_SERVER_PRT \(TEMPMAIL_SERVER_PORT is one\)"):
        load(SERVER_PRT="80")


def test_key_without_a_certificate_is_not_passed_over() -> None:
    with pytest.raises(ConfigError, match="TEMPMAIL_SMTP_TLS_CERT"):
        load(SMTP_TLS_KEY="key.pem")


@pytest.mark.parametrize(
    "dsn",
    ["postgresql:///db?host=/run/postgresql", "postgres://u:p%40:x@[::1]:5432/db", "postgresql://a:1,b:2,c/db?x=y:z"],
)
def test_dsn_is_not_refused_for_colons_that_begin_no_port(dsn: str) -> None:
    assert load(DATABASE_DSN=dsn).database_dsn == dsn


def test_what_is_shown_of_a_setting_can_be_given_again() -> None:
    given = {"SERVER_HOST": "unix:/run/http", "MAILBOX_MAX_TTL": "36h", "WEBHOOK_RETRY_DELAYS": "1m,90s,500ms"}
    shown = {name: value for name, value, _ in settings.shown(load(**given))}
    assert {name: shown[name] for name in given} == given
    assert load(**{name: value for name, value in shown.items() if value}) == load(**given)


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "tempmail.toml"
    file.write_text('smtp_domain = "file.test"\nworkers = 3\nmailbox_allowed_domains = ["a.test", "b.test"]\n')
    found = load(CONFIG=str(file), SMTP_DOMAIN="env.test")
    assert (found.smtp_domain, found.workers, found.domains) == ("env.test", 3, ("a.test", "b.test"))


def test_secrets_are_not_shown() -> None:
    shown = settings.shown(load(DATABASE_DSN="postgresql://u:hunter2@db/x", REDIS_URL="redis://:hunter2@r"))
    assert "hunter2" not in str(shown)


@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_durations_add_up(number: int, unit: str) -> None:
    seconds = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit] * number
    assert parsing.duration(f"{number}{unit}") == pytest.approx(seconds)
    assert parsing.duration(f"1d{number}{unit}") == pytest.approx(86400 + seconds)


@given(st.text())
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert parsing.duration(text) >= 0


def test_roles_are_all_or_some_and_only_a_queue_has_takers() -> None:
    queue = {"INGEST_MODE": "queue", "RABBITMQ_URL": "amqp://broker/"}
    assert load().roles == ("smtp", "web", "push", "webhooks", "sweeper")
    assert load(**queue).roles == settings.ROLES
    assert load(ROLES="web, smtp,web").roles == ("web", "smtp")
    assert load(ROLES="ingest", **queue).roles == ("ingest",)


@pytest.mark.parametrize("roles", ["all", "smtp", "ingest"])
def test_queue_mode_without_a_broker_is_refused(roles: str) -> None:
    with pytest.raises(ConfigError, match="TEMPMAIL_RABBITMQ_URL"):
        load(INGEST_MODE="queue", ROLES=roles)
    with pytest.raises(ConfigError, match="TEMPMAIL_RABBITMQ_URL"):
        load(INGEST_MODE="queue", ROLES=roles, RABBITMQ_URL="http://broker")


def test_web_node_beside_a_queue_needs_no_broker() -> None:
    assert load(INGEST_MODE="queue", ROLES="web,push").rabbitmq_url == ""


def test_environment_of_the_older_service_is_obeyed() -> None:
    found = load(REDIS_ADDRESS="redis", REDIS_PASSWORD="p@ss/word", REDIS_DB="3", ROLES="all")
    assert found.redis_nodes() == ("redis://:p%40ss%2Fword@redis:6379/3",)
    both = load(REDIS_ADDRESS="redis:6379", REDIS_PASSWORD="pw", REDIS_URL="redis://:pw@redis/0")
    assert both.redis_nodes() == ("redis://:pw@redis:6379/0",)
    cluster = load(REDIS_CLUSTER_NODES="a:7000, b:7001, [::1]", REDIS_PASSWORD="pw")
    assert cluster.redis_nodes() == ("redis://:pw@a:7000/0", "redis://:pw@b:7001/0", "redis://:pw@[::1]:6379/0")
    assert "pw" not in str(settings.shown(both))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("REDIS_ADDRESS", {"REDIS_ADDRESS": "one:6379", "REDIS_URL": "redis://another:6379/0"}),
        ("REDIS_ADDRESS", {"REDIS_ADDRESS": "one:6379", "REDIS_DB": "1", "REDIS_URL": "redis://one:6379/0"}),
        ("REDIS_ADDRESS", {"REDIS_ADDRESS": "redis://one:6379"}),
        ("REDIS_PASSWORD", {"REDIS_PASSWORD": "pw", "REDIS_URL": "redis://one:6379/0"}),
        ("REDIS_DB", {"REDIS_DB": "1"}),
        ("REDIS_DB", {"REDIS_CLUSTER_NODES": "one,two", "REDIS_DB": "1"}),
        ("REDIS_CLUSTER_NODES", {"REDIS_CLUSTER_NODES": "one,two", "REDIS_URL": "redis://one"}),
        ("REDIS_CLUSTER_NODES", {"REDIS_CLUSTER_NODES": "one two"}),
    ],
)
def test_two_redis_that_contradict_each_other_are_refused(name: str, given: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"TEMPMAIL_{name}:"):
        load(**given)


def test_name_servers_are_addresses_with_or_without_a_port() -> None:
    given = "192.0.2.53,192.0.2.53:5353,[2001:db8::53]:5353,2001:db8::53"
    assert load(DNS_SERVERS=given).dns_servers == tuple(given.split(","))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"SMTP_PROXY_PROTOCOL": "true"}, "SMTP_PROXY_PROTOCOL.*TRUSTED_PROXIES"),
        ({"LMTP_BIND_ADDR": "0.0.0.0:24"}, "LMTP_BIND_ADDR.*loopback"),
        ({"LMTP_BIND_ADDR": "/run/lmtp"}, "LMTP_BIND_ADDR"),
    ],
)
def test_ways_in_that_anybody_could_use_are_refused(given: dict[str, str], named: str) -> None:
    with pytest.raises(settings.ConfigError, match=named):
        load(**given)


def test_ways_in_that_are_guarded_are_allowed() -> None:
    assert load(SMTP_PROXY_PROTOCOL="true", TRUSTED_PROXIES="10.0.0.0/8").smtp_proxy_protocol
    assert load(SMTP_PROXY_PROTOCOL="true", SMTP_BIND_ADDR="unix:/run/smtp").smtp_proxy_protocol
    assert str(load(LMTP_BIND_ADDR="[::1]:24").lmtp) == "[::1]:24"
    assert load().lmtp is None


def test_a_redis_at_an_ipv6_address_may_be_given_both_ways() -> None:
    found = load(REDIS_ADDRESS="[::1]:6379", REDIS_URL="redis://[::1]:6379/0", ROLES="all")
    assert found.redis_nodes() == ("redis://[::1]:6379/0",)


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("smpt_domain = 'x'", "unknown setting smpt_domain (smtp_domain is one); "),
        ("Smtp-Domain = 'x'", "unknown setting Smtp-Domain (smtp_domain is one); "),
        ("zzz = 1", "unknown setting zzz; `tempmail check-config"),
        ("[smtp]\ndomain = 'x'", "smtp is a table"),
        ("smtp_domain = 'a.example'\nSMTP_DOMAIN = 'b.example'", "SMTP_DOMAIN is given twice"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_as_written_with_the_file(
    tmp_path: Path, written: str, complaint: str
) -> None:
    path = tmp_path / "tempmail.toml"
    path.write_text(written)
    with pytest.raises(settings.ConfigError) as refused:
        settings.load({"TEMPMAIL_CONFIG": str(path)})
    assert str(refused.value).startswith(f"configuration file {path}: {complaint}")


def test_all_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "tempmail.toml"
    path.write_text("smpt_domain = 'x'\nzzz = 1\nworkers = 2\n")
    env = {"TEMPMAIL_CONFIG": str(path), "TEMPMAIL_SERVER_PRT": "1", "TEMPMAIL_QQQ": "1", "TEMPMAIL_LOG_LEVEL": "info"}
    with pytest.raises(settings.ConfigError) as refused:
        settings.load(env)
    assert str(refused.value) == (
        f"configuration file {path}: unknown settings smpt_domain (smtp_domain is one), zzz; unknown settings "
        "TEMPMAIL_QQQ, TEMPMAIL_SERVER_PRT (TEMPMAIL_SERVER_PORT is one); "
        "`tempmail check-config --all` lists those there are"
    )
    with pytest.raises(settings.ConfigError) as refused:
        load(WORKERS="many", SERVER_PORT="http", LOG_LEVEL="info")
    assert "TEMPMAIL_WORKERS: " in str(refused.value)
    assert "TEMPMAIL_SERVER_PORT: " in str(refused.value)
