# SPDX-License-Identifier: Apache-2.0
"""The script for a machine with a GPU, without one: every part of it runs, and what is wrong is not hidden."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch (make test-torch)")
pytest.importorskip("triton", reason="needs triton (make test-torch)")

from tests.benchmarks import gpu, gpukernels  # noqa: E402

pytestmark = pytest.mark.torch
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_whole_script_runs_without_a_gpu(tmp_path: Path) -> None:
    told = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.gpu", "--simulate", "--base", tmp_path, "--json", told],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, timeout=290,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(told.read_text())
    assert found["simulated"] is True and found["failures"] == []
    assert found["kernels right"]["flipped bits found"] == 1
    assert found["load"]["a flipped bit"] == "refused by 2 of 2"
    assert {name for name in found["load"] if name.startswith("pqreg")} == {
        "pqreg, checked by the cpu", "pqreg sealed, checked by the cpu",
    }  # fmt: skip
    assert "not measured" in json.dumps(found["GB/s"])


def test_a_part_that_fails_is_told_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(*_: object, **__: object) -> dict[str, object]:
        raise AssertionError("a digest differs")

    monkeypatch.setattr(gpukernels, "check", wrong)
    monkeypatch.setattr(gpukernels, "rates", lambda *_, **__: {"BLAKE3": {"median": 1.5}})
    monkeypatch.setattr(gpukernels, "prepare", lambda _: None)
    loaded = {"pqreg": {"s": 2.0}, "peer": "failed: OSError: no memory"}
    monkeypatch.setattr("tests.benchmarks.gpuloads.measure", lambda *_: loaded)
    arguments = argparse.Namespace(simulate=True, json=tmp_path / "out" / "gpu.json", base=tmp_path)
    assert gpu.run(arguments, tmp_path) == 1
    found = json.loads(arguments.json.read_text())
    assert found["failures"] == [
        "kernels right: AssertionError: a digest differs", "load: peer: failed: OSError: no memory",
    ]  # fmt: skip
    assert found["load"] == loaded
    said = capsys.readouterr()
    assert "FAILED kernels right" in said.err
    assert "BLAKE3  median 1.5" in said.out


def test_wheels_are_unpacked_onto_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    with zipfile.ZipFile(tmp_path / "x-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("a_wheel_of_this_test/__init__.py", "there = 3\n")
    gpu.unpack(tmp_path, tmp_path / "unpacked")
    import a_wheel_of_this_test  # type: ignore[import-not-found]

    assert a_wheel_of_this_test.there == 3


def test_tensors_that_are_not_the_files_are_found(tmp_path: Path) -> None:
    import numpy as np

    from tests.tensors import safetensors_bytes

    content, truth = safetensors_bytes({"w": ("F32", (5, 3)), "none": ("F32", (0,))}, 1)
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in truth.items()}
    gpukernels.same_as_files(tensors, [path])
    tensors["w"][4, 2] += 1
    with pytest.raises(AssertionError, match="w"):
        gpukernels.same_as_files(tensors, [path])
    del tensors["w"]
    with pytest.raises(KeyError):
        gpukernels.same_as_files(tensors, [path])


def test_a_machine_without_a_gpu_is_told_so_and_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    told = tmp_path / "gpu.json"
    assert gpu.main(["--base", str(tmp_path), "--json", str(told)]) == 2
    assert "no CUDA device here" in capsys.readouterr().err
    assert not told.exists()
