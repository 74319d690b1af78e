"""DSNs in both of libpq's forms, with one host or several: read, split, and shown without their passwords."""

from urllib.parse import parse_qs, urlsplit

import pytest
from asyncpg.connect_utils import _parse_connect_arguments

from server.config import dsn
from server.config import settings as configuration
from server.config.settings import ConfigError


def understood(url: str) -> tuple[list[tuple[str, int] | str], str, str | None, str, str]:
    """What the driver makes of it: addresses, user, password, database, which server is meant."""
    nothing = dict.fromkeys(
        (
            *("host", "port", "user", "password", "passfile", "database", "command_timeout", "ssl", "service"),
            *("servicefile", "direct_tls", "server_settings", "target_session_attrs", "krbsrvname", "gsslib"),
        )
    )
    numbers = {"statement_cache_size": 0, "max_cached_statement_lifetime": 0, "max_cacheable_statement_size": 0}
    addresses, parameters, _ = _parse_connect_arguments(dsn=url, **nothing | numbers)
    target = parameters.target_session_attrs.value
    return list(addresses), parameters.user, parameters.password, parameters.database, target


TWO = [("a.example", 5432), ("b.example", 5433)]


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://tm:p%40ss@a.example:5432,b.example:5433/mail?target_session_attrs=read-write",
        "postgresql://tm:p%40ss@/mail?host=a.example,b.example&port=5432,5433&target_session_attrs=read-write",
        "host=a.example,b.example port=5432,5433 user=tm password=p@ss dbname=mail target_session_attrs=read-write",
        "host = a.example,b.example  port='5432,5433' user=tm password='p@ss' dbname=mail connect_timeout=3",
        "postgres://tm:p%40ss@a.example,b.example:5433/mail?connect_timeout=3&keepalives=1&channel_binding=prefer",
    ],
)
def test_several_hosts_in_every_form_are_those_that_the_driver_is_given(text: str) -> None:
    url = dsn.dsn(text)
    assert understood(url)[:4] == (TWO, "tm", "p@ss", "mail")
    alone = dsn.each(url)
    assert [understood(one) for one in alone] == [([place], "tm", "p@ss", "mail", "read-write") for place in TWO]
    assert dsn.place(url).replace("a.example,", "a.example:5432,") == "a.example:5432, b.example:5433"


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("host=/run/postgresql user=u dbname=d", ["/run/postgresql/.s.PGSQL.5432"]),
        ("postgresql://u@[::1]:5433/d", [("::1", 5433)]),
        ("host=[::1],10.0.0.1 port=5433 user=u dbname=d", [("::1", 5433), ("10.0.0.1", 5433)]),
        ("postgresql://u@[fd00::1],[fd00::2]:6000/d", [("fd00::1", 5432), ("fd00::2", 6000)]),
        ("hostaddr=10.0.0.1 user=u dbname=d", [("10.0.0.1", 5432)]),
    ],
)
def test_sockets_and_addresses_of_version_6(text: str, addresses: list[object]) -> None:
    url = dsn.dsn(text)
    assert understood(url)[0] == addresses
    assert [understood(one)[0][0] for one in dsn.each(url)] == addresses


def test_quotes_of_the_keyword_form() -> None:
    url = dsn.dsn(r"host=h user=u password='it\'s a \\ &=% pass' dbname='my db'")
    assert understood(url)[2:4] == ("it's a \\ &=% pass", "my db")


def test_of_several_servers_the_one_that_takes_mail_is_meant_unless_said_otherwise() -> None:
    for text, meant in (
        ("", "read-write"),
        ("target_session_attrs=primary", "primary"),
        ("target_session_attrs=any", "any"),
    ):
        url = dsn.dsn(f"host=a,b user=u dbname=d {text}")
        assert [understood(one)[4] for one in dsn.each(url)] == [meant, meant]
    assert understood(dsn.dsn("host=a user=u dbname=d"))[4] == "any"


@pytest.mark.parametrize(
    "text",
    [
        *("mysql://a/b", "a.example/mail", "host", "host='a", "user=u dbname=d", "postgresql://a:x/d", "host=a port=0"),
        *("postgresql://a:99999/d", "host=a,,b user=u", "host=a,b,c port=1,2", "host=a port=x"),
        "host=a,b target_session_attrs=master",
    ],
)
def test_what_is_no_dsn_is_refused_by_the_name_of_its_setting(text: str) -> None:
    for name in ("DATABASE_DSN", "DATABASE_USERS_DSN", "DATABASE_SLAVE_DSNS"):
        given = {"TEMPMAIL_DATABASE_DSN": "postgresql://h/d", f"TEMPMAIL_{name}": text}
        with pytest.raises(ConfigError, match=f"TEMPMAIL_{name}"):
            configuration.load(given)


def test_each_schema_may_have_several_hosts_and_replicas_the_keyword_form() -> None:
    several = "host=a,b user=u dbname=d"
    loaded = configuration.load({"TEMPMAIL_DATABASE_DSN": several, "TEMPMAIL_DATABASE_MESSAGES_DSN": "host=c,d user=u"})
    assert [dsn.place(loaded.dsn(schema)) for schema in ("users", "messages")] == ["a, b", "c, d"]
    replicas = "host=a user=u dbname=d, host=b user=u dbname=d"
    loaded = configuration.load({"TEMPMAIL_DATABASE_DSN": several, "TEMPMAIL_DATABASE_SLAVE_DSNS": replicas})
    assert [dsn.place(one) for one in loaded.replica_dsns("users")] == ["a", "b"]


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:sesame@a,b/d?sslpassword=sesame",
        "host=a,b user=u password=sesame sslpassword='sesame' dbname=d",
        "postgresql://u:ses%3Aame@a/d?password=sesame",
    ],
)
def test_passwords_are_not_shown_and_hosts_are(text: str) -> None:
    loaded = configuration.load(
        {"TEMPMAIL_DATABASE_DSN": text, "TEMPMAIL_DATABASE_SLAVE_DSNS": "host=r password=sesame"}
    )
    rows = {name: value for name, value, _ in configuration.shown(loaded)}
    for name in ("DATABASE_DSN", "DATABASE_SLAVE_DSNS"):
        assert "ame" not in rows[name]
        assert "***" in rows[name]
    parts = urlsplit(rows["DATABASE_DSN"])
    assert parts.netloc.rpartition("@")[2].partition(",")[0] or parse_qs(parts.query)["host"]
