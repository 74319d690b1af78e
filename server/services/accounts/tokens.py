"""Access and refresh tokens: JSON Web Tokens (RFC 7519), signed with HMAC-SHA256 and nothing else (RFC 8725, 3.1).

Lives here: their claims, the checks of form, time and signature, and the secret. Must not know: whether the login a
token names still stands; that is asked of the store.
"""

import os
import secrets
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal

import jwt
import msgspec

from server import clock
from server.config.settings import Config, ConfigError
from server.model import ids
from server.model.account import User
from server.model.errors import Refused

Kind = Literal["access", "refresh"]

_ALGORITHM: Final = "HS256"
_LENGTH_MAX: Final = 2048  # characters; ours have about 500
_REQUIRED: Final = ("sub", "typ", "jti", "sid", "iss", "iat", "nbf", "exp")
_SECRET_FILE: Final = "jwt-secret"
_SKEW: Final = 30  # seconds that another node's clock may be behind


class Claims(msgspec.Struct, frozen=True):
    """What a good token says: whose it is, of which login, and when it ends."""

    user_id: str
    session_id: str
    token_id: str
    expires_at: datetime


class Tokens:
    """Writes and reads tokens of both kinds."""

    def __init__(self, config: Config) -> None:
        self._secret, self._issuer = config.jwt_secret, config.jwt_issuer
        self.access_life = timedelta(seconds=config.jwt_access_expiry)
        self.refresh_life = timedelta(seconds=config.jwt_refresh_expiry)

    def write(self, kind: Kind, user: User, session_id: str, now: datetime) -> str:
        life = self.access_life if kind == "access" else self.refresh_life
        claims = {
            "sub": user.id,
            "typ": kind,
            "jti": ids.new(),
            "sid": session_id,
            "iss": self._issuer,
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()) - _SKEW,
            "exp": int((now + life).timestamp()),
        }
        if kind == "access":  # for clients to show; what an account may is asked of the store
            claims |= {"email": user.email, "tier": user.tier, "role": user.role}
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM)

    def read(self, kind: Kind, token: str) -> Claims:
        """Refused token_expired for a token of ours out of date, token_invalid for everything else that is wrong."""
        try:
            return _claims(kind, self._decoded(token))
        except jwt.ExpiredSignatureError as error:
            raise Refused("token_expired") from error
        except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise Refused("token_invalid") from error

    def _decoded(self, token: str) -> dict[str, Any]:
        if len(token) > _LENGTH_MAX or not token.isascii():
            raise ValueError("not a token of ours")
        claims: dict[str, Any] = jwt.decode(
            token,
            self._secret,
            algorithms=[_ALGORITHM],
            issuer=self._issuer,
            options={
                "require": list(_REQUIRED),
                "verify_aud": False,
                "verify_iat": False,
                "verify_nbf": False,  # these two by the time of the nodes, below: the library asks this machine's clock
                "verify_exp": False,
            },
        )
        if int(claims["nbf"]) > clock.wall():
            raise jwt.ImmatureSignatureError
        if int(claims["exp"]) <= clock.wall():
            raise jwt.ExpiredSignatureError
        return claims


def _claims(kind: Kind, claims: dict[str, Any]) -> Claims:
    user_id, session_id, token_id = claims["sub"], claims["sid"], claims["jti"]
    wrong = claims["typ"] != kind or not all(isinstance(one, str) for one in (user_id, session_id, token_id))
    if wrong or not (ids.valid(user_id) and ids.valid(session_id)):
        raise ValueError("not a token of this kind")
    return Claims(user_id, session_id, token_id, datetime.fromtimestamp(claims["exp"], UTC))


def digest(token: str) -> bytes:
    """What is kept of a secret that is random: a fast hash is enough."""
    return sha256(token.encode("utf-8", "replace")).digest()


def secret(config: Config) -> str:
    """JWT_SECRET, or the one kept in the data directory, made when first wanted. ConfigError when it cannot be."""
    if config.jwt_secret:
        return config.jwt_secret
    path = config.data_dir / _SECRET_FILE
    try:
        return _kept(path) or _made(path)
    except OSError as error:
        raise ConfigError(f"JWT_SECRET is not set, and none can be kept at {path}: {error}") from error


def _kept(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except FileNotFoundError:
        return ""


def _made(path: Path) -> str:
    """Written whole beside its place and linked into it: of several makers at once one wins, and all use that one's."""
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(48) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(beside, path)
    except FileExistsError:
        return _kept(path)
    finally:
        beside.unlink()
    return _kept(path)
