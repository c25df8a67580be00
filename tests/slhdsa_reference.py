# SPDX-License-Identifier: Apache-2.0
"""Verification of SLH-DSA-SHA2-192s and -256s, written from FIPS 205 and from nothing else; slow, and for tests only.

Names are those of the standard. Section 11.2.2 gives the SHA-2 functions of security categories 3 and 5.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

WOTS_HASH, WOTS_PK, TREE, FORS_TREE, FORS_ROOTS = 0, 1, 2, 3, 4


@dataclass(frozen=True)
class Parameters:
    """Table 2 of FIPS 205; w is 16 in all sets."""

    n: int
    h: int
    d: int
    hp: int
    a: int
    k: int
    m: int

    @property
    def wots_len(self) -> int:
        return 2 * self.n + 3


SETS = {3: Parameters(24, 63, 7, 9, 14, 17, 39), 5: Parameters(32, 64, 8, 8, 14, 22, 47)}


class Address:
    """ADRS in its compressed form of 22 bytes: layer, tree address, type, and three words."""

    def __init__(self, layer: int, tree: int, kind: int) -> None:
        self.layer, self.tree, self.kind = layer, tree, kind
        self.words = [0, 0, 0]

    def __bytes__(self) -> bytes:
        return (
            self.layer.to_bytes(1, "big")
            + self.tree.to_bytes(8, "big")
            + self.kind.to_bytes(1, "big")
            + b"".join(word.to_bytes(4, "big") for word in self.words)
        )


def mgf1(seed: bytes, length: int) -> bytes:
    blocks = range(-(-length // 64))
    return b"".join(hashlib.sha512(seed + counter.to_bytes(4, "big")).digest() for counter in blocks)[:length]


def base_2b(data: bytes, bits: int, count: int) -> list[int]:
    """Algorithm 4: big-endian, which round 3's SPHINCS+ did differently in FORS."""
    whole = int.from_bytes(data, "big")
    return [(whole >> (8 * len(data) - bits * (index + 1))) & ((1 << bits) - 1) for index in range(count)]


class Verifier:
    """One public key."""

    def __init__(self, level: int, public_key: bytes) -> None:
        self.p = SETS[level]
        self.seed, self.root = public_key[: self.p.n], public_key[self.p.n :]

    def f(self, address: Address, block: bytes) -> bytes:
        return hashlib.sha256(self.seed + bytes(64 - self.p.n) + bytes(address) + block).digest()[: self.p.n]

    def t(self, address: Address, blocks: bytes) -> bytes:
        """H and T_l."""
        return hashlib.sha512(self.seed + bytes(128 - self.p.n) + bytes(address) + blocks).digest()[: self.p.n]

    def verify(self, message: bytes, signature: bytes, context: bytes = b"") -> bool:
        """Algorithms 24 and 20."""
        p = self.p
        if len(signature) != (1 + p.k * (1 + p.a) + p.h + p.d * p.wots_len) * p.n:
            return False
        message = b"\x00" + bytes([len(context)]) + context + message
        randomness, rest = signature[: p.n], signature[p.n :]
        inner = hashlib.sha512(randomness + self.seed + self.root + message).digest()
        digest = mgf1(randomness + self.seed + inner, p.m)
        md_bytes, tree_bytes = -(-p.k * p.a // 8), -(-(p.h - p.hp) // 8)
        md = digest[:md_bytes]
        tree = int.from_bytes(digest[md_bytes : md_bytes + tree_bytes], "big") % (1 << (p.h - p.hp))
        leaf = int.from_bytes(digest[md_bytes + tree_bytes : p.m], "big") % (1 << p.hp)
        size = p.k * (1 + p.a) * p.n
        node = self.fors(rest[:size], md, tree, leaf)
        return hmac.compare_digest(self.hypertree(rest[size:], node, tree, leaf), self.root)

    def fors(self, signature: bytes, md: bytes, tree: int, leaf: int) -> bytes:
        """Algorithm 17."""
        p = self.p
        address = Address(0, tree, FORS_TREE)
        address.words[0] = leaf
        roots = b""
        for index, chosen in enumerate(base_2b(md, p.a, p.k)):
            part = signature[index * (1 + p.a) * p.n :]
            position = (index << p.a) + chosen
            address.words[1:] = [0, position]
            node = self.f(address, part[: p.n])
            roots += self.climb(address, node, part[p.n :], position, p.a)
        address = Address(0, tree, FORS_ROOTS)
        address.words[0] = leaf
        return self.t(address, roots)

    def climb(self, address: Address, node: bytes, path: bytes, position: int, height: int) -> bytes:
        """From a leaf to the root along an authentication path."""
        for level in range(height):
            sibling = path[level * self.p.n : (level + 1) * self.p.n]
            right = position & 1
            position >>= 1
            address.words[1:] = [level + 1, position]
            node = self.t(address, sibling + node if right else node + sibling)
        return node

    def hypertree(self, signature: bytes, node: bytes, tree: int, leaf: int) -> bytes:
        """Algorithms 13 and 11."""
        p = self.p
        size = (p.wots_len + p.hp) * p.n
        for layer in range(p.d):
            part = signature[layer * size :]
            public = self.wots(part, node, layer, tree, leaf)
            node = self.climb(Address(layer, tree, TREE), public, part[p.wots_len * p.n :], leaf, p.hp)
            leaf, tree = tree % (1 << p.hp), tree >> p.hp
        return node

    def wots(self, signature: bytes, node: bytes, layer: int, tree: int, leaf: int) -> bytes:
        """Algorithm 8."""
        p = self.p
        digits = base_2b(node, 4, 2 * p.n)
        checksum = sum(15 - digit for digit in digits) << 4
        digits += base_2b(checksum.to_bytes(2, "big"), 4, 3)
        address = Address(layer, tree, WOTS_HASH)
        ends = b""
        for index, digit in enumerate(digits):
            value = signature[index * p.n : (index + 1) * p.n]
            for step in range(digit, 15):
                address.words = [leaf, index, step]
                value = self.f(address, value)
            ends += value
        address = Address(layer, tree, WOTS_PK)
        address.words[0] = leaf
        return self.t(address, ends)
