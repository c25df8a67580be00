# SPDX-License-Identifier: Apache-2.0
"""The attacks: what a registry, a disk or a thief of half a key can try, and what the node answers."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pq_registry.client.directory import ReleaseDirectory, write_evidence
from pq_registry.crypto.shards import ShardHasher
from pq_registry.format.dsse import Envelope, pae
from pq_registry.format.manifest import FileEntry, Manifest
from pq_registry.format.release import Release, statement_of
from pqreg_cli.demo.place import DemoFailed
from pqreg_cli.demo.stage import MODEL, PULLED, REFERENCE, REGISTRY_DATA, Stage
from pqreg_keys import custody


def show_attacks(stage: Stage) -> None:
    """Everything that must be refused."""
    _flipped_byte(stage)
    _stripped_half(stage)
    _forged_half(stage)
    _foreign_key(stage)
    _no_trust(stage)


def _flipped_byte(stage: Stage) -> None:
    stage.report.step("ATTACK: one bit of the weights is flipped in the registry's storage")
    largest = largest_file(stage)
    with flipped(blob_of(stage, largest), largest.size // 2):
        stage.refused(stage.node, ["pull", REFERENCE, "node/flipped"], step=8, what="one flipped bit in storage")
    _check_no_weights(stage, "node/flipped", largest.path.text)


def largest_file(stage: Stage) -> FileEntry:
    """The weights, as the manifest has them."""
    manifest = Manifest.parse((stage.place.root / PULLED / "pqreg.json").read_bytes())
    return max(manifest.files, key=lambda entry: entry.size)


def blob_of(stage: Stage, entry: FileEntry) -> Path:
    """Where the registry keeps a file."""
    digest = entry.sha256.hex
    return stage.place.root / REGISTRY_DATA / "blobs" / "sha256" / digest[:2] / digest


def _stripped_half(stage: Stage) -> None:
    stage.report.step(
        "ATTACK: a mirror strips the ML-DSA half of the signature and repeats the ECDSA half in its place"
    )
    stripped = stage.place.root / "node" / "stripped"
    shutil.copytree(stage.place.root / PULLED, stripped)
    shutil.copyfile(stripped / "model.sig", stripped / "model.pq.sig")
    stage.refused(stage.node, ["verify", "node/stripped"], step=2, what="stripped ML-DSA half")


def _forged_half(stage: Stage) -> None:
    stage.report.step("ATTACK: a quantum computer has found Alice's ECDSA key and signs a changed model with it")
    forged = stage.place.root / "node" / "forged"
    shutil.copytree(stage.place.root / PULLED, forged, ignore=shutil.ignore_patterns(".pqreg"))
    _forge(stage, forged)
    stage.refused(
        stage.node,
        ["verify", "node/forged"],
        step=2,
        what="forged ECDSA half, changed model",
        comment="its ECDSA signature is genuine; the ML-DSA one is Alice's for the old model",
    )


def _foreign_key(stage: Stage) -> None:
    stage.report.step(
        "ATTACK: Mallory serves the same model under the same name, from a registry and with a key of his own"
    )
    stage.quiet(stage.mallory, ["key", "generate", "mallory", "--dir", "rogue-keys", "--no-passphrase"])
    url = stage.place.registry(stage.mallory, "rogue")
    token = (stage.place.root / "rogue" / "admin.token").read_text().strip()
    mallory = stage.mallory.having(PQREG_REGISTRY=url, PQREG_TOKEN=token)
    stage.good(mallory, ["push", MODEL, REFERENCE, "--key", "rogue-keys/mallory.pqkey"], "to Mallory's registry")
    node = stage.node.having(PQREG_REGISTRY=url, PQREG_TOKEN=token)
    stage.refused(
        node,
        ["pull", REFERENCE, "node/foreign"],
        step=2,
        what="a foreign key signs the model",
        comment="from Mallory's registry",
    )


def _no_trust(stage: Stage) -> None:
    stage.report.step("A client without a trust file believes nobody")
    stage.refused(
        stage.node.having(PQREG_TRUST=None),
        ["pull", REFERENCE, "node/blind"],
        step=0,
        what="a client without trust",
        comment="without PQREG_TRUST",
    )


@contextlib.contextmanager
def flipped(path: Path, offset: int) -> Iterator[None]:
    """One bit of a stored file is another while the block runs."""
    path.chmod(0o600)
    _flip(path, offset)
    try:
        yield
    finally:
        _flip(path, offset)
        path.chmod(0o440)


def _flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def _check_no_weights(stage: Stage, directory: str, name: str) -> None:
    if (stage.place.root / directory / name).exists():
        raise DemoFailed(f"an unverified file stands at {directory}/{name}")


def _forge(stage: Stage, directory: Path) -> None:
    """What a thief of the ECDSA key alone can do: change the weights and sign the whole release anew with that half."""
    old = Manifest.parse((directory / "pqreg.json").read_bytes())
    target = max(old.files, key=lambda entry: entry.size)
    weights = target.path.under(directory)
    _flip(weights, target.size - 1)
    hasher = ShardHasher()
    hasher.update(weights.read_bytes())
    _, sha256, shards = hasher.result()
    changed = replace(target, sha256=sha256, shards=shards)
    manifest = replace(old, files=tuple(changed if entry is target else entry for entry in old.files))
    statement = statement_of(manifest, manifest.encode())
    payload = statement.encode()
    alice = custody.load(stage.place.root / "keys" / "alice.pqkey", None)
    ec_signature, _out_of_reach = alice.sign(pae(payload))
    with ReleaseDirectory(directory) as opened:
        genuine = Envelope.parse(opened.evidence().envelope)
    envelope = Envelope(payload, ec_signature, genuine.pq_signature)
    release = Release(
        name=manifest.name,
        digest=envelope.payload_digest,
        statement=statement,
        manifest=manifest,
        manifest_bytes=manifest.encode(),
        envelope=envelope,
    )
    write_evidence(directory, release, alice.identity)
