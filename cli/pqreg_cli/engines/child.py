# SPDX-License-Identifier: Apache-2.0
"""A server as a child process that cannot outlive this one: it runs under ``guard``, which watches a pipe of ours.

The pipe closes with this process even if that is killed; no signal handler and no exit handler is needed for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pq_registry.errors import StorageError
from pqreg_cli.engines import guard

_START_SECONDS = 60.0
_POLL_SECONDS = 0.02
_GRACE_SECONDS = 20.0
_TAIL_BYTES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How to run a server.

    Attributes:
        name: what people call it.
        argv: the program, by absolute path, and its arguments.
        cwd: its working directory.
        log: the file for its output, made anew.
        owner: the user and group it runs as; None is our own.
        keep: file descriptors it inherits under their numbers.
        stop: the signal that asks it to end.
    """

    name: str
    argv: Sequence[str]
    cwd: Path
    log: Path
    owner: tuple[int, int] | None = None
    keep: tuple[int, ...] = ()
    stop: int = signal.SIGTERM


class Child:
    """A server that runs."""

    def __init__(self, command: Command) -> None:
        """Start it.

        Raises:
            StorageError: if it does not even begin.
        """
        user, group = command.owner or (None, None)
        order = {
            "argv": list(command.argv), "cwd": str(command.cwd), "user": user, "group": group,
            "environment": {"PATH": "/usr/bin:/bin", "HOME": str(command.cwd), "LC_ALL": "C"},
            "keep": list(command.keep), "signal": int(command.stop), "grace": _GRACE_SECONDS,
        }  # fmt: skip
        self._command = command
        with command.log.open("wb") as log:
            self._guard = subprocess.Popen(  # noqa: S603  our own interpreter and script
                [sys.executable, "-I", "-S", guard.__file__, json.dumps(order)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, pass_fds=command.keep,
                start_new_session=True,  # Ctrl-C is for us; what runs here ends after us
            )  # fmt: skip
        assert self._guard.stdout is not None
        with self._guard.stdout as answer:
            line = answer.readline().strip()
        if not line:
            self.stop()
            raise self.failure("cannot be started")
        self.pid = int(line)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._guard.poll() is None

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait for it to be ready; it is stopped if it does not get there.

        Raises:
            StorageError: if it ended, or was not ready in time.
        """
        deadline = time.monotonic() + _START_SECONDS
        while self.running and time.monotonic() < deadline:
            if ready():
                return
            time.sleep(_POLL_SECONDS)
        ended = not self.running
        self.stop()
        raise self.failure("ended at its start" if ended else f"was not ready within {_START_SECONDS:.0f} s")

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        assert self._guard.stdin is not None
        with contextlib.suppress(OSError):
            self._guard.stdin.close()
        self._guard.wait()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it as a crash does, and wait until it has."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        self.stop()

    def failure(self, what: str) -> StorageError:
        """The error that says so, with the end of its log."""
        tail = self._command.log.read_bytes()[-_TAIL_BYTES:].decode("utf-8", errors="replace").strip()
        return StorageError(
            f"{self._command.name} {what}", found=tail or "no output", hint=f"its log is {self._command.log}"
        )
