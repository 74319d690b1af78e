"""What follows from the findings about a node, with clocks handed in: no flapping, and no "ok" over refused mail."""

import socket
from math import inf

import asyncpg
import pytest

from server import log
from server.model import health
from server.outages import DATABASE
from server.shards.condition import Condition, Outcomes
from server.shards.readiness import FRESH, HELD, PROBE_KEPT, SLOW, SUCCESSION, commits, workers
from server.store.pools import NO_ANSWER, away, spoken

NOW = 10_000.0
FULL = "the disk is full"


def failing(ago: float, failures: int, **more: float) -> Outcomes:
    return Outcomes(failed=NOW - ago, failures=failures, reason=FULL, **more)  # type: ignore[arg-type]


def test_a_recent_commit_needs_no_probe_and_an_old_one_does() -> None:
    assert commits([Outcomes(succeeded=NOW - FRESH + 1)], NOW) == health.OK
    assert commits([Outcomes(succeeded=NOW - FRESH - 1)], NOW) is None
    assert commits([Outcomes()], NOW) is None


def test_two_commits_that_failed_in_a_row_are_believed_over_a_probe_that_went_well() -> None:
    sound = Outcomes(asked=NOW - 0.2, answered=NOW - 0.1, sound=NOW - 0.1)
    found = commits([failing(1, 2), sound], NOW)
    assert found is not None
    assert FULL in found
    assert health.level(found) == 2


def test_one_commit_that_failed_is_asked_about_and_no_reason_to_be_away() -> None:
    before = Outcomes(asked=NOW - 2, answered=NOW - 1.9, sound=NOW - 1.9)
    after = Outcomes(asked=NOW - 0.5, answered=NOW - 0.4, sound=NOW - 0.4)
    assert commits([failing(1, 1), before], NOW) is None
    assert commits([failing(1, 1), before, after], NOW) == health.OK


def test_failures_are_those_of_all_workers_and_any_success_behind_them_ends_them() -> None:
    assert commits([failing(2, 1), failing(1, 1)], NOW) == f"mail cannot be stored: {FULL}"
    assert commits([failing(2, 5), failing(1, 5), Outcomes(succeeded=NOW - 0.5)], NOW) == health.OK


def test_old_failures_leave_the_word_to_a_probe() -> None:
    row = failing(HELD + 1, 5)
    refused = Outcomes(asked=NOW - 0.5, answered=NOW - 0.4, reason=FULL)
    sound = refused._replace(sound=refused.answered)
    assert commits([row], NOW) is None
    assert commits([row, refused], NOW) == f"a write was refused: {FULL}"
    assert commits([row, sound], NOW) == health.OK


def test_a_probe_is_kept_for_a_while_and_one_that_failed_only_for_a_moment() -> None:
    for sound, kept in ((True, PROBE_KEPT - 1), (False, 0.5)):
        row = Outcomes(asked=NOW - kept - 0.1, answered=NOW - kept, sound=NOW - kept if sound else 0.0)
        assert commits([row], NOW) is not None
        assert commits([row], NOW + 2) is None


def test_a_database_that_is_slow_for_a_moment_takes_no_node_away_and_one_that_stays_silent_does() -> None:
    silent = Outcomes(succeeded=NOW - SLOW + 1, asked=NOW - 2, answered=NOW - 0.1, reason=NO_ANSWER)
    assert health.level(commits([silent], NOW) or "") == 1
    assert health.level(commits([silent._replace(succeeded=NOW - SLOW - 1)], NOW) or "") == 2
    assert health.level(commits([silent._replace(reason=FULL)], NOW) or "") == 2


def test_a_node_serves_once_every_slot_has_been_served_and_bears_a_short_succession() -> None:
    condition = Condition(slots=2, columns=3)
    condition.serve(0, True, NOW)
    condition.serve(1, False, NOW)
    assert condition.vacancies(NOW) == [0.0, inf]
    assert health.level(workers(condition.vacancies(NOW))) == 2
    condition.serve(1, True, NOW)
    assert workers(condition.vacancies(NOW)) == health.OK
    condition.serve(1, False, NOW + 1)
    condition.serve(1, False, NOW + 2)
    assert workers(condition.vacancies(NOW + 2)) == "degraded: 1 of 2 serve"
    assert workers(condition.vacancies(NOW + 2 + SUCCESSION)) == "1 of 2 serve"
    condition.serve(1, True, NOW + 9)
    assert workers(condition.vacancies(NOW + 9)) == health.OK


def test_rows_of_the_workers_are_their_own_and_a_successor_begins_with_nothing() -> None:
    condition = Condition(slots=1, columns=2)
    condition.failed(0, 5.0, "x" * 200)
    condition.failed(0, 6.0, FULL)
    condition.probed(0, 7.0, 8.0, "")
    condition.committed(1, 9.0)
    first, second = condition.outcomes()
    assert first == Outcomes(failed=6.0, failures=2, asked=7.0, answered=8.0, sound=8.0, reason=FULL)
    assert second == Outcomes(succeeded=9.0)
    condition.committed(0, 10.0)
    assert condition.outcomes()[0][:3] == (10.0, 0.0, 0)
    condition.begin(0)
    assert condition.outcomes()[0] == Outcomes()


@pytest.mark.parametrize(
    ("checks", "status"),
    [
        ({"a": "ok", "b": "ok"}, "ok"),
        ({"a": "ok", "b": health.degraded("x")}, "degraded"),
        ({"a": "gone", "b": health.degraded("x")}, "unavailable"),
        ({"a": health.lessened("gone"), "b": health.lessened("ok")}, "degraded"),
    ],
)
def test_a_node_is_as_well_as_its_worst_part(checks: dict[str, str], status: str) -> None:
    assert health.status(checks) == status


def test_findings_are_shared_and_an_older_question_never_replaces_a_newer_answer() -> None:
    condition = Condition(slots=2, columns=4)
    assert condition.findings() is None
    condition.publish(5.0, 6.0, {"database": "ok"})
    condition.publish(4.0, 7.0, {"database": "no answer in time"})  # it asked before, and waited for longer
    assert condition.findings() == (5.0, 6.0, {"database": "ok"})
    condition.publish(8.0, 9.0, {"database": "x" * 3000, "commits": "é" * 1000, "migrations": "ok"})
    found = condition.findings()
    assert found is not None
    assert (found.checks["migrations"], len(found.checks["database"])) == ("ok", 400)


def test_findings_that_are_half_written_count_as_none() -> None:
    condition = Condition(slots=2, columns=4)
    condition.publish(5.0, 6.0, {"database": "ok"})
    condition._page[30:32] = b"##"
    assert condition.findings() is None
    condition.publish(7.0, 8.0, {"database": "ok"})
    assert condition.findings() == (7.0, 8.0, {"database": "ok"})


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (asyncpg.TargetServerAttributeNotMatched("None of the hosts match"), "no host of the DSN takes writes"),
        (asyncpg.AdminShutdownError("x"), "shut down"),
        (asyncpg.CrashShutdownError("x"), "crash"),
        (asyncpg.ConnectionDoesNotExistError("x"), "connection lost"),
        (ConnectionResetError(), "connection lost"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "host name cannot be resolved"),
        (asyncpg.InvalidAuthorizationSpecificationError("no pg_hba.conf entry for jane"), "does not let this user in"),
        (TimeoutError(), NO_ANSWER),
    ],
)
def test_an_outage_is_explained_in_plain_words_without_names(error: Exception, words: str) -> None:
    assert words in spoken(error)
    assert type(error).__name__ not in spoken(error)
    assert "jane" not in spoken(error)


def test_a_promotion_that_has_not_come_yet_is_said_without_the_drivers_options(
    capfd: pytest.CaptureFixture[str],
) -> None:
    log.configure("info")
    text = "None of the hosts match the target attribute requirement SessionAttribute.read_write"
    assert away(asyncpg.TargetServerAttributeNotMatched(text))
    DATABASE.back()
    lost = capfd.readouterr().err.splitlines()[0]
    assert "no replica was promoted yet" in lost
    assert "SessionAttribute" not in lost
