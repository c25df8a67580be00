# SPDX-License-Identifier: Apache-2.0
"""Windows that are exchanged among devices: of the bytes of a model each process brings only its share to its device.

A share is read and checked in a page-locked slot and brought to the device; there the processes exchange the window
(over NCCL, so from device to device), and it is taken apart into the tensors. A slot is used again when its window was
exchanged, the window when what was taken out of it has arrived.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.errors import DeviceFailed, StorageError
from pq_registry.loader.device.accelerator import Accelerator, DeviceBytes, Pinned, Ticket, Transfer
from pq_registry.loader.device.layout import Layout
from pq_registry.loader.device.placement import Arrivals
from pq_registry.loader.device.staging import Ring
from pq_registry.loader.parallel.exchange import Exchange
from pq_registry.loader.parallel.turns import Turns
from pq_registry.loader.parallel.windows import Share, share_shards, share_size, window_shards
from pq_registry.loader.placement import Landing
from pq_registry.loader.selection import Run


@dataclass(frozen=True, slots=True)
class ShareSlot:
    """A share in page-locked memory, and the same share on the device."""

    pinned: Pinned
    staged: DeviceBytes

    @classmethod
    def make(cls, accelerator: Accelerator, size: int) -> ShareSlot:
        """A slot for shares of ``size`` bytes. Raises DeviceFailed or StorageError."""
        staged = accelerator.allocate(size)
        return cls(accelerator.pin(size), staged)

    def close(self) -> None:
        """Give the page-locked memory back."""
        self.pinned.close()


class SharedOnDevice(Arrivals):
    """Windows on a device, on their way to the tensors of ``layout``."""

    def __init__(
        self, accelerator: Accelerator, layout: Layout, exchange: Exchange, turns: Turns, *, slots: int, meter: Meter
    ) -> None:
        """Exchange windows over ``exchange``, in ``turns``, with ``slots`` slots or as many as can be had.

        Raises:
            DeviceFailed: if there is no memory on the device for a window and a share.
            StorageError: if there is no page-locked memory for a share.
        """
        window = window_shards(exchange.place.size) * limits.SHARD_BYTES
        self._window = accelerator.allocate(window)
        # All at once, and no more threads than these: one whose window is next must not wait for a slot that is held
        # by one that waits for its turn.
        self._unused = _make_slots(accelerator, window // exchange.place.size, slots)
        self.slots = len(self._unused)
        # Only the device's own queues wait for what the caller's did with this memory before; the exchange does not.
        accelerator.settle()
        self._taken = Ring(self._unused.pop, most=self.slots)
        super().__init__(accelerator, layout, self._taken)
        self._exchange = exchange
        self._turns = turns
        self._meter = meter

    def reserve(self, run: Run) -> None:
        """Make sure there is memory for the run's tensors, and take the number of its turn. Raises DeviceFailed."""
        with self._turns.blamed():
            super().reserve(run)
        self._turns.draw(run)

    def land(self, run: Run) -> Landing:
        """A slot for the share of this process. Raises DeviceFailed or StorageError."""
        with self._turns.blamed(), self._meter.timed("copy"):
            slot = self._taken.take()
        view = slot.pinned.view[: share_size(run, self._exchange.place)]
        return Share(run, view, commit=lambda: self._finish(run, slot), drop=lambda: self._drop(run, slot))

    def release(self, position: int) -> DeviceBytes:
        """The tensor's bytes. Raises DeviceFailed."""
        with self._turns.blamed():
            return super().release(position)

    def clear(self) -> None:
        """End the load here, wait for every copy under way, and drop what was not released. Raises DeviceFailed."""
        self._turns.close()
        try:
            super().clear()
        finally:
            while self._unused:
                self._unused.pop().close()

    def _finish(self, run: Run, slot: ShareSlot) -> None:
        place = self._exchange.place
        each, size = share_shards(run, place) * limits.SHARD_BYTES, share_size(run, place)
        if size:
            with self._turns.blamed(), self._meter.timed("copy", size):
                self._accelerator.bring([Transfer(slot.pinned.view[:size], slot.staged[:size])]).wait()
        moved: list[Ticket] = []

        def exchange() -> None:
            with self._meter.timed("gather", run.size - size):
                self._exchange.gather(slot.staged[:each], self._window[: each * place.size])

        def settle() -> None:
            with self._meter.timed("copy", run.size):
                moved.extend(self._take_apart(run))

        self._turns.take(run, exchange, settle)
        self.retire(slot, moved[0] if moved else None)  # where anything failed, _drop does it

    def _drop(self, run: Run, slot: ShareSlot) -> None:
        self.retire(slot, None)
        self._turns.give_up(run)

    def _take_apart(self, run: Run) -> list[Ticket]:
        """Copy the window ``run`` to where it belongs, and answer what stands for it. Done when this returns."""
        transfers = [
            Transfer(self._window[part.begin - run.offset : part.end - run.offset], part.target)
            for part in self._layout.parts(run)
        ]
        moved = self.send(run, transfers, moved=True)
        if moved is None:
            return []
        moved.wait()  # the next window is exchanged into the same memory
        return [moved]


def _make_slots(accelerator: Accelerator, size: int, most: int) -> list[ShareSlot]:
    """One slot at least, up to ``most``. Raises DeviceFailed or StorageError."""
    made = [ShareSlot.make(accelerator, size)]
    with contextlib.suppress(DeviceFailed, StorageError):  # fewer are slower, not wrong
        while len(made) < most:
            made.append(ShareSlot.make(accelerator, size))
    return made
