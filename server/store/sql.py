"""Reads queries.sql: named statements, so that SQL stands in one file that a database administrator can read.

A statement begins with ``-- name: word``; the comment lines after it say why it is as it is.
"""

import re
from importlib.resources import files
from typing import Final

_NAME: Final = re.compile(r"^-- name: (\w+)$", re.M)


class Queries:
    """The statements of a file as attributes; AttributeError names one that is not there."""

    def __init__(self, text: str) -> None:
        parts = _NAME.split(text)
        self.texts = {name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}

    def __getattr__(self, name: str) -> str:
        try:
            return self.texts[name]
        except KeyError:
            raise AttributeError(f"queries.sql has no statement named {name}") from None


SQL: Final = Queries(files("server.store").joinpath("queries.sql").read_text("utf-8"))
