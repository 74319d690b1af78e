"""Faults of the benchmark itself: wrong percentiles, omitted stalls, load on strangers, mail changed on its way out."""

import math
import random
import statistics
from array import array
from pathlib import Path
from xml.etree import ElementTree

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.clients.fleet import Seen
from bench.clients.postman import Sent
from bench.clients.smtp import wire_form
from bench.clients.ws import WebSocketError, frame_of
from bench.report.page import PageError, write_page
from bench.report.plots import bars
from bench.scenarios import recipes
from bench.scenarios.corpus_files import compare, compare_names, expectation, samples, split_mbox
from bench.scenarios.ws import PushError, Stream, judge
from bench.tools.processes import CpuTime
from bench.tools.stats import (
    Comparison,
    RandomSchedule,
    Schedule,
    cpu_ratio,
    histogram,
    mann_whitney,
    paired_ratio,
    percentile,
    summarise,
)
from bench.tools.target import TargetError, http_target, resolve, smtp_target

durations = st.lists(st.floats(min_value=1e-7, max_value=1e4, allow_nan=False), min_size=1, max_size=300)


def test_every_route_is_measured_and_one_without_a_recipe_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    recipes.check()
    monkeypatch.setattr(recipes, "RECIPES", recipes.RECIPES[1:])
    with pytest.raises(recipes.RecipeError, match="GET /"):
        recipes.check()


@pytest.mark.parametrize(
    ("fraction", "rank"), [(0.01, 1), (0.50, 50), (0.95, 95), (0.99, 99), (0.991, 100), (1.0, 100)]
)
def test_percentile_is_the_nearest_rank(fraction: float, rank: int) -> None:
    assert percentile(range(1, 101), fraction) == rank


@given(durations, st.floats(min_value=0.001, max_value=1.0))
def test_percentile_is_a_value_that_was_seen_and_covers_its_share(values: list[float], fraction: float) -> None:
    ordered = sorted(values)
    found = percentile(ordered, fraction)
    assert found in values
    assert sum(value <= found for value in values) >= math.floor(fraction * len(values))


def test_percentile_refuses_nothing_and_nonsense() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)
    with pytest.raises(ValueError, match="fraction"):
        percentile([1.0], 95)


def test_summary_of_nothing_is_zero_and_does_not_raise() -> None:
    assert summarise([]).count == 0


@given(durations)
def test_histogram_counts_every_value_once_and_in_its_bin(values: list[float]) -> None:
    bins = histogram(values)
    assert sum(entry.count for entry in bins) == len(values)
    assert [entry.upper for entry in bins] == sorted(entry.upper for entry in bins)
    assert bins[-1].upper == pytest.approx(max(values))


def test_histogram_of_equal_values_is_one_bin() -> None:
    assert [(entry.upper, entry.count) for entry in histogram([0.5, 0.5, 0.5])] == [(0.5, 3)]


def test_histogram_of_zeros_does_not_take_a_logarithm_of_zero() -> None:
    assert sum(entry.count for entry in histogram([0.0, 0.0, 1.0])) == 3


def test_ratio_pairs_runs_so_that_common_noise_cancels() -> None:
    assert paired_ratio([100.0, 50.0, 10.0], [50.0, 25.0, 5.0]) == 2.0


def test_ratio_refuses_runs_that_do_not_pair_or_did_nothing() -> None:
    with pytest.raises(ValueError, match="equally many"):
        paired_ratio([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="nothing"):
        paired_ratio([1.0], [0.0])


def test_cpu_ratio_is_unknown_rather_than_wrong() -> None:
    assert cpu_ratio([10.0, 20.0, 30.0], [40.0]) == 2.0
    assert cpu_ratio([], [1.0]) is None
    assert cpu_ratio([0.0], [1.0]) is None


def test_a_stall_is_charged_to_every_request_that_fell_due_in_it() -> None:
    """1 s without answers at 100/s: a closed loop would report one slow request, the schedule reports a hundred."""
    schedule = Schedule(0.0, 100.0, 2.0)
    latencies: list[float] = []
    sent = 0
    for now in (0.0, *(1.0 + tick * 0.01 for tick in range(101))):
        latencies += [now - schedule.time_of(number) for number in range(sent, schedule.due_by(now))]
        sent = schedule.due_by(now)
    assert sent == len(latencies) == schedule.total == 200
    assert sum(latency > 0.495 for latency in latencies) == 50
    assert statistics.fmean(latencies) == pytest.approx(0.25, rel=0.05)


@given(st.floats(min_value=0.5, max_value=1e5), st.floats(min_value=0.01, max_value=10), st.data())
def test_schedule_never_sends_early_and_never_more_than_all(rate: float, seconds: float, data: st.DataObject) -> None:
    schedule = Schedule(5.0, rate, seconds)
    now = data.draw(st.floats(min_value=0.0, max_value=30.0))
    due = schedule.due_by(now)
    assert 0 <= due <= schedule.total
    if due:
        assert schedule.time_of(due - 1) <= now + 1e-6
    if now >= 5.0 and due < schedule.total:
        assert schedule.time_of(due) > now - 1e-6


def test_schedule_refuses_a_rate_that_would_never_end() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Schedule(0.0, 0.0, 1.0)


@pytest.mark.parametrize("host", ["192.0.2.1", "10.0.0.1", "::ffff:192.0.2.1", "0.0.0.0", "169.254.1.1"])
def test_load_is_refused_on_hosts_that_are_not_this_one(host: str) -> None:
    with pytest.raises(TargetError, match="i-own-this-target"):
        resolve(host, 80, owned=False)
    assert resolve(host, 80, owned=True).port == 80


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_is_a_target(host: str) -> None:
    assert resolve(host, 2525, owned=False).host == host


def test_targets_are_parsed_once_and_for_all() -> None:
    assert http_target("http://127.0.0.1:8080/", owned=False).base_url == "http://127.0.0.1:8080"
    assert smtp_target("[::1]:2525", owned=False).port == 2525
    assert str(smtp_target("[::1]:2525", owned=False)) == "[::1]:2525"


@pytest.mark.parametrize("url", ["https://127.0.0.1", "127.0.0.1:8080", "http://127.0.0.1/v1", "http://"])
def test_what_the_generators_cannot_speak_to_is_refused(url: str) -> None:
    with pytest.raises(TargetError):
        http_target(url, owned=True)


@pytest.mark.parametrize("text", ["127.0.0.1", ":25", "127.0.0.1:smtp"])
def test_smtp_target_needs_host_and_port(text: str) -> None:
    with pytest.raises(TargetError):
        smtp_target(text, owned=True)


def test_cpu_time_between_two_readings() -> None:
    assert CpuTime(3.0, 1.0).since(CpuTime(1.0, 0.25)) == CpuTime(2.0, 0.75)


@given(st.binary(max_size=300))
def test_wire_form_cannot_end_data_early_and_loses_nothing(message: bytes) -> None:
    wire = wire_form(message)
    assert wire.endswith(b"\r\n")
    assert b"\r\n.\r\n" not in b"\r\n" + wire
    restored = b"\r\n".join(line.removeprefix(b".") for line in wire.split(b"\r\n"))
    assert restored.replace(b"\r\n", b"\n").removesuffix(b"\n") == message.replace(b"\r\n", b"\n").removesuffix(b"\n")


def test_mbox_is_split_at_from_lines_after_a_blank_line_only() -> None:
    box = b"From a\nSubject: 1\n\nbody\nFrom here on\n>From quoted\n\nFrom b\nSubject: 2\n\nend\n"
    first, second = split_mbox(box)
    assert first == b"Subject: 1\n\nbody\nFrom here on\nFrom quoted\n\n"
    assert second == b"Subject: 2\n\nend\n"


def test_samples_take_messages_and_leave_expectations_out(tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_bytes(b"Subject: x\n\nhello\n")
    (tmp_path / "a.expected.json").write_text('{"subject": "x", "attachments": [{"filename": "f.txt"}, "g"]}')
    (tmp_path / "notes").write_bytes(b"no header at all\n")
    found = list(samples(tmp_path, None))
    assert [sample.name for sample in found] == ["a.eml"]
    assert found[0].expected is not None
    assert found[0].expected.attachments == ("f.txt", "g")
    assert found[0].expected.text is None


def test_samples_follow_an_index(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"")
    (tmp_path / "two").write_bytes(b"From x\nA: b\n\nc\n")
    (tmp_path / "three").write_bytes(b"Subject: left out\n\n")
    index = tmp_path / "index"
    index.write_text("path\tkind\none\tmessage\ntwo\tmbox\nthree\tother\n")
    assert [(sample.name, sample.content) for sample in samples(tmp_path, index)] == [
        ("one", b""),
        ("two#0", b"A: b\n\nc\n"),
    ]


def test_a_parser_dump_is_read_as_expectation(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(
        '{"text_body": [1], "html_body": [], "attachments": [2], "parts": ['
        '{"headers": [{"name": "subject", "value": {"Text": "s"}}], "body": {"Multipart": [1, 2]}},'
        '{"headers": [], "body": {"Text": "t"}},'
        '{"headers": [{"name": "content_disposition", "value": {"ContentType": {"c_type": "attachment",'
        ' "attributes": [{"name": "filename", "value": "f.bin"}]}}}], "body": {"Binary": [1]}}]}'
    )
    found = expectation(tmp_path / "m.eml")
    assert found is not None
    assert (found.subject, found.text, found.attachments) == ("s", "t", ("f.bin",))


@pytest.mark.parametrize(
    ("expected", "found", "verdict"),
    [
        ("a\r\nb", "a\nb", "equal"),
        ("a b", "a  b\n", "equal but for white space"),
        ("né", "n\ufffd", "undecodable characters"),
        ("Fr\ufffdsche", "Frösche", "decoded, the expectation is not"),
        ("Fr\ufffdsche", "Hasen", "different"),
        ("a", "", "nothing found"),
        ("a", "a b", "more than expected"),
        ("a b", "a", "less than expected"),
        ("a", "b", "different"),
    ],
)
def test_differences_of_text_have_classes(expected: str, found: str, verdict: str) -> None:
    assert compare(expected, found) == verdict


@pytest.mark.parametrize(
    ("expected", "found", "verdict"),
    [
        (("a",), ("a",), "equal"),
        (("", "b"), ("x", "b"), "equal where named"),
        (("a",), ("b",), "other names"),
        (("Fr\ufffdsche", "b"), ("Frösche", "b"), "decoded, the expectation is not"),
        (("a",), (), "fewer attachments"),
        ((), ("a",), "more attachments"),
    ],
)
def test_differences_of_attachments_have_classes(
    expected: tuple[str, ...], found: tuple[str, ...], verdict: str
) -> None:
    assert compare_names(expected, found) == verdict


def test_samples_of_one_kind_are_not_told_apart_and_a_shift_is() -> None:
    dice = random.Random(7)
    first, second = ([dice.gauss(100, 10) for _ in range(2000)] for _ in range(2))
    alike = mann_whitney(first, second)
    assert abs(alike.effect) < 0.06
    assert alike.p > 0.01
    shifted = mann_whitney([value + 3 for value in first], second)
    assert shifted.effect > 0.1
    assert shifted.p < 1e-6
    assert mann_whitney(second, first).effect == pytest.approx(-alike.effect)


def test_ties_and_extremes_of_a_comparison() -> None:
    assert mann_whitney([1.0] * 20, [1.0] * 20) == Comparison(0.0, 1.0)
    assert mann_whitney([2.0] * 20, [1.0] * 20).effect == 1.0
    with pytest.raises(ValueError, match="20"):
        mann_whitney([1.0] * 19, [1.0] * 20)


def test_a_frame_of_the_server_is_taken_whole_or_not_at_all() -> None:
    payload = b"x" * 300
    frame = b"\x81\x7e\x01\x2c" + payload
    assert all(frame_of(frame[:size], 0) is None for size in range(len(frame)))
    assert frame_of(b"??" + frame + b"!", 2) == (payload, 2 + len(frame))
    for strange in (b"\x88\x02\x03\xf5", b"\x82\x01x", b"\x01\x01x", b"\x81\xff" + b"\xff" * 8):
        with pytest.raises(WebSocketError):
            frame_of(strange, 0)


@pytest.mark.parametrize(
    ("numbers", "subscribers", "complaint"),
    [
        ([0, 1], [5, 6], ""),
        ([0], [5], "frames missing"),
        ([0, 1, 1], [5, 6, 6], "the same mail twice"),
        ([0, 1], [5, 5], "someone else's mail"),
        ([0, 1, 9], [5, 6, 5], "someone else's mail"),
    ],
)
def test_push_is_judged_mail_by_mail(numbers: list[int], subscribers: list[int], complaint: str) -> None:
    sent = Sent(Schedule(0.0, 1.0, 2.0))
    sent.dot[:] = array("d", [1.0, 2.0])
    stream = Stream(0, [5, 6], sent, CpuTime(0.0, 0.0), 0.0, (0, 0))
    seen = Seen(array("q", numbers), array("q", subscribers), array("d", [3.0] * len(numbers)))
    if complaint:
        with pytest.raises(PushError, match=complaint):
            judge([stream], seen)
    else:
        assert judge([stream], seen) == [[2.0, 1.0]]


def _result(path: Path, finished: str, **variants: float) -> Path:
    """A result file of scenario ``smtp`` as the bench writes it."""
    receivers = {
        name: {"generator": name, "receivers": {"tempmail": {"rate": rate, "neighbours": 0.0}}}
        for name, rate in variants.items()
    }
    machine = {"cpu": "c", "cores": 2, "memory": 2**30, "kernel": "k", "filesystem": "ext4"}
    document = {"scenario": "smtp", "finished": finished, "command": "python -m bench smtp", "machine": machine}
    commit = {"id": "0" * 40, "dirty": False}
    path.write_bytes(orjson.dumps(document | {"commit": commit, "versions": {}, "result": receivers}))
    return path


def test_page_shows_every_file_it_is_given_with_its_plots(tmp_path: Path) -> None:
    first = _result(tmp_path / "a.json", "2026-01-01T00:00:00Z", kept=7000.0)
    second = _result(tmp_path / "b.json", "2026-01-02T00:00:00Z", single=3000.0)
    page = tmp_path / "page.md"
    assert write_page([first, second], page) == 2
    text = page.read_text()
    assert "7,000" in text
    assert "3,000" in text
    for name in ("smtp-kept-rates.svg", "smtp-single-rates.svg"):
        assert f"page/{name}" in text
        assert ElementTree.parse(tmp_path / "page" / name).getroot().tag.endswith("svg")


def test_page_keeps_the_plots_of_two_files_of_one_scenario_apart(tmp_path: Path) -> None:
    rates = (7000.0, 1800.0)
    files = [_result(tmp_path / f"{rate}.json", "2026-01-01T00:00:00Z", kept=rate) for rate in rates]
    write_page(files, tmp_path / "page.md")
    for name, shown in (("smtp-kept-rates.svg", "7,000"), ("smtp-kept-rates-2.svg", "1,800")):
        assert f"page/{name}" in (tmp_path / "page.md").read_text()
        assert shown in (tmp_path / "page" / name).read_text()


def test_page_refuses_what_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"scenario": "smtp"}')
    with pytest.raises(PageError, match=r"x\.json"):
        write_page([tmp_path / "x.json"], tmp_path / "page.md")


def test_bars_cannot_be_broken_by_a_name() -> None:
    drawn = ElementTree.fromstring(bars("<a> & 'b'", [("<script>", 1.0, "1"), ("nothing", 0.0, "0")]))
    assert "<script>" in "".join(drawn.itertext())


def test_random_schedule_has_its_rate_and_its_seed() -> None:
    schedule, again = (RandomSchedule(5.0, 1000.0, 10.0, seed=3) for _ in range(2))
    assert schedule.total == 10_000
    assert schedule.time_of(9_999) == again.time_of(9_999) == pytest.approx(15.0, abs=0.5)
    assert schedule.due_by(4.9) == 0
    assert schedule.due_by(schedule.time_of(42)) == 43
