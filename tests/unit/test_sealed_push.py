# SPDX-License-Identifier: Apache-2.0
"""A sealed release from the directory to the node: pushed, granted, pulled, verified; what is unchanged is reused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.client.verify import verify_contents, verify_directory
from pq_registry.crypto.suites import Profile
from pq_registry.errors import (
    FileSetMismatch,
    GrantMissing,
    InnerMismatch,
    ReceiptMissing,
    ShardMismatch,
    SignatureInvalid,
)
from pq_registry.format.leaf import Kind
from pq_registry.format.sealing import INNER_NAME
from tests.logsamples import MemoryLog
from tests.samples import publisher
from tests.sealed_registry import sealed_registry
from tests.sealing_site import REFERENCE, SealingSite, contents_of, model_files, recipient, write_files


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SealingSite]:
    with sealed_registry() as registry:
        site = SealingSite(registry, tmp_path)
        yield site
        site.close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_files(tmp_path / "model", model_files())


def test_a_granted_node_gets_every_file_and_a_mirror_verifies_without_a_key(site: SealingSite, model: Path) -> None:
    node = recipient()
    result = site.push(model, node.public, license="Apache-2.0")
    assert result.pushed.minted
    assert [grant.statement.recipient for grant in result.grants][1:] == [node.public.id]
    assert result.pushed.manifest.license is None
    out = site.home / "out"
    pulled = site.pull(node, out)
    assert contents_of(out) == model_files()
    assert pulled.fetched == sum(map(len, model_files().values()))
    contents = verify_contents(out, site.verifier(), expected=REFERENCE, full=True)
    assert contents.inner is not None
    assert contents.inner.license == "Apache-2.0"
    assert not contents.sealed
    mirror = site.home / "mirror"
    site.pull_sealed(mirror)
    assert {path.name for path in mirror.iterdir()} == {
        "sealed", INNER_NAME, "pqreg.json", "model.sig", "model.pq.sig", ".pqreg",
    } - ({".pqreg"} if not (mirror / ".pqreg").exists() else set())  # fmt: skip
    for full in (False, True):
        assert verify_directory(mirror, site.verifier(), full=full).release.digest == result.pushed.release


def test_level_3_recipients_work_too(site: SealingSite, model: Path) -> None:
    node = recipient("level3", Profile.LEVEL_3)
    site.push(model, node.public)
    site.pull(node, site.home / "out")
    assert contents_of(site.home / "out") == model_files()


def test_without_a_grant_nothing_opens(site: SealingSite, model: Path) -> None:
    site.push(model)
    with pytest.raises(GrantMissing):
        site.pull(recipient("stranger"), site.home / "out")
    assert not (site.home / "out").exists()


def test_unchanged_files_move_the_tag_and_seal_nothing(site: SealingSite, model: Path) -> None:
    first = site.push(model)
    sent = len(site.registry.parts)
    late = recipient("late")
    again = site.push(model, late.public)
    assert (again.pushed.release, again.pushed.minted) == (first.pushed.release, False)
    assert len(site.registry.parts) == sent
    assert [grant.changed for grant in again.grants] == [False, True]
    site.pull(late, site.home / "out")
    (model / "config.json").write_text("{}")
    assert site.push(model).pushed.minted


def test_the_plan_is_private_and_gone_afterwards(site: SealingSite, model: Path) -> None:
    seen: list[int] = []

    def look(_handler: object) -> bool:
        plans = list((site.home / "state" / "plans").glob("*.json"))
        seen.extend(path.stat().st_mode & 0o777 for path in plans)
        return False

    site.registry.rules = {"PUT": look, **site.registry.rules}
    site.push(model)
    assert seen
    assert set(seen) == {0o600}
    assert not list((site.home / "state" / "plans").glob("*.json"))


def test_an_unsealed_directory_is_what_it_says_or_is_refused(site: SealingSite, model: Path) -> None:
    node = recipient()
    site.push(model, node.public)
    out = site.home / "out"
    site.pull(node, out)
    target = out / "config.json"
    original = target.read_bytes()
    target.write_bytes(original[:-1] + b"!")
    with pytest.raises(ShardMismatch):
        verify_directory(out, site.verifier())
    target.write_bytes(original)
    (out / "extra").write_bytes(b"x")
    with pytest.raises(FileSetMismatch):
        verify_directory(out, site.verifier())
    (out / "extra").unlink()
    inner = out / ".pqreg" / INNER_NAME
    data = inner.read_bytes()
    inner.write_bytes(data.replace(b'"license":null', b'"license":"GPL"'))
    with pytest.raises(InnerMismatch):
        verify_directory(out, site.verifier())
    inner.write_bytes(data)
    (out / "model.sig").write_bytes((out / ".pqreg" / "model.sig").read_bytes())
    with pytest.raises(FileSetMismatch):
        verify_directory(out, site.verifier())
    inner.unlink()
    with pytest.raises(SignatureInvalid):
        verify_directory(out, site.verifier())


def test_an_unsealed_directory_says_what_its_log_attests(site: SealingSite, model: Path) -> None:
    node = recipient()
    site.push(model, node.public)
    out = site.home / "out"
    site.pull(node, out)
    log = MemoryLog(time=int(site.now.timestamp()))
    signer = publisher().identity.id
    receipt = log.log(site.release().envelope, kind=Kind.RELEASE, name=str(REFERENCE.repository), identity=signer)
    site.trust = replace(site.trust, log=log.policies())
    with pytest.raises(ReceiptMissing):
        verify_directory(out, site.verifier())
    (out / ".pqreg/model.tlog-proof").write_bytes(receipt)
    notes = verify_directory(out, site.verifier()).notes
    assert notes[0].startswith("transparency log: leaf 0 of")
    assert notes[-1].startswith("log freshness: not checked")


def test_a_directory_goes_from_release_to_release_sealed_and_unsealed(site: SealingSite, model: Path) -> None:
    node = recipient()
    first = site.push(model, node.public).pushed.release
    out = site.home / "out"
    site.pull(node, out)
    files = dict(model_files())
    del files["sub/vocab.txt"]
    (model / "sub" / "vocab.txt").unlink()
    second = site.push(model, node.public).pushed.release
    assert second != first
    result = site.pull(node, out)
    assert result.present == sum(map(len, files.values()))
    assert contents_of(out) == files
    site.pull_sealed(out)
    assert verify_directory(out, site.verifier(), full=True).release.digest == second
    assert (out / "sealed" / "00000").exists()
    assert not (out / "config.json").exists()
    assert not (out / ".pqreg" / INNER_NAME).exists()
    site.pull(node, out)
    assert contents_of(out) == files
    assert verify_directory(out, site.verifier(), full=True).release.digest == second


def test_plaintext_is_for_its_owner_unless_somebody_decided_otherwise(site: SealingSite, model: Path) -> None:
    node = recipient()
    site.push(model, node.public)
    made, there = site.home / "made", site.home / "there"
    there.mkdir(mode=0o755)
    before = os.umask(0o022)
    try:
        for out in (made, there):
            site.pull(node, out)
        site.pull_sealed(site.home / "ciphertext")
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in (made, there, site.home / "ciphertext")]
    assert modes == [0o700, 0o755, 0o755]


def test_one_shard_is_read_without_its_neighbours(site: SealingSite, model: Path) -> None:
    node = recipient()
    site.push(model, node.public)
    with site.unseal(node) as unsealed:
        from pq_registry.client.source import RemoteSource

        entry = next(file for file in unsealed.inner.files if file.path.text == "model.safetensors")
        site.registry.ranges.clear()
        with unsealed.source(RemoteSource(site.client())) as source:
            view = memoryview(bytearray(limits.SHARD_BYTES))
            source.read_into(entry, limits.SHARD_BYTES, view)
        start = limits.SHARD_BYTES
        assert bytes(view) == model_files()["model.safetensors"][start : 2 * start]
        slice_bytes = limits.SHARD_BYTES + limits.SEAL_TAG_BYTES
        assert [(begin, length) for _, begin, length in site.registry.ranges] == [(slice_bytes, slice_bytes)]
