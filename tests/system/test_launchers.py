"""A stranger's first minute: the checkout alone, in a folder and a home that hold nothing else.

The first start fetches and installs the locked wheels, which takes nearly all of the time here.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
BUILT: Final = "making .venv"
SECONDS: Final = 300.0


class Checkout:
    """A copy of what a commit of everything here would hold."""

    def __init__(self, folder: Path) -> None:
        self.root, self.home = folder / "a checkout", folder / "home"
        self.root.mkdir()
        self.home.mkdir()
        names = subprocess.run(
            ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            check=True,
            capture_output=True,
            timeout=60,
        ).stdout.decode()
        for name in filter(None, names.split("\0")):
            if (ROOT / name).is_file():
                target = self.root / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, target)

    def begin(self, *arguments: str, program: Path | None = None, cwd: Path | None = None) -> subprocess.Popen[str]:
        """Start the launcher with a home of its own and no trace of this test's interpreter."""
        kept = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
        return subprocess.Popen(
            [program or self.root / "tempmail", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd or self.home,
            env={**kept, "HOME": str(self.home)},
            start_new_session=True,
        )

    def run(self, *arguments: str, program: Path | None = None, cwd: Path | None = None) -> tuple[str, str]:
        """Its output and its messages, once it ended well."""
        process = self.begin(*arguments, program=program, cwd=cwd)
        out, err = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, err
        return out, err


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A checkout whose first start was cut short, and which two people then started at once."""
    checkout = Checkout(tmp_path_factory.mktemp("stranger"))
    interrupted = checkout.begin("--help")
    deadline = time.monotonic() + SECONDS
    while not (checkout.root / ".venv" / "pyvenv.cfg").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(interrupted.pid, 9)
    interrupted.communicate(timeout=SECONDS)
    starts = [checkout.begin("--help") for _ in range(2)]
    results = [start.communicate(timeout=SECONDS) for start in starts]
    assert [start.returncode for start in starts] == [0, 0], results
    assert sum(BUILT in err for _, err in results) == 1, "both built, or neither did"
    assert all("serve" in out for out, _ in results)
    yield checkout
    shutil.rmtree(checkout.root)


def test_later_starts_install_nothing(checkout: Checkout) -> None:
    before = (checkout.root / ".venv" / "requirements.txt").stat().st_mtime_ns
    out, err = checkout.run("--help")
    assert "serve" in out
    assert err == ""
    assert (checkout.root / ".venv" / "requirements.txt").stat().st_mtime_ns == before


def test_it_starts_through_a_link_from_anywhere(checkout: Checkout) -> None:
    link = checkout.home / "tm"
    link.symlink_to(checkout.root / "tempmail")
    assert checkout.run("--help", program=link, cwd=Path("/")) == checkout.run("--help")


def test_the_installed_wheels_are_the_locked_ones(checkout: Checkout) -> None:
    python = checkout.root / ".venv" / "bin" / "python"
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], check=True, capture_output=True, text=True, timeout=60
    ).stdout.split()
    extra = [name for name in listed if not name.startswith(("pip==", "setuptools=="))]
    locked = (checkout.root / "requirements.txt").read_text().lower().replace("_", "-")
    assert extra
    assert [name for name in extra if name.lower().replace("_", "-") not in locked] == []
    subprocess.run([python, "-m", "pip", "check"], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("tests/unit/test_repository.py",), False),
        (("tests/unit", "-k", "locked"), False),
        (("tests/contract", "tests/integration", "-k", "nothing_is_called_so"), False),
        (("tests/unit", "tests/system", "-k", "nothing_is_called_so"), True),
        (("tests/system/test_relays.py",), True),
        (("tests",), True),
        (("-k", "locked"), True),
    ],
)
def test_only_tests_of_the_system_need_packages(
    checkout: Checkout, tmp_path: Path, arguments: tuple[str, ...], wanted: bool
) -> None:
    """On a machine that has none of them, and where installing them cannot work."""
    (tmp_path / "dpkg-query").symlink_to("/bin/false")
    (tmp_path / "apt-get").symlink_to("/bin/false")
    (tmp_path / "debconf-set-selections").symlink_to("/bin/false")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(checkout.home)}
    command = [ROOT / "test", "--collect-only", "-q", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert ("apt-get install --no-install-recommends" in done.stderr) == wanted, done.stderr
    assert (done.returncode in (0, 5)) != wanted, done.stdout  # 5: nothing collected
