"""How much is asked of an installation at its peak: given as rates, or worked out from a number of users.

Lives here: the structs of the data files and the arithmetic from users to rates. Must not know: machines or prices.
"""

from pathlib import Path
from typing import Final, TypeVar

import msgspec

from server.config.settings import ConfigError

DATA: Final = Path(__file__).parent


class Habits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What users do; fields as habits.toml explains them."""

    mails_per_user_and_day: float
    peak: float
    online_share: float
    websocket_share: float
    polls_per_minute: float
    mail_bytes: float
    mail_hours: float


class Demand(msgspec.Struct, frozen=True):
    """Rates are per second at the peak, ``stored_bytes`` is what lies on disk at once, before compression."""

    users: int
    mails: float
    requests: float
    websockets: float
    stored_bytes: float


T = TypeVar("T")


def read(path: Path, kind: type[T]) -> T:
    """One data file. ConfigError names the file and the field that is wrong."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=kind)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def of_users(users: int, habits: Habits) -> Demand:
    """What ``users`` monthly users ask for at the busiest minute."""
    mails = users * habits.mails_per_user_and_day / 86_400
    online = users * habits.online_share
    requests = online * (1 - habits.websocket_share) * habits.polls_per_minute / 60
    return Demand(
        users=users,
        mails=mails * habits.peak,
        requests=requests,
        websockets=online * habits.websocket_share,
        stored_bytes=mails * 3600 * habits.mail_hours * habits.mail_bytes,
    )


def with_rates(
    demand: Demand, habits: Habits, *, mails: float | None, requests: float | None, websockets: float | None
) -> Demand:
    """``demand`` with those rates that are given in place of what was worked out; stored mail follows the mail rate."""
    changed = demand
    if mails is not None:
        stored = mails / habits.peak * 3600 * habits.mail_hours * habits.mail_bytes
        changed = msgspec.structs.replace(changed, mails=mails, stored_bytes=stored)
    if requests is not None:
        changed = msgspec.structs.replace(changed, requests=requests)
    if websockets is not None:
        changed = msgspec.structs.replace(changed, websockets=websockets)
    return changed
