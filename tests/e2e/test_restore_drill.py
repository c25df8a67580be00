# SPDX-License-Identifier: Apache-2.0
"""The scripted restore drill runs, and the commands of a registry's care on either stack."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import stack
from tests.e2e.shell import ROOT, Shell
from tests.server_harness import RunningRegistry
from tests.stored import change_blob, largest_blob


@pytest.mark.directory_only("the script makes its own registry")
def test_the_drill(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pqreg").write_text(f'#!/bin/sh\nexec {sys.executable} -m pqreg_cli "$@"\n')
    (tmp_path / "bin" / "pqreg").chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PQREG_", "XDG_"))}
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "cli", "keys"))
    ended = subprocess.run(
        ["sh", ROOT / "deploy" / "restore-drill.sh", "--megabytes", "1", "--releases", "2", "--json",
         tmp_path / "times.json", tmp_path / "work"],
        env={**inherited, "PATH": f"{tmp_path / 'bin'}:{inherited['PATH']}", "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    times = json.loads((tmp_path / "times.json").read_text())
    assert set(times["milliseconds"]) == {
        "publish", "backup", "restore and verify", "start", "fetch everything", "fsck"
    }  # fmt: skip
    assert json.loads((tmp_path / "work" / "restored.json").read_text())["log"] == "whole"


def test_care_of_a_registry_beside_its_service(registry: RunningRegistry, tmp_path: Path) -> None:
    """Backup, restore elsewhere with blobs from the first one, damage, repair over HTTP, collection."""
    registry.publish()
    shell = Shell(tmp_path, "operator")
    made = shell.run("backup", "backup", "--data", registry.data, "--json").json
    assert made["blobs"] > 0
    checkpoint = tmp_path / "checkpoint"
    checkpoint.write_bytes(registry.request("GET", "/log/checkpoint").body)
    token = tmp_path / "token"
    assert registry.token is not None
    token.write_text(registry.token)
    restored = shell.run(
        "restore", "backup", "--data", "other", "--checkpoint", checkpoint, "--repair-from", registry.url,
        "--repair-token-file", token, "--json",
    ).json  # fmt: skip
    assert (restored["log"], restored["lost"]) == ("whole", [])
    assert [item for item in restored["findings"] if not item["note"]] == []
    assert sum(item["subject"].startswith("blob ") for item in restored["repaired"]) == made["blobs"]
    assert shell.run("fsck", "--data", "other", "--json").json["findings"] == []
    again = shell.run("restore", "backup", "--data", "other", expect=2)
    assert "not empty" in again.err

    blob = largest_blob(tmp_path / "other")
    change_blob(tmp_path / "other", blob, lambda content: content[:-1] + b"?")
    assert str(blob) in shell.run("fsck", "--data", "other", "--repair", expect=1).out
    mended = shell.run("fsck", "--data", "other", "--repair-from", registry.url, "--repair-token-file", token)
    assert "were fetched from" in mended.out
    assert registry.token not in mended.out + mended.err
    assert shell.run("gc", "--data", "other", "--dry-run", "--json").json["collected"] == []
    assert "removed nothing" in shell.run("gc", "--data", "other").out
    refused = shell.run("gc", "--data", "other", "--grace", "1m", expect=2)
    assert "at least 3600 seconds" in refused.err
    stack.forget_below(tmp_path)
    shutil.rmtree(tmp_path / "other")


@pytest.mark.directory_only("it copies the files of the log")
def test_gc_refuses_a_catalogue_that_is_behind(registry: RunningRegistry, tmp_path: Path) -> None:
    """A catalogue that has not seen what the store's log shows must not decide what is garbage."""
    release = registry.publish()
    shell = Shell(tmp_path, "operator")
    shell.run("backup", "backup", "--data", registry.data)
    shell.run("restore", "backup", "--data", "behind", expect=1)  # its blobs are missing
    assert registry.put_tag(release).status == 201
    shutil.rmtree(tmp_path / "behind" / "log")
    shutil.copytree(registry.data / "log", tmp_path / "behind" / "log")
    ended = shell.run("gc", "--data", "behind", "--dry-run", expect=3)
    assert "not the newest of this store" in ended.err
