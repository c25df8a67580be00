# SPDX-License-Identifier: Apache-2.0
"""C8, C4, F3, F7 on bundles: an archive from a stranger. Whatever it is, nothing unverified gets a name, and no tag or
revocation that was seen is taken back.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.client.bundle.volume import VolumeReader
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import (
    BundleMismatch,
    DigestMismatch,
    FormatError,
    PqregError,
    ReceiptMissing,
    Revoked,
    ShardMismatch,
    StatusUnavailable,
    TagRollback,
    UntrustedSigner,
)
from pq_registry.format.bundleindex import ENVELOPE, MANIFEST, RECEIPT, Document
from pq_registry.format.digest import Digest
from pq_registry.format.tarstream import BLOCK, END, header
from tests import samples
from tests.moving import Move, one_registry, repacked
from tests.pull_site import final_names
from tests.revocations import status_statement

SIZE = 5_000_000


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Move]:
    with one_registry(tmp_path_factory.mktemp("site")) as move:
        move.revoke()
        move.push("acme/minilm:v1", 1, size=SIZE)
        move.push("acme/other:v1", 2, size=SIZE)
        yield move


@pytest.fixture
def move(shared: Move, tmp_path: Path) -> Move:
    os.symlink(shared.home / "publisher", tmp_path / "publisher")
    return replace(shared, home=tmp_path)


@pytest.fixture(scope="module")
def volume(shared: Move) -> bytes:
    (data,) = shared.export("acme/minilm:v1")
    return data


@pytest.fixture(scope="module")
def other(shared: Move) -> bytes:
    (data,) = shared.export("acme/other:v1")
    return data


def refused(move: Move, data: bytes, *errors: type[PqregError]) -> PqregError:
    """The error of an import, which leaves nothing under a final name."""
    with pytest.raises(errors or (PqregError,)) as caught:
        move.bring([data], expected="acme/minilm:v1")
    assert final_names(move.home / "out") == set() if (move.home / "out").exists() else True
    return caught.value


def test_the_genuine_one_is_taken(move: Move, volume: bytes) -> None:
    assert repacked(volume) == volume
    move.bring([volume], expected="acme/minilm:v1")


def test_truncation_anywhere(move: Move, volume: bytes) -> None:
    source = random.Random(8)
    head = len(volume) - SIZE
    cuts = {0, 1, BLOCK - 1, BLOCK, len(volume) - 1, len(volume) - len(END), len(volume) - BLOCK}
    for cut in sorted(
        cuts | {source.randrange(head) for _ in range(25)} | {source.randrange(len(volume)) for _ in range(8)}
    ):
        refused(move, volume[:cut], FormatError)


def test_anything_behind_the_end(move: Move, volume: bytes, other: bytes) -> None:
    for more in (b"\0", bytes(BLOCK), b"x", other):
        refused(move, volume + more, FormatError)


def test_a_flipped_bit_anywhere(move: Move, volume: bytes) -> None:
    source = random.Random(9)
    places = {source.randrange(40_000) for _ in range(40)} | {source.randrange(len(volume)) for _ in range(10)}
    for place in sorted(places):
        data = bytearray(volume)
        data[place] ^= 1 << source.randrange(8)
        refused(move, bytes(data))


@pytest.mark.parametrize("kind", [b"1", b"2", b"5", b"L", b"x", b"g", b"S", b"7", b"\0"])
def test_links_directories_and_extensions_are_no_members(move: Move, volume: bytes, kind: bytes) -> None:
    for name in (b"bundle.json", b"../../.ssh/authorized_keys", b"/etc/passwd", b"documents/00000"):
        block = bytearray(header("bundle.json", 0))
        block[:100] = name.ljust(100, b"\0")
        block[156:157] = kind
        block[157:257] = b"/etc/passwd".ljust(100, b"\0")
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        refused(move, bytes(block) + volume, FormatError)
        refused(move, volume[: len(volume) - len(END)] + bytes(block) + END, FormatError)


def test_bombs_are_refused_before_they_are_read(move: Move, volume: bytes) -> None:
    refused(move, header("bundle.json", limits.BUNDLE_INDEX_BYTES + 1) + volume, FormatError)
    genuine = VolumeReader(BytesIO(volume), "genuine").bundle
    with pytest.raises(FormatError):
        replace(genuine.documents[0], size=limits.BUNDLE_DOCUMENT_BYTES + 1)
    huge = [Document(f"tags/z{n}/1/envelope", limits.BUNDLE_DOCUMENT_BYTES, Digest.of(b"")) for n in range(6)]
    with pytest.raises(FormatError, match="too large"):
        replace(genuine, documents=tuple(sorted([*genuine.documents, *huge], key=lambda one: one.role)))
    text = genuine.encode().replace(b'"size":', b'"size":9', 1)
    refused(move, header("bundle.json", len(text)) + text + bytes(-len(text) % BLOCK), FormatError)


@pytest.mark.parametrize(
    "role",
    ["trust/file", "trust.json", "release/../x", "tags/../../x/1/envelope", "tags/v1/0/envelope", "tags/v1/01/envelope",
     "grants/ff/1/envelope", "status/1/other", "log/key", "", "tags/" + "a" * 129 + "/1/envelope"],
)  # fmt: skip
def test_no_other_document_and_no_trust_file_comes_along(role: str) -> None:
    with pytest.raises(FormatError):
        Document(role, 1, Digest.of(b""))


def test_documents_of_another_bundle(move: Move, volume: bytes, other: bytes) -> None:
    theirs = VolumeReader(BytesIO(other), "other").documents()
    tag = "tags/v1/1/envelope"

    def with_roles(*roles: str) -> bytes:
        return repacked(volume, documents=lambda own: {**own, **{role: theirs[role] for role in roles}})

    refused(move, with_roles(ENVELOPE))
    refused(move, with_roles(MANIFEST))
    refused(move, with_roles(RECEIPT))
    refused(move, with_roles(ENVELOPE, MANIFEST))
    refused(move, with_roles(ENVELOPE, MANIFEST, RECEIPT))
    refused(move, with_roles(tag, tag.replace("envelope", "receipt")))
    refused(move, with_roles(*theirs))
    # Another release of the same repository, under the tag of this one.
    second = move.push("acme/minilm:v2", 3)
    (newer,) = move.export("acme/minilm:v2")
    stolen = VolumeReader(BytesIO(volume), "genuine").documents()
    forged = repacked(
        newer, documents=lambda own: {role: data for role, data in {**stolen, **own}.items() if "tags/v2" not in role}
    )
    error = refused(move, forged, BundleMismatch)
    assert str(second) in str(error)


def test_a_receipt_of_no_statement_is_of_no_use(move: Move, volume: bytes) -> None:
    alone = {"tags/other/1/receipt": b"x", f"grants/{'0' * 64}/1/receipt": b"x", "status/9/receipt": b"x"}
    found = move.bring([repacked(volume, documents=lambda own: {**own, **alone})], "alone")
    assert [str(tag) for tag in found.accepted.tags] == ["v1"]
    assert not found.accepted.grants
    strict = replace(move, options={"offline_status": "require"})
    only = repacked(
        volume,
        documents=lambda own: (
            {role: data for role, data in own.items() if not role.startswith("tags/")} | {"tags/v1/1/receipt": b"x"}
        ),
    )
    refused(strict, only, BundleMismatch)


def test_nothing_is_left_out_unnoticed(move: Move, volume: bytes) -> None:
    def without(*parts: str) -> bytes:
        return repacked(
            volume,
            documents=lambda own: {role: data for role, data in own.items() if not any(p in role for p in parts)},
        )

    refused(move, without("release/receipt"), ReceiptMissing)
    refused(move, without("tags/"), BundleMismatch)
    refused(move, without("tags/v1/1/receipt"), ReceiptMissing)
    strict = replace(move, options={"offline_status": "require"})
    refused(strict, without("status/"), StatusUnavailable)


def test_who_is_not_in_the_trust_file_packs_nothing(move: Move, volume: bytes) -> None:
    mallory = samples.publisher("mallory")
    envelope, manifest = samples.release({"a": b"evil"}, signer=mallory)
    forged = repacked(volume, documents=lambda own: {**own, ENVELOPE: envelope.encode(), MANIFEST: manifest})
    refused(move, forged, UntrustedSigner)


def test_a_status_of_a_stranger_counts_for_nothing(move: Move, volume: bytes) -> None:
    mallory = samples.publisher("mallory")
    junk = sign_envelope(
        status_statement(signer=mallory.identity.id, sequence=9, previous=Digest.of(b"")).encode(), mallory
    )
    forged = repacked(volume, documents=lambda own: {**own, "status/9/envelope": junk.encode()})
    strict = replace(move, options={"offline_status": "require"})
    refused(strict, forged, StatusUnavailable)
    assert move.bring([forged], "warned").accepted.status_chain == ()  # said, and not handed on


def test_bytes_that_are_not_signed(move: Move, volume: bytes) -> None:
    refused(move, repacked(volume, content=lambda data: data[:-1] + bytes([data[-1] ^ 1])), ShardMismatch)
    genuine = VolumeReader(BytesIO(volume), "genuine").bundle
    (segments,) = genuine.volumes
    swapped = repacked(volume, index=lambda found: replace(found, volumes=(segments[::-1],)))
    refused(move, swapped, FormatError)
    refused(move, repacked(volume, index=lambda found: replace(found, volumes=(segments[:1],))), BundleMismatch)
    renamed = replace(genuine.name, name="renamed")
    refused(move, repacked(volume, index=lambda found: replace(found, name=renamed)), BundleMismatch)
    refused(move, repacked(volume, index=lambda found: replace(found, release=Digest.of(b""))), BundleMismatch)


def test_an_older_bundle_moves_no_tag_back(move: Move) -> None:
    move.push("acme/moving:v1", 5)
    (old,) = move.export("acme/moving:v1")
    move.push("acme/moving:v1", 6)
    (new,) = move.export("acme/moving:v1")
    move.bring([new], expected="acme/moving:v1")
    before = {name: (move.home / "out" / name).read_bytes() for name in final_names(move.home / "out")}
    for expected in ("acme/moving:v1", None):
        with pytest.raises(TagRollback):
            move.bring([old], expected=expected)
    assert before == {name: (move.home / "out" / name).read_bytes() for name in final_names(move.home / "out")}
    # A site without this memory is protected by the tag's expiry only, as anywhere.
    move.bring([old], "elsewhere", state="fresh")


def test_an_older_bundle_takes_no_revocation_back(move: Move) -> None:
    bad = move.push("acme/revoked:v1", 7)
    (old,) = move.export("acme/revoked:v1")
    move.push("acme/revoked:v2", 8)
    move.revoke(bad)
    (new,) = move.export("acme/revoked:v2")
    move.bring([new], "new")
    with pytest.raises(Revoked):
        move.bring([old])
    assert not (move.home / "out").exists() or final_names(move.home / "out") == set()


def test_expected_by_digest_is_exactly_that(move: Move, volume: bytes) -> None:
    with pytest.raises(DigestMismatch):
        move.bring([volume], expected=f"acme/minilm@{Digest.of(b'another')}")
