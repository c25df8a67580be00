# SPDX-License-Identifier: Apache-2.0
"""One server per directory: a lock that is held exactly as long as the server runs.

The server inherits the locked descriptor. So the lock outlives whoever started the server, should that be killed, until
the server has ended too: a second start waits for it and cannot open the same files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from pq_registry import durable
from pq_registry.errors import UsageError

_WAIT_SECONDS = 30.0
_POLL_SECONDS = 0.05


@contextlib.contextmanager
def claimed(directory: Path, *, wait: float = _WAIT_SECONDS) -> Iterator[int]:
    """The descriptor of the directory's lock, for a server to inherit; ours is closed at the end of the block.

    Raises:
        UsageError: if a server still runs there after a while.
        StorageError: if the lock cannot be made.
    """
    path = directory / "lock"
    with durable.reported("make", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise UsageError(
                        f"another process runs the server of {directory}", hint="stop that one first"
                    ) from None
                time.sleep(_POLL_SECONDS)
        yield descriptor
    finally:
        os.close(descriptor)
