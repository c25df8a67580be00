# SPDX-License-Identifier: Apache-2.0
"""Verifying a directory, a registry's copy, and what other OMS tools signed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pq_registry.client.verify import verify_directory, verify_oms, verify_remote
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import (
    DigestMismatch,
    FileDigestMismatch,
    FileSetMismatch,
    FormatError,
    ManifestMismatch,
    NameMismatch,
    PqregError,
    ServerRefused,
    ShardMismatch,
    SignatureInvalid,
    TensorTableMismatch,
    UsageError,
)
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import FileEntry, Manifest
from pq_registry.format.name import Reference
from pq_registry.format.release import statement_of
from pq_registry.format.tensors import TensorTable
from tests.fake_registry import serving
from tests.pull_site import FILES, SHARD, TENSORS, Site, content
from tests.samples import NOW, REPOSITORY, file_entry, publisher


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving() as registry:
        yield Site(registry, tmp_path)


@pytest.fixture
def pulled(site: Site) -> Site:
    site.pull(site.add())
    return site


class Watcher:
    """Adds up what it is told."""

    def __init__(self) -> None:
        self.total = self.seen = 0
        self.ended = False

    def start(self, _label: str, total_bytes: int) -> None:
        self.total = total_bytes

    def advance(self, count: int) -> None:
        self.seen += count

    def done(self) -> None:
        self.ended = True


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("workers", [None, 1, 5])
def test_every_byte_is_accounted_for(pulled: Site, full: bool, workers: int | None) -> None:
    watcher = Watcher()
    verify_directory(pulled.out, pulled.offline, progress=watcher, workers=workers, full=full)
    assert watcher.seen == watcher.total == sum(map(len, FILES.values()))
    assert watcher.ended


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("at", [0, 1, SHARD - 1, SHARD, 3 * SHARD + 5, len(TENSORS) - 1])
def test_any_flipped_bit_is_found(pulled: Site, at: int, full: bool) -> None:
    path = pulled.out / "sub/model.safetensors"
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))
    with pytest.raises(ShardMismatch) as caught:
        verify_directory(pulled.out, pulled.offline, full=full)
    assert caught.value.step == 8
    assert f"shard {at // SHARD} of sub/model.safetensors" in str(caught.value)


@pytest.mark.parametrize("change", ["missing", "additional", "empty", "longer", "shorter", "renamed case", "hidden"])
def test_the_file_set_is_exactly_the_signed_one(pulled: Site, change: str) -> None:
    path = pulled.out / "vocab.txt"
    data = path.read_bytes()
    if change == "missing":
        path.unlink()
    elif change == "additional":
        (pulled.out / "sub/evil.py").write_text("import os")
    elif change == "hidden":
        (pulled.out / ".gitignore").write_text("")
    elif change == "renamed case":
        path.rename(pulled.out / "Vocab.txt")
    else:
        path.write_bytes({"empty": b"", "longer": data + b"x", "shorter": data[:-1]}[change])
    with pytest.raises(FileSetMismatch) as caught:
        verify_directory(pulled.out, pulled.offline)
    assert caught.value.step == 6
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "kind", "step"),
    [("model.sig", SignatureInvalid, 2), ("model.pq.sig", SignatureInvalid, 2), ("pqreg.json", ManifestMismatch, 3)],
)
def test_a_missing_piece_of_evidence_is_named(pulled: Site, name: str, kind: type[PqregError], step: int) -> None:
    (pulled.out / name).unlink()
    with pytest.raises(kind, match=name.replace(".", r"\.")) as caught:
        verify_directory(pulled.out, pulled.offline)
    assert caught.value.step == step


@pytest.mark.parametrize(
    ("name", "kind", "step"),
    [("model.sig", SignatureInvalid, 2), ("model.pq.sig", SignatureInvalid, 2), ("pqreg.json", ManifestMismatch, 3)],
)
def test_a_directory_in_the_place_of_evidence_is_missing_evidence(
    pulled: Site, name: str, kind: type[PqregError], step: int
) -> None:
    (pulled.out / name).unlink()
    (pulled.out / name).mkdir()
    with pytest.raises(kind) as caught:
        verify_directory(pulled.out, pulled.offline)
    assert caught.value.step == step


@pytest.mark.parametrize("name", ["model.sig", "model.pq.sig", "pqreg.json"])
@pytest.mark.parametrize("damage", [b"", b"{}", b"\x00\xff", b"[" * 100_000])
def test_f08_damaged_evidence_is_an_error_of_the_tree(pulled: Site, name: str, damage: bytes) -> None:
    (pulled.out / name).write_bytes(damage)
    with pytest.raises((FormatError, ManifestMismatch)) as caught:
        verify_directory(pulled.out, pulled.offline)
    assert caught.value.step in (2, 3)


def test_evidence_of_two_releases_does_not_mix(pulled: Site) -> None:
    saved = (pulled.out / "model.pq.sig").read_bytes()
    pulled.pull(pulled.add({**FILES, "config.json": b"other"}))
    (pulled.out / "model.pq.sig").write_bytes(saved)
    with pytest.raises(SignatureInvalid):
        verify_directory(pulled.out, pulled.offline)


def test_the_expected_name_and_digest_are_enforced(pulled: Site) -> None:
    digest = verify_directory(pulled.out, pulled.offline, expected=Reference.parse("acme/minilm")).release.digest
    verify_directory(pulled.out, pulled.offline, expected=Reference.parse(f"acme/minilm@{digest}"))
    with pytest.raises(NameMismatch):
        verify_directory(pulled.out, pulled.offline, expected=Reference.parse("acme/other"))
    with pytest.raises(DigestMismatch):
        verify_directory(pulled.out, pulled.offline, expected=Reference.parse(f"acme/minilm@{Digest.of(b'x')}"))


def test_no_directory_is_the_callers_mistake(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nothing", tmp_path / "file", Path("x\0y")):
        with pytest.raises(UsageError):
            verify_directory(path, site.offline)
    with pytest.raises(UsageError):
        (tmp_path / "out").mkdir()
        site.pull(site.add())
        verify_directory(site.out, site.offline, workers=0)


def lying_manifest(site: Site, name: str, entry: FileEntry, data: bytes) -> Digest:
    """A release, properly signed, whose manifest lies about one file."""
    entries = tuple(sorted([file_entry("config.json", b"{}"), entry], key=lambda item: item.path.text))
    manifest = Manifest(REPOSITORY, publisher().identity.id, "00" * 16, NOW, entries).encode()
    envelope = sign_envelope(statement_of(Manifest.parse(manifest), manifest).encode(), publisher())
    digest = site.registry.add_release(envelope, manifest, {"config.json": b"{}"})
    site.registry.blobs[entry.sha256.hex] = data
    assert name == entry.path.text
    return digest


def test_a_release_that_is_two_models_by_its_digests_is_refused(site: Site) -> None:
    """Shards of one content, SHA-256 of another: a reader of shards and a reader of files would see two models."""
    honest = file_entry("m.bin", b"A" * 5000)
    lie = FileEntry(honest.path, honest.size, Digest.of(b"B" * 5000), honest.shards)
    digest = lying_manifest(site, "m.bin", lie, b"A" * 5000)
    with pytest.raises(FileDigestMismatch) as caught:
        site.pull(digest)
    assert caught.value.step == 8
    assert not (site.out / "m.bin").exists()


def test_a_release_that_is_two_models_by_its_header_is_refused(site: Site) -> None:
    honest = file_entry("m.safetensors", TENSORS)
    assert honest.tensors is not None
    renamed = TensorTable(honest.tensors.header_size, (("format", "pt"),), honest.tensors.tensors)
    lie = FileEntry(honest.path, honest.size, honest.sha256, honest.shards, renamed)
    digest = lying_manifest(site, "m.safetensors", lie, TENSORS)
    with pytest.raises(TensorTableMismatch) as caught:
        site.pull(digest)
    assert caught.value.step == 8
    assert not (site.out / "m.safetensors").exists()


def test_two_paths_of_one_digest_cannot_have_different_shards(site: Site) -> None:
    honest = file_entry("m.bin", b"A" * 5000)
    other = file_entry("n.bin", b"B" * 5000)
    lie = FileEntry(other.path, other.size, honest.sha256, other.shards)
    entries = (honest, lie)
    manifest = Manifest(REPOSITORY, publisher().identity.id, "00" * 16, NOW, entries).encode()
    envelope = sign_envelope(statement_of(Manifest.parse(manifest), manifest).encode(), publisher())
    digest = site.registry.add_release(envelope, manifest, {"m.bin": b"A" * 5000})
    with pytest.raises(FileDigestMismatch):
        site.pull(digest)
    assert content(site.out) == {} or ".pqreg" in next(iter(content(site.out)))


def test_a_registry_is_asked_for_sizes_and_not_for_weights(site: Site) -> None:
    resolved = site.resolve(site.add())
    with site.client() as client:
        assert verify_remote(resolved, client, expected=Reference.parse("acme/minilm")) is resolved.verified
        assert not site.registry.ranges
        with pytest.raises(NameMismatch):
            verify_remote(resolved, client, expected=Reference.parse("acme/other"))
        with pytest.raises(DigestMismatch):
            verify_remote(resolved, client, expected=Reference.parse(f"acme/minilm@{Digest.of(b'x')}"))


@pytest.mark.parametrize("trouble", ["missing", "size", "refused"])
def test_a_registry_that_lacks_a_file_is_found_out(site: Site, trouble: str) -> None:
    resolved = site.resolve(site.add())
    name = Digest.of(TENSORS).hex
    if trouble == "missing":
        del site.registry.blobs[name]
    elif trouble == "size":
        site.registry.blobs[name] += b"x"
    else:
        site.registry.rules[f"HEAD /v1/blobs/sha256/{name}"] = lambda handler: handler.send(500, b"")
    with site.client() as client, pytest.raises(ServerRefused if trouble == "refused" else FileSetMismatch):
        verify_remote(resolved, client)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A directory signed by the stock tool, and the public key."""
    home = tmp_path_factory.mktemp("foreign")
    key = ec.generate_private_key(ec.SECP256R1())
    (home / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (home / "pub.pem").write_bytes(public)
    model = home / "model"
    (model / "sub").mkdir(parents=True)
    (model / "config.json").write_bytes(b"{}")
    (model / "empty").write_bytes(b"")
    (model / "sub/weights.bin").write_bytes(hashlib.sha256(b"w").digest() * 100_000)
    subprocess.run(
        [sys.executable, "-m", "model_signing", "sign", "key", str(model), "--private_key", str(home / "key.pem"),
         "--signature", str(model / "model.sig")],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return model, public


@pytest.fixture
def theirs(foreign: tuple[Path, bytes], tmp_path: Path) -> tuple[Path, bytes]:
    shutil.copytree(foreign[0], tmp_path / "theirs")
    return tmp_path / "theirs", foreign[1]


def test_what_the_stock_tool_signed_verifies(theirs: tuple[Path, bytes]) -> None:
    watcher = Watcher()
    statement = verify_oms(*theirs, progress=watcher)
    assert {name for name, _ in statement.resources} == {"config.json", "empty", "sub/weights.bin"}
    assert watcher.seen == watcher.total == 3_200_002


def test_what_the_stock_tool_signed_and_somebody_changed_does_not(theirs: tuple[Path, bytes]) -> None:
    model, public = theirs
    (model / "config.json").write_bytes(b"[]")
    with pytest.raises(FileDigestMismatch, match=r"config\.json"):
        verify_oms(model, public)
    (model / "config.json").write_bytes(b"{}")
    (model / "additional").write_bytes(b"")
    with pytest.raises(FileSetMismatch, match="additional"):
        verify_oms(model, public)
    (model / "additional").unlink()
    (model / "empty").unlink()
    with pytest.raises(FileSetMismatch, match="empty"):
        verify_oms(model, public)
    (model / "empty").symlink_to("/dev/null")
    with pytest.raises(FileSetMismatch):
        verify_oms(model, public)


def test_a_foreign_signature_by_another_key_or_none_is_refused(theirs: tuple[Path, bytes]) -> None:
    model, _ = theirs
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = other.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(SignatureInvalid) as caught:
        verify_oms(model, pem)
    assert caught.value.step == 2
    with pytest.raises(FormatError):
        verify_oms(model, b"no key")
    (model / "model.sig").unlink()
    with pytest.raises(SignatureInvalid):
        verify_oms(model, pem)


def test_a_release_of_ours_verifies_as_a_foreign_one_by_its_ec_half(pulled: Site) -> None:
    statement = verify_oms(pulled.out, publisher().identity.ec_pem)
    assert statement.model_name == "minilm"
    assert "pqreg.json" in {name for name, _ in statement.resources}
