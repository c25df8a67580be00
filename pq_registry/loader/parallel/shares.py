# SPDX-License-Identifier: Apache-2.0
"""What one rank reads, and what it makes of that: a plan applied to the tensors that were selected.

A part of dimension 0 becomes a unit of its own. A part of another dimension stays a whole unit, from which
``Narrowed`` copies the part once it has been checked; the whole is free then.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pq_registry.client.meter import Meter
from pq_registry.errors import DeviceFailed, StorageError
from pq_registry.format.tensors import TensorEntry
from pq_registry.loader.device.accelerator import Accelerator, DeviceBytes
from pq_registry.loader.dtypes import Framework, Raw
from pq_registry.loader.parallel.plan import Cutting, Part, bits_of_one, rows
from pq_registry.loader.selection import Unit


@dataclass(frozen=True, slots=True)
class Shares:
    """What a rank reads: ``units`` are all of it, in file order.

    Of these, ``alone`` is what only this rank gets, ``together`` what every rank needs to have read. ``parts`` says, by
    name, which tensors are then narrowed, and to what.
    """

    units: tuple[Unit, ...]
    alone: tuple[Unit, ...]
    together: tuple[Unit, ...]
    parts: Mapping[str, Part]


def shares(units: Sequence[Unit], cutting: Cutting | None) -> Shares:
    """What of ``units`` this rank gets.

    Raises:
        UsageError: if the plan asks for what a tensor cannot give.
    """
    if cutting is None:
        return Shares(tuple(units), (), tuple(units), {})
    found: list[tuple[Unit, bool]] = []
    parts: dict[str, Part] = {}
    for unit in units:
        lot = cutting.lot(unit.entry)
        if lot is None:
            continue
        if lot.part is not None and lot.part.dim == 0:
            base = unit.start - unit.entry.begin
            entry = rows(unit.entry, lot.part)
            found.append((Unit(unit.file, entry, base + entry.begin, base + entry.end), True))
            continue
        if lot.part is not None:
            parts[unit.entry.name] = lot.part
        found.append((unit, lot.alone))
    return Shares(
        tuple(unit for unit, _ in found),
        tuple(unit for unit, alone in found if alone),
        tuple(unit for unit, alone in found if not alone),
        parts,
    )


class Narrowed:
    """A framework that makes tensors of parts of what was read."""

    def __init__(self, form: Framework, parts: Mapping[str, Part], *, meter: Meter) -> None:
        self._form = form
        self._parts = parts
        self._meter = meter

    @property
    def on_cpu(self) -> bool:
        """Whether tensors share the memory their bytes were read into; parts are copies in any case."""
        return self._form.on_cpu

    def accelerator(self) -> Accelerator | None:
        """The device that bytes are brought to. Raises DeviceFailed."""
        return self._form.accelerator()

    def check(self, entries: Iterable[TensorEntry]) -> None:
        """Refuse parts the framework cannot represent. Raises UsageError."""
        self._form.check(_narrowed(entry, self._parts.get(entry.name)) for entry in entries)

    def make(self, entry: TensorEntry, raw: Any) -> Any:
        """The part of the tensor ``entry`` that was asked for.

        Raises:
            DeviceFailed: if the device has no memory for it.
            StorageError: if the system has none.
        """
        part = self._parts.get(entry.name)
        narrow = _narrowed(entry, part)
        if part is None or narrow.shape == entry.shape or not len(raw):
            return self._form.make(narrow, raw)
        with self._meter.timed("copy", narrow.end - narrow.begin):
            return self._form.make(narrow, _taken(raw, entry, part))


def _narrowed(entry: TensorEntry, part: Part | None) -> TensorEntry:
    if part is None:
        return entry
    shape = (*entry.shape[: part.dim], part.end - part.begin, *entry.shape[part.dim + 1 :])
    size = math.prod(entry.shape[: part.dim]) * ((part.end - part.begin) * bits_of_one(entry, part.dim) // 8)
    return replace(entry, shape=shape, end=entry.begin + size)


def _taken(raw: Raw | DeviceBytes, entry: TensorEntry, part: Part) -> Raw | DeviceBytes:
    """A copy of the bytes of ``part``, so that nothing keeps the others."""
    outer = math.prod(entry.shape[: part.dim])
    bits = bits_of_one(entry, part.dim)
    grid = raw.reshape(outer, -1)[:, part.begin * bits // 8 : part.end * bits // 8]
    try:
        return (grid.copy() if isinstance(grid, np.ndarray) else grid.clone()).reshape(-1)
    except MemoryError:
        raise StorageError(f"there is no memory for the part of {entry.name!r}", found=f"{grid.nbytes} bytes") from None
    except RuntimeError as error:  # torch's, of which memory that ran out is one
        raise DeviceFailed(
            f"the part of {entry.name!r} cannot be taken",
            found=str(error).partition("\n")[0][:200],
            hint="iter_tensors needs less memory at a time",
        ) from None
