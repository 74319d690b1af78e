"""The time that all nodes agree on: the database's, carried on by this process's monotonic clock.

Lives here: that time, and how far this machine's own clock is from it. Must not know: who asks, or how the database is
asked. A process that has not measured yet uses the machine's clock.

Rights end and mail is destroyed by this time, so a machine with a wrong clock harms nothing. Between two measurements
the monotonic clock counts: setting the machine's clock meanwhile changes nothing either.
"""

import time
from datetime import UTC, datetime
from typing import Final

TOLERANCE: Final = 5.0  # s that the machine's clock may be off before this node destroys nothing
FRESH: Final = 60.0  # s that a measurement counts as one
_SLACK: Final = 0.001  # s beyond what the answer's own way explains, below which the time is left as it is

_ahead: float | None = None  # the database's time less the monotonic clock's
_measured = 0.0  # by the monotonic clock


def wall() -> float:
    """Seconds since 1970."""
    return time.time() if _ahead is None else _ahead + time.monotonic()


def now() -> datetime:
    return datetime.fromtimestamp(wall(), UTC)


def measured(asked: float, told: float, answered: float) -> None:
    """The database said ``told`` (seconds since 1970) somewhere between two readings of the monotonic clock.

    Within what that leaves open the time goes on as it was, so that it does not jump with every measurement.
    """
    global _ahead, _measured
    middle, open_to = (asked + answered) / 2, (answered - asked) / 2 + _SLACK
    going = wall() - time.monotonic()
    _ahead = going if abs(going + middle - told) <= open_to else told - middle
    _measured = answered


def forget() -> None:
    """Back to the machine's clock, as before the first measurement."""
    global _ahead
    _ahead = None


def offset() -> float:
    """Seconds that the machine's clock is ahead of the database's; negative where it is behind."""
    return time.time() - wall()


def agrees() -> bool:
    """Whether this node may destroy by the time: it was measured lately, and the machine's clock says about the same.

    Where they differ either may be wrong, the database's too: what is destroyed cannot be brought back, what is kept
    can be destroyed later.
    """
    return _ahead is not None and time.monotonic() - _measured <= FRESH and abs(offset()) <= TOLERANCE
