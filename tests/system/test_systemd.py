"""The units of ``systemd/`` under a real systemd with all as in production: user, sandbox, paths, ports, nginx."""

import json
import re
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.booted import Booted
from tests.running import ROOT

UNITS: Final = ("tempmail.service", "tempmail@.service")
DIFFER: Final = ("Description", "Environment", "EnvironmentFile", "RuntimeDirectory", "SyslogIdentifier", "Memory")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """A booted system with tempmail and its nginx installed, as an operator installs them."""
    booted = Booted(tmp_path_factory.mktemp("booted"))
    try:
        install(booted)
        yield booted
    finally:
        booted.stop()


def install(host: Booted) -> None:
    source = "/opt/tempmail"
    for unit in UNITS:
        host.run("cp", f"{source}/systemd/{unit}", "/etc/systemd/system/")
    for kind in ("sysusers", "tmpfiles"):
        host.run("mkdir", "-p", f"/etc/{kind}.d")
        host.run("cp", f"{source}/systemd/{kind}.d/tempmail.conf", f"/etc/{kind}.d/")
        host.run(f"systemd-{kind}", *(["--create"] if kind == "tmpfiles" else []), f"/etc/{kind}.d/tempmail.conf")
    host.write("/etc/tempmail/tempmail.env", "TEMPMAIL_WORKERS=2\nTEMPMAIL_MAILBOX_ALLOWED_DOMAINS=temp.mail\n")
    host.run("cp", "-r", f"{source}/nginx/.", "/etc/nginx/")  # over what Debian put there
    host.run("sed", "-i", "s/mail.example.net/localhost/", "/etc/nginx/tempmail.conf")
    host.run("mkdir", "-p", "/etc/ssl/tempmail")
    key = ["-newkey", "rsa:2048", "-nodes", "-keyout", "/etc/ssl/tempmail/privkey.pem"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    host.run("openssl", "req", "-x509", *key, "-out", "/etc/ssl/tempmail/fullchain.pem", *name)
    host.run("systemctl", "daemon-reload")


def workers(host: Booted, unit: str = "tempmail") -> set[str]:
    main = host.property(unit, "MainPID")
    found = host.run("pgrep", "--parent", main, "--full", "server serve", check=False).stdout.split()
    return set(found)


def curl(host: Booted, *options: str) -> str:
    command = ["curl", "-sS", "--max-time", "20", "--cacert", "/etc/ssl/tempmail/fullchain.pem", *options]
    return host.run(*command).stdout


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_valid_and_its_exposure_is_what_it_says(unit: str, tmp_path: Path) -> None:
    path = tmp_path / unit.replace("@.", "@web.")
    text = (ROOT / "systemd" / unit).read_text()
    path.write_text(text.replace("/opt/tempmail/", f"{ROOT}/"))
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=16", "--no-pager", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert re.search(r"Overall exposure level for \S+: 1\.6 OK", done.stdout)
    assert "1.6, OK" in (ROOT / "systemd" / "tempmail.service").read_text()


def test_the_two_units_differ_only_in_what_an_instance_is_called() -> None:
    plain, template = (settings(ROOT / "systemd" / unit) for unit in UNITS)
    assert plain == template


def settings(unit: Path) -> list[str]:
    lines = [line for line in unit.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return [line for line in lines if not line.startswith(DIFFER)]


def test_it_starts_sandboxed_and_serves_mail_and_https_as_in_production(host: Booted) -> None:
    host.run("systemctl", "start", "tempmail")  # which returns when READY=1 has come
    assert host.property("tempmail", "ActiveState") == "active"
    assert host.property("tempmail", "StatusText") == "2 workers"
    main = host.property("tempmail", "MainPID")
    status = host.run("cat", f"/proc/{main}/status").stdout
    uid = host.run("id", "-u", "tempmail").stdout.strip()
    assert re.search(rf"^Uid:\t{uid}\t{uid}\t", status, re.MULTILINE)
    assert re.search(r"^CapEff:\t0000000000000400$", status, re.MULTILINE)  # CAP_NET_BIND_SERVICE and nothing else
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE)
    assert host.run("stat", "-c", "%A %U %G", "/run/tempmail").stdout == "drwxr-x--- tempmail tempmail\n"
    host.run("nginx")
    box = json.loads(curl(host, "-X", "POST", "https://localhost/v1/mailboxes"))["data"]
    host.run("swaks", "--server", "127.0.0.1:25", "--to", box["address"], "--from", "a@example.org", "--body", "kept")
    page = curl(
        host, "-H", f"Authorization: Bearer {box['token']}", f"https://localhost/v1/mailboxes/{box['id']}/messages"
    )
    assert json.loads(page)["data"]["count"] == 1
    raw = "From: a@example.org\nContent-Type: multipart/mixed; boundary=b\n\n" + "--b\n\nx\n" * 900 + "--b--\n"
    host.write("/tmp/letter.json", json.dumps({"raw": raw}))
    url = f"https://localhost/v1/mailboxes/{box['id']}/messages"
    made = curl(host, "-H", f"Authorization: Bearer {box['token']}", "-d", "@/tmp/letter.json", url)
    assert json.loads(made)["code"] == 201, made
    register = json.dumps({"email": "a@example.org", "password": "correct horse battery"})
    assert json.loads(curl(host, "-d", register, "https://localhost/v1/auth/register"))["code"] == 201


def test_its_memory_and_descriptors_are_bounded(host: Booted) -> None:
    """In the kernel where the new system has a memory controller: it lacks one where the older hierarchy holds it."""
    limits = {"memory.high": ("MemoryHigh", 0.45), "memory.max": ("MemoryMax", 0.60)}
    controllers = host.run("cat", "/sys/fs/cgroup/cgroup.controllers").stdout.split()
    for name, (known_as, share) in limits.items():
        bytes_ = int(host.property("tempmail", known_as))
        assert bytes_ == pytest.approx(psutil.virtual_memory().total * share, rel=0.01)
        if "memory" in controllers:
            group = "/sys/fs/cgroup" + host.property("tempmail", "ControlGroup")
            assert int(host.run("cat", f"{group}/{name}").stdout) == pytest.approx(bytes_, abs=resource.getpagesize())
    allowed = min(262144, resource.getrlimit(resource.RLIMIT_NOFILE)[1])  # no more than this machine allows at all
    for process in (host.property("tempmail", "MainPID"), *workers(host)):
        limited = host.run("cat", f"/proc/{process}/limits").stdout
        assert re.search(rf"^Max open files +{allowed} +{allowed}", limited, re.MULTILINE)
        assert re.search(r"^Max core file size +0 +0", limited, re.MULTILINE)


def test_the_first_administrator_is_made_beside_the_running_service(host: Booted) -> None:
    """Its /tmp, and with it the socket of its PostgreSQL, is another than the operator's (PrivateTmp=)."""
    word, data = "correct horse battery", "TEMPMAIL_DATA_DIR=/var/lib/tempmail"
    host.run("env", data, "/opt/tempmail/tempmail", "admin", "create", "root@example.org", text=f"{word}\n")
    login = json.dumps({"email": "root@example.org", "password": word})
    assert json.loads(curl(host, "-d", login, "https://localhost/v1/auth/login"))["code"] == 200


def test_nothing_in_it_ran_against_the_sandbox(host: Booted) -> None:
    lines = [json.loads(line) for line in host.journal("-u", "tempmail").splitlines() if line.startswith("{")]
    assert {line["msg"] for line in lines} >= {"worker started", "worker ready"}
    assert [line for line in lines if line["level"] in ("warning", "error")] == []
    assert host.journal("-u", "tempmail", "-p", "warning", "-t", "tempmail") == ""


def test_reload_replaces_the_workers_and_comes_back_to_ready(host: Booted) -> None:
    before, main = workers(host), host.property("tempmail", "MainPID")
    assert len(before) == 2
    host.run("systemctl", "reload", "tempmail")
    host.until(["systemctl", "show", "--value", "--property=ActiveState", "tempmail"], "active")
    host.until(["/bin/sh", "-c", f"kill -0 {' '.join(before)} 2>/dev/null; echo $?"], "1")
    assert len(workers(host)) == 2
    assert not workers(host) & before
    assert host.property("tempmail", "MainPID") == main
    assert json.loads(curl(host, "https://localhost/health/ready"))["status"] == "ok"


# Connects until it is told to end, and counts who was refused; who waits gets its greeting from the successor.
_KNOCK: Final = """
import pathlib, socket, time
refused = greeted = 0
while not pathlib.Path("/tmp/enough").exists():
    try:
        with socket.create_connection(("127.0.0.1", 25), timeout=60) as client:
            greeted += client.recv(4) == b"220 "
    except ConnectionRefusedError:
        refused += 1
    except ConnectionResetError:
        pass
    time.sleep(0.01)
pathlib.Path("/tmp/counted").write_text(f"{refused} {greeted}")
"""


def test_restart_refuses_nobody(host: Booted) -> None:
    host.write("/tmp/knock.py", _KNOCK)
    host.run("systemd-run", "--unit=knock", "python3", "/tmp/knock.py")
    for _ in range(2):
        host.run("systemctl", "restart", "tempmail")
    host.run("touch", "/tmp/enough")
    host.until(["systemctl", "is-active", "knock"], "inactive")
    refused, greeted = map(int, host.run("cat", "/tmp/counted").stdout.split())
    assert refused == 0
    assert greeted > 0
    assert host.property("tempmail", "NFileDescriptorStore") == "4"
    assert json.loads(curl(host, "https://localhost/health/ready"))["status"] == "ok"


def test_a_supervisor_that_hangs_or_is_killed_is_started_again(host: Booted) -> None:
    host.write("/run/systemd/system/tempmail.service.d/test.conf", "[Service]\nWatchdogSec=5s\nRestartSec=100ms\n")
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "restart", "tempmail")
    for number, signal in enumerate(("STOP", "KILL"), start=1):
        host.run("kill", f"-{signal}", host.property("tempmail", "MainPID"))
        host.until(["systemctl", "show", "--value", "--property=NRestarts", "tempmail"], str(number))
        host.until(["systemctl", "is-active", "tempmail"], "active")
        assert len(workers(host)) == 2
    assert "Watchdog timeout" in host.journal("-u", "tempmail", "-t", "systemd")
    assert json.loads(curl(host, "https://localhost/health/ready"))["status"] == "ok"


def test_a_warning_is_found_by_its_priority(host: Booted) -> None:
    for worker in workers(host):
        host.run("kill", "-KILL", worker)
        break
    host.until(["/bin/sh", "-c", "journalctl -u tempmail -p err -o cat --no-pager | grep -c 'worker died'"], "1")


def test_stop_drains_and_leaves_nothing_running(host: Booted) -> None:
    host.run("systemctl", "stop", "tempmail")
    assert host.property("tempmail", "Result") == "success"
    assert host.property("tempmail", "ExecMainStatus") == "0"
    assert host.run("pgrep", "-u", "tempmail", check=False).stdout == ""
    assert host.run("ls", "/run/tempmail", check=False).returncode != 0


def test_an_instance_does_its_role_alone(host: Booted) -> None:
    host.run("systemctl", "start", "tempmail@web")
    assert host.run("ls", "/run/tempmail-web").stdout.split() == ["http.sock.0", "http.sock.1"]
    local = ["--unix-socket", "/run/tempmail-web/http.sock.0", "http://localhost"]
    assert json.loads(curl(host, *local[:2], f"{local[2]}/v1/public/domains"))["code"] == 200
    refused = host.run("swaks", "--server", "127.0.0.1:25", "--quit-after", "BANNER", check=False)
    assert refused.returncode != 0
    host.run("systemctl", "stop", "tempmail@web")
    assert host.property("tempmail@web", "Result") == "success"
