"""The suite's own guard: a run in which collected tests were lost, or two have one id, does not pass."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.running import ROOT

CONFTEST: Final = """
import pytest
from tests.complete_run import CompleteRun

def pytest_configure(config):
    config.pluginmanager.register(CompleteRun(config), "complete-run")
"""
TESTS: Final = """
import pytest

@pytest.mark.parametrize("number", range(3))
def test_one(number):
    if number == 2:
        pytest.skip("counts as run")
"""
LOSING: Final = """
@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    return True if "[1]" in item.nodeid else None
"""
DOUBLING: Final = """
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    items.append(pytest.Function.from_parent(items[0].parent, name=items[0].name, callobj=lambda: None))
"""


LOST: Final = "1 of 3 collected tests did not run, first test_some.py::test_one[1]"


@pytest.mark.parametrize(
    ("fault", "arguments", "status", "said"),
    [
        ("", ("--numprocesses=2",), pytest.ExitCode.OK, "2 passed, 1 skipped"),
        (LOSING, (), pytest.ExitCode.TESTS_FAILED, LOST),
        (LOSING, ("--numprocesses=2",), pytest.ExitCode.TESTS_FAILED, LOST),
        (DOUBLING, (), pytest.ExitCode.USAGE_ERROR, "1 ids stand for several tests each"),
    ],
    ids=["nothing", "a test is lost", "a test is lost between processes", "an id occurs twice"],
)
def test_a_run_passes_only_if_everything_collected_has_run(
    tmp_path: Path, fault: str, arguments: tuple[str, ...], status: pytest.ExitCode, said: str
) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST + fault)
    (tmp_path / "test_some.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir=.", *arguments, "test_some.py"]
    ran = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert said in ran.stdout + ran.stderr
    assert ran.returncode == status
