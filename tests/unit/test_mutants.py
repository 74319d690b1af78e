"""The catalogue of faults still fits the code: each one applies, is a fault, and names tests that are there."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.mutants.catalogue import ROOT, Area, Mutant, areas
from tests.mutants.changes import NoHistory, base, changed

FAULTS = [pytest.param(area, mutant, id=f"{area.name}: {mutant.name}") for area in areas() for mutant in area.mutant]


def functions(file: str) -> set[str]:
    return {node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if hasattr(node, "name")}


@pytest.mark.parametrize(("area", "mutant"), FAULTS)
def test_fault_applies_where_it_says(area: Area, mutant: Mutant) -> None:
    assert mutant.applied(ROOT) != (ROOT / mutant.file).read_text()
    tests = area.tests_of(mutant)
    assert tests
    for file, _, name in (test.partition("::") for test in tests):
        assert (ROOT / file).exists(), file
        assert not name or set(name.partition("[")[0].split("::")) <= functions(file), name


def test_names_of_an_area_are_its_own() -> None:
    assert areas()
    for area in areas():
        assert len({mutant.name for mutant in area.mutant}) == len(area.mutant)


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    command = ["git", *identity, *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def committed(folder: Path, name: str) -> str:
    (folder / name).write_text(name)
    git(folder, "add", name)
    git(folder, "commit", "--quiet", "--message", name)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    return folder


def test_a_branch_is_compared_with_where_it_left_main_and_main_with_its_last_commit_but_one(repository: Path) -> None:
    first, second = committed(repository, "one"), committed(repository, "two")
    assert base(repository) == first
    assert changed(repository, base(repository)) == {"two"}
    git(repository, "checkout", "--quiet", "-b", "work")
    committed(repository, "three")
    committed(repository, "four")
    (repository / "one").write_text("not committed")
    assert base(repository) == second
    assert changed(repository, base(repository)) == {"one", "three", "four"}
    git(repository, "checkout", "--quiet", "--force", "main")
    committed(repository, "elsewhere")
    git(repository, "checkout", "--quiet", "work")
    assert changed(repository, base(repository)) == {"three", "four"}


def test_without_history_there_is_nothing_to_compare_with(repository: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    committed(repository, "one")
    committed(repository, "two")
    git(tmp_path, "clone", "--quiet", "--depth", "1", repository.as_uri(), "shallow")
    for folder in (outside, tmp_path / "shallow"):
        with pytest.raises(NoHistory):
            base(folder)


MODULE, TESTS = "def doubled(n: int) -> int:\n    return n + n\n", "from thing import doubled\n"
TRIPLED, SAME = ("n + n", "n * 3"), ("n + n", "n * 2")
ENDLESS = ("return", "while True:\n        pass\n    return")
JUDGED = """
from pathlib import Path
from tests.mutants.catalogue import Mutant
from tests.mutants.judging import Judge
judge = Judge(Path({tree!r}), {deadline})
for old, new in {faults!r}:
    print(judge.verdict(Mutant("x", "thing.py", old, new), ("test_thing.py",)))
"""


def verdicts(tree: Path, test: str, deadline: str = "None") -> list[str]:
    """Of a fault, of a change that is none, and of a fault that hangs."""
    (tree / "thing.py").write_text(MODULE)
    (tree / "test_thing.py").write_text(f"{TESTS}\n\ndef test() -> None:\n    {test}\n")
    (tree / "pytest.ini").write_text("[pytest]\ntimeout = 10\n")
    program = JUDGED.format(tree=str(tree), deadline=deadline, faults=(TRIPLED, SAME, ENDLESS))
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert (tree / "thing.py").read_text() == MODULE
    return ran.stdout.split()


def test_a_fault_is_caught_by_a_failure_or_a_hang_and_lives_through_a_pass(tmp_path: Path) -> None:
    assert verdicts(tmp_path, "assert doubled(2) == 4") == ["caught", "LIVED", "caught"]


def test_tests_that_fail_without_a_fault_judge_none(tmp_path: Path) -> None:
    assert verdicts(tmp_path, "assert doubled(2) == 5") == ["BROKEN"] * 3


def test_after_its_deadline_no_fault_is_judged(tmp_path: Path) -> None:
    assert verdicts(tmp_path, "assert doubled(2) == 4", deadline="0.0") == ["left"] * 3


def test_who_ends_the_runner_ends_the_tests_that_it_started(tmp_path: Path) -> None:
    (tmp_path / "thing.py").write_text(MODULE)
    (tmp_path / "test_thing.py").write_text(
        "import os\nimport pathlib\nimport time\n\ndef test() -> None:\n"
        "    pathlib.Path('begun.part').write_text(str(os.getpid()))\n"
        "    os.rename('begun.part', 'begun')\n    time.sleep(3600)\n"
    )
    program = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n" + JUDGED
    runner = subprocess.Popen(
        [sys.executable, "-c", program.format(tree=str(tmp_path), deadline="None", faults=(TRIPLED,))], cwd=ROOT
    )
    begun, deadline = tmp_path / "begun", time.monotonic() + 120
    while not begun.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    runner.terminate()
    assert runner.wait(120) == 143
    assert not psutil.pid_exists(int(begun.read_text()))


def test_processes_that_a_fault_leaves_behind_are_ended(tmp_path: Path) -> None:
    forked = """
    child = os.fork()
    if not child:
        time.sleep(3600)
    pathlib.Path("left").write_text(str(child))
    assert doubled(2) == 4
    os.kill(child, 9)
    os.waitpid(child, 0)"""
    (tmp_path / "thing.py").write_text(MODULE)
    (tmp_path / "test_thing.py").write_text(
        f"import os\nimport pathlib\nimport time\n{TESTS}\n\ndef test() -> None:{forked}\n"
    )
    program = JUDGED.format(tree=str(tmp_path), deadline="None", faults=(TRIPLED,))
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert ran.stdout.split() == ["caught"]
    deadline = time.monotonic() + 60
    while psutil.pid_exists(int((tmp_path / "left").read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.02)
