# SPDX-License-Identifier: Apache-2.0
"""A machine that runs commands on releases with ``pqreg exec``, and what they can say about what they were given."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pq_registry.format.digest import Digest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
LIST = (
    "import json, os, stat, sys\n"
    "found = {}\n"
    "for folder, _, names in os.walk(sys.argv[1]):\n"
    "    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700\n"
    "    for name in names:\n"
    "        path = os.path.join(folder, name)\n"
    "        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600\n"
    "        found[os.path.relpath(path, sys.argv[1])] = open(path, 'rb').read().hex()\n"
    "print(json.dumps({'files': found, 'words': sys.argv[2:], 'environment': dict(os.environ)}))\n"
)


@dataclass(frozen=True)
class Node:
    """A machine with one release in a directory."""

    home: Path
    digest: Digest

    @property
    def place(self) -> Path:
        return self.home / "private"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PQREG_", "XDG_", "HF_"))}
        path = os.pathsep.join(str(ROOT / part) for part in (".", "cli", "keys"))
        return {
            **kept, "PYTHONPATH": path, "HOME": str(self.home), "PQREG_TRUST": str(self.home / "trust.json"),
            "PQREG_PRIVATE_DIR": str(self.place),
        }  # fmt: skip

    def words(self, *more: str) -> list[str]:
        return [sys.executable, "-m", "pqreg_cli", "exec", str(self.home / "r"), "--expect", "acme/minilm", *more]

    def run(self, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.words(*more), env={**self.environment, **variables}, capture_output=True, text=True,
                              timeout=PATIENCE, stdin=subprocess.DEVNULL)  # fmt: skip

    def start(self, code: str) -> subprocess.Popen[str]:
        """Run Python code, which says ``ready`` when it is; {dir} is its argument."""
        process = subprocess.Popen(self.words("-q", "--", sys.executable, "-c", code, "{dir}"), env=self.environment,
                                   stdout=subprocess.PIPE, text=True)  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def is_clean(self) -> bool:
        return not list(self.place.iterdir())
