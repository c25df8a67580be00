# SPDX-License-Identifier: Apache-2.0
"""Whether the directory a program took a model's configuration from is that of a certain release.

Weights that were verified are of no use under a configuration, a tokenizer or a chat template that was altered, or in
another model. So whoever fills a model asks here about the directory that the program was given. It must hold files of
the release and no others, beside its evidence and what tools leave there (``client.directory``):

- a file that is not safetensors has the signed bytes, shard by shard, and is there: without its chat template, say, a
  model is served with another one. Only files that ``pqreg exec`` leaves out, for their size, may be absent;
- a safetensors file has at least a header, which says what the signed tensor table says; the rest of it is not looked
  at, for weights are not read from there. It may be absent.

That a program read these bytes, and not others that stood there for a moment, cannot be seen from here: the directory
must be private, as that of ``pqreg exec`` is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pq_registry import limits
from pq_registry.client.directory import TOLERATED, ReleaseDirectory
from pq_registry.client.tree import Tree
from pq_registry.crypto.shards import check_shard
from pq_registry.durable import reported
from pq_registry.errors import FileSetMismatch, FormatError, ShardMismatch, TensorTableMismatch
from pq_registry.format.manifest import MANIFEST_NAME, FileEntry
from pq_registry.format.safetensors import LENGTH_BYTES, parse_header
from pq_registry.format.statement import EVIDENCE

if TYPE_CHECKING:
    from pq_registry.loader.opening import OpenRelease

_HINT = "give the program the directory that pqreg exec made, or one that pqreg pull filled with this release"


def check_model_directory(path: Path, opened: OpenRelease) -> None:
    """Refuse a directory that is not of ``opened``.

    Raises:
        FileSetMismatch: if it holds something else, or a file of another size, or lacks one.
        ShardMismatch: if a file is not what was signed.
        TensorTableMismatch: if a safetensors file has another header.
        UsageError: if it is no directory.
        StorageError: if it cannot be read.
    """
    files = {file.path.text: file for file in opened.files}
    beside = {MANIFEST_NAME, *EVIDENCE}
    with Tree(path) as tree, reported("read the directory", tree.path):
        present = {entry.text for entry in tree.walk(skip=TOLERATED)}
    strange = sorted(present - files.keys() - beside)
    if strange:
        raise FileSetMismatch(
            f"{path} is not a directory of {opened.verified.release.name}", expected="files of the release, no others",
            found=", ".join(strange)[:300], hint=_HINT,
        )  # fmt: skip
    with ReleaseDirectory(path) as directory:
        for text in sorted(present & files.keys()):
            if files[text].tensors is None:
                _check_whole(directory, files[text])
            else:
                _check_header(directory, files[text])
    small = {text for text, file in files.items() if file.tensors is None and file.size <= limits.READ_FILE_BYTES}
    if missing := sorted(small - present):
        raise FileSetMismatch(
            f"{path} lacks files of {opened.verified.release.name}", expected=f"all {len(small)} beside the weights",
            found=f"no {', no '.join(missing)}"[:300], hint=_HINT,
        )  # fmt: skip


def _check_whole(directory: ReleaseDirectory, file: FileEntry) -> None:
    descriptor = directory.open(file)
    try:
        with reported("read", file.path.under(directory.path)):
            for index in range(file.shard_count):
                offset, length = file.shard_range(index)
                shard = os.pread(descriptor, length, offset)
                check_shard(file.shard_digest(index), shard, path=file.path, index=index)
    except ShardMismatch as error:
        raise ShardMismatch(
            f"{error.message}, in the model's directory", expected=error.expected, found=error.found, hint=_HINT
        ) from None
    finally:
        os.close(descriptor)


def _check_header(directory: ReleaseDirectory, file: FileEntry) -> None:
    assert file.tensors is not None
    head = directory.small(file.path.parts, LENGTH_BYTES + limits.SAFETENSORS_HEADER_BYTES) or b""
    size = LENGTH_BYTES + int.from_bytes(head[:LENGTH_BYTES], "little")
    try:
        found = parse_header(head[:size], size + file.tensors.data_size)
    except FormatError as error:
        raise _other(file, str(error)) from None
    if (found.metadata, found.tensors) != (file.tensors.metadata, file.tensors.tensors):
        raise _other(file, f"{len(found.tensors)} tensors or metadata that differ")


def _other(file: FileEntry, found: str) -> TensorTableMismatch:
    assert file.tensors is not None
    return TensorTableMismatch(
        f"the header of {file.path} in the model's directory is not the signed tensor table",
        expected=f"{len(file.tensors.tensors)} tensors as signed", found=found, hint=_HINT,
    )  # fmt: skip
