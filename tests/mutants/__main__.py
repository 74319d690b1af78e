"""Runs the catalogue: each fault is put into a copy of the tree, and its tests must fail.

Lives here: the copy, the runs and the table. Must not know: what the faults are about. The checkout stays as it is.
"""

import argparse
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

import aiohttp.test_utils
import asyncpg
import hypothesis.strategies
import nh3
import pytest
import pytest_asyncio

from tests.mutants.catalogue import ROOT, Area, Mutant, areas, touched

WARM: Final = (aiohttp.test_utils, asyncpg, hypothesis.strategies, nh3, pytest_asyncio)  # imported before any run
TIMEOUT: Final = 600  # s for the tests of one fault; one that makes them hang is caught
CAUGHT, LIVED, BROKEN = "caught", "LIVED", "BROKEN"
_VERDICTS: Final = {0: LIVED, 1: CAUGHT}  # pytest's exit status; every other one says that the tests did not run


def main(arguments: Sequence[str]) -> int:
    asked = _parser().parse_args(arguments)
    chosen = [area for area in areas() if not asked.area or area.name in asked.area]
    if asked.changed:
        files = set(_git("diff", "--name-only", asked.changed).split())
        chosen = [area for area in chosen if touched(area, files)]
    if asked.list:
        for area in chosen:
            print(f"{area.name}: {len(area.mutant)} faults, tests: {' '.join(area.tests)}")
        return 0
    with _copy() as tree:
        results = [result for area in chosen for result in _run(area, tree, asked.match)]
    return _report(results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./test --mutants",
        description="Put small faults into a copy of the tree, one at a time, and show which the tests do not catch.",
    )
    parser.add_argument("area", nargs="*", help=f"areas to run (default all): {', '.join(a.name for a in areas())}")
    parser.add_argument("--match", default="", metavar="TEXT", help="only faults with TEXT in their name")
    parser.add_argument("--changed", metavar="COMMIT", help="only areas whose files differ from COMMIT")
    parser.add_argument("--list", action="store_true", help="show the areas and run nothing")
    return parser


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout


@contextmanager
def _copy() -> Iterator[Path]:
    """A copy of the files that git knows or would take."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Path(folder)
        for name in _git("ls-files", "--cached", "--others", "--exclude-standard").splitlines():
            if (ROOT / name).is_file():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, tree / name)
        yield tree


def _run(area: Area, tree: Path, match: str) -> Iterator[tuple[Area, Mutant, str, float]]:
    chosen = [mutant for mutant in area.mutant if match in mutant.name]
    sound: dict[tuple[str, ...], bool] = {}
    for mutant in chosen:
        if mutant.equivalent:
            continue
        tests = area.tests_of(mutant)
        if tests not in sound:
            sound[tests] = _tested(tree, tests) == LIVED  # tests that fail without a fault prove nothing
        began = time.monotonic()
        verdict = _judged(mutant, tree, tests) if sound[tests] else BROKEN
        print(f"{verdict:7} {area.name}: {mutant.name} ({time.monotonic() - began:.0f} s)", flush=True)
        yield area, mutant, verdict, time.monotonic() - began


def _judged(mutant: Mutant, tree: Path, tests: Sequence[str]) -> str:
    place = tree / mutant.file
    source = place.read_text()
    place.write_text(mutant.applied(tree))
    try:
        return _tested(tree, tests)
    finally:
        place.write_text(source)


def _tested(tree: Path, tests: Sequence[str]) -> str:
    """In a fork of this process, which has imported what is large and no fault can touch: most of a short run."""
    command = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis", *tests]
    child = os.fork()
    if not child:
        _become(tree, command)
    deadline = time.monotonic() + TIMEOUT
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return CAUGHT
        time.sleep(0.02)
    return _VERDICTS.get(os.waitstatus_to_exitcode(ended[1]), BROKEN)


def _become(tree: Path, command: list[str]) -> NoReturn:
    """The tests, of the copy alone: nothing that was imported from the checkout stays."""
    status = 3
    try:
        os.setsid()
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


def _report(results: Sequence[tuple[Area, Mutant, str, float]]) -> int:
    print("\n| area | faults | caught | minutes |\n|---|---:|---:|---:|")
    for name in dict.fromkeys(area.name for area, *_ in results):
        own = [(verdict, seconds) for area, _, verdict, seconds in results if area.name == name]
        caught = sum(verdict == CAUGHT for verdict, _ in own)
        print(f"| {name} | {len(own)} | {caught} | {sum(seconds for _, seconds in own) / 60:.1f} |")
    missed = [f"{verdict} {area.name}: {mutant.name}" for area, mutant, verdict, _ in results if verdict != CAUGHT]
    print(*missed, sep="\n")
    print(f"{len(results) - len(missed)} passed, {len(missed)} failed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
