# SPDX-License-Identifier: Apache-2.0
"""Genuine releases on disk: directories with their evidence, and trust files that believe their publisher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pq_registry.format.bundle import encode_bundle
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import MANIFEST_NAME
from pq_registry.format.name import RepositoryName
from pq_registry.format.path import ReleasePath
from pq_registry.format.statement import EC_BUNDLE_NAME, PQ_BUNDLE_NAME
from pqreg_keys.custody import SecretIdentity
from tests.samples import FILES, REPOSITORY, publisher, release, trust_file


def release_directory(
    path: Path,
    files: Mapping[str, bytes] = FILES,
    *,
    name: RepositoryName = REPOSITORY,
    signer: SecretIdentity | None = None,
) -> Digest:
    """Write a signed release into the new directory ``path``; answers the release's digest."""
    signer = signer or publisher()
    envelope, manifest = release(files, name=name, signer=signer)
    path.mkdir(parents=True)
    for name_, content in files.items():
        target = ReleasePath(name_).under(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    (path / MANIFEST_NAME).write_bytes(manifest)
    (path / EC_BUNDLE_NAME).write_bytes(encode_bundle(envelope, "ec", signer.identity.ec_pem))
    (path / PQ_BUNDLE_NAME).write_bytes(encode_bundle(envelope, "pq", signer.identity.pq_pem))
    return envelope.payload_digest


def write_trust(path: Path, **fields: object) -> Path:
    """Write a trust file that believes ``samples.publisher()`` for the namespace acme."""
    path.write_bytes(trust_file(**fields).encode())
    return path
