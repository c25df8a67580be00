# SPDX-License-Identifier: Apache-2.0
"""Tensors that exist already (``into=``): they are filled, and nothing is allocated for them.

The first touch of fresh memory costs as much as BLAKE3 does (ADR 0010), and a second copy of a model may not fit. So
whoever has a model's parameters, or the tensors of an earlier ``load``, gives them here.

No byte reaches them unverified. A shard of a plain release is read into scratch memory of its thread, which stays in
the core's cache, checked there, and copied from there. A shard of a sealed release is checked as ciphertext, and then
decrypted straight into the tensor that covers it. When loading fails, tensors are left with some old and some new
content, all of it verified or the caller's own; the error says so by being raised.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from pq_registry.client.meter import Meter
from pq_registry.errors import UsageError
from pq_registry.format.manifest import TensorEntry
from pq_registry.loader.dtypes import ML_DTYPES, NUMPY, Raw, check_byte_order, no_form, numpy_dtype
from pq_registry.loader.placement import Landing, TensorMemory
from pq_registry.loader.selection import Run, Unit
from pq_registry.loader.torch_bridge import TORCH

HINT = "tensors with the dtypes and shapes of the release, in the memory of the CPU, each in one piece and writable"


class Given:
    """The caller's tensors, as a ``Framework``."""

    on_cpu = True

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self._tensors = dict(tensors)  # what is filled is what was checked, whatever becomes of the mapping

    def accelerator(self) -> None:
        """They are in host memory."""

    def check(self, entries: Iterable[TensorEntry]) -> None:
        """Refuse to fill what does not fit.

        Raises:
            UsageError: naming the first tensor that is missing, or is not like the one of the release; or if two share
                memory.
        """
        check_byte_order()
        places: list[tuple[int, int, str]] = []
        for entry in entries:
            raw = self.memory(entry)
            if raw.size:
                places.append((raw.ctypes.data, raw.ctypes.data + raw.size, entry.name))
        for one, two in pairwise(sorted(places)):
            if two[0] < one[1]:
                raise UsageError(
                    "two tensors of into= share memory",
                    expected="memory of its own for each tensor of the release",
                    found=f"{one[2]!r} and {two[2]!r}",
                    hint="leave one out by giving names=",
                )

    def memory(self, entry: TensorEntry) -> Raw:
        """The bytes of the caller's tensor for ``entry``. Raises UsageError if it does not fit."""
        target = self._tensors.get(entry.name)
        if isinstance(target, np.ndarray):
            return _array_bytes(entry, target)
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(target, torch.Tensor):
            return _tensor_bytes(entry, target, torch)
        found = "no tensor of that name" if target is None else type(target).__name__
        raise UsageError(
            f"into= does not hold {entry.name!r}", expected="a numpy array or a torch tensor", found=found,
            hint="give names= to fill only some",
        )  # fmt: skip

    def make(self, entry: TensorEntry, _raw: Raw) -> Any:
        """The caller's tensor itself."""
        return self._tensors[entry.name]


class Existing(TensorMemory):
    """Puts runs into the caller's tensors."""

    def __init__(self, units: Sequence[Unit], given: Given, *, verified: bool, meter: Meter) -> None:
        """Fill ``given``; ``verified`` if the filler writes nothing that it did not verify."""
        super().__init__(units, meter=meter)
        self._verified = verified
        self._own = {position: given.memory(unit.entry) for position, unit in enumerate(units)}

    def reserve(self, run: Run) -> None:
        """The memory is there."""

    def land(self, run: Run) -> Landing:
        """The tensor itself only for what arrives verified."""
        if self._verified and run.owner is not None:
            return self.in_tensor(run, run.owner)
        return self.in_scratch(run)

    def clear(self) -> None:
        """Hold on to nothing."""
        self._own.clear()


def _array_bytes(entry: TensorEntry, array: np.ndarray[Any, np.dtype[Any]]) -> Raw:
    if entry.dtype == "F4" or entry.dtype not in (*NUMPY, *ML_DTYPES):
        raise no_form(entry, "numpy")
    dtype = numpy_dtype(entry.dtype)
    sound = array.flags.c_contiguous and array.flags.writeable and array.flags.aligned
    if array.dtype != dtype or array.shape != entry.shape or not sound:
        how = "" if sound else ", read-only or not in one piece"
        raise _unlike(entry, str(dtype), f"{array.dtype} {list(array.shape)}{how}")
    # The memory itself: a subclass may think otherwise of shapes (matrix) or of assignments (masked arrays).
    return np.ndarray.view(array, np.ndarray).reshape(-1).view(np.uint8)


def _tensor_bytes(entry: TensorEntry, tensor: Any, torch: Any) -> Raw:
    dtype = getattr(torch, TORCH.get(entry.dtype, ""), None)
    if dtype is None:
        raise no_form(entry, f"torch {torch.__version__}")
    shape = entry.shape
    if entry.dtype == "F4" and shape:
        shape = (*shape[:-1], shape[-1] // 2)
    sound = tensor.device.type == "cpu" and tensor.layout == torch.strided and tensor.is_contiguous()
    if tensor.dtype != dtype or tuple(tensor.shape) != shape or not sound:
        how = "" if sound else ", not in one piece"
        raise _unlike(entry, str(dtype), f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}{how}")
    if not tensor.numel():
        return np.empty(0, np.uint8)
    try:
        room = tensor.untyped_storage().nbytes() - tensor.storage_offset() * tensor.element_size()
        raw: Raw = tensor.detach().view(-1).view(torch.uint8).numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:  # conjugated, negated, or a tensor without memory
        found = str(error).partition("\n")[0][:200]
    else:
        if raw.size <= room:
            return raw
        found = f"a storage of {room} bytes, which was resized"  # as FSDP does; numpy would write behind its end
    raise _unlike(entry, "memory of its own that holds its elements as they are", found)


def _unlike(entry: TensorEntry, dtype: str, found: str) -> UsageError:
    return UsageError(
        f"the tensor {entry.name!r} of into= is not like the one of the release",
        expected=f"{dtype} {list(entry.shape)}",
        found=found,
        hint=HINT,
    )
