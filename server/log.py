"""The log: one JSON object a line on standard error, each line one write(), so that lines of many workers never mix.

Where standard error is the journal's stream each line begins with its priority, ``<N>`` (sd-daemon(3)), which the
journal takes off again.

Lives here: the line's form, its level filter, its bounds and the redaction of secrets.
Must not know: who logs, or any setting but the level. Never raises; a line that cannot be written is counted, and the
next one that can says how many were lost.
"""

import logging
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from server import standard

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
REDACTED: Final = "[redacted]"
_SECRETS: Final = ("token", "authorization", "body", "password")
_LINE_MAX: Final = 4096  # PIPE_BUF: POSIX promises that a write to a pipe is whole only up to this
_TEXT_MAX: Final = 2000
_TEXT_SHORT: Final = 200
_OF_CONNECTIONS: Final = frozenset({"asyncio", "asyncpg", "aiohttp", "aiormq", "pamqp", "redis"})
_REPEATS_MAX: Final = 20  # times that one warning or error is written in a minute, by one process
_MINUTE: Final = 60.0  # s
_MESSAGES_MAX: Final = 256  # different ones that are counted

_PRIORITIES: Final = {"debug": b"<7>", "info": b"<6>", "warning": b"<4>", "error": b"<3>"}

_threshold = LEVELS["info"]
_journal = False
_lost = 0
_written: dict[str, tuple[float, int, int]] = {}  # warnings and errors: since when, how often, and how often left out


def configure(level: str) -> None:
    """Log ``level`` (debug, info, warning, error) and graver, here and in processes forked later; else KeyError."""
    global _threshold, _journal
    standard.adopt()
    _threshold = LEVELS[level]
    _journal = _is_journal(os.environ.get("JOURNAL_STREAM", ""))
    root = logging.getLogger()
    if not any(isinstance(handler, _Libraries) for handler in root.handlers):
        root.addHandler(_Libraries())


class Once:
    """One line for all workers of a node. Make it before the fork: they share a pipe that holds a single byte."""

    def __init__(self) -> None:
        self._byte, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.write(writer, b".")
        os.close(writer)
        self._told = False

    def event(self, level: str, message: str, /, **fields: object) -> None:
        """Write the line, if no process has done so yet."""
        if self._told:
            return
        self._told = True
        if os.read(self._byte, 1):  # empty once another process has the byte, as no writer is left
            event(level, message, **fields)


def wants(level: str) -> bool:
    """Whether a line of ``level`` would be written, for callers to whom its fields are dear."""
    return LEVELS.get(level, LEVELS["error"]) >= _threshold


class _Libraries(logging.Handler):
    """What libraries warn of by the standard library's logging, as lines of ours: without the arguments, which may be
    anybody's words, and of an exception its kind alone.
    """

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0] if record.exc_info else None
        level = "error" if record.levelno >= logging.ERROR else "warning"
        failed = kind is not None and issubclass(kind, (OSError, EOFError))
        if record.name.split(".")[0] in _OF_CONNECTIONS and (failed or record.levelno < logging.ERROR):
            level = "debug"  # whoever made the connection says that it failed, and what that means
        event(level, "from a library", library=record.name, said=str(record.msg), kind=kind.__name__ if kind else None)


def _is_journal(stream: str) -> bool:
    """Whether standard error is the journal's stream, which JOURNAL_STREAM names by device and inode (systemd.exec(5)).

    The variable alone says nothing: it is inherited by programs whose output goes elsewhere.
    """
    try:
        found = os.fstat(standard.ERROR)
    except OSError:
        return False
    return stream == f"{found.st_dev}:{found.st_ino}"


def event(level: str, message: str, /, **fields: object) -> None:
    """Write one line: ``ts`` (RFC 3339, UTC), ``level``, ``msg``, ``pid`` and the fields, in this order.

    A field whose name ends in token, authorization, body or password shows "[redacted]" at any depth. Long texts lose
    their middle; a line stays within 4096 bytes. An unknown level counts as error. Never raises.
    """
    global _lost
    if LEVELS.get(level, LEVELS["error"]) < _threshold:
        return
    if LEVELS.get(level, LEVELS["error"]) >= LEVELS["warning"]:
        left_out = _repeats(message)
        if left_out is None:
            return
        if left_out:
            fields["repeated"] = left_out
    if _lost:
        fields["lost_lines"] = _lost
    line = _line(level, message, fields)
    if standard.write(_PRIORITIES.get(level, _PRIORITIES["error"]) + line if _journal else line):
        _lost = 0
    else:  # standard error is closed or full, or its reader is gone or asleep: there is no other place to say so
        _lost += 1


def _repeats(message: str) -> int | None:
    """None where this message was written often enough in its minute; else how often it was left out before."""
    now = time.monotonic()
    began, written, left_out = _written.get(message, (now, 0, 0))
    if now - began >= _MINUTE:
        began, written = now, 0
    if written >= _REPEATS_MAX:
        _written[message] = began, written, left_out + 1
        return None
    if len(_written) > _MESSAGES_MAX:
        _written.clear()
    _written[message] = began, written + 1, 0
    return left_out


def _line(level: str, message: str, fields: Mapping[str, object]) -> bytes:
    head = {
        "ts": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level,
        "msg": _clipped(message, _TEXT_MAX),
        "pid": os.getpid(),
    }
    for room in (_TEXT_MAX, _TEXT_SHORT):
        line = _encoded(head | {name + "_" * (name in head): _shown(name, v, room) for name, v in fields.items()})
        if len(line) <= _LINE_MAX:
            return line
    return _encoded(head | {"msg": _clipped(message, _TEXT_SHORT), "fields_dropped": len(fields)})


def _encoded(record: dict[str, Any]) -> bytes:
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _shown(name: str, value: object, room: int) -> object:
    """``value`` as something JSON always takes: secrets hidden, mappings and sequences followed, the rest as text."""
    if name.lower().endswith(_SECRETS):
        return REDACTED
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else str(value)
    if isinstance(value, Mapping):
        return {_clipped(str(k), room): _shown(str(k), v, room) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown("", item, room) for item in value]
    return _clipped(_text(value), room)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # a foreign __str__ may raise anything; the log must not
        return f"[unprintable {type(value).__name__}: {type(error).__name__}]"


def _clipped(text: str, room: int) -> str:
    """``text`` without lone surrogates (orjson refuses them) and at most ``room`` characters, its middle cut out."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    if len(text) <= room:
        return text
    return f"{text[: room // 4]}…{text[-(room - room // 4 - 1) :]}"
