"""Runs the catalogue: each fault is put into a copy of the tree, and its tests must fail.

Lives here: the copy, the runs and the table. Must not know: what the faults are about. The checkout stays as it is.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.mutants.catalogue import ROOT, Area, Mutant, areas, touched

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
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    env = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ran = subprocess.run(command, cwd=tree, env=env, capture_output=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return CAUGHT
    return _VERDICTS.get(ran.returncode, BROKEN)


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
