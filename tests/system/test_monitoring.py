"""deploy/monitoring against the real thing: promtool, a Prometheus that scrapes a working server, every query asked."""

import asyncio
import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from websockets.asyncio.client import connect

from tests.ports import free_ports
from tests.running import Server

FOLDER: Final = Path(__file__).parents[2] / "deploy" / "monitoring"
DASHBOARD: Final = json.loads((FOLDER / "grafana.json").read_text())
QUERIES: Final = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]
RULES: Final = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
ELSEWHERE: Final = ("tempmail_database_replica_lag_seconds", "tempmail_queue_messages")
"""Figures that an installation without replicas or a broker has no values of."""

SCRAPES: Final = 6


def test_promtool_finds_no_fault() -> None:
    for check in (
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ):
        done = subprocess.run(["promtool", *check], cwd=FOLDER, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_is_shown_to_fire_and_to_stay_silent() -> None:
    tests = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    shown = {
        (case["alert_rule_test"][0]["alertname"], bool(case["alert_rule_test"][0]["exp_alerts"])) for case in tests
    }
    assert shown == {(rule["alert"], fires) for rule in RULES for fires in (True, False)}


def test_every_rule_has_its_place_in_the_runbook() -> None:
    text = (FOLDER.parents[1] / "docs" / "runbook.md").read_text()
    assert RULES
    for rule in RULES:
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert f"### {rule['alert']}\n" in text


class Prometheus:
    """A Prometheus of the test's own: the shipped configuration, a faster clock and the test's server as target."""

    def __init__(self, folder: Path, target: str) -> None:
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        shipped = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        shipped["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        shipped["rule_files"] = [str(FOLDER / "alerts.yml")]
        del shipped["alerting"]
        shipped["scrape_configs"][0]["scrape_timeout"] = "1s"
        shipped["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(shipped))
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/tsdb",
                f"--web.listen-address={self.address}",
                "--log.level=error",
            ]
        )

    def get(self, path: str, **parameters: str) -> Any:
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[Any]:
        rows: list[Any] = self.get("query", query=expression)["result"]
        return rows

    def wait_for_scrapes(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                rows = self.query('count_over_time(up{job="tempmail"}[5m])')
            except OSError:
                rows = []
            if rows and int(rows[0]["value"][1]) >= SCRAPES:
                return
            time.sleep(0.2)
        raise AssertionError("Prometheus never scraped the server")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)


async def traffic(server: Server) -> None:
    """A bit of everything the dashboard shows: mail, a reader who watches, lists from memory, a refused request."""
    box = await server.mailbox()
    async with connect(server.http.replace("http", "ws") + "/v1/ws") as watcher:
        await watcher.send(json.dumps({"type": "subscribe", "mailboxId": box.id, "token": box.token}))
        await watcher.recv()
        for n in range(4 * SCRAPES):
            await server.deliver(box, subject=f"mail {n}")
            await asyncio.wait_for(watcher.recv(), 60)
            for _ in range(3):
                await server.messages(box)
            await asyncio.sleep(0.25)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    server = Server(tmp_path_factory.mktemp("server")).start()
    prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), server.http.removeprefix("http://"))
    try:
        prometheus.wait_for_scrapes()
        asyncio.run(traffic(server))
        prometheus.wait_for_scrapes()
        yield prometheus
    finally:
        prometheus.stop()
        server.stop()


def asked(expression: str) -> str:
    """The expression as Grafana sends it."""
    return expression.replace("$__rate_interval", "1m").replace("$instance", ".*")


@pytest.mark.parametrize(("title", "expression"), QUERIES, ids=[f"{t}: {e[:60]}" for t, e in QUERIES])
def test_every_query_of_the_dashboard_finds_values(scraped: Prometheus, title: str, expression: str) -> None:
    rows = scraped.query(asked(expression))
    if any(name in expression for name in ELSEWHERE):
        assert rows == [], f"{title}: this installation has it; take it out of ELSEWHERE"
    else:
        assert rows, title
        assert any(row["value"][1] != "NaN" for row in rows), title


@pytest.mark.parametrize("name", ELSEWHERE)
def test_every_figure_that_is_had_elsewhere_is_asked_for(name: str) -> None:
    assert any(name in expression for _, expression in QUERIES)


def test_every_figure_in_a_query_or_rule_is_one_the_server_has(scraped: Prometheus) -> None:
    known = {name.removesuffix("_total") for name in scraped.get("metadata")}
    expressions = [expression for _, expression in QUERIES] + [rule["expr"] for rule in RULES]
    named = {name for e in expressions for name in re.findall(r"\b(?:http_|smtp_|websocket_|tempmail_)\w+", e)}
    families = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in named}
    assert families - known == set()


def test_no_rule_fires_on_a_healthy_node(scraped: Prometheus) -> None:
    state = scraped.get("rules")["groups"][0]["rules"]
    assert {rule["name"]: (rule["state"], rule.get("lastError")) for rule in state} == {
        rule["alert"]: ("inactive", None) for rule in RULES
    }
