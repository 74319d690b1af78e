"""Listening sockets: every slot gets its own, nobody else gets in, and a failure names the setting and the remedy."""

import contextlib
import errno
import io
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from server.cli import main
from server.config import settings as config
from server.shards import sockets
from server.shards.sockets import SlotSockets, bind_slots


@contextlib.contextmanager
def bound(count: int = 2, **settings: str) -> Iterator[list[SlotSockets]]:
    defaults = {"SERVER_HOST": "127.0.0.1", "SERVER_PORT": "0", "SMTP_BIND_ADDR": "127.0.0.1:0"}
    slots = bind_slots(config.load({}, defaults | settings), count)
    try:
        yield slots
    finally:
        for slot in slots:
            slot.withdraw()


def test_slots_share_one_chosen_port_and_all_are_reached() -> None:
    with bound(3) as slots:
        assert len({slot.http.getsockname() for slot in slots}) == 1
        assert len({slot.smtp.getsockname() for slot in slots}) == 1
        assert slots[0].http.getsockname() != slots[0].smtp.getsockname()
        reached = set()
        clients = [socket.create_connection(slots[0].http.getsockname()) for _ in range(100)]
        for number, slot in enumerate(slots):
            assert not slot.http.getblocking()
            with contextlib.suppress(BlockingIOError):
                while True:
                    slot.http.accept()[0].close()
                    reached.add(number)
        for client in clients:
            client.close()
    assert reached == {0, 1, 2}


def test_ipv6_any_serves_ipv4_too() -> None:
    with bound(SERVER_HOST="[::]") as slots:
        port = slots[0].http.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port)).close()


def test_the_ports_of_another_tempmail_are_refused_and_its_process_named() -> None:
    with bound() as slots:
        port = slots[0].http.getsockname()[1]
        with (
            pytest.raises(config.ConfigError, match=rf"TEMPMAIL_SERVER_PORT: .* process {os.getpid()};"),
            bound(SERVER_PORT=str(port)),
        ):
            pass
        mail = slots[0].smtp.getsockname()[1]
        with (
            pytest.raises(config.ConfigError, match="TEMPMAIL_SMTP_BIND_ADDR"),
            bound(SMTP_BIND_ADDR=f"127.0.0.1:{mail}"),
        ):
            pass


def test_a_failure_on_the_second_address_lets_the_first_go() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        smtp, http = taken.getsockname()[1], free.getsockname()[1]
        free.close()
        with pytest.raises(config.ConfigError), bound(SERVER_PORT=str(http), SMTP_BIND_ADDR=f"127.0.0.1:{smtp}"):
            pass
        socket.create_server(("127.0.0.1", http)).close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"SERVER_HOST": "192.0.2.1"}, "TEMPMAIL_SERVER_HOST: .*no interface of this host"),
        ({"SERVER_HOST": "no.such.host.invalid"}, "TEMPMAIL_SERVER_HOST: .*unknown host"),
        ({"SMTP_BIND_ADDR": "192.0.2.1:0"}, "TEMPMAIL_SMTP_BIND_ADDR: .*no interface of this host"),
        ({"SERVER_HOST": "unix:/nowhere/at/all"}, "TEMPMAIL_SERVER_HOST: unix:/nowhere/at/all.*: No such file"),
        ({"SERVER_HOST": "unix:/" + "x" * 200}, "TEMPMAIL_SERVER_HOST: .*path too long"),
    ],
)
def test_failures_name_setting_and_remedy(settings: dict[str, str], said: str) -> None:
    with pytest.raises(config.ConfigError, match=said), bound(2, **settings):
        pass


def test_a_privileged_port_without_privilege_names_the_capability() -> None:
    endpoint = sockets._Endpoint(config.Address("0.0.0.0", 25), "SMTP_BIND_ADDR", "SMTP_BIND_ADDR")
    error = sockets._explained(endpoint, PermissionError(errno.EACCES, "Permission denied"))
    assert "TEMPMAIL_SMTP_BIND_ADDR" in str(error)
    assert "CAP_NET_BIND_SERVICE" in str(error)


def test_unix_sockets_are_numbered_private_to_the_group_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "http"
    with bound(2, SERVER_HOST=f"unix:{path}"):
        files = sorted(tmp_path.iterdir())
        assert [file.name for file in files] == ["http.0", "http.1"]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o660}
    assert list(tmp_path.iterdir()) == []
    with bound(1, SERVER_HOST=f"unix:{path}"):
        assert path.is_socket()


def test_a_stale_unix_socket_is_replaced_a_live_one_or_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "http"
    with bound(1, SERVER_HOST=f"unix:{path}") as slots:
        with pytest.raises(config.ConfigError, match="already in use"), bound(1, SERVER_HOST=f"unix:{path}"):
            pass
        slots[0].close()  # as a killed server leaves it
        with bound(1, SERVER_HOST=f"unix:{path}"):
            socket.socket(socket.AF_UNIX).connect(str(path))
    path.write_text("precious")
    with pytest.raises(config.ConfigError, match="not a socket"), bound(1, SERVER_HOST=f"unix:{path}"):
        pass
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (("::1", 8080, 0, 0), "[::1]:8080"),
        (("::", 8080, 0, 0), "[::1]:8080"),
        (("fe80::a:1", 8080, 0, 2), "[fe80::a:1]:8080"),
        (("0.0.0.0", 25), "127.0.0.1:25"),
        (("192.0.2.1", 25), "192.0.2.1:25"),
        ("/run/[x]/http", "unix:/run/[x]/http"),
    ],
)
def test_an_address_is_printed_as_one_types_it(name: object, shown: str) -> None:
    out = io.StringIO()
    Console(file=out, highlight=False, emoji=False).print(main._shown(name), soft_wrap=True)
    assert out.getvalue() == shown + "\n"
