# SPDX-License-Identifier: Apache-2.0
"""The processes of a torch.distributed group, connected for one load.

Connections of their own: what the caller does with its group meanwhile, in another thread, cannot get between two
calls made here. Words go over gloo. Bytes go over gloo as well, or over NCCL where they are on CUDA devices. Addresses
are exchanged through the store that torch.distributed was initialised with.

Whatever one process of the group verified, the others believe: an exchange carries neither digests nor signatures. The
processes of a tensor-parallel model exchange activations the same way all the time.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol

import numpy as np

from pq_registry import limits
from pq_registry.errors import ConnectionFailed, UsageError
from pq_registry.loader.parallel.place import Place, members
from pq_registry.loader.parallel.words import Talk

_USES: Counter[tuple[int, ...]] = Counter()
_LOCK = threading.Lock()


class Exchange(Talk, Protocol):
    """A way to all processes of a group, for words and for bytes. One thread at a time."""

    def gather(self, mine: Any, window: Any) -> None:
        """Fill ``window`` with everybody's ``mine``, in the order of their ranks; done when this returns.

        Args:
            mine: bytes of this process, the same number everywhere: a numpy array, or memory of a device.
            window: memory of the same kind for all of them, one after another.

        Raises:
            ConnectionFailed: if one of them is gone, or silent for too long.
        """

    def close(self) -> None:
        """Take the connections down. The others need not do so at the same time."""


class TorchExchange:
    """The processes of ``group``."""

    def __init__(self, group: Any, *, device: str = "cpu") -> None:
        """Connect; every process of the group does so at the same time.

        Args:
            group: a process group of torch.distributed, or ``"world"``.
            device: where the bytes are.

        Raises:
            UsageError: if there is no such group, or it is too large.
            ConnectionFailed: if not all come.
        """
        ranks = tuple(sorted(members(group)))
        if len(ranks) > limits.LOADER_GROUP:
            raise UsageError(
                "the group is too large to share reading",
                expected=f"at most {limits.LOADER_GROUP} processes",
                found=len(ranks),
                hint="give a group of each node's processes",
            )
        import torch
        from torch import distributed

        self._torch = torch
        self._device = torch.device(device)
        over_nccl = self._device.type == "cuda"
        if not distributed.is_gloo_available() or (over_nccl and not distributed.is_nccl_available()):
            raise UsageError(
                "this torch cannot connect the processes of a group",
                expected="gloo, and NCCL for CUDA devices",
                found=f"torch {torch.__version__}",
                hint="leave out group=: every process then reads for itself",
            )
        self.place = Place(ranks.index(distributed.get_rank()), len(ranks))
        with _LOCK:
            _USES[ranks] += 1
            number = _USES[ranks]  # the same everywhere: each use is one of all of them
        name = f"pqreg/{'-'.join(map(str, ranks))}/{number}"
        with _reported():
            store = distributed.distributed_c10d._get_default_store()  # noqa: SLF001 - torch offers no other way to it
            self._words = self._connect(distributed.ProcessGroupGloo, distributed.PrefixStore(f"{name}/words/", store))
            self._bytes = self._words
            if over_nccl:
                prefixed = distributed.PrefixStore(f"{name}/bytes/", store)
                self._bytes = self._connect(distributed.ProcessGroupNCCL, prefixed)

    def _connect(self, kind: Any, store: Any) -> Any:
        return kind(store, self.place.rank, self.place.size, timedelta(seconds=limits.LOADER_GROUP_SECONDS))

    def tell(self, word: bytes) -> Sequence[bytes]:
        """Say ``word`` and hear everybody's. Raises ConnectionFailed."""
        size = limits.LOADER_WORD_BYTES
        mine = np.zeros(size, np.uint8)
        mine[: len(word)] = np.frombuffer(word, np.uint8)
        heard = np.empty(size * self.place.size, np.uint8)
        with _reported():
            self._words._allgather_base(self._torch.from_numpy(heard), self._torch.from_numpy(mine)).wait()  # noqa: SLF001 - the only form of it a backend has
        return [heard[begin : begin + size].tobytes().rstrip(b"\x00") for begin in range(0, len(heard), size)]

    def gather(self, mine: Any, window: Any) -> None:
        """Fill ``window`` with everybody's ``mine``. Raises ConnectionFailed."""
        torch = self._torch
        if isinstance(mine, np.ndarray):
            mine, window = torch.from_numpy(mine), torch.from_numpy(window)
        with _reported():
            if self._device.type == "cuda":
                with torch.cuda.device(self._device):
                    self._bytes._allgather_base(window, mine).wait()  # noqa: SLF001
                    torch.cuda.current_stream().synchronize()
            else:
                self._bytes._allgather_base(window, mine).wait()  # noqa: SLF001

    def close(self) -> None:
        """Take the connections down."""
        for backend in {id(one): one for one in (self._words, self._bytes)}.values():
            with _reported():
                getattr(backend, "shutdown", bool)()  # torch 2.6 ends them with the object only
        self._words = self._bytes = None


@contextmanager
def _reported() -> Iterator[None]:
    """Report torch's errors as ours."""
    try:
        yield
    except RuntimeError as error:  # DistError and its kinds are RuntimeErrors
        raise ConnectionFailed(
            "the processes of the group lost one another",
            expected=f"an answer of every one of them within {limits.LOADER_GROUP_SECONDS} s",
            found=str(error).partition("\n")[0][:200],
            hint="see what the others report; one of them may have ended",
        ) from None
