"""check-config: what differs and whence it comes, in 80 columns; files and folders are looked at."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from server.cli import main
from server.smtp.certificate import make


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str, **settings: str) -> tuple[int, str]:
    for name in [name for name in os.environ if name.startswith("TEMPMAIL_")]:
        monkeypatch.delenv(name)
    for name, value in settings.items():
        monkeypatch.setenv(f"TEMPMAIL_{name}", value)
    done = CliRunner().invoke(main.app, ["check-config", *arguments])
    return done.exit_code, done.output


def certified(folder: Path, days: int, name: str = "mx.example.net", began: int = -100) -> dict[str, str]:
    """The settings of a certificate that ends in so many days."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=began))
        .not_valid_after(now + timedelta(days=days, minutes=5))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "mx.pem").write_bytes(made.public_bytes(pem))
    (folder / "mx.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    paths = {"SMTP_TLS_CERT": str(folder / "mx.pem"), "SMTP_TLS_KEY": str(folder / "mx.key")}
    return paths | {"SMTP_DOMAIN": "mx.example.net"}


def test_only_what_differs_is_shown_with_its_origin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "tempmail.toml"
    file.write_text("smtp_domain = 'mx.example.net'\nsmtp_max_recipients = 100\nworkers = 3\n")
    given = {"CONFIG": str(file), "WORKERS": "2", "DATA_DIR": str(tmp_path), "MASTER_DSN": ""}
    del given["MASTER_DSN"]
    status, out = run(monkeypatch, **given)
    lines = out.splitlines()
    assert status == 0, out
    at = lines.index("TEMPMAIL_SMTP_DOMAIN = mx.example.net")
    assert str(file) in " ".join(lines[at + 1 : at + 3])
    assert lines[lines.index("TEMPMAIL_WORKERS = 2") + 1] == "    # from: environment"
    assert "SMTP_MAX_RECIPIENTS" not in out, "given, and yet the default"
    assert "settings have their default; --all shows them" in out


def test_all_of_it_is_shown_when_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    status, out = run(monkeypatch, "--all", DATA_DIR=str(tmp_path), JWT_SECRET="s" * 40)
    assert status == 0
    assert "TEMPMAIL_SMTP_MAX_RECIPIENTS = 100\n    # from: default\n    # RCPT per message" in out
    assert "s" * 40 not in out


@pytest.mark.parametrize("arguments", [(), ("--all",)])
def test_it_fits_eighty_columns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    domains = ",".join(f"domain-{number}.example.net" for number in range(40))
    _, out = run(
        monkeypatch, *arguments, DATA_DIR=str(tmp_path), MAILBOX_ALLOWED_DOMAINS=domains, SMTP_DOMAIN="mx.test"
    )
    assert max(map(len, out.splitlines())) <= 80
    assert domains in "".join(line.strip() for line in out.splitlines())


@pytest.mark.parametrize(
    ("days", "began", "status", "said"),
    [
        (60, -100, 0, "is valid until"),
        (5, -100, 0, "warning "),
        (-1, -100, 1, "has expired on"),
        (60, 5, 1, "is not valid before"),
    ],
)
def test_a_certificate_is_opened_and_its_end_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, days: int, began: int, status: int, said: str
) -> None:
    ended, out = run(monkeypatch, DATA_DIR=str(tmp_path), **certified(tmp_path, days, began=began))
    assert ended == status
    assert said in " ".join(out.split()) + " "


def test_a_certificate_that_cannot_be_used_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = certified(tmp_path, 60) | {"DATA_DIR": str(tmp_path)}
    (tmp_path / "mx.key").write_bytes(make("another"))
    status, out = run(monkeypatch, **given)
    assert (status, "error   SMTP_TLS" in out) == (1, True), out
    for text in (b"no key", b"", (tmp_path / "mx.pem").read_bytes()):
        (tmp_path / "other.key").write_bytes(text)
        status, out = run(monkeypatch, **given | {"SMTP_TLS_KEY": str(tmp_path / "other.key")})
        assert (status, "error SMTP_TLS_KEY: " in " ".join(out.split())) == (1, True), out
    status, out = run(monkeypatch, **given | {"SMTP_TLS_CERT": str(tmp_path / "none.pem")})
    unbroken = "".join(line.strip() for line in out.splitlines())  # a path longer than a line is broken somewhere
    assert (status, str(tmp_path / "none.pem") in unbroken) == (1, True)
    status, out = run(monkeypatch, **certified(tmp_path, 60, "other.example"), DATA_DIR=str(tmp_path))
    assert (status, "not for SMTP_DOMAIN mx.example.net" in " ".join(out.split())) == (0, True)


def test_folders_are_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    status, out = run(monkeypatch, DATA_DIR=str(tmp_path / "new" / "deep"))
    assert (status, "will be made" in " ".join(out.split())) == (0, True)
    (tmp_path / "file").touch()
    status, out = run(monkeypatch, DATA_DIR=str(tmp_path / "file"))
    assert (status, "is no folder" in " ".join(out.split())) == (1, True)
    status, out = run(monkeypatch, DATA_DIR=str(tmp_path), SERVER_HOST=f"unix:{tmp_path}/absent/http")
    assert (status, "is not there" in " ".join(out.split())) == (1, True)


def test_a_data_dir_that_cannot_be_made_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for folder in ("/proc", "/proc/tempmail/data", "/sys/tempmail"):
        status, out = run(monkeypatch, DATA_DIR=folder)
        assert (status, "error DATA_DIR: " in " ".join(out.split())) == (1, True), out
        assert "will be made" not in out
    made = list(tmp_path.iterdir())
    status, out = run(monkeypatch, DATA_DIR=str(tmp_path / "new"))
    assert (status, list(tmp_path.iterdir())) == (0, made), "the look leaves nothing behind"
    if os.geteuid():
        tmp_path.chmod(0o500)
        status, out = run(monkeypatch, DATA_DIR=str(tmp_path / "new"))
        assert (status, "may not be written by this user" in " ".join(out.split())) == (1, True), out
        tmp_path.chmod(0o700)


def test_the_mode_without_limits_is_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "MODE" not in run(monkeypatch, DATA_DIR=str(tmp_path))[1]
    status, out = run(monkeypatch, DATA_DIR=str(tmp_path), MODE="dev")
    assert (status, "warning MODE: dev has no limits" in " ".join(out.split())) == (0, True), out
