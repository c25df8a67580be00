# SPDX-License-Identifier: Apache-2.0
"""BLAKE3 and AES-256-CTR on a CUDA device: ``loader.kernels`` behind the interface of ``accelerator``.

The kernels are compiled for the device before the first shard is read, in the caller's thread: the first time on a
machine that takes up to a minute, and Triton keeps the result in its cache directory. Triton builds a small launcher
for them with the system's C compiler; where there is none, that is said here and not by a traceback of Triton's.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.shards import SHARD_DIGEST_BYTES
from pq_registry.errors import DeviceFailed, PqregError, UsageError
from pq_registry.loader.device.accelerator import DeviceBytes, Shards, Ticket

if TYPE_CHECKING:
    from pq_registry.loader.device.cuda import Cuda

_KEY_BYTES: Final = 44
"""Key and nonce of a shard."""


def require_triton() -> None:
    """Refuse where the kernels could not be compiled. Does not import anything.

    Raises:
        UsageError: if triton is not installed.
    """
    if "triton" not in sys.modules and importlib.util.find_spec("triton") is None:
        raise UsageError(
            'check_on="device" needs triton',
            expected="triton, which torch for CUDA brings along on Linux",
            hint='pip install "pq-registry[cuda]", or check_on="cpu"',
        )


@contextmanager
def computing(accelerator: Cuda) -> Iterator[None]:
    """Turn whatever torch, Triton, its compiler and the driver raise into an error of the tree.

    Raises:
        DeviceFailed: for whatever the body raised.
    """
    try:
        yield
    except PqregError:
        raise
    except Exception as error:  # noqa: BLE001 - Triton has no error of its own that covers them all
        found = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise DeviceFailed(
            f"{accelerator.name} cannot compute here",
            expected="a device, a driver and a C compiler that Triton can work with",
            found=found[:200],
            hint='check_on="cpu" needs none of them',
        ) from None


def _kernels() -> Any:
    from pq_registry.loader import kernels

    return kernels


class CudaDigests:
    """Digests on their way back."""

    def __init__(self, host: Any, ticket: Ticket) -> None:
        self._host = host
        self._ticket = ticket

    def result(self) -> bytes:
        """Wait for them. Raises DeviceFailed."""
        self._ticket.wait()
        return bytes(self._host.numpy())


class CudaKernels:
    """Kernels on the device's own stream."""

    def __init__(self, torch: Any, accelerator: Cuda, *, sealed: bool) -> None:
        """Import the kernels and compile them.

        Raises:
            UsageError: if triton is not installed.
            DeviceFailed: if it cannot compile for this device.
        """
        require_triton()
        self._torch = torch
        self._accelerator = accelerator
        with computing(accelerator), accelerator.on(accelerator.work):
            self._kernels = _kernels()
            self._kernels.prepare(accelerator.device, sealed=sealed)

    def digest(self, stored: DeviceBytes, shards: Shards, *, after: Ticket) -> CudaDigests:
        """BLAKE3 of each shard, copied back into page-locked memory. Raises DeviceFailed."""
        from pq_registry.loader.device.cuda import Event

        torch, accelerator = self._torch, self._accelerator
        assert isinstance(after, Event)
        with computing(accelerator), accelerator.on(accelerator.work):
            accelerator.work.wait_event(after.event)
            shape = (shards.count, SHARD_DIGEST_BYTES)
            # Zeros: memory used before could hold the right digests of an earlier load, whatever the kernel did.
            found = torch.empty(shape, dtype=torch.uint8, device=stored.device).zero_()
            self._kernels.shard_digests(
                stored, stride=shards.stride, size=shards.size, last=shards.last, count=shards.count, out=found
            )
            host = torch.empty(shape, dtype=torch.uint8, pin_memory=True).zero_()
            host.copy_(found, non_blocking=True)
            return CudaDigests(host, Event(torch, accelerator.work, accelerator.name))

    def decrypt(self, stored: DeviceBytes, shards: Shards, keys: Sequence[SecretBytes], out: DeviceBytes) -> None:
        """AES-256-CTR of each shard. Raises DeviceFailed.

        The keys gathered here are overwritten as soon as the driver has taken them, the ones on the device right after
        the kernels that read them. What the driver keeps of a small copy is not ours to overwrite.
        """
        torch, accelerator = self._torch, self._accelerator
        with SecretBytes(_KEY_BYTES * len(keys)) as gathered:
            for number, key in enumerate(keys):
                gathered[number * _KEY_BYTES : (number + 1) * _KEY_BYTES] = key
            with computing(accelerator), accelerator.on(accelerator.work):
                # From memory that is not page-locked: the call returns when the driver has taken a copy.
                here = torch.frombuffer(gathered, dtype=torch.uint8).view(len(keys), _KEY_BYTES)
                there = here.to(stored.device, non_blocking=True)
                try:
                    self._kernels.ctr_xor(
                        stored, out, stride=shards.stride, out_stride=shards.size, size=shards.size,
                        last=shards.last, count=shards.count, keys=there,
                    )  # fmt: skip
                finally:
                    there.zero_()
                del here
