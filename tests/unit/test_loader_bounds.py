# SPDX-License-Identifier: Apache-2.0
"""Memory of a loader is bounded by the ring, not by the model: measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.crypto.shards import shard_digest
from pq_registry.crypto.signing import sign_envelope
from pq_registry.format.bundle import encode_bundle
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import FileEntry, Manifest
from pq_registry.format.path import ReleasePath
from pq_registry.format.release import statement_of
from pq_registry.format.safetensors import header_size, parse_header
from tests.releases import write_trust
from tests.samples import NOW, REPOSITORY, publisher

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
TENSORS, TENSOR_BYTES = 48, 32 * limits.MIB
MODEL_BYTES = TENSORS * TENSOR_BYTES
SCRIPT = """
import json, sys
from pathlib import Path
import numpy
import pq_registry
from pq_registry.loader import api
from pq_registry.format.instant import parse_instant
api.utc_now = lambda: parse_instant("2026-11-21T12:00:00Z")
options = {"expect": "acme/minilm", "trust": sys.argv[2], "framework": "numpy"}
root, mode = Path(sys.argv[1]), sys.argv[3]
def memory(label):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith(label + ":"))
into = {f"t{number:02}": numpy.ones(int(sys.argv[4]), numpy.uint8) for number in range(48)} if mode == "into" else {}
before = memory("VmRSS")
if mode in ("iter", "direct"):
    io = "direct" if mode == "direct" else "buffered"
    count = sum(array.nbytes for _, array in pq_registry.iter_tensors(root, io=io, **options))
elif mode == "into":
    count = sum(array.nbytes for array in pq_registry.load(root, into=into, **options).values())
elif mode == "names":
    count = sum(array.nbytes for array in pq_registry.load(root, names=["t05", "t40"], **options).values())
else:
    count = sum(array.nbytes for array in pq_registry.load(root, **options).values())
print(json.dumps({"bytes": count, "peak": memory("VmHWM") - before}))
"""


@pytest.fixture(scope="module")
def sparse_release(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """1.5 GiB of zeros that take no disk; their SHA-256 is not computed, since loading does not check it."""
    root = tmp_path_factory.mktemp("sparse")
    release = root / "r"
    release.mkdir()
    header = {
        f"t{number:02}": {"dtype": "U8", "shape": [TENSOR_BYTES],
                          "data_offsets": [number * TENSOR_BYTES, (number + 1) * TENSOR_BYTES]}
        for number in range(TENSORS)
    }  # fmt: skip
    text = json.dumps(header).encode()
    start = len(text).to_bytes(8, "little") + text
    size = len(start) + MODEL_BYTES
    with (release / "model.safetensors").open("wb") as file:
        file.write(start)
        file.truncate(size)
    zeros = shard_digest(bytes(limits.SHARD_BYTES))
    first = shard_digest(start + bytes(limits.SHARD_BYTES - len(start)))
    last = shard_digest(bytes(size % limits.SHARD_BYTES))
    shards = first + zeros * (size // limits.SHARD_BYTES - 1) + last
    table = parse_header(start[: header_size(start[:8], size)], size)
    entry = FileEntry(ReleasePath("model.safetensors"), size, Digest("0" * 64), shards, table)
    signer = publisher()
    manifest = Manifest(REPOSITORY, signer.identity.id, "00" * 16, NOW, (entry,))
    data = manifest.encode()
    envelope = sign_envelope(statement_of(manifest, data).encode(), signer)
    (release / "pqreg.json").write_bytes(data)
    (release / "model.sig").write_bytes(encode_bundle(envelope, "ec", signer.identity.ec_pem))
    (release / "model.pq.sig").write_bytes(encode_bundle(envelope, "pq", signer.identity.pq_pem))
    return release, write_trust(root / "trust.json")


def measured(sparse_release: tuple[Path, Path], mode: str) -> dict[str, int]:
    release, trust = sparse_release
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(release), str(trust), mode, str(TENSOR_BYTES)],
        check=False,
        capture_output=True,
        text=True,
        timeout=280,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "HOME": str(release.parent), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, int] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("mode", ["iter", "direct"])
def test_iter_tensors_needs_its_ring_and_two_tensors(mode: str, sparse_release: tuple[Path, Path]) -> None:
    result = measured(sparse_release, mode)
    assert result["bytes"] == MODEL_BYTES
    # Of the arena only what was needed at one time is ever touched.
    needed = limits.LOADER_RING_BYTES + 3 * TENSOR_BYTES + 32 * limits.MIB
    assert result["peak"] << 20 < needed < MODEL_BYTES / 5


def test_load_needs_the_tensors_once(sparse_release: tuple[Path, Path]) -> None:
    result = measured(sparse_release, "load")
    assert result["bytes"] == MODEL_BYTES
    assert MODEL_BYTES <= result["peak"] << 20 < MODEL_BYTES + 64 * limits.MIB


def test_tensors_that_exist_need_a_shard_for_each_thread(sparse_release: tuple[Path, Path]) -> None:
    result = measured(sparse_release, "into")
    assert result["bytes"] == MODEL_BYTES
    assert result["peak"] << 20 < limits.LOADER_THREADS * limits.SHARD_BYTES + 16 * limits.MIB


def test_load_of_some_names_needs_those(sparse_release: tuple[Path, Path]) -> None:
    result = measured(sparse_release, "names")
    assert result["bytes"] == 2 * TENSOR_BYTES
    assert result["peak"] << 20 < 2 * TENSOR_BYTES + 64 * limits.MIB
