# SPDX-License-Identifier: Apache-2.0
"""Pull: what would stop it half-way is found, or done, before the old release is taken apart."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pq_registry.client.hfcache import HubCache
from pq_registry.client.verify import verify_directory
from pq_registry.errors import StorageError, UsageError
from tests.fake_registry import serving
from tests.pull_site import SHARD, Site, content

V1 = {"a.dat": b"first", "gone/x": b"x"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving() as registry:
        yield Site(registry, tmp_path)


@pytest.mark.parametrize("name", ["b.dat", "gone", "pqreg.json", "model.sig", ".pqreg/model.sig", "a.dat"])
def test_a_directory_with_files_where_a_file_belongs_is_refused_before_anything_happens(site: Site, name: str) -> None:
    first = site.add(V1)
    resolved = site.resolve(site.add({"a.dat": b"second", "b.dat": b"b", "gone": b"a file now"}))
    site.pull(first)
    requests = len(site.registry.ranges)
    stands = {"gone": "gone/.cache/y", ".pqreg/model.sig": ".pqreg/model.sig/y"}.get(name, f"{name}/y")
    path = site.out / stands
    if (site.out / name).is_file():
        (site.out / name).unlink()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    before = {p: p.read_bytes() for p in site.out.rglob("*") if p.is_file()}
    with pytest.raises(UsageError) as caught:
        site.pull(resolved)
    assert caught.value.hint
    assert name in str(caught.value.message) + str(caught.value.found)
    assert {p: p.read_bytes() for p in site.out.rglob("*") if p.is_file()} == before
    assert len(site.registry.ranges) == requests


@pytest.mark.parametrize("name", ["b.dat", "gone/empty", "pqreg.json", "model.sig", ".pqreg/model.sig", "a.dat", "old"])
def test_an_empty_directory_where_a_file_belongs_gives_way(site: Site, name: str) -> None:
    first = site.add({**V1, "old": b"old"})
    new = {"a.dat": b"second", "b.dat": b"b", "gone": b"a file now"}
    second = site.add(new)
    site.pull(first)
    if (site.out / name).is_file():
        (site.out / name).unlink()
        if name == "pqreg.json":  # nothing says any more whose files these are
            for path in ("a.dat", "gone/x", "old"):
                (site.out / path).unlink()
    (site.out / name / "deeper").mkdir(parents=True)
    site.pull(second)
    assert content(site.out) == new
    assert verify_directory(site.out, site.offline, full=True).release.digest == second


def test_a_file_that_became_a_folder_survives_an_interrupt(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pull(site.add({"sub": b"a file"}))
    new = {"sub/a": b"1"}
    digest = site.add(new)
    with monkeypatch.context() as patch:

        def fail(*_args: object, **_more: object) -> None:
            raise StorageError("the disk is gone")

        patch.setattr("pq_registry.client.destination.write_evidence", fail)
        with pytest.raises(StorageError):
            site.pull(digest)
    site.pull(digest)
    assert content(site.out) == new
    assert verify_directory(site.out, site.offline, full=True).release.digest == digest


def test_every_path_counts_when_space_is_checked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(SHARD)
    resolved = site.resolve(site.add({"a": data, "b": data, "c": data}))
    real = os.statvfs

    def nearly_full(path: object) -> os.statvfs_result:
        status = list(real(path))  # type: ignore[arg-type]
        status[4] = (2 * SHARD + SHARD // 2) // status[1]  # f_bavail, f_frsize
        return os.statvfs_result(status)

    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", nearly_full)
        with pytest.raises(StorageError, match="not enough space") as caught:
            site.pull(resolved)
        assert caught.value.expected == f"{3 * SHARD} bytes"
        assert not site.registry.ranges
        site.pull(resolved, HubCache(site.home / "hub", resolved))  # one blob for the three of them


def test_a_disk_that_fills_up_with_copies_leaves_the_old_release(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    old = {"a": b"old", "keep": b"same"}
    first = site.add(old)
    site.pull(first)
    new = {"a": b"new", "b": b"new", "keep": b"same", "keep2": b"same"}
    second = site.add(new)
    resolved = site.resolve(second)
    pwrite = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if "." in Path(os.readlink(f"/proc/self/fd/{descriptor}")).name:
            pwrite(descriptor, bytes(data)[:1], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StorageError):
            site.pull(resolved)
    assert verify_directory(site.out, site.offline, full=True).release.digest == first
    site.pull(resolved)
    assert content(site.out) == new
    assert not (site.out / ".pqreg").exists()
    assert verify_directory(site.out, site.offline, full=True).release.digest == second
