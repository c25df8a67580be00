# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of a run go, and which memory a tensor is made of.

``WholeFiles`` gives each file one buffer in which every byte has its place; shards are read into it and checked there,
and tensors are views of it. ``OwnMemory`` gives each tensor memory of its own. A run that one tensor covers is read
and checked in that tensor's memory; a run that several share is read into a worker's scratch, checked there, and what
was checked is copied out of it. Either way the bytes that were checked are in private memory from before the check
until they are handed out, so nobody can exchange them in between.

In both, the data section of a file begins at an aligned address, so a tensor is aligned as its table demands, whatever
the length of the file's header.

``reserve``, ``release`` and ``clear`` are called under the stream's lock, ``land`` and ``commit`` by the one worker
that has the run.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pq_registry.client.meter import Meter
from pq_registry.format.path import ReleasePath
from pq_registry.loader.dtypes import Raw
from pq_registry.loader.memory import ALIGNMENT, Arena, anonymous, as_array
from pq_registry.loader.selection import Run, Unit


class Landing(Protocol):
    """Memory for one run, from before it is read until it is where it belongs."""

    @property
    def view(self) -> memoryview:
        """What the filler fills."""

    def commit(self) -> None:
        """Bring the filled run to where it belongs. Once this returns, nothing may still read ``view``.

        Raises:
            ShardMismatch: if this is where the run is checked, and it is not what was signed.
        """

    def drop(self) -> None:
        """The run will not be committed: nothing of it may be used."""


class Placement(Protocol):
    """Decides where bytes go."""

    def reserve(self, run: Run) -> None:
        """Make sure there is memory for every tensor in ``run``. Raises StorageError."""

    def land(self, run: Run) -> Landing:
        """Where to read the run. May wait for memory that is still in use."""

    def release(self, position: int) -> Any:
        """The bytes of a tensor all of whose runs were committed; the placement forgets them."""

    def clear(self) -> None:
        """Drop everything that was not released."""


@dataclass(slots=True)
class InPlace:
    """A run that is read and checked where it belongs."""

    view: memoryview

    def commit(self) -> None:
        """Nothing is left to do."""

    def drop(self) -> None:
        """The placement drops the memory."""


class CopiesOut(Protocol):
    """A placement that takes runs out of scratch memory."""

    def copy_out(self, run: Run, checked: memoryview) -> None:
        """Copy each tensor's part of ``run``, whose bytes are ``checked``."""


@dataclass(slots=True)
class InScratch:
    """A run that is checked in scratch memory and then copied by ``placement``."""

    placement: CopiesOut
    run: Run
    view: memoryview

    def commit(self) -> None:
        """Copy each tensor's part."""
        self.placement.copy_out(self.run, self.view)

    def drop(self) -> None:
        """The scratch memory is used again."""


class WholeFiles:
    """One buffer per file. A tensor keeps the buffer of its whole file alive."""

    def __init__(self, units: Sequence[Unit], arena: Arena | None = None) -> None:
        """Take the buffers from ``arena``, or make new ones."""
        self._units = units
        self._arena = arena
        self._buffers: dict[ReleasePath, Raw] = {}

    def reserve(self, run: Run) -> None:
        """Make the buffer of the run's file, unless it exists."""
        file = run.file
        if file.path not in self._buffers and file.tensors is not None:
            shift = -file.tensors.header_size % ALIGNMENT
            size = shift + file.size
            memory = as_array(anonymous(size)) if self._arena is None else self._arena.take(size)
            self._buffers[file.path] = memory[shift:]

    def land(self, run: Run) -> Landing:
        """The run's place in its file's buffer."""
        return InPlace(self._buffers[run.file.path][run.offset : run.offset + run.size].data)

    def release(self, position: int) -> Raw:
        """A view of the file's buffer."""
        unit = self._units[position]
        if unit.start == unit.end:
            return np.empty(0, np.uint8)
        return self._buffers[unit.file.path][unit.start : unit.end]

    def clear(self) -> None:
        """Drop the buffers; views that were released keep theirs."""
        self._buffers.clear()


class TensorMemory:
    """Memory for each tensor apart: what ``OwnMemory`` and ``existing.Existing`` share."""

    def __init__(self, units: Sequence[Unit], *, meter: Meter) -> None:
        self._units = units
        self._meter = meter
        self._own: dict[int, Raw] = {}
        self._mine = threading.local()

    def in_tensor(self, run: Run, owner: int) -> Landing:
        """The run's place in the tensor that covers it."""
        begin = run.offset - self._units[owner].start
        return InPlace(self._own[owner][begin : begin + run.size].data)

    def in_scratch(self, run: Run) -> Landing:
        """Scratch memory of this thread, used again for its next run: small enough, it stays in the core's cache."""
        memory: memoryview = getattr(self._mine, "memory", memoryview(b""))
        if len(memory) < run.size:
            self._mine.memory = memory = as_array(anonymous(run.size)).data
        return InScratch(self, run, memory[: run.size])

    def copy_out(self, run: Run, checked: memoryview) -> None:
        """Copy each tensor's part; the interpreter lock is released meanwhile."""
        source = np.frombuffer(checked, np.uint8)
        with self._meter.timed("copy", run.size):
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


class OwnMemory(TensorMemory):
    """Memory of its own for each tensor, from an arena."""

    def __init__(self, units: Sequence[Unit], arena: Arena, *, meter: Meter) -> None:
        super().__init__(units, meter=meter)
        self._arena = arena

    def reserve(self, run: Run) -> None:
        """Take memory for the run's tensors that have none yet."""
        for position in run.units:
            unit = self._units[position]
            if position not in self._own and unit.start < unit.end:
                self._own[position] = self._arena.take(unit.end - unit.start)

    def land(self, run: Run) -> Landing:
        """The run's place in the tensor that covers it, if one does; else scratch memory of this thread."""
        return self.in_scratch(run) if run.owner is None else self.in_tensor(run, run.owner)

    def clear(self) -> None:
        """Drop what was not released, and let the arena keep nothing."""
        self._own.clear()
        self._arena.finish()
