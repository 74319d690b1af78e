"""A client's address is believed only as far as proxies of ours vouch for it."""

import ipaddress

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from server import log
from server.web import caller
from server.web.caller import Addresses, forged

TRUSTED = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))


class Transport:
    """Just enough of a connection for a request to know its peer; "" is a unix socket."""

    def __init__(self, peer: str) -> None:
        self._peer = (peer, 1) if peer else ""

    def get_extra_info(self, name: str) -> object:
        return self._peer if name == "peername" else None


def request(peer: str, *forwarded: str) -> web.Request:
    headers = [("X-Forwarded-For", value) for value in forwarded]
    made = make_mocked_request("GET", "/", headers=dict(headers[:1]), transport=Transport(peer))
    return made.clone(headers=headers, remote=peer)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", (), "192.0.2.1"),
        ("192.0.2.1", ("203.0.113.1",), "192.0.2.1"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.1",), "203.0.113.1"),
        ("10.0.0.1", ("203.0.113.9, 203.0.113.1",), "203.0.113.1"),
        ("10.0.0.1", ("203.0.113.9", "203.0.113.1"), "203.0.113.1"),
        ("10.0.0.1", ("203.0.113.9, 203.0.113.1, 10.9.9.9",), "203.0.113.1"),
        ("10.0.0.1", ("10.1.1.1, 10.2.2.2",), "10.1.1.1"),
        ("10.0.0.1", ("203.0.113.9, unknown",), "10.0.0.1"),
        ("10.0.0.1", ("[2001:db8::1]:4711",), "2001:db8::1"),
        ("10.0.0.1", ("2001:DB8:0::1",), "2001:db8::1"),
        ("10.0.0.1", ("203.0.113.1:80",), "203.0.113.1"),
        ("::ffff:10.0.0.1", ("::ffff:203.0.113.1",), "203.0.113.1"),
        ("fd00::1", ("203.0.113.1",), "203.0.113.1"),
        ("fe80::1%eth0", ("203.0.113.1",), "fe80::1"),
        ("", ("203.0.113.9, 203.0.113.1",), "203.0.113.1"),
        ("", (), ""),
    ],
)
def test_the_rightmost_address_that_is_no_proxy_of_ours(peer: str, forwarded: tuple[str, ...], client: str) -> None:
    assert Addresses(TRUSTED).client(request(peer, *forwarded)) == client


@given(st.text(st.characters(codec="ascii"), max_size=2000))
def test_any_header_leads_to_an_address(forwarded: str) -> None:
    ipaddress.ip_address(Addresses(TRUSTED).client(request("10.0.0.1", forwarded)))


OWN = {"Host": "mail.test", "Origin": "https://mail.test"}
FOREIGN = {"Host": "mail.test", "Origin": "https://evil.test"}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PROPFIND"])
@pytest.mark.parametrize(
    ("headers", "is_forged"),
    [
        (OWN, False),
        (FOREIGN, True),
        ({"Host": "mail.test"}, True),
        ({"Host": "mail.test", "Origin": "null"}, True),
        ({"Host": "mail.test", "Origin": "https://mail.test.evil.test"}, True),
        ({"Host": "mail.test", "Origin": "https://mail.test:8443"}, True),
        (OWN | {"Sec-Fetch-Site": "same-origin"}, False),
        (OWN | {"Sec-Fetch-Site": "same-site"}, True),
        (OWN | {"Sec-Fetch-Site": "cross-site"}, True),
        (OWN | {"Sec-Fetch-Site": "none"}, True),
    ],
)
def test_a_change_with_a_cookie_is_believed_from_our_own_pages_alone(
    method: str, headers: dict[str, str], is_forged: bool
) -> None:
    assert forged(make_mocked_request(method, "/v1/tags", headers=headers)) is is_forged


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_reading_is_no_forgery(method: str) -> None:
    assert not forged(make_mocked_request(method, "/v1/tags", headers=FOREIGN))


def test_a_proxy_that_nobody_named_is_told_of_once_by_all_workers(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log.configure("info")
    monkeypatch.setattr(caller, "_IGNORED", log.Once())
    addresses = Addresses(TRUSTED)
    addresses.client(request("10.0.0.1", "203.0.113.1"))
    addresses.client(request("192.0.2.1"))
    assert capfd.readouterr().err == ""
    for peer in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
        assert addresses.client(request(peer, "203.0.113.1")) == peer
    monkeypatch.setattr(caller._IGNORED, "_told", False)  # as in another worker, which shares the pipe alone
    Addresses(TRUSTED).client(request("192.0.2.3", "203.0.113.1"))
    [line] = capfd.readouterr().err.splitlines()
    assert "TEMPMAIL_TRUSTED_PROXIES" in line
    assert '"sender":"192.0.2.1"' in line
