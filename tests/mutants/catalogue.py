"""The faults as data: one TOML file for each area beside this file. Must not know: how tests are run.

A file names the ``tests`` that must catch its faults. Its tables ``[[mutant]]`` have ``name``, ``file`` (from the
root), ``old`` (occurs exactly once in it), ``new``, and ``tests`` where they differ from the file's. A fault without
any effect that a test could see has ``equivalent``, a sentence that says why. It is not run.
"""

import ast
import tomllib
from pathlib import Path
from typing import Final

import msgspec

from tests.running import ROOT

FOLDER: Final = Path(__file__).parent


class Mutant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = ()
    equivalent: str = ""

    def applied(self, root: Path) -> str:
        """The file's text with the fault. ValueError when the place is not there, or the result is no Python."""
        source = (root / self.file).read_text()
        count = source.count(self.old)
        if count != 1:
            raise ValueError(f"{self.name}: {self.old!r} occurs {count} times in {self.file}; update the mutant")
        changed = source.replace(self.old, self.new)
        if self.file.endswith(".py"):
            ast.parse(changed, self.file)
        return changed


class Area(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    tests: tuple[str, ...]
    mutant: tuple[Mutant, ...]

    def tests_of(self, mutant: Mutant) -> tuple[str, ...]:
        return mutant.tests or self.tests


def areas() -> list[Area]:
    """All of them, by name."""
    return [_read(path) for path in sorted(FOLDER.glob("*.toml"))]


def _read(path: Path) -> Area:
    return msgspec.convert({"name": path.stem} | tomllib.loads(path.read_text()), Area)


__all__ = ["ROOT", "Area", "Mutant", "areas"]
