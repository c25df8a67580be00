# SPDX-License-Identifier: Apache-2.0
"""strace as a saboteur: makes the n-th system call of a kind fail, or kills the process at it."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

STRACE = shutil.which("strace")
needs_strace = pytest.mark.skipif(STRACE is None, reason="strace is not installed (apt install strace)")
MODES = {"EIO": "error=EIO", "SIGKILL": "signal=SIGKILL"}
_HIT = re.compile(r"\(INJECTED\)|killed by SIGKILL")


def injecting(trace: Path, calls: str, mode: str, number: int, paths: Sequence[Path] = ()) -> list[str]:
    """The command that runs what follows it and sabotages the ``number``-th of ``calls`` of each of its threads.

    ``calls`` is strace's list; a leading ``?`` allows for systems that do not have the call. With ``paths`` only
    calls about them, or relative to them, count.
    """
    assert STRACE is not None
    chosen = [word for path in paths for word in ("-P", str(path))]
    inject = f"inject={calls}:{MODES[mode]}:when={number}"
    # With its seccomp filter strace is much faster, but does not send the signal.
    filtered = ["--seccomp-bpf"] if mode == "EIO" else []
    return [STRACE, "-f", *filtered, "-o", str(trace), "-e", f"trace={calls}", "-e", inject, *chosen]


def was_hit(trace: Path) -> bool:
    """Whether the sabotage took place."""
    return bool(_HIT.search(trace.read_text(errors="replace")))


@contextlib.contextmanager
def attached(pid: int, trace: Path, calls: str, mode: str, number: int) -> Iterator[None]:
    """Sabotage a process that runs already; counting starts now."""
    command = [word for word in injecting(trace, calls, mode, number) if word != "--seccomp-bpf"]
    saboteur = subprocess.Popen([*command, "-p", str(pid)], stderr=subprocess.PIPE, text=True)
    assert saboteur.stderr is not None
    try:
        deadline = time.monotonic() + 30
        seen = ""
        while "attached" not in seen:
            line = saboteur.stderr.readline()
            if not line:
                pytest.skip(f"strace may not attach to another process here: {seen.strip()}")
            seen += line
            assert time.monotonic() < deadline
        yield
    finally:
        saboteur.send_signal(signal.SIGINT)
        try:
            saboteur.wait(30)
        except subprocess.TimeoutExpired:  # it waits for a process that it lost; its trace is written all the same
            saboteur.kill()
            saboteur.wait()
        saboteur.stderr.close()
