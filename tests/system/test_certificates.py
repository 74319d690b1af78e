"""A certificate that cannot be used: named at the start, and at a reload one line while the old workers go on."""

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path

from server.smtp import certificate
from tests.running import Server

OwnServer = Callable[..., Server]


async def test_a_broken_key_at_reload_is_one_line_and_changes_nothing(own_server: OwnServer, tmp_path: Path) -> None:
    pem = tmp_path / "mx.pem"
    pem.write_bytes(certificate.make("mx.example"))
    server = own_server(SMTP_TLS_CERT=str(pem), SMTP_TLS_KEY=str(pem), WORKERS="2")
    box, before = await server.mailbox(), {worker.pid for worker in server.workers()}
    good = pem.read_bytes()
    pem.write_bytes(good.replace(b"PRIVATE KEY", b"PRIVATE KEE"))
    assert server.process
    server.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(60):
        while "abandoned" not in server.log:
            await asyncio.sleep(0.1)
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    [line] = [line for line in lines if line["level"] in ("warning", "error")]
    assert line["reason"] == f"SMTP_TLS_KEY: {pem} holds no private key in PEM"
    assert "Traceback" not in server.log
    await server.deliver(box)
    assert {worker.pid for worker in server.workers()} == before
