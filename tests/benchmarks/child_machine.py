# SPDX-License-Identifier: Apache-2.0
"""What this machine can do, each by itself: the bounds that every contender meets. ``FILE SCRATCH`` in GB/s."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

BLOCK = 2 << 20
TIMES = 5


def rate(work: Callable[[int, memoryview], object], *, threads: int, size: int) -> float:
    """The median GB/s of ``work`` over blocks, each thread with a buffer of its own."""
    rates = []
    for _ in range(TIMES):
        offsets = iter(range(0, size - BLOCK + 1, BLOCK))
        lock = threading.Lock()

        def run(buffer: memoryview, offsets: object = offsets, lock: threading.Lock = lock) -> None:
            while True:
                with lock:
                    offset = next(offsets, None)  # type: ignore[call-overload]
                if offset is None:
                    return
                work(offset, buffer)

        crew = [threading.Thread(target=run, args=(memoryview(bytearray(BLOCK)),)) for _ in range(threads)]
        begun = time.perf_counter()
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        rates.append(size / (time.perf_counter() - begun) / 1e9)
    return statistics.median(rates)


def first_touch(size: int) -> float:
    """GB/s at which one thread gets fresh memory."""
    rates = []
    for _ in range(TIMES):
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        begun = time.perf_counter()
        for offset in range(0, size, 4096):
            memory[offset] = 1
        rates.append(size / (time.perf_counter() - begun) / 1e9)
        memory.close()
    return statistics.median(rates)


def disk_write(path: Path, size: int) -> float:
    """GB/s of a sequential write with fsync."""
    rates = []
    block = os.urandom(16 << 20)
    for _ in range(3):
        begun = time.perf_counter()
        with path.open("wb") as file:
            for _ in range(size // len(block)):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        rates.append(size / (time.perf_counter() - begun) / 1e9)
        path.unlink()
    return statistics.median(rates)


def main(file: Path, scratch: Path) -> dict[str, float]:
    """Measure."""
    descriptor = os.open(file, os.O_RDONLY)
    size = min(file.stat().st_size, 512 << 20)
    cores = len(os.sched_getaffinity(0))

    def read(offset: int, buffer: memoryview) -> None:
        os.preadv(descriptor, [buffer], offset)

    def read_and_check(offset: int, buffer: memoryview) -> None:
        os.preadv(descriptor, [buffer], offset)
        blake3(buffer).digest()

    cipher, nonce = AESGCM(bytes(32)), bytes(12)
    sealed = cipher.encrypt(nonce, bytes(BLOCK), None)

    def unseal(_: int, buffer: memoryview) -> None:
        cipher.decrypt_into(nonce, sealed, None, buffer)

    found = {}
    for threads in sorted({1, cores}):
        found[f"read_{threads}"] = rate(read, threads=threads, size=size)
        found[f"blake3_{threads}"] = rate(lambda _, b: blake3(b).digest(), threads=threads, size=size)
        found[f"sha256_{threads}"] = rate(lambda _, b: hashlib.sha256(b).digest(), threads=threads, size=size)
        found[f"aes_256_gcm_{threads}"] = rate(unseal, threads=threads, size=size)
        found[f"read_and_blake3_{threads}"] = rate(read_and_check, threads=threads, size=size)
    found["first_touch_1"] = first_touch(size)
    found["disk_write_fsync"] = disk_write(scratch, size)
    return {name: round(value, 3) for name, value in found.items()}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
