"""A bare Debian, made here by debootstrap, and what is installed on it receives a mail: the image of deploy/container,
built on it and run beside a PostgreSQL, and a machine set up by docs/install.md's own blocks, with nginx.

The blocks of packages run in the new root with this machine's network, the others in a systemd that boots from it. What
this machine needs to reach its package registries (sources, certificates, pip's settings) is lent to the new root.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from tests.booted import Booted
from tests.debian_postgres import Cluster
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


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A minimal Debian that reaches what this machine reaches, and the repository in it."""
    root = tmp_path_factory.mktemp("debian") / "root"
    command = ["debootstrap", "--variant=minbase", f"--include={BARE}", "bookworm", root, *mirror()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-2000:]
    for name in LENT:
        if Path("/", name).is_file():
            shutil.copy(Path("/", name), root / name)
    shutil.copytree("/usr/local/share/ca-certificates", root / "usr/local/share/ca-certificates", dirs_exist_ok=True)
    chroot(root, "update-ca-certificates", {})
    (root / "etc/dpkg/dpkg.cfg.d/hurry").write_text("force-unsafe-io\n")  # it need not outlive a loss of power
    subprocess.run(["git", "clone", "--quiet", "--bare", ROOT, root / "src.git"], check=True, timeout=60)
    yield root
    shutil.rmtree(root)


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


class Images:
    """buildah with images of its own in ``folder``. It needs no daemon: what runs has a root and mounts of its own, and
    the image's user, environment and folder.
    """

    def __init__(self, folder: Path) -> None:
        self._buildah = ["buildah", "--root", folder / "root", "--runroot", folder / "run", "--storage-driver=overlay"]

    def do(self, *arguments: str | Path) -> str:
        done = subprocess.run([*self._buildah, *arguments], capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, f"{arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout.strip()

    def build(self, base: Path) -> str:
        """A container of the Dockerfile's image, whose FROM is ``base``."""
        parent = re.search(r"^FROM (\S+)$", (ROOT / "deploy/container/Dockerfile").read_text(), re.MULTILINE)
        assert parent is not None
        scratch = self.do("from", "scratch")
        self.do("copy", "--quiet", scratch, base, "/")
        self.do("commit", "--quiet", "--rm", scratch, f"docker.io/library/{parent[1]}")
        how = ["--quiet", "--pull-never", "--isolation=chroot", "--network=host", "--format=docker"]
        self.do("build", *how, "--tag=tempmail", f"--file={ROOT}/deploy/container/Dockerfile", ROOT)
        return self.do("from", "--pull-never", "localhost/tempmail")

    def config(self, container: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.do("inspect", container))["Docker"]["config"]
        return found

    def running(self, container: str, options: Sequence[str], command: Sequence[str]) -> list[str | Path]:
        """What to run so that ``command`` runs in the container."""
        return [*self._buildah, "run", "--isolation=chroot", *options, container, "--", *command]

    def remove(self) -> None:
        self.do("rm", "--all")
        self.do("rmi", "--all", "--force")


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    made = Images(tmp_path / "images")
    yield made
    made.remove()


def test_the_image_is_built_and_receives_a_mail(root: Path, images: Images, tmp_path: Path) -> None:
    container = images.build(root)
    config = images.config(container)
    assert set(config["ExposedPorts"]) == {"8080/tcp", "2525/tcp"}
    with Cluster("image") as postgres:
        postgres.folder.chmod(0o755)
        set_up = {
            "DATABASE_DSN": postgres.database("tempmail"),
            "MAILBOX_ALLOWED_DOMAINS": "temp.test",
            "SMTP_DOMAIN": "mx.temp.test",
            "JWT_SECRET": "0" * 64,
        }
        options = [f"--volume={postgres.folder}:{postgres.folder}"]
        options += [f"--env=TEMPMAIL_{name}={value}" for name, value in set_up.items()]
        entry = config["Entrypoint"]
        subprocess.run(images.running(container, options, [*entry, "migrate"]), check=True, timeout=60)
        serving = images.running(container, options, [*entry, *config["Cmd"]])
        # a network of its own, so that its ports are those of the image
        alone = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen([*alone, *serving], stdout=log, stderr=log)
        try:
            inside = ["nsenter", f"--target={process.pid}", "--net"]
            health = [*inside, *images.running(container, options, config["Healthcheck"]["Test"][1:])]
            await_success(health, process, tmp_path / "log")
            exchange(inside)
        finally:
            stopped = stop(process)
    assert stopped == 0, (tmp_path / "log").read_text()[-3000:]


def await_success(command: Sequence[str | Path], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while subprocess.run(command, capture_output=True, timeout=60).returncode:
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.3)


def exchange(inside: Sequence[str]) -> None:
    """A mailbox, a mail to it, and its list, over the ports of the image."""
    site = "http://127.0.0.1:8080/v1/mailboxes"

    def called(*command: str) -> str:
        return subprocess.run([*inside, *command], check=True, capture_output=True, text=True, timeout=60).stdout

    box = json.loads(called("curl", "--silent", "-X", "POST", site))["data"]
    called("swaks", "--server", "127.0.0.1:2525", "--to", box["address"], "--from", "a@example.org", "--body", "kept")
    head = f"Authorization: Bearer {box['token']}"
    assert json.loads(called("curl", "--silent", "-H", head, f"{site}/{box['id']}/messages"))["data"]["count"] == 1


def stop(process: subprocess.Popen[bytes]) -> int:
    """TERM to the image's first process, as a container's runtime sends it; its exit status."""
    below = psutil.Process(process.pid).children(recursive=True)
    first = next((child for child in below if child.cmdline()[-3:] == ["-m", "server", "serve"]), None)
    if first is None:
        process.kill()
    else:
        first.terminate()
    return process.wait(60)


def run(host: Booted, name: str) -> str:
    """A block in the booted system; what it printed."""
    names = "".join(f"export {key}='{value}'\n" for key, value in NAMES.items())
    return host.run("sh", "-euc", names + block(name)).stdout


@pytest.mark.timeout(900)
def test_a_bare_debian_becomes_a_mail_server_by_the_page(root: Path, tmp_path: Path) -> None:
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
            host.run("systemctl", "reload", "tempmail")
            host.run("systemctl", "restart", "tempmail")
        assert len(run(host, "administrator").strip()) >= 16  # the password
    finally:
        host.stop()
