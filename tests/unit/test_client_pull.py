# SPDX-License-Identifier: Apache-2.0
"""Pull: what reaches the disk, what is kept, what is fetched again, and what is refused."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.client.pull import pull
from pq_registry.client.rate import TokenBucket
from pq_registry.client.resolve import resolve
from pq_registry.client.source import RemoteSource
from pq_registry.client.transport import RegistryClient
from pq_registry.client.verify import verify_directory
from pq_registry.errors import Conflict, PqregError, ShardMismatch, StorageError, UsageError
from pq_registry.format.name import Reference
from tests.fake_registry import FakeRegistry, serving
from tests.pull_site import FILES, SHARD, TENSORS, Site, content
from tests.samples import release


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving() as registry:
        yield Site(registry, tmp_path)


def test_a_pull_brings_every_file_and_the_evidence_and_nothing_else(site: Site) -> None:
    digest = site.add()
    result = site.pull(digest)
    assert content(site.out) == FILES
    assert not (site.out / ".pqreg").exists()
    assert verify_directory(site.out, site.offline, full=True).release.digest == digest
    distinct = set(FILES.values())
    assert (result.digest, result.files, result.present) == (digest, len(FILES), 0)
    assert result.fetched == sum(map(len, distinct)) == site.registry.bytes_served()
    assert result.size == sum(map(len, FILES.values()))


@pytest.mark.parametrize("connections", [1, 2, 8])
def test_any_number_of_connections_brings_the_same(site: Site, connections: int) -> None:
    site.pull(site.add(), connections=connections)
    assert content(site.out) == FILES


def test_one_large_file_is_fetched_by_all_connections(site: Site) -> None:
    digest = site.add({"big": os.urandom(40 * SHARD + 5)})
    gate = threading.Barrier(3)
    at_once = []

    def wait(_handler: object) -> bool:
        try:
            gate.wait(5)
            at_once.append(1)
        except threading.BrokenBarrierError:
            pass
        return False

    resolved = site.resolve(digest)
    site.registry.rules["GET /v1/blobs"] = wait
    site.pull(resolved)
    assert len(at_once) >= 3
    assert max(length for _, _, length in site.registry.ranges) == limits.RANGE_SHARDS * SHARD


def test_pulling_again_verifies_what_is_there_and_fetches_nothing(site: Site) -> None:
    digest = site.add()
    site.pull(digest)
    before = site.registry.bytes_served()
    result = site.pull(digest)
    assert site.registry.bytes_served() == before
    assert (result.fetched, result.present) == (0, sum(map(len, set(FILES.values()))))
    assert verify_directory(site.out, site.offline).release.digest == digest


def test_a_damaged_file_is_fetched_again(site: Site) -> None:
    digest = site.add()
    site.pull(digest)
    damaged = bytearray(FILES["vocab.txt"])
    damaged[3 * 1024 * 1024] ^= 1
    (site.out / "vocab.txt").write_bytes(damaged)
    result = site.pull(digest)
    assert content(site.out) == FILES
    assert result.fetched == len(FILES["vocab.txt"])


def test_an_update_replaces_files_and_removes_those_of_the_old_release_only(site: Site) -> None:
    site.pull(site.add())
    new = {"config.json": b"{}", "sub": b"now a file", "vocab.txt": FILES["vocab.txt"], "x/y/z": b"deep"}
    digest = site.add(new)
    result = site.pull(digest)
    assert content(site.out) == new
    assert result.present == len(FILES["vocab.txt"])
    assert verify_directory(site.out, site.offline, full=True).release.digest == digest


def test_an_update_that_was_cut_off_is_finished_by_another_one(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pull(site.add())
    second = site.add({"config.json": b"second", "only-in-second": b"2"})
    with monkeypatch.context() as patch:

        def fail(*_args: object, **_more: object) -> None:
            raise StorageError("the disk is gone")

        patch.setattr("pq_registry.client.destination.write_evidence", fail)
        with pytest.raises(StorageError):
            site.pull(second)
    with pytest.raises(PqregError):
        verify_directory(site.out, site.offline)
    third = {"config.json": b"third"}
    site.pull(site.add(third))
    assert content(site.out) == third


@pytest.mark.parametrize("foreign", ["notes.txt", "sub/mine.bin", ".hidden", ".git/config"])
def test_a_destination_with_foreign_files_is_refused_untouched(site: Site, foreign: str) -> None:
    path = site.out / foreign
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(UsageError, match="holds files that are not of a"):
        site.pull(site.add())
    assert content(site.out) == {foreign: b"mine"}


def test_what_tools_leave_at_the_root_is_tolerated(site: Site) -> None:
    for name in (".gitattributes", ".cache/huggingface/x.metadata"):
        (site.out / name).parent.mkdir(parents=True, exist_ok=True)
        (site.out / name).write_text("tool")
    digest = site.add()
    site.pull(digest)
    assert verify_directory(site.out, site.offline).release.digest == digest
    assert (site.out / ".gitattributes").read_text() == "tool"


def test_a_directory_of_another_repository_is_foreign(site: Site, tmp_path: Path) -> None:
    from pq_registry.format.name import RepositoryName

    files = {"a": b"1"}
    envelope, manifest = release(files, name=RepositoryName.parse("acme/other"))
    other = site.registry.add_release(envelope, manifest, files)
    with site.client() as client:
        site.pull(resolve(Reference.parse(f"acme/other@{other}"), client, site.verifier, site.seen))
    with pytest.raises(UsageError):
        site.pull(site.add())
    assert content(site.out) == files


def test_two_pulls_into_one_directory_exclude_each_other(site: Site) -> None:
    digest = site.add()
    resolved = site.resolve(digest)
    errors: list[PqregError] = []

    def second(_handler: object) -> bool:
        if not errors:
            try:
                site.pull(resolved)
            except PqregError as error:
                errors.append(error)
        return False

    site.registry.rules["GET /v1/blobs"] = second
    site.pull(resolved, connections=1)
    assert isinstance(errors[0], Conflict)
    assert content(site.out) == FILES


def wrong_shard(times: int, at: int = 2) -> object:
    """Answers shard ``at`` of the large file wrongly, ``times`` times."""
    left = [times]

    def rule(handler: object) -> bool:
        registry: FakeRegistry = handler.registry  # type: ignore[attr-defined]
        first, last = map(int, handler.headers["Range"][6:].split("-"))  # type: ignore[attr-defined]
        name = handler.path.rsplit("/", 1)[1]  # type: ignore[attr-defined]
        data = registry.blobs[name]
        if len(data) != len(TENSORS) or not first <= at * SHARD < last or not left[0]:
            return False
        left[0] -= 1
        damaged = bytearray(data)
        damaged[at * SHARD + 7] ^= 0x40
        registry.ranges.append((name, first, last - first + 1))
        handler.send(  # type: ignore[attr-defined]
            206, bytes(damaged[first : last + 1]), headers={"Content-Range": f"bytes {first}-{last}/{len(data)}"}
        )
        return True

    return rule


def test_a_wrong_shard_is_fetched_again_by_itself(site: Site) -> None:
    digest = site.add()
    resolved = site.resolve(digest)
    site.registry.rules["GET /v1/blobs"] = wrong_shard(limits.ATTEMPTS - 1)  # type: ignore[assignment]
    site.pull(resolved)
    assert content(site.out) == FILES
    again = [item for item in site.registry.ranges if item[1] == 2 * SHARD and item[2] == SHARD]
    assert len(again) == limits.ATTEMPTS - 1


def test_a_shard_that_stays_wrong_is_refused_and_nothing_gets_a_final_name(site: Site) -> None:
    digest = site.add()
    resolved = site.resolve(digest)
    site.registry.rules["GET /v1/blobs"] = wrong_shard(1000)  # type: ignore[assignment]
    with pytest.raises(ShardMismatch) as caught:
        site.pull(resolved)
    assert caught.value.step == 8
    assert [path for path in site.out.iterdir() if path.name != ".pqreg"] == []
    site.registry.rules.clear()
    site.pull(digest)
    assert content(site.out) == FILES


def test_a_stopped_pull_continues_from_its_verified_shards(site: Site) -> None:
    files = {"big": os.urandom(20 * SHARD + 99), "small": b"s"}
    digest = site.add(files)
    resolved = site.resolve(digest)
    served = []

    def cut(handler: object) -> bool:
        served.append(1)
        if len(served) > 2:
            handler.problem(403, "access-denied")  # type: ignore[attr-defined]
            return True
        return False

    site.registry.rules["GET /v1/blobs"] = cut
    with pytest.raises(PqregError):
        site.pull(resolved, connections=1)
    site.registry.rules.clear()
    result = site.pull(digest)
    assert content(site.out) == files
    assert result.present == 16 * SHARD
    assert site.registry.bytes_served() == sum(map(len, files.values()))


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, None])
def test_where_holes_cannot_be_told_nothing_that_is_there_is_fetched_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    files = {"big": os.urandom(4 * SHARD + 99)}
    digest = site.add(files)
    resolved = site.resolve(digest)
    entry = resolved.verified.release.manifest.files[0]
    staged = site.out / ".pqreg/incoming" / entry.sha256.hex
    staged.parent.mkdir(parents=True)
    staged.write_bytes(files["big"][: 3 * SHARD])

    def refused(*_args: object) -> int:
        assert number is not None
        raise OSError(number, os.strerror(number))

    if number is None:
        monkeypatch.delattr(os, "SEEK_DATA")
    monkeypatch.setattr(os, "lseek", refused)
    result = site.pull(resolved)
    assert (result.present, result.fetched) == (3 * SHARD, SHARD + 99)
    assert content(site.out) == files


def test_the_disk_is_known_to_be_too_small_before_anything_is_fetched(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = site.add()
    real = os.statvfs

    def full(path: object) -> os.statvfs_result:
        status = list(real(path))  # type: ignore[arg-type]
        status[4] = 3  # f_bavail
        return os.statvfs_result(status)

    monkeypatch.setattr(os, "statvfs", full)
    with pytest.raises(StorageError, match="not enough space"):
        site.pull(digest)
    assert not site.registry.ranges


def test_a_file_where_the_directory_should_be_is_reported(site: Site) -> None:
    site.out.write_text("a file")
    with pytest.raises(StorageError):
        site.pull(site.add())
    with pytest.raises(UsageError):
        site.pull(site.add(), connections=0)


def test_a_pull_keeps_to_its_bandwidth_cap(site: Site) -> None:
    files = {"a": os.urandom(3 * SHARD), "b": os.urandom(SHARD)}
    resolved = site.resolve(site.add(files))
    now, lock = [0.0], threading.Lock()

    def sleep(seconds: float) -> None:
        with lock:
            now[0] += seconds

    rate = TokenBucket(1024 * 1024, clock=lambda: now[0], sleep=sleep)
    with RegistryClient(site.registry.url, rate=rate) as client, RemoteSource(client) as source:
        pull(resolved, source, site.out, connections=3)
    assert now[0] == pytest.approx(4 * SHARD / (1024 * 1024), rel=0.1)
    assert content(site.out) == files


def test_progress_sees_every_byte_once_whether_fetched_or_found(site: Site) -> None:
    class Watcher:
        def __init__(self) -> None:
            self.total = self.seen = 0
            self.lock = threading.Lock()

        def start(self, _label: str, total_bytes: int) -> None:
            self.total = total_bytes

        def advance(self, count: int) -> None:
            with self.lock:
                self.seen += count

        def done(self) -> None:
            pass

    resolved = site.resolve(site.add())
    for _ in range(2):
        watcher = Watcher()
        with site.client() as client, RemoteSource(client) as source:
            pull(resolved, source, site.out, progress=watcher)
        assert watcher.seen == watcher.total == sum(map(len, set(FILES.values())))
