# SPDX-License-Identifier: Apache-2.0
"""Turning a weight file of torch into safetensors, without ever reading it here.

What torch reads is a pickle, and a pickle can be a program. So a process of its own reads it (``convertchild``), by
torch's restricted reader and nothing else, with no environment, no network, nothing it may write to, and bounds on
memory and time; it names the tensors and then sends their bytes through a pipe. This process looks at the archive from
outside first (``torcharchive``), makes the header of what the other says, by the rules for every tensor table, takes
exactly as many bytes as the header lists, and reads the finished file's header again before the file gets its name.

Tied weights, which share their bytes, are written once for each name, as far as ``limits.CONVERT_GROWTH`` allows.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pq_registry import limits
from pq_registry.client.progress import ignored
from pq_registry.durable import make_directory, publish, reported, temporary_path
from pq_registry.errors import FormatError, StorageError, UnsafeFileType, UsageError
from pq_registry.format.digest import Digest
from pq_registry.format.dtypes import tensor_bits
from pq_registry.format.safetensors import LENGTH_BYTES, encode_header, header_size, parse_header
from pq_registry.format.strict_json import Fields, parse_strict
from pq_registry.format.tensors import TensorEntry, TensorTable, dimensions
from pq_registry.loader.torch_bridge import TORCH
from pq_registry.mirror import convertchild
from pq_registry.mirror.torcharchive import check_archive

OLDEST_TORCH: Final = (2, 10)
"""Before it, torch's restricted reader could be made to corrupt memory (CVE-2026-24747)."""
_SMALLEST_HEADER = 10
_METADATA = (("format", "pt"),)
"""What transformers demands of a safetensors file of its own."""
# F4 packs two elements into one of torch's, so the shapes would not agree.
_DTYPES = {name: dtype for dtype, name in TORCH.items() if dtype != "F4"}


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion made: the file's size, digest and tensors, by which torch.

    ``network`` is whether the process that read the original could have reached a network, because the kernel gave it
    none of its own.
    """

    size: int
    sha256: Digest
    table: TensorTable
    torch: str
    network: bool


def require_torch() -> None:
    """Whether there is a torch that may be used for this; does not import it.

    Raises:
        UsageError: if there is not.
    """
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        version = "none"
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_TORCH:
        raise UsageError(
            "converting needs torch", expected=f"torch {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]} or newer", found=version,
            hint="pip install 'pq-registry[convert]', or leave the files out with --exclude",
        )  # fmt: skip


def convert(source: Path, target: Path, *, advance: Callable[[int], None] = ignored) -> Conversion:
    """Make the safetensors file ``target`` of the weight file ``source``; it is there wholly or not at all.

    Nobody but the caller may write where the two are.

    Args:
        source: what torch.save wrote, or what pretends to be that.
        target: the file to make; its directory is made if need be.
        advance: told of every byte that came.

    Raises:
        UnsafeFileType: if torch's restricted reader refuses the file, or it holds anything but tensors by name.
        FormatError: if it is no archive of torch, or no safetensors file can hold its tensors.
        StorageError: if the disk fails or has no room, or the process that reads the file cannot be started.
    """
    name = source.name
    with reported("read", source):
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        with reported("read", source), _about(name):
            check_archive(descriptor, size)
        make_directory(target.parent)
        with _child(descriptor, size, name) as child:
            with _about(name):
                table, version, network = _take_plan(child, name, size)
            sha256 = _write(child, name, target, table, advance)
    finally:
        os.close(descriptor)
    return Conversion(table.file_size, sha256, table, version, network)


class _Pipe:
    """What the other process says: a line, then bytes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._process = process
        self._descriptor = process.stdout.fileno()
        self._ahead = b""

    def line(self, name: str) -> bytes:
        """Its first line."""
        parts: list[bytes] = []
        while sum(map(len, parts)) <= limits.CONVERT_PLAN_BYTES:
            part = self._read(limits.CONVERT_PIECE_BYTES)
            if not part:
                break
            head, found, self._ahead = part.partition(b"\n")
            parts.append(head)
            if found:
                return b"".join(parts)
        raise self.failure(name)

    def piece(self, most: int) -> bytes:
        """Some of what comes after it, up to ``most`` bytes; nothing at its end."""
        if self._ahead:
            piece, self._ahead = self._ahead[:most], self._ahead[most:]
            return piece
        return self._read(most)

    def failure(self, name: str) -> UnsafeFileType:
        """The error for a process that ended, or fell silent, before it had said everything."""
        _end(self._process)
        return UnsafeFileType(
            f"{name} is not converted: the process that read it did not finish",
            expected="tensors by name, within the memory and time for a file of its size",
            found=_ending(self._process.returncode),
            hint=f"leave it out: --exclude '{name}'",
        )

    def _read(self, most: int) -> bytes:
        ready, _, _ = select.select([self._descriptor], [], [], limits.CONVERT_SILENCE_SECONDS)
        return os.read(self._descriptor, most) if ready else b""


@contextlib.contextmanager
def _child(descriptor: int, size: int, name: str) -> Iterator[_Pipe]:
    """The other process, which is gone when this is left, however that happens."""
    order = {
        "source": descriptor, "parent": os.getpid(), "dtypes": _DTYPES, "piece": limits.CONVERT_PIECE_BYTES,
        "memory": limits.CONVERT_MEMORY_BYTES, "cpu": limits.CONVERT_CPU_SECONDS + size // limits.CONVERT_CPU_BYTES,
    }  # fmt: skip
    one_thread = dict.fromkeys(("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    with contextlib.ExitStack() as stack:
        with reported("start the converter of", Path(name)):
            empty = tempfile.mkdtemp(prefix="pqreg-convert-")
            stack.callback(shutil.rmtree, empty, ignore_errors=True)
            process = subprocess.Popen(  # noqa: S603  our own interpreter and script
                [sys.executable, "-I", "-B", convertchild.__file__, json.dumps(order)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=empty,
                env={"PATH": "/usr/bin:/bin", "HOME": empty, "LC_ALL": "C", **one_thread}, pass_fds=(descriptor,),
                start_new_session=True,  # Ctrl-C is for us, who end it
            )  # fmt: skip
        assert process.stdout is not None
        stack.callback(process.stdout.close)
        stack.callback(_end, process)
        yield _Pipe(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _ending(code: int) -> str:
    if code >= 0:
        return f"it ended with status {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"


@contextlib.contextmanager
def _about(name: str) -> Iterator[None]:
    """Say of which file an error is."""
    try:
        yield
    except FormatError as error:
        raise FormatError(
            f"{name} is not converted: {error.message}", expected=error.expected, found=error.found,
            hint=error.hint or f"leave it out: --exclude '{name}'",
        ) from None  # fmt: skip


def _take_plan(child: _Pipe, name: str, size: int) -> tuple[TensorTable, str, bool]:
    """What the converted file will hold; the version of torch, and whether it could have reached a network."""
    line = child.line(name)
    answer = Fields(parse_strict(line, what="the converter's answer", limit=limits.CONVERT_PLAN_BYTES), "the converter")
    if answer.has("refused"):
        raise UnsafeFileType(
            f"{name} is not converted: {answer.text('refused', limit=1000)}",
            expected="a flat mapping of names to dense tensors, and nothing that is run to read it",
            found=answer.text("found", limit=1000), hint=f"leave it out: --exclude '{name}'",
        )  # fmt: skip
    entries: list[TensorEntry] = []
    at = 0
    for item in answer.array("tensors", minimum=1, limit=limits.TENSORS):
        match item:
            case [str() as tensor, str() as dtype, list() as shape]:
                sizes = tuple(dimensions(shape, f"tensor {tensor!r}"[:200]))
                end = at + tensor_bits(dtype, sizes) // 8
                entries.append(TensorEntry(tensor, dtype, sizes, at, end))
                at = end
            case _:
                raise FormatError("the converter's answer makes no sense")
    if at > size * limits.CONVERT_GROWTH:
        raise FormatError(
            "its tensors share their bytes, and would take many times as much",
            expected=f"at most {limits.CONVERT_GROWTH} times {size} bytes", found=f"{at} bytes",
        )  # fmt: skip
    version, network = answer.text("torch", limit=100), answer.boolean("network")
    answer.done()
    bare = TensorTable(_SMALLEST_HEADER, _METADATA, tuple(entries))
    header = encode_header(bare)
    return parse_header(header, len(header) + at), version, network


def _write(child: _Pipe, name: str, target: Path, table: TensorTable, advance: Callable[[int], None]) -> Digest:
    header = encode_header(table)
    with reported("ask for the free space of", target.parent):
        free = shutil.disk_usage(target.parent).free
    if table.file_size > free:
        raise StorageError(
            f"{target.parent} has no room for the converted {name}", expected=f"{table.file_size} bytes free",
            found=f"{free} bytes", hint="--staging DIR names another place",
        )  # fmt: skip
    temporary = temporary_path(target)
    digest = hashlib.sha256(header)
    try:
        with reported("write", target), open(temporary, "xb", 0) as file:
            file.write(header)
            rest = table.data_size
            while rest:
                piece = child.piece(min(rest, limits.CONVERT_PIECE_BYTES))
                if not piece:
                    raise child.failure(name)
                digest.update(piece)
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) or 0 :]
                rest -= len(piece)
                advance(len(piece))
            if child.piece(1):
                raise FormatError(f"{name} is not converted: more came than was announced")
            os.fsync(file.fileno())
        _check(temporary, table)
        with reported("write", target):
            publish(temporary, target, replace=True)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return Digest(digest.hexdigest())


def _check(path: Path, table: TensorTable) -> None:
    """Read the finished file as every safetensors file is read before it is published."""
    with reported("read", path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        first = file.read(LENGTH_BYTES)
        found = parse_header(first + file.read(header_size(first, size) - LENGTH_BYTES), size)
    if found != table:
        raise FormatError(f"{path.name} does not hold what was written")
