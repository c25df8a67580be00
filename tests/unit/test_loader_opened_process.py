# SPDX-License-Identifier: Apache-2.0
"""open_verified and processes: what a fork inherits, and what is left of a release that nobody closed."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pq_registry
from pq_registry import limits
from pq_registry.errors import StorageError, UsageError
from pq_registry.loader import api
from pq_registry.loader.opened import Opened
from tests.releases import release_directory, write_trust
from tests.samples import NOW
from tests.tensors import safetensors_bytes

ROOT = Path(__file__).resolve().parents[2]

FORKED = """
import os, sys, threading, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import pq_registry
from pq_registry.client.source import DirectorySource
from pq_registry.errors import UsageError
from pq_registry.loader import api
from tests.samples import NOW
api.utc_now = lambda: NOW
release = pq_registry.open_verified(Path(sys.argv[1]), expect="acme/minilm", framework="numpy")
inside, go_on = threading.Event(), threading.Event()
original = DirectorySource.read_into
def slow(*args, **kwargs):
    inside.set()
    go_on.wait()
    original(*args, **kwargs)
DirectorySource.read_into = slow
def part():
    return release.read_range("m.safetensors", 5, 50)
thread = threading.Thread(target=part)
thread.start()
inside.wait()
def fork():
    child = os.fork()
    if not child:
        try:
            part()
        except UsageError:
            release.close()
            os._exit(0)
        os._exit(1)
    return os.waitpid(child, 0)[1]
if sys.argv[2] == "locked":
    with release._reader._lock:
        status = fork()
else:
    status = fork()
go_on.set()
thread.join()
assert status == 0 and len(part()) == 45
release.close()
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(api, "utc_now", lambda: NOW)
    monkeypatch.setenv("PQREG_TRUST", str(write_trust(tmp_path / "trust.json")))
    data, _ = safetensors_bytes({"a": ("U8", (limits.SHARD_BYTES,))}, 1)
    release_directory(tmp_path / "r", {"m.safetensors": data})
    return tmp_path / "r"


def opened(directory: Path) -> Opened:
    return pq_registry.open_verified(directory, expect="acme/minilm", framework="numpy")


@pytest.mark.parametrize("when", ["under way", "locked"])
def test_a_forked_process_is_told_so_and_waits_for_nothing_of_the_parent(directory: Path, when: str) -> None:
    subprocess.run([sys.executable, "-c", FORKED, str(directory), when], check=True, timeout=60, cwd=ROOT)


def test_what_nobody_closed_is_closed_when_nobody_refers_to_it(directory: Path) -> None:
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    release = opened(directory)
    assert release.get_tensor("a").size == limits.SHARD_BYTES
    assert len(os.listdir("/proc/self/fd")) > len(before)
    del release
    deadline = time.monotonic() + 30
    while not set(os.listdir("/proc/self/fd")) <= before:  # the thread that read last may refer to it for a moment
        assert time.monotonic() < deadline
        gc.collect()
    with opened(directory) as closed:
        closed.get_tensor("a")
    assert set(os.listdir("/proc/self/fd")) <= before, closed  # which is referred to still


def test_names_that_are_no_texts(directory: Path) -> None:
    with opened(directory) as release:
        for name in (5, None, b"a", ["a"]):
            with pytest.raises(UsageError, match="has no tensor"):
                release.get_tensor(name)  # type: ignore[arg-type]
            with pytest.raises(UsageError, match="has no file"):
                release.read_file(name)  # type: ignore[arg-type]


def test_more_than_there_is_memory_for(directory: Path) -> None:
    with opened(directory) as release:
        file = release.file("m.safetensors")
        with pytest.raises(StorageError, match="bytes of memory"):
            release._reader.read(file, 0, 1 << 62)
