"""What a client is: the networks that an address is counted under, and what each of them may hold."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.model.client import Holdings, networks, parse


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.1", "::ffff:192.0.2.1"),
        ("192.0.2.1", "::ffff:c000:201"),
        ("2001:db8:1:2::1", "2001:DB8:1:2:ffff:ffff:ffff:ffff"),
        ("fe80::1%eth0", "fe80::2%eth1"),
    ],
)
def test_two_spellings_of_one_client_are_counted_together(one: str, other: str) -> None:
    assert networks(one) == networks(other)


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("192.0.2.1", "192.0.2.2", []),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", [4, 16]),  # another /64 of the /56
        ("2001:db8:1:2::1", "2001:db8:1:102::1", [16]),  # another /56 of the /48
        ("2001:db8:1:2::1", "2001:db8:2:2::1", []),
        ("0.0.0.1", "::1", []),
        ("1.2.3.4", "102:304::", []),  # the same first octets
    ],
)
def test_neighbours_share_only_the_wider_networks(one: str, other: str, shared: list[int]) -> None:
    assert [network.times for network in networks(one) if network in networks(other)] == shared


def test_a_client_on_a_unix_socket_is_counted_nowhere() -> None:
    assert networks("") == ()
    holdings = Holdings(1, 10)
    holdings.take("")
    holdings.take("")
    assert holdings.fits("", 100)
    assert not holdings
    assert holdings.held("") == 0


@pytest.mark.parametrize("text", ["unknown", "1.2.3", "1.2.3.4:25", "[::1]", "::1::"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        networks(text)


@given(st.ip_addresses())
def test_every_address_has_networks_that_contain_it(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    packed = parse(str(address)).packed
    found = networks(str(address))
    assert all(packed.startswith(network.prefix) for network in found)
    assert [(len(network.prefix) * 8, network.times) for network in found] == (
        [(32, 1)] if len(packed) == 4 else [(64, 1), (56, 4), (48, 16)]
    )


def _admitted(holdings: Holdings, clients: list[str]) -> int:
    """How many of ``clients`` were given a place, one each."""
    admitted = 0
    for client in clients:
        if holdings.fits(client):
            holdings.take(client)
            admitted += 1
    return admitted


def test_an_owner_of_a_56_or_a_48_holds_a_bounded_multiple_of_one_clients_share() -> None:
    one_64 = [f"2001:db8:0:1::{n:x}" for n in range(1000)]
    one_56 = [f"2001:db8:0:{n % 256:x}::1" for n in range(1000)]
    one_48 = [f"2001:db8:0:{n:x}::1" for n in range(0, 65_536, 16)]
    for clients, times in ((one_64, 1), (one_56, 4), (one_48, 16)):
        assert _admitted(Holdings(10, 1_000_000), clients) == 10 * times


def test_no_network_of_several_clients_holds_more_than_half_of_what_there_is() -> None:
    assert _admitted(Holdings(10, 100), [f"2001:db8:0:{n:x}::1" for n in range(4096)]) == 50
    assert _admitted(Holdings(3, 4), [f"2001:db8:0:{n:x}::1" for n in range(4096)]) == 3, "a share is a share"


def test_what_is_given_back_leaves_nothing_behind() -> None:
    holdings = Holdings(100, 1000)
    for client in ("192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"):
        holdings.take(client, 30)
    assert holdings.held("2001:db8::3") == 60
    assert holdings.fits("2001:db8::3", 40)
    assert not holdings.fits("2001:db8::3", 41)
    for client in ("2001:db8::1", "192.0.2.1", "2001:db8:0:1::1", "2001:db8::2"):
        holdings.give_back(client, 30)
    assert not holdings
    assert holdings.fits("192.0.2.1", 100)
    with pytest.raises(KeyError):
        holdings.give_back("192.0.2.1")
