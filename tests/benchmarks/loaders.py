# SPDX-License-Identifier: Apache-2.0
"""Who loads tensors, and how: each loader gives names and tensors of one model, in the way its documentation shows.

A tensor counts until the next one is asked for: a consumer that keeps it has to copy it if its loader is ``borrowed``.
What a loader needs is imported by ``prepare``, so that no import is timed. ``direct`` means past the page cache,
where a loader has that.

From files: safetensors, fastsafetensors, runai-model-streamer, tensorizer, ours. Over HTTP: tensorizer, ours.

``python -m tests.benchmarks.loaders DIR TARGET`` writes the model again as tensorizer's file, encrypted if the name of
TARGET says so: in a process of its own, which takes its memory with it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.stage import REPOSITORY, SEALED_REPOSITORY

Tensors = Iterator[tuple[str, Any]]
KEY = bytes(range(32))
"""tensorizer's key. Nothing secret is in the model."""
TENSORS, SEALED_TENSORS = "model.tensors", "model.sealed.tensors"
"""Names of tensorizer's own files."""
BUFFERED = {"FASTSAFETENSORS_ODIRECT": "0", "RUNAI_STREAMER_FS_STRATEGY": "sync_buffered"}
"""Peers that read past the page cache by default are told not to where that is not the question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """One way to get tensors. ``checks`` is what it does about wrong bytes."""

    name: str
    checks: str
    module: str
    """What has to be installed, and is imported before anything is timed."""
    iterate: Callable[[str], Tensors]
    """The tensors of a directory, a file, a URL or a reference, for a caller that keeps none of them."""
    fill: Callable[[str, dict[str, Any]], object] | None = None
    """The same into parameters that exist, where a loader can do that itself; else they are copied there."""
    whole: Callable[[str], dict[str, Any]] | None = None
    """All tensors at once, in memory of their own, where that is another call."""
    framework: str = "torch"
    ours: bool = False
    borrowed: bool = False

    @property
    def installed(self) -> bool:
        """Whether it can run here."""
        return all(map(importlib.util.find_spec, {self.module.partition(".")[0], self.framework}))

    def prepare(self) -> None:
        """Import everything."""
        importlib.import_module(self.framework)
        importlib.import_module(self.module)


def weights(directory: str | Path) -> list[Path]:
    """The safetensors files of a directory."""
    return sorted(Path(directory).glob("*.safetensors"))


def framework() -> str:
    """Torch where it is installed, as a loader that needs no peer can do without."""
    return "torch" if importlib.util.find_spec("torch") else "numpy"


_retained: dict[str, Any] = {}


def retain(size: int) -> None:
    """Have every load of ours from now on use the same memory, for a model of ``size`` bytes."""
    from pq_registry.loader.memory import RetainedMemory

    _retained["memory"] = RetainedMemory(size + size // 16 + (64 << 20))


def _options(source: str, repository: str) -> dict[str, Any]:
    """A directory must be told what it holds; everything else is a reference and comes from the registry."""
    options: dict[str, Any] = {"framework": framework()}
    return {**options, "expect": repository} if Path(source).is_dir() else options


def _ours(repository: str) -> Callable[[str], Tensors]:
    def iterate(source: str) -> Tensors:
        from pq_registry import iter_tensors

        return iter_tensors(source, **_options(source, repository), **_retained)

    return iterate


def _ours_whole(repository: str) -> Callable[[str], dict[str, Any]]:
    def whole(source: str) -> dict[str, Any]:
        from pq_registry import load

        return load(source, **_options(source, repository), **_retained)

    return whole


def _ours_fill(repository: str) -> Callable[[str, dict[str, Any]], object]:
    def fill(source: str, model: dict[str, Any]) -> object:
        from pq_registry import load

        return load(source, into=model, **_options(source, repository))

    return fill


def _safetensors(source: str) -> Tensors:
    from safetensors.torch import load_file

    for path in weights(source):
        yield from load_file(path).items()


def _fastsafetensors(source: str) -> Tensors:
    """File by file, as vLLM does it."""
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup

    for path in weights(source):
        loader = SafeTensorsFileLoader(SingleGroup(), "cpu", nogds=True, debug_log=False)
        try:
            loader.add_filenames({0: [str(path)]})
            buffers = loader.copy_files_to_device()
            try:
                for name in list(buffers.key_to_rank_lidx):
                    yield name, buffers.get_tensor(name)
            finally:
                buffers.close()
        finally:
            loader.close()


def _runai(source: str) -> Tensors:
    from runai_model_streamer import SafetensorsStreamer

    with SafetensorsStreamer() as streamer:
        streamer.stream_files([str(path) for path in weights(source)])
        yield from streamer.get_tensors()


def _tensorizer(*, sealed: bool = False, verify: bool = False) -> Callable[[str], Tensors]:
    def iterate(source: str) -> Tensors:
        from tensorizer import DecryptionParams, TensorDeserializer

        options: dict[str, Any] = {"encryption": DecryptionParams.from_key(KEY)} if sealed else {}
        opened = TensorDeserializer(source, device="cpu", verify_hash=verify, **options)
        try:
            yield from opened.items()
        finally:
            opened.close()

    return iterate


def write_tensors(directory: str, target: Path) -> None:
    """The same tensors in tensorizer's format; it always stores its hashes."""
    from tensorizer import EncryptionParams, TensorSerializer

    encryption = EncryptionParams(key=KEY) if target.name == SEALED_TENSORS else None
    writer = TensorSerializer(str(target), encryption=encryption)
    writer.write_state_dict(dict(_safetensors(directory)))
    writer.close()


def tensorizer_can_encrypt() -> bool:
    """Whether tensorizer found libsodium, which it does not bring."""
    available: bool = importlib.import_module("tensorizer._crypt").available
    return available


_OURS: dict[str, Any] = {"module": "pq_registry.loader.api", "framework": framework(), "ours": True}
_TENSORIZER: dict[str, Any] = {"module": "tensorizer"}
NOTHING = "nothing"
LOADERS: dict[str, Loader] = {
    "pqreg": Loader(
        name="pq_registry, verified", checks="signatures, BLAKE3 of every shard", iterate=_ours(REPOSITORY),
        fill=_ours_fill(REPOSITORY), whole=_ours_whole(REPOSITORY), **_OURS,
    ),
    "pqreg-iterated": Loader(
        name="pq_registry, verified, iter_tensors", checks="signatures, BLAKE3 of every shard",
        iterate=_ours(REPOSITORY), **_OURS,
    ),
    "pqreg-sealed": Loader(
        name="pq_registry, verified + unsealed", checks="signatures, BLAKE3 and AES-256-GCM of every shard",
        iterate=_ours(SEALED_REPOSITORY), fill=_ours_fill(SEALED_REPOSITORY), whole=_ours_whole(SEALED_REPOSITORY),
        **_OURS,
    ),
    "safetensors": Loader(
        name="safetensors load_file", checks=NOTHING, module="safetensors.torch", iterate=_safetensors, borrowed=True,
    ),
    "fastsafetensors": Loader(
        name="fastsafetensors", checks=NOTHING, module="fastsafetensors", iterate=_fastsafetensors, borrowed=True,
    ),
    "runai": Loader(
        name="runai-model-streamer", checks=NOTHING, module="runai_model_streamer", iterate=_runai,
    ),
    "tensorizer": Loader(
        name="tensorizer", checks=NOTHING, iterate=_tensorizer(), **_TENSORIZER,
    ),
    "tensorizer-hash": Loader(
        name="tensorizer verify_hash", checks="CRC32 and SHA-256 from the same file", iterate=_tensorizer(verify=True),
        **_TENSORIZER,
    ),
    "tensorizer-sealed": Loader(
        name="tensorizer encrypted + verify_hash", checks="the same, and XSalsa20-Poly1305 of chunks",
        iterate=_tensorizer(sealed=True, verify=True), **_TENSORIZER,
    ),
}  # fmt: skip

if __name__ == "__main__":
    write_tensors(sys.argv[1], Path(sys.argv[2]))
