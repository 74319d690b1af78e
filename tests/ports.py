"""Free ports for servers that have to be told theirs."""

import random
import socket
from contextlib import closing

# Below the ports that Linux gives to whoever asks for any: nobody but those who call this comes upon one of these.
_TOLD = range(10_000, 32_000)


def free_ports(count: int) -> list[int]:
    """TCP ports that nobody listens on at this moment, all different; drawn by lot, as other runs draw too."""
    free: list[int] = []
    for port in random.sample(_TOLD, len(_TOLD)):
        if len(free) == count:
            break
        with closing(socket.socket()) as probe:
            try:
                probe.bind(("", port))
            except OSError:  # taken
                continue
        free.append(port)
    return free
