"""Accounts: registration, logins and their renewal, and who stands behind an access token or an API key.

Lives here: the rules of API.md about names, passwords and tokens. Must not know: HTTP.

Everything a worker remembers of an account hangs on the account's generation: whatever changes the account, its logins
or its keys is a write of that key, so no worker of the host answers from a memory that is older. Another host's memory
ends after a minute.
"""

import re
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final, NamedTuple

from server.cache import keys
from server.cache.responses import ResponseCache, Ticket
from server.config.settings import Config
from server.metrics import Counter
from server.model import client as clients
from server.model import ids
from server.model.account import QUOTAS, Principal, User
from server.model.address import parse_path
from server.model.errors import Refused, Unavailable
from server.services.accounts import passwords
from server.services.accounts.passwords import Passwords
from server.services.accounts.tokens import Claims, Tokens, digest
from server.services.admin.guard import Guard
from server.services.coherence import Coherence, Write, account
from server.services.contracts import CredentialKind, Session
from server.services.limits import Attempt, RateLimits
from server.store.accounts import UserStore

_NO_ACCOUNT: Final = "00000000-0000-0000-0000-000000000000"
MAX_PRINCIPALS: Final = 20_000  # credentials a worker remembers
MAX_SESSIONS: Final = 50  # logins an account may have at once; the oldest end
_NAME_MAX: Final = 254
_USERNAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9]|[._-](?=[A-Za-z0-9])){2,31}")

REGISTERED = Counter("tempmail_users_registered_total", "Accounts made.")
LOGINS = Counter("tempmail_logins_total", "Attempts to log in, by outcome.", ("outcome",))


class _Known(NamedTuple):
    ticket: Ticket
    until: datetime
    principal: Principal


class AccountService:
    """Implements contracts.Accounts. ``used`` is told of each API key that opened something."""

    def __init__(
        self,
        config: Config,
        store: UserStore,
        hasher: Passwords,
        limits: RateLimits,
        local: ResponseCache,
        coherence: Coherence,
        clock: Callable[[], datetime],
        guard: Guard | None = None,
    ) -> None:
        self._guard = guard
        self._config, self._store, self._hasher, self._limits = config, store, hasher, limits
        self._local, self._coherence, self._clock = local, coherence, clock
        self._tokens = Tokens(config)
        self._known: OrderedDict[tuple[CredentialKind, str], _Known] = OrderedDict()
        self.used: dict[str, datetime] = {}

    def apply_settings(self, config: Config) -> None:
        """Settings have changed."""
        self._config, self._tokens = config, Tokens(config)

    # Making accounts and logging in.

    async def register(self, email: str, password: str, username: str | None, client: str) -> Session:
        """Refused: client_banned, field_invalid (email, password, username), user_exists, rate_limited."""
        if self._guard is not None:
            self._guard.check_client(client)
        new = new_user(email, username, self._clock())
        passwords.check_length(password, self._config.password_min_length)
        self._limits.register(client)
        await self._store.insert(new, await self._hasher.hash(password, self._limits.shares(client)))
        REGISTERED.add()
        return await self._open(new, client)

    async def login(self, name: str, password: str, client: str) -> Session:
        """``name``: email or username, in any case. Refused: credentials_invalid, account_disabled, rate_limited."""
        name = _login_name(name)
        attempt = self._limits.login(client)
        user = await self._verified(name, password, attempt, client)
        if user is None:
            LOGINS.add(("refused",))
            raise Refused("credentials_invalid")
        attempt.forgive()
        if not user.is_active:
            LOGINS.add(("disabled",))
            raise Refused("account_disabled")
        LOGINS.add(("accepted",))
        return await self._open(user, client)

    async def _verified(self, name: str, password: str, attempt: Attempt, client: str) -> User | None:
        """The account if the password is right. A name that nobody has costs as much as a wrong password."""
        usable = len(name) <= _NAME_MAX and "\0" not in name and _encodable(name) and _encodable(password)
        found = await self._store.by_name(name) if usable else None
        who = found[0].id if found else name
        if not self._limits.login_as(attempt, who, client, exists=bool(found)):
            await self._let_known_in(found[0].id if found else _NO_ACCOUNT, client, attempt)
        shares = self._limits.shares(client)
        known = found[1] if found else passwords.NOBODY
        try:
            right = await self._hasher.verify(known, password if usable else "", shares)
        except (Refused, Unavailable):
            attempt.forgive()  # it was not looked at
            raise
        if not right or found is None:
            return None
        if self._hasher.outdated(known):
            await self._store.rehash(found[0].id, known, await self._hasher.hash(password, shares))
        return found[0]

    async def _let_known_in(self, user_id: str, client: str, attempt: Attempt) -> None:
        """Refused rate_limited, unless the account has logged in from the client's network before: strangers may not
        shut it out of there.
        """
        network = _network(user_id, client)
        if network is None or not await self._store.knows_network(user_id, network):
            attempt.refuse()

    async def _open(self, user: User, client: str) -> Session:
        session_id, now = ids.new(), self._clock()
        refresh = self._tokens.write("refresh", user, session_id, now)
        expires = now + self._tokens.refresh_life
        network = _network(user.id, client) if not self._limits.exempt(client) else None
        with self._changing(user.id):
            await self._store.open_session(session_id, user.id, digest(refresh), now, expires, MAX_SESSIONS, network)
        return self._session(user, session_id, refresh, now)

    def _session(self, user: User, session_id: str, refresh: str, now: datetime) -> Session:
        access = self._tokens.write("access", user, session_id, now)
        return Session(user, access, refresh, int(self._tokens.access_life.total_seconds()))

    # Renewing and ending logins.

    async def refresh(self, refresh_token: str) -> Session:
        """The next pair. A refresh token that was used before ends its whole login: somebody else has it too.

        Refused: token_invalid, token_expired, account_disabled.
        """
        claims, now = self._tokens.read("refresh", refresh_token), self._clock()
        user = await self._store.by_id(claims.user_id)
        if user is None:
            raise Refused("token_invalid")
        if not user.is_active:
            raise Refused("account_disabled")
        following = self._tokens.write("refresh", user, claims.session_id, now)
        expires = now + self._tokens.refresh_life
        old, new = digest(refresh_token), digest(following)
        if not await self._store.rotate_session(claims.session_id, user.id, old, new, now, expires):
            await self._end(claims.session_id, user.id)
            raise Refused("token_invalid")
        return self._session(user, claims.session_id, following, now)

    async def logout(self, principal: Principal, refresh_token: str | None) -> None:
        """End the login that acts, and the one ``refresh_token`` belongs to where it is another of the same account."""
        sessions = {principal.credential}
        if refresh_token:
            claims = self._tokens.read("refresh", refresh_token)
            if claims.user_id == principal.user.id:
                sessions.add(claims.session_id)
        for session_id in sorted(sessions):
            await self._end(session_id, principal.user.id)

    async def _end(self, session_id: str, user_id: str) -> None:
        with self._changing(user_id):
            await self._store.close_session(session_id, user_id)
        self._coherence.tell([account(user_id)])

    def _changing(self, user_id: str) -> AbstractContextManager[Write]:
        return self._coherence.writing([], users=[user_id])

    # Who is acting.

    def recall(self, kind: CredentialKind, secret: str) -> Principal | None:
        """The account behind a credential, if this worker remembers it and nothing has changed; never waits."""
        known = self._known.get((kind, secret))
        if known is None or not self._local.current(known.ticket):
            return None
        now = self._clock()
        if known.until <= now:
            return None
        if kind == "key":
            self.used[known.principal.credential] = now
        return known.principal

    async def by_token(self, access_token: str) -> Principal:
        """One query unless remembered. Refused: token_invalid, token_expired."""
        remembered = self.recall("jwt", access_token)
        if remembered is not None:
            return remembered
        claims = self._tokens.read("access", access_token)
        ticket = self._local.ticket(keys.user(claims.user_id))
        user = await self._store.by_session(claims.session_id, claims.user_id)
        if user is None:  # logged out, shut out, or removed
            raise Refused("token_invalid")
        principal = _by_token(user, claims)
        self._remember("jwt", access_token, ticket, principal)
        return principal

    async def by_key(self, api_key: str) -> Principal:
        """Two queries unless remembered. Refused: token_invalid, token_expired."""
        remembered = self.recall("key", api_key)
        if remembered is not None:
            return remembered
        key_hash = digest(api_key)
        earlier = self._known.get(("key", api_key))
        owner = earlier.principal.user.id if earlier else await self._store.owner_of_key(key_hash)
        if owner is None:
            raise Refused("token_invalid")
        ticket = self._local.ticket(keys.user(owner))
        found = await self._store.by_key(key_hash)
        if found is None:
            raise Refused("token_invalid")
        now = self._clock()
        if found.expires_at is not None and found.expires_at <= now:
            raise Refused("token_expired")
        principal = Principal(found.user, "key", found.scopes, found.key_id, found.expires_at)
        self.used[found.key_id] = now
        self._remember("key", api_key, ticket, principal)
        return principal

    def _remember(self, kind: CredentialKind, secret: str, ticket: Ticket, principal: Principal) -> None:
        until = self._clock() + timedelta(seconds=self._config.follow_ttl)
        if principal.expires_at is not None:
            until = min(until, principal.expires_at)
        if self._local.settled(ticket):
            self._known[kind, secret] = _Known(ticket, until, principal)
            self._known.move_to_end((kind, secret))
            if len(self._known) > MAX_PRINCIPALS:
                self._known.popitem(last=False)


def _by_token(user: User, claims: Claims) -> Principal:
    return Principal(user, "jwt", credential=claims.session_id, expires_at=claims.expires_at)


def _encodable(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def new_user(email: str, username: str | None, now: datetime) -> User:
    """An account as it begins. Refused field_invalid: email, username."""
    return User(
        id=ids.new(),
        email=_email(email),
        username=_username(username) if username else None,
        tier="free",
        role="user",
        is_active=True,
        is_email_verified=False,
        created_at=now,
        updated_at=now,
        last_login_at=None,
        quota=QUOTAS["free"],
    )


def _email(text: str) -> str:
    """In lower case, its domain as A-labels; grammar and lengths as in an envelope (RFC 5321 section 4.1.2)."""
    try:
        path, parameters = parse_path(f"FROM:<{text.strip()}>".encode(), b"FROM:")
    except (Refused, UnicodeEncodeError) as error:
        raise Refused("field_invalid", "an address such as alice@example.org", field="email") from error
    if path is None or parameters or "." not in path.domain or '"' in path.local:
        raise Refused("field_invalid", "an address such as alice@example.org", field="email")
    return path.canonical


def _network(user_id: str, client: str) -> bytes | None:
    """What is remembered of the network that an account logs in from: salted with its id, and no address."""
    counted = clients.networks(client)
    return blake2b(counted[0].prefix, key=user_id.encode(), digest_size=16).digest() if counted else None


def _login_name(text: str) -> str:
    """What the account is found by: an email as registration wrote it, or a username in lower case."""
    try:
        return _email(text) if "@" in text else text.strip().lower()
    except Refused:  # nobody's email; it is looked for all the same, so that the answer costs the same
        return text.strip().lower()


def _username(text: str) -> str:
    """As it was given: names are compared without case. Never with an @, so that it cannot pass for an email."""
    if not _USERNAME.fullmatch(text):
        detail = "3 to 32 of A-Z, a-z and 0-9, with single . _ - between them"
        raise Refused("field_invalid", detail, field="username")
    return text
