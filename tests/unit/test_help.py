"""Help of the commands, as it is read at a terminal of 80 columns."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import pytest
import typer
from typer.testing import CliRunner

from server.cli.main import app

WIDTH: Final = 80


def commands(tree: typer.Typer, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    for command in tree.registered_commands:
        assert command.callback
        yield (*path, command.name or command.callback.__name__.replace("_", "-"))
    for group in tree.registered_groups:
        assert group.typer_instance
        yield from commands(group.typer_instance, *path, str(group.typer_instance.info.name))


@pytest.mark.parametrize("path", list(commands(app)), ids=" ".join)
def test_paragraphs_of_help_are_filled_to_the_width(path: tuple[str, ...]) -> None:
    """A line ends early only where its paragraph ends, or where the next word would not have fitted."""
    shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": str(WIDTH), "TERM": "dumb"})
    assert shown.exit_code == 0
    prose = shown.output.partition("╭")[0].splitlines()
    assert all(len(line) <= WIDTH for line in shown.output.splitlines())
    for line, following in pairwise(prose):
        if line.strip() and following.strip() and "Usage:" not in line:
            word = following.split()[0]
            assert len(line.rstrip()) + 1 + len(word) > WIDTH - 1, (line, following)


@pytest.mark.parametrize("path", list(commands(app)), ids=" ".join)
def test_help_shows_no_path_of_the_machine(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert not re.search(r"default: /", shown.output)
