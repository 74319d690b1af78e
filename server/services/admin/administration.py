"""What administrators do to accounts, what they are shown, and how a deleted account's things in other domains go.

Lives here: who may do what to whom. Must not know: HTTP, or how an act and its entry in the trail are kept together.

An administrator acts on users; on administrators and super users only a super user acts. Nobody changes his own role,
shuts himself out or deletes himself, and the last super user that can act stays one, so an installation never loses its
last key.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from server.model import ids
from server.model.account import ROLES, Quota, User
from server.model.admin import Act, Actor, Changes, Statistics, UserFilter
from server.model.errors import Refused
from server.services.coherence import Coherence, account
from server.store.accounts import UserStore
from server.store.admin import AdministrationStore

RECENT: Final = 20  # acts shown beside the statistics


class AdministrationService:
    """Implements contracts.Administration. ``departed`` is called once an account is deleted."""

    def __init__(
        self,
        store: AdministrationStore,
        users: UserStore,
        coherence: Coherence,
        departed: Callable[[], None],
        clock: Callable[[], datetime],
    ) -> None:
        self._store, self._users, self._coherence = store, users, coherence
        self._departed, self._clock = departed, clock

    async def users(self, wanted: UserFilter, page: int, page_size: int) -> tuple[Sequence[User], int]:
        return await self._store.users(wanted, page_size, (page - 1) * page_size)

    async def user(self, user_id: str) -> User:
        """Refused user_not_found."""
        found = await self._users.by_id(user_id) if ids.valid(user_id) else None
        if found is None:
            raise Refused("user_not_found")
        return found

    async def change(self, actor: Actor, user_id: str, changes: Changes) -> User:
        """Refused user_not_found, permission_denied (saying why)."""

        def judge(user: User, last: bool) -> None:
            check_rank(actor, user)
            _check_changes(actor, user, changes, last)

        _check_id(user_id)
        with self._coherence.writing(users=[user_id]):
            changed = await self._store.change(actor, user_id, changes, judge, self._clock())
        self._coherence.tell([account(user_id)])
        return changed

    async def set_quota(self, actor: Actor, user_id: str, given: Mapping[str, int]) -> Quota:
        """Change the fields of the quota that are given. Refused user_not_found, permission_denied."""
        _check_id(user_id)
        with self._coherence.writing(users=[user_id]):
            quota = await self._store.set_quota(
                actor, user_id, given, lambda user, _: check_rank(actor, user), self._clock()
            )
        self._coherence.tell([account(user_id)])
        return quota

    async def delete(self, actor: Actor, user_id: str) -> None:
        """The account can do nothing more once this returns; its mailboxes and domains go a moment later, whatever
        happens to this process. Refused user_not_found, permission_denied.
        """

        def judge(user: User, last: bool) -> None:
            check_rank(actor, user)
            if user.id == actor.user_id or last:
                raise Refused("permission_denied", "not oneself, and not the last super user")

        _check_id(user_id)
        with self._coherence.writing(users=[user_id]):
            await self._store.delete(actor, user_id, judge, self._clock())
        self._coherence.tell([account(user_id)])
        self._departed()

    async def record(
        self,
        actor: Actor,
        action: str,
        target: str,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
    ) -> None:
        await self._store.record(actor, action, target, before, after, self._clock())

    async def acts(self, page: int, page_size: int) -> tuple[Sequence[Act], int]:
        return await self._store.acts(page_size, (page - 1) * page_size), await self._store.count_acts()

    async def statistics(self) -> tuple[Statistics, Sequence[Act]]:
        """The figures, and the latest acts."""
        return await self._store.statistics(self._clock().date()), await self._store.acts(RECENT, 0)


def _check_id(user_id: str) -> None:
    if not ids.valid(user_id):
        raise Refused("user_not_found")


def check_rank(actor: Actor, user: User) -> None:
    """Refused permission_denied where somebody acts on an account, or on what is its, that is above him."""
    if actor.role != "super" and ROLES.index(user.role) > 0 and user.id != actor.user_id:
        raise Refused("permission_denied", "only a super user acts on administrators")


def _check_changes(actor: Actor, user: User, changes: Changes, last: bool) -> None:
    demoted = changes.role is not None and changes.role != user.role
    disabled = changes.is_active is False and user.is_active
    if demoted and actor.role != "super":
        raise Refused("permission_denied", "only a super user gives roles", field="role")
    if demoted and user.id == actor.user_id:
        raise Refused("permission_denied", "nobody changes his own role", field="role")
    if disabled and user.id == actor.user_id:
        raise Refused("permission_denied", "nobody shuts himself out", field="isActive")
    if last and (demoted or disabled):
        raise Refused("permission_denied", "the last super user stays one", field="role" if demoted else "isActive")
