"""What stops a start is said in a sentence that leads to its cause, and at once where waiting would not help."""

import asyncio
import errno
import socket

import pytest

from server.config.settings import ConfigError
from server.store import embedded, migrate
from server.store.pools import SCHEMAS
from server.supervisor import _last_words


def test_a_host_that_dns_does_not_know_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    async def unknown(*_: object, **__: object) -> None:
        nonlocal asked
        asked += 1
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(migrate, "connect", unknown)
    dsns = dict.fromkeys(SCHEMAS, "postgresql://tempmail@databse.example/tempmail")
    with pytest.raises(migrate.MigrationError, match=r"databse.example.* DNS knows no such host; is it spelt right\?"):
        asyncio.run(migrate.check(dsns, 3600, lambda why: pytest.fail(why)))
    assert asked == 1


def test_a_dns_that_is_away_for_now_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def later(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(migrate, "connect", later)
    told: list[str] = []
    dsns = dict.fromkeys(SCHEMAS, "postgresql://tempmail@database.example/tempmail")
    with pytest.raises(migrate.MigrationError, match="Temporary failure"):
        asyncio.run(migrate.check(dsns, 0.1, told.append))
    assert len(told) <= 1


def test_a_full_disk_is_not_taken_for_a_lack_of_rights() -> None:
    assert "make room" in embedded._advice(OSError(errno.ENOSPC, "No space left on device"))
    assert "write" in embedded._advice(PermissionError(errno.EACCES, "Permission denied"))
    assert embedded._advice(OSError(errno.EIO, "Input/output error")) == ""


def test_what_an_operator_can_mend_is_one_line_without_a_traceback() -> None:
    assert _last_words(ConfigError("SMTP_TLS_KEY: x holds no private key")) == b"SMTP_TLS_KEY: x holds no private key\n"
    with pytest.raises(ZeroDivisionError) as fault:
        _ = 1 // 0
    assert b"Traceback" in _last_words(fault.value)
