# SPDX-License-Identifier: Apache-2.0
"""What a device must offer: memory, copies that run by themselves, and tickets that say when a copy is done.

A device works through queues. Copies from the host are one queue, everything on the device itself (hashing,
decrypting, copies between its own buffers) is another, and the caller's own work on tensors is a third. Within a queue
there is an order, between queues there is none except what tickets demand. Every call here returns before the work is
done, so whoever owns a buffer must ask the ticket before the buffer is written again, dropped or believed:

1. Host memory given to ``bring`` is read until its ticket is done.
2. Device memory given as a target is written until the ticket is done; dropped earlier, it could belong to somebody
   else while it is still being written.
3. What a ticket stands for is visible to the caller's queue only after ``make_visible``.

The lifetime tests run this package on a simulated device that performs copies as late as it may, in any order between
queues, and reports every buffer that was changed or dropped under a pending copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pq_registry.crypto.secret import SecretBytes

DeviceBytes = Any
"""A one-dimensional array of bytes on the device; its slices are views of it."""


class Ticket(Protocol):
    """Work that was handed to a device."""

    def done(self) -> bool:
        """Whether it is done. Raises DeviceFailed if it cannot be any more."""

    def wait(self) -> None:
        """Sleep until it is done, without the interpreter lock. Raises DeviceFailed if it cannot be any more."""


class Digests(Protocol):
    """Digests the device is computing."""

    def result(self) -> bytes:
        """Wait for them: 32 bytes per shard, in order. Raises DeviceFailed."""


class Pinned(Protocol):
    """Host memory the device reads by itself."""

    @property
    def view(self) -> memoryview:
        """The memory."""

    def close(self) -> None:
        """Give it back, once no ticket that reads it is pending."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Bytes to be copied: from page-locked host memory or device memory ``source``, to device memory ``target``."""

    source: Any
    target: DeviceBytes


@dataclass(frozen=True, slots=True)
class Shards:
    """How shards lie in a buffer: ``count`` of them, each ``stride`` after the one before it.

    Each has ``size`` bytes, the last one ``last``.
    """

    stride: int
    size: int
    last: int
    count: int

    @property
    def end(self) -> int:
        """Bytes from the beginning of the first to the end of the last."""
        return (self.count - 1) * self.stride + self.last


class Kernels(Protocol):
    """What the device computes itself. Called from several threads; the calls join the device's own queue."""

    def digest(self, stored: DeviceBytes, shards: Shards, *, after: Ticket) -> Digests:
        """BLAKE3 of each shard in ``stored``, once ``after`` is done. Raises DeviceFailed."""

    def decrypt(self, stored: DeviceBytes, shards: Shards, keys: Sequence[SecretBytes], out: DeviceBytes) -> None:
        """AES-256-CTR of each shard in ``stored`` to ``out``, where shards follow one another without gaps.

        ``shards`` describes the ciphertext without tags. Counters begin at 2, as GCM's do. Whatever is made of the
        keys on the device or in page-locked memory is overwritten once it was used.

        Args:
            stored: where the ciphertext lies.
            shards: how it lies there; ``size`` is also how far apart the plaintexts are.
            keys: of each shard, key (32 bytes) and nonce (12); the caller wipes them once this returned.
            out: where the plaintext goes.

        Raises:
            DeviceFailed: if the device refuses.
        """


class Accelerator(Protocol):
    """A device. Used by several threads at once; made in the thread that will be given the tensors."""

    @property
    def name(self) -> str:
        """As the caller calls it, e.g. ``cuda:0``."""

    def allocate(self, size: int) -> DeviceBytes:
        """Device memory of arbitrary content, aligned to ``layout.ALIGNMENT``. Raises DeviceFailed if it is short.

        Memory the caller's queue may still be using is not handed out to copies before that use is over.
        """

    def pin(self, size: int) -> Pinned:
        """Host memory the device can read while the processor does something else. Raises StorageError."""

    def bring(self, transfers: Sequence[Transfer]) -> Ticket:
        """Copy from host memory. Raises DeviceFailed."""

    def move(self, transfers: Sequence[Transfer]) -> Ticket:
        """Copy within device memory, after everything the device's own queue was given before. Raises DeviceFailed."""

    def make_visible(self, tickets: Sequence[Ticket]) -> None:
        """Whatever the caller does on the device from now on comes after these. Raises DeviceFailed."""

    def kernels(self, *, sealed: bool) -> Kernels:
        """What computes on this device, made ready: BLAKE3, and where shards are ``sealed`` AES.

        Raises:
            UsageError: if nothing does.
            DeviceFailed: if it cannot be made ready.
        """

    def settle(self) -> None:
        """Wait until the device has done everything it was given here. Raises DeviceFailed."""
