# SPDX-License-Identifier: Apache-2.0
"""A terabyte in 200 files, without the bytes: the documents are made, read, bound and verified in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 500 * 1000 * 1000

# A process of its own: its peak is that of the documents and of nothing else the test run has loaded.
MEASUREMENT = """
import hashlib, json, time
from pq_registry import limits
from pq_registry.crypto.signing import sign_envelope
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import FileEntry, Manifest, TensorEntry, TensorTable, shard_count
from pq_registry.format.path import ReleasePath
from pq_registry.format.release import statement_of
from pq_registry.client.trust import Verifier
from tests.samples import NOW, REPOSITORY, publisher, trust_file

TERABYTE, FILES, TENSORS, HEADER = 10**12, 200, 100, 16_384


def peak():
    # Not getrusage: its figure survives exec, so it would be that of the process that started this one.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def table(size, number):
    step, entries, position = (size - HEADER) // TENSORS // 2 * 2, [], 0
    for index in range(TENSORS):
        end = size - HEADER if index == TENSORS - 1 else position + step
        shape = ((end - position) // 2 // 64, 64) if (end - position) % 128 == 0 else ((end - position) // 2,)
        entries.append(TensorEntry(f"model.layers.{number}.experts.{index:03d}.weight", "BF16", shape, position, end))
        position = end
    return TensorTable(HEADER, (("format", "pt"),), tuple(entries))


def digest(*parts):
    return hashlib.sha256(repr(parts).encode()).digest()


files = []
for number in range(FILES):
    size = TERABYTE // FILES
    shards = b"".join(digest(number, index) for index in range(shard_count(size)))
    path = ReleasePath(f"model-{number:05d}-of-00200.safetensors")
    files.append(FileEntry(path, size, Digest(digest(number).hex()), shards, table(size, number)))
alice = publisher("alice")
trust = trust_file().encode()
before = peak()
times, processor = {}, {}


def timed(what, made):
    started, used = time.perf_counter(), time.process_time()
    value = made()
    times[what], processor[what] = time.perf_counter() - started, time.process_time() - used
    return value


def write():
    manifest = Manifest(REPOSITORY, alice.identity.id, "00" * 16, NOW, tuple(files))
    data = manifest.encode()
    return manifest, data, statement_of(manifest, data).encode()


def verify():
    judge = Verifier(trust, NOW, online=True)
    return judge.release(encoded, data, expected_name=REPOSITORY, expected_digest=Digest.of(payload))


manifest, data, payload = timed("write manifest and statement", write)
encoded = timed("sign", lambda: sign_envelope(payload, alice).encode())
verified = timed("verify: trust file, envelope, statement, manifest, bound", verify)
read = verified.release.manifest
last = read.files[-1]
print(json.dumps({
    "equal": read == manifest and read.encode() == data and verified.release.statement.encode() == payload,
    "files": len(read.files),
    "bytes": read.total_size,
    "shards": sum(entry.shard_count for entry in read.files),
    "tensors": sum(len(entry.tensors.tensors) for entry in read.files),
    "last shard": last.shard_digest(last.shard_count - 1).hex(),
    "last range": last.shard_range(last.shard_count - 1),
    "manifest bytes": len(data),
    "statement bytes": len(payload),
    "peak": peak(),
    "before": before,
    "seconds": times,
    "processor": processor,
}))
"""


@pytest.mark.slow
def test_a_terabyte_of_documents() -> None:
    result = subprocess.run(
        [sys.executable, "-c", MEASUREMENT], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'cli'}:{ROOT / 'keys'}", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["equal"]
    assert (found["files"], found["tensors"], found["bytes"]) == (200, 20_000, 10**12)
    assert found["shards"] == 200 * 2385
    assert found["last range"] == [2384 * 2097152, 5_000_000_000 - 2384 * 2097152]
    assert found["peak"] < MEMORY
    for what, seconds in found["seconds"].items():
        print(f"{seconds:6.2f} s, {found['processor'][what]:5.2f} s of processor time: {what}")
    total, used = sum(found["seconds"].values()), sum(found["processor"].values())
    print(f"{total:6.2f} s, {used:5.2f} s of processor time in total (goal: 2 s)")
    print(f"peak {found['peak'] / 1e6:.0f} MB of {MEMORY / 1e6:.0f} MB, {found['before'] / 1e6:.0f} MB before")
    print(f"manifest {found['manifest bytes'] / 1e6:.1f} MB, statement {found['statement bytes'] / 1e3:.1f} kB")
