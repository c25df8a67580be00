# SPDX-License-Identifier: Apache-2.0
"""Shell scripts under deploy/: they parse, stop at the first error, are executable, and do what they promise."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.tooling import DEPLOY, find, needs, run, scripts

SCRIPTS = scripts()
DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(DEPLOY).as_posix())
def test_scripts_parse_and_stop_at_the_first_error(script: Path) -> None:
    text = script.read_text()
    shell = "bash" if "bash" in text.splitlines()[0] else "sh"
    run(shell, "-n", script)
    assert re.search(r"^set -eu", text, re.MULTILINE)
    assert text.splitlines()[1] == "# SPDX-License-Identifier: Apache-2.0"
    assert os.access(script, os.X_OK)


@needs("shellcheck")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(DEPLOY).as_posix())
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    run("shellcheck", script)


def program(directory: Path, name: str, text: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that stands first in the PATH."""
    directory = tmp_path / "tools"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
    return directory


def backup(directory: Path, **environment: Any) -> subprocess.CompletedProcess[str]:
    return run(DEPLOY / "backup" / "pqreg-backup", status=None, BACKUP_DIR=str(directory), **environment)


def test_a_backup_gets_its_name_when_it_is_whole(tools: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    program(tools, "pqreg", 'mkdir "$2" && echo "$@" > "$2/arguments"')
    done = backup(kept)
    assert done.returncode == 0, done.stderr
    (made,) = kept.iterdir()
    assert re.fullmatch(r"pqreg-\d{8}T\d{6}Z", made.name)
    assert done.stdout.strip() == str(made)
    assert (made / "arguments").read_text().startswith("backup ")
    assert kept.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("what", ["pqreg", "hook"])
def test_a_backup_that_fails_removes_nothing_and_leaves_none(tools: Path, tmp_path: Path, what: str) -> None:
    kept = tmp_path / "kept"
    old = [kept / f"pqreg-20260101T00000{number}Z" for number in range(3)]
    for path in old:
        path.mkdir(parents=True)
    program(tools, "pqreg", 'mkdir "$2"' + ("; exit 3" if what == "pqreg" else ""))
    program(tools, "hook", "exit 7")
    done = backup(kept, BACKUP_KEEP="1", BACKUP_HOOK=str(tools / "hook") if what == "hook" else "")
    assert done.returncode == (3 if what == "pqreg" else 7)
    assert all(path.is_dir() for path in old)
    named = {path.name for path in kept.iterdir() if not path.name.startswith(".")}
    assert len(named) == (3 if what == "pqreg" else 4)


def test_only_the_oldest_backups_are_removed_and_nothing_of_another_name(tools: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    for name in ("pqreg-20260101T000000Z", "pqreg-20260102T000000Z", "notes", "pqreg-later", ".unfinished-pqreg-x"):
        (kept / name).mkdir(parents=True)
    program(tools, "pqreg", 'mkdir "$2"')
    program(tools, "hook", f'echo "$1" > {tmp_path}/told')
    assert backup(kept, BACKUP_KEEP="2", BACKUP_HOOK=str(tools / "hook")).returncode == 0
    names = sorted(path.name for path in kept.iterdir())
    assert names[:3] == ["notes", "pqreg-20260102T000000Z", names[2]]
    assert names[3:] == ["pqreg-later"]
    assert (tmp_path / "told").read_text().strip() == str(kept / names[2])


@pytest.mark.parametrize("number", ["0", "-1", "many", "1;2"])
def test_a_number_of_backups_that_is_none_is_refused(tools: Path, tmp_path: Path, number: str) -> None:
    program(tools, "pqreg", "exit 9")
    assert backup(tmp_path / "kept", BACKUP_KEEP=number).returncode == 2


def test_pinning_writes_the_digest_of_every_image(tools: Path, tmp_path: Path) -> None:
    program(tools, "skopeo", 'printf "%s" "$3"')  # "the manifest" is the name, so digests differ
    lines = run(DEPLOY / "container" / "pin").stdout.splitlines()
    wanted = [
        line
        for line in (DEPLOY / "container" / "images.env").read_text().splitlines()
        if "=" in line and line[0] != "#"
    ]
    assert len(lines) == len(wanted) == len(set(lines))
    for line, plain in zip(lines, wanted, strict=True):
        assert re.fullmatch(re.escape(plain) + r"@sha256:[0-9a-f]{64}", line)
    mirrored = run(DEPLOY / "container" / "pin", DEPLOY / "container" / "images.env", "mirror.example.org").stdout
    assert "docker.io" not in mirrored
    assert "=mirror.example.org/library/python:" in mirrored


@pytest.mark.parametrize("tool", ["exit 1", "true", "echo unknown >&2"])
def test_an_image_without_digest_is_not_pinned(tools: Path, tool: str) -> None:
    program(tools, "skopeo", tool)
    done = run(DEPLOY / "container" / "pin", status=1)
    assert done.stdout == ""
    assert "no digest for docker.io/" in done.stderr


@pytest.mark.parametrize("base", ["python:3.13", "python:3.13@sha256:0123", f"python@sha512:{DIGEST}"])
def test_nothing_is_built_from_a_base_image_without_digest(tools: Path, base: str) -> None:
    program(tools, "podman", "echo built")
    done = run(DEPLOY / "container" / "build", status=2, PYTHON_IMAGE=base)
    assert "built" not in done.stdout


def test_the_image_is_built_with_its_base_pinned(tools: Path, tmp_path: Path) -> None:
    if find("git") is None:
        pytest.skip("git is not installed")
    program(tools, "podman", f'echo "$@" > {tmp_path}/arguments')
    base = f"docker.io/library/python:3.13@sha256:{DIGEST}"
    run(DEPLOY / "container" / "build", "registry.example.org/x:1", PYTHON_IMAGE=base)
    words = (tmp_path / "arguments").read_text().split()
    assert words[0] == "build"
    assert f"PYTHON_IMAGE={base}" in words
    assert words[words.index("--file") + 1] == "deploy/container/Containerfile"
    assert words[words.index("--tag") + 1] == "registry.example.org/x:1"
