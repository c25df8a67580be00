# SPDX-License-Identifier: Apache-2.0
"""Sealing of shards and the opening of grants, without any I/O."""

from __future__ import annotations

import concurrent.futures
import os
from dataclasses import replace
from datetime import timedelta
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pq_registry import limits
from pq_registry.crypto.recipient import SecretRecipient
from pq_registry.crypto.sealing import SealingKey, new_content_key, open_grant
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.shards import check_shards, shard_digests
from pq_registry.errors import (
    CommitmentMismatch,
    FormatError,
    GrantExpired,
    GrantInvalid,
    GrantMismatch,
    GrantWithdrawn,
    ShardMismatch,
    UnsealFailed,
)
from pq_registry.format.digest import Digest
from pq_registry.format.inner import bind_inner
from pq_registry.format.name import RepositoryName
from pq_registry.format.path import ReleasePath
from pq_registry.format.recipientfile import Kem
from pq_registry.format.sealing import SLICE_BYTES
from tests.samples import NOW, YEAR, manifest
from tests.sealing_samples import PLAINTEXT, Sealed, seal, seal_file, sealed_entry, unseal_file

SHARD = limits.SHARD_BYTES
TAG = limits.SEAL_TAG_BYTES
PATH = ReleasePath("sealed/00000")
NODE = SecretRecipient.generate(Kem.MLKEM1024_P384)


@cache
def sealed() -> Sealed:
    return seal()


def opened(**fields: object) -> SealingKey:
    grant = sealed().grant(NODE)
    return open_grant(
        replace(grant, **fields),  # type: ignore[arg-type]
        key=NODE, manifest=sealed().manifest, release=sealed().release, now=NOW,
    )  # fmt: skip


def test_a_granted_release_is_read() -> None:
    key = opened()
    manifest_ = sealed().manifest
    assert manifest_.inner is not None
    inner = bind_inner(manifest_, unseal_file(key, manifest_.inner, sealed().stored["pqreg.inner"]))
    assert inner == sealed().inner
    for outer, entry in zip(manifest_.sealed_files, inner.files, strict=True):
        plaintext = unseal_file(key, outer, sealed().stored[outer.path.text])
        assert plaintext == PLAINTEXT[entry.path.text]
        assert Digest.of(plaintext) == entry.sha256


@settings(max_examples=30)
@given(
    st.one_of(st.integers(0, 5000), st.sampled_from([SHARD - 1, SHARD, SHARD + 1, 2 * SHARD + 9])),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=16, max_size=16),
    st.integers(0, limits.SEALED_FILES - 1),
)
def test_any_file_comes_back(size: int, key: bytes, release_id: bytes, number: int) -> None:
    path = ReleasePath(f"sealed/{number:05d}")
    sealing_key = SealingKey(SecretBytes(key), release_id.hex())
    plaintext = os.urandom(size)
    stored = seal_file(sealing_key, path, plaintext)
    assert unseal_file(sealing_key, sealed_entry(path, stored), stored) == plaintext
    assert seal_file(sealing_key, path, plaintext) == stored


def test_shards_are_sealed_and_unsealed_from_many_threads_in_any_order() -> None:
    key, plaintext = SealingKey(new_content_key(), "00" * 16), os.urandom(9 * SHARD + 5)
    stored = seal_file(key, PATH, plaintext)
    entry = sealed_entry(PATH, stored)
    sealer, out = key.file(PATH, len(plaintext)), bytearray(len(plaintext))

    def work(index: int) -> None:
        offset, length = entry.shard_range(index)
        start, clear = entry.plaintext_range(index)
        sealer.unseal_into(index, memoryview(stored)[offset : offset + length], memoryview(out)[start : start + clear])

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(work, reversed(range(entry.shard_count))))
    assert out == plaintext


def test_every_shard_has_a_key_of_its_own() -> None:
    seen = set()
    for release_id in ("00" * 16, "01" * 16):
        key = SealingKey(SecretBytes(32), release_id)
        for path in ("sealed/00000", "sealed/00001", "pqreg.inner"):
            for size in (SHARD, 3 * SHARD - 1, 3 * SHARD):
                sealer = key.file(ReleasePath(path), size)
                seen |= {bytes(sealer._derived(index)) for index in range(sealer.shard_count)}
    assert len(seen) == 2 * 3 * (1 + 3 + 3)
    assert len({okm[32:] for okm in seen}) == len(seen)


def test_lengths_are_demanded_exactly() -> None:
    sealer = SealingKey(SecretBytes(32), "00" * 16).file(PATH, SHARD + 3)
    for index, clear, stored in ((1, 3, 18), (1, 4, 20), (0, SHARD - 1, SHARD + TAG), (0, 3, 19), (1, 0, 16)):
        with pytest.raises(ValueError):
            sealer.seal_into(index, bytes(clear), bytearray(stored))
        with pytest.raises(ValueError):
            sealer.unseal_into(index, bytes(stored), bytearray(clear))
    for index in (-1, 2):
        with pytest.raises(IndexError):
            sealer.seal_into(index, b"", bytearray(TAG))


def test_a_wiped_key_works_no_more() -> None:
    with SealingKey(new_content_key(), "00" * 16) as key:
        sealer = key.file(PATH, 3)
        sealer.seal_into(0, b"abc", bytearray(19))
    with pytest.raises(ValueError, match="wiped"):
        sealer.seal_into(0, b"abc", bytearray(19))
    assert not any(key._prk)


def test_what_does_not_verify_does_not_stay_in_the_buffer() -> None:
    key, plaintext = SealingKey(new_content_key(), "00" * 16), b"confidential" * 1000
    stored = bytearray(seal_file(key, PATH, plaintext))
    stored[-1] ^= 1
    out = bytearray(b"\xaa" * len(plaintext))
    with pytest.raises(UnsealFailed) as caught:
        key.file(PATH, len(plaintext)).unseal_into(0, stored, out)
    assert out == bytes(len(plaintext))
    assert caught.value.step == 8


@pytest.mark.parametrize("bad", [b"", bytes(31), bytes(33)])
def test_content_keys_have_32_bytes(bad: bytes) -> None:
    with pytest.raises(FormatError):
        SealingKey(SecretBytes(bad), "00" * 16)
    for release_id in ("", "00" * 15, "0G" * 16):
        with pytest.raises(FormatError):
            SealingKey(SecretBytes(32), release_id)


def test_a_grant_of_another_place_is_refused() -> None:
    for fields in (
        {"release": Digest.of(b"another")},
        {"repository": RepositoryName.parse("acme/other")},
        {"recipient": SecretRecipient.generate(Kem.MLKEM1024_P384).public.id},
    ):
        with pytest.raises(GrantMismatch) as caught:
            opened(**fields)
        assert caught.value.step == 7
    opened(repository=RepositoryName.parse("ACME/Secret"))


def test_a_withdrawn_grant_is_refused() -> None:
    with pytest.raises(GrantWithdrawn):
        opened(wrapped=None, expires=None, sequence=2, previous=Digest("00" * 32))


@pytest.mark.parametrize(("seconds", "refused"), [(-1, False), (0, True), (1, True)])
def test_a_grant_ends_at_the_second(seconds: int, refused: bool) -> None:
    grant = sealed().grant(NODE)
    moment = NOW + YEAR + timedelta(seconds=seconds)

    def at() -> SealingKey:
        return open_grant(grant, key=NODE, manifest=sealed().manifest, release=sealed().release, now=moment)

    if refused:
        with pytest.raises(GrantExpired):
            at()
    else:
        at()
    opened(expires=None)


def test_a_grant_of_another_key_is_refused() -> None:
    with pytest.raises(CommitmentMismatch):
        opened(wrapped=NODE.public.wrap(new_content_key(), sealed().release))
    with pytest.raises(GrantInvalid):
        opened(wrapped=NODE.public.wrap(sealed().content_key, Digest.of(b"another")))


def test_a_plain_release_opens_to_nobody() -> None:
    with pytest.raises(FormatError):
        open_grant(sealed().grant(NODE), key=NODE, manifest=manifest(), release=sealed().release, now=NOW)


def test_digests_of_stored_shards_follow_their_slices() -> None:
    entry = sealed().manifest.files[-1]
    stored = sealed().stored[entry.path.text]
    assert shard_digests(stored, SLICE_BYTES) == entry.shards != shard_digests(stored)
    check_shards(entry.shards, stored, path=entry.path, slice_size=entry.slice_size)
    with pytest.raises(ShardMismatch):
        check_shards(entry.shards, stored, path=entry.path)
