"""Figures that only the database knows are those of now: the disabled, the departed and the expired do not count."""

from datetime import timedelta

import msgspec

from server.config.settings import Config
from server.model import ids
from server.model.account import QUOTAS, User
from server.shards import process_metrics
from server.store.accounts import UserStore
from server.store.pools import Pools
from tests.integration.mail import now


async def test_accounts_are_counted_as_active_and_as_online(pools: Pools, settings: Config) -> None:
    store, moment = UserStore(pools.users), now()
    one = User(ids.new(), "a@example.org", None, "free", "user", True, False, moment, moment, None, QUOTAS["free"])
    people = [msgspec.structs.replace(one, id=ids.new(), email=f"{n}@example.org") for n in range(4)]
    for person in people:
        await store.insert(person, "no password")
    await pools.users.execute("UPDATE users.users SET is_active = false WHERE id = $1", people[3].id)
    life, access = timedelta(seconds=settings.jwt_refresh_expiry), timedelta(seconds=settings.jwt_access_expiry)
    logins = [
        (people[0], moment),
        (people[0], moment),
        (people[1], moment - access / 2),
        (people[2], moment - 2 * access),
    ]
    for person, renewed in logins:
        await store.open_session(ids.new(), person.id, ids.new().encode()[:32], moment, renewed + life, 10, None)
    await process_metrics.Vitals(settings, pools, first=True).count()
    assert process_metrics.USERS.values == {(): 3}
    assert process_metrics.ONLINE.values == {(): 2}
