# SPDX-License-Identifier: Apache-2.0
"""Runs one server for another process and ends it when that process ends, however it ends. A script of its own.

It knows nothing of the packages around it (``python -I -S guard.py``), so it starts in a moment::

    argv[1]   the order, as JSON: argv, cwd, environment, user, group, keep, signal, grace
    stdin     a pipe: its end says that the other process is gone or wants the server to stop
    stdout    one line, the server's process id
    stderr    where the server's output goes

A server that does not follow the signal within ``grace`` seconds is killed. ``keep`` are file descriptors it inherits.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from types import FrameType
from typing import Any


def main() -> int:
    """Run the server; answers its exit status."""
    order: dict[str, Any] = json.loads(sys.argv[1])
    server = subprocess.Popen(  # noqa: S603  what to run is the whole purpose; it comes from our own process
        order["argv"], cwd=order["cwd"], env=order["environment"], pass_fds=order["keep"],
        user=order["user"], group=order["group"], extra_groups=None if order["user"] is None else [],
        stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr,
    )  # fmt: skip

    def stop() -> None:
        server.send_signal(order["signal"])
        try:
            server.wait(order["grace"])
        except subprocess.TimeoutExpired:
            server.kill()

    def watch() -> None:
        # Not sys.stdin: a thread in it would keep the interpreter from ending.
        while os.read(0, 64):
            pass
        stop()

    def told(_number: int, _frame: FrameType | None) -> None:
        threading.Thread(target=stop, daemon=True).start()

    signal.signal(signal.SIGTERM, told)
    threading.Thread(target=watch, daemon=True).start()
    sys.stdout.write(f"{server.pid}\n")
    sys.stdout.flush()
    return abs(server.wait())


if __name__ == "__main__":
    sys.exit(main())
