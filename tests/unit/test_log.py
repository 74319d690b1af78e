"""The log: what a line must never contain, exceed or raise."""

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import log, standard

Captured = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def _level() -> Iterator[None]:
    log.configure("info")
    yield
    log.configure("info")


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Captured:
    return lambda: [orjson.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_a_line_is_json_with_time_level_text_and_process(lines: Captured) -> None:
    log.event("info", "started", port=8080)
    (line,) = lines()
    assert list(line) == ["ts", "level", "msg", "pid", "port"]
    assert line["ts"].endswith("Z")
    assert (line["level"], line["msg"], line["pid"], line["port"]) == ("info", "started", os.getpid(), 8080)


def test_secrets_are_redacted_at_any_depth(lines: Captured) -> None:
    nested = {"Authorization": "Bearer s3cret", "list": [{"password": "s3cret"}]}
    log.event("error", "x", token="s3cret", access_token="s3cret", body=b"s3cret", request=nested, body_bytes=6)
    (line,) = lines()
    assert "s3cret" not in orjson.dumps(line).decode()
    assert line["token"] == line["request"]["Authorization"] == log.REDACTED
    assert line["body_bytes"] == 6


def test_lower_levels_are_dropped_and_unknown_ones_are_not(lines: Captured) -> None:
    log.configure("warning")
    for level in ("debug", "info", "warning", "error", "fatal"):
        log.event(level, "x")
    assert [line["level"] for line in lines()] == ["warning", "error", "fatal"]


class _Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("value", ["\ud800", 1 << 80, float("nan"), _Hostile(), {1: {2, 3}}, b"\xff", "a\nb\x00"])
def test_no_value_raises_or_breaks_the_line(lines: Captured, value: object) -> None:
    log.event("info", "x", value=value)
    assert len(lines()) == 1


@given(st.text(), st.dictionaries(st.text(), st.text() | st.integers() | st.binary() | st.none()))
def test_any_text_and_fields_make_one_whole_line(message: str, fields: dict[str, object]) -> None:
    line = log._line("info", message, fields)
    assert line.count(b"\n") == 1
    assert len(line) <= 4096
    assert orjson.loads(line)["level"] == "info"


def test_a_long_line_stays_whole_in_a_pipe_and_keeps_both_ends(lines: Captured) -> None:
    log.event("info", "x", trace="begin" + "…" * 9000 + "end")
    log.event("info", "y" * 9000, **{f"field{n}": "z" * 500 for n in range(100)})
    first, second = lines()
    assert first["trace"].startswith("begin")
    assert first["trace"].endswith("end")
    assert second["fields_dropped"] == 100
    assert all(len(orjson.dumps(line)) < 4096 for line in (first, second))


def test_a_field_cannot_displace_the_head(lines: Captured) -> None:
    log.event("info", "real", msg="false", pid=1)
    (line,) = lines()
    assert (line["msg"], line["msg_"], line["pid_"]) == ("real", "false", 1)


def test_a_closed_stderr_is_survived_and_reported(lines: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(standard, "_error", writer)
    log.event("info", "lost")
    log.event("info", "lost too")
    os.close(writer)
    monkeypatch.undo()
    log.event("info", "heard")
    (line,) = lines()
    assert line["lost_lines"] == 2


def test_lines_to_the_journal_carry_its_priority_and_others_do_not(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = os.fstat(2)
    for stream, expected in ((f"{here.st_dev}:{here.st_ino}", ["<4>{", "<3>{"]), ("1:2", ['{"ts', '{"ts'])):
        monkeypatch.setenv("JOURNAL_STREAM", stream)
        log.configure("info")
        log.event("warning", "slow")
        log.event("error", "broken")
        found = capfd.readouterr().err.splitlines()
        assert [line[: len(start)] for line, start in zip(found, expected, strict=True)] == expected


def test_what_libraries_warn_of_is_a_line_without_what_they_were_told(lines: Captured) -> None:
    log.configure("info")
    logging.getLogger("some.library").info("not to be heard")
    try:
        raise ConnectionRefusedError("s3cret")
    except OSError:
        logging.getLogger("some.library").warning("lost %s", "s3cret", exc_info=True)
    (line,) = lines()
    assert (line["level"], line["library"], line["said"]) == ("warning", "some.library", "lost %s")
    assert line["kind"] == "ConnectionRefusedError"
    assert "s3cret" not in str(line)


def test_what_libraries_say_of_connections_that_fail_is_left_to_the_line_about_the_outage(lines: Captured) -> None:
    log.configure("info")
    logging.getLogger("asyncpg.pool").warning("Failed to restore the pool connection floor; retrying")
    for library in ("asyncio", "aiormq.connection", "aiohttp.server", "redis"):
        try:
            raise ConnectionResetError
        except OSError:
            logging.getLogger(library).exception("Task exception was never retrieved")
    assert lines() == []
    try:
        raise ValueError
    except ValueError:
        logging.getLogger("asyncio").exception("a fault")
    assert len(lines()) == 1


def test_a_flood_of_one_message_is_cut_and_counted(lines: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(1000):
        log.event("error", "the same once more", n=n)
    log.event("error", "another")
    found = lines()
    assert len(found) == 21
    real = log.time.monotonic
    monkeypatch.setattr(log.time, "monotonic", lambda: real() + 61)
    log.event("error", "the same once more")
    (line,) = lines()
    assert line["repeated"] == 980
