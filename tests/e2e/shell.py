# SPDX-License-Identifier: Apache-2.0
"""A person at a shell: runs the real ``pqreg`` in a directory and an environment of its own, as a script would."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pq_registry import limits
from tests.stack import variables_for

ROOT = Path(__file__).resolve().parents[2]
PRIVATE = ("PQREG_", "XDG_", "HF_", "AWS_")
READY = re.compile(r"^pqreg: serving on (http://\S+) data (.+)$", re.MULTILINE)


STOP_SECONDS = 3 * limits.DRAIN_SECONDS
"""How long a service may take to stop: requests, then the log, each have ``limits.DRAIN_SECONDS``."""


def stop(process: subprocess.Popen[str], log: Path) -> None:
    """End a service as an operator does. One that does not stop shows where each of its threads is, and is killed."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        process.wait(30)
        raise AssertionError(f"the service did not stop in {STOP_SECONDS} s\n{log.read_text()[-20_000:]}") from None
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    words: tuple[str, ...]
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def problem(self) -> Any:
        return json.loads(self.err)

    def check_presentable(self) -> None:
        """What holds for every command, whatever happened: no traceback, no defect, no escape sequence."""
        for text in (self.out, self.err):
            assert "Traceback" not in text, self
            assert "this should not have happened" not in text, self
            assert "\x1b" not in text, self


class Shell:
    """One person's shell. ``settings`` are exported variables."""

    def __init__(self, root: Path, name: str, **settings: str) -> None:
        self.root = root
        home = root / "home" / name
        home.mkdir(parents=True, exist_ok=True)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(PRIVATE)}
        path = os.pathsep.join(str(ROOT / part) for part in (".", "cli", "keys"))
        self.home = home
        self.environment = {**inherited, "HOME": str(home), "PYTHONPATH": path, "PYTHONFAULTHANDLER": "1", **settings}
        self.environment.pop("NO_COLOR", None)

    def export(self, **settings: str | None) -> None:
        for name, value in settings.items():
            if value is None:
                self.environment.pop(name, None)
            else:
                self.environment[name] = value

    def command(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-m", "pqreg_cli", *map(str, words)]

    def environment_of(self, *words: str | Path) -> dict[str, str]:
        """The variables a command sees: those of this shell, and where the stores are if it works on them."""
        return {**variables_for(words, self.root), **self.environment}

    def run(self, *words: str | Path, stdin: str = "", expect: int | None = 0, timeout: float = 120) -> Ended:
        done = subprocess.run(
            self.command(*words), check=False, capture_output=True, text=True, input=stdin, timeout=timeout,
            cwd=self.root, env=self.environment_of(*words),
        )  # fmt: skip
        ended = Ended(tuple(map(str, words)), done.returncode, done.stdout, done.stderr)
        ended.check_presentable()
        assert expect is None or ended.status == expect, ended
        return ended

    def start(self, *words: str | Path, **options: Any) -> subprocess.Popen[str]:
        environment = self.environment_of(*words)
        return subprocess.Popen(self.command(*words), text=True, cwd=self.root, env=environment, **options)

    @contextmanager
    def serving(self, data: str, *words: str) -> Iterator[tuple[str, Path]]:
        """Run ``pqreg serve`` on a free port; gives its URL and the file its standard error goes to."""
        log = self.root / f"{data}.log"
        with log.open("w") as file:
            process = self.start("serve", "--data", data, "--listen", "127.0.0.1:0", *words, stderr=file, stdout=file)
        try:
            deadline = time.monotonic() + 60
            while (ready := READY.search(log.read_text())) is None:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)  # between two looks at the log; the deadline above decides
            yield ready[1], log
        finally:
            stop(process, log)
