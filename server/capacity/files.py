"""The configuration files of a plan, by path: one folder for each group of machines.

Lives here: which file goes where. Must not know: how a plan was made.
"""

from pathlib import Path
from typing import Final

from server.capacity import tuning
from server.capacity.sizing import Group, Plan
from server.capacity.tuning import GIB, Host
from server.config.settings import PREFIX, ConfigError

_SHARED: Final = 0.4  # of a machine's memory, for PostgreSQL where workers live beside it

_GIVEN: Final = {
    "small": ("DATABASE_DSN", "MAILBOX_ALLOWED_DOMAINS", "SMTP_DOMAIN", "JWT_SECRET"),
    "medium": (
        "DATABASE_DSN",
        "DATABASE_SLAVE_DSNS",
        "REDIS_URL",
        "MAILBOX_ALLOWED_DOMAINS",
        "SMTP_DOMAIN",
        "TRUSTED_PROXIES",
        "JWT_SECRET",
    ),
    "large": (
        "DATABASE_USERS_DSN",
        "DATABASE_MAILBOXES_DSN",
        "DATABASE_MESSAGES_DSN",
        "DATABASE_MESSAGES_REPLICA_DSNS",
        "REDIS_CLUSTER_NODES",
        "RABBITMQ_URL",
        "MAILBOX_ALLOWED_DOMAINS",
        "SMTP_DOMAIN",
        "TRUSTED_PROXIES",
        "JWT_SECRET",
    ),
}
"""Settings that only the operator knows, by size; they stand in the files as comments to fill in."""


def of(plan: Plan) -> dict[str, str]:
    """Every file of the plan: relative path -> text."""
    made: dict[str, str] = {}
    for group in plan.groups:
        for name, text in _of_group(plan, group).items():
            made[f"{group.name}/{name}"] = text
    return made


def _of_group(plan: Plan, group: Group) -> dict[str, str]:
    host = Host(group.machine.cores, int(group.machine.memory_gib * GIB), connections=plan.max_connections)
    files = {"sysctl.conf": tuning.rendered("sysctl.conf", host)}
    if group.roles:
        files["tempmail.env"] = _environment(plan, group)
    if group.name == "everything":
        files["postgresql.conf"] = tuning.rendered("postgresql.conf", host._replace(share=_SHARED))
    elif group.name.startswith(("postgresql", "replica")):
        files["postgresql.conf"] = tuning.rendered("postgresql.conf", host)
    elif group.name in ("redis", "rabbitmq"):
        files[f"{group.name}.conf"] = tuning.rendered(f"{group.name}.conf", host)
    return files


def _environment(plan: Plan, group: Group) -> str:
    """The environment file of a group's tempmail, for systemd or a container."""
    values = plan.settings | {"WORKERS": str(group.workers), "ROLES": group.roles}
    if "rabbitmq" in {other.name for other in plan.groups}:
        values["INGEST_MODE"] = "queue"
    lines = [
        f"# tempmail on each of {group.count} x {group.machine.name}; what each setting is for: tempmail check-config"
    ]
    lines += [f"{PREFIX}{name}={value}" for name, value in sorted(values.items())]
    lines += ["# fill in:", *(f"#{PREFIX}{name}=" for name in _GIVEN[plan.size])]
    return "\n".join(lines) + "\n"


def write(plan: Plan, folder: Path) -> list[Path]:
    """Write them under ``folder``, which is made; files that are there are not touched. ConfigError names the first."""
    made = {folder / name: text for name, text in of(plan).items()}
    for path in made:
        if path.exists():
            raise ConfigError(f"{path} is there already; name another folder, or remove it")
    try:
        for path, text in made.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}") from error
    return list(made)
