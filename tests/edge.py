"""A real nginx with the configuration of ``nginx/``, edited where an operator edits it: names, certificate, addresses.

Knows the product only from outside. Everything nginx writes lies in one folder, so that a test can search all of it.
"""

import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.ports import free_ports
from tests.running import ROOT

_NGINX = "/usr/sbin/nginx"
_PLACES = ("cache", "logs", "temporary", "tls", "acme")


MAIL: Final = {r"#(stream \{)\n#(.*)\n#(\})": r"\1\n\2\n\3"}
"""The change that passes mail on, too: the comment signs are gone from the block of the stream."""


class Edge:
    """nginx in front of ``servers``, and of ``live`` where what stays open is elsewhere, below ``folder``.

    A server is what stands behind that word in an upstream block, parameters included. ``changes`` maps further texts
    of the configuration to what replaces them.
    """

    def __init__(
        self,
        folder: Path,
        servers: Sequence[str],
        live: Sequence[str] = (),
        changes: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.conf = folder / "etc"
        self.plain_port, self.port, self.smtp_port = free_ports(3)
        self.base, self.plain = f"https://localhost:{self.port}", f"http://localhost:{self.plain_port}"
        shutil.copytree(ROOT / "nginx", self.conf)
        for place in _PLACES:
            (folder / place).mkdir()
        self._certify()
        self._edit(changes or {})
        (self.conf / "tempmail" / "servers.conf").write_text(_listed(servers))
        if live:
            (self.conf / "tempmail" / "servers-live.conf").write_text(_listed(live))
        self.process: subprocess.Popen[bytes] | None = None
        self.trust = ssl.create_default_context(cafile=folder / "tls" / "fullchain.pem")

    def _certify(self) -> None:
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        key = ["-newkey", "rsa:2048", "-nodes", "-keyout", self.folder / "tls" / "privkey.pem"]
        command = ["openssl", "req", "-x509", "-days", "2", *key, "-out", self.folder / "tls" / "fullchain.pem", *names]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def _edit(self, changes: Mapping[str, str]) -> None:
        folder = str(self.folder)
        edits = {
            r"^user www-data;": "user root;",
            r"^pid .*": f"pid {folder}/pid;",
            r"/var/log/nginx/": f"{folder}/logs/",
            r"/var/cache/nginx/": f"{folder}/cache/",
            r"/etc/ssl/tempmail/": f"{folder}/tls/",
            r"/var/www/acme": f"{folder}/acme",
            r"mail\.example\.net": "localhost",
            r"(listen (?:\[::\]:)?)80\b": rf"\g<1>{self.plain_port}",
            r"(listen (?:\[::\]:)?)443\b": rf"\g<1>{self.port}",
            r"(listen (?:\[::\]:)?)25\b": rf"\g<1>{self.smtp_port}",
            r"^http \{": f"http {{\n{_temporary(folder)}",
        } | dict(changes)
        for path in self.conf.rglob("*.conf"):
            text = path.read_text()
            for pattern, becomes in edits.items():
                text = re.sub(pattern, becomes, text, flags=re.MULTILINE)
            path.write_text(text)

    def start(self) -> "Edge":
        command = [
            _NGINX,
            "-c",
            self.conf / "nginx.conf",
            "-e",
            self.folder / "logs" / "start.log",
            "-g",
            "daemon off;",
        ]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.02)
        raise AssertionError(f"nginx did not start: {(self.folder / 'logs' / 'start.log').read_text()}")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def session(self, **options: Any) -> aiohttp.ClientSession:
        """A client that trusts the certificate; ``options`` are its connector's."""
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.trust, **options))

    def written(self, *places: str) -> dict[Path, bytes]:
        """Every file nginx has made below these places of its folder (all that hold what it was asked and answered)."""
        found = [
            path for place in places or ("cache", "logs", "temporary") for path in (self.folder / place).rglob("*")
        ]
        return {path: path.read_bytes() for path in found if path.is_file()}

    def complaints(self) -> list[str]:
        """What its logs have of answers that failed, and of servers that did not answer."""
        lines = [line for text in self.written("logs").values() for line in text.decode(errors="replace").splitlines()]
        return [line for line in lines if '"status":5' in line or "[error]" in line or "[warn]" in line]


def _temporary(folder: str) -> str:
    return f"    client_body_temp_path {folder}/temporary;\n    proxy_temp_path {folder}/temporary;"


def _listed(servers: Sequence[str]) -> str:
    return "".join(f"server {server};\n" for server in servers)
