"""What several files of contract tests share: a server whose DNS is the test's own."""

from collections.abc import Iterator

import pytest

from tests.contract.administrators import Installation
from tests.nameserver import name_server
from tests.running import Server


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A server with two workers that asks the name server of this process, and its first super user."""
    with name_server() as zones:
        folder = tmp_path_factory.mktemp("installation")
        server = Server(folder, DNS_SERVERS=zones.address, SUBDOMAIN_MAILBOXES="true").start()
        yield Installation(server, zones)
        assert server.stop() == 0, server.log[-4000:]
