"""Dates as clients write them in query strings and searches: RFC 3339 (section 5.6), or a bare day, which is UTC's.

Must not know: which parameter a date was for.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from server.config.parsing import duration

EXAMPLE: Final = "a date such as 2024-05-01 or 2024-05-01T12:00:00Z"

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# an unescaped + of an offset arrives in a query string as a space
_MOMENT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:]{8}(\.[0-9]{1,9})?([Zz]|[+ -][0-9]{2}:[0-9]{2})")


def parse(text: str, *, end: bool = False) -> datetime:
    """The moment in UTC; of a bare day its first, or where ``end`` its last. ValueError for anything else."""
    try:
        return _parsed(text, end)
    except OverflowError as error:
        raise ValueError("beyond the calendar") from error


def _parsed(text: str, end: bool) -> datetime:
    if _DAY.fullmatch(text):
        day = datetime.fromisoformat(text).replace(tzinfo=UTC)
        return day + timedelta(days=1, microseconds=-1) if end else day
    if not _MOMENT.fullmatch(text):
        raise ValueError("not RFC 3339")
    date, clock = text[:10], text[11:].upper().replace(" ", "+").replace("Z", "+00:00")
    seconds, fraction, offset = clock[:8], clock[8:-6], clock[-6:]
    whole = f"{date}T{seconds}{fraction[:7]:0<7}{offset}" if fraction else f"{date}T{clock}"
    return datetime.fromisoformat(whole).astimezone(UTC)


_AGO: Final = re.compile(r"[0-9]{1,6}(ms|s|m|h|d)")


def ago(text: str, now: datetime) -> datetime:
    """A moment as ``parse`` reads it, or how long before ``now`` it was (``90s``, ``2h``). ValueError."""
    return now - timedelta(seconds=duration(text)) if _AGO.fullmatch(text) else parse(text)
