# SPDX-License-Identifier: Apache-2.0
"""The kernels on Triton's interpreter, against ``blake3`` and ``cryptography``. A program: one case by its name.

Triton decides at import whether it interprets, so the tests start this in a process of its own with TRITON_INTERPRET=1.
It says "right" for each thing that was compared, and fails on the first that is wrong. The interpreter takes a good
second per block, so inputs are small.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import torch
import triton
import triton.language as tl
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pq_registry.loader import kernels
from pq_registry.loader.kernels import aes_triton


def noise(size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def digests(size: int, last: int, count: int, gap: int = 0, begin: int = 0) -> None:
    stride = size + gap
    raw = noise(begin + (count - 1) * stride + last, size)
    out = torch.zeros((count, 32), dtype=torch.uint8)
    kernels.shard_digests(torch.from_numpy(raw)[begin:], stride=stride, size=size, last=last, count=count, out=out)
    for number in range(count):
        at = begin + number * stride
        expected = blake3(raw[at : at + (last if number == count - 1 else size)].tobytes()).digest()
        assert bytes(out[number].numpy()) == expected, (size, last, count, number)
    print("right")


def blake3_short() -> None:
    for size in (1, 3, 4, 63, 64, 65, 128):
        digests(size, size, 1)


def blake3_chunks() -> None:
    digests(1024, 1023, 2)
    digests(6 * 1024, 4 * 1024 + 64, 2, gap=16)


def blake3_odd() -> None:
    digests(3 * 1024 + 1, 1025, 2, gap=2, begin=3)


def ciphertext(size: int, last: int, count: int, *, gap: int, begin: int, in_place: bool) -> None:
    """Seal with AES-GCM, decrypt with the kernel; nothing but the plaintext's bytes is written."""
    plain = [noise(last if number == count - 1 else size, number).tobytes() for number in range(count)]
    material = [noise(44, 100 + number) for number in range(count)]
    stride, out_stride = size + 16, size if in_place is False else size + 16
    data = torch.zeros(begin + count * stride, dtype=torch.uint8)
    for number, (key, text) in enumerate(zip(material, plain, strict=True)):
        sealed = AESGCM(key[:32].tobytes()).encrypt(key[32:].tobytes(), text, b"")
        at = begin + number * stride
        data[at : at + len(sealed)] = torch.frombuffer(bytearray(sealed), dtype=torch.uint8)
    before = data.clone()
    out = data[begin:] if in_place else torch.full((gap + count * out_stride,), 7, dtype=torch.uint8)[gap:]
    kernels.ctr_xor(
        data[begin:], out, stride=stride, out_stride=out_stride, size=size, last=last, count=count,
        keys=torch.from_numpy(np.stack(material)),
    )  # fmt: skip
    for number, text in enumerate(plain):
        at = number * out_stride
        assert bytes(out[at : at + len(text)].numpy()) == text, number
        rest = out[at + len(text) : (number + 1) * out_stride]
        kept = before[begin + at + len(text) : begin + (number + 1) * out_stride] if in_place else None
        assert bool((rest == 7).all()) if kept is None else bytes(rest.numpy()) == bytes(kept.numpy()), number
    print("right")


def aes_long() -> None:
    # Two programs for the first shard: every place of a lane's 32 blocks, and counters beyond the first program's.
    ciphertext(16 * 1024 + 36, 100, 2, gap=0, begin=0, in_place=False)


def aes_odd() -> None:
    ciphertext(1001, 15, 2, gap=1, begin=3, in_place=True)


@triton.jit
def first_round(keys, out, first):
    state = aes_triton._after_first_round(keys, first, 32)
    for plane in tl.static_range(128):
        tl.store(out + plane * 32 + tl.arange(0, 32), state[plane])


def counters() -> None:
    """The first round of blocks far into a shard, computed byte by byte: a whole shard is too long to interpret."""
    for first in (0, 1024, 2**17 - 1024, 2**20 - 1024, 2**24 - 2048):
        out = torch.zeros(128 * 32, dtype=torch.uint32)
        first_round[(1,)](torch.zeros(2048, dtype=torch.uint32), out, first)
        planes = out.numpy().reshape(128, 32)
        for lane in (0, 1, 29, 30, 31):
            for slot in (0, 1, 7, 30, 31):
                found = [sum(int(planes[8 * p + i, lane] >> slot & 1) << i for i in range(8)) for p in range(16)]
                assert found == after_first_round(first + 32 * slot + lane + 2), (first, lane, slot)
    print("right")


def after_first_round(counter: int) -> list[int]:
    """Of a state that is the counter's last three bytes, S-boxes of the others and of the constant left out."""
    state = [0] * 13 + [substituted(byte) ^ 0x63 for byte in counter.to_bytes(4, "big")[1:]]
    shifted = [state[row + 4 * ((column + row) % 4)] for column in range(4) for row in range(4)]
    rows = ((2, 3, 1, 1), (1, 2, 3, 1), (1, 1, 2, 3), (3, 1, 1, 2))
    out = []
    for column in range(4):
        for row in rows:
            value = 0
            for factor, byte in zip(row, shifted[4 * column : 4 * column + 4], strict=True):
                value ^= product(factor, byte)
            out.append(value)
    return out


def product(a: int, b: int) -> int:
    """In GF(2^8) modulo x^8 + x^4 + x^3 + x + 1 (FIPS 197, 4.2)."""
    value = 0
    while b:
        value ^= a if b & 1 else 0
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return value


def substituted(byte: int) -> int:
    """The S-box by its definition (FIPS 197, 5.1.1): the inverse, then the affine map."""
    inverse = next((x for x in range(256) if product(byte, x) == 1), 0)
    bits = inverse | inverse << 8
    return (inverse ^ bits >> 4 ^ bits >> 5 ^ bits >> 6 ^ bits >> 7) & 0xFF ^ 0x63


def substitution() -> None:
    """The circuit, for every byte at once: 256 bits wide instead of 32."""
    planes = tuple(sum((byte >> bit & 1) << byte for byte in range(256)) for bit in range(8))
    out = aes_triton.substitute.fn(planes)
    for byte in range(256):
        assert sum((out[bit] >> byte & 1) << bit for bit in range(8)) ^ 0x63 == substituted(byte), byte
    print("right")


CASES: dict[str, Callable[[], None]] = {
    case.__name__: case for case in (blake3_short, blake3_chunks, blake3_odd, aes_long, aes_odd, counters, substitution)
}

if __name__ == "__main__":
    CASES[sys.argv[1]]()
