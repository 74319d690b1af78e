"""Access tokens: only what this installation signed, as it signs, of the right kind, in time, opens anything."""

import base64
import json
import multiprocessing
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from server.config import settings as configuration
from server.config.settings import Config, ConfigError
from server.model import ids
from server.model.account import User
from server.model.errors import Refused
from server.services.accounts.accounts import new_user
from server.services.accounts.tokens import Tokens, secret

SECRET = "a secret of this very test " * 3 + "."
"""Ends in no blank: settings are stripped, and a forgery signed with more than the secret proves nothing."""


def settings(**given: str) -> Config:
    return configuration.load({"TEMPMAIL_JWT_SECRET": SECRET} | {f"TEMPMAIL_{k}": v for k, v in given.items()})


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(settings())


@pytest.fixture
def user() -> User:
    return new_user("alice@example.org", "alice", datetime.now(UTC))


def claims_of(token: str) -> dict[str, Any]:
    read: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return read


def signed(claims: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256", **headers: str) -> str:
    return jwt.encode(claims, key, algorithm=algorithm, headers=headers or None)


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def refused(tokens: Tokens, token: str) -> str:
    with pytest.raises(Refused) as failure:
        tokens.read("access", token)
    return failure.value.word


def forged(claims: dict[str, Any], key: bytes = SECRET.encode(), **head: str) -> str:
    """A token of any claims, signed as the server signs; only what the claims say may refuse it."""
    signing = f"{segment({'alg': 'HS256', 'typ': 'JWT'} | head)}.{segment(claims)}"
    mac = jwt.get_algorithm_by_name("HS256").sign(signing.encode(), key)
    return f"{signing}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def test_a_forgery_with_the_right_secret_and_claims_is_believed(tokens: Tokens, user: User) -> None:
    """Without this, the forgeries below could all be refused for the wrong reason: their signature."""
    session = ids.new()
    good = claims_of(tokens.write("access", user, session, datetime.now(UTC)))
    assert tokens.read("access", forged(good)).session_id == session
    assert tokens.read("access", signed(good)).session_id == session


def test_a_token_says_what_the_contract_promises(tokens: Tokens, user: User) -> None:
    now, session = datetime.now(UTC), ids.new()
    said = claims_of(tokens.write("access", user, session, now))
    assert {"sub", "email", "tier", "role", "typ", "jti", "iss", "iat", "nbf", "exp"} <= set(said)
    assert (said["sub"], said["email"], said["tier"], said["role"]) == (user.id, user.email, "free", "user")
    assert (said["typ"], said["iss"]) == ("access", "tempmail")
    assert said["exp"] - said["iat"] == 15 * 60
    refresh = claims_of(tokens.write("refresh", user, session, now))
    assert (refresh["typ"], refresh["exp"] - refresh["iat"]) == ("refresh", 7 * 86400)
    assert refresh["jti"] != said["jti"]
    read = tokens.read("access", tokens.write("access", user, session, now))
    assert (read.user_id, read.session_id) == (user.id, session)


def test_no_other_algorithm_is_believed(tokens: Tokens, user: User) -> None:
    good = claims_of(tokens.write("access", user, ids.new(), datetime.now(UTC)))
    for algorithm in ("none", "None", "NONE", ""):
        unsigned = f"{segment({'alg': algorithm, 'typ': 'JWT'})}.{segment(good)}."
        assert refused(tokens, unsigned) == "token_invalid"
    for algorithm in ("HS384", "HS512"):
        assert refused(tokens, signed(good, SECRET * 2, algorithm)) == "token_invalid"
        assert refused(tokens, signed(good, algorithm=algorithm)) == "token_invalid"
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert refused(tokens, signed(good, key, "RS256")) == "token_invalid"


def test_a_public_key_is_never_taken_for_the_secret(user: User) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    tokens = Tokens(settings())
    good = claims_of(tokens.write("access", user, ids.new(), datetime.now(UTC)))
    assert refused(tokens, forged(good, pem)) == "token_invalid"


@pytest.mark.parametrize("kid", ["/dev/null", "../../etc/passwd", "' UNION SELECT 'x", "http://evil.example/jwks"])
def test_a_key_id_chooses_no_key(tokens: Tokens, user: User, kid: str) -> None:
    good = claims_of(tokens.write("access", user, ids.new(), datetime.now(UTC)))
    for key in ("", "\0", "x" * 32):
        assert refused(tokens, forged(good, key.encode(), kid=kid, jku=kid)) == "token_invalid"


def test_one_kind_is_not_taken_for_the_other(tokens: Tokens, user: User) -> None:
    now = datetime.now(UTC)
    assert refused(tokens, tokens.write("refresh", user, ids.new(), now)) == "token_invalid"
    with pytest.raises(Refused):
        tokens.read("refresh", tokens.write("access", user, ids.new(), now))


def test_a_token_ends_in_time_and_begins_in_time(tokens: Tokens, user: User) -> None:
    old = datetime.now(UTC) - timedelta(minutes=16)
    assert refused(tokens, tokens.write("access", user, ids.new(), old)) == "token_expired"
    good = claims_of(tokens.write("access", user, ids.new(), datetime.now(UTC)))
    assert refused(tokens, signed(good | {"nbf": time.time() + 3600})) == "token_invalid"


def test_the_clocks_of_two_nodes_may_differ_by_half_a_minute_and_no_more(tokens: Tokens, user: User) -> None:
    now = datetime.now(UTC)
    said = claims_of(tokens.write("access", user, ids.new(), now))
    assert said["iat"] - said["nbf"] == 30
    ahead = now + timedelta(minutes=2)
    assert refused(tokens, tokens.write("access", user, ids.new(), ahead)) == "token_invalid"


def test_a_token_of_another_issuer_or_secret_is_refused(tokens: Tokens, user: User) -> None:
    now = datetime.now(UTC)
    for other in (settings(JWT_ISSUER="elsewhere"), settings(JWT_SECRET=SECRET[::-1])):
        assert refused(tokens, Tokens(other).write("access", user, ids.new(), now)) == "token_invalid"


def without(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda good: {key: value for key, value in good.items() if key != name}


CHANGES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    **{f"no {name}": without(name) for name in ("sub", "typ", "jti", "sid", "iss", "iat", "nbf", "exp")},
    "number for a user": lambda good: good | {"sub": 7},
    "text for a user": lambda good: good | {"sub": "'; DROP TABLE users"},
    "null for a session": lambda good: good | {"sid": None},
    "text for a session": lambda good: good | {"sid": "'; DROP TABLE sessions"},
    "list for an id": lambda good: good | {"jti": ["x"]},
    "word for an end": lambda good: good | {"exp": "tomorrow"},
    "end beyond all years": lambda good: good | {"exp": 10**30},
    "list for an issuer": lambda good: good | {"iss": ["tempmail"]},
    "list for a kind": lambda good: good | {"typ": ["access"]},
}


@pytest.mark.parametrize("change", CHANGES)
def test_claims_of_the_wrong_shape_are_refused_even_when_signed(tokens: Tokens, user: User, change: str) -> None:
    good = claims_of(tokens.write("access", user, ids.new(), datetime.now(UTC)))
    assert refused(tokens, forged(CHANGES[change](good))) == "token_invalid"


def test_a_token_longer_than_any_is_refused_before_it_is_read(tokens: Tokens, user: User) -> None:
    good = claims_of(tokens.write("access", user, ids.new(), datetime.now(UTC)))
    assert tokens.read("access", forged(good | {"more": "x" * 500}))
    assert refused(tokens, forged(good | {"more": "x" * 2_000})) == "token_invalid"


def test_a_changed_token_is_refused(tokens: Tokens, user: User) -> None:
    good = tokens.write("access", user, ids.new(), datetime.now(UTC))
    head, body, mac = good.split(".")
    for position in range(0, len(body), 7):
        other = "A" if body[position] != "A" else "B"
        assert refused(tokens, f"{head}.{body[:position]}{other}{body[position + 1 :]}.{mac}") == "token_invalid"
    for broken in (
        "",
        ".",
        "..",
        "a.b.c",
        f"{head}.{body}",
        f"{head}.{body}.",
        good + "x",
        f"é.{body}.{mac}",
        "." * 99,
    ):
        assert refused(tokens, broken) == "token_invalid"
    assert refused(tokens, f"{head}.{segment('[' * 4000)}.{mac}") == "token_invalid"


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ConfigError, match="JWT_SECRET"):
        settings(JWT_SECRET="x" * 31)


def _ask(folder: str, answers: "multiprocessing.SimpleQueue[str]") -> None:
    answers.put(secret(configuration.load({"TEMPMAIL_DATA_DIR": folder})))


def test_processes_that_start_at_once_agree_on_one_secret(tmp_path: Path) -> None:
    forking = multiprocessing.get_context("fork")
    answers: multiprocessing.SimpleQueue[str] = forking.SimpleQueue()
    folder = tmp_path / "data"
    asking = [forking.Process(target=_ask, args=(str(folder), answers)) for _ in range(8)]
    for process in asking:
        process.start()
    found = {answers.get() for _ in asking}
    for process in asking:
        process.join()
    assert len(found) == 1
    assert len(found.pop()) >= 43
    assert [path.name for path in folder.iterdir()] == ["jwt-secret"]
    assert (folder / "jwt-secret").stat().st_mode & 0o777 == 0o600


def test_a_secret_that_cannot_be_kept_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="JWT_SECRET"):
        secret(configuration.load({"TEMPMAIL_DATA_DIR": str(tmp_path / "file")}))
