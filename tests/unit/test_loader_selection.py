# SPDX-License-Identifier: Apache-2.0
"""Which tensors and shards are read: every wanted byte exactly once, nothing else."""

from __future__ import annotations

import random

import pytest

from pq_registry import limits
from pq_registry.errors import UsageError
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import FileEntry, Manifest, TensorEntry, TensorTable, shard_count
from pq_registry.format.path import ReleasePath
from pq_registry.loader.selection import Unit, runs, select
from tests.samples import NOW, REPOSITORY, publisher

SHARD = limits.SHARD_BYTES


def file_of(path: str, sizes: list[int], header: int = 16, prefix: str = "t") -> FileEntry:
    entries, at = [], 0
    for number, size in enumerate(sizes):
        entries.append(TensorEntry(f"{prefix}{number:04}", "U8", (size,), at, at + size))
        at += size
    table = TensorTable(header, (), tuple(entries))
    return FileEntry(ReleasePath(path), header + at, Digest("0" * 64), bytes(32 * shard_count(header + at)), table)


def plain_file(path: str) -> FileEntry:
    return FileEntry(ReleasePath(path), 2, Digest("0" * 64), bytes(32))


def manifest_of(*files: FileEntry) -> Manifest:
    ordered = tuple(sorted(files, key=lambda file: file.path.text))
    return Manifest(REPOSITORY, publisher().identity.id, "00" * 16, NOW, ordered)


def needed(units: tuple[Unit, ...]) -> set[tuple[str, int]]:
    """The shards that hold a wanted byte, the slow and obvious way."""
    return {
        (unit.file.path.text, index)
        for unit in units
        if unit.start < unit.end
        for index in range(unit.start // SHARD, (unit.end - 1) // SHARD + 1)
    }


def test_tensors_come_in_file_order_and_only_from_safetensors():
    files = manifest_of(
        file_of("b.safetensors", [1, 2], prefix="b"), plain_file("c.json"), file_of("a.safetensors", [3])
    )
    assert [unit.entry.name for unit in select(files)] == ["t0000", "b0000", "b0001"]


@pytest.mark.parametrize("by_owner", [False, True])
@pytest.mark.parametrize("longest", [1, 3, 8])
@pytest.mark.parametrize("seed", range(12))
def test_runs_cover_each_needed_shard_once_and_no_other(seed: int, longest: int, by_owner: bool):
    rng = random.Random(seed)
    sizes = [rng.choice([0, 1, 7, SHARD - 1, SHARD, SHARD + 1, 3 * SHARD, 5 * SHARD + 3]) for _ in range(40)]
    header = rng.choice([10, 16, SHARD - 8, SHARD, 3 * SHARD + 5])
    files = manifest_of(
        file_of("a.safetensors", sizes[:20], header, "a"), file_of("b.safetensors", sizes[20:], 16, "b")
    )
    names = None if seed % 3 else {unit.entry.name for unit in select(files) if rng.random() < 0.4}
    units = select(files, names=names)
    seen: list[tuple[str, int]] = []
    for run in runs(units, longest=longest, by_owner=by_owner):
        assert 1 <= run.count <= longest
        assert run.offset + run.size <= run.file.size
        seen += [(run.file.path.text, run.first + number) for number in range(run.count)]
        inside = [position for position, unit in enumerate(units) if unit.file is run.file and _overlaps(run, unit)]
        assert set(inside) <= set(run.units)
        if by_owner and run.owner is not None:
            assert inside == [run.owner]
            unit = units[run.owner]
            assert unit.start <= run.offset and run.offset + run.size <= unit.end
    assert seen == sorted(seen), "in file order"
    assert len(seen) == len(set(seen)), "a shard is read once, however many tensors share it"
    assert set(seen) == needed(units)


def _overlaps(run, unit: Unit) -> bool:
    begin, end = run.overlap(unit)
    return begin < end


def test_header_only_shards_are_not_read():
    units = select(manifest_of(file_of("a.safetensors", [10], header=2 * SHARD + 100)))
    assert [run.first for run in runs(units, longest=8, by_owner=False)] == [2]


def test_empty_tensors_need_no_shard():
    units = select(manifest_of(file_of("a.safetensors", [0, 0])))
    assert [unit.entry.shape for unit in units] == [(0,), (0,)]
    assert list(runs(units, longest=8, by_owner=True)) == []


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(UsageError, match=r"no such tensors.*nope"):
        select(manifest_of(file_of("a.safetensors", [1])), names=["t0000", "nope"])


def test_a_name_in_two_files_is_refused_until_files_decides():
    files = manifest_of(file_of("unet/m.safetensors", [1]), file_of("vae/m.safetensors", [2]))
    with pytest.raises(UsageError, match=r"unet/m\.safetensors and vae/m\.safetensors"):
        select(files)
    assert [unit.end for unit in select(files, files=["vae"])] == [18]
    assert [unit.end for unit in select(files, files=["unet/m.safetensors"])] == [17]
    with pytest.raises(UsageError, match="no safetensors file 'va'"):
        select(files, files=["va"])


def test_a_release_without_tensors_is_refused():
    with pytest.raises(UsageError, match="no tensors"):
        select(manifest_of(plain_file("config.json")))


def test_fifty_thousand_empty_tensors_cost_no_reads():
    count = 50_000
    entries = tuple(TensorEntry(f"t{number:06}", "U8", (0,), 0, 0) for number in range(count))
    last = TensorEntry("z", "U8", (5 * SHARD,), 0, 5 * SHARD)
    size = 16 + last.end
    table = TensorTable(16, (), (*entries, last))
    file = FileEntry(ReleasePath("a.safetensors"), size, Digest("0" * 64), bytes(32 * shard_count(size)), table)
    units = select(manifest_of(file))
    assert len(units) == count + 1
    assert [run.first for run in runs(units, longest=1, by_owner=True)] == list(range(6))
