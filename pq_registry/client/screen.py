# SPDX-License-Identifier: Apache-2.0
"""What may be published: no file whose format can execute code, and no ``*.safetensors`` that is not one.

Looked at before anything is hashed, so that a push of 100 GB is refused in the first second, and all offending files
are named at once. ``--allow-unsafe`` lets executable formats pass; nothing lets a broken safetensors file pass, because
readers that disagree about its header would see different models. The tensor table that is signed is parsed again
from the bytes that are hashed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from pq_registry import limits
from pq_registry.client.hashing import about
from pq_registry.client.scan import Scan, SourceDirectory, SourceFile, read_exactly
from pq_registry.errors import UnsafeFileType
from pq_registry.format.executables import refusal
from pq_registry.format.manifest import SAFETENSORS_SUFFIX
from pq_registry.format.safetensors import LENGTH_BYTES, header_size, parse_header

_NAMED = 20
"""Offending files an error names; beyond that it counts them."""


def screen(source: SourceDirectory, scan: Scan, *, allow_unsafe: bool) -> tuple[str, ...]:
    """Refuse what may not be published.

    Returns:
        The files with executable formats that ``allow_unsafe`` let pass.

    Raises:
        UnsafeFileType: naming the files whose formats can execute code.
        FormatError: if a ``*.safetensors`` file is not one.
        SourceChanged: if a file changed since the scan.
        StorageError: if a file cannot be read.
    """
    unsafe: dict[str, str] = {}
    for file in scan.files:
        reason = _look(source, file)
        if reason is not None:
            unsafe[file.path.text] = reason
    return let_pass(unsafe, allow_unsafe=allow_unsafe)


def let_pass(unsafe: Mapping[str, str], *, allow_unsafe: bool) -> tuple[str, ...]:
    """The files with executable formats, if they may be published; ``unsafe`` says of each why it is one.

    Raises:
        UnsafeFileType: naming them, if they may not.
    """
    if unsafe and not allow_unsafe:
        listed = [f"{path} ({reason})" for path, reason in unsafe.items()][:_NAMED]
        more = f" and {len(unsafe) - _NAMED} more" if len(unsafe) > _NAMED else ""
        raise UnsafeFileType(
            "files whose format can execute code are not published",
            expected="safetensors, JSON, text and other formats that only hold data",
            found=", ".join(listed) + more,
            hint="convert weights to safetensors and leave programs out; --allow-unsafe publishes them as they are",
        )
    return tuple(unsafe)


def _look(source: SourceDirectory, file: SourceFile) -> str | None:
    descriptor = source.open(file)
    try:
        head = _read(file, descriptor, min(file.size, limits.HEAD_BYTES))
        if file.path.suffix != SAFETENSORS_SUFFIX:
            return refusal(file.path, head)
        with about(file.path):
            parse_header(_read(file, descriptor, header_size(head[:LENGTH_BYTES], file.size)), file.size)
        return None
    finally:
        os.close(descriptor)


def _read(file: SourceFile, descriptor: int, count: int) -> bytes:
    buffer = bytearray(count)
    read_exactly(file, descriptor, memoryview(buffer), 0)
    return bytes(buffer)
