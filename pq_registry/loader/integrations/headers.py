# SPDX-License-Identifier: Apache-2.0
"""Safetensors files without their data, for programs that look into headers before somebody else loads the weights.

vLLM asks the headers in a model's directory whether there is an ``lm_head``, and of which dtype the weights are. What
is written here answers that from the signed tensor table. Whoever takes such a file for weights finds it cut off, and
every reader of the format refuses it; a sparse file of the full size would instead be a model of zeros.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pq_registry.durable import reported
from pq_registry.format.manifest import FileEntry
from pq_registry.format.safetensors import encode_header


def write_headers(files: Sequence[FileEntry], directory: Path) -> int:
    """Write the header of every safetensors file among ``files``; answers how many there are.

    Args:
        files: of a verified release.
        directory: a private directory without these files (``integrations.private``).

    Raises:
        StorageError: if one cannot be written.
    """
    count = 0
    for file in files:
        if file.tensors is None:
            continue
        path = file.path.under(directory)
        with reported("write", path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as out:
                out.write(encode_header(file.tensors))
        count += 1
    return count
