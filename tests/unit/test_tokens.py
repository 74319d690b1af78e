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

from server import config as configuration
from server.config import Config, ConfigError
from server.model import ids
from server.model.account import User
from server.model.errors import Refused
from server.services.accounts import new_user
from server.services.tokens import Tokens, secret

SECRET = "a secret of this very test, " * 3


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
    head, body = segment({"alg": "HS256", "typ": "JWT"}), segment(good)
    mac = jwt.get_algorithm_by_name("HS256").sign(f"{head}.{body}".encode(), pem)
    forged = f"{head}.{body}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
    assert refused(tokens, forged) == "token_invalid"


@pytest.mark.parametrize("kid", ["/dev/null", "../../etc/passwd", "' UNION SELECT 'x", "http://evil.example/jwks"])
def test_a_key_id_chooses_no_key(tokens: Tokens, user: User, kid: str) -> None:
    good = claims_of(tokens.write("access", user, ids.new(), datetime.now(UTC)))
    for key in ("", "\0", "x" * 32):
        head, body = segment({"alg": "HS256", "typ": "JWT", "kid": kid, "jku": kid}), segment(good)
        mac = jwt.get_algorithm_by_name("HS256").sign(f"{head}.{body}".encode(), key.encode())
        forged = f"{head}.{body}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
        assert refused(tokens, forged) == "token_invalid"


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


def test_a_token_of_another_issuer_or_secret_is_refused(tokens: Tokens, user: User) -> None:
    now = datetime.now(UTC)
    for other in (settings(JWT_ISSUER="elsewhere"), settings(JWT_SECRET=SECRET[::-1])):
        assert refused(tokens, Tokens(other).write("access", user, ids.new(), now)) == "token_invalid"


CHANGES: list[Callable[[dict[str, Any]], dict[str, Any]]] = [
    lambda good: {name: value for name, value in good.items() if name != "sub"},
    lambda good: {name: value for name, value in good.items() if name != "exp"},
    lambda good: {name: value for name, value in good.items() if name != "typ"},
    lambda good: {name: value for name, value in good.items() if name != "sid"},
    lambda good: good | {"sub": 7},
    lambda good: good | {"sub": "'; DROP TABLE users"},
    lambda good: good | {"sid": None},
    lambda good: good | {"jti": ["x"]},
    lambda good: good | {"exp": "tomorrow"},
    lambda good: good | {"exp": 10**30},
    lambda good: good | {"iss": ["tempmail"]},
    lambda good: good | {"typ": ["access"]},
]


@pytest.mark.parametrize("change", range(len(CHANGES)))
def test_claims_of_the_wrong_shape_are_refused_even_when_signed(tokens: Tokens, user: User, change: int) -> None:
    good = claims_of(tokens.write("access", user, ids.new(), datetime.now(UTC)))
    head, body = segment({"alg": "HS256", "typ": "JWT"}), segment(CHANGES[change](good))
    mac = jwt.get_algorithm_by_name("HS256").sign(f"{head}.{body}".encode(), SECRET.encode())
    assert refused(tokens, f"{head}.{body}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}") == "token_invalid"


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
