# SPDX-License-Identifier: Apache-2.0
"""Attacks on sealed releases at the pure layer: grants that wander, keys that do not commit, shards out of place.

Each has its own error, and no plaintext comes with it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pq_registry import limits
from pq_registry.crypto.recipient import PublicRecipient, SecretRecipient
from pq_registry.crypto.sealing import SealingKey, new_content_key, open_grant
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.shards import check_shard
from pq_registry.errors import (
    CommitmentMismatch,
    FormatError,
    GrantInvalid,
    GrantMismatch,
    InnerMismatch,
    ShardMismatch,
    UnsealFailed,
)
from pq_registry.format.inner import bind_inner
from pq_registry.format.manifest import FileEntry
from pq_registry.format.path import ReleasePath
from pq_registry.format.recipientfile import Kem, recipient_id
from pq_registry.format.sealing import SLICE_BYTES, stored_path
from tests.samples import NOW
from tests.sealing_samples import PLAINTEXT, Sealed, seal, unseal_file

NODE = SecretRecipient.generate(Kem.MLKEM1024_P384)
OTHER = SecretRecipient.generate(Kem.MLKEM1024_P384)
WEIGHTS = 3  # the index of the file with three shards


@cache
def release_a() -> Sealed:
    return seal(release_id="0a" * 16)


@cache
def release_b() -> Sealed:
    return seal({**PLAINTEXT, "config.json": b'{"secret":"b"}!'}, release_id="0b" * 16)


def opened(sealed: Sealed, grant, node: SecretRecipient = NODE) -> SealingKey:
    return open_grant(grant, key=node, manifest=sealed.manifest, release=sealed.release, now=NOW)


def test_a_grant_of_release_a_does_not_open_release_b() -> None:
    grant = release_a().grant(NODE)
    opened(release_a(), grant)
    with pytest.raises(GrantMismatch):
        opened(release_b(), grant)
    # Signed again for B by somebody entitled who never had B's key: HPKE was given A.
    with pytest.raises(GrantInvalid):
        opened(release_b(), replace(grant, release=release_b().release))
    # And wrapped anew for B, with A's key.
    with pytest.raises(CommitmentMismatch):
        opened(
            release_b(), release_b().grant(NODE, wrapped=NODE.public.wrap(release_a().content_key, release_b().release))
        )


def test_one_content_key_for_two_releases_gives_two_sets_of_keys() -> None:
    key = new_content_key()
    one, two = seal(content_key=key, release_id="01" * 16), seal(content_key=key, release_id="02" * 16)
    assert one.key.commitment != two.key.commitment
    with pytest.raises(CommitmentMismatch):
        two.key.check(one.key.commitment)
    with pytest.raises(UnsealFailed):
        unseal_file(two.key, one.manifest.files[1], one.stored["sealed/00000"])


def test_a_grant_for_another_recipient_does_not_open() -> None:
    grant = release_a().grant(NODE)
    with pytest.raises(GrantMismatch):
        opened(release_a(), grant, OTHER)
    with pytest.raises(GrantInvalid):
        opened(release_a(), replace(grant, recipient=OTHER.public.id), OTHER)


def test_recipient_id_confusion() -> None:
    # The id is part of what HPKE binds: the right key, under a wrong name, opens nothing.
    wrapped = NODE.public.wrap(release_a().content_key, release_a().release)

    class Renamed(SecretRecipient):
        @property
        def public(self) -> PublicRecipient:
            return OTHER.public

    impostor = Renamed(Kem.MLKEM1024_P384, NODE.seed())
    with pytest.raises(GrantMismatch):
        open_grant(release_a().grant(NODE, wrapped=wrapped), key=impostor, manifest=release_a().manifest,
                   release=release_a().release, now=NOW)  # fmt: skip
    # Nor do two keys share an id: the KEM is part of it, and the boundary to the key is fixed.
    bytes_of = NODE.public.public_key
    assert recipient_id(Kem.MLKEM1024_P384, bytes_of) != recipient_id(Kem.MLKEM768_X25519, bytes_of)
    with pytest.raises(FormatError):
        PublicRecipient(Kem.MLKEM768_X25519, bytes_of)
    level3 = SecretRecipient(Kem.MLKEM768_X25519, NODE.seed())
    assert level3.public.id != NODE.public.id
    with pytest.raises(GrantMismatch):
        opened(release_a(), release_a().grant(NODE), level3)


def multiply(x: int, y: int) -> int:
    """The product in GHASH's field."""
    product = 0
    for bit in range(127, -1, -1):
        if y >> bit & 1:
            product ^= x
        x = (x >> 1) ^ (0xE1 << 120 if x & 1 else 0)
    return product


def invert(x: int) -> int:
    """The inverse: x to the power 2^128 - 2."""
    result, power = 1 << 127, x
    for _ in range(127):
        power = multiply(power, power)
        result = multiply(result, power)
    return result


def block(key: bytes, counter: bytes) -> int:
    """One AES block of a key, got from GCM with a nonce: the mask of its tag, or, for zeros, its hash key."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return int.from_bytes(encryptor.update(counter), "big")


def test_two_keys_one_ciphertext() -> None:
    """GCM alone can be made to open under two keys (Dodis et al. 2018, Len et al. 2021); the commitment stops it."""
    path, size = ReleasePath("sealed/00000"), 32
    keys = [SealingKey(SecretBytes(bytes([number]) * 32), "00" * 16) for number in (1, 2)]
    okms = [bytes(key.file(path, size)._derived(0)) for key in keys]
    # One free ciphertext block beside a given one, chosen so that both tags come out equal.
    first = int.from_bytes(b"any ciphertext..", "big")
    lengths = size * 8
    hashes = [block(okm[:32], bytes(16)) for okm in okms]
    masks = [block(okm[:32], okm[32:] + b"\0\0\0\1") for okm in okms]
    constant = masks[0] ^ masks[1]
    for h in hashes:
        h2 = multiply(h, h)
        constant ^= multiply(first, multiply(h2, h)) ^ multiply(lengths, h)
    slope = multiply(hashes[0], hashes[0]) ^ multiply(hashes[1], hashes[1])
    second = multiply(constant, invert(slope))
    tag = masks[0]
    for part, power in ((first, 3), (second, 2), (lengths, 1)):
        term = part
        for _ in range(power):
            term = multiply(term, hashes[0])
        tag ^= term
    stored = b"".join(value.to_bytes(16, "big") for value in (first, second, tag))
    plaintexts = []
    for key, okm in zip(keys, okms, strict=True):
        out = bytearray(size)
        key.file(path, size).unseal_into(0, stored, out)  # it opens under both
        assert AESGCM(okm[:32]).decrypt(okm[32:], stored, None) == out
        plaintexts.append(bytes(out))
    assert plaintexts[0] != plaintexts[1]
    # The manifest commits to one of the two keys, and the other is refused before anything is opened with it.
    keys[0].check(keys[0].commitment)
    with pytest.raises(CommitmentMismatch) as caught:
        keys[1].check(keys[0].commitment)
    assert caught.value.step == 7


def shard(sealed: Sealed, file: int, index: int) -> bytes:
    entry = sealed.manifest.files[file]
    offset, length = entry.shard_range(index)
    return sealed.stored[entry.path.text][offset : offset + length]


def refuse(entry: FileEntry, index: int, stored: bytes) -> None:
    """The order of step 8: the digest first, and with it nothing is decrypted; without it, the tag still refuses."""
    with pytest.raises(ShardMismatch):
        check_shard(entry.shard_digest(index), stored, path=entry.path, index=index)
    sealer = release_a().key.file(entry.path, entry.plaintext_size)
    out = bytearray(b"\xaa" * sealer.plaintext_length(index))
    if len(stored) != len(out) + limits.SEAL_TAG_BYTES:
        return
    with pytest.raises(UnsealFailed):
        sealer.unseal_into(index, stored, out)
    assert not any(out)


def test_shards_out_of_place_are_refused_twice() -> None:
    entry = release_a().manifest.files[WEIGHTS]
    refuse(entry, 0, shard(release_a(), WEIGHTS, 1))  # reordered
    refuse(entry, 1, shard(release_a(), WEIGHTS, 0))
    refuse(entry, 0, shard(release_b(), WEIGHTS, 0))  # swapped with another release's, of the same plaintext
    refuse(entry, 0, shard(release_a(), WEIGHTS, 0)[:-1])  # truncated
    refuse(entry, 0, shard(release_a(), WEIGHTS, 0)[:-1] + b"\0")
    refuse(entry, 1, shard(release_a(), WEIGHTS, 1)[16:] + bytes(16))


def test_a_shard_of_an_older_release_of_the_same_file_is_refused() -> None:
    older = seal(PLAINTEXT, content_key=release_a().content_key, release_id="0c" * 16)
    refuse(
        release_a().manifest.files[WEIGHTS], 2, shard(older, WEIGHTS, 2)
    )  # replayed, under the same content key even


def test_a_file_cut_at_a_shard_does_not_open() -> None:
    entry = release_a().manifest.files[WEIGHTS]
    shorter = release_a().key.file(entry.path, 2 * limits.SHARD_BYTES)
    with pytest.raises(UnsealFailed):
        shorter.unseal_into(0, shard(release_a(), WEIGHTS, 0), bytearray(limits.SHARD_BYTES))


def test_two_files_of_one_content_are_stored_as_two() -> None:
    same = seal({"a": b"x" * 100, "b": b"x" * 100})
    assert same.stored["sealed/00000"] != same.stored["sealed/00001"]
    one, two = same.manifest.sealed_files
    with pytest.raises(UnsealFailed):
        unseal_file(same.key, one, same.stored[two.path.text])
    with pytest.raises(UnsealFailed):
        unseal_file(same.key, one, same.stored["pqreg.inner"][: one.size])


def test_another_releases_inner_document_is_refused() -> None:
    with pytest.raises(InnerMismatch):
        bind_inner(release_a().manifest, release_b().inner.encode())


def test_no_window_of_the_plaintext_is_stored() -> None:
    plaintext = b"".join(PLAINTEXT.values())
    # Any stretch of 63 bytes holds one of these whole.
    windows = {plaintext[start : start + 32] for start in range(0, len(plaintext) - 31, 32)}
    for stored in (*release_a().stored.values(), release_a().manifest_bytes, release_a().payload):
        assert not any(stored[start : start + 32] in windows for start in range(len(stored) - 31))
    assert release_a().inner.files[0].sha256.hex.encode() not in release_a().manifest_bytes


def test_the_refusal_of_a_wrapped_key_is_no_oracle() -> None:
    wrapped = NODE.public.wrap(release_a().content_key, release_a().release)
    messages = set()
    for position in (0, 100, 1567, 1568, 1600, 1664, 1665, 1690, 1712):
        bad = bytearray(wrapped)
        bad[position] ^= 1
        with pytest.raises(GrantInvalid) as caught:
            opened(release_a(), release_a().grant(NODE, wrapped=bytes(bad)))
        messages.add((str(caught.value), caught.value.hint, repr(caught.value.__cause__)))
    assert len(messages) == 1


def test_stored_sizes_are_whole_shards() -> None:
    entry = release_a().manifest.files[WEIGHTS]
    assert entry.size == 2 * SLICE_BYTES + 77 + limits.SEAL_TAG_BYTES
    assert stored_path(2) == entry.path
    for size in (entry.size - 77, entry.size - 78, 2 * SLICE_BYTES + 1):
        with pytest.raises(FormatError):
            replace(entry, size=size)
