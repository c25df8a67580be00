# SPDX-License-Identifier: Apache-2.0
"""Bundles from a real registry to a directory: whole, in volumes, in any order, in several goes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.client import staging, tree
from pq_registry.client.bundle.layout import check_layout, lay_out
from pq_registry.client.trust import Verifier
from pq_registry.client.verify import verify_directory
from pq_registry.errors import (
    BundleIncomplete,
    BundleMismatch,
    DigestMismatch,
    NameMismatch,
    StorageError,
    TagExpired,
    UsageError,
)
from pq_registry.format.bundleindex import ENVELOPE, MANIFEST, Bundle
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from tests import samples
from tests.moving import Move, one_registry, recipient
from tests.pull_site import final_names

SIZE = 9_000_000
VOLUME = 4 * limits.MIB


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Move]:
    with one_registry(tmp_path_factory.mktemp("site")) as move:
        move.revoke()
        yield move


@pytest.fixture
def move(shared: Move, tmp_path: Path) -> Move:
    """The same registry, and a home of the test's own; the publisher's memory stays."""
    os.symlink(shared.home / "publisher", tmp_path / "publisher")
    return replace(shared, home=tmp_path)


def test_a_release_crosses_the_gap(move: Move) -> None:
    digest = move.push("acme/minilm:v1", 1, size=SIZE)
    (volume,) = move.export("acme/minilm:v1")
    brought = move.bring([volume], expected="acme/minilm:v1")
    assert (brought.accepted.verified.release.digest, brought.volumes) == (digest, 1)
    assert {str(tag) for tag in brought.accepted.tags} == {"v1"}
    assert brought.read + brought.present >= SIZE
    out = move.home / "out"
    kept = verify_directory(out, move.verifier(online=False), full=True, state_dir=move.home / "edge")
    assert kept.status is not None
    assert kept.receipt is not None
    # And once more: what is there is the same afterwards.
    before = {name: (out / name).stat().st_mtime_ns for name in final_names(out)}
    again = move.bring([volume], expected="acme/minilm:v1")
    assert again.read == brought.read
    assert before.keys() == final_names(out)


def test_volumes_come_in_any_order_and_in_several_goes(move: Move) -> None:
    digest = move.push("acme/volumes:v1", 2, size=SIZE)
    volumes = move.export("acme/volumes:v1", volume_size=VOLUME)
    assert len(volumes) > 2
    assert all(len(volume) <= VOLUME for volume in volumes)
    last, *others = reversed(volumes)
    with pytest.raises(BundleIncomplete, match=r"volumes 1, .* are missing"):
        move.bring({"last": last}, expected="acme/volumes:v1")
    assert final_names(move.home / "out") == set()
    with pytest.raises(BundleIncomplete, match=f"volume {1} of {len(volumes)} "):
        move.bring(others[:-1])
    brought = move.bring(others[-1:])
    assert brought.accepted.verified.release.digest == digest
    assert brought.read < SIZE  # only what the last volume held
    assert brought.present + brought.read >= SIZE
    verify_directory(move.home / "out", move.verifier(online=False), full=True)
    assert not (move.home / "out" / ".pqreg" / "incoming").exists()
    assert move.bring(volumes, "again", state="other").read >= SIZE


def test_volumes_that_do_not_belong_together_are_named(move: Move) -> None:
    move.push("acme/mixed:v1", 3, size=SIZE)
    volumes = move.export("acme/mixed:v1", volume_size=VOLUME)
    others = move.export("acme/mixed:v1", volume_size=VOLUME + limits.MIB)
    with pytest.raises(BundleMismatch, match="foreign is a volume of another bundle"):
        move.bring({"own": volumes[0], "foreign": others[1]})
    with pytest.raises(BundleMismatch, match="twice is volume 1, which was given already"):
        move.bring({"once": volumes[0], "twice": volumes[0]})
    assert final_names(move.home / "out") == set()


def test_what_it_must_be(move: Move) -> None:
    digest = move.push("acme/expected:v1", 4)
    (volume,) = move.export("acme/expected:v1")
    (untagged,) = move.export(f"acme/expected@{digest}")
    with pytest.raises(NameMismatch):
        move.bring([volume], expected="acme/other:v1")
    with pytest.raises(DigestMismatch):
        move.bring([volume], expected=f"acme/expected@{Digest.of(b'')}")
    with pytest.raises(BundleMismatch, match="nothing in the bundle says"):
        move.bring([volume], expected="acme/expected:v2")
    with pytest.raises(BundleMismatch, match="nothing in the bundle says"):
        move.bring([untagged], expected="acme/expected:v1")
    assert move.bring([untagged], expected=f"acme/expected@{digest}").accepted.tags == {}
    with pytest.raises(DigestMismatch):
        second = move.push("acme/expected:v2", 5)
        assert second != digest
        move.export("acme/expected:v1", tags=["v2"])
    with pytest.raises(TagExpired):
        move.bring([volume], "late", verifier=later(move, days=366))


def later(move: Move, *, days: int) -> Verifier:
    """A verifier in the future, whose trust file and status are still good."""
    move = replace(move, revoker=False, options={"expires": utc_now() + timedelta(days=1000)})
    return move.verifier(online=False, now=utc_now() + timedelta(days=days))


def test_a_sealed_release_stays_sealed_and_brings_its_grants(move: Move) -> None:
    node = recipient()
    move.push_sealed("acme/secret:v1", node)
    move.push_sealed("acme/secret:v2")
    (volume,) = move.export("acme/secret:v1", grants=True)
    brought = move.bring([volume])
    assert node.public.id in brought.accepted.grants
    kept = move.home / "out" / ".pqreg" / "grants"
    assert {path.name for path in kept.iterdir()} == {
        f"{one}.{kind}" for one in brought.accepted.grants for kind in ("json", "tlog-proof")
    }
    assert b"secret" not in volume.replace(b"acme/secret", b"")
    (bare,) = move.export("acme/secret:v1")
    assert move.bring([bare], "bare").accepted.grants == {}


def test_a_full_disk_leaves_nothing_half_and_the_next_try_goes_on(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    move.push("acme/full:v1", 6, size=SIZE)
    (volume,) = move.export("acme/full:v1")
    original = os.pwritev if hasattr(os, "pwritev") else None
    assert original is not None

    real = tree.write_fully
    written = 0

    def write(descriptor: int, view: memoryview, offset: int) -> None:
        nonlocal written
        written += 1
        if written > 2:
            raise OSError(28, "No space left on device")
        real(descriptor, view, offset)

    monkeypatch.setattr(staging, "write_fully", write)
    with pytest.raises(StorageError, match="cannot write"):
        move.bring([volume])
    assert final_names(move.home / "out") == set()
    monkeypatch.undo()
    brought = move.bring([volume])
    assert brought.present > 0
    verify_directory(move.home / "out", move.verifier(online=False), full=True)


@pytest.mark.parametrize(
    "volume_size", [None, limits.BUNDLE_VOLUME_BYTES, 3 * limits.MIB, 5 * limits.MIB, 100 * limits.MIB]
)
def test_layouts_are_whole_and_fit(volume_size: int | None) -> None:
    files = {
        "a": os.urandom(7),
        "b": os.urandom(2 * limits.SHARD_BYTES),
        "c": os.urandom(5 * limits.SHARD_BYTES + 1),
        "empty": b"",
        "twice": b"same",
        "again": b"same",
    }
    manifest = samples.manifest(files)
    documents = {ENVELOPE: b"e" * 9000, MANIFEST: manifest.encode()}
    options = {"created": utc_now(), "volume_size": volume_size}
    if volume_size is not None and volume_size < limits.SHARD_BYTES:
        with pytest.raises(UsageError):
            lay_out(manifest.name, Digest.of(b""), manifest.files, documents, **options)  # type: ignore[arg-type]
        return
    bundle = lay_out(manifest.name, Digest.of(b""), manifest.files, documents, **options)  # type: ignore[arg-type]
    assert Bundle.parse(bundle.encode()) == bundle
    assert len(check_layout(bundle, manifest.files)) == 5
    assert (len(bundle.volumes) == 1) == (volume_size in (None, 100 * limits.MIB))


def test_a_layout_that_lies_is_refused() -> None:
    manifest = samples.manifest({"a": os.urandom(3 * limits.SHARD_BYTES + 5)})
    documents = {ENVELOPE: b"e", MANIFEST: b"m"}
    bundle = lay_out(
        manifest.name, Digest.of(b""), manifest.files, documents, created=utc_now(), volume_size=5 * limits.MIB
    )
    (first, *_), *rest = bundle.volumes
    assert rest
    for volumes in (
        bundle.volumes[1:],
        (*bundle.volumes, bundle.volumes[0]),
        ((replace(first, size=first.size + 1),), *rest),
        ((replace(first, shards=first.shards + 1),), *rest),
        ((replace(first, first=1),), *rest),
        ((replace(first, blob=Digest.of(b"other")),), *rest),
        ((replace(first, shards=10**9),), *rest),
    ):
        with pytest.raises(BundleMismatch):
            check_layout(replace(bundle, volumes=volumes), manifest.files)
