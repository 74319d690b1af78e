"""Which files the work at hand changed, as git tells. Must not know: what a fault is.

The work begins where HEAD left ``main``. On ``main`` itself it is the last commit. Uncommitted changes count.
"""

import subprocess
from pathlib import Path
from typing import Final

_MAIN: Final = ("origin/main", "main")


class NoHistory(Exception):
    """There is no git, no repository, or no commit before this one."""


def git(root: Path, *words: str) -> str:
    try:
        return subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoHistory(f"git {words[0]}: {error}") from error


def base(root: Path) -> str:
    """The commit to compare with; NoHistory where there is none."""
    head = git(root, "rev-parse", "HEAD")
    for branch in _MAIN:
        try:
            left = git(root, "merge-base", branch, "HEAD")
        except NoHistory:
            continue
        if left != head:
            return left
    return git(root, "rev-parse", "--verify", "HEAD~1")


def changed(root: Path, commit: str) -> set[str]:
    """The files that differ from ``commit``, named from the root."""
    return set(git(root, "diff", "--name-only", "--no-renames", commit).splitlines())
