"""The TLS context for STARTTLS: from the operator's files, or self-signed for a trial.

Must not know: sessions. Opportunistic TLS between mail servers rarely checks names (RFC 7435), so a self-signed
certificate keeps eavesdroppers out all the same; it is no proof of who we are.
"""

import os
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from server.config.settings import Config, ConfigError

SELF_SIGNED: Final = "self-signed"
_FILE: Final = "smtp-self-signed.pem"
_LIFE: Final = timedelta(days=825)
_RENEW: Final = timedelta(days=30)


def context(config: Config) -> ssl.SSLContext | None:
    """The server's TLS context, or None where STARTTLS is not offered. Raises ConfigError when the files cannot be
    used.

    A self-signed certificate is made once and kept under ``data_dir`` (mode 0600); workers that start together agree on
    whichever is there last, since each loads key and certificate from one file.
    """
    if not config.smtp_tls_cert:
        return None
    certificate, key = _files(config)
    _check(certificate, key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.minimum_version = ssl.TLSVersion.TLSv1_2
    server.options |= ssl.OP_NO_RENEGOTIATION
    try:
        server.load_cert_chain(certificate, key)
    except OSError as error:
        if isinstance(error, ssl.SSLError) and "MISMATCH" in str(error):
            raise ConfigError(f"SMTP_TLS_KEY: {key} is not the key of the certificate in {certificate}") from error
        raise ConfigError(f"SMTP_TLS_CERT, SMTP_TLS_KEY: cannot use {certificate} with {key}: {error}") from error
    return server


def expires(config: Config) -> datetime | None:
    """When the certificate ends; None where STARTTLS is not offered."""
    if not config.smtp_tls_cert:
        return None
    return x509.load_pem_x509_certificate(Path(_files(config)[0]).read_bytes()).not_valid_after_utc


def _files(config: Config) -> tuple[str, str]:
    """Certificate and key."""
    if config.smtp_tls_cert == SELF_SIGNED:
        both = str(_self_signed(config.data_dir, config.smtp_domain))
        return both, both
    return config.smtp_tls_cert, config.smtp_tls_key or config.smtp_tls_cert


def _check(certificate: str, key: str) -> None:
    """ConfigError that names the file which cannot be used, and why: the library names neither."""
    its, secret = _content("SMTP_TLS_CERT", certificate), _content("SMTP_TLS_KEY", key)
    try:
        x509.load_pem_x509_certificates(its)
    except ValueError as error:
        raise ConfigError(f"SMTP_TLS_CERT: {certificate} holds no certificate in PEM") from error
    try:
        serialization.load_pem_private_key(secret, None)
    except TypeError as error:
        raise ConfigError(f"SMTP_TLS_KEY: {key} is encrypted; a key without a passphrase is needed") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"SMTP_TLS_KEY: {key} holds no private key in PEM") from error


def _content(setting: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{setting}: cannot read {path}: {error.strerror}") from error


def _self_signed(directory: Path, name: str) -> Path:
    path = directory / _FILE
    if not _usable(path):
        directory.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=_FILE, dir=directory)  # mode 0600
        with os.fdopen(descriptor, "wb") as file:
            file.write(make(name))
        os.replace(temporary, path)
    return path


def _usable(path: Path) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return False
    return certificate.not_valid_after_utc - datetime.now(UTC) > _RENEW


def make(name: str) -> bytes:
    """A new P-256 key and a certificate for ``name`` signed with it, both PEM, in one file's bytes."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)
