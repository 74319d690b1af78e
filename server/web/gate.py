"""Who may pass: the credential of a request, the account behind it, its role, scope, budget, and the mailbox it opens.

Lives here: ``Gate``, the rules of one row of the route table. Must not know: handlers, answers, or how a credential is
checked.

A request is counted against the account behind it; until that is known, and where there is none, against its address.
"""

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from server.cache.buckets import Verdict
from server.model import ids
from server.model.account import KEY_PREFIX, Principal, Role
from server.model.errors import Refused
from server.model.message import Mailbox
from server.services.contracts import CredentialKind
from server.web import caller
from server.web.caller import Credential
from server.web.requests import Call
from server.web.route import Auth, Route
from server.web.services import Services

_ROLES: Final[dict[Auth, Role]] = {"user": "user", "admin": "admin", "super": "super"}

_FOR: Final[dict[Role, str]] = {
    "user": "for accounts",
    "admin": "for administrators: accounts with the role admin or super",
    "super": "for super users: accounts with the role super",
}
_KEY: Final = "send an API key (POST /v1/api-keys) in X-API-Key"


class Gate:
    """The rules of one route."""

    def __init__(self, route: Route, parts: Services) -> None:
        self._route, self._accounts = route, parts.accounts
        self._mailboxes, self._limits = parts.mailboxes, parts.limits
        self._query_token = parts.config.query_token
        self._role = _ROLES.get(route.auth)

    def presented(self, request: web.Request, headers: Mapping[str, str]) -> Credential:
        """The credential that counts on this route."""
        auth = self._route.auth
        if auth == "none":
            return caller.NONE
        if auth == "mailbox":
            return caller.mailbox_credential(request, headers, self._query_token)
        if auth == "optional":
            return caller.optional_credential(request, headers, self._query_token)
        return caller.key_credential(headers) if auth == "key" else caller.account_credential(request, headers)

    def recall(self, credential: Credential) -> Principal | None:
        """The account behind the credential, if memory knows it now."""
        return self._accounts.recall(_kind(credential), credential.secret) if credential.kind != "token" else None

    def count(self, credential: Credential, principal: Principal | None, client: str) -> Verdict | None:
        """Take the request from whoever's budget it is; of an account not known yet only look at its address's."""
        if not self._route.limit:
            return None
        if principal is not None:
            return self._limits.user(principal.user, client)
        if credential.secret and credential.kind != "token":
            return self._limits.failed_before(client)
        return self._limits.request(client)

    async def admit(self, call: Call, credential: Credential) -> None:
        """Set ``call.principal`` and ``call.opened`` as the route promises.

        Refused: token_required, token_invalid, token_expired, permission_denied, origin_not_allowed, rate_limited,
        mailbox_not_found.
        """
        auth, secret = self._route.auth, credential.secret
        if auth == "none" or (auth == "optional" and not secret):
            return
        if not secret:
            raise Refused("token_required", self._wanted())
        if credential.kind != "token":
            await self._identify(call, credential)
        elif auth != "mailbox":
            raise Refused("token_invalid", f"it is no account's: {self._wanted(secret)}")
        if auth == "mailbox":
            await self._open(call, secret)

    async def _identify(self, call: Call, credential: Credential) -> None:
        if credential.kind == "cookie" and caller.forged(call.request):
            raise Refused("origin_not_allowed")
        principal = call.principal or await self._authenticated(call, credential)
        call.principal = principal
        if principal.via == "key":
            self._check_scopes(principal)
        if self._role is not None and not principal.is_at_least(self._role):
            raise Refused("permission_denied", _FOR[self._role])

    def _check_scopes(self, principal: Principal) -> None:
        needed = self._route.scopes
        lacking = [scope for scope in needed if scope not in principal.scopes]
        if lacking:
            why = ", since the answer holds a mailbox's token" if self._route.opens else ""
            words = "scope" if len(lacking) == 1 else "scopes"
            raise Refused("permission_denied", f"the key lacks the {words} {' '.join(lacking)}{why}")
        if not needed:
            raise Refused("permission_denied", "no API key may; send an access token")

    def _wanted(self, presented: str = "") -> str:
        """What would be let through."""
        if presented.startswith(KEY_PREFIX) and self._route.scope:
            return "an API key is sent in X-API-Key"
        if self._route.auth == "optional":
            return "send an access token in Authorization: Bearer, an API key in X-API-Key, or nothing as a guest"
        auth, key = self._route.auth, ", or an API key in X-API-Key" if self._route.scope else ""
        if auth == "mailbox":
            return f"send the mailbox's token, or its account's access token, in Authorization: Bearer{key}"
        return f"send an access token (POST /v1/auth/login) in Authorization: Bearer{key}" if auth != "key" else _KEY

    async def _authenticated(self, call: Call, credential: Credential) -> Principal:
        try:
            principal = await self._behind(credential)
        except Refused:
            call.verdict = self._limits.request(call.client) if self._route.limit else None
            raise
        call.verdict = self._limits.user(principal.user, call.client) if self._route.limit else None
        if call.verdict is not None and not call.verdict.allowed:
            raise Refused("rate_limited", retry_after=call.verdict.retry_after)
        return principal

    async def _behind(self, credential: Credential) -> Principal:
        if _kind(credential) == "key":
            return await self._accounts.by_key(credential.secret)
        return await self._accounts.by_token(credential.secret)

    async def _open(self, call: Call, token: str) -> None:
        mailbox_id = call.segments[0]
        if not (ids.valid(mailbox_id) and token.isascii()):
            raise Refused("mailbox_not_found")
        if call.principal is None:
            call.opened = await self._mailboxes.authorise(mailbox_id, token)
        else:
            call.opened = await self._mailboxes.owned(mailbox_id, call.principal.user)

    async def reopen(self, call: Call, credential: Credential) -> Mailbox:
        """Open the mailbox once more: may an answer that stays open go on? Refused as by ``admit``."""
        if call.principal is not None:
            call.principal = await self._behind(credential)
        await self._open(call, credential.secret)
        return call.mailbox

    def enter(self, call: Call) -> int | None:
        """Take a place among the account's concurrent requests; a connection that is meant to stay takes none."""
        if call.principal is None or self._route.deadline is None:
            return None
        return self._limits.enter(call.principal.user, call.client)

    def leave(self, place: int | None) -> None:
        self._limits.leave(place)


def _kind(credential: Credential) -> CredentialKind:
    return "key" if credential.kind == "key" else "jwt"
