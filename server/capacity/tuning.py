"""Settings of the servers beside tempmail, worked out from a machine's cores and memory, each with its reason.

Lives here: PostgreSQL, Redis, RabbitMQ and the kernel. ``deploy/4c8g`` and ``deploy/8c16g`` are what this writes for
those machines (a test compares them, and loads each file in a real server). Must not know: loads, plans or prices.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

GIB: Final = 1 << 30
MIB: Final = 1 << 20


class Host(NamedTuple):
    """A machine and the share of its memory that the server in question may take; ``connections`` are PostgreSQL's."""

    cores: int
    memory: int
    share: float = 1.0
    connections: int = 120


class Line(NamedTuple):
    """One setting; ``why`` stands above it in the file."""

    key: str
    value: str
    why: str


def _mib(size: float) -> str:
    return f"{int(size) // MIB}MB"


def postgresql(host: Host) -> list[Line]:
    """postgresql.conf, 15 or newer."""
    memory = host.memory * host.share
    return [*_memory(host, memory), *_durability(memory), *_planner(host), *_housekeeping(), *_watching()]


def _memory(host: Host, memory: float) -> list[Line]:
    return [
        Line(
            "max_connections",
            str(host.connections),
            "the nodes' DATABASE_MAX_OPEN_CONNS together, and 20 for replicas, backup and people",
        ),
        Line(
            "shared_buffers",
            _mib(memory / 4),
            "a quarter of the memory: inboxes and the indexes of today's partitions stay in it",
        ),
        Line(
            "effective_cache_size",
            _mib(memory * 3 / 4),
            "what the planner may count on with the system's own cache; nothing is allocated",
        ),
        Line(
            "work_mem",
            _mib(min(64 * MIB, max(4 * MIB, memory / 8 / host.connections))),
            "for each sort; lists come out of an index in order, so only searches and statistics need it",
        ),
        Line("maintenance_work_mem", _mib(min(GIB, memory / 16)), "for vacuum and CREATE INDEX, few at a time"),
        Line("huge_pages", "try", "shorter page tables for shared_buffers where the kernel has some set aside"),
        Line(
            "max_locks_per_transaction",
            "256",
            "a query that names no mailbox locks every partition; an hour each makes hundreds",
        ),
    ]


def _durability(memory: float) -> list[Line]:
    return [
        Line("fsync", "on", "250 means that the mail is on the disk"),
        Line("synchronous_commit", "on", "the same; one commit carries a whole batch, so it costs little"),
        Line("full_page_writes", "on", "a torn page after a power cut would lose acknowledged mail"),
        Line("wal_compression", "lz4", "those full pages are most of the log; a third of it is left"),
        Line("wal_level", "replica", "replicas and online backup"),
        Line("max_wal_senders", "10", "two replicas, a backup, and room to build another"),
        Line("wal_keep_size", "2GB", "a replica that was away for minutes catches up without a new copy"),
        Line("hot_standby", "on", "replicas answer reads"),
        Line("hot_standby_feedback", "off", "a long search on a replica must not keep the primary from tidying up"),
        Line("max_standby_streaming_delay", "5s", "a replica lags no longer for a reader's sake; the read is repeated"),
        Line("wal_buffers", "16MB", "one segment: a batch of mails fits"),
        Line("min_wal_size", "1GB", "segments are reused, not made anew"),
        Line("max_wal_size", _mib(max(2 * GIB, min(16 * GIB, memory))), "checkpoints come by time, not by mail"),
        Line("checkpoint_timeout", "15min", "fewer full pages in the log; a restart replays longer"),
        Line("checkpoint_completion_target", "0.9", "written evenly, so that commits do not stall"),
    ]


def _planner(host: Host) -> list[Line]:
    return [
        Line("random_page_cost", "1.1", "solid-state disks: an index scan is right"),
        Line("effective_io_concurrency", "200", "the same, for bitmap scans"),
        Line("max_worker_processes", str(max(8, 2 * host.cores)), "parallel workers and maintenance"),
        Line("max_parallel_workers", str(host.cores), "no more than there are cores"),
        Line(
            "max_parallel_workers_per_gather",
            str(min(2, host.cores // 2)),
            "statements are short; a rare report may take two cores, not all",
        ),
        Line("jit", "off", "compiling costs more than any of our statements"),
        Line("enable_partition_pruning", "on", "reads name their partition's key"),
    ]


def _housekeeping() -> list[Line]:
    return [
        Line("autovacuum_max_workers", "4", "inboxes, counters and deliveries change all the time"),
        Line("autovacuum_naptime", "15s", "the inboxes table is small and hot: tidy it often"),
        Line("autovacuum_vacuum_scale_factor", "0.05", "at a twentieth of dead rows"),
        Line("autovacuum_vacuum_cost_limit", "2000", "a vacuum that never ends helps nobody"),
        Line("idle_in_transaction_session_timeout", "60s", "a client that hangs must not hold back vacuum"),
        Line("tcp_keepalives_idle", "60", "connections of a node that vanished end within two minutes"),
        Line("tcp_keepalives_interval", "10", "the same"),
        Line("tcp_keepalives_count", "6", "the same"),
    ]


def _watching() -> list[Line]:
    return [
        Line(
            "shared_preload_libraries",
            "'pg_stat_statements,auto_explain'",
            "which statements take the time, and how; both are in Debian's postgresql package",
        ),
        Line("pg_stat_statements.track", "top", "what clients ask, once"),
        Line("auto_explain.log_min_duration", "'1s'", "the plan of whatever took a second"),
        Line("auto_explain.log_nested_statements", "off", "triggers' statements say nothing new"),
        Line("track_io_timing", "on", "the time spent on the disk, in both"),
        Line("log_min_duration_statement", "'500ms'", "slow statements by name"),
        Line("log_parameter_max_length", "0", "parameters hold mail: never in the log"),
        Line("log_parameter_max_length_on_error", "0", "nor when a statement fails"),
        Line("log_checkpoints", "on", "too frequent ones mean that max_wal_size is too small"),
        Line("log_lock_waits", "on", "who waits for whom"),
        Line("log_autovacuum_min_duration", "'10s'", "tables that vacuum cannot keep up with"),
        Line("log_temp_files", "'10MB'", "sorts that work_mem was too small for"),
    ]


def redis(host: Host) -> list[Line]:
    """redis.conf, 7.0 or newer: it carries events and keeps nothing."""
    limit = min(256 * MIB, int(host.memory * host.share / 4))
    return [
        Line("maxmemory", f"{limit // MIB}mb", "nothing is stored: this bounds what subscribers have not read yet"),
        Line("maxmemory-policy", "noeviction", "there is nothing to evict; an error is better than silence"),
        Line("save", '""', "events are hints, worthless after a restart"),
        Line("appendonly", "no", "the same"),
        Line(
            "client-output-buffer-limit",
            "pubsub 32mb 8mb 60",
            "a worker that does not read is cut off; it comes back and its readers ask the database",
        ),
        Line("tcp-backlog", "1024", "all workers come back at once after a restart"),
        Line("tcp-keepalive", "60", "connections of a node that vanished end"),
        Line("timeout", "0", "a subscriber that hears nothing is not idle"),
        Line("maxclients", "2000", "two connections for each worker of a fleet"),
        Line("io-threads", "1", "hints of 25 bytes: one core is never full"),
        Line("latency-monitor-threshold", "50", "ms; LATENCY DOCTOR then knows what happened"),
        Line("slowlog-log-slower-than", "10000", "us; no command of ours takes that long"),
    ]


def rabbitmq(host: Host) -> list[Line]:
    """rabbitmq.conf, 3.10 or newer."""
    return [
        Line("vm_memory_high_watermark.relative", f"{0.6 * host.share:.2f}", "of the memory; above it publishers wait"),
        Line("disk_free_limit.absolute", _mib(2 * GIB), "below it publishers wait, before the log cannot be written"),
        Line("heartbeat", "30", "s; a node that vanished is noticed within a minute"),
        Line("channel_max", "64", "a worker uses three"),
        Line("consumer_timeout", "3600000", "ms; an outage of the database is waited out with mails in hand"),
        Line("raft.wal_max_size_bytes", str(128 * MIB), "the quorum queues' log, in memory until it is rolled"),
        Line("raft.segment_max_entries", "4096", "mails are large: segments of tens of megabytes, not gigabytes"),
        Line("collect_statistics_interval", "10000", "ms; the depth is all that anybody looks at"),
        Line("tcp_listen_options.backlog", "1024", "all workers come back at once after a restart"),
        Line("tcp_listen_options.nodelay", "true", "a publisher confirm must not wait for more to send"),
        Line("tcp_listen_options.sndbuf", "196608", "a batch of mails in one write"),
        Line("tcp_listen_options.recbuf", "196608", "the same"),
        Line("log.console", "true", "the journal keeps it"),
        Line("log.console.level", "warning", "connections come and go"),
    ]


def sysctl(host: Host) -> list[Line]:
    """sysctl.d, for any machine of an installation."""
    return [
        Line(
            "net.core.somaxconn", "4096", "bursts of relays wait in the backlog while a worker commits or is replaced"
        ),
        Line("net.ipv4.tcp_max_syn_backlog", "8192", "the same, before the handshake is over"),
        Line("net.core.netdev_max_backlog", "4096", "packets of a burst wait for a core"),
        Line("net.ipv4.tcp_syncookies", "1", "a flood of SYNs does not lock relays out"),
        Line("net.ipv4.ip_local_port_range", "10240 65535", "the proxy's connections to the workers are ports too"),
        Line("net.ipv4.tcp_tw_reuse", "1", "the same: those just closed may be used again"),
        Line("net.ipv4.tcp_fin_timeout", "15", "s; half-closed connections of vanished relays go"),
        Line("net.ipv4.tcp_keepalive_time", "300", "s; between servers, where nothing else notices"),
        Line("net.ipv4.tcp_slow_start_after_idle", "0", "a kept connection answers at full speed"),
        Line("net.ipv4.tcp_rmem", "4096 16384 4194304", "50,000 idle WebSockets at the default would take 6 GiB"),
        Line("net.ipv4.tcp_wmem", "4096 16384 4194304", "the same"),
        Line("fs.file-max", str(max(262_144, 65_536 * host.cores)), "descriptors of all processes: a connection each"),
        Line("vm.swappiness", "10", "the database's memory stays where it is"),
        Line("vm.dirty_background_bytes", str(64 * MIB), "writing begins early, so that fsync finds little to do"),
        Line("vm.dirty_bytes", str(512 * MIB), "the same, as a bound"),
    ]


SERVERS: Final[dict[str, tuple[Callable[[Host], list[Line]], str]]] = {
    "postgresql.conf": (postgresql, "{key} = {value}"),
    "redis.conf": (redis, "{key} {value}"),
    "rabbitmq.conf": (rabbitmq, "{key} = {value}"),
    "sysctl.conf": (sysctl, "{key} = {value}"),
}
"""The files by name: what makes their lines, and how one line is written."""


def rendered(name: str, host: Host) -> str:
    """The text of one of ``SERVERS`` for ``host``."""
    make, form = SERVERS[name]
    head = f"# {name} for {host.cores} cores and {host.memory / GIB:g} GiB"
    if host.share < 1:
        head += f", {host.share:.0%} of which it may take"
    return _text(head + ".", make(host), form)


def _text(head: str, lines: Sequence[Line], form: str) -> str:
    blocks = [f"# {line.why}\n{form.format(key=line.key, value=line.value)}" for line in lines]
    return "\n\n".join([head, *blocks]) + "\n"
