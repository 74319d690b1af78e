"""The trial certificate is made once and is nobody else's to read; files that cannot be used stop the start by name."""

import ssl
import time
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from server import log
from server.config import settings as config
from server.shards import supplies
from server.smtp import certificate


def settings(folder: Path, **given: str) -> config.Config:
    return config.load({}, {"DATA_DIR": str(folder), "SMTP_DOMAIN": "mx.example"} | given)


def test_no_certificate_no_tls(tmp_path: Path) -> None:
    assert certificate.context(settings(tmp_path)) is None


def test_a_self_signed_certificate_is_made_once_and_kept_private(tmp_path: Path) -> None:
    folder = tmp_path / "var"
    wanted = settings(folder, SMTP_TLS_CERT="self-signed")
    assert isinstance(certificate.context(wanted), ssl.SSLContext)
    [file] = folder.iterdir()
    made = file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    certificate.context(wanted)
    assert [entry.read_bytes() for entry in folder.iterdir()] == [made]


def test_a_damaged_self_signed_certificate_is_replaced(tmp_path: Path) -> None:
    wanted = settings(tmp_path, SMTP_TLS_CERT="self-signed")
    certificate.context(wanted)
    [file] = tmp_path.iterdir()
    file.write_bytes(b"not PEM")
    assert certificate.context(wanted) is not None


def test_the_operators_files_are_used_or_named(tmp_path: Path) -> None:
    pem = tmp_path / "own.pem"
    pem.write_bytes(certificate.make("mx.example"))
    assert certificate.context(settings(tmp_path, SMTP_TLS_CERT=str(pem), SMTP_TLS_KEY=str(pem))) is not None
    with pytest.raises(config.ConfigError, match=r"missing\.pem"):
        certificate.context(settings(tmp_path, SMTP_TLS_CERT=str(tmp_path / "missing.pem"), SMTP_TLS_KEY=str(pem)))


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        ("good.pem", "missing.pem", "SMTP_TLS_KEY: cannot read .*missing.pem: No such file"),
        ("missing.pem", "good.pem", "SMTP_TLS_CERT: cannot read .*missing.pem"),
        ("good.pem", "junk.pem", "SMTP_TLS_KEY: .*junk.pem holds no private key"),
        ("junk.pem", "good.pem", "SMTP_TLS_CERT: .*junk.pem holds no certificate"),
        ("good.pem", "other.pem", "SMTP_TLS_KEY: .*other.pem is not the key of the certificate in .*good.pem"),
        ("good.pem", "locked.pem", "SMTP_TLS_KEY: .*locked.pem is encrypted"),
    ],
)
def test_the_file_that_is_wrong_is_the_one_that_is_named(tmp_path: Path, cert: str, key: str, said: str) -> None:
    (tmp_path / "good.pem").write_bytes(certificate.make("mx.example"))
    (tmp_path / "other.pem").write_bytes(certificate.make("mx.example"))
    (tmp_path / "junk.pem").write_bytes(b"-----BEGIN PRIVATE KEY-----\nnot base64\n-----END PRIVATE KEY-----\n")
    locked = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"word")
    )
    (tmp_path / "locked.pem").write_bytes(locked)
    wanted = settings(tmp_path, SMTP_TLS_CERT=str(tmp_path / cert), SMTP_TLS_KEY=str(tmp_path / key))
    with pytest.raises(config.ConfigError, match=said):
        certificate.context(wanted)


@pytest.mark.parametrize(("days", "said"), [(-1, "has expired"), (5, "expires in 4 days"), (60, "")])
def test_a_certificate_that_ends_soon_is_told_of_at_the_start_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], days: int, said: str
) -> None:
    log.configure("info")
    monkeypatch.setattr(certificate, "_LIFE", timedelta(days=days) if days > 0 else timedelta(minutes=-30))
    pem = tmp_path / "own.pem"
    pem.write_bytes(certificate.make("mx.example"))
    supplies.Supplies(settings(tmp_path, SMTP_TLS_CERT=str(pem), SMTP_TLS_KEY=str(pem))).look()
    assert supplies.EXPIRY.values[()] == pytest.approx(time.time() + max(days, 0) * 86400, abs=7200)
    heard = capfd.readouterr().err
    assert said in heard if said else heard == ""
    assert 0 < supplies.FREE.values[()] < supplies.SIZE.values[()]


def test_without_a_certificate_nothing_is_told_of_one(tmp_path: Path) -> None:
    assert certificate.expires(settings(tmp_path)) is None
    supplies.Supplies(settings(tmp_path / "not" / "there")).look()
