"""Judges one fault: puts it into a copy of the tree and runs its tests. Must not know: which faults were asked for.

The tests run in a fork that has imported what is large and no fault can touch. That is most of a short run.
"""

import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn

import aiohttp.test_utils
import asyncpg
import hypothesis.strategies
import nh3
import pytest
import pytest_asyncio

from tests.mutants.catalogue import ROOT, Mutant
from tests.mutants.changes import git

WARM: Final = (aiohttp.test_utils, asyncpg, hypothesis.strategies, nh3, pytest_asyncio)  # imported before any run
TIMEOUT: Final = 600  # s for tests that have no fault in them
GRACE: Final = 60  # s that a run gets to stop its servers
LIVED, CAUGHT, BROKEN, LEFT = "LIVED", "caught", "BROKEN", "left"
_VERDICTS: Final = {0: LIVED, 1: CAUGHT}  # pytest's exit status; every other one says that the tests did not run


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of the files that git knows or would take."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Path(folder)
        for name in git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
            if (ROOT / name).is_file():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, tree / name)
        yield tree


class Judge:
    """Of one copy of the tree. Begins no run after ``deadline`` (time.monotonic), and ends one that is under way."""

    def __init__(self, tree: Path, deadline: float | None = None) -> None:
        self._tree = tree
        self._deadline = deadline
        self._sound: dict[tuple[str, ...], tuple[str, float]] = {}  # verdict and seconds of tests without a fault

    def verdict(self, mutant: Mutant, tests: tuple[str, ...]) -> str:
        """Tests that fail without a fault prove nothing: BROKEN. One that makes its tests hang is caught."""
        if tests not in self._sound:
            began = time.monotonic()
            self._sound[tests] = self._tested(tests, TIMEOUT), time.monotonic() - began
        whole, seconds = self._sound[tests]
        if whole != LIVED:
            return LEFT if whole == LEFT else BROKEN
        place = self._tree / mutant.file
        source = place.read_text()
        place.write_text(mutant.applied(self._tree))
        try:
            return self._tested(tests, min(TIMEOUT, 60 + 5 * seconds))
        finally:
            place.write_text(source)

    def _tested(self, tests: Sequence[str], limit: float) -> str:
        left = float("inf") if self._deadline is None else self._deadline - time.monotonic()
        if left <= 0:
            return LEFT
        status = _run(self._tree, tests, min(left, limit))
        if status is None:
            return CAUGHT if limit <= left else LEFT
        return _VERDICTS.get(status, BROKEN)


def _run(tree: Path, tests: Sequence[str], seconds: float) -> int | None:
    """pytest's exit status, or None: it was ended with all that it had started, for its time was up."""
    child = os.fork()
    if not child:
        _become(tree, ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis", *tests])
    try:
        return _ended(child, seconds)
    finally:
        _stop(child)


def _ended(child: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


def _stop(child: int) -> None:
    """End a run that is under way: first politely, so that it stops the servers that it started. Nothing of a run
    stays: a fault may leave processes that a test would have ended."""
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGINT)
        if _ended(child, GRACE) is None:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def _become(tree: Path, command: list[str]) -> NoReturn:
    """The tests, of the copy alone: nothing that was imported from the checkout stays."""
    status = 3
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.chdir(tree)
        os.environ |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
        sys.dont_write_bytecode = True
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        for name in [name for name in sys.modules if name.partition(".")[0] in ("server", "tests")]:
            del sys.modules[name]
        sys.path[:] = [str(tree), *(path for path in sys.path if path not in ("", str(ROOT)))]
        importlib.invalidate_caches()
        status = pytest.main(command)
    finally:
        os._exit(status)
