# SPDX-License-Identifier: Apache-2.0
"""What to read: the tensors asked for, in file order, and the runs of shards that cover them.

Everything comes from the signed manifest; no header of a file is ever parsed. Shards that hold only headers, or only
tensors nobody asked for, are not read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pq_registry import limits
from pq_registry.errors import UsageError
from pq_registry.format.manifest import FileEntry, TensorEntry


class Listing(Protocol):
    """Something that lists files, as a manifest does."""

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """By code point of the path."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One tensor to be loaded: it occupies ``start`` to ``end`` of the stored file."""

    file: FileEntry
    entry: TensorEntry
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive shards of one file, read and checked together.

    ``units`` is the range of positions, in the list the run was made for, of the tensors that lie in it at least in
    part (empty ones among them). ``owner`` is the position of the one tensor that covers the run entirely, if any.
    """

    file: FileEntry
    first: int
    count: int
    units: range
    owner: int | None

    @property
    def offset(self) -> int:
        """Where the run begins in the file."""
        return self.first * limits.SHARD_BYTES

    @property
    def size(self) -> int:
        """Bytes of the run."""
        return min(self.count * limits.SHARD_BYTES, self.file.size - self.offset)

    def overlap(self, unit: Unit) -> tuple[int, int]:
        """The part of ``unit`` in this run, as offsets in the file; empty if the second is not the larger."""
        return max(unit.start, self.offset), min(unit.end, self.offset + self.size)


def select(
    release: Listing,
    *,
    names: Collection[str] | None = None,
    files: Collection[str] | None = None,
) -> tuple[Unit, ...]:
    """The tensors of a release in file order: files by code point, tensors by offset.

    Args:
        release: the verified manifest, or whatever else lists files.
        names: take only these tensors.
        files: take only these files, each a path or a folder of the release.

    Raises:
        UsageError: if there are no tensors, one of ``names`` or ``files`` does not exist, or two files hold a tensor
            of the same name.
    """
    chosen = [file for file in release.files if file.tensors is not None]
    if files is not None:
        for path in files:
            if not any(_lies_in(file, path) for file in chosen):
                raise UsageError(
                    f"the release has no safetensors file {path!r}", found=_list(file.path.text for file in chosen)
                )
        chosen = [file for file in chosen if any(_lies_in(file, path) for path in files)]
    if not chosen:
        raise UsageError(
            "there are no tensors to load",
            expected="at least one .safetensors file in the release",
            found=_list(file.path.text for file in release.files),
            hint="pqreg pull fetches releases of any kind",
        )
    wanted = None if names is None else frozenset(names)
    units: list[Unit] = []
    homes: dict[str, FileEntry] = {}
    for file in chosen:
        for unit in _units(file):
            if wanted is not None and unit.entry.name not in wanted:
                continue
            home = homes.setdefault(unit.entry.name, file)
            if home is not file:
                raise UsageError(
                    f"two files hold a tensor {unit.entry.name!r}",
                    found=f"{home.path} and {file.path}",
                    hint="give files= with the file or folder to load",
                )
            units.append(unit)
    if wanted is not None and len(homes) != len(wanted):
        raise UsageError("the release has no such tensors", found=_list(sorted(wanted - homes.keys())))
    return tuple(units)


def runs(units: Sequence[Unit], *, longest: int, by_owner: bool) -> Iterator[Run]:
    """The runs that cover ``units``, in order; each shard is in one run, however many tensors share it.

    Args:
        units: what ``select`` gave.
        longest: most shards in a run.
        by_owner: end runs where the tensor that covers a whole shard changes, so that ``owner`` is known.
    """
    pending: Run | None = None
    for shard in _shards(units):
        if pending is not None:
            if (
                pending.file is shard.file
                and pending.first + pending.count == shard.first
                and pending.count < longest
                and (not by_owner or pending.owner == shard.owner)
            ):
                units_of_both = range(pending.units.start, max(pending.units.stop, shard.units.stop))
                owner = shard.owner if pending.owner == shard.owner else None
                pending = Run(pending.file, pending.first, pending.count + 1, units_of_both, owner)
                continue
            yield pending
        pending = shard
    if pending is not None:
        yield pending


def _shards(units: Sequence[Unit]) -> Iterator[Run]:
    """Every shard that holds a byte of a unit, as a run of its own."""
    low = 0
    while low < len(units):
        if units[low].start == units[low].end:
            low += 1
            continue
        file = units[low].file
        index = units[low].start // limits.SHARD_BYTES
        while True:
            offset, length = file.shard_range(index)
            end = offset + length
            high = low + 1
            while high < len(units) and units[high].file is file and units[high].start < end:
                high += 1
            covered = units[low].start <= offset and end <= units[low].end
            yield Run(file, index, 1, range(low, high), low if covered else None)
            while low < high and units[low].end <= end:
                low += 1
            if low == high:
                break
            index += 1


def _units(file: FileEntry) -> Iterator[Unit]:
    if file.tensors is not None:
        base = file.tensors.header_size
        for entry in file.tensors.tensors:
            yield Unit(file, entry, base + entry.begin, base + entry.end)


def _lies_in(file: FileEntry, path: str) -> bool:
    folder = path.rstrip("/") + "/"
    return file.path.text == path or file.path.text.startswith(folder)


def _list(names: Iterator[str] | Sequence[str]) -> str:
    text = ", ".join(names)
    return text if len(text) <= 300 else text[:300] + " ..."
