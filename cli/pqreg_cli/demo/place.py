# SPDX-License-Identifier: Apache-2.0
"""Where the demo happens: a temporary directory, real ``pqreg`` commands in it, and nothing left behind.

Every command is a process of its own with a home of its own, so nothing of the user's is read or written. Whatever
ends the demo, leaving the ``Place`` stops what it started and removes what it wrote: an error, Ctrl-C, SIGTERM and
SIGHUP. Should the demo itself be killed, the kernel ends its children (Linux), and the directory is left.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Self

import pq_registry
import pqreg_cli
import pqreg_keys
from pq_registry.errors import PqregError
from pq_registry.settings import private_environment

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_READY = re.compile(r"(?:serving|witnessing|gateway) on (http://\S+)")
_START_SECONDS = 30.0
_STOP_SECONDS = 5.0
_COMMAND_SECONDS = 120.0
# 1 is PR_SET_PDEATHSIG: the kernel sends the signal when the parent dies. exec keeps the setting.
_DIE_WITH_PARENT = (
    "import sys, os, signal, ctypes, contextlib\n"
    "with contextlib.suppress(Exception): ctypes.CDLL(None).prctl(1, signal.SIGKILL)\n"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


class DemoFailed(PqregError):
    """Something in the demo was not as it must be; a defect, or a machine that is out of something."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody at a shell: a home and the settings in it."""

    name: str
    settings: dict[str, str]

    def having(self, **settings: str | None) -> Person:
        """The same person with other settings; None removes one."""
        merged: dict[str, str | None] = {**self.settings, **settings}
        return Person(self.name, {name: value for name, value in merged.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str
    seconds: float


class Place:
    """The temporary directory and the processes in it; a context manager."""

    def __init__(self) -> None:
        """Nothing is made before it is entered; ``removed`` tells whether all of it is gone again."""
        self.removed = False
        self._processes: list[subprocess.Popen[bytes]] = []
        self._previous: dict[signal.Signals, signal._HANDLER] = {}
        self._starting = False
        self._interrupted = False

    def __enter__(self) -> Self:
        """Make the directory, and let signals end the demo in order."""
        self._previous = {number: signal.signal(number, self._interrupt) for number in _SIGNALS}
        self.root = Path(tempfile.mkdtemp(prefix="pqreg-demo-"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop and remove everything; further signals wait until that is done."""
        handlers = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
        try:
            for process in self._processes:
                _stop(process)
            shutil.rmtree(self.root, ignore_errors=True)
            if self.root.exists():
                raise DemoFailed(f"{self.root} could not be removed", hint=f"rm -r {self.root}")
            self.removed = True
        finally:
            for number, handler in {**handlers, **self._previous}.items():
                signal.signal(number, handler)

    def run(self, person: Person, words: list[str], *, program: tuple[str, ...] = ("-m", "pqreg_cli")) -> Outcome:
        """Run a command (of Python's, by default ``pqreg``) to its end."""
        begun = time.monotonic()
        process = self._start(person, [*program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=_COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            raise DemoFailed(
                f"`{' '.join(words)}` took too long", expected=f"less than {_COMMAND_SECONDS:.0f} s"
            ) from None
        self._processes.remove(process)
        return Outcome(process.returncode, out.decode(), err.decode(), time.monotonic() - begun)

    def start(self, person: Person, words: list[str]) -> subprocess.Popen[bytes]:
        """Start a ``pqreg`` command whose output nobody wants; it ends with the demo at the latest."""
        return self._start(person, ["-m", "pqreg_cli", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def registry(self, person: Person, data: str) -> str:
        """Start a registry service on a free port; answers its URL once it is ready."""
        return self.serve(person, ["serve", "--data", data, "--listen", "127.0.0.1:0"], log=f"{data}.log")

    def serve(self, person: Person, words: list[str], *, log: str) -> str:
        """Start a service that writes to the file ``log``; answers its URL once it is ready."""
        path = self.root / log
        with path.open("wb") as file:
            process = self._start(person, ["-m", "pqreg_cli", *words], stdout=file, stderr=file)
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            ready = _READY.search(path.read_text(errors="replace"))
            if ready:
                return ready[1]
            time.sleep(0.02)
        raise DemoFailed(
            f"`pqreg {' '.join(words)}` did not start",
            expected=f"its ready line within {_START_SECONDS:.0f} s",
            found=path.read_text(errors="replace")[-2000:] or "no output",
        )

    def _start(
        self, person: Person, words: list[str], *, stdout: int | IO[bytes], stderr: int | IO[bytes]
    ) -> subprocess.Popen[bytes]:
        home = self.root / "home" / person.name
        home.mkdir(parents=True, exist_ok=True)
        packages = {str(Path(package.__file__ or "").parents[1]) for package in (pq_registry, pqreg_cli, pqreg_keys)}
        environment = private_environment(home, {**person.settings, "PYTHONPATH": ":".join(sorted(packages))})
        # A signal between the start of a process and its entry in the list would leave it to nobody.
        self._starting = True
        try:
            process = subprocess.Popen(  # noqa: S603  our own interpreter and words
                [sys.executable, "-c", _DIE_WITH_PARENT, *words],
                cwd=self.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C ends the demo, and the demo ends its children
            )
            self._processes.append(process)
        finally:
            self._starting = False
        if self._interrupted:
            raise KeyboardInterrupt
        return process

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._starting:
            self._interrupted = True
        else:
            raise KeyboardInterrupt


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
