# SPDX-License-Identifier: Apache-2.0
"""The real kernels behind the real CUDA device, by Triton's interpreter, on the streams of ``tests.cudasim``.

What is decrypted is a release of a few kilobytes: the interpreter takes minutes for a megabyte.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
import torch
from pq_registry.errors import ShardMismatch
from pq_registry.loader import kernels
from pq_registry.loader.device import cudakernels
from pq_registry.loader.device.cuda import Cuda
from pq_registry.loader.torch_bridge import Torch
from tests import cudasim
from tests.deviceload import Loading
from tests.tensors import safetensors_bytes

prepare = kernels.prepare
kernels.prepare = lambda device, *, sealed: prepare("cpu", sealed=sealed)
content, truth = safetensors_bytes({"w": ("BF16", (41, 30)), "s": ("F32", ()), "b": ("U8", (77,))}, 5)
fake = cudasim.Torch()
for sealed in (False, True):
    loading = Loading({"m.safetensors": content}, Cuda(fake, torch.device("cuda")), sealed=sealed)
    found = dict(loading.tensors("device", whole=True, form=Torch("cpu")))
    for name, tensor in found.items():
        raw = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        assert raw == truth[name].tobytes(), name
    (path, stored), = ((k, v) for k, v in loading.source.files.items() if k != "pqreg.inner")
    loading.source.files[path] = stored[:1000] + bytes([stored[1000] ^ 1]) + stored[1001:]
    try:
        list(loading.tensors("device", whole=True, form=Torch("cpu")))
    except ShardMismatch as error:
        print("refused", error.message)
"""


@pytest.mark.skipif(find_spec("torch") is None or find_spec("triton") is None, reason="needs torch and triton")
def test_plain_and_sealed_releases_by_the_kernels_that_run_on_a_device():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=600, check=False, cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "refused shard 0 of m.safetensors is not what was signed",
        "refused shard 0 of sealed/00000 is not what was signed",
    ]
