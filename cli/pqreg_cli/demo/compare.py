# SPDX-License-Identifier: Apache-2.0
"""Load a release with pq_registry and compare every tensor with the original file, bit for bit.

Usage: python compare.py REFERENCE|DIRECTORY [EXPECT] ORIGINAL.safetensors

The original is taken apart here with nothing but json, so that our own parser is not its own judge.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pq_registry


def original_tensors(path: Path) -> dict[str, tuple[list[int], bytes]]:
    """Shape and bytes of each tensor of a safetensors file."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    return {
        name: (entry["shape"], data[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def main() -> None:
    """Print what was compared as JSON; fail if anything differs."""
    what, *expect, original = sys.argv[1:]
    begun = time.monotonic()
    loaded = pq_registry.load(what, framework="numpy", expect=expect[0] if expect else None)
    seconds = time.monotonic() - begun
    wanted = original_tensors(Path(original))
    different = [
        name
        for name, (shape, data) in wanted.items()
        if name not in loaded or list(loaded[name].shape) != shape or loaded[name].tobytes() != data
    ]
    size = sum(len(data) for _, data in wanted.values())
    print(json.dumps({"tensors": len(wanted), "bytes": size, "seconds": seconds, "different": different}))
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
