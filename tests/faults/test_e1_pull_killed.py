# SPDX-License-Identifier: Apache-2.0
"""E1: kill -9 of a pull, and of the registry it pulls from, at random points.

Judged each time: whatever stands under a final name is exactly as published; the rerun finishes; no byte that was
verified and written before is asked for again.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pq_registry import limits
from pq_registry.client.pull import PullResult, pull
from pq_registry.client.resolve import resolve
from pq_registry.client.source import RemoteSource
from pq_registry.client.staging import StagedFile
from pq_registry.client.state import SeenTags
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
from pq_registry.client.verify import verify_directory
from pq_registry.errors import PqregError, TransportError
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.format.name import Reference
from tests.faults.depth import points
from tests.fixtures_server import registry_process as registry_process  # noqa: PLC0414  # a fixture
from tests.pull_site import content
from tests.samples import trust_file
from tests.server_harness import ROOT, RegistryProcess
from tests.tensors import safetensors_bytes

SHARD = limits.SHARD_BYTES
SEED = 20261121
POINTS = points(thorough=20, sample=7)

CHILD = """
import json, os, signal, sys
from pathlib import Path

target, log, url, token, trust, digest, out = sys.argv[1:]
log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
calls = 0

def dying(function):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == int(target):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call

write = os.write
for name in ("pwrite", "fsync", "rename", "open", "mkdir", "unlink", "ftruncate", "rmdir", "symlink", "close"):
    setattr(os, name, dying(getattr(os, name)))

from tests.faults.test_e1_pull_killed import pull_release
from pq_registry.client.ranges import RangeReader
from pq_registry.client.staging import StagedFile

put = StagedFile.put
def recorded(self, index, view, scratch):
    complete = put(self, index, view, scratch)
    write(log, (json.dumps([self.entry.sha256.hex, index]) + "\\n").encode())
    return complete
StagedFile.put = recorded

pull_release(url, token, trust.encode(), digest, Path(out))
print(calls)
"""


@pytest.fixture
def files() -> dict[str, bytes]:
    rng = random.Random(SEED)
    weights, _ = safetensors_bytes({"w": ("F32", (11 * SHARD // 4 + 333,))}, SEED)
    return {
        "config.json": b"{}",
        "empty": b"",
        "weights.safetensors": weights,
        "sub/other.bin": rng.randbytes(2 * SHARD),
        "sub/copy.json": b"{}",
        "tail.bin": rng.randbytes(SHARD // 2),
    }


def pull_release(url: str, token: str, trust: bytes, digest: str, out: Path, progress: object = None) -> PullResult:
    """A pull as the command line does one."""
    with RegistryClient(url, token) as client, RemoteSource(client) as source:
        verifier = Verifier(trust, utc_now(), online=True)
        reference = Reference.parse(f"acme/minilm@{digest}")
        resolved = resolve(reference, client, verifier, SeenTags(out.parent / "state"))
        return pull(resolved, source, out, connections=2, progress=progress)  # type: ignore[arg-type]


def check_names(out: Path, files: Mapping[str, bytes]) -> None:
    """Nothing but content as published stands under a final name; with evidence, the directory is the release."""
    found = content(out) if out.exists() else {}
    for name, data in found.items():
        if ".pqreg/" not in name and not name.endswith(".tmp"):
            assert files.get(name) == data, name
    if (out / "model.sig").exists():
        verify_directory(out, Verifier(trust_file().encode(), utc_now(), online=False), full=True)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Every range asked for in this process: blob, first byte, length."""
    from pq_registry.client.ranges import RangeReader

    ranges: list[tuple[str, int, int]] = []
    attempt = RangeReader._attempt

    def recorded(self: RangeReader, path: str, first: int, view: memoryview, *rest: Any) -> Any:
        ranges.append((path.rsplit("/", 1)[1], first, len(view)))
        return attempt(self, path, first, view, *rest)

    monkeypatch.setattr(RangeReader, "_attempt", recorded)
    return ranges


def run_child(
    registry: RegistryProcess, target: int, log: Path, digest: Digest, out: Path
) -> subprocess.CompletedProcess[str]:
    trust = trust_file().encode().decode()
    words = [str(target), str(log), registry.url, registry.admin_token, trust, str(digest), str(out)]
    path = os.pathsep.join(str(ROOT / part) for part in (".", "cli", "keys"))
    return subprocess.run(
        [sys.executable, "-c", CHILD, *words], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


def written(log: Path) -> Iterator[tuple[str, int]]:
    if log.exists():
        for line in log.read_text().splitlines():
            hex_digest, index = json.loads(line)
            yield hex_digest, index


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_e1_a_pull_killed_at_random_system_calls_is_finished_by_the_next(
    registry_process: RegistryProcess, files: dict[str, bytes], tmp_path: Path, asked: list[tuple[str, int, int]]
) -> None:
    digest = registry_process.api.publish(files)
    whole = run_child(registry_process, 0, tmp_path / "log", digest, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    calls = int(whole.stdout)
    for point in sorted(random.Random(SEED).sample(range(1, calls + 1), POINTS)):
        out, log = tmp_path / f"out{point}", tmp_path / f"log{point}"
        killed = run_child(registry_process, point, log, digest, out)
        assert killed.returncode == -signal.SIGKILL, (point, killed.stderr)
        check_names(out, files)
        asked.clear()
        pull_release(registry_process.url, registry_process.admin_token, trust_file().encode(), str(digest), out)
        check_names(out, files)
        assert content(out) == files, point
        assert not (out / ".pqreg").exists()
        for hex_digest, index in written(log):
            for blob, first, length in asked:
                again = blob == hex_digest and first < (index + 1) * SHARD and index * SHARD < first + length
                assert not again, (point, hex_digest, index)


class Killer:
    """A watcher of progress that kills the registry once so many bytes were verified."""

    def __init__(self, registry: RegistryProcess, after: int) -> None:
        self.registry = registry
        self.left = after
        self.lock = threading.Lock()  # each connection tells its progress

    def start(self, _label: str, _total: int) -> None:
        pass

    def advance(self, count: int) -> None:
        with self.lock:
            self.left -= count
            if self.left <= 0 and self.registry._process is not None:
                self.registry.kill()

    def done(self) -> None:
        pass


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_e1_a_registry_killed_at_random_points_of_a_pull_costs_no_verified_byte(
    registry_process: RegistryProcess, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(limits, "RANGE_SHARDS", 1)
    rng = random.Random(SEED)
    size = sum(map(len, set(files.values())))
    digest = registry_process.api.publish(files)
    token, trust, out = registry_process.admin_token, trust_file().encode(), tmp_path / "out"
    fetched: list[tuple[str, int]] = []
    put = StagedFile.put

    def recorded(self: StagedFile, index: int, view: memoryview, scratch: memoryview) -> bool:
        fetched.append((self.entry.sha256.hex, index))
        return put(self, index, view, scratch)

    monkeypatch.setattr(StagedFile, "put", recorded)
    # What is verified anew at each start counts as well, so the points move through the whole of the pull.
    for point in sorted(rng.sample(range(1, size), POINTS)):
        try:
            pull_release(registry_process.url, token, trust, str(digest), out, Killer(registry_process, point))
        except PqregError as error:
            assert isinstance(error, TransportError), error
        check_names(out, files)
        registry_process.close()
        registry_process.start()
    pull_release(registry_process.url, token, trust, str(digest), out)
    assert content(out) == files
    assert len(fetched) == len(set(fetched)) == sum(-(-len(data) // SHARD) for data in set(files.values()))
