"""A real systemd, process 1 of namespaces of its own: own processes, mounts, cgroup and network, over an overlay of
this machine's root, or of another. What a test installs and runs there is gone with it; ports and paths are those of
production.

Needs root. Over this machine's root the checkout lies at /opt/tempmail, read-only, as the units expect it.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from tests.running import ROOT

# Everything is mounted in the new mount namespace alone; the kernel's own (/sys, /proc/sys) can only be read, as in
# a container, so nothing that boots in there changes the machine. The cgroup namespace makes the group that the
# script was put into the root of the hierarchy that the new systemd sees.
_SCRIPT: Final = """\
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs "$FOLDER"
mkdir "$FOLDER/upper" "$FOLDER/work" "$FOLDER/root"
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$FOLDER/root"
cd "$FOLDER/root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmpfs dev/shm
if [ "$LOWER" = / ]; then
    rm -rf etc/systemd/system etc/systemd/network
fi
mkdir -p etc/systemd/system opt/tempmail before
if [ "$LOWER" = / ]; then
    mount --bind "$CHECKOUT" opt/tempmail
    mount -o remount,bind,ro opt/tempmail
fi
pivot_root . before
cd /
umount -l /before
export container=test
exec /lib/systemd/systemd --system --unit=$UNIT --show-status=0 --log-target=journal
"""


def _cgroups() -> Path:
    """Where the second version's hierarchy is mounted (cgroups(7))."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise AssertionError("no cgroup2 hierarchy is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")


class Booted:
    """The running system; ``folder`` takes its overlay of ``lower``, ``unit`` is what it boots into."""

    def __init__(self, folder: Path, lower: Path = Path("/"), unit: str = "basic.target") -> None:
        self._folder = folder
        self._group = _cgroups() / f"tempmail-test-{os.getpid()}"
        self._group.mkdir()
        inside = ["unshare", "--pid", "--fork", "--mount", "--cgroup", "--uts", "--ipc", "--net", "--kill-child"]
        join = 'echo $$ >"$GROUP/cgroup.procs"; exec "$@"'
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "FOLDER": str(folder), "CHECKOUT": str(ROOT)}
        environment |= {"LOWER": str(lower), "UNIT": unit}
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", join, "sh", *inside, "/bin/sh", "-c", _SCRIPT],
            env=environment | {"GROUP": str(self._group)},
            stdin=subprocess.DEVNULL,
        )
        self._first = 0
        self._await_boot()

    def _await_boot(self) -> None:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and self._process.poll() is None:
            children = psutil.Process(self._process.pid).children()
            if children and children[0].name() == "systemd":
                self._first = children[0].pid
                state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
                if state in ("running", "degraded"):
                    return
            time.sleep(0.1)
        self.stop()
        raise AssertionError("systemd did not boot in namespaces of its own")

    def run(self, *command: str | Path, check: bool = True, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in there, as root; what it printed, on failure in the error."""
        enter = ["nsenter", f"--target={self._first}", "--all", "--root", "--wd=/", "--", *command]
        done = subprocess.run(enter, input=text, capture_output=True, text=True, timeout=120, check=False)
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done

    def write(self, path: str, content: str) -> None:
        self.run("/bin/sh", "-c", 'mkdir -p "$(dirname "$1")" && cat >"$1"', "sh", path, text=content)

    def property(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()

    def journal(self, *options: str) -> str:
        return self.run("journalctl", "--no-pager", "--output=cat", *options, check=False).stdout

    def until(self, command: Sequence[str], wanted: str, seconds: float = 120) -> None:
        """Wait until a command prints ``wanted`` alone."""
        deadline = time.monotonic() + seconds
        while (found := self.run(*command, check=False).stdout.strip()) != wanted:
            assert time.monotonic() < deadline, (command, found, self.journal("--lines=60"))
            time.sleep(0.1)

    def stop(self) -> None:
        """Kill process 1 and with it everything in there."""
        if self._first:
            psutil.Process(self._first).kill()
        else:
            self._process.kill()
        self._process.wait(60)
        deadline = time.monotonic() + 60
        while self._group.exists():
            try:
                for group in sorted(self._group.rglob("*/"), reverse=True):
                    group.rmdir()
                self._group.rmdir()
            except OSError:  # the last processes are still on their way out
                assert time.monotonic() < deadline, "processes stay"
                time.sleep(0.1)
        shutil.rmtree(self._folder, ignore_errors=True)
