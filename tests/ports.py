"""Free ports for servers that have to be told theirs."""

import os
import random
import socket
from contextlib import closing

# Below the ports that Linux gives to whoever asks for any: nobody but those who call this comes upon one of these.
# Each process of a run has a share of its own: one that another is about to listen on looks free.
_SHARES = 4
_TOLD = range(10_000 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % _SHARES, 32_000, _SHARES)
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """TCP ports that are free and were not given before; drawn by lot, as other runs draw too."""
    free: list[int] = []
    for port in random.sample(_TOLD, len(_TOLD)):
        if len(free) == count:
            break
        if port in _given:
            continue
        with closing(socket.socket()) as probe:
            try:
                probe.bind(("", port))
            except OSError:  # taken
                continue
        free.append(port)
    _given.update(free)
    return free
