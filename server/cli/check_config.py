"""``tempmail check-config``: every setting as ``serve`` would read it, and whether the files it names can be used.

Lives here: what is shown, and the look at certificates and folders. Must not know: how settings are read.
"""

import errno
import os
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

import typer
from cryptography import x509

from server.config import settings as configuration
from server.config.settings import Config, ConfigError
from server.smtp import certificate

_WIDTH: Final = 80
_SOON: Final = timedelta(days=14)  # a certificate that ends within is warned of

Level = Literal["ok", "warning", "error"]


class Finding(NamedTuple):
    """What was found of a file or a folder; ``names`` are the settings that lead to it."""

    level: Level
    names: str
    text: str


def check_config(
    everything: Annotated[bool, typer.Option("--all", help="Also what has its default, and what each is for.")] = False,
) -> None:
    """Show the settings that differ from their defaults, and where each comes from; look at certificates and folders.

    Secrets are not shown. Ends with status 1 where a file or folder cannot be used.
    """
    config = configuration.load()
    for line in _settings(config, everything=everything):
        typer.echo(line)
    findings = [finding for find in (modes, certificates, folders) for finding in find(config)]
    if findings:
        typer.echo("\n# mode, files and folders")
    for level, names, text in findings:
        typer.echo(_wrapped(f"{level:8}{names}: {text}", " " * 8))
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


def _settings(config: Config, *, everything: bool) -> Iterator[str]:
    origins, usual = configuration.origins(), dict(configuration.defaults(config))
    hidden = 0
    for name, value, why in configuration.shown(config):
        origin = origins.get(name, "default")
        if not everything and (origin == "default" or value == usual[name]):
            hidden += 1
            continue
        yield _wrapped(f"{configuration.PREFIX}{name} = {value}", "    ")
        yield f"    # from: {origin}" if len(origin) < _WIDTH - 12 else f"    # from:\n    # {origin}"
        if everything:
            yield _wrapped(f"    # {why}", "    # ")
    if hidden:
        yield f"# {hidden} settings have their default; --all shows them, and what each is for"


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def modes(config: Config) -> Iterator[Finding]:
    """A mode that no installation for others may have."""
    if config.dev:
        text = "dev has no limits, no quotas, and mailboxes under any domain; use it only for trials and tests"
        yield Finding("warning", "MODE", text)


def certificates(config: Config) -> Iterator[Finding]:
    """Whether the certificate for STARTTLS can be used, until when, and for which names."""
    path, names = config.smtp_tls_cert, "SMTP_TLS_CERT"
    if not path or path == certificate.SELF_SIGNED:
        return
    try:
        certificate.context(config)
        chain = x509.load_pem_x509_certificates(Path(path).read_bytes())
    except ConfigError as error:  # of either file, which it names
        names, _, text = str(error).partition(": ")
        yield Finding("error", names.removeprefix(configuration.PREFIX), text)
        return
    except (OSError, ValueError) as error:
        yield Finding("error", names, f"cannot read {path}: {error}")
        return
    yield _expiry(names, path, chain[0])
    for issuer in chain[1:]:
        if issuer.not_valid_after_utc <= datetime.now(UTC):
            yield Finding("warning", names, f"{path} holds an issuer's certificate that has expired")
    covered = _names_of(chain[0])
    if config.smtp_domain not in covered and f"*.{config.smtp_domain.partition('.')[2]}" not in covered:
        shown = ", ".join(sorted(covered)) or "no name"
        yield Finding("warning", names, f"{path} is for {shown}, not for SMTP_DOMAIN {config.smtp_domain}")


def _expiry(names: str, path: str, leaf: x509.Certificate) -> Finding:
    now, ends = datetime.now(UTC), leaf.not_valid_after_utc
    if leaf.not_valid_before_utc > now:
        return Finding("error", names, f"{path} is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")
    if ends <= now:
        return Finding("error", names, f"{path} has expired on {ends:%Y-%m-%d %H:%M} UTC")
    level: Level = "warning" if ends - now < _SOON else "ok"
    return Finding(level, names, f"{path} is valid until {ends:%Y-%m-%d}, for {(ends - now).days} days")


def _names_of(leaf: x509.Certificate) -> set[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {name.lower() for name in names.get_values_for_type(x509.DNSName)}


def folders(config: Config) -> Iterator[Finding]:
    """Whether what is written can be written: the data, and the folders of unix sockets."""
    yield _folder("DATA_DIR", config.data_dir, made=True)
    sockets = {"SERVER_HOST": config.http, "SMTP_BIND_ADDR": config.smtp, "LMTP_BIND_ADDR": config.lmtp}
    for name, bound in sockets.items():
        if bound is not None and bound.path:
            yield _folder(name, Path(bound.path).parent, made=False)


def _folder(name: str, folder: Path, *, made: bool) -> Finding:
    """``made``: the server makes it where it is not there."""
    nearest = next((one for one in (folder, *folder.absolute().parents) if one.exists()), Path("/"))
    tests: list[tuple[Callable[[], bool], str]] = [
        (lambda: made or folder.exists(), f"{folder} is not there"),
        (nearest.is_dir, f"{nearest} is no folder"),
    ]
    for passes, complaint in tests:
        if not passes():
            return Finding("error", name, complaint)
    if reason := _unwritable(nearest):
        below = "" if folder.exists() else f"{folder} cannot be made: "
        return Finding("error", name, f"{below}{nearest} {reason}")
    return Finding("ok", name, f"{folder} can be written" if folder.exists() else f"{folder} will be made")


def _unwritable(folder: Path) -> str:
    """Why nothing can be made there, or "". A folder is made and removed: permissions tell nothing of /proc, of a file
    system that is read-only or full, or of what root may do."""
    try:
        Path(tempfile.mkdtemp(prefix=".tempmail-check-", dir=folder)).rmdir()
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            return "may not be written by this user"
        if error.errno == errno.ENOENT:
            return "takes no files: it is a view of the kernel's"
        return f"cannot be written: {os.strerror(error.errno or 0)}"
    return ""
