# SPDX-License-Identifier: Apache-2.0
"""Device memory of tensors, and which part of a run goes where in it.

``Packed`` (for ``load``) makes one allocation per file: neighbouring tensors stay neighbours in it, so that a run is
one copy, and what nobody asked for takes no room. ``Apart`` (for ``iter_tensors``) makes one per tensor, so that each
is freed by itself. Either way a tensor begins at a multiple of ``ALIGNMENT`` or where its offset in the data section
puts it relative to one, which the format aligns to the tensor's dtype.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from pq_registry.format.path import ReleasePath
from pq_registry.loader.device.accelerator import Accelerator, DeviceBytes
from pq_registry.loader.selection import Run, Unit

ALIGNMENT: Final = 512
"""Bytes: what the allocators of all devices give, and more than any vector load wants."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes ``begin`` to ``end`` of a file, and the memory they belong in."""

    begin: int
    end: int
    target: DeviceBytes


class Layout(Protocol):
    """Where tensors are on the device. ``reserve``, ``release`` and ``clear`` are called under the stream's lock."""

    def reserve(self, run: Run) -> None:
        """Make sure there is memory for every tensor in ``run``. Raises DeviceFailed."""

    def parts(self, run: Run) -> Iterator[Part]:
        """Where the bytes of ``run`` that belong to tensors go."""

    def release(self, position: int) -> DeviceBytes:
        """The memory of the tensor at ``position``, which is forgotten here."""

    def clear(self) -> None:
        """Forget everything that was not released."""


@dataclass(slots=True)
class _File:
    """Spans of one file that lie in its allocation: ``starts`` to ``ends``, each at one of ``places``."""

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    size: int = 0

    def add(self, start: int, end: int, phase: int) -> None:
        """Join ``start`` to ``end`` to the last span, or begin one ``phase`` bytes after a multiple of ALIGNMENT."""
        if self.ends and self.ends[-1] == start:
            self.ends[-1] = end
        else:
            self.starts.append(start)
            self.ends.append(end)
            self.places.append(self.size + (phase - self.size) % ALIGNMENT)
        self.size = self.places[-1] + end - self.starts[-1]

    def place(self, start: int) -> int:
        """Where in the allocation the byte at ``start`` of the file is."""
        index = bisect.bisect_right(self.starts, start) - 1
        return self.places[index] + start - self.starts[index]


class Packed:
    """One allocation per file, all of them made at once: what does not fit is known before anything is read."""

    def __init__(self, units: Sequence[Unit], accelerator: Accelerator) -> None:
        """Allocate.

        Raises:
            DeviceFailed: if too little memory is free.
        """
        self._units = units
        self._files: dict[ReleasePath, _File] = {}
        for unit in units:
            if unit.start < unit.end:
                file = self._files.setdefault(unit.file.path, _File())
                file.add(unit.start, unit.end, unit.entry.begin % ALIGNMENT)
        self._memory = {path: accelerator.allocate(file.size) for path, file in self._files.items()}
        self._nothing = accelerator.allocate(0)

    def reserve(self, run: Run) -> None:
        """Everything is there."""

    def parts(self, run: Run) -> Iterator[Part]:
        """Mostly one."""
        file = self._files[run.file.path]
        memory = self._memory[run.file.path]
        index = bisect.bisect_right(file.ends, run.offset)
        while index < len(file.starts) and file.starts[index] < run.offset + run.size:
            begin = max(file.starts[index], run.offset)
            end = min(file.ends[index], run.offset + run.size)
            place = file.places[index] + begin - file.starts[index]
            yield Part(begin, end, memory[place : place + end - begin])
            index += 1

    def release(self, position: int) -> DeviceBytes:
        """A view of the file's allocation."""
        unit = self._units[position]
        if unit.start == unit.end:
            return self._nothing
        place = self._files[unit.file.path].place(unit.start)
        return self._memory[unit.file.path][place : place + unit.end - unit.start]

    def clear(self) -> None:
        """Drop the allocations; views that were released keep theirs."""
        self._memory.clear()


class Apart:
    """One allocation per tensor, made when its first run is."""

    def __init__(self, units: Sequence[Unit], accelerator: Accelerator) -> None:
        self._units = units
        self._accelerator = accelerator
        self._own: dict[int, DeviceBytes] = {}

    def reserve(self, run: Run) -> None:
        """Allocate for the run's tensors that have no memory yet. Raises DeviceFailed."""
        for position in run.units:
            unit = self._units[position]
            if position not in self._own and unit.start < unit.end:
                self._own[position] = self._accelerator.allocate(unit.end - unit.start)

    def parts(self, run: Run) -> Iterator[Part]:
        """One for each tensor in the run."""
        for position in run.units:
            unit = self._units[position]
            begin, end = run.overlap(unit)
            if begin < end:
                yield Part(begin, end, self._own[position][begin - unit.start : end - unit.start])

    def release(self, position: int) -> DeviceBytes:
        """The tensor's memory."""
        unit = self._units[position]
        return self._accelerator.allocate(0) if unit.start == unit.end else self._own.pop(position)

    def clear(self) -> None:
        """Drop what was not released."""
        self._own.clear()
