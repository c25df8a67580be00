# SPDX-License-Identifier: Apache-2.0
"""Programs that check what lies under deploy/: found in the PATH or where ``make deploy-tools`` puts them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
_BUILT = ROOT / "build" / "deploy-tools" / "bin"


def find(name: str) -> str | None:
    """The program's path, or None if it is not installed."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), str(_BUILT), "/usr/sbin"]))


def needs(*names: str) -> pytest.MarkDecorator:
    """Skips a test where a program is missing, and says which."""
    missing = [name for name in names if find(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not installed (make deploy-tools)")


def run(
    *words: str | Path, cwd: Path | None = None, status: int | None = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program; its status must be ``status``."""
    program = find(str(words[0]))
    assert program is not None
    done = subprocess.run(
        [program, *map(str, words[1:])],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    assert status is None or done.returncode == status, done.stdout + done.stderr
    return done


def scripts() -> Sequence[Path]:
    """Every shell script under deploy/, by its first line."""
    return sorted(
        path
        for path in DEPLOY.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and path.read_bytes()[:20].startswith((b"#!/bin/sh", b"#!/usr/bin/env bash"))
    )
