"""Compose files and Kubernetes manifests: valid against their schemas, and true to what the product really has."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from server import metrics
from server.config import settings as config
from server.shards import worker

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
COMPOSE: Final = sorted((DEPLOY / "compose").glob("*.yml"))
MANIFESTS: Final = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
KUBERNETES: Final = "1.30"
SETTINGS: Final = {config.PREFIX + name for setting in config.SETTINGS for name in (setting.name, *setting.aliases)}


def objects(path: Path) -> list[dict[str, Any]]:
    """Every object of a manifest, those of a List among them."""
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    return [
        item for document in documents for item in (document["items"] if document["kind"] == "List" else [document])
    ]


OBJECTS: Final = [(f"{path.name} {o['kind']} {o['metadata']['name']}", o) for path in MANIFESTS for o in objects(path)]


@pytest.mark.parametrize("manifest", [o for _, o in OBJECTS], ids=[name for name, _ in OBJECTS])
def test_kubernetes_takes_it(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize("path", [p for p in COMPOSE if "services:" in p.read_text()], ids=lambda path: path.name)
def test_compose_takes_it(path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "path", [*COMPOSE, *MANIFESTS, *DEPLOY.rglob("*env.example"), DEPLOY / "container/Dockerfile"], ids=str
)
def test_every_setting_named_is_one_there_is(path: Path) -> None:
    assert set(re.findall(r"TEMPMAIL_[A-Z_]+[A-Z]", path.read_text())) <= SETTINGS


def test_files_that_are_mounted_are_there() -> None:
    mounted = [
        path.parent / source
        for path in COMPOSE
        for service in yaml.safe_load(path.read_text()).get("services", {}).values()
        for volume in service.get("volumes", [])
        if (source := volume.split(":")[0]).startswith(".")
    ]
    assert mounted
    assert [source for source in mounted if not source.exists()] == []


def test_autoscalers_ask_for_figures_the_server_has() -> None:
    shown = metrics.exposition([]).decode()
    assert worker  # every part that declares a figure is imported
    rules = yaml.safe_load(next(o for name, o in OBJECTS if "prometheus-adapter" in name)["data"]["config.yaml"])[
        "rules"
    ]
    assert rules
    for rule in rules:
        asked = re.match(r'\{__name__=~"([^"]+)"|(\w+)\{', rule["seriesQuery"])
        assert asked
        pattern = asked[1] or asked[2]
        found = [name for name in re.findall(r"# HELP (\w+) ", shown) if re.fullmatch(pattern, name)]
        assert len(found) == 1 + pattern.count("|"), pattern
    known = {rule.get("name", {}).get("as") for rule in rules} | {
        "websocket_connections_active",
        "smtp_connections_active",
    }
    scalers = [o for _, o in OBJECTS if o["kind"] == "HorizontalPodAutoscaler"]
    asked = {m["pods"]["metric"]["name"] for o in scalers for m in o["spec"]["metrics"] if m["type"] == "Pods"}
    assert scalers
    assert asked <= known


def test_pods_have_longer_to_stop_than_the_server_takes() -> None:
    drain = config.load({}).drain_deadline
    pods = [one["spec"]["template"]["spec"] for _, one in OBJECTS if one["kind"] == "Deployment"]
    assert pods
    assert all(pod["terminationGracePeriodSeconds"] > drain + 5 for pod in pods)


def test_the_image_holds_what_its_context_lets_through() -> None:
    ignore = (DEPLOY.parent / ".dockerignore").read_text()
    copied = re.findall(r"^COPY (.+)$", (DEPLOY / "container" / "Dockerfile").read_text(), re.MULTILINE)
    assert copied
    for sources in (line.split()[:-1] for line in copied):
        assert all(f"!{source}\n" in ignore and (DEPLOY.parent / source).exists() for source in sources)


def test_the_connections_of_as_many_pods_as_there_may_be_are_stated() -> None:
    text = (Path(__file__).parents[2] / "deploy/kubernetes/autoscale.yaml").read_text()
    most = sum(int(found) for found in re.findall(r"maxReplicas: (\d+)", text))
    settings = (Path(__file__).parents[2] / "deploy/kubernetes/tempmail.yaml").read_text()
    each = int(re.findall(r'TEMPMAIL_DATABASE_MAX_OPEN_CONNS: "(\d+)"', settings)[0])
    assert f"{most} pods x {each} = {most * each}" in text
    assert str(most * each + 32) in text
