# SPDX-License-Identifier: Apache-2.0
"""Kills a witness at each system call of one answer, before and after it; run as a program, by its test.

Every point has a process of its own (a fork, so that this is quick) that asks a fresh witness to move from 5 to 8
leaves and dies on the way. Then the state is opened again and judged. Prints one line per point: the call, whether the
process lived to answer, and the size the witness came back with.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from pq_registry.storage.witnessstate import WitnessState
from tests.logsamples import MemoryLog
from tests.witnessing import Hand, grow, grown, make_witness, request_of

CALLS = ("open", "fsync", "rename", "unlink", "fchmod", "close", "link")
ORIGIN = "log.example/pqreg"


def dying_at(number: int, *, after: bool) -> None:
    """Kill this process at the ``number``-th of ``CALLS`` from now."""
    counter = itertools.count(1)

    def deadly(name: str, call: Any) -> Any:
        def wrapper(*args: Any, **options: Any) -> Any:
            due = next(counter) == number
            if due:
                print(name, flush=True)
            if due and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **options)
            if due:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapper

    for name in CALLS:
        setattr(os, name, deadly(name, getattr(os, name)))


def point(root: Path, log: MemoryLog, fork: MemoryLog, number: int, *, after: bool) -> bool:
    """One point; whether the process was killed there."""
    pid = os.fork()
    if pid == 0:
        with WitnessState(root) as state:
            witness = make_witness(log, store=state, clock=Hand(seconds=10))
            request = request_of(log, 5).encode()
            dying_at(number, after=after)
            status = witness.add_checkpoint(request).status
        os._exit(0 if status == 200 else 1)
    killed = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert killed in (0, -signal.SIGKILL), killed
    with WitnessState(root) as state:
        witness = make_witness(log, store=state, clock=Hand(seconds=20))
        size = witness.size(ORIGIN)
        assert size == 8 if killed == 0 else size in (5, 8), (killed, size)
        # Whatever survived, a second history is not cosigned, and the first one goes on.
        assert witness.add_checkpoint(request_of(fork, size).encode()).status == 422
        assert witness.add_checkpoint(request_of(log, size).encode()).status == 200
        assert not list(state.folder(ORIGIN).glob("*.tmp"))
    print(f"  {'after' if after else 'before'}: {'answered' if killed == 0 else 'killed'}, {size} leaves", flush=True)
    return killed != 0


def main(folder: Path) -> None:
    """Every point until the witness lives through it."""
    log = grown(5)
    first = request_of(log, 0).encode()
    fork = log.fork(3)
    fork.append_raw(*(f"other {number}".encode() for number in range(5)))
    grow(log, 3)
    points = 0
    for number in itertools.count(1):
        killed = False
        for after in (False, True):
            root = folder / "state"
            with WitnessState(root) as state:
                make_witness(log, store=state, clock=Hand()).add_checkpoint(first)
            killed = point(root, log, fork, number, after=after)
            points += killed
            shutil.rmtree(root)
        if not killed:
            break
    print(f"points {points}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
