# SPDX-License-Identifier: Apache-2.0
"""Contenders of ours for seal: ``seal|unseal THREADS DIR [SCRATCH]``. Prints seconds, imports excluded.

Shards of 2 MiB of the model's weight files are read from page cache and sealed, or unsealed, into a buffer that each
thread uses again; nothing is written. ``make`` first writes what ``unseal`` reads, sealed under the same key:
``make 1 DIR SCRATCH``. The key is a constant, for a benchmark only.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pq_registry import limits
from pq_registry.crypto.sealing import FileSealer, SealingKey
from pq_registry.crypto.secret import SecretBytes
from pq_registry.format.sealing import SLICE_BYTES, stored_path

Shard = tuple[int, FileSealer, int]


def opened(directory: Path, sources: Path, key: SealingKey) -> Iterator[Shard]:
    """Descriptor, sealer and number of every shard; file names and sizes are those of ``sources``."""
    for number, path in enumerate(sorted(sources.glob("*.safetensors"))):
        descriptor = os.open(directory / path.name, os.O_RDONLY)
        sealer = key.file(stored_path(number), path.stat().st_size)
        for index in range(sealer.shard_count):
            yield descriptor, sealer, index


def seal(shard: Shard, clear: memoryview, stored: memoryview) -> int:
    """One shard."""
    descriptor, sealer, index = shard
    length = sealer.plaintext_length(index)
    assert os.preadv(descriptor, [clear[:length]], index * limits.SHARD_BYTES) == length
    sealer.seal_into(index, clear[:length], stored[: length + limits.SEAL_TAG_BYTES])
    return length


def unseal(shard: Shard, clear: memoryview, stored: memoryview) -> int:
    """One shard, authenticated."""
    descriptor, sealer, index = shard
    length = sealer.plaintext_length(index)
    whole = length + limits.SEAL_TAG_BYTES
    assert os.preadv(descriptor, [stored[:whole]], index * SLICE_BYTES) == whole
    sealer.unseal_into(index, stored[:whole], clear[:length])
    return length


def main(mode: str, threads: int, directory: Path, scratch: Path) -> dict[str, float]:
    """Prepare, then time."""
    with SealingKey(SecretBytes(range(32)), "00" * 16) as key:
        if mode == "make":
            return make(directory, scratch, key)
        job = seal if mode == "seal" else unseal
        shards = list(opened(directory if mode == "seal" else scratch, directory, key))
        left, lock, done = iter(shards), threading.Lock(), [0] * threads
        buffers = [(memoryview(bytearray(limits.SHARD_BYTES)), memoryview(bytearray(SLICE_BYTES))) for _ in done]

        def run(thread: int) -> None:
            while True:
                with lock:
                    shard = next(left, None)
                if shard is None:
                    return
                done[thread] += job(shard, *buffers[thread])

        crew = [threading.Thread(target=run, args=(thread,)) for thread in range(threads)]
        begun = time.perf_counter()
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        seconds = time.perf_counter() - begun
    expected = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    if sum(done) != expected:  # a thread failed
        raise SystemExit(f"{sum(done)} of {expected} bytes were done")
    return {"seconds": seconds, "bytes": expected}


def make(directory: Path, scratch: Path, key: SealingKey) -> dict[str, float]:
    """Write what ``unseal`` reads."""
    scratch.mkdir()
    clear, stored = memoryview(bytearray(limits.SHARD_BYTES)), memoryview(bytearray(SLICE_BYTES))
    names = {}
    for number, path in enumerate(sorted(directory.glob("*.safetensors"))):
        names[stored_path(number)] = path.name
    for shard in opened(directory, directory, key):
        with (scratch / names[shard[1].path]).open("ab") as file:
            file.write(stored[: seal(shard, clear, stored) + limits.SEAL_TAG_BYTES])
    return {"bytes": len(names)}


if __name__ == "__main__":
    SCRATCH = Path(sys.argv[4]) if len(sys.argv) > 4 else Path()
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), SCRATCH)))
