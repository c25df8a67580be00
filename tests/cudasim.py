# SPDX-License-Identifier: Apache-2.0
"""torch without a CUDA device, as ``loader.device.cuda`` sees it: memory is the CPU's, streams keep a record.

Work is done at once, so this shows that the calls are right and come in an order that a real device would need: which
stream is current when a tensor is copied, and which streams wait for which. It cannot show what a driver does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch


class Stream:
    """A stream: a name, and what it was told."""

    def __init__(self, cuda: Cuda, name: str) -> None:
        self.cuda = cuda
        self.name = name
        self.told: list[str] = []

    def wait_stream(self, other: Stream) -> None:
        self.told.append(f"wait for {other.name}")

    def wait_event(self, event: Event) -> None:
        assert event.stream is not None, "an event nobody recorded is nothing to wait for"
        self.told.append(f"wait for {event.stream.name}")

    def synchronize(self) -> None:
        self.cuda.check()
        self.told.append("synchronised")


class Event:
    """An event."""

    def __init__(self, cuda: Cuda, *, blocking: bool = False) -> None:
        assert blocking, "waiting must not spin"
        self.cuda = cuda
        self.stream: Stream | None = None

    def record(self, stream: Stream) -> None:
        self.stream = stream

    def query(self) -> bool:
        self.cuda.check()
        return not self.cuda.pending

    def synchronize(self) -> None:
        self.cuda.check()


class Cuda:
    """``torch.cuda``."""

    def __init__(self) -> None:
        self._mine = threading.local()
        self.caller = Stream(self, "caller")
        self.streams: list[Stream] = []
        self.registered: dict[int, int] = {}
        self.refuse_to_register = False
        self.pending = True
        self.failure: str | None = None
        self.index = 0

    def check(self) -> None:
        if self.failure is not None:
            raise torch.AcceleratorError(self.failure)

    def current_device(self) -> int:
        return self.index

    def current_stream(self, device: Any = None) -> Stream:
        stack: list[Stream] = getattr(self._mine, "stack", [])
        return stack[-1] if stack else self.caller

    def Stream(self) -> Stream:
        self.streams.append(Stream(self, ("copies", "work")[len(self.streams) % 2]))
        return self.streams[-1]

    def Event(self, *, blocking: bool) -> Event:
        return Event(self, blocking=blocking)

    @contextmanager
    def device(self, device: Any) -> Iterator[None]:
        yield

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        stack = self._mine.__dict__.setdefault("stack", [])
        stack.append(stream)
        try:
            yield
        finally:
            stack.pop()

    def get_device_properties(self, index: int) -> Any:
        return SimpleNamespace(pci_domain_id=0xFFFF, pci_bus_id=0xFE, pci_device_id=0x1D)

    def mem_get_info(self, device: Any) -> tuple[int, int]:
        return 1000, 80 << 30

    def cudart(self) -> Cuda:
        return self

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        if self.refuse_to_register:
            return 801  # cudaErrorNotSupported
        assert address not in self.registered and flags == 1
        self.registered[address] = size
        return 0

    def cudaHostUnregister(self, address: int) -> int:
        del self.registered[address]
        return 0


class Torch:
    """``torch`` with that ``cuda``; ``copied`` says on which stream each copy into a tensor was made."""

    uint8 = torch.uint8
    OutOfMemoryError = torch.OutOfMemoryError
    Tensor = torch.Tensor
    frombuffer = staticmethod(torch.frombuffer)

    def __init__(self, *, memory: int = 1 << 40) -> None:
        self.cuda = Cuda()
        self.memory = memory
        self.pinned = 0

    def device(self, kind: str, index: int | None = None) -> torch.device:
        return torch.device(kind, index)

    def empty(
        self, shape: Any, *, dtype: Any = torch.uint8, device: Any = None, pin_memory: bool = False
    ) -> torch.Tensor:
        if isinstance(shape, int) and shape > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
        if device is not None and str(device) != "cpu":
            self.cuda.current_stream().told.append("allocated")
        return torch.full(shape if isinstance(shape, tuple) else (shape,), 0xA5, dtype=dtype)
