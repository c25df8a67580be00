# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of a run go, and which memory a tensor is made of.

``WholeFiles`` gives each file one buffer in which every byte has its place; shards are read into it and checked there,
and tensors are views of it. ``OwnMemory`` gives each tensor memory of its own. A run that one tensor covers is read
and checked in that tensor's memory; a run that several share is read into a worker's scratch, checked there, and what
was checked is copied out of it. Either way the bytes that were checked are in private memory from before the check
until they are handed out, so nobody can exchange them in between.

In both, the data section of a file begins at an aligned address, so a tensor is aligned as its table demands, whatever
the length of the file's header.

``reserve``, ``release`` and ``clear`` are called under the stream's lock, the others by one worker per run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from pq_registry.format.path import ReleasePath
from pq_registry.loader.dtypes import Raw
from pq_registry.loader.memory import ALIGNMENT, Arena, anonymous, as_array
from pq_registry.loader.selection import Run, Unit


class Placement(Protocol):
    """Decides where bytes go."""

    def reserve(self, run: Run) -> None:
        """Make sure there is memory for every tensor in ``run``. Raises StorageError."""

    def direct(self, run: Run) -> memoryview | None:
        """Where to read and check the run, or None if that must be done in scratch memory."""

    def copy_out(self, run: Run, checked: memoryview) -> None:
        """Copy the tensors' parts of a run that was checked in scratch memory."""

    def release(self, position: int) -> Raw:
        """The bytes of a tensor all of whose runs were checked; the placement forgets them."""

    def clear(self) -> None:
        """Drop everything that was not released."""


class WholeFiles:
    """One buffer per file. A tensor keeps the buffer of its whole file alive."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._units = units
        self._buffers: dict[ReleasePath, Raw] = {}

    def reserve(self, run: Run) -> None:
        """Make the buffer of the run's file, unless it exists."""
        file = run.file
        if file.path not in self._buffers and file.tensors is not None:
            shift = -file.tensors.header_size % ALIGNMENT
            self._buffers[file.path] = as_array(anonymous(shift + file.size))[shift:]

    def direct(self, run: Run) -> memoryview | None:
        """The run's place in its file's buffer."""
        return self._buffers[run.file.path][run.offset : run.offset + run.size].data

    def copy_out(self, run: Run, checked: memoryview) -> None:
        """Never needed: every run has its place."""

    def release(self, position: int) -> Raw:
        """A view of the file's buffer."""
        unit = self._units[position]
        if unit.start == unit.end:
            return np.empty(0, np.uint8)
        return self._buffers[unit.file.path][unit.start : unit.end]

    def clear(self) -> None:
        """Drop the buffers; views that were released keep theirs."""
        self._buffers.clear()


class OwnMemory:
    """Memory of its own for each tensor, from an arena."""

    def __init__(self, units: Sequence[Unit], arena: Arena) -> None:
        self._units = units
        self._arena = arena
        self._own: dict[int, Raw] = {}

    def reserve(self, run: Run) -> None:
        """Take memory for the run's tensors that have none yet."""
        for position in run.units:
            unit = self._units[position]
            if position not in self._own and unit.start < unit.end:
                self._own[position] = self._arena.take(unit.end - unit.start)

    def direct(self, run: Run) -> memoryview | None:
        """The run's place in the tensor that covers it, if one does."""
        if run.owner is None:
            return None
        begin = run.offset - self._units[run.owner].start
        return self._own[run.owner][begin : begin + run.size].data

    def copy_out(self, run: Run, checked: memoryview) -> None:
        """Copy each tensor's part; the interpreter lock is released meanwhile."""
        source = np.frombuffer(checked, np.uint8)
        for position in run.units:
            unit = self._units[position]
            begin, end = run.overlap(unit)
            if begin < end:
                own = self._own[position]
                own[begin - unit.start : end - unit.start] = source[begin - run.offset : end - run.offset]

    def release(self, position: int) -> Raw:
        """The tensor's memory."""
        own = self._own.pop(position, None)
        return np.empty(0, np.uint8) if own is None else own

    def clear(self) -> None:
        """Drop what was not released, and let the arena keep nothing."""
        self._own.clear()
        self._arena.close()
