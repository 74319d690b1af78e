"""From rates to machines: how many of which kind carry a demand, what each is set to, and what it costs a month.

Lives here: the three topologies and the arithmetic. Must not know: how a plan is shown or written.

The sums are those of docs/capacity.md. A group of machines is sized so that it carries the peak with one machine lost,
at ``utilisation`` of its cores; a single machine, which cannot be lost without an outage anyway, by itself.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from server.capacity.demand import Demand
from server.config.settings import ConfigError

Size = Literal["small", "medium", "large"]

SIZES: Final[dict[Size, str]] = {"small": "up to 10,000", "medium": "10,000 to 100,000", "large": "above 100,000"}
MIB: Final = 1 << 20
GIB: Final = 1 << 30

_MEDIUM_FROM: Final = 10_000
_LARGE_FROM: Final = 100_000
_SYSTEM_BYTES: Final = 512 * MIB  # what Debian and its services take for themselves
_SESSION_SECONDS: Final = 30.0  # a slow relay's session, for which a seat and memory are set aside
_CONNECTIONS_PER_WORKER: Final = 8
_ADMINISTRATION: Final = 20  # connections kept free for replication, backup and people
_COMPRESSION: Final = 0.6  # of mail on disk; attachments hardly shrink
_MACHINES_MAX: Final = 200


class Mail(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    server_us: float
    database_us: float
    disk_bytes: float
    wal_bytes: float


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    hot_us: float
    cold_server_us: float
    cold_database_us: float
    hot_share: float


class Push(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    server_us: float


class Proxy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    request_us: float


class Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    worker_bytes: float
    websocket_bytes: float
    smtp_session_bytes: float
    socket_bytes: float
    backend_bytes: float


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    utilisation: float
    workers_share: float
    websockets_per_worker: float


class Units(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Costs of one unit of work; fields as units.toml explains them."""

    mail: Mail
    request: Request
    push: Push
    proxy: Proxy
    memory: Memory
    limits: Limits


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    cores: int
    memory_gib: float
    price: float


class Other(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    disk_gib: float
    balancer: float
    cdn_base: float
    cdn_million_requests: float


class Prices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What things cost a month; fields as prices.toml explains them."""

    machine: tuple[Machine, ...]
    other: Other


class Need(NamedTuple):
    """What a group has to carry altogether: busy cores, bytes of memory and disk, and WebSockets."""

    cores: float
    memory: float
    disk: float = 0.0
    websockets: float = 0.0


class Group(msgspec.Struct, frozen=True):
    """Machines that do the same. ``roles`` are tempmail's, empty for another server; ``workers`` are one machine's."""

    name: str
    count: int
    machine: Machine
    need: Need
    roles: str = ""
    workers: int = 0
    workers_bytes: float = 0.0

    @property
    def memory(self) -> float:
        """Bytes in use on one machine at the peak: the system, its workers with their caches, and its part of the
        need."""
        return _SYSTEM_BYTES + self.workers_bytes + self.need.memory / self.count

    @property
    def price(self) -> float:
        return self.count * self.machine.price

    @property
    def cores_busy(self) -> float:
        """The share of the group's cores that the peak keeps busy."""
        return self.need.cores / (self.count * self.machine.cores)


class Plan(msgspec.Struct, frozen=True):
    """A topology for a demand. ``settings``: tempmail's, by public name; ``other``: the price of what is no machine."""

    size: Size
    demand: Demand
    groups: tuple[Group, ...]
    settings: dict[str, str]
    max_connections: int
    other: dict[str, float]

    @property
    def price(self) -> float:
        """US dollars a month."""
        return sum(group.price for group in self.groups) + sum(self.other.values())

    def group(self, name: str) -> Group | None:
        return next((group for group in self.groups if group.name == name), None)


def size_of(users: int) -> Size:
    """The guide's size for a number of users."""
    return "small" if users <= _MEDIUM_FROM else "medium" if users <= _LARGE_FROM else "large"


class _Load(NamedTuple):
    """Busy cores by who is busy, at the peak."""

    mail: float
    web: float
    proxy: float
    database: float


def _load(demand: Demand, units: Units) -> _Load:
    cold = demand.requests * (1 - units.request.hot_share)
    hot = demand.requests - cold
    watched = min(1.0, demand.websockets / demand.users) if demand.users else 1.0
    return _Load(
        mail=demand.mails * units.mail.server_us / 1e6,
        web=(hot * units.request.hot_us + cold * units.request.cold_server_us) / 1e6
        + demand.mails * watched * units.push.server_us / 1e6,
        proxy=demand.requests * units.proxy.request_us / 1e6,
        database=(demand.mails * units.mail.database_us + cold * units.request.cold_database_us) / 1e6,
    )


def _connections(demand: Demand, units: Units) -> tuple[float, float]:
    """Bytes for the WebSockets, and for SMTP sessions, at the peak."""
    memory = units.memory
    sessions = demand.mails * _SESSION_SECONDS
    return (
        demand.websockets * (memory.websocket_bytes + 2 * memory.socket_bytes),  # nginx holds a socket of its own
        sessions * (memory.smtp_session_bytes + memory.socket_bytes),
    )


def _disk(demand: Demand, units: Units) -> float:
    rows = demand.mails * 3600 * units.mail.disk_bytes  # an hour at the peak, not yet forgotten
    return demand.stored_bytes * _COMPRESSION + rows + 10 * GIB


class _Sizer:
    """Chooses machines of the price list."""

    def __init__(self, units: Units, prices: Prices) -> None:
        self._units, self._machines = units, sorted(prices.machine, key=lambda machine: machine.price)

    def group(
        self,
        name: str,
        need: Need,
        *,
        least: int = 1,
        most: int = _MACHINES_MAX,
        roles: str = "",
        workers: Callable[[Machine], int] = lambda _: 0,
    ) -> Group:
        """The cheapest ``least`` to ``most`` machines that carry ``need``. ConfigError where none do."""
        fitting = [
            Group(name, count, machine, need, roles, workers(machine))
            for machine in self._machines
            if (count := self._count(machine, need, least, most, workers(machine))) is not None
        ]
        if not fitting:
            raise ConfigError(
                f"{name}: {need.cores:.1f} busy cores and {need.memory / GIB:.1f} GiB fit on no {most} machine(s) of"
                " the price list; add a larger one to --prices"
            )
        return min(fitting, key=lambda group: (group.price, group.count))

    def _count(self, machine: Machine, need: Need, least: int, most: int, workers: int) -> int | None:
        limits, memory = self._units.limits, self._units.memory
        room = machine.memory_gib * GIB - _SYSTEM_BYTES - workers * memory.worker_bytes
        if room <= 0:
            return None
        carrying = max(math.ceil(need.cores / (machine.cores * limits.utilisation)), math.ceil(need.memory / room), 1)
        if need.websockets:
            carrying = max(carrying, math.ceil(need.websockets / (workers * limits.websockets_per_worker)))
        count = max(least, carrying + 1 if least > 1 else carrying)
        return count if count <= most else None


def _databases(demand: Demand, units: Units, load: float, connections: int) -> Need:
    return Need(load, connections * units.memory.backend_bytes + GIB, _disk(demand, units))


class _Parts(NamedTuple):
    demand: Demand
    units: Units
    prices: Prices
    sizer: _Sizer
    load: _Load
    websocket_bytes: float
    session_bytes: float


def _small(parts: _Parts) -> Plan:
    """One machine holds everything: nginx, tempmail and PostgreSQL; no Redis, for there is one host."""
    demand, units, load = parts.demand, parts.units, parts.load

    def workers(machine: Machine) -> int:
        return max(1, round(machine.cores * units.limits.workers_share))

    need = Need(
        load.mail + load.web + load.proxy + load.database,
        parts.websocket_bytes + parts.session_bytes + GIB + 16 * _CONNECTIONS_PER_WORKER * units.memory.backend_bytes,
        _disk(demand, units),
        demand.websockets,
    )
    everything = parts.sizer.group("everything", need, most=1, roles="all", workers=workers)
    return _finished("small", parts, (everything,), (everything,), {})


def _medium(parts: _Parts) -> Plan:
    """Two or more equal nodes behind a balancer, PostgreSQL with a replica, Redis between the nodes."""
    demand, units, load = parts.demand, parts.units, parts.load
    memory = parts.websocket_bytes + parts.session_bytes
    need = Need(load.mail + load.web + load.proxy, memory, websockets=demand.websockets)
    nodes = parts.sizer.group("nodes", need, least=2, roles="all", workers=_a_core_each)
    database = _databases(demand, units, load.database, _open(nodes) + _ADMINISTRATION)
    return _finished(
        "medium",
        parts,
        (
            nodes,
            parts.sizer.group("postgresql", database, most=1),
            parts.sizer.group("replica", database, most=1),
            parts.sizer.group("redis", Need(0.1, 256 * MIB), most=1),
        ),
        (nodes,),
        {"balancer": parts.prices.other.balancer},
    )


def _large(parts: _Parts) -> Plan:
    """Roles apart, mail through RabbitMQ, a database for mail and one for the rest, each with replicas; a CDN."""
    demand, units, load = parts.demand, parts.units, parts.load
    sizer, other = parts.sizer, parts.prices.other
    smtp = sizer.group("smtp", Need(load.mail / 2, parts.session_bytes), least=2, roles="smtp", workers=_a_core_each)
    web = sizer.group(
        "web",
        Need(load.web + load.proxy, parts.websocket_bytes, websockets=demand.websockets),
        least=2,
        roles="web,push",
        workers=_a_core_each,
    )
    ingest = sizer.group("ingest", Need(load.mail, 0), least=2, roles="ingest,webhooks,sweeper", workers=_a_core_each)
    servers = (smtp, web, ingest)
    connections = sum(map(_open, servers)) + _ADMINISTRATION
    mail = _databases(demand, units, load.database, connections)
    rest = Need(load.database / 4, connections * units.memory.backend_bytes + GIB, 20 * GIB)
    return _finished(
        "large",
        parts,
        (
            *servers,
            sizer.group("postgresql-messages", mail, most=1),
            sizer.group("replica-messages", Need(*mail), least=2, most=2),
            sizer.group("postgresql-accounts", rest, most=1),
            sizer.group("replica-accounts", rest, most=1),
            sizer.group("redis", Need(0.1, 256 * MIB), least=3, most=3),
            sizer.group("rabbitmq", Need(load.mail, 2 * GIB, 20 * GIB), least=3),
        ),
        servers,
        {
            "balancer": 2 * other.balancer,
            "cdn": other.cdn_base + demand.requests * 0.05 * 86_400 * 30 / 1e6 * other.cdn_million_requests,
        },
    )


def _a_core_each(machine: Machine) -> int:
    return machine.cores


def _open(group: Group) -> int:
    """Database connections of a group's nodes."""
    return group.count * _pool(group.workers)


def _pool(workers: int) -> int:
    return min(100, max(3, _CONNECTIONS_PER_WORKER) * workers)


def _finished(
    size: Size, parts: _Parts, groups: tuple[Group, ...], servers: Sequence[Group], other: dict[str, float]
) -> Plan:
    demand, units = parts.demand, parts.units
    nodes = sum(group.count for group in servers)
    watching = next((group for group in servers if "push" in group.roles or group.roles == "all"), servers[0])
    workers = watching.workers
    sockets = demand.websockets / max(1, watching.count - 1 if watching.count > 1 else 1) / workers
    if sockets > units.limits.websockets_per_worker:
        raise ConfigError(
            f"{sockets:,.0f} WebSockets for each worker are more than the {units.limits.websockets_per_worker:,.0f}"
            " descriptors planned for; raise the process limit and websockets_per_worker, or plan a larger size"
        )
    settings = {
        "WORKERS": str(workers),
        "DATABASE_MAX_OPEN_CONNS": str(_pool(workers)),
        "SMTP_MAX_CONNECTIONS": str(max(1000, math.ceil(demand.mails * _SESSION_SECONDS / nodes / 100) * 100)),
        "WEBSOCKET_MAX": str(max(1000, math.ceil(2 * sockets / 1000) * 1000)),
        "CACHE_BYTES": str(_cache(watching, parts.websocket_bytes / watching.count) // MIB * MIB),
    }
    worker = units.memory.worker_bytes + int(settings["CACHE_BYTES"])
    groups = tuple(msgspec.structs.replace(group, workers_bytes=group.workers * worker) for group in groups)
    disk = {"disk": sum(group.need.disk * group.count for group in groups) / GIB * parts.prices.other.disk_gib}
    connections = sum(map(_open, servers)) + _ADMINISTRATION
    return Plan(size, demand, groups, settings, connections, other | disk)


def _cache(group: Group, held: float) -> int:
    """Bytes of ready answers for each worker: a tenth of what the machine has left, from 32 to 512 MiB."""
    left = group.machine.memory_gib * GIB - _SYSTEM_BYTES - held
    return int(min(512 * MIB, max(32 * MIB, left / 10 / group.workers)))


_BUILDERS: Final[dict[Size, Callable[[_Parts], Plan]]] = {"small": _small, "medium": _medium, "large": _large}


def plan(size: Size, demand: Demand, units: Units, prices: Prices) -> Plan:
    """The topology of ``size`` for ``demand``. ConfigError when the price list's machines cannot carry it."""
    sizer = _Sizer(units, prices)
    load, (websocket_bytes, session_bytes) = _load(demand, units), _connections(demand, units)
    return _BUILDERS[size](_Parts(demand, units, prices, sizer, load, websocket_bytes, session_bytes))
