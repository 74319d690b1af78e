"""Labels that a user puts on messages: what one is, and what its name, colour and description may be."""

import re
from datetime import datetime
from typing import Final

import msgspec

from server.model.errors import Refused

NAME_MAX: Final = 20
DESCRIPTION_MAX: Final = 100

# characters, not bytes; a colour is #rgb, #rgba, #rrggbb, #rrggbbaa or a name, and so can be put into a style as it is
_COLOR: Final = re.compile(r"#(?:[0-9a-fA-F]{3,4}|[0-9a-fA-F]{6}|[0-9a-fA-F]{8})|[a-zA-Z]{3,30}")


class Tag(msgspec.Struct, frozen=True):
    """One label of one user."""

    id: str
    user_id: str
    name: str
    color: str
    description: str
    created_at: datetime
    updated_at: datetime


def checked_name(text: str) -> str:
    """Without space around it. Refused field_invalid."""
    return _line("name", text.strip(), 1, NAME_MAX)


def checked_color(text: str) -> str:
    if not _COLOR.fullmatch(text):
        raise Refused("field_invalid", "#rrggbb or the name of a colour", field="color")
    return text


def checked_description(text: str) -> str:
    return _line("description", text.strip(), 0, DESCRIPTION_MAX)


def _line(field: str, text: str, least: int, most: int) -> str:
    if not least <= len(text) <= most or not all(char.isprintable() for char in text):
        raise Refused("field_invalid", f"one line of {least} to {most} characters", field=field)
    return text
