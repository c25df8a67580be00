# SPDX-License-Identifier: Apache-2.0
"""A process that opens a log and appends, to be killed: ``python -m tests.faults.log_worker ROOT FIRST COUNT THREADS``.

It says ``open`` once the log has started, and ``ack NUMBER INDEX`` for each statement whose receipt could be made.
Whatever refuses ends it with status 3 and the name of the error.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pq_registry.errors import PqregError
from tests.local_log import LocalLog


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def main(root: str, first: str, count: str, threads: str) -> int:
    """Append ``count`` statements from number ``first`` on."""
    try:
        log = LocalLog.open(Path(root))
    except PqregError as error:
        say(f"refused {type(error).__name__} {error}")
        return 3
    say("open")

    def append(number: int) -> int:
        try:
            say(f"ack {number} {log.append(number)[0].index}")
        except PqregError as error:
            say(f"failed {type(error).__name__} {error}")
            return 3
        return 0

    with ThreadPoolExecutor(int(threads)) as workers:
        status = max(workers.map(append, range(int(first), int(first) + int(count))))
    log.close()
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
