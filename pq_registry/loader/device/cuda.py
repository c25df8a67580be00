# SPDX-License-Identifier: Apache-2.0
"""NVIDIA devices, by torch.

Three streams: ``copies`` for copies from the host, ``work`` for everything computed or moved on the device, and the
caller's, which is the one that is current where this is made. Events make the order between them:

- Memory is allocated for the caller's stream, since the tensors are the caller's and are freed on it. The allocator may
  hand out a block that the caller has freed while kernels it queued earlier still read it. Both streams of ours
  therefore wait, at every allocation, for what the caller's stream has queued until then.
- The caller's stream waits for a tensor's copies when the tensor is handed out. A caller who makes another stream
  current in between is served on that one, and has to tell the allocator of it, as always in torch (``record_stream``).
- Nothing is freed under a pending copy: ``device.placement`` settles both streams first.

Waiting sleeps (events with blocking wait) and releases the interpreter lock. Host memory is an anonymous mapping in
large pages, on the NUMA node of the device where that can be had, page-locked as it is: exactly as large as needed, and
given back at the end. Where the system refuses to lock it (some confidential machines), copies go through the driver's
own buffers: slower, and said so once.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from pq_registry.errors import DeviceFailed
from pq_registry.loader.device import numa
from pq_registry.loader.device.accelerator import DeviceBytes, Kernels, Ticket, Transfer
from pq_registry.loader.memory import anonymous, as_array

_LOG = logging.getLogger(__name__)
_PORTABLE = 1  # cudaHostRegisterPortable: locked for every device of this process


class Event:
    """A ticket: everything a stream was given before."""

    def __init__(self, torch: Any, stream: Any, name: str) -> None:
        self._name = name
        self.event = torch.cuda.Event(blocking=True)
        self.event.record(stream)

    def done(self) -> bool:
        """Whether the stream has got there. Raises DeviceFailed."""
        with reported(self._name):
            return bool(self.event.query())

    def wait(self) -> None:
        """Sleep until it has. Raises DeviceFailed."""
        with reported(self._name):
            self.event.synchronize()


class Registered:
    """Host memory that was page-locked by registering it."""

    def __init__(self, torch: Any, size: int, *, node: int | None) -> None:
        """Take and lock ``size`` bytes.

        Raises:
            StorageError: if the system has not so much memory.
        """
        self._runtime = torch.cuda.cudart()
        mapping = anonymous(size)
        if node is not None:
            numa.prefer(mapping, node)
        array = as_array(mapping)
        self._address = int(array.ctypes.data)
        self.view = array[:size].data
        self.locked = int(self._runtime.cudaHostRegister(self._address, len(mapping), _PORTABLE)) == 0
        if not self.locked:
            # The runtime remembers the refusal and would blame it on the next kernel; let a harmless one take it.
            with contextlib.suppress(RuntimeError):
                torch.empty(1, device="cuda").fill_(0)

    def close(self) -> None:
        """Unlock it; the memory goes with the last view."""
        if self.locked:
            self.locked = False
            self._runtime.cudaHostUnregister(self._address)


class Cuda:
    """One CUDA device. Implements ``Accelerator``."""

    def __init__(self, torch: Any, device: Any) -> None:
        """Serve the caller whose current stream is that of this thread.

        Raises:
            DeviceFailed: if the device does not answer.
        """
        self._torch = torch
        with reported(str(device)):
            index = torch.cuda.current_device() if device.index is None else device.index
            self.device = torch.device(device.type, index)
            with torch.cuda.device(index):
                self._caller = torch.cuda.current_stream()
                self._copies = torch.cuda.Stream()
                self.work = torch.cuda.Stream()
        self._node = numa.node_of(torch.cuda.get_device_properties(index))
        self._warned = threading.Event()

    @property
    def name(self) -> str:
        """With its index."""
        return str(self.device)

    def allocate(self, size: int) -> DeviceBytes:
        """Memory of the caller's stream. Raises DeviceFailed."""
        torch = self._torch
        try:
            with reported(self.name), self.on(self._caller):
                memory = torch.empty(size, dtype=torch.uint8, device=self.device)
                self._copies.wait_stream(self._caller)
                self.work.wait_stream(self._caller)
        except torch.OutOfMemoryError:
            raise DeviceFailed(
                f"{self.name} has too little free memory",
                expected=f"{size} bytes",
                found=self._free(),
                hint="iter_tensors needs less at a time, names= leaves out what is not needed, rank= shares it",
            ) from None
        return memory

    def pin(self, size: int) -> Registered:
        """Page-locked memory near the device. Raises StorageError."""
        with reported(self.name), self._torch.cuda.device(self.device):
            pinned = Registered(self._torch, size, node=self._node)
        if not pinned.locked and not self._warned.is_set():
            self._warned.set()
            _LOG.warning("%s: memory cannot be page-locked here; copies will be slower", self.name)
        return pinned

    def bring(self, transfers: Sequence[Transfer]) -> Ticket:
        """Copies on a stream of their own. Raises DeviceFailed."""
        torch = self._torch
        with reported(self.name), self.on(self._copies):
            for transfer in transfers:
                source = torch.frombuffer(transfer.source, dtype=torch.uint8)
                transfer.target.copy_(source, non_blocking=True)
            return Event(torch, self._copies, self.name)

    def move(self, transfers: Sequence[Transfer]) -> Ticket:
        """Copies behind the kernels. Raises DeviceFailed."""
        with reported(self.name), self.on(self.work):
            for transfer in transfers:
                transfer.target.copy_(transfer.source, non_blocking=True)
            return Event(self._torch, self.work, self.name)

    def make_visible(self, tickets: Sequence[Ticket]) -> None:
        """The caller's stream waits, and the one that is current, if it is another. Raises DeviceFailed."""
        with reported(self.name):
            current = self._torch.cuda.current_stream(self.device)
            for ticket in tickets:
                assert isinstance(ticket, Event)
                if not ticket.done():
                    current.wait_event(ticket.event)
                    if current != self._caller:  # it is where the memory is freed one day
                        self._caller.wait_event(ticket.event)

    def kernels(self, *, sealed: bool) -> Kernels:
        """Those of Triton.

        Raises:
            UsageError: if it is not installed.
            DeviceFailed: if it cannot compile for this device.
        """
        from pq_registry.loader.device.cudakernels import CudaKernels

        return CudaKernels(self._torch, self, sealed=sealed)

    def settle(self) -> None:
        """Wait for both streams. Raises DeviceFailed."""
        with reported(self.name):
            self._copies.synchronize()
            self.work.synchronize()

    @contextlib.contextmanager
    def on(self, stream: Any) -> Iterator[None]:
        """Make ``stream``, and with it this device, current in this thread."""
        with self._torch.cuda.device(self.device), self._torch.cuda.stream(stream):
            yield

    def _free(self) -> str:
        with contextlib.suppress(RuntimeError):
            free, total = self._torch.cuda.mem_get_info(self.device)
            return f"{free} of {total} bytes free"
        return "less"


@contextlib.contextmanager
def reported(name: str) -> Iterator[None]:
    """Turn what torch and the driver raise into an error of the tree; memory that ran out is left to the caller.

    Raises:
        DeviceFailed: for whatever the body raised.
    """
    try:
        yield
    except RuntimeError as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        raise DeviceFailed(
            f"{name} failed",
            found=str(error).partition("\n")[0][:200],
            hint="the process may have to be restarted; the driver's log says more (dmesg, nvidia-smi)",
        ) from None
