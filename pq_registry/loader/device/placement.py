# SPDX-License-Identifier: Apache-2.0
"""Shards that the processor checks, on their way to a device.

A run is read and checked in a page-locked slot. What was checked is copied from there to the tensors it belongs to, by
the device itself while the next runs are read; the slot is used again when that copy is done, and a tensor is handed
out so that whatever its owner does with it on the device comes after its copies.

Bytes are checked in memory that only this process writes, and not between the check and the end of the copy.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import Any

from pq_registry.client.meter import Meter
from pq_registry.errors import DeviceFailed
from pq_registry.loader.device.accelerator import Accelerator, DeviceBytes, Pinned, Ticket, Transfer
from pq_registry.loader.device.layout import Layout
from pq_registry.loader.device.staging import Ring, Slot
from pq_registry.loader.placement import Landing
from pq_registry.loader.selection import Run


class Arrivals:
    """What was sent to which tensor, and the end of it all: what every placement on a device has in common."""

    def __init__(self, accelerator: Accelerator, layout: Layout, ring: Ring[Any]) -> None:
        self._accelerator = accelerator
        self._layout = layout
        self._ring = ring
        self._lock = threading.Lock()
        self._ended = False
        self._pending: dict[int, list[Ticket]] = {}

    def reserve(self, run: Run) -> None:
        """Make sure there is memory on the device for every tensor in ``run``. Raises DeviceFailed."""
        self._layout.reserve(run)

    def release(self, position: int) -> DeviceBytes:
        """The tensor's bytes, whose copies come before whatever the caller does with them. Raises DeviceFailed."""
        with self._lock:
            tickets = self._pending.pop(position, [])
        self._accelerator.make_visible(tickets)
        return self._layout.release(position)

    def clear(self) -> None:
        """Wait for every copy under way, and only then drop what they write to and read from.

        Raises:
            DeviceFailed: if the device failed: what was handed out may not have arrived.
        """
        with self._lock:
            self._ended = True
        try:
            self._accelerator.settle()
        finally:
            self._layout.clear()
            self._ring.close()

    def send(self, run: Run, transfers: Sequence[Transfer], *, moved: bool = False) -> Ticket | None:
        """Start the copies that complete ``run``; None if the load has ended and its memory may be gone."""
        with self._lock:
            if self._ended:
                return None
            copy = self._accelerator.move if moved else self._accelerator.bring
            ticket = copy(transfers)
            for position in run.units:
                # Those of a large tensor's first runs are long done when its last run is sent.
                waiting = [earlier for earlier in self._pending.get(position, []) if not earlier.done()]
                self._pending[position] = [*waiting, ticket]
            return ticket

    def retire(self, slot: Slot, ticket: Ticket | None) -> None:
        """Let a slot go, once everything the device was told to do with it is done."""
        if ticket is None:  # something failed, or the load has ended: no ticket stands for what was begun
            with contextlib.suppress(DeviceFailed):
                self._accelerator.settle()
        self._ring.put(slot, ticket)


class CheckedHere(Arrivals):
    """A placement for runs the processor checks."""

    def __init__(self, accelerator: Accelerator, layout: Layout, ring: Ring[Pinned], *, meter: Meter) -> None:
        """Bring runs to ``layout`` through ``ring``, whose slots are as large as the longest run."""
        super().__init__(accelerator, layout, ring)
        self._slots = ring
        self._meter = meter

    def land(self, run: Run) -> Landing:
        """A slot. Waits until the device has read what was in it."""
        with self._meter.timed("copy"):
            slot = self._slots.take()
        return _InSlot(self, run, slot)

    def finish(self, run: Run, slot: Pinned) -> None:
        """Start the copies of a checked run, and let the slot go when they are done."""
        ticket = None
        try:
            with self._meter.timed("copy", run.size):
                ticket = self.send(run, [
                    Transfer(slot.view[part.begin - run.offset : part.end - run.offset], part.target)
                    for part in self._layout.parts(run)
                ])  # fmt: skip
        finally:
            self.retire(slot, ticket)

    def drop(self, slot: Pinned) -> None:
        """Let a slot go that was not sent."""
        self._slots.put(slot, None)


class _InSlot:
    """A run in a slot, which leaves it once: with the copies that were started, or unused."""

    def __init__(self, placement: CheckedHere, run: Run, slot: Pinned) -> None:
        self._placement = placement
        self._run = run
        self._slot: Pinned | None = slot
        self.view = slot.view[: run.size]

    def commit(self) -> None:
        """Send it. Raises DeviceFailed."""
        slot, self._slot = self._slot, None
        if slot is not None:
            self._placement.finish(self._run, slot)

    def drop(self) -> None:
        """Let the slot go, unless it has gone."""
        slot, self._slot = self._slot, None
        if slot is not None:
            self._placement.drop(slot)
