# SPDX-License-Identifier: Apache-2.0
"""Unmodified clients of the Hub, each in a process of its own: the newest, an older one that is pinned, JavaScript's.

The newest is that of this environment. The pinned one (``requirements/hub-pinned.txt``) is in a virtual environment of
its own, ``.venv-hub`` or where the variable HUB_VENV says; the one for Node.js (``tests/js``) in ``build/js``. ``make
hub-clients`` makes both. Where one is missing, its tests are skipped and say so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PINNED = ROOT / os.environ.get("HUB_VENV", ".venv-hub") / "bin" / "python"
NODE_MODULES = ROOT / os.environ.get("HUB_JS", "build/js") / "node_modules"
NODE = shutil.which("node")
DRIVER = ROOT / "tests" / "hub_driver.py"
SECONDS = 300


class Refused(Exception):
    """A step of a client ended with an exception of its own."""

    def __init__(self, kind: str, message: str, status: int | None) -> None:
        super().__init__(f"{kind} ({status}): {message}")
        self.kind = kind
        self.message = message
        self.status = status


Step = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Client:
    """A version of ``huggingface_hub`` with its environment; ``home`` is where it keeps what it downloads."""

    name: str
    python: Path
    home: Path
    environment: Mapping[str, str]

    def outcomes(self, *steps: Step, **variables: str) -> list[Any]:
        """What each step answered; a ``Refused`` in the place of one that failed."""
        done = subprocess.run(
            [self.python, DRIVER], input=json.dumps(steps), env={**self.environment, **variables}, cwd=self.home,
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-4000:])
        answers = json.loads(done.stdout)["answers"]
        return [
            Refused(one["error"], one["message"], one["status"]) if "error" in one else one["value"] for one in answers
        ]

    def run(self, *steps: Step, **variables: str) -> list[Any]:
        """What each step answered; all must succeed."""
        found = self.outcomes(*steps, **variables)
        for (name, arguments), one in zip(steps, found, strict=True):
            assert not isinstance(one, Refused), f"{self.name} {name}({arguments}): {one}"
        return found

    def call(self, step: str, /, **arguments: Any) -> Any:
        """What one step answered."""
        return self.run((step, arguments))[0]

    def refused(self, step: str, /, **arguments: Any) -> Refused:
        """How one step failed."""
        (found,) = self.outcomes((step, arguments))
        assert isinstance(found, Refused), found
        return found

    def hf(
        self, *words: str | Path, expect: int | None = 0, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the ``hf`` command of this version."""
        environment = {**self.environment, **(variables or {})}
        done = subprocess.run(
            [self.python.with_name("hf"), *map(str, words)], env=environment, cwd=self.home, capture_output=True,
            text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert expect is None or done.returncode == expect, (words, done.stdout[-3000:], done.stderr[-3000:])
        return done


def client(name: str, home: Path, environment: Mapping[str, str]) -> Client:
    """The ``newest`` or the ``pinned`` client; skips the test if it is not installed."""
    python = Path(sys.executable) if name == "newest" else PINNED
    if not python.exists():
        pytest.skip("the pinned huggingface_hub is not installed (make hub-clients)")
    home.mkdir(parents=True, exist_ok=True)
    return Client(name, python, home, environment)


def run_node(script: Path, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> Any:
    """What a script that uses ``@huggingface/hub`` prints as JSON; skips the test if it is not installed."""
    if NODE is None or not (NODE_MODULES / "@huggingface" / "hub").is_dir():
        pytest.skip("@huggingface/hub is not installed (make hub-clients; needs node and npm)")
    done = subprocess.run(
        [NODE, script, json.dumps(arguments)], env={**environment, "HUB_MODULES": str(NODE_MODULES)},
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout[-3000:], done.stderr[-4000:])
    return json.loads(done.stdout)
