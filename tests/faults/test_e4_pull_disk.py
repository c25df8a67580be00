# SPDX-License-Identifier: Apache-2.0
"""E3 and E4 for pull: every system call on the way to disk fails once, in every way; reads and writes come up short.

Each time the pull ends with an error of the tree, or succeeds because the call did not matter; nothing but content as
published stands under a final name; and the pull that is run again when the trouble is over finishes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.client.hfcache import HubCache
from pq_registry.client.resolve import Resolved
from pq_registry.client.verify import verify_directory
from pq_registry.errors import FileSetMismatch, PqregError, StorageError
from tests.fake_registry import serving
from tests.faults.depth import stride
from tests.faults.injection import ERRNOS, Fault, failing_system_call, os_error
from tests.pull_site import Site, content
from tests.tensors import safetensors_bytes

CALLS = (
    "open", "pwrite", "preadv", "fsync", "ftruncate", "fchmod", "link", "unlink", "rename", "mkdir", "rmdir", "symlink",
    "readlink", "scandir", "stat", "fstat", "lseek", "dup", "statvfs",
)  # fmt: skip
TENSORS, _ = safetensors_bytes({"w": ("F32", (limits.SHARD_BYTES // 4,)), "b": ("U8", (8,))}, 3)
FILES = {"config.json": b"{}", "sub/copy.json": b"{}", "empty": b"", "w.safetensors": TENSORS}
OLD = {"config.json": b"old", "old/only.txt": b"gone"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving() as registry:
        yield Site(registry, tmp_path)


def check(directory: Path, known: dict[str, set[bytes]]) -> None:
    for name, data in content(directory).items() if directory.exists() else ():
        if ".pqreg/" not in name and not name.endswith(".tmp"):
            assert data in known.get(name, set()), name


def sweep(
    site: Site, pull: Callable[[Path], object], prepare: Callable[[Path], object], *, persisted: bool, step: int = 1
) -> int:
    """Fail every ``step``-th call of a pull, one after the other; answers how many there were."""
    known = {name: {FILES.get(name, b"-"), OLD.get(name, b"-")} for name in {*FILES, *OLD}}
    for number in range(1, 10_000, step):
        out = site.home / f"{'after' if persisted else 'before'}-{number}"
        prepare(out)
        fault = Fault(number, persisted, os_error(number))
        # Of a copied descriptor and of an open listing the second half of "happened, but failed" is a leak of the test.
        names = tuple(name for name in CALLS if not (persisted and name in ("dup", "scandir")))
        with failing_system_call(fault, names), contextlib.suppress(PqregError):
            pull(out)
        if fault.hit is None:
            return number - 1
        check(out, known)
        pull(out)
        assert content(out) == FILES, (number, fault.hit)
        verify_directory(out, site.offline, full=True)
    raise AssertionError("there is no end to the calls")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("persisted", [False, True], ids=["did not happen", "happened"])
def test_e4_every_call_of_an_update_fails_once(site: Site, persisted: bool) -> None:
    old, new = site.resolve(site.add(OLD)), site.resolve(site.add(FILES))
    calls = sweep(
        site,
        lambda out: site.pull(new, out, connections=1),
        lambda out: site.pull(old, out),
        persisted=persisted,
        step=stride(17, 3) if persisted else stride(7),
    )
    assert calls > 100


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_e4_calls_of_a_pull_into_a_hub_cache_fail_once(site: Site) -> None:
    resolved = site.resolve(site.add(FILES))
    snapshot = Path("models--acme--minilm/snapshots") / resolved.verified.release.digest.hex[:40]

    def hub(out: Path) -> Path:
        return site.home / "hubs" / out.name

    def pull(out: Path) -> None:
        site.pull(resolved, HubCache(hub(out), resolved), connections=1)

    def prepare(out: Path) -> None:
        hub(out).mkdir(parents=True)
        out.symlink_to(hub(out) / snapshot)

    assert sweep(site, pull, prepare, persisted=False, step=stride(7, 2)) > 100


def test_e3_after_a_failed_fsync_the_file_is_fetched_anew(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = site.resolve(site.add({"big": random.Random(1).randbytes(3 * limits.SHARD_BYTES)}))
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if os.fstat(descriptor).st_size == 3 * limits.SHARD_BYTES:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(StorageError):
            site.pull(resolved)
    assert list((site.out / ".pqreg/incoming").iterdir()) == []
    assert site.pull(resolved).fetched == 3 * limits.SHARD_BYTES


@pytest.mark.parametrize("number", ERRNOS)
def test_e4_trouble_while_writing_is_said_with_its_next_step(
    site: Site, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = site.resolve(site.add(FILES))

    def failing(*_args: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing)
        with pytest.raises(StorageError) as caught:
            site.pull(resolved)
    assert caught.value.found == os.strerror(number)
    assert caught.value.hint or number == errno.EIO
    assert str(site.out) in caught.value.message
    site.pull(resolved)
    assert content(site.out) == FILES


def test_e4_short_reads_and_writes_are_continued(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7)
    pwrite, preadv = os.pwrite, os.preadv

    def short_write(descriptor: int, data: memoryview, offset: int) -> int:
        return pwrite(descriptor, memoryview(data)[: rng.randint(1, 300_000)], offset)

    def short_read(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        return preadv(descriptor, [buffers[0][: rng.randint(1, 300_000)]], offset)

    monkeypatch.setattr(os, "pwrite", short_write)
    monkeypatch.setattr(os, "preadv", short_read)
    files = {**FILES, "a/big": random.Random(2).randbytes(9 * limits.SHARD_BYTES + 1)}
    digest = site.add(files)
    site.pull(digest)
    assert content(site.out) == files
    verify_directory(site.out, site.offline)
    assert site.pull(digest).fetched == 0


def test_e4_a_file_that_shrinks_while_it_is_verified_is_an_error_of_the_tree(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.pull(site.add(FILES))
    monkeypatch.setattr(os, "preadv", lambda *_args: 0)
    with pytest.raises(FileSetMismatch):
        verify_directory(site.out, site.offline)


def resolved_small(site: Site) -> Resolved:
    return site.resolve(site.add({"a": b"1"}))


def test_e4_a_directory_that_cannot_be_written_is_said(site: Site) -> None:
    resolved = resolved_small(site)
    site.out.write_bytes(b"a file, no directory")
    with pytest.raises(PqregError) as caught:
        site.pull(resolved)
    assert str(site.out) in str(caught.value)
