"""The contract of the routes as tests read it: the rows of routes.txt. Must not know: the server's own table.

What is right comes from here. A route that the server gains or loses fails until the row is written by hand.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

TABLE: Final = Path(__file__).parent / "routes.txt"
SCOPES: Final = ("mailbox:read", "mailbox:write", "mail:read", "mail:write")
SAFE: Final = ("GET",)  # of the methods that rows have (RFC 9110 section 9.2.1)


@dataclass(frozen=True)
class Row:
    """What one route promises."""

    method: str
    path: str
    who: str
    scopes: tuple[str, ...]
    limited: bool
    cached: bool
    shared: int
    stays: bool

    @property
    def operation(self) -> tuple[str, str]:
        return self.method, self.path

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    def filled(self, value: str) -> str:
        """The path with ``value`` for every variable segment."""
        return "/".join(value if segment.startswith("{") else segment for segment in self.path.split("/"))


def rows() -> list[Row]:
    """All of them. ValueError for a line that is no row, or for two of one operation."""
    found = [_row(line) for line in TABLE.read_text().splitlines() if line and not line.startswith("#")]
    if len({row.operation for row in found}) != len(found):
        raise ValueError("two rows of routes.txt have one method and path")
    return found


def _row(line: str) -> Row:
    method, path, who, scopes, limited, cached, shared, stays = line.split()
    return Row(method, path, who, _scopes(scopes), _yes(limited), _yes(cached), int(shared), _yes(stays))


def _scopes(text: str) -> tuple[str, ...]:
    known: dict[str, tuple[str, ...]] = {"-": (), "every": SCOPES}
    wanted = known[text] if text in known else tuple(text.split(","))
    if not set(wanted) <= set(SCOPES):
        raise ValueError(f"no scopes: {text}")
    return wanted


def _yes(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(f"neither yes nor no: {text}")
    return text == "yes"


ROWS: Final = rows()
NAMES: Final = [row.name for row in ROWS]
