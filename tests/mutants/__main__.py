"""Runs the catalogue: each fault is put into a copy of the tree, and its tests must fail.

Lives here: what was asked for, and the table. Must not know: what the faults are about. The checkout stays as it is.
"""

import argparse
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

from tests.mutants.catalogue import ROOT, Area, Mutant, areas
from tests.mutants.changes import NoHistory, base, changed
from tests.mutants.judging import CAUGHT, LEFT, LIVED, Judge, copied

LANDING: Final = 120  # s that a bare ./test spends on the faults of what was changed
Asked = Sequence[tuple[Area, Mutant]]
Judged = tuple[Area, Mutant, str, float]


def main(arguments: Sequence[str]) -> int:
    asked = _parser().parse_args(arguments)
    try:
        commit = asked.changed or (base(ROOT) if asked.landing else "")
        files = changed(ROOT, commit) if commit else None
    except NoHistory as missing:
        print(f"no earlier commit to compare with ({missing}): no fault was run; ./test --mutants runs them all")
        return 0 if asked.landing else 2
    chosen = [
        (area, mutant)
        for area in areas()
        for mutant in area.mutant
        if (not asked.area or area.name in asked.area)
        and (files is None or mutant.file in files)
        and asked.match in mutant.name
        and not mutant.equivalent
    ]
    if asked.list:
        return _listed(chosen)
    if asked.landing:
        return _landed(chosen, commit)
    with copied() as tree:
        results = list(_judged(chosen, Judge(tree)))
    return _report(results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./test --mutants",
        description="Put small faults into a copy of the tree, one at a time, and show which the tests do not catch.",
    )
    parser.add_argument("area", nargs="*", help=f"areas to run (default all): {', '.join(a.name for a in areas())}")
    parser.add_argument("--match", default="", metavar="TEXT", help="only faults with TEXT in their name")
    parser.add_argument("--changed", metavar="COMMIT", help="only faults in files that differ from COMMIT")
    parser.add_argument(
        "--landing",
        action="store_true",
        help="what ./test does: only faults in files that differ from main (on main: from the commit before), for "
        f"{LANDING} s at most; it names those it had no time for",
    )
    parser.add_argument("--list", action="store_true", help="show the faults and run nothing")
    return parser


def _listed(chosen: Asked) -> int:
    for area, mutant in chosen:
        print(f"{area.name}: {mutant.name} ({mutant.file}): {' '.join(area.tests_of(mutant))}")
    return 0


def _landed(chosen: Asked, commit: str) -> int:
    """Only a fault that lived fails the run. Tests that fail without a fault are for pytest to report."""
    if not chosen:
        print(f"no file with faults in the catalogue differs from {commit[:9]}")
        return 0
    quick = sorted(chosen, key=lambda one: not all(name.startswith("tests/unit/") for name in one[0].tests_of(one[1])))
    with copied() as tree:
        results = list(_judged(quick, Judge(tree, time.monotonic() + LANDING)))
    verdicts = [verdict for *_, verdict, _ in results]
    caught, lived, left = (verdicts.count(verdict) for verdict in (CAUGHT, LIVED, LEFT))
    print(f"{caught} of {len(verdicts)} faults in changed files were caught, {lived} lived")
    later = dict.fromkeys(area.name for area, _, verdict, _ in results if verdict == LEFT)
    if later:
        print(f"{left} had no time in {LANDING} s; before you land: ./test --mutants {' '.join(later)}")
    return 1 if lived else 0


def _judged(chosen: Asked, judge: Judge) -> Iterator[Judged]:
    for area, mutant in chosen:
        began = time.monotonic()
        verdict = judge.verdict(mutant, area.tests_of(mutant))
        seconds = time.monotonic() - began
        if verdict != LEFT:
            print(f"{verdict:7} {area.name}: {mutant.name} ({seconds:.0f} s)", flush=True)
        yield area, mutant, verdict, seconds


def _report(results: Sequence[Judged]) -> int:
    print("\n| area | faults | caught | minutes |\n|---|---:|---:|---:|")
    for name in dict.fromkeys(area.name for area, *_ in results):
        own = [(verdict, seconds) for area, _, verdict, seconds in results if area.name == name]
        caught = sum(verdict == CAUGHT for verdict, _ in own)
        print(f"| {name} | {len(own)} | {caught} | {sum(seconds for _, seconds in own) / 60:.1f} |")
    missed = [f"{verdict} {area.name}: {mutant.name}" for area, mutant, verdict, _ in results if verdict != CAUGHT]
    print(*missed, sep="\n")
    print(f"{len(results) - len(missed)} faults caught, {len(missed)} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exit ends the run that is under way
    sys.exit(main(sys.argv[1:]))
