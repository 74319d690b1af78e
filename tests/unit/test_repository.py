"""What must and must not stand in the repository's own files: pinned wheels, no lock files, no traces of a machine."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest
import yaml

from server.version import VERSION
from server.web.api.routes import ROUTES
from server.web.openapi import document

ROOT: Final = Path(__file__).parents[2]
LOCKED: Final = ("requirements.txt", "requirements-dev.txt")
LAUNCHERS: Final = ("tempmail", "test", ".ci/run")
# Spelled in pieces, so that this file does not hold what it forbids.
REGISTRIES: Final = ("pypi." + "org", "pythonhosted." + "org", "registry.npm" + "js", "deb.debian" + ".org")
MACHINE_PATHS: Final = re.compile("(?<![\\w.{])/" + r"(root|home/\w+|Users/\w+|work)/[\w.]")


def tracked() -> list[Path]:
    """The files that a commit of everything here would hold; all files where there is no git, as in an archive."""
    if not (ROOT / ".git").exists():
        made = {".venv", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", "var"}
        return [path for path in ROOT.rglob("*") if path.is_file() and not made & set(path.parts)]
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout.decode()
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def texts() -> list[tuple[Path, str]]:
    return [(path, path.read_bytes().decode("utf-8", "replace")) for path in tracked()]


def requirements(name: str) -> dict[str, str]:
    """Distribution -> everything that stands for it: version, marker, hashes."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    return {re.split(r"[=<>!~\[; ]", line)[0]: line for line in lines}


def test_no_lock_file_that_records_addresses() -> None:
    names = {path.name for path in tracked()}
    assert not names & {"uv.lock", "poetry.lock", "Pipfile.lock", "package-lock.json", "yarn.lock", "pnpm-lock.yaml"}


def test_no_registry_address() -> None:
    assert [(path, name) for path, text in texts() for name in REGISTRIES if name in text] == []


def test_no_path_of_a_machine() -> None:
    found = [(path, match[0]) for path, text in texts() for match in MACHINE_PATHS.finditer(text)]
    assert found == []


@pytest.mark.parametrize("name", LOCKED)
def test_every_wheel_is_pinned_with_hashes(name: str) -> None:
    pinned = requirements(name)
    assert pinned
    for requirement, line in pinned.items():
        assert re.match(rf"{re.escape(requirement)}(\[[\w,]+\])?==[\w.+!-]+\s", line), line[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", line), f"{requirement} has no hash"


@pytest.mark.parametrize("name", LOCKED)
def test_locked_files_hold_no_option_but_hashes(name: str) -> None:
    text = (ROOT / name).read_text()
    assert [line for line in text.splitlines() if line.startswith("-")] == []
    assert set(re.findall(r"\s(--[\w-]+)", re.sub(r"(?m)^\s*#.*", "", text))) == {"--hash"}


@pytest.mark.parametrize(("name", "extra"), [("requirements.txt", False), ("requirements-dev.txt", True)])
def test_locked_files_follow_pyproject(name: str, extra: bool) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + (project["optional-dependencies"]["dev"] if extra else [])
    names = {re.split(r"[=<>!~\[; ]", item)[0].lower() for item in wanted}
    assert names <= set(requirements(name)), f"run the command in the head of {name}"


def test_the_development_wheels_hold_the_very_ones_that_run() -> None:
    run, dev = (requirements(name) for name in LOCKED)
    assert {name: line.split("--hash")[0] for name, line in run.items()} == {
        name: dev[name].split("--hash")[0] for name in run
    }


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launchers_can_be_run(name: str) -> None:
    path = ROOT / name
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", path], check=True, timeout=10)


def test_every_place_that_shows_a_version_shows_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    command = [sys.executable, "-m", "server", "--version"]
    shown = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout
    assert shown == f"tempmail {project['version']}\n"
    assert document(ROUTES)["info"]["version"] == project["version"]
    assert project["version"] == VERSION


def test_hooks_before_a_commit_are_checks_of_the_whole_run() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    whole = (ROOT / "test").read_text()
    for hook in hooks:
        tool = hook["entry"].removeprefix(".venv/bin/").removeprefix("python -m ")
        assert (
            "pytest" in tool or tool.removesuffix(" --force-exclude").replace("lint-imports", "lint_imports") in whole
        )
    assert len(hooks) == 5


def test_links_in_the_documents_lead_to_files_and_headings() -> None:
    pages = [path for path in tracked() if path.suffix == ".md"]
    assert len(pages) > 10
    for page in pages:
        text = re.sub(r"(?ms)^```.*?^```|`[^`\n]*`", "", page.read_text())
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" in target or target.startswith("mailto:"):
                continue
            name, _, heading = target.partition("#")
            path = (page.parent / name).resolve() if name else page
            assert path.exists(), (page, target)
            if heading and path.suffix == ".md":
                assert heading in headings(path.read_text()), (page, target)


def headings(markdown: str) -> set[str]:
    """The anchors of a page's headings, as hosting services make them."""
    found = re.findall(r"(?m)^#+ (.+)$", markdown)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}
