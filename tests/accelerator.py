# SPDX-License-Identifier: Apache-2.0
"""A device in this process, as unkind as the interface allows.

Copies and kernels are performed by a thread of its own: late (never while fewer than ``lag`` of them wait, unless
somebody asks), in any order between queues, and on whatever the buffers hold *then*. Fresh memory is full of
``POISON``. ``violations`` lists every host buffer that changed or was given back, and every piece of device memory that
was dropped, while work on it was pending. ``spoil`` may change what a copy from the host brought. Device memory is
numpy's, so numpy makes the tensors.
"""

from __future__ import annotations

import random
import threading
import weakref
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from pq_registry.crypto.secret import SecretBytes
from pq_registry.errors import DeviceFailed, StorageError, UsageError
from pq_registry.loader.device.accelerator import Kernels, Shards, Ticket, Transfer
from pq_registry.loader.dtypes import Numpy, Raw

POISON = 0xA5


@dataclass(eq=False)
class Work:
    """Something a queue was given; also its ticket."""

    device: Simulated
    action: Callable[[], None]
    after: Work | None = None
    finished: bool = False

    def done(self) -> bool:
        self.device.raise_failure()
        return self.finished

    def wait(self) -> None:
        self.device.run_until(self)


class HostMemory:
    """Page-locked memory that the device knows of until it is closed."""

    def __init__(self, device: Simulated, size: int) -> None:
        self._device = device
        self.array = np.full(size, POISON, np.uint8)
        self.closed = False
        device.pinned.append(self)

    @property
    def view(self) -> memoryview:
        return self.array.data

    def close(self) -> None:
        assert not self.closed, "given back twice"
        self.closed = True
        self._device.pinned.remove(self)


class Place:
    """A slice of device memory that does not keep it alive."""

    def __init__(self, device: Simulated, target: Raw) -> None:
        owner = target if target.base is None else target.base
        assert isinstance(owner, np.ndarray) and id(owner) in device.live, "not memory of this device"
        self._device = device
        self._owner = weakref.ref(owner)
        begin = target.ctypes.data - owner.ctypes.data if target.size else 0
        self._range = slice(begin, begin + target.size)

    def get(self) -> Raw:
        owner = self._owner()
        if owner is None:
            self._device.violations.append("device memory was dropped while work on it was pending")
            return np.empty(self._range.stop - self._range.start, np.uint8)
        return owner[self._range]


class Simulated:
    """Implements ``Accelerator``."""

    name = "sim:0"

    def __init__(self, *, seed: int = 0, lag: int = 6, memory: int = 1 << 40, computes: bool = True) -> None:
        self._random = random.Random(seed)
        self._lag = lag
        self._capacity = memory
        self._computes = computes
        self._changed = threading.Condition()
        self._queues: dict[str, deque[Work]] = {"copies": deque(), "work": deque()}
        self._last: dict[str, Work] = {}
        self._wanted = 0
        self._failure: str | None = None
        self.live: dict[int, int] = {}
        self.pinned: list[HostMemory] = []
        self.violations: list[str] = []
        self.visible: list[Ticket] = []
        self.most_pinned = 0
        self.pin_limit: int | None = None
        self.key_copies: list[bytearray] = []
        self.digest_calls: list[Shards] = []
        self.spoil: Callable[[Raw], None] = lambda arrived: None
        self._thread = threading.Thread(target=self._perform, daemon=True, name="simulated-device")
        self._thread.start()

    # -- Accelerator

    def allocate(self, size: int) -> Raw:
        if sum(self.live.values()) + size > self._capacity:
            raise DeviceFailed(f"{self.name} has too little free memory", expected=f"{size} bytes")
        owner = np.full(size, POISON, np.uint8)
        self.live[id(owner)] = size
        weakref.finalize(owner, self.live.pop, id(owner)).atexit = False
        return owner

    def pin(self, size: int) -> HostMemory:
        if self.pin_limit is not None and len(self.pinned) >= self.pin_limit:
            raise StorageError("cannot get more memory")
        memory = HostMemory(self, size)
        self.most_pinned = max(self.most_pinned, len(self.pinned))
        return memory

    def bring(self, transfers: Sequence[Transfer]) -> Work:
        steps = [self._arrival(transfer) for transfer in transfers]
        return self._queue("copies", lambda: [step() for step in steps])

    def move(self, transfers: Sequence[Transfer]) -> Work:
        places = [(Place(self, transfer.source), Place(self, transfer.target)) for transfer in transfers]

        def copy() -> None:
            for source, target in places:
                target.get()[:] = source.get()

        return self._queue("work", copy)

    def make_visible(self, tickets: Sequence[Ticket]) -> None:
        """There is no queue of numpy's that could wait, so the caller does."""
        for ticket in tickets:
            ticket.wait()
        self.visible.extend(tickets)

    def kernels(self, *, sealed: bool) -> Kernels:
        if not self._computes:
            raise UsageError("this device computes nothing")
        return SimulatedKernels(self)

    def settle(self) -> None:
        with self._changed:
            last = list(self._last.values())
        for work in last:
            work.wait()

    # -- the device itself

    def fail(self, reason: str) -> None:
        """From now on nothing is done any more, as after an error of the driver."""
        with self._changed:
            self._failure = reason
            self._changed.notify_all()

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise DeviceFailed(f"{self.name} failed", found=self._failure)

    def run_until(self, work: Work) -> None:
        with self._changed:
            self._wanted += 1
            self._changed.notify_all()
            try:
                while not work.finished:
                    self.raise_failure()
                    self._changed.wait()
            finally:
                self._wanted -= 1

    def close(self) -> None:
        """End the thread; a test's business, not the loader's."""
        with self._changed:
            self._lag = -1
            self._changed.notify_all()
        self._thread.join(30)

    def queue_work(self, action: Callable[[], None], *, after: Work | None = None) -> Work:
        """Give the device's own queue something to do."""
        return self._queue("work", action, after)

    def _queue(self, queue: str, action: Callable[[], object], after: Work | None = None) -> Work:
        self.raise_failure()
        work = Work(self, lambda: (action(), None)[1], after)
        with self._changed:
            self._queues[queue].append(work)
            self._last[queue] = work
            self._changed.notify_all()
        return work

    def _arrival(self, transfer: Transfer) -> Callable[[], None]:
        source = np.frombuffer(transfer.source, np.uint8)
        address = source.ctypes.data
        memory = next(
            (one for one in self.pinned if 0 <= address - one.array.ctypes.data < max(one.array.size, 1)), None
        )
        assert memory is not None, "copied from memory that is not page-locked"
        view = transfer.source  # the transfer itself would keep the target alive
        promised = zlib.crc32(view)
        target = Place(self, transfer.target)
        assert source.size == transfer.target.size

        def copy() -> None:
            if memory.closed:
                self.violations.append("host memory was given back while a copy from it was pending")
            if zlib.crc32(view) != promised:
                self.violations.append("host memory was written while a copy from it was pending")
            arrived = target.get()
            arrived[:] = source
            self.spoil(arrived)

        return copy

    def _perform(self) -> None:
        while True:
            with self._changed:
                while (work := self._next()) is None:
                    if self._lag < 0:
                        return
                    self._changed.wait()
            work.action()
            with self._changed:
                work.finished = True
                self._changed.notify_all()

    def _next(self) -> Work | None:
        if self._failure is not None:
            return None
        waiting = sum(len(queue) for queue in self._queues.values())
        if not self._wanted and 0 <= self._lag >= waiting:
            return None
        ready = [q for q in self._queues.values() if q and (q[0].after is None or q[0].after.finished)]
        return self._random.choice(ready).popleft() if ready else None


@dataclass
class SimulatedKernels:
    """BLAKE3 and AES-256-CTR of the device's memory, as it is when their turn comes."""

    device: Simulated

    def digest(self, stored: Raw, shards: Shards, *, after: Ticket) -> SimulatedDigests:
        assert isinstance(after, Work)
        self.device.digest_calls.append(shards)
        place = Place(self.device, stored)
        assert stored.size == shards.end
        digests = SimulatedDigests()

        def hash_all() -> None:
            memory = place.get()
            for number in range(shards.count):
                begin = number * shards.stride
                length = shards.last if number == shards.count - 1 else shards.size
                digests.found += blake3(memory[begin : begin + length].tobytes()).digest()

        digests.work = self.device.queue_work(hash_all, after=after)
        return digests

    def decrypt(self, stored: Raw, shards: Shards, keys: Sequence[SecretBytes], out: Raw) -> None:
        assert len(keys) == shards.count
        copies = [bytearray(key) for key in keys]
        self.device.key_copies.extend(copies)
        source, target = Place(self.device, stored), Place(self.device, out)

        def decrypt_all() -> None:
            for number, key in enumerate(copies):
                length = shards.last if number == shards.count - 1 else shards.size
                begin = number * shards.stride
                cipher = Cipher(AES(key[:32]), CTR(bytes(key[32:]) + (2).to_bytes(4, "big"))).decryptor()
                clear = cipher.update(source.get()[begin : begin + length].tobytes())
                target.get()[number * shards.size : number * shards.size + length] = np.frombuffer(clear, np.uint8)
                key[:] = bytes(len(key))

        self.device.queue_work(decrypt_all)


@dataclass
class SimulatedDigests:
    """Digests on their way back."""

    found: bytes = b""
    work: Work = field(init=False)

    def result(self) -> bytes:
        self.work.wait()
        return self.found


class OnDevice(Numpy):
    """Arrays of numpy over the memory of a simulated device."""

    on_cpu = False

    def __init__(self, device: Simulated) -> None:
        self.device = device

    def accelerator(self) -> Simulated:  # type: ignore[override]
        return self.device
