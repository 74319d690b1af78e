"""The sums of ``tempmail plan``: what a load needs, and the files that go with it."""

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from server.capacity import files, sizing, tuning
from server.capacity.demand import DATA, Demand, Habits, of_users, read, with_rates
from server.capacity.sizing import SIZES, Prices, Size, Units
from server.cli.main import app
from server.config import settings
from server.config.settings import ConfigError

ROOT = Path(__file__).parents[2]
HABITS, UNITS, PRICES = (
    read(DATA / "habits.toml", Habits),
    read(DATA / "units.toml", Units),
    read(DATA / "prices.toml", Prices),
)


def planned(size: Size, demand: Demand) -> sizing.Plan:
    return sizing.plan(size, demand, UNITS, PRICES)


def test_rates_follow_from_users_by_the_habits() -> None:
    habits = msgspec.structs.replace(
        HABITS, mails_per_user_and_day=8.64, peak=2, online_share=0.1, websocket_share=0.25, polls_per_minute=6
    )
    demand = of_users(10_000, habits)
    assert (demand.mails, demand.websockets) == (pytest.approx(2.0), pytest.approx(250))
    assert demand.requests == pytest.approx(75)  # 750 who poll, each every ten seconds


def test_a_rate_that_is_given_replaces_the_one_worked_out_and_nothing_else() -> None:
    base = of_users(100_000, HABITS)
    changed = with_rates(base, HABITS, mails=None, requests=5000.0, websockets=None)
    assert changed == msgspec.structs.replace(base, requests=5000.0)


def test_stored_mail_follows_a_mail_rate_that_is_given() -> None:
    base = of_users(100_000, HABITS)
    doubled = with_rates(base, HABITS, mails=2 * base.mails, requests=None, websockets=None)
    assert doubled.stored_bytes == pytest.approx(2 * base.stored_bytes)


@pytest.mark.parametrize("size", SIZES)
def test_more_load_never_costs_less(size: Size) -> None:
    prices = []
    for users in (1_000, 10_000, 100_000, 1_000_000, 5_000_000):
        try:
            prices.append(planned(size, of_users(users, HABITS)).price)
        except ConfigError:
            break
    assert len(prices) > 2
    assert prices == sorted(prices)


@pytest.mark.parametrize("size", SIZES)
def test_no_machine_is_planned_beyond_its_cores_or_memory(size: Size) -> None:
    plan = planned(size, Demand(0, mails=4_000, requests=8_000, websockets=12_000, stored_bytes=1e11))
    assert plan.groups
    for group in plan.groups:
        carrying = group.count - 1 if group.count > 1 and group.roles else group.count
        assert group.need.cores <= carrying * group.machine.cores * UNITS.limits.utilisation
        assert group.need.memory / carrying < group.machine.memory_gib * sizing.GIB


@pytest.mark.parametrize("size", ["medium", "large"])
def test_a_lost_node_leaves_enough_of_them(size: Size) -> None:
    plan = planned(size, Demand(0, mails=20_000, requests=100_000, websockets=10_000, stored_bytes=1e11))
    nodes = [group.count for group in plan.groups if group.roles]
    assert nodes
    assert min(nodes) >= 2


def test_a_load_no_machine_carries_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"everything.*--prices"):
        planned("small", Demand(0, mails=1e6, requests=0, websockets=0, stored_bytes=0))


def test_the_database_takes_the_connections_of_every_node() -> None:
    plan = planned("medium", of_users(90_000, HABITS))
    nodes = plan.group("nodes")
    assert nodes is not None
    assert plan.max_connections >= nodes.count * int(plan.settings["DATABASE_MAX_OPEN_CONNS"]) + 10


@pytest.mark.parametrize("size", SIZES)
def test_the_environment_files_are_ones_the_server_takes(size: Size) -> None:
    made = files.of(planned(size, of_users(300_000, HABITS)))
    environments = [text for path, text in made.items() if path.endswith("tempmail.env")]
    assert environments
    for text in environments:
        given = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
        filled_in = {"TEMPMAIL_DATABASE_DSN": "postgresql://db/x", "TEMPMAIL_RABBITMQ_URL": "amqp://mq/"}
        settings.load(given | filled_in)
        named = {line[1:].split("=")[0] for line in text.splitlines() if line.startswith("#TEMPMAIL_")}
        known = {settings.PREFIX + name for s in settings.SETTINGS for name in (s.name, *s.aliases)}
        assert named <= known


def test_files_that_are_there_are_not_written_over(tmp_path: Path) -> None:
    plan = planned("small", of_users(10, HABITS))
    written = files.write(plan, tmp_path / "new")
    assert written
    assert all(path.is_file() for path in written)
    with pytest.raises(ConfigError, match="is there already"):
        files.write(plan, tmp_path / "new")


@pytest.mark.parametrize(("folder", "cores", "memory"), [("4c8g", 4, 8), ("8c16g", 8, 16)])
@pytest.mark.parametrize("name", tuning.SERVERS)
def test_the_files_of_deploy_are_what_the_sums_give(folder: str, cores: int, memory: int, name: str) -> None:
    host = tuning.Host(cores, memory * tuning.GIB, connections=50 * cores + 20)
    assert (ROOT / "deploy" / folder / name).read_text() == tuning.rendered(name, host)


def test_a_data_file_with_an_unknown_field_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text((DATA / "habits.toml").read_text() + "\ncolour = 3\n")
    with pytest.raises(ConfigError, match=r"mine\.toml.*colour"):
        read(path, Habits)


def test_the_command_shows_demand_sizes_topology_and_settings() -> None:
    shown = CliRunner().invoke(app, ["plan", "--users", "100000"])
    assert shown.exit_code == 0
    assert all(
        word in shown.output for word in ("mails/s", "medium <", "postgresql", "TEMPMAIL_WORKERS", "USD a month")
    )


def test_the_command_says_what_to_give_when_nothing_is_given() -> None:
    shown = CliRunner().invoke(app, ["plan"])
    assert shown.exit_code == 2
    assert "--users" in shown.output


@pytest.mark.parametrize("rate", ["inf", "nan", "-1"])
@pytest.mark.parametrize("option", ["--mails-per-second", "--requests-per-second", "--websockets"])
def test_a_rate_that_is_no_number_is_refused(option: str, rate: str) -> None:
    assert CliRunner().invoke(app, ["plan", f"{option}={rate}"]).exit_code == 2


@pytest.mark.parametrize(
    ("asked", "size"),
    [("--websockets=50000", "small"), ("--websockets=500000", "medium"), ("--requests-per-second=200000", "medium")],
)
def test_rates_alone_lead_to_the_first_size_that_carries_them(asked: str, size: str) -> None:
    shown = CliRunner().invoke(app, ["plan", asked])
    assert shown.exit_code == 0, shown.output
    assert f"{size} <" in shown.output


@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_memory_counts_the_system_the_workers_and_their_caches(size: Size) -> None:
    made = planned(size, Demand(0, mails=1, requests=1, websockets=0, stored_bytes=0))
    cache = int(made.settings["CACHE_BYTES"])
    assert any(group.roles for group in made.groups)
    for group in made.groups:
        assert group.memory <= group.machine.memory_gib * sizing.GIB
        if group.roles:
            assert group.memory > group.workers * (cache + 100_000_000), group.name
