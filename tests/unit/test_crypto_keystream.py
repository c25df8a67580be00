# SPDX-License-Identifier: Apache-2.0
"""The key and nonce of a shard: what an accelerator needs to decrypt what AES-256-GCM sealed."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from pq_registry import limits
from pq_registry.crypto.sealing import SealingKey
from pq_registry.crypto.secret import SecretBytes
from pq_registry.format.path import ReleasePath

SHARD, TAG = limits.SHARD_BYTES, limits.SEAL_TAG_BYTES


def test_the_payload_of_gcm_is_ctr_from_counter_two() -> None:
    content = bytes(range(251)) * (2 * SHARD // 251)
    sealer = SealingKey(SecretBytes(b"k" * 32), "ab" * 16).file(ReleasePath("sealed/00003"), len(content))
    for index in range(sealer.shard_count):
        plaintext = content[index * SHARD : (index + 1) * SHARD]
        stored = bytearray(len(plaintext) + TAG)
        sealer.seal_into(index, plaintext, stored)
        material = sealer.keystream(index)
        assert len(material) == 44
        assert isinstance(material, SecretBytes)
        key, nonce = bytes(material[:32]), bytes(material[32:])
        decryptor = Cipher(AES(key), CTR(nonce + (2).to_bytes(4, "big"))).decryptor()
        assert decryptor.update(bytes(stored[:-TAG])) == plaintext


def test_each_shard_has_a_key_of_its_own_and_there_are_no_others() -> None:
    sealer = SealingKey(SecretBytes(b"k" * 32), "ab" * 16).file(ReleasePath("sealed/00003"), 3 * SHARD)
    assert len({bytes(sealer.keystream(index)) for index in range(3)}) == 3
    for index in (-1, 3):
        with pytest.raises(IndexError):
            sealer.keystream(index)


def test_a_wiped_key_gives_nothing() -> None:
    key = SealingKey(SecretBytes(b"k" * 32), "ab" * 16)
    sealer = key.file(ReleasePath("sealed/00000"), SHARD)
    key.wipe()
    with pytest.raises(ValueError, match="wiped"):
        sealer.keystream(0)
