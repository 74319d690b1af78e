"""Invitations: what a text/calendar part (RFC 5545) says of its first event.

A bounded reader of the few properties that are shown: a calendar may be as hostile as any mail, and no recurrence is
worked out here. Pure functions; nothing here knows messages.
"""

import re
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

_MAX_CHARACTERS = 262_144
_MAX_LINES = 4_000
_MAX_LINE = 8_000
_MAX_VALUE = 1_000
_FOLD = re.compile(r"\r?\n[ \t]")
# RFC 5545 section 3.1.
_LINE = re.compile(
    r'([A-Za-z0-9-]{1,60})((?:;[A-Za-z0-9-]{1,60}=(?:"[^"]*"|[^;:",]*)(?:,(?:"[^"]*"|[^;:",]*))*)*):(.*)'
)
_PARAMETER = re.compile(r';([A-Za-z0-9-]+)=("[^"]*"|[^;:]*)')
_ESCAPE = re.compile(r"\\([nN\\;,:])")
_MOMENT = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)(Z?))?$")
_DURATION = re.compile(r"([+-]?)P(?:(\d{1,4})W)?(?:(\d{1,4})D)?(?:T(?:(\d{1,4})H)?(?:(\d{1,4})M)?(?:(\d{1,6})S)?)?$")
_OFFSET = re.compile(r"([+-])(\d\d)(\d\d)")
_DAY = re.compile(r"([+-]?[1-5])?(MO|TU|WE|TH|FR|SA|SU)")
_EVENTS = ("VEVENT", "VTODO")
_HALVES = ("STANDARD", "DAYLIGHT")
_DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")

Property = tuple[dict[str, str], str]
"""(parameters, value) of a line."""


class Invite(msgspec.Struct, frozen=True, rename="camel"):
    """An event that a message brings. `start` and `end` are RFC 3339: in UTC where the time zone is known, without an
    offset where it is not, a date alone for a whole day. The end of whole days is the day after. "" where none is said.
    """

    method: str
    summary: str
    start: str
    end: str
    organizer: str
    location: str


class _Rule(msgspec.Struct, frozen=True):
    """Half of a VTIMEZONE: each year from the `week`-th `weekday` of `month` on (from its end when negative) the
    clock is `offset` ahead of UTC. Month 0: once, from `start` on.
    """

    start: datetime
    offset: timedelta
    month: int
    week: int
    weekday: int


_Zones = dict[str, list[_Rule]]


def invite(text: str, method: str = "") -> Invite | None:
    """The first event (or task) of a calendar; ``method`` as the part's own parameter says it, if the text does not."""
    calendar, event, zones = _components(_FOLD.sub("", text[:_MAX_CHARACTERS]).splitlines()[:_MAX_LINES])
    if event is None:
        return None
    start, end = event.get("DTSTART"), event.get("DTEND") or event.get("DUE")
    begins = _moment(start, zones)
    ends = _moment(end, zones) if end else _after(begins, event.get("DURATION"))
    return Invite(
        method=_text(calendar.get("METHOD") or ({}, method)).upper()[:40],
        summary=_text(event.get("SUMMARY")),
        start=_written(begins),
        end=_written(ends),
        organizer=_person(event.get("ORGANIZER")),
        location=_text(event.get("LOCATION")),
    )


def _components(lines: list[str]) -> tuple[dict[str, Property], dict[str, Property] | None, _Zones]:
    """(properties of the calendar, of its first event, its time zones)."""
    calendar: dict[str, Property] = {}
    event: dict[str, Property] | None = None
    rule: dict[str, Property] = {}
    zones: _Zones = {}
    zone, inner, done = "", "", False
    for line in lines:
        match = _LINE.match(line[:_MAX_LINE])
        name, value = (match[1].upper(), match[3]) if match else ("", "")
        if name == "BEGIN":
            inner = value.strip().upper()
            rule = {}
            event = {} if event is None and inner in _EVENTS else event
        elif name == "END":
            ended = value.strip().upper()
            if ended in _HALVES:
                zones.setdefault(zone, []).extend(_rule(rule))
            done = done or ended in _EVENTS
            # An alarm may stand within an event.
            inner = "VEVENT" if ended not in _EVENTS and event is not None and not done else ""
        elif match and inner in _EVENTS and event is not None and not done:
            event.setdefault(name, (_parameters(match[2]), value))
        elif match and inner in ("VCALENDAR", "") and name == "METHOD":
            calendar.setdefault(name, ({}, value))
        elif match and inner == "VTIMEZONE" and name == "TZID":
            zone = value.strip()
        elif match and inner in _HALVES:
            rule.setdefault(name, ({}, value))
    return calendar, event, zones


def _parameters(text: str) -> dict[str, str]:
    return {match[1].upper(): match[2].strip('"') for match in _PARAMETER.finditer(text)}


def _text(found: Property | None) -> str:
    if found is None:
        return ""
    text = _ESCAPE.sub(lambda match: "\n" if match[1] in "nN" else match[1], found[1])
    return text.strip()[:_MAX_VALUE]


def _person(found: Property | None) -> str:
    """``Name <address>`` of an organizer."""
    if found is None:
        return ""
    address = found[1].strip()
    address = address[7:] if address.lower().startswith("mailto:") else address
    name = found[0].get("CN", "").strip()
    return (f"{name} <{address}>" if name and name != address else address)[:_MAX_VALUE]


def _rule(lines: dict[str, Property]) -> list[_Rule]:
    start = _naive(lines.get("DTSTART", ({}, ""))[1])
    offset = _OFFSET.match(lines.get("TZOFFSETTO", ({}, ""))[1].strip())
    if offset is None:
        return []
    ahead = timedelta(hours=int(offset[2]), minutes=int(offset[3])) * (-1 if offset[1] == "-" else 1)
    parts = dict(part.partition("=")[::2] for part in lines.get("RRULE", ({}, ""))[1].upper().split(";"))
    day = _DAY.match(parts.get("BYDAY", ""))
    month = parts.get("BYMONTH", "")
    if not isinstance(start, datetime):
        start = datetime(1970, 1, 1)
    if day is None or not (month.isascii() and month.isdigit() and 1 <= int(month[:3]) <= 12):
        return [_Rule(start, ahead, 0, 1, 0)]
    return [_Rule(start, ahead, int(month), int(day[1] or 1), _DAYS.index(day[2]))]


def _onset(rule: _Rule, year: int) -> datetime:
    """When the half of the zone begins in a year, by the clock before it."""
    if rule.month == 0:
        return rule.start
    first = date(year, rule.month, 1)
    if rule.week > 0:
        day = first + timedelta(days=(rule.weekday - first.weekday()) % 7 + 7 * (rule.week - 1))
    else:
        last = date(year + rule.month // 12, rule.month % 12 + 1, 1) - timedelta(days=1)
        day = last - timedelta(days=(last.weekday() - rule.weekday) % 7 - 7 * (rule.week + 1))
    return datetime.combine(day, rule.start.time())


def _offset(rules: list[_Rule], local: datetime) -> timedelta:
    onsets = [(_onset(rule, year), rule.offset) for rule in rules[:20] for year in (local.year - 1, local.year)]
    past = [onset for onset in onsets if onset[0] <= local]
    return max(past)[1] if past else rules[0].offset


def _moment(found: Property | None, zones: _Zones) -> datetime | date | None:
    """The moment of a property, in UTC where its zone is known and without a zone where it is not."""
    if found is None:
        return None
    parameters, value = found
    moment = _naive(value)
    if not isinstance(moment, datetime) or moment.tzinfo is not None:
        return moment
    name = parameters.get("TZID", "").strip()
    try:
        if name:
            # Some programs put a path of their own in front: /citadel.org/20210210_1/Europe/Berlin.
            zone = ZoneInfo("/".join(name.strip("/").split("/")[-2:]) if name.startswith("/") else name)
            return moment.replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, OSError, LookupError, OverflowError):
        pass
    try:
        if zones.get(name):
            return (moment - _offset(zones[name], moment)).replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        pass
    return moment


def _naive(value: str) -> datetime | date | None:
    match = _MOMENT.match(value.strip())
    if match is None:
        return None
    try:
        day = date(int(match[1]), int(match[2]), int(match[3]))
        if match[4] is None:
            return day
        moment = datetime(day.year, day.month, day.day, int(match[4]), int(match[5]), min(int(match[6]), 59))
        return moment.replace(tzinfo=UTC) if match[7] else moment
    except ValueError:
        return None


def _after(start: datetime | date | None, duration: Property | None) -> datetime | date | None:
    match = _DURATION.match(duration[1].strip().upper()) if duration else None
    if start is None or match is None or match[1] == "-":
        return None
    weeks, days, hours, minutes, seconds = (int(group or 0) for group in match.groups()[1:])
    try:
        return start + timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        return None


def _written(moment: datetime | date | None) -> str:
    if moment is None:
        return ""
    if not isinstance(moment, datetime):
        return moment.isoformat()
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z" if moment.tzinfo else moment.isoformat()
