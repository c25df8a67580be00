# SPDX-License-Identifier: Apache-2.0
"""``pqreg load`` into torch tensors. Left out, and listed as such, where torch is not installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch (make test-torch)")

from pq_registry.errors import DeviceFailed  # noqa: E402
from pq_registry.loader import api  # noqa: E402
from pqreg_cli import loadmeasure  # noqa: E402
from pqreg_cli.main import run  # noqa: E402
from tests.releases import release_directory, write_trust  # noqa: E402
from tests.samples import NOW  # noqa: E402
from tests.tensors import safetensors_bytes  # noqa: E402

pytestmark = pytest.mark.torch

WEIGHTS, _ = safetensors_bytes({"w": ("BF16", (3, 1 << 20)), "b": ("F32", (7,))}, 1)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "utc_now", lambda: NOW)
    monkeypatch.setenv("PQREG_TRUST", str(write_trust(tmp_path / "trust.json")))
    monkeypatch.chdir(tmp_path)
    release_directory(tmp_path / "out", {"model.safetensors": WEIGHTS})


@pytest.mark.parametrize("words", [(), ("--iterate",), ("--repeat", "3", "--keep")])
def test_auto_is_torch_where_it_is_installed(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    assert run(["load", "out", "--expect", "acme/minilm", "--json", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["framework"], found["device"], found["bytes"]) == ("torch", "cpu", 6 * (1 << 20) + 28)


def test_a_device_that_is_not_there_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["load", "out", "--expect", "acme/minilm", "--device", "nonsense:7"]) == 2
    text = capsys.readouterr().err
    assert "next:     try --device cpu" in text
    assert "torch has no device 'nonsense:7' here" in text


def test_a_cuda_device_is_waited_for_and_asked_for_its_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: asked.append(f"wait {device}"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: asked.append(f"peak {device}") or 5.0)
    loadmeasure.synchronise("cuda:1")
    assert loadmeasure.device_peak("cuda:1") == 5
    loadmeasure.synchronise("cpu")
    assert loadmeasure.device_peak("cpu") is None
    assert asked == ["wait cuda:1", "peak cuda:1"]


def test_a_device_that_failed_is_an_error_of_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: str) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    with pytest.raises(DeviceFailed, match="cuda:0 failed") as caught:
        loadmeasure.synchronise("cuda:0")
    assert caught.value.found == "CUDA error: an illegal memory access was encountered"
