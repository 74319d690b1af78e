"""The sandbox against real child processes: deadlines, replacement, memory, queue bounds and orphans."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from server.model import mime
from server.model.sanitise import sanitise
from server.services import sandbox as sandboxes
from server.services.sandbox import Sandbox, SandboxBusy, SandboxDied, SandboxError, SandboxShare, SandboxTimeout
from tests.clients import of

PATIENT = 30.0


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    sandbox = Sandbox(children=1, queue=1)
    yield sandbox
    await sandbox.close()


def children() -> set[int]:
    """The sandboxes' processes."""
    return {child.pid for child in psutil.Process().children() if "server.services.sandbox_child" in child.cmdline()}


def told_and_asleep(path: str, seconds: float) -> None:
    """Work that says that it has begun."""
    Path(path).touch()
    time.sleep(seconds)


async def there(path: Path) -> None:
    async with asyncio.timeout(PATIENT):
        while not await asyncio.to_thread(path.exists):
            await asyncio.sleep(0.01)


async def test_child_is_started_late_and_used_again(sandbox: Sandbox) -> None:
    assert not children()
    first = await sandbox.run(os.getpid, timeout=PATIENT)
    assert first != os.getpid()
    assert await sandbox.run(os.getpid, timeout=PATIENT) == first


async def test_mail_and_html_come_back_as_from_a_call(sandbox: Sandbox) -> None:
    raw = b"Subject: Your code is 482 193\r\n\r\nHello\r\n" + b"x" * 2_000_000
    assert await sandbox.run(mime.parse, raw, timeout=PATIENT) == mime.parse(raw)
    assert await sandbox.run(sanitise, "<b onclick=x>a</b>", timeout=PATIENT) == "<b>a</b>"


async def test_overrun_is_killed_and_replaced(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxes, "STARVED", PATIENT)  # however busy this machine is
    first = await sandbox.run(os.getpid, timeout=PATIENT)
    with pytest.raises(SandboxTimeout):
        await sandbox.run(sum, range(1 << 60), timeout=1)
    assert not psutil.pid_exists(first)
    assert await sandbox.run(os.getpid, timeout=PATIENT) != first


async def test_child_killed_from_outside_is_replaced(sandbox: Sandbox, tmp_path: Path) -> None:
    first = await sandbox.run(os.getpid, timeout=PATIENT)
    task = asyncio.create_task(sandbox.run(told_and_asleep, str(tmp_path / "begun"), 1, timeout=PATIENT))
    await there(tmp_path / "begun")
    os.kill(first, signal.SIGKILL)
    await task
    assert await sandbox.run(os.getpid, timeout=PATIENT) != first


async def test_work_that_kills_its_child_twice_is_an_error(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxDied):
        await sandbox.run(os._exit, 1, timeout=PATIENT)
    assert await sandbox.run(abs, -1, timeout=PATIENT) == 1


async def test_child_that_the_machine_lets_no_work_condemns_no_input(sandbox: Sandbox) -> None:
    """SIGSTOP is what a machine without a free processor looks like from here."""
    os.kill(await sandbox.run(os.getpid, timeout=PATIENT), signal.SIGSTOP)
    with pytest.raises(SandboxBusy, match="machine"):
        await sandbox.run(abs, -1, timeout=0.2)
    assert await sandbox.run(abs, -1, timeout=PATIENT) == 1


async def test_child_without_work_ends_and_another_takes_its_place() -> None:
    sandbox = Sandbox(children=2, idle=0.3)
    try:
        pids = await asyncio.gather(*(sandbox.run(os.getpid, timeout=PATIENT) for _ in range(2)))
        async with asyncio.timeout(PATIENT):
            while any(map(psutil.pid_exists, pids)):
                await asyncio.sleep(0.05)
        assert await sandbox.run(os.getpid, timeout=PATIENT) not in pids
    finally:
        await sandbox.close()


async def test_one_client_never_holds_all_children() -> None:
    sandbox = Sandbox(children=2, queue=30)
    try:
        slow = [asyncio.create_task(sandbox.run(time.sleep, 3600, wait=60, clients=of("guest"))) for _ in range(4)]
        await asyncio.sleep(0)
        assert await sandbox.run(abs, -1, timeout=PATIENT, clients=of("other")) == 1
        with pytest.raises(SandboxShare):  # 4 of 32 callers are its share
            await sandbox.run(abs, -1, timeout=PATIENT, clients=of("guest"))
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        assert await sandbox.run(abs, -1, timeout=PATIENT, clients=of("guest")) == 1
    finally:
        await sandbox.close()


async def test_client_waiting_for_its_own_work_is_told_so() -> None:
    sandbox = Sandbox(children=2, queue=30)
    try:
        slow = asyncio.create_task(sandbox.run(time.sleep, 3600, wait=60, clients=of("guest", "box")))
        await asyncio.sleep(0)
        with pytest.raises(SandboxShare):
            await sandbox.run(abs, -1, wait=0.1, clients=of("guest from elsewhere", "box"))
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)
    finally:
        await sandbox.close()


async def test_callers_cancelled_while_they_wait_leave_their_places(sandbox: Sandbox) -> None:
    working = asyncio.create_task(sandbox.run(time.sleep, 3600, timeout=PATIENT))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(sandbox.run(abs, -1, timeout=PATIENT, clients=of("guest")))
    await asyncio.sleep(0)
    waiting.cancel()
    working.cancel()
    await asyncio.gather(working, waiting, return_exceptions=True)
    answers = [sandbox.run(abs, -1, timeout=PATIENT, clients=of("guest")) for _ in range(2)]
    assert await asyncio.gather(*answers) == [1, 1]


async def test_cancelled_caller_leaves_no_child_at_work(sandbox: Sandbox, tmp_path: Path) -> None:
    first = await sandbox.run(os.getpid, timeout=PATIENT)
    task = asyncio.create_task(sandbox.run(told_and_asleep, str(tmp_path / "begun"), 3600, timeout=PATIENT))
    await there(tmp_path / "begun")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not psutil.pid_exists(first)


async def test_function_that_raises_is_an_error_without_its_input(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match=r"^ValueError$"):
        await sandbox.run(int, "secret", timeout=PATIENT)
    assert await sandbox.run(abs, -1, timeout=PATIENT) == 1


async def test_memory_is_capped_and_the_pool_goes_on() -> None:
    sandbox = Sandbox(children=1, memory=268_435_456)
    with pytest.raises(SandboxError):
        await sandbox.run(bytes, 1_073_741_824, timeout=PATIENT)
    assert await sandbox.run(abs, -1, timeout=PATIENT) == 1
    await sandbox.close()


async def test_printing_does_not_disturb_the_answers(sandbox: Sandbox) -> None:
    await sandbox.run(print, "noise", timeout=PATIENT)
    assert await sandbox.run(abs, -2, timeout=PATIENT) == 2


async def test_full_queue_and_long_waiting_are_busy(sandbox: Sandbox) -> None:
    await sandbox.run(abs, -1, timeout=PATIENT)
    working = asyncio.create_task(sandbox.run(time.sleep, 3600, timeout=PATIENT))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(sandbox.run(abs, -1, timeout=0.2))
    await asyncio.sleep(0)
    with pytest.raises(SandboxBusy, match="queue full"):
        await sandbox.run(abs, -1)
    with pytest.raises(SandboxBusy, match="no child"):
        await waiting
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working


async def test_close_ends_children_and_refuses_calls() -> None:
    sandbox = Sandbox(children=2)
    pids = await asyncio.gather(*(sandbox.run(os.getpid, timeout=PATIENT) for _ in range(2)))
    await sandbox.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    with pytest.raises(SandboxBusy, match="closed"):
        await sandbox.run(abs, -1)


async def test_environment_of_the_parent_stays_with_it(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPMAIL_JWT_SECRET", "x" * 32)
    assert await sandbox.run(os.getenv, "TEMPMAIL_JWT_SECRET", timeout=PATIENT) is None


ORPHAN = """
import asyncio, os, time, uvloop
from server.services.sandbox import Sandbox

async def main():
    sandbox = Sandbox(children=1)
    print(await sandbox.run(os.getpid, timeout=30), flush=True)
    await sandbox.run(time.sleep, 3600, timeout=3600)

uvloop.run(main())
"""


def test_children_of_a_uvloop_worker_die_with_it() -> None:
    root = Path(__file__).resolve().parents[2]
    worker = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True, cwd=root)
    assert worker.stdout is not None
    child = psutil.Process(int(worker.stdout.readline()))
    worker.kill()
    worker.wait(PATIENT)
    worker.stdout.close()
    psutil.wait_procs([child], timeout=PATIENT)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
