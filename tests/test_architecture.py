"""The shape of the code: layers hold, nothing is too large to read at once, and no name says nothing."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.store import migrate
from server.store.pools import SCHEMAS, Schema

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*ROOT.glob("server/**/*.py"), *ROOT.glob("bench/*.py")])  # not what bench installed below .cache


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def test_layers_hold() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    found = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_no_function_is_longer_than_a_screen() -> None:
    long = [f"{p.name}:{f.name}" for p, f in functions() if (f.end_lineno or 0) - f.lineno >= 80]
    assert long == []


def test_no_file_is_longer_than_650_lines() -> None:
    assert [path.name for path in SOURCES if path.read_text().count("\n") > 650] == []


def test_no_import_hides_in_a_function() -> None:
    hidden = [
        f"{path.name}:{function.name}"
        for path, function in functions()
        if any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(function))
    ]
    assert hidden == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_opens_with_what_lives_there(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), path
    assert path.stem not in {"utils", "util", "helpers", "misc", "common"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_pattern_has_a_possessive_group(path: Path) -> None:
    """Python 3.11 before .5, which Debian 12 ships, matches them wrongly (CPython issue 106052)."""
    assert not [line for line in path.read_text().splitlines() if re.search(r"\)[*+?]\+", line)]


@pytest.mark.parametrize("domain", SCHEMAS)
def test_migrations_of_two_branches_do_not_bear_one_number(domain: Schema) -> None:
    """What no merge notices: then no database can be made or upgraded. ``available`` raises for it."""
    assert migrate.available(domain)
