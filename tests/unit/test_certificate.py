"""The trial certificate is made once and is nobody else's to read; files that cannot be used stop the start by name."""

import ssl
from pathlib import Path

import pytest

from server import config
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
