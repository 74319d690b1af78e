"""MODE=dev: a test suite meets no limit and no quota, and uses whatever domain it tests with."""

from collections.abc import Callable

import pytest

from server.config.settings import ConfigError, load
from tests.contract.accounts import register
from tests.contract.transcript import ask
from tests.running import Box, Server

DEV = {"TEMPMAIL_MODE": "dev"}


async def test_a_test_suite_meets_no_limit_and_any_domain(own_server: Callable[..., Server]) -> None:
    server = own_server(MODE="dev", TRUSTED_PROXIES="127.0.0.0/8", RATE_LIMIT_EXEMPT="0.0.0.0/0,::/0")
    abroad = {"X-Forwarded-For": "198.51.100.1"}
    for domain in ("shop.example", "temp.mail", "a.b.co.uk", "bücher.example", None):
        for _ in range(3):
            made = await ask(server, "POST", "/v1/mailboxes", headers=abroad, json={"domain": domain})
            assert made.status == 201, made.json
        box = Box(made.data["id"], made.data["address"], made.data["token"])
        await server.deliver(box, subject="to any domain")
        assert (await server.messages(box))[0]["subject"] == "to any domain"
    someone = await register(server)
    for _ in range(6):
        assert (await someone.ask("POST", "/v1/mailboxes", json={"domain": "else.example"})).status == 201
    for domain in ("-", "nonsense", "x" * 300 + ".example", "192.0.2.1"):
        refused = await ask(server, "POST", "/v1/mailboxes", json={"domain": domain})
        assert (refused.status, refused.error) == (400, "domain_not_allowed"), domain
    assert "MODE  dev: no limits" in server.log
    assert '"msg":"MODE=dev: no limits' in server.log, "for a journal, which nobody reads at the start"


async def test_elsewhere_other_domains_are_refused(server: Server) -> None:
    refused = await ask(server, "POST", "/v1/mailboxes", json={"domain": "shop.example"})
    assert (refused.status, refused.error) == (400, "domain_not_allowed")


def test_dev_changes_defaults_and_what_is_given_goes_over_them() -> None:
    config = load(DEV)
    assert (config.mailbox_max_per_ip, len(config.rate_exempt)) == (0, 2)
    assert load(DEV | {"TEMPMAIL_MAILBOX_MAX_PER_IP": "7"}).mailbox_max_per_ip == 7
    assert not load({}).dev


@pytest.mark.parametrize("name", ["SERVER_HOST", "SMTP_BIND_ADDR"])
def test_dev_is_refused_on_a_public_address(name: str) -> None:
    for host in ("8.8.8.8", "2a00:1450::1"):
        value = host if name == "SERVER_HOST" else f"[{host}]:25" if ":" in host else f"{host}:25"
        with pytest.raises(ConfigError, match="TEMPMAIL_MODE: dev has no limits"):
            load(DEV | {f"TEMPMAIL_{name}": value})
    for host in ("0.0.0.0", "127.0.0.1", "10.0.0.5"):
        load(DEV | {f"TEMPMAIL_{name}": host if name == "SERVER_HOST" else f"{host}:25"})


async def test_dev_for_others_than_this_host_is_warned_of(own_server: Callable[..., Server]) -> None:
    server = own_server(MODE="dev", SERVER_HOST="0.0.0.0")
    assert "SERVER_HOST not on loopback: whoever reaches this host may use it without limit" in server.log
