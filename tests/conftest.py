"""What every test may ask for: one running server for the whole run, or one of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.complete_run import CompleteRun
from tests.running import Server


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(CompleteRun(config), "complete-run")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on its own PostgreSQL with two workers, shared by all tests: each makes mailboxes of its own."""
    running = Server(tmp_path_factory.mktemp("server"), SMTP_TLS_CERT="self-signed").start()
    yield running
    assert running.stop() == 0, running.log[-4000:]


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers that a test may configure and break; they are stopped afterwards."""
    started: list[Server] = []

    def start(**settings: str) -> Server:
        started.append(Server(tmp_path / str(len(started)), **settings))
        started[-1].folder.mkdir(exist_ok=True)
        return started[-1].start()

    yield start
    for one in started:
        one.stop()
