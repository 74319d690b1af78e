"""Other people's web servers that answer one body beside ours: node's http, granian, uvicorn; only when asked for.

granian and uvicorn are installed with pip into ``bench/.cache/python``, which git does not see, at the first use; they
run a bare ASGI function. Must not know: our server, or how load is made.
"""

import subprocess
import venv
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from bench.tools.launch import LaunchError, accepts, free_endpoint, require_program, running
from bench.tools.target import Endpoint

_CACHE: Final = Path(__file__).parents[1] / ".cache" / "python"
_PACKAGES: Final = ("granian==2.8.7", "uvicorn==0.54.0", "httptools==0.9.0", "uvloop==0.23.0")
_INSTALL_SECONDS: Final = 240

_ASGI: Final = """\
from pathlib import Path
BODY = Path(__file__).with_name("body").read_bytes()
START = {"type": "http.response.start", "status": 200, "headers": [
    (b"content-type", b"application/json; charset=utf-8"), (b"content-length", b"%d" % len(BODY))]}
END = {"type": "http.response.body", "body": BODY}
async def app(scope, receive, send):
    await send(START)
    await send(END)
"""
_NODE: Final = """\
const cluster = require('cluster'), http = require('http'), body = require('fs').readFileSync(process.argv[3]);
if (cluster.isPrimary) { for (let i = 0; i < Number(process.argv[4]); i++) cluster.fork(); }
else http.createServer((request, response) => {
  response.writeHead(200, { 'Content-Type': 'application/json; charset=utf-8', 'Content-Length': body.length });
  response.end(body);
}).listen(Number(process.argv[2]), '127.0.0.1');
"""


def _python() -> Path:
    """The interpreter of an environment that has the packages, made first where it is not."""
    python, done = _CACHE / "bin" / "python", _CACHE / "installed"
    wanted = " ".join(_PACKAGES)
    if done.exists() and done.read_text() == wanted:
        return python
    venv.create(_CACHE, with_pip=True, clear=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *_PACKAGES]
    made = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    if made.returncode:
        raise LaunchError(f"pip could not install {wanted}: {made.stderr.strip()[-500:]}")
    done.write_text(wanted)
    return python


def _node(home: Path, endpoint: Endpoint, workers: int) -> list[str]:
    (home / "server.js").write_text(_NODE)
    node = require_program("node", "nodejs")
    return [node, str(home / "server.js"), str(endpoint.port), str(home / "body"), str(workers)]


def _granian(home: Path, endpoint: Endpoint, workers: int) -> list[str]:
    (home / "answer.py").write_text(_ASGI)
    command = [str(_python()), "-m", "granian", "--interface", "asginl", "--loop", "uvloop", "--no-ws", "--no-log"]
    command += ["--host", endpoint.host, "--port", str(endpoint.port), "--workers", str(workers)]
    return [*command, "--working-dir", str(home), "answer:app"]


def _uvicorn(home: Path, endpoint: Endpoint, workers: int) -> list[str]:
    (home / "answer.py").write_text(_ASGI)
    command = [str(_python()), "-m", "uvicorn", "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    command += ["--log-level", "warning", "--host", endpoint.host, "--port", str(endpoint.port)]
    return [*command, "--workers", str(workers), "--app-dir", str(home), "answer:app"]


@contextmanager
def _server(
    name: str, command: Callable[[Path, Endpoint, int], list[str]], work: Path, workers: int, body: bytes
) -> Iterator[tuple[Endpoint, tuple[int, ...]]]:
    home, endpoint = work / name, free_endpoint()
    home.mkdir()
    (home / "body").write_bytes(body)
    made = command(home, endpoint, workers)
    with running(made, work / f"{name}.log", lambda: accepts(endpoint)) as pid:
        yield endpoint, (pid,)


Answerer = Callable[[Path, int, bytes], AbstractContextManager[tuple[Endpoint, tuple[int, ...]]]]
ANSWERERS: Final[dict[str, Answerer]] = {
    "node": partial(_server, "node", _node),
    "granian": partial(_server, "granian", _granian),
    "uvicorn": partial(_server, "uvicorn", _uvicorn),
}
