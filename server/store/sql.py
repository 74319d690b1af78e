"""Reads queries/*.sql: named statements, so that SQL stands where an administrator can read it, a file a subject.

A statement begins with ``-- name: word``; the comment lines after it say why it is as it is.
"""

import re
from importlib.resources import files
from typing import Final

_NAME: Final = re.compile(r"^-- name: (\w+)$", re.M)


class Queries:
    """The statements of a text as attributes; AttributeError names one that is not there."""

    def __init__(self, text: str) -> None:
        parts = _NAME.split(text)
        names = parts[1::2]
        if len(set(names)) < len(names):
            raise ValueError(f"a statement is named twice: {sorted(n for n in names if names.count(n) > 1)}")
        self.texts = {name: body.strip() for name, body in zip(names, parts[2::2], strict=True)}
        vars(self).update(self.texts)

    def __getattr__(self, name: str) -> str:
        raise AttributeError(f"queries/*.sql have no statement named {name}")


def _read() -> str:
    folder = files("server.store").joinpath("queries")
    return "\n".join(file.read_text("utf-8") for file in sorted(folder.iterdir(), key=lambda file: file.name))


SQL: Final = Queries(_read())
