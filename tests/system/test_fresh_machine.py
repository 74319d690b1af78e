"""A bare Debian, made here by debootstrap; docs/install.md's own blocks; then a mail through SMTP and nginx, read back.

The blocks of packages run in the new root with this machine's network, the others in a systemd that boots from it. What
this machine needs to reach its package registries (sources, certificates, pip's settings) is lent to the new root.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.booted import Booted
from tests.running import ROOT

INSTALL: Final = (ROOT / "docs" / "install.md").read_text()
LENT: Final = ("etc/apt/sources.list", "etc/apt/sources.list.d/debian.sources", "etc/pip.conf", "etc/resolv.conf")
BARE: Final = "ca-certificates,systemd-sysv"
NAMES: Final = {
    "REPOSITORY": "/src.git",
    "DOMAIN": "temp.test",
    "MX": "mx.temp.test",
    "SITE": "mail.temp.test",
}


def block(name: str) -> str:
    """A shell block of the page by its first line."""
    found = re.search(rf"```sh\n# {name}\n(.*?)```", INSTALL, re.DOTALL)
    assert found, name
    return found[1]


def mirror() -> list[str]:
    """Where this machine's Debian packages come from; debootstrap's own default where that cannot be told."""
    for name in LENT[:2]:
        path = Path("/", name)
        found = re.search(r"^(?:deb |URIs: )\s*(http\S+)", path.read_text() if path.exists() else "", re.MULTILINE)
        if found:
            return [found[1]]
    return []


def bare_root(root: Path) -> None:
    """A minimal Debian at ``root`` that reaches what this machine reaches, and the repository beside it."""
    command = ["debootstrap", "--variant=minbase", f"--include={BARE}", "bookworm", root, *mirror()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-2000:]
    for name in LENT:
        if Path("/", name).is_file():
            shutil.copy(Path("/", name), root / name)
    shutil.copytree("/usr/local/share/ca-certificates", root / "usr/local/share/ca-certificates", dirs_exist_ok=True)
    chroot(root, "update-ca-certificates", {})
    subprocess.run(["git", "clone", "--quiet", "--bare", ROOT, root / "src.git"], check=True, timeout=60)


def chroot(root: Path, script: str, environment: dict[str, str]) -> None:
    """Run shell lines in ``root`` with this machine's network; nothing that is installed there is started."""
    (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    (root / "usr/sbin/policy-rc.d").chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_CERT_"))}
    base = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"}
    mounts = f'mount -t proc proc "{root}/proc" && mount --rbind /dev "{root}/dev" && exec chroot "{root}" "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", mounts, "sh", "sh", "-euc", script],
        env=base | kept | environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    (root / "usr/sbin/policy-rc.d").unlink()
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def run(host: Booted, name: str) -> str:
    """A block in the booted system; what it printed."""
    names = "".join(f"export {key}='{value}'\n" for key, value in NAMES.items())
    return host.run("sh", "-euc", names + block(name)).stdout


@pytest.mark.timeout(900)
def test_a_bare_debian_becomes_a_mail_server_by_the_page(tmp_path: Path) -> None:
    root = tmp_path / "root"
    bare_root(root)
    chroot(root, block("packages"), NAMES)
    (tmp_path / "booted").mkdir()
    host = Booted(tmp_path / "booted", root, "multi-user.target")
    try:
        for name in ("database", "service", "nginx"):
            run(host, name)
        for _ in range(2):
            shown = run(host, "check")
            assert '"status":"ok"' in shown
            assert '"code":"482193"' in shown
            assert "with ESMTPS" in shown
            host.run("systemctl", "restart", "tempmail")
        assert len(run(host, "administrator").strip()) >= 16  # the password
    finally:
        host.stop()
