# SPDX-License-Identifier: Apache-2.0
"""Free TCP ports on loopback for servers that are told theirs.

Another process may take a port between our look and its use; whoever starts a server tries again with other ports.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable

LOOPBACK = "127.0.0.1"
_LOWEST, _HIGHEST = 20_000, 30_000
"""Below the ports that systems hand out to connections (32768 on Linux)."""


def is_free(port: int) -> bool:
    """Whether nothing listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def answers(port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def free_ports(count: int, *, twins: Iterable[int] = ()) -> list[int]:
    """Ports nothing listens on, all different.

    Args:
        count: how many.
        twins: those of them, by position, whose port + 10000 must be free as well.
    """
    source = random.SystemRandom()
    wanted = frozenset(twins)
    found: list[int] = []
    while len(found) < count:
        port = source.randrange(_LOWEST, _HIGHEST)
        if port not in found and is_free(port) and (len(found) not in wanted or is_free(port + 10_000)):
            found.append(port)
    return found
