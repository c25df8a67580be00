# SPDX-License-Identifier: Apache-2.0
"""An opened release: tensors, parts of tensors and files of it, each read and verified when it is asked for.

::

    with pq_registry.open_verified("acme/teuken-7b:v1") as release:
        release.keys()                                          # names, from the signed tensor tables
        embedding = release.get_tensor("model.embed_tokens.weight")
        rows = release.get_slice("lm_head.weight")[1000:2000]   # reads only the shards of these rows
        config = json.loads(release.read_file("config.json"))

It has the methods of safetensors' ``safe_open``, for all files of the release at once. The release is verified once,
when it is opened (DESIGN §5, steps 0 to 7); every read after that checks the BLAKE3 digest of every shard it touches
against what was verified then (step 8). Whatever is returned is the caller's own memory. Any number of threads may
read at once.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.errors import UsageError
from pq_registry.format.manifest import FileEntry
from pq_registry.loader.dtypes import Framework, Raw
from pq_registry.loader.memory import ALIGNMENT, anonymous, as_array
from pq_registry.loader.opening import OpenRelease
from pq_registry.loader.options import Request
from pq_registry.loader.reading import VerifiedReader
from pq_registry.loader.selection import Unit, select
from pq_registry.loader.slices import Part, part

_NOT_HERE: Final = {
    "rank": "get_slice, with the rows of this rank",
    "world_size": "get_slice, with the rows of this rank",
    "plan": "get_slice, with the rows of this rank",
    "group": "get_slice, with the rows of this rank",
    "into": "load",
    "memory": "load or iter_tensors",
}
"""Options of ``load`` that mean nothing here, and what to use instead."""


class Opened:
    """A verified release; a context manager. Made by ``pq_registry.open_verified``."""

    def __init__(self, opened: OpenRelease, framework: Framework, request: Request) -> None:
        """Read ``opened`` as ``request`` says, and make tensors by ``framework``, which makes them in host memory.

        Raises:
            UsageError: for an option that means nothing here.
        """
        for name, instead in _NOT_HERE.items():
            if getattr(request, name) is not None:
                raise UsageError(f"open_verified takes no {name}", expected=instead)
        if request.check_on != "cpu":
            raise UsageError("open_verified checks on the CPU", expected='check_on="cpu"', found=request.check_on)
        self._opened = opened
        self._framework = framework
        self._request = request
        self._reader = VerifiedReader(opened, progress=request.watcher, meter=request.stats or Meter())
        self._files = {file.path.text: file for file in opened.files}
        self._lock = threading.Lock()
        self._units: Mapping[str, Unit] | None = None
        request.watcher.start(f"read {self.name}", sum(file.size for file in opened.files))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<release {self.name}@{self.digest}>"

    def close(self) -> None:
        """End reading; tensors that were returned stay."""
        self._reader.close()
        self._request.watcher.done()

    @property
    def release(self) -> OpenRelease:
        """What was verified, for ``api.load_opened`` and ``materialise``."""
        return self._opened

    @property
    def name(self) -> str:
        """The repository, ``namespace/name``."""
        return str(self._opened.verified.release.name)

    @property
    def digest(self) -> str:
        """The release's digest, ``sha256:...``."""
        return str(self._opened.verified.release.digest)

    # -- tensors -------------------------------------------------------------------------------------------------------

    def keys(self) -> list[str]:
        """The names of all tensors, sorted."""
        return sorted(self._tensors())

    def offset_keys(self) -> list[str]:
        """The names of all tensors in the order in which they are stored."""
        return list(self._tensors())

    def metadata(self) -> dict[str, str]:
        """What the files' headers say besides tensors; what two files contradict each other about is left out."""
        found: dict[str, set[str]] = {}
        for path in {unit.file.path.text: None for unit in self._tensors().values()}:
            table = self._files[path].tensors
            for key, value in () if table is None else table.metadata:
                found.setdefault(key, set()).add(value)
        return {key: min(values) for key, values in found.items() if len(values) == 1}

    def get_tensor(self, name: str) -> Any:
        """One tensor.

        Raises:
            UsageError: if there is no such tensor.
            ShardMismatch: if one of its shards is not what was signed.
            PqregError: if it cannot be had.
        """
        return self.get_slice(name)[...]

    def get_slice(self, name: str) -> TensorSlice:
        """A tensor of which only what is indexed is read. Raises UsageError if there is none of that name."""
        unit = self._tensors().get(name) if isinstance(name, str) else None
        if unit is None:
            near = difflib.get_close_matches(str(name), self._tensors(), 3)
            raise UsageError(
                f"the release has no tensor {name!r}"[:200],
                expected="one of keys()" if not near else " or ".join(near),
            )
        return TensorSlice(self, unit)

    def _tensors(self) -> Mapping[str, Unit]:
        """Every tensor that was asked for, in file order."""
        with self._lock:
            if self._units is None:
                units = select(self._opened, names=self._request.names, files=self._request.files)
                self._framework.check(unit.entry for unit in units)
                self._units = {unit.entry.name: unit for unit in units}
            return self._units

    def _make(self, unit: Unit, chosen: Part) -> Any:
        raw = _memory(chosen.end - chosen.begin)
        if raw.size:
            self._reader.read_into(unit.file, unit.start + chosen.begin, raw.data)
        tensor = self._framework.make(chosen.entry, chosen.take(raw))
        return tensor if self._request.device == "cpu" else tensor.to(self._request.device)

    # -- files ---------------------------------------------------------------------------------------------------------

    def files(self) -> tuple[FileEntry, ...]:
        """Every file of the release, of a sealed one in the clear, by code point of the path."""
        return self._opened.files

    def file(self, path: str) -> FileEntry:
        """The signed entry of a file. Raises UsageError if there is none of that path."""
        found = self._files.get(path) if isinstance(path, str) else None
        if found is None:
            near = difflib.get_close_matches(str(path), self._files, 3)
            raise UsageError(
                f"the release has no file {path!r}"[:200],
                expected="one of files()" if not near else " or ".join(near),
            )
        return found

    def read_file(self, path: str) -> bytes:
        """The content of a file.

        Raises:
            UsageError: if there is none of that path, or it is larger than ``limits.READ_FILE_BYTES``.
            ShardMismatch: if it is not what was signed.
            PqregError: if it cannot be had.
        """
        size = self.file(path).size
        if size > limits.READ_FILE_BYTES:
            raise UsageError(
                f"{path} is too large to be read whole",
                expected=f"at most {limits.READ_FILE_BYTES} bytes",
                found=f"{size} bytes",
                hint="read_range gives a part of it",
            )
        return self.read_range(path, 0, size)

    def read_range(self, path: str, begin: int, end: int) -> bytes:
        """The bytes from ``begin`` to ``end`` of a file, or as many of them as there are.

        Raises:
            UsageError: if there is no such file, or ``begin`` is negative.
            PqregError: as ``read_file``.
        """
        file = self.file(path)
        if begin < 0:
            raise UsageError(f"{path} has no such range", expected="0 or more", found=begin)
        return bytes(self._reader.read(file, begin, min(end, file.size)))

    def read_into(self, file: FileEntry, begin: int, view: memoryview) -> None:
        """Fill ``view`` from ``begin`` of ``file``, one of ``files()``; the range lies within it.

        Raises:
            PqregError: as ``read_file``; ``view`` then holds zeros.
        """
        self._reader.read_into(file, begin, view)

    def prefetch(self, file: FileEntry, offset: int) -> None:
        """Begin to read the shard at ``offset`` of a file: a hint of who reads it from front to back."""
        self._reader.prefetch(file, offset)


@dataclass(frozen=True, slots=True)
class TensorSlice:
    """A tensor that is read when it is indexed, and as far as it is.

    Indices are those of numpy that give a regular part: integers, slices with any step, ``...``. Integers in front and
    the first slice after them decide what is read; the rest is cut away after the check, and copied.
    """

    _opened: Opened
    _unit: Unit

    def get_shape(self) -> list[int]:
        """The tensor's shape."""
        return list(self._unit.entry.shape)

    def get_dtype(self) -> str:
        """The dtype as safetensors calls it, e.g. ``BF16``."""
        return self._unit.entry.dtype

    def __getitem__(self, index: Any) -> Any:
        """The part that ``index`` chooses, verified.

        Raises:
            UsageError: for an index of another kind, or out of range.
            PqregError: as ``Opened.get_tensor``.
        """
        return self._opened._make(self._unit, part(self._unit.entry, index))

    def __repr__(self) -> str:
        return f"<slice of {self._unit.entry.name!r}: {self.get_dtype()} {self.get_shape()}>"


def _memory(size: int) -> Raw:
    """Fresh memory of exactly ``size`` bytes, aligned for every dtype."""
    if size >= limits.SHARD_BYTES:
        return as_array(anonymous(size))[:size]
    block = np.empty(size + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + size]
