"""How long the supervisor waits before it replaces a dead worker, on a clock of the test's own."""

import time
from collections.abc import Iterator

import pytest

from server.config import settings as config
from server.supervisor import BOOT_ATTEMPTS, Supervisor, Timing, _Worker

TIMING = Timing(backoff_least=0.1, backoff_most=5.0, steady=60.0)


class Deaths:
    """A supervisor of one slot whose workers die as the test says."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.now = 1_000.0
        self.supervisor = supervisor
        [self.slot] = supervisor._slots

    def wait_after(self, life: float, *, ready: bool = True) -> float:
        """Seconds until the replacement of a worker that lived so long."""
        worker = _Worker(pid=1, slot=0, column=0, roll=0, pipe=-1, started=self.now, kill_at=0.0)
        worker.ready = ready
        self.now += life
        self.supervisor._plan_replacement(worker, "killed by the test")
        return self.slot.retry_at - self.now


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> Iterator[Deaths]:
    settings = {"WORKERS": "1", "SERVER_HOST": "127.0.0.1", "SERVER_PORT": "0", "SMTP_BIND_ADDR": "127.0.0.1:0"}
    one = Deaths(Supervisor(config.load({}, settings), lambda _: None, timing=TIMING))
    monkeypatch.setattr(time, "monotonic", lambda: one.now)
    yield one
    one.slot.sockets.http.close()
    one.slot.sockets.smtp.close()


def test_each_death_in_a_row_doubles_the_wait_up_to_the_longest(deaths: Deaths) -> None:
    waits = [deaths.wait_after(1.0) for _ in range(40)]
    assert waits[:6] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
    assert waits[6:] == pytest.approx([5.0] * 34)


def test_a_steady_life_ends_the_row_and_a_shorter_one_does_not(deaths: Deaths) -> None:
    assert [deaths.wait_after(life) for life in (1.0, 1.0, 59.0, 60.0, 1.0)] == pytest.approx([0.1, 0.2, 0.4, 0.1, 0.2])


def test_a_worker_that_was_never_ready_is_not_forgiven_however_long_it_took(deaths: Deaths) -> None:
    assert [deaths.wait_after(100.0, ready=False) for _ in range(3)] == pytest.approx([0.1, 0.2, 0.4])


def test_workers_that_never_boot_end_the_supervisor_and_one_that_boots_begins_the_count_again(deaths: Deaths) -> None:
    for _ in range(BOOT_ATTEMPTS - 1):
        deaths.wait_after(1.0, ready=False)
    deaths.wait_after(1.0)
    for _ in range(BOOT_ATTEMPTS - 1):
        deaths.wait_after(1.0, ready=False)
    assert not deaths.supervisor._stopping
    deaths.wait_after(1.0, ready=False)
    assert deaths.supervisor._stopping
    assert deaths.supervisor._status == 1
