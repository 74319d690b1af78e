"""A RabbitMQ of the tests' own: a private node on free ports with its own Erlang port mapper, data in a folder."""

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import aiormq
import psutil

from tests.ports import free_ports

_PROGRAMS = Path("/usr/lib/rabbitmq/bin")  # Debian's, without the wrapper that changes the user
_CONFIG = "raft.wal_max_size_bytes = 33554432\nheartbeat = 10\n"


class Broker:
    """``start`` returns when it takes connections. ``kill`` and ``start`` again find the same queues."""

    def __init__(self, folder: Path, config: str = _CONFIG) -> None:
        self.folder = folder
        self.port, distribution, self._mapper = free_ports(3)
        (folder / "plugins").write_text("[].")
        (folder / "rabbitmq.conf").write_text(config)
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("RABBITMQ_")} | {
            "HOME": str(folder),  # where the cookie lies
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._mapper),
            "RABBITMQ_NODENAME": f"tempmail{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout: float = 180) -> "Broker":
        output = self.folder / "output"
        with open(output, "ab") as out:
            command = [_PROGRAMS / "rabbitmq-server"]
            self._process = subprocess.Popen(
                command, env=self._env, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd="/"
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return self
            time.sleep(0.1)
        raise AssertionError(f"RabbitMQ did not start:\n{output.read_text('utf-8', 'replace')[-3000:]}")

    def node(self) -> psutil.Process:
        """The process that is the broker."""
        assert self._process is not None
        started = psutil.Process(self._process.pid)
        return next(one for one in [started, *started.children(recursive=True)] if "beam" in one.name())

    def pause(self) -> None:
        self.node().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.node().send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """No farewell."""
        assert self._process is not None
        started = psutil.Process(self._process.pid)
        family = [started, *started.children(recursive=True)]
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        self._process.wait()
        psutil.wait_procs(family, timeout=10)

    def control(self, *words: str) -> str:
        """What an operator says with rabbitmqctl, and what it answers."""
        command = [_PROGRAMS / "rabbitmqctl", "--node", self._env["RABBITMQ_NODENAME"], *words]
        return subprocess.run(
            command, env=self._env, check=True, capture_output=True, text=True, timeout=60, cwd="/"
        ).stdout

    def close(self) -> None:
        """The broker, and the port mapper that it left behind."""
        self.kill()
        subprocess.run(["epmd", "-port", str(self._mapper), "-kill"], env=self._env, check=False, capture_output=True)

    async def depth(self, queue: str) -> int:
        """Messages ready in a queue."""
        connection = await aiormq.connect(self.url)
        try:
            channel = await connection.channel()
            return (await channel.queue_declare(queue, passive=True)).message_count or 0
        finally:
            await connection.close()

    async def put(self, queue: str, body: bytes) -> None:
        connection = await aiormq.connect(self.url)
        try:
            channel = await connection.channel()
            await channel.basic_publish(body, routing_key=queue, mandatory=True)
        finally:
            await connection.close()
